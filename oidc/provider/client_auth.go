package provider

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

var (
	clientAuthMethods       = []string{"client_secret_basic", "client_secret_post", "private_key_jwt", "none"}
	confidentialAuthMethods = clientAuthMethods[:3]
	assertionAlgorithms     = []string{
		"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
		"Ed25519",
	}
)

// form parses the form of a request, which must not repeat parameters (RFC 6749 §3.2).
func form(r *http.Request) (url.Values, error) {
	values, err := anyForm(r)
	if err == nil {
		err = once(values)
	}
	return values, err
}

// anyForm parses the form of a request. It refuses other media types.
func anyForm(r *http.Request) (url.Values, error) {
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(strings.ToLower(kind)) !=
		"application/x-www-form-urlencoded" {
		return nil, refuse("invalid_request", "the body must be application/x-www-form-urlencoded")
	}
	if err := r.ParseForm(); err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return nil, err
		}
		return nil, refuse("invalid_request", "the body is not a valid form")
	}
	return r.PostForm, nil
}

// pageValues returns the values that a browser sends to a page, in the URL or by a form,
// which must not come from a page of another site.
func pageValues(r *http.Request) (url.Values, error) {
	if r.Method != http.MethodPost {
		return r.URL.Query(), nil
	}
	if err := crossOrigin.Check(r); err != nil {
		return nil, shown(&oauthError{
			status: http.StatusForbidden, code: "access_denied",
			description: "a page of another site must not send this request",
		})
	}
	values, err := form(r)
	return values, shown(err)
}

func once(values url.Values) error {
	for name, all := range values {
		if len(all) > 1 && name != "resource" && name != "audience" {
			return errTwice
		}
	}
	return nil
}

var errTwice = refuse("invalid_request", "a parameter is specified twice")

// authenticate returns the client of a request, which must authenticate with exactly one
// method (RFC 6749 §2.3). A public client only sends its ID.
func (p *Provider) authenticate(r *http.Request, values url.Values) (*Client, error) {
	id, secret, basic := r.BasicAuth()
	if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); !basic && strings.EqualFold(scheme, "Basic") {
		return nil, refuse("invalid_request", "the Authorization header must be Basic and the base64 of id:secret")
	}
	if basic {
		var err, secretErr error
		id, err = url.QueryUnescape(id)
		secret, secretErr = url.QueryUnescape(secret)
		if err != nil || secretErr != nil {
			return nil, refuse("invalid_request", "the client ID and secret must be form-encoded before they are put "+
				"into the Authorization header (RFC 6749 §2.3.1)")
		}
	}
	assertion := values.Get("client_assertion")
	methods := 0
	for _, used := range []bool{basic, values.Get("client_secret") != "", assertion != ""} {
		if used {
			methods++
		}
	}
	if methods > 1 {
		return nil, refuse("invalid_request", "the client authenticates in several ways; it must use only one")
	}
	if presented := values.Get("client_id"); presented != "" && id != "" && presented != id {
		return nil, refuse("invalid_request", "client_id does not match the Authorization header")
	}
	if assertion != "" {
		return p.byAssertion(r.Context(), values, assertion)
	}
	if basic {
		client, err := p.bySecret(r, id, secret)
		if failure, ok := errors.AsType[*oauthError](err); ok {
			failure.challenge = `Basic realm="` + ofChallenge(p.Issuer) + `"` // RFC 6749 §5.2
		}
		return client, err
	}
	return p.bySecret(r, values.Get("client_id"), values.Get("client_secret"))
}

// bySecret authenticates with client_secret_basic or client_secret_post. A public client
// needs no secret.
func (p *Provider) bySecret(r *http.Request, id, secret string) (*Client, error) {
	client, err := p.clients.find(r.Context(), id)
	switch {
	case errors.Is(err, errNotFound):
		return nil, unknownClientError()
	case err != nil:
		return nil, err
	case client.Public && secret == "":
		return client, nil
	case client.Public || client.Secret == "" || secret == "":
		return nil, unknownClientError()
	}
	right, err := p.clients.hasSecret(r, client, secret)
	if err == nil && !right {
		err = unknownClientError()
	}
	return client, err
}

// unknownClientError is the same error for an unknown client and for wrong credentials.
func unknownClientError() error {
	return &oauthError{
		status: http.StatusUnauthorized, code: "invalid_client",
		description: "the client is unknown, or did not authenticate correctly; in the header Authorization, " +
			"write characters such as + and % of the secret percent-encoded (RFC 6749 §2.3.1)",
	}
}

// byAssertion authenticates with private_key_jwt (RFC 7523 §3, OpenID Connect Core §9).
// Each assertion can be used once.
func (p *Provider) byAssertion(ctx context.Context, values url.Values, assertion string) (*Client, error) {
	if values.Get("client_assertion_type") != assertionType {
		return nil, refuse("invalid_request", "client_assertion_type must be "+assertionType)
	}
	id := values.Get("client_id")
	if id == "" {
		id = unverifiedClaim(assertion, "sub")
	}
	client, err := p.clients.find(ctx, id)
	if errors.Is(err, errNotFound) || err == nil && client.keys == nil {
		return nil, unknownClientError()
	}
	if err != nil {
		return nil, err
	}
	now := p.accounts.Now()
	token, err := client.keys.Verify(ctx, assertion, now)
	if err != nil || token.UserID != client.ID {
		p.log.Debug("client assertion refused", zap.String("client_id", client.ID), zap.Error(err))
		return nil, unknownClientError()
	}
	jti, _ := token.Claims["jti"].(string)
	// another audience could replay it
	if audience, several := token.Claims["aud"].(jwt.List); several && len(audience) != 1 {
		p.log.Debug("client assertion refused: its aud has several values", zap.String("client_id", client.ID))
		return nil, unknownClientError()
	}
	if jti == "" || len(jti) > 256 || token.Expiry().Sub(now) > 10*time.Minute {
		return nil, unknownClientError()
	}
	err = p.state.create(
		ctx, kindAssertion, hashed(client.ID+"\n"+jti), "", struct{}{}, token.Expiry().Sub(now)+time.Minute,
	)
	if errors.Is(err, store.ErrRecordExists) {
		return nil, unknownClientError()
	}
	return client, err
}

// confidential returns a client that has authenticated.
func (p *Provider) confidential(r *http.Request, values url.Values) (*Client, error) {
	client, err := p.authenticate(r, values)
	if err == nil && client.Public {
		err = unknownClientError()
	}
	return client, err
}

type corsRule int

const (
	corsNone corsRule = iota
	corsAll
	corsClients
)

// allowOrigin sets the CORS headers of the endpoint and answers preflights.
func (p *Provider) allowOrigin(w http.ResponseWriter, r *http.Request, endpoint route) (answered bool) {
	origin, headers := r.Header.Get("Origin"), "Authorization, Content-Type"
	preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
	if endpoint.cors == corsClients {
		w.Header().Add("Vary", "Origin")
	}
	switch {
	case endpoint.cors == corsNone || origin == "":
		return false
	case endpoint.cors == corsAll:
		origin, headers = "*", "Authorization, *" // such as MCP-Protocol-Version
	case !p.knowsOrigin(r.Context(), origin):
		return false
	default:
		headers = allowedHeaders(headers, r.Header.Get("Access-Control-Request-Headers"))
		w.Header().Add("Vary", "Access-Control-Request-Headers")
	}
	w.Header().Set("Access-Control-Allow-Origin", origin)
	if !preflight {
		w.Header().Set("Access-Control-Expose-Headers", "WWW-Authenticate")
		return false
	}
	w.Header().Set("Access-Control-Allow-Methods", strings.Join(endpoint.methods, ", "))
	w.Header().Set("Access-Control-Allow-Headers", headers)
	w.Header().Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// requestedHeaders matches a list of header names (Fetch §3.3.2).
var requestedHeaders = regexp.MustCompile(`^[A-Za-z0-9-]+( ?, ?[A-Za-z0-9-]+)*$`)

const maxRequestedHeaders = 1024 // bytes

// allowedHeaders returns the header names that a page of a client may send: also those that it asks
// for, such as those of tracing libraries, which mean nothing here.
func allowedHeaders(always, asked string) string {
	if len(asked) > maxRequestedHeaders || !requestedHeaders.MatchString(asked) {
		return always
	}
	return always + ", " + asked
}

// knowsOrigin reports whether a page of a client may have this origin. Origins of clients
// in the store are loaded at most once a second, because anybody can send requests.
func (p *Provider) knowsOrigin(ctx context.Context, origin string) bool {
	if isLoopbackURI(origin) { // as of redirect URIs, which match any port
		if without := withoutPort(origin); without != origin && p.knowsOrigin(ctx, without) {
			return true
		}
	}
	if p.clients.origins[origin] || p.clients.documents.allowsOrigin(origin) { // without the store
		return true
	}
	return p.clients.stored.has(origin, p.accounts.Now(), func() (map[string]bool, error) {
		ids, stored, err := list[Client](ctx, p.state, kindClient, "")
		origins := make(map[string]bool)
		for i := range stored {
			if p.clients.configured[ids[i]] == nil {
				addOrigins(origins, &stored[i])
			}
		}
		return origins, err
	})
}

// originsPause is how long the origins of clients in the store are cached.
const originsPause = time.Second

// storedOrigins caches the origins of the clients in the store.
type storedOrigins struct {
	mu    sync.Mutex
	known map[string]bool
	at    time.Time
}

func (o *storedOrigins) has(origin string, now time.Time, look func() (map[string]bool, error)) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if age := now.Sub(o.at); age < 0 || age >= originsPause {
		if fresh, err := look(); err == nil { // otherwise the previous ones are kept
			o.known = fresh
		}
		o.at = now
	}
	return o.known[origin]
}

func addOrigins(origins map[string]bool, client *Client) {
	for _, uri := range client.RedirectURIs {
		origins[originOf(uri)] = true
	}
}

// originOf returns the origin of a URL (RFC 6454 §6.2), or the scheme of an app.
func originOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	if u.Host == "" {
		return u.Scheme + ":"
	}
	host := strings.ToLower(u.Host)
	if port := map[string]string{"https": ":443", "http": ":80"}[u.Scheme]; port != "" {
		host = strings.TrimSuffix(host, port)
	}
	return u.Scheme + "://" + host
}
