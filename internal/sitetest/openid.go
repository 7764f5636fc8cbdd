package sitetest

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// OpenIDProvider is a provider that a test can make lie. Otherwise it is correct: it checks PKCE
// and accepts a code once.
type OpenIDProvider struct {
	*httptest.Server
	T   testing.TB
	Key *rsa.PrivateKey

	LookUps, KeyFetches atomic.Int64 // requests for the discovery document, for the key set
	Down                atomic.Bool

	mu    sync.Mutex
	lies  Lies
	codes map[string]codeOf
	last  string // the last ID token
}

// Lies are the ways in which a provider is wrong.
type Lies struct {
	Subject, Email string
	Unverified     bool
	More           JSON                                     // claims of the ID token
	Claims         func(claims JSON)                        // changes the ID token's claims, after all else
	Sign           func(claims JSON) string                 // signs the ID token
	Answer         func(values url.Values)                  // changes the response to the browser
	Tokens         func(answer JSON)                        // changes the token response
	Userinfo       JSON                                     // instead of the claims of the ID token
	UserinfoToken  string                                   // userinfo as a JWT
	MoreKeys       []any                                    // additional keys in the set
	OnToken        func(w http.ResponseWriter) (taken bool) // responds instead of the token endpoint
	OnKeys         func(w http.ResponseWriter) (taken bool) // responds instead of the key set
}

type codeOf struct{ nonce, challenge, redirect string }

// NewOpenIDProvider runs a provider with one client, "site".
func NewOpenIDProvider(t testing.TB) *OpenIDProvider {
	p := &OpenIDProvider{T: t, Key: Keys().RSA, codes: make(map[string]codeOf)}
	p.Lie(Lies{})
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		p.LookUps.Add(1)
		WriteJSON(p.T, w, 200, JSON{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token",
			"jwks_uri": p.URL + "/keys", "userinfo_endpoint": p.URL + "/userinfo",
			"id_token_signing_alg_values_supported":          []string{"none", "HS256", "RS256"},
			"authorization_response_iss_parameter_supported": true,
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		p.KeyFetches.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.lies.OnKeys != nil && p.lies.OnKeys(w) {
			return
		}
		keys := []any{JWK(p.T, p.Key, JSON{"kid": "1", "use": "sig", "alg": "RS256"}), JSON{
			"kty": "oct", "kid": "2", "k": Encode(SymmetricKey),
		}}
		WriteJSON(p.T, w, 200, JSON{"keys": append(keys, p.lies.MoreKeys...)})
	})
	mux.HandleFunc("/authorize", p.authorize)
	mux.HandleFunc("/token", p.token)
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.lies.UserinfoToken != "" {
			w.Header().Set("Content-Type", "application/jwt")
			_, _ = w.Write([]byte(p.lies.UserinfoToken))
			return
		}
		if p.lies.Userinfo == nil || r.Header.Get("Authorization") != "Bearer an-access-token" {
			w.WriteHeader(403)
			return
		}
		WriteJSON(p.T, w, 200, p.lies.Userinfo)
	})
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.Down.Load() {
			w.WriteHeader(500)
			return
		}
		if r.URL.Path != "/authorize" { // which is for the browser
			mustNameItself(t, r)
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// SymmetricKey is a secret in the provider's key set, where it must not be.
const SymmetricKey = "a-key-that-everybody-can-read-and-so-can-sign-with"

// Lie sets the provider's lies from now on; the zero value ends them.
func (p *OpenIDProvider) Lie(l Lies) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.Subject == "" {
		l.Subject, l.Email = "alice", "alice@example.com"
	}
	p.lies = l
}

// Rebind gives a code the challenge of another code, so that PKCE does not protect it.
func (p *OpenIDProvider) Rebind(code, as string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bound := p.codes[code]
	bound.challenge = p.codes[as].challenge
	p.codes[code] = bound
}

// LastIDToken returns the last ID token that the provider issued.
func (p *OpenIDProvider) LastIDToken() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func (p *OpenIDProvider) authorize(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	if q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" ||
		len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 32 || len(q.Get("nonce")) < 32 ||
		q.Get("client_id") != "site" {
		p.T.Errorf("the request is %s", r.URL)
	}
	code := rand.Text() + rand.Text()
	p.codes[code] = codeOf{q.Get("nonce"), q.Get("code_challenge"), q.Get("redirect_uri")}
	answer := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.URL}}
	if p.lies.Answer != nil {
		p.lies.Answer(answer)
	}
	w.Header().Set("Location", q.Get("redirect_uri")+"?"+answer.Encode())
	w.WriteHeader(http.StatusSeeOther)
}

func (p *OpenIDProvider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lies.OnToken != nil && p.lies.OnToken(w) {
		return
	}
	id, secret, _ := r.BasicAuth()
	code, known := p.codes[r.FormValue("code")]
	delete(p.codes, r.FormValue("code"))
	if id != "site" || secret != "the-secret-of-the-site" {
		WriteJSON(p.T, w, 401, JSON{"error": "invalid_client"})
		return
	}
	if !known || Challenge(r.FormValue("code_verifier")) != code.challenge ||
		r.FormValue("redirect_uri") != code.redirect {
		WriteJSON(p.T, w, 400, JSON{"error": "invalid_grant", "error_description": "SECRET-OF-THE-PROVIDER"})
		return
	}
	claims := p.goodClaims(code.nonce)
	maps.Copy(claims, p.lies.More)
	if p.lies.Claims != nil {
		p.lies.Claims(claims)
	}
	p.last = p.Sign(claims, p.Key)
	if p.lies.Sign != nil {
		p.last = p.lies.Sign(claims)
	}
	answer := JSON{"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 60, "id_token": p.last}
	if p.lies.Tokens != nil {
		p.lies.Tokens(answer)
	}
	WriteJSON(p.T, w, 200, answer)
}

func (p *OpenIDProvider) goodClaims(nonce string) JSON {
	now := time.Now().Unix()
	return JSON{
		"iss": p.URL, "sub": p.lies.Subject, "aud": "site", "iat": now,
		"exp": now + 60, "nonce": nonce, "sid": "session of " + p.lies.Subject,
		"email": p.lies.Email, "email_verified": !p.lies.Unverified, "at_hash": HalfHash("an-access-token"),
	}
}

// Sign returns a token with the claims and the ID of the provider's key.
func (p *OpenIDProvider) Sign(claims JSON, key *rsa.PrivateKey) string {
	return Sign(p.T, "RS256", key, JSON{"kid": "1"}, claims)
}

// Option returns the log-in with the provider as an option of the accounts.
func (p *OpenIDProvider) Option(name, more string) string {
	return fmt.Sprintf(
		"login_with %s {\n issuer %s\n client_id site\n client_secret the-secret-of-the-site\n %s\n}\n",
		name, p.URL, more,
	)
}

// Out begins a log-in and follows it through the provider. It returns the URL of the callback,
// which it does not request.
func (v *Visitor) Out(begin string) string {
	v.T.Helper()
	return v.Get(v.Get(begin).To(v.T).String()).To(v.T).String()
}

// LogInBy logs in with a provider.
func (v *Visitor) LogInBy(name string) Reply {
	v.T.Helper()
	return v.Get(v.Out("/auth/login/" + name))
}

// MustBeIn checks that the response to a callback logs the user in, and returns the user's ID.
func (v *Visitor) MustBeIn(got Reply) string {
	v.T.Helper()
	if got.Status != http.StatusSeeOther {
		v.T.Fatalf("not logged in: %s", got.Brief())
	}
	who := v.Do(http.MethodGet, "/auth/whoami", nil, "Accept: text/plain")
	if who.Status != 200 {
		v.T.Fatalf("who: %d %s", who.Status, who.Body)
	}
	return who.Body
}

// MustBeOut checks that the response is a refusal, and that nobody is logged in.
func (v *Visitor) MustBeOut(got Reply, status int, text string) {
	v.T.Helper()
	if got.Status != status || !strings.Contains(got.Body, text) ||
		!strings.Contains(got.Header.Get("Content-Type"), "text/html") {
		v.T.Errorf("got %s\nexpected %d and in it %q", got.Brief(), status, text)
	}
	for _, cookie := range got.Header.Values("Set-Cookie") {
		if strings.HasPrefix(cookie, "session=") || strings.HasPrefix(cookie, "refresh=") {
			v.T.Errorf("it sets %s", cookie)
		}
	}
	if who := v.Get("/auth/whoami"); who.Status != 401 {
		v.T.Errorf("somebody is logged in: %d %s", who.Status, who.Body)
	}
}

// WriteJSON responds with a value. It returns true, for [Lies].OnToken.
func WriteJSON(t testing.TB, w http.ResponseWriter, status int, value any) bool {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, Marshal(t, value))
	return true
}
