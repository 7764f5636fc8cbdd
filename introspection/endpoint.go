package introspection

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/internal/outgoing"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddyserver/caddy/v2"
	"github.com/maypok86/otter/v2"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

const (
	// inactiveCache is how long an inactive token is remembered at most.
	inactiveCache = 5 * time.Second
	// maxActiveBytes bounds the memory for responses about active tokens, by their text.
	maxActiveBytes = 32 << 20
	// maxInactive bounds the memory for inactive tokens. It is separate, so that a flood of
	// them evicts no active one.
	maxInactive = 50_000
	// entryBytes is about what an entry takes beside the text of the response.
	entryBytes = 512
)

// endpoints are the endpoints in use, by shareKey. They outlive config reloads, so that a reload
// forgets no response.
var endpoints = caddy.NewUsagePool()

// shareKey is the identity of an endpoint: responses verified by other keys are not shared.
type shareKey struct {
	settings
	keys string
}

// share returns the endpoint with these settings, which all handlers of the process share.
func share(s settings, issuer jwt.Issuer) (key shareKey, e *endpoint, err error) {
	key = shareKey{settings: s}
	for _, source := range issuer.Keys {
		key.keys += fmt.Sprintf("%p ", source) // the endpoint refers to it, so the address is not reused
	}
	if issuer.MultiTenant { // of which the settings have no name
		key.keys += issuer.Name + " " + strings.Join(issuer.Tenants, " ")
	}
	shared, _, err := endpoints.LoadOrNew(key, func() (caddy.Destructor, error) { return newEndpoint(s, issuer) })
	if err != nil {
		return key, nil, err
	}
	return key, shared.(*endpoint), nil
}

// endpoint is an introspection endpoint, with the responses that are remembered.
type endpoint struct {
	settings
	client   *http.Client
	signer   *signing.Signer // of client assertions; nil for none
	answers  *jwt.Verifier   // of responses that are JWTs; nil to ask for JSON only
	location location
	turns    turns
	asking   singleflight.Group
	active   *otter.Cache[[sha256.Size]byte, remembered]
	inactive *otter.Cache[[sha256.Size]byte, remembered]
	outage   outage.Outage
	ctx      context.Context
	stop     context.CancelFunc
}

// remembered is a response. Its claims are nil if the token is inactive.
type remembered struct {
	claims jwt.Claims
	until  time.Time
	bytes  int
}

func newEndpoint(s settings, issuer jwt.Issuer) (*endpoint, error) {
	e := &endpoint{settings: s}
	transport := http.DefaultTransport.(*http.Transport).Clone() // uses the proxy settings of the environment
	if s.trustedCAs != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(s.trustedCAs)) {
			return nil, errors.New("trusted_ca_certs: the file contains no PEM certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	transport.MaxIdleConnsPerHost = maxRequests
	e.client = &http.Client{
		Transport: outgoing.Wrap(thismachine.NewTransport(transport)),
		// A redirect would send the token and the secret to another address.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if s.privateKey != "" {
		signer, algorithms, err := signing.ParsePrivateKey([]byte(s.privateKey))
		if err != nil {
			return nil, fmt.Errorf("private_key: %w", err)
		}
		signer.Algorithm = algorithms[0]
		e.signer = &signer
	}
	if err := e.verifyAnswers(issuer); err != nil {
		return nil, err
	}
	e.active = otter.Must(&otter.Options[[sha256.Size]byte, remembered]{
		MaximumWeight: maxActiveBytes,
		Weigher:       func(_ [sha256.Size]byte, r remembered) uint32 { return uint32(entryBytes + r.bytes) },
	})
	e.inactive = otter.Must(&otter.Options[[sha256.Size]byte, remembered]{MaximumSize: maxInactive})
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e, nil
}

// Destruct implements caddy.Destructor.
func (e *endpoint) Destruct() error {
	e.stop()
	e.client.CloseIdleConnections()
	return nil
}

// ask returns the claims of an active token, nil for an inactive one, or a *refusal.Error if it
// cannot know. A request that gives up does not end the question for the others that wait for
// the same one.
func (e *endpoint) ask(ctx context.Context, token, client string) (jwt.Claims, error) {
	key := sha256.Sum256([]byte(token)) // so that the memory has no token that somebody could use
	if known, ok := e.known(key); ok {
		lookupHits.Inc()
		return known.claims, nil
	}
	lookupMisses.Inc()
	answer := e.asking.DoChan(string(key[:]), func() (any, error) {
		fresh, err := e.fetch(trace.SpanFromContext(ctx), token, client)
		if err == nil {
			e.remember(key, fresh)
		}
		return fresh, err
	})
	select {
	case <-ctx.Done():
		return nil, refusal.New(refusal.IntrospectionDown, "the client did not wait for the response")
	case result := <-answer:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(remembered).claims, nil
	}
}

// known returns the response about a token if it is remembered.
func (e *endpoint) known(key [sha256.Size]byte) (remembered, bool) {
	if e.cache == 0 {
		return remembered{}, false
	}
	for _, cache := range []*otter.Cache[[sha256.Size]byte, remembered]{e.active, e.inactive} {
		if known, ok := cache.GetIfPresent(key); ok {
			left := known.until.Sub(clock.Now().Round(0))
			if left > 0 && left <= e.cache { // more is left if the clock was set back
				return known, true
			}
			cache.Invalidate(key)
		}
	}
	return remembered{}, false
}

func (e *endpoint) remember(key [sha256.Size]byte, fresh remembered) {
	cache, lasts := e.active, e.cache
	if fresh.claims == nil {
		cache, lasts = e.inactive, min(e.cache, inactiveCache)
	}
	if lasts == 0 {
		return
	}
	fresh.until = clock.Now().Round(0).Add(lasts) // by the time of day, as exp
	if expiry, ok := jwt.Time(fresh.claims["exp"]); ok && expiry.Before(fresh.until) {
		fresh.until = expiry
	}
	cache.Set(key, fresh)
}

// fetch asks about a token, and logs when that begins to fail and when it works again. It is in the
// trace of the first request that asks.
func (e *endpoint) fetch(span trace.Span, token, client string) (remembered, error) {
	ctx, cancel := context.WithTimeout(trace.ContextWithSpan(e.ctx, span), e.timeout)
	defer cancel()
	leave, err := e.turns.enter(ctx, client)
	if err != nil {
		return remembered{}, unavailable(errors.New("too many tokens of this client are being introspected"))
	}
	defer leave()
	fresh, err := e.request(ctx, token)
	log := caddy.Log().Named("http.handlers.jwt").With(zap.String("introspection", e.name()))
	if e.ctx.Err() == nil { // else the config that used it is gone
		entry, fails := failing(err)
		e.outage.Note(log, clock.Now(), err, help.See(entry), fails, "introspection works again")
	}
	switch {
	case err != nil:
		requestErrors.Inc()
		return remembered{}, unavailable(err)
	case fresh.claims == nil:
		requestsInactive.Inc()
	default:
		requestsActive.Inc()
		user, _ := fresh.claims["sub"].(string)
		client, _ := fresh.claims["client_id"].(string)
		log.Named("audit").Info("token is active at its issuer", zap.String("user_id", user),
			zap.String("client_id", client))
	}
	return fresh, nil
}

// errClient means that the endpoint does not accept this site.
var errClient = errors.New("the endpoint rejects this site's client")

// failing returns what the log says of an error, and its entry in docs/troubleshooting.md.
func failing(err error) (entry, fails string) {
	if errors.Is(err, errClient) {
		return "introspection-client-refused",
			"introspection endpoint rejects this site's credentials; are client_id and client_secret or " +
				"private_key right, and may the client introspect? requests with opaque tokens get 503"
	}
	return "introspection-fails",
		"introspection fails; requests with opaque tokens that are not remembered get 503 until it works"
}

// retryAfter is what clients are told to wait.
const retryAfter = time.Second

func unavailable(err error) *refusal.Error {
	return &refusal.Error{Reason: refusal.IntrospectionDown, Detail: err.Error(), RetryAfter: retryAfter}
}

// name is the name of the endpoint in logs.
func (e *endpoint) name() string {
	if e.url != "" {
		return withoutSecrets(e.url)
	}
	return e.issuer
}
