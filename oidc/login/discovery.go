package login

import (
	"context"
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

	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddy-jwt/caddy-jwt/internal/useragent"
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
	keysCooldown     = 30 * time.Second // between two fetches of keys
)

// discoveries are the providers in use, by issuer. They outlive config reloads, so that a
// reload does not repeat the discovery.
var discoveries = caddy.NewUsagePool()

// discovered is the metadata of a provider (OpenID Connect Discovery 1.0). It is fetched
// only when it is needed.
type discovered struct {
	issuer string
	client *http.Client
	here   atomic.Bool // whether it is on this machine

	mu       sync.Mutex // held during discovery: others wait for the result
	known    *metadata
	keys     *gooidc.RemoteKeySet
	keysURL  string
	next     time.Time // of the next discovery
	pause    time.Duration
	complain string // error of the last discovery; empty if it succeeded
	outage   outage.Outage

	logins outage.Outage // of requests to the provider during log-ins
}

// metadata of a provider.
type metadata struct {
	provider   *gooidc.Provider
	keys       *gooidc.RemoteKeySet
	algorithms []string

	KeysURL     string   `json:"jwks_uri"`
	Algorithms  []string `json:"id_token_signing_alg_values_supported"`
	AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
	IssInAnswer bool     `json:"authorization_response_iss_parameter_supported"`
	issuer      string
}

// signingAlgorithms are the asymmetric algorithms: no HMAC, and never none.
var signingAlgorithms = []string{
	gooidc.RS256, gooidc.RS384, gooidc.RS512, gooidc.ES256, gooidc.ES384,
	gooidc.ES512, gooidc.PS256, gooidc.PS384, gooidc.PS512, gooidc.EdDSA,
}

// verifier returns a verifier of a client's ID tokens and logout tokens.
func (m *metadata) verifier(clientID string) *gooidc.IDTokenVerifier {
	return gooidc.NewVerifier(m.issuer, m.keys, &gooidc.Config{ClientID: clientID, SupportedSigningAlgs: m.algorithms})
}

func newDiscovered(issuer string) *discovered {
	d := &discovered{issuer: issuer}
	d.client = clientFor(boundedTransport{d})
	return d
}

// Destruct implements caddy.Destructor.
func (*discovered) Destruct() error { return nil }

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
	d.outage.Note(log.With(zap.String("issuer", d.issuer)), now, err,
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
	for _, algorithm := range m.Algorithms {
		if slices.Contains(signingAlgorithms, algorithm) {
			m.algorithms = append(m.algorithms, algorithm)
		}
	}
	if len(m.algorithms) == 0 {
		m.algorithms = []string{gooidc.RS256} // every provider supports it (OpenID Connect Core §15.1)
	}
	if d.keys == nil || d.keysURL != m.KeysURL { // otherwise the known keys are kept
		d.keys, d.keysURL = gooidc.NewRemoteKeySet(
			gooidc.ClientContext(ctx, clientFor(&keysTransport{transport: boundedTransport{d}})), m.KeysURL,
		), m.KeysURL
	}
	m.keys = d.keys
	return m, nil
}

// errCooldown means that keys were fetched very recently.
var errCooldown = errors.New("keys were fetched less than 30s ago")

// keyError distinguishes an invalid token from keys that cannot be fetched, by the error
// text, because go-oidc does not wrap errors. After errCooldown, the known keys have been
// tried.
func keyError(err error) error {
	if strings.Contains(err.Error(), "fetching keys") && !strings.Contains(err.Error(), errCooldown.Error()) {
		return unavailable(errors.New("fetching its keys failed"))
	}
	return fmt.Errorf("%.300s", err)
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

// noting returns the provider's client, which records the type of the last response.
func (d *discovered) noting(contentType *string) *http.Client {
	client := *d.client
	client.Transport = notingTransport{d.client.Transport, contentType}
	return &client
}

type notingTransport struct {
	http.RoundTripper
	contentType *string
}

// RoundTrip implements http.RoundTripper.
func (t notingTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(request)
	if err == nil {
		*t.contentType = response.Header.Get("Content-Type")
	}
	return response, err
}

// keysTransport also limits how often keys are fetched: go-oidc fetches them for each token
// that it cannot verify, which anybody can send.
type keysTransport struct {
	transport boundedTransport

	mu     sync.Mutex
	next   time.Time
	failed bool
}

// RoundTrip implements http.RoundTripper.
func (t *keysTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch now := time.Now(); {
	case now.Before(t.next) && t.failed:
		return nil, errors.New("it failed a moment ago")
	case now.Before(t.next):
		return nil, errCooldown
	}
	response, err := t.transport.RoundTrip(request)
	if err == nil && response.StatusCode/100 == 3 {
		return response, nil // the client follows it
	}
	t.failed = err != nil || response.StatusCode != http.StatusOK
	t.next = time.Now().Add(keysCooldown)
	if t.failed {
		t.next = time.Now().Add(firstPause)
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
