package authorizers

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/internal/outgoing"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/go-json-experiment/json"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(HTTP))
}

const (
	// DefaultTimeout of a question.
	DefaultTimeout = time.Second
	// maxAnswerBytes is the maximum size of an answer.
	maxAnswerBytes = 64 << 10
)

// HTTP asks a service whether a user may send a request, such as the data API of Open Policy
// Agent. The service gets `{"input": {"method", "host", "path", "query", "client_ip", "user",
// "claims"}}` by POST, and allows the request by `{"result": true}` with status 200. Any other
// result, also an undefined one, refuses it with 403. If there is no such answer, the request is
// refused with 503.
type HTTP struct {
	// URL of the service: https, http to this machine or, with `allow_http`, any http.
	// Required.
	URL string `json:"url,omitempty"`

	// Timeout is how long a request waits for the answer, from 10ms to 1m. Default: `1s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// ByStatus decides by the status of the answer instead of its body: 2xx allows the
	// request, 401 and 403 refuse it. Any other status is an outage. Default: false.
	ByStatus bool `json:"by_status,omitempty"`

	// AllowHTTP accepts plain http to other machines. Anybody who can change the traffic
	// then decides which requests are allowed.
	AllowHTTP bool `json:"allow_http,omitempty"`

	client *http.Client
	log    *zap.Logger
	outage outage.Outage
}

// CaddyModule returns the Caddy module information.
func (*HTTP) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "jwt.authorizers.http", New: func() caddy.Module { return new(HTTP) }}
}

// Provision resolves placeholders, and checks the config.
func (h *HTTP) Provision(ctx caddy.Context) error {
	if err := config.Resolve("http", &h.URL); err != nil {
		return err
	}
	u, err := url.Parse(h.URL)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" &&
		(u.Scheme != "http" || !h.AllowHTTP && !thismachine.Is(u.Hostname())) {
		return errors.New("http: it must be the https URL of the service, or http to this machine; " +
			"use `allow_http` if you trust the network in between, as in: " +
			"require http http://localhost:8181/v1/data/site/allow")
	}
	timeout := cmp.Or(time.Duration(h.Timeout), DefaultTimeout)
	if timeout < 10*time.Millisecond || timeout > time.Minute {
		return fmt.Errorf("http: timeout is %s; it must be from 10ms to 1m", timeout)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	h.client = &http.Client{
		Timeout: timeout, Transport: outgoing.Wrap(transport),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	h.log = ctx.Logger()
	return nil
}

// Cleanup closes the connections.
func (h *HTTP) Cleanup() error {
	if h.client != nil {
		h.client.CloseIdleConnections()
	}
	return nil
}

// Authorize implements Authorizer.
func (h *HTTP) Authorize(r *http.Request, user *jwt.Token) error {
	allowed, err := h.ask(r, user)
	if r.Context().Err() == nil { // else the client has gone
		h.outage.Note(
			h.log, clock.Now(), err, help.See("policy-service-down"),
			"the service of `require http` does not answer; requests get 503 until it does",
			"the service of `require http` answers again",
		)
	}
	switch {
	case err != nil:
		askedFailed.Inc()
		return &refusal.Error{Reason: refusal.AuthorizerDown, Detail: err.Error(), RetryAfter: time.Second}
	case !allowed:
		askedRefused.Inc()
		return errors.New("the service of `require http` does not allow it")
	}
	askedAllowed.Inc()
	return nil
}

func (h *HTTP) ask(r *http.Request, user *jwt.Token) (allowed bool, err error) {
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	question, err := jwt.MarshalClaims(map[string]any{"input": map[string]any{
		"method": r.Method, "host": r.Host, "path": r.URL.Path, "query": r.URL.RawQuery, "client_ip": client,
		"user": user.UserID, "claims": user.Claims,
	}})
	if err != nil {
		return false, errors.New("the request cannot be written as JSON")
	}
	response, err := h.post(r.Context(), question)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	status := response.StatusCode
	if h.ByStatus {
		if status/100 == 2 {
			return true, nil
		}
		if status == http.StatusUnauthorized || status == http.StatusForbidden {
			return false, nil
		}
		return false, fmt.Errorf("it answered %s; expected 2xx, 401 or 403", response.Status)
	}
	if status != http.StatusOK {
		return false, fmt.Errorf("it answered %s; expected 200", response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	if err != nil || len(text) > maxAnswerBytes {
		return false, fmt.Errorf("its answer is not readable, or larger than %d bytes", maxAnswerBytes)
	}
	var answer struct {
		Result any `json:"result"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return false, fmt.Errorf("its answer: %w", jwt.JSONError(err))
	}
	return answer.Result == true, nil
}

func (h *HTTP) post(ctx context.Context, question []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := h.client.Do(request)
	if failure, ok := errors.AsType[*url.Error](err); ok { // its URL may contain a key
		return nil, failure.Err
	}
	return response, err
}

// UnmarshalCaddyfile sets the module up from Caddyfile tokens. Syntax:
//
//	http <url> {
//	    timeout    <duration>
//	    by_status
//	    allow_http
//	}
func (h *HTTP) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	args := d.RemainingArgs()
	if len(args) != 1 || strings.TrimSpace(args[0]) == "" {
		return d.Errf("require http takes the URL of the service, as in: " +
			"require http http://localhost:8181/v1/data/site/allow")
	}
	h.URL = args[0]
	return config.ReadBlock(d, "require http", h.options())
}

func (h *HTTP) options() []config.Option {
	return []config.Option{
		{Name: "timeout", Read: config.Duration(&h.Timeout)},
		{Name: "by_status", Read: config.Flag(&h.ByStatus)},
		{Name: "allow_http", Read: config.Flag(&h.AllowHTTP)},
	}
}

// Interface guards
var (
	_ caddy.Provisioner     = (*HTTP)(nil)
	_ caddy.CleanerUpper    = (*HTTP)(nil)
	_ caddyfile.Unmarshaler = (*HTTP)(nil)
	_ Authorizer            = (*HTTP)(nil)
)
