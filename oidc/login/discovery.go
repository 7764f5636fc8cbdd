package login

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/internal/outgoing"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"go.uber.org/zap"
	"golang.org/x/oauth2"
)

const (
	providerTimeout  = 5 * time.Second // of a request to a provider in total
	maxProviderBytes = 1 << 20         // of its response
	providerGood     = time.Hour       // until the next discovery
	firstPause       = time.Second     // after a failed discovery, doubled each time
	longestPause     = 30 * time.Second
)

// providers are the providers in use, by their source. They outlive config reloads, so that a
// reload does not repeat the discovery.
var providers = caddy.NewUsagePool()

// source is where a provider is.
type source struct {
	issuer     string
	document   string // the issuer below which the discovery document is; empty for none
	keysURL    string // if it is not the one of the document
	hosts      string // of endpoints in the config, separated by spaces
	trustedCAs string // PEM; empty for those of the system
	allowHTTP  bool
}

// provider is a provider with its metadata (OpenID Connect Discovery 1.0), which is fetched only
// when it is needed.
type provider struct {
	source
	client *http.Client
	close  func()
	here   atomic.Bool  // whether it is on this machine
	keys   *jwks.KeySet // which looks the provider up itself, again when a key does not fit

	mu       sync.Mutex // held during discovery: others wait for the result
	known    *metadata
	next     time.Time // of the next discovery
	pause    time.Duration
	complain error // of the last discovery
	outage   outage.Outage

	logins outage.Outage // of requests to the provider during log-ins
}

// metadata of a provider.
type metadata struct {
	endpoint oauth2.Endpoint
	userinfo string // empty for none

	KeysURL     string   `json:"jwks_uri"`
	AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
	IssInAnswer bool     `json:"authorization_response_iss_parameter_supported"`
	Issuer      string   `json:"issuer"`
}

func newProvider(from source) (*provider, error) {
	d := &provider{source: from}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if from.trustedCAs != "" {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM([]byte(from.trustedCAs))
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	d.client = clientFor(boundedTransport{outgoing.Wrap(thismachine.NewTransport(transport)), d})
	d.close = transport.CloseIdleConnections
	if from.document == "" {
		return d, nil
	}
	var err error
	d.keys, err = jwks.Open(jwks.Settings{
		Issuer: from.issuer, URL: from.keysURL, Timeout: providerTimeout,
		AllowHTTP: from.allowHTTP, TrustedCAs: from.trustedCAs,
	}, jwks.Options{})
	return d, err
}

// Destruct implements caddy.Destructor.
func (d *provider) Destruct() error {
	d.close()
	if d.keys == nil {
		return nil
	}
	return d.keys.Close()
}

// get returns the metadata, and runs the discovery if necessary. While the provider is
// unavailable, there is a pause between attempts, and get returns the last error.
func (d *provider) get(ctx context.Context, log *zap.Logger) (*metadata, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if now.Before(d.next) {
		return d.last(now)
	}
	// Do not cancel with the request: the next request needs the result too.
	loaded, err := d.look(gooidc.ClientContext(context.WithoutCancel(ctx), d.client))
	if err != nil {
		d.pause = min(max(2*d.pause, firstPause), longestPause)
		now = time.Now()
		d.next = now.Add(d.pause)
		d.note(log, now, err)
		d.complain = err
		return d.last(now)
	}
	d.note(log, now, nil)
	d.known, d.complain, d.pause, d.next = loaded, nil, 0, time.Now().Add(providerGood)
	return loaded, nil
}

func (d *provider) note(log *zap.Logger, now time.Time, err error) {
	d.outage.Note(log.With(zap.String("issuer", d.issuer)), now, err, help.See("provider-not-found"),
		"provider discovery fails; nobody can log in through it until it works; will retry at the next log-in",
		"provider discovery works again")
}

// last returns the result of the last successful discovery.
func (d *provider) last(now time.Time) (*metadata, error) {
	if d.known != nil {
		return d.known, nil
	}
	failed := &refusal.Error{
		Reason: refusal.ProviderMisconfigured, Detail: d.issuer + ": " + d.complain.Error(),
	}
	if errors.Is(d.complain, errUnreached) {
		failed.Reason, failed.RetryAfter = refusal.ProviderUnavailable, max(d.next.Sub(now), firstPause)
	}
	return nil, failed
}

// errUnreached means that there was no answer of the provider, or one that says that it is down.
var errUnreached = errors.New("it does not answer")

func (d *provider) look(ctx context.Context) (*metadata, error) {
	traced, isHere := thismachine.Reached(ctx)
	answered := &statusRecorder{}
	traced = context.WithValue(traced, statusRecorder{}, answered)
	if d.document != d.issuer { // the document is for several tenants
		traced = gooidc.InsecureIssuerURLContext(traced, d.issuer)
	}
	found, err := gooidc.NewProvider(traced, d.document)
	if err != nil && answered.unreached() {
		return nil, fmt.Errorf("%w: %.300s", errUnreached, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%.300s", err) // it may contain a whole page
	}
	m := &metadata{endpoint: found.Endpoint(), userinfo: found.UserInfoEndpoint()}
	if err := found.Claims(m); err != nil {
		return nil, err
	}
	if m.Issuer != d.issuer {
		return nil, fmt.Errorf("its issuer is %.100q, not %q", m.Issuer, d.issuer)
	}
	d.here.Store(isHere())
	own, err := url.Parse(d.issuer)
	if err != nil {
		return nil, err
	}
	for name, at := range map[string]string{
		"authorization_endpoint": m.endpoint.AuthURL, "token_endpoint": m.endpoint.TokenURL,
		"jwks_uri": m.KeysURL, "userinfo_endpoint": m.userinfo,
	} {
		if u, err := url.Parse(at); (at != "" || name != "userinfo_endpoint") &&
			(err != nil || u.Host == "" || !d.secure(u) ||
				own.Scheme == "https" && u.Scheme != "https" && !d.allowHTTP ||
				thismachine.Is(u.Hostname()) && !isHere()) {
			// Otherwise a remote provider could make this site send requests to its own
			// machine.
			return nil, fmt.Errorf(
				"its %s is %.100q; it must be an https URL, or http on this machine if the issuer is also http; "+
					"in a network that you trust, set allow_http", name, at,
			)
		}
	}
	return m, nil
}

// secure reports whether a URL is one that may be used.
func (s source) secure(u *url.URL) bool {
	return protocol.SecureURL(u) || s.allowHTTP && u.Scheme == "http"
}

// statusRecorder records in a context how the provider answered.
type statusRecorder struct{ status int }

// unreached reports whether there was no answer, or one that says that the provider is down.
func (s *statusRecorder) unreached() bool {
	return s.status == 0 || s.status >= 500 || s.status == http.StatusTooManyRequests
}

// boundedTransport limits the size of a provider's responses, and refuses connections to
// this machine unless the provider is on this machine.
type boundedTransport struct {
	inner    http.RoundTripper
	provider *provider
}

// RoundTrip implements http.RoundTripper.
func (t boundedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	if !t.provider.here.Load() && !t.provider.configured(request.URL.Host) {
		request = request.WithContext(thismachine.Forbid(request.Context()))
	}
	response, err := t.inner.RoundTrip(request)
	if err != nil {
		return response, err
	}
	if recorder, ok := request.Context().Value(statusRecorder{}).(*statusRecorder); ok {
		recorder.status = response.StatusCode
	}
	body := bufio.NewReader(io.LimitReader(response.Body, maxProviderBytes))
	if first, err := body.Peek(1); err == nil && first[0] == '{' && request.Method == http.MethodPost {
		response.Header.Set("Content-Type", "application/json") // which some token endpoints call text/plain
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{body, response.Body}
	return response, nil
}

// configured reports whether a host is one in the config.
func (s source) configured(host string) bool {
	own, err := url.Parse(s.issuer)
	return err == nil && own.Host == host || slices.Contains(strings.Fields(s.hosts), host)
}

// clientFor returns a client that only follows redirects within the same host, because
// requests may contain a secret.
func clientFor(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Timeout: providerTimeout, Transport: transport,
		CheckRedirect: func(request *http.Request, via []*http.Request) error {
			if first := via[0].URL; request.URL.Host != first.Host || request.URL.Scheme != first.Scheme ||
				len(via) > 3 {
				return errors.New("redirected to another host, or too many times")
			}
			return nil
		},
	}
}
