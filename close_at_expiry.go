package caddyjwt

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// serveUntil serves a request until the credential expires. Then it cancels the request and ends
// the response that has begun, or refuses the request. A connection that a handler keeps after
// it has returned is not closed; Caddy's handlers keep none.
func (h *Handler) serveUntil(
	expiry time.Time, w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter, *http.Request) error,
) error {
	if expiry.IsZero() {
		return serve(w, r)
	}
	header := w.Header().Clone()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	limited := &expiringWriter{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		cancel:                cancel, logger: h.answers.Logger,
	}
	timer := time.AfterFunc(expiry.Sub(clock.Now()), limited.expire)
	defer limited.finish() // a handler can panic to break off the response
	defer timer.Stop()
	err := serve(limited, r.WithContext(ctx))
	switch expired, begun, hijacked := limited.finish(); {
	case !expired || hijacked:
		return err
	case begun:
		panic(http.ErrAbortHandler) // so that no client takes the response for a complete one
	}
	clear(w.Header())
	maps.Copy(w.Header(), header)
	attach(r, nil, nil)
	refused := h.refuse(r, refusal.New(refusal.Expired, "it expired at %s, before the response", expiry.UTC()))
	return h.answer(w, r, &refused)
}

// errExpired is the error of a handler that goes on after the credential has expired.
var errExpired = errors.New("the credential has expired")

// expiringWriter ends a response at a time.
type expiringWriter struct {
	*caddyhttp.ResponseWriterWrapper
	cancel context.CancelFunc // of the request
	logger *zap.Logger

	mu                   sync.Mutex
	begun, expired, done bool
	conn                 net.Conn // that a handler has taken over; nil for none
}

// expire ends the request.
func (w *expiringWriter) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return
	}
	w.expired = true
	w.cancel()
	if w.begun {
		w.logger.Debug("response ended, because the credential has expired")
	}
	switch {
	case w.conn != nil:
		_ = w.conn.Close()
	case w.begun: // a handler may be waiting for a slow client
		_ = http.NewResponseController(innermost(w.ResponseWriter)).SetWriteDeadline(time.Unix(1, 0))
		// A write that begins now may set another deadline.
		time.AfterFunc(time.Second, w.expire)
	}
}

// innermost returns the server's own writer: those around it, such as Caddy's for idle timeouts,
// are only for the goroutine of the request.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}

// finish is called when the handlers have returned.
func (w *expiringWriter) finish() (expired, begun, hijacked bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	return w.expired, w.begun, w.conn != nil
}

// begin reports whether the response may be written.
func (w *expiringWriter) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.expired {
		return false
	}
	w.begun = true
	return true
}

// WriteHeader implements http.ResponseWriter.
func (w *expiringWriter) WriteHeader(status int) {
	interim := status < 200 && status != http.StatusSwitchingProtocols
	if interim || w.begin() {
		w.ResponseWriterWrapper.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *expiringWriter) Write(body []byte) (int, error) {
	if !w.begin() {
		return 0, errExpired
	}
	return w.ResponseWriterWrapper.Write(body)
}

// ReadFrom implements io.ReaderFrom, by Write, which sees the end.
func (w *expiringWriter) ReadFrom(body io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, body)
}

// FlushError is called by http.ResponseController.
func (w *expiringWriter) FlushError() error {
	if !w.begin() {
		return errExpired
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker.
func (w *expiringWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !w.begin() {
		return nil, nil, errExpired
	}
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = conn
	if w.expired {
		_ = conn.Close()
	}
	return conn, buffered, nil
}
