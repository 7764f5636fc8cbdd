package provider

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/outgoing"
)

const maxDocumentBytes = 64 << 10

// documentTimeout is the time for all of a document.
var documentTimeout = 5 * time.Second // a test sets another

// errUnreachable means that a document could not be loaded, for whatever reason.
var errUnreachable = errors.New("it cannot be loaded")

// documentFetcher loads documents from URLs of strangers. It follows no redirects, uses no proxy,
// and keeps no connections, so that each connection is checked.
type documentFetcher struct {
	clients map[reach]*http.Client
}

func newDocumentFetcher() *documentFetcher {
	client := func(allowed func(netip.Addr) bool, trust *tls.Config) *http.Client {
		return &http.Client{
			Transport: outgoing.Wrap(&http.Transport{
				DialContext: dialer(allowed).DialContext, TLSClientConfig: trust, DisableKeepAlives: true,
				DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
			}),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &documentFetcher{map[reach]*http.Client{
		publicReach:  client(isPublic, nil),
		privateReach: client(isUnicast, nil),
		// What does not leave the machine needs no certificate that others trust.
		machineReach: client(isLoopback, &tls.Config{InsecureSkipVerify: true}), //nolint:gosec // see above
	}}
}

// fetch returns a document and how long it may be remembered.
func (f *documentFetcher) fetch(
	ctx context.Context, at *url.URL, reach reach,
) (text []byte, age time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errUnreachable, err)
	}
	request.Header.Set("Accept", "application/json")
	response, err := f.clients[reach].Do(request)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errUnreachable, err)
	}
	defer response.Body.Close()
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case response.StatusCode >= 500:
		return nil, 0, fmt.Errorf("%w: status %d", errUnreachable, response.StatusCode)
	case response.StatusCode >= 300 && response.StatusCode < 400:
		return nil, 0, errors.New("it redirects, which a client document must not")
	case response.StatusCode != http.StatusOK:
		return nil, 0, fmt.Errorf("the response has the status %d, not 200", response.StatusCode)
	case kind != "application/json" && (!strings.HasPrefix(kind, "application/") || !strings.HasSuffix(kind, "+json")):
		return nil, 0, errors.New("its Content-Type is not application/json")
	}
	text, err = io.ReadAll(io.LimitReader(response.Body, maxDocumentBytes+1))
	if err == nil {
		err = ctx.Err() // a server may end a response when its client closes the connection
	}
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("%w: %w", errUnreachable, err)
	case len(text) > maxDocumentBytes:
		return nil, 0, fmt.Errorf("it has more than %d bytes", maxDocumentBytes)
	}
	return text, documentAge(response.Header.Get("Cache-Control")), nil
}

// documentAge returns how long a document is remembered, by its Cache-Control (RFC 9111 §5.2.2).
func documentAge(cacheControl string) time.Duration {
	age := usualDocumentAge
	for directive := range strings.SplitSeq(cacheControl, ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return shortestDocumentAge
		case "max-age":
			if seconds, err := strconv.Atoi(value); err == nil && seconds >= 0 && seconds < 1<<30 {
				age = time.Duration(seconds) * time.Second
			}
		}
	}
	return min(max(age, shortestDocumentAge), longestDocumentAge)
}
