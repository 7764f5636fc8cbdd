package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddy-jwt/caddy-jwt/internal/useragent"
	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"go.uber.org/zap"
)

const (
	providerTimeout  = 5 * time.Second // of a request to a provider in total
	maxProviderBytes = 1 << 20         // of its response
	providerGood     = time.Hour       // until the next discovery
	firstPause       = time.Second     // after a failed discovery, doubled each time
	longestPause     = 30 * time.Second
)

// discoveries are the providers in use, by issuer. They outlive config reloads, so that a
// reload does not repeat the discovery.
var discoveries = caddy.NewUsagePool()

// discovered is the metadata of a provider (OpenID Connect Discovery 1.0). It is fetched
// only when it is needed.
type discovered struct {
	issuer string
	client *http.Client
	here   atomic.Bool  // whether it is on this machine
	keys   *jwks.KeySet // which looks the provider up itself, again when a key does not fit

	mu       sync.Mutex // held during discovery: others wait for the result
	known    *metadata
	next     time.Time // of the next discovery
	pause    time.Duration
	complain string // error of the last discovery; empty if it succeeded
	outage   outage.Outage

	logins outage.Outage // of requests to the provider during log-ins
}

// metadata of a provider.
type metadata struct {
	provider *gooidc.Provider

	KeysURL     string   `json:"jwks_uri"`
	AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
	IssInAnswer bool     `json:"authorization_response_iss_parameter_supported"`
	issuer      string
}

func newDiscovered(issuer string) (*discovered, error) {
	d := &discovered{issuer: issuer}
	d.client = clientFor(boundedTransport{d})
	var err error
	d.keys, err = jwks.Open(jwks.Settings{Issuer: issuer, Timeout: providerTimeout}, jwks.Options{})
	return d, err
}

// Destruct implements caddy.Destructor.
func (d *discovered) Destruct() error { return d.keys.Close() }

// get returns the metadata, and runs the discovery if necessary. While the provider is
// unavailable, there is a pause between attempts, and get returns the last error.
func (d *discovered) get(ctx context.Context, log *zap.Logger) (*metadata, error) {
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
		d.complain = err.Error()
		return d.last(now)
	}
	d.note(log, now, nil)
	d.known, d.complain, d.pause, d.next = loaded, "", 0, time.Now().Add(providerGood)
	return loaded, nil
}

func (d *discovered) note(log *zap.Logger, now time.Time, err error) {
	d.outage.Note(log.With(zap.String("issuer", d.issuer)), now, err, help.See("provider-not-found"),
		"provider discovery fails; nobody can log in through it until it works; will retry at the next log-in",
		"provider discovery works again")
}

// last returns the result of the last successful discovery.
func (d *discovered) last(now time.Time) (*metadata, error) {
	if d.known != nil {
		return d.known, nil
	}
	return nil, &refusal.Error{
		Reason: refusal.ProviderUnavailable, Detail: d.issuer + ": " + d.complain,
		RetryAfter: max(d.next.Sub(now), firstPause),
	}
}

func (d *discovered) look(ctx context.Context) (*metadata, error) {
	traced, isHere := thismachine.Reached(ctx)
	provider, err := gooidc.NewProvider(traced, d.issuer)
	if err != nil {
		return nil, fmt.Errorf("%.300s", err) // it may contain a whole page
	}
	m := &metadata{provider: provider, issuer: d.issuer}
	if err := provider.Claims(m); err != nil {
		return nil, err
	}
	d.here.Store(isHere())
	endpoint := provider.Endpoint()
	own, err := url.Parse(d.issuer)
	if err != nil {
		return nil, err
	}
	for name, at := range map[string]string{
		"authorization_endpoint": endpoint.AuthURL, "token_endpoint": endpoint.TokenURL,
		"jwks_uri": m.KeysURL, "userinfo_endpoint": provider.UserInfoEndpoint(),
	} {
		if u, err := url.Parse(at); (at != "" || name != "userinfo_endpoint") &&
			(err != nil || u.Host == "" || !protocol.SecureURL(u) || own.Scheme == "https" && u.Scheme != "https" ||
				thismachine.Is(u.Hostname()) && !isHere()) {
			// Otherwise a remote provider could make this site send requests to its own
			// machine.
			return nil, fmt.Errorf(
				"its %s is %.100q; it must be an https URL, or http on this machine if the issuer is also http",
				name, at,
			)
		}
	}
	return m, nil
}

var transport = useragent.Wrap(thismachine.NewTransport(http.DefaultTransport.(*http.Transport).Clone()))

// boundedTransport limits the size of a provider's responses, and refuses connections to
// this machine unless the provider is on this machine.
type boundedTransport struct{ provider *discovered }

// RoundTrip implements http.RoundTripper.
func (t boundedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	if own, err := url.Parse(t.provider.issuer); err != nil || own.Host != request.URL.Host && !t.provider.here.Load() {
		request = request.WithContext(thismachine.Forbid(request.Context()))
	}
	response, err := transport.RoundTrip(request)
	if err == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, maxProviderBytes), response.Body}
	}
	return response, err
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
