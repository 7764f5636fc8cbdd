package caddyjwt_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

// backend records the headers of the last request, and verifies tokens like a service that only
// knows the issuer.
type backend struct {
	*httptest.Server
	mu   sync.Mutex
	last *http.Request
}

func newBackend(t *testing.T) *backend {
	b := new(backend)
	b.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.last = r.Clone(r.Context())
	}))
	t.Cleanup(b.Close)
	return b
}

// header returns the values of a header of the last request.
func (b *backend) header(name string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last.Header[name]
}

// token returns the verified token of the last request in a header.
func (b *backend) token(t *testing.T, s *sitetest.Site, name string) (raw string, token jwt.Token) {
	t.Helper()
	values := b.header(name)
	if len(values) != 1 {
		t.Fatalf("%s: %q", name, values)
	}
	raw = strings.TrimPrefix(values[0], "Bearer ")
	keys, err := jwk.Parse([]byte(s.Get("/jwt/.well-known/jwks.json").Body))
	if err != nil {
		t.Fatal(err)
	}
	token, err = jwt.Parse([]byte(raw), jwt.WithKeySet(keys), jwt.WithIssuer("http://api.example/jwt"))
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return raw, token
}

func upstreamSite(t *testing.T, options string) (*sitetest.Site, *backend) {
	t.Helper()
	b := newBackend(t)
	return sitetest.Serve(t, `
	jwt /api/* {
		secret "`+sitetest.Secret+`"
		`+options+`
	}
	reverse_proxy `+b.URL), b
}

const upstreamOptions = `upstream_token {
			issuer http://api.example/jwt
			audience https://films.internal
		}`

// The upstream gets a token of the site instead of the client's, and verifies it with the published
// key set.
func TestUpstreamToken(t *testing.T) {
	s, b := upstreamSite(t, upstreamOptions)
	sent := sitetest.HS256(t, sitetest.JSON{
		"azp": "app", "email": "alice@example.com", "act": sitetest.JSON{"sub": "robot"},
	})
	s.MustAnswer(200, s.Bearer("/api/films", sent), "a token")
	raw, token := b.token(t, s, "Authorization")
	if raw == sent {
		t.Fatal("the client's token was passed on")
	}
	message, _ := jws.ParseString(raw)
	if header := message.Signatures()[0].ProtectedHeaders(); header.Algorithm() != "RS256" || header.Type() != "JWT" ||
		header.KeyID() == "" {
		t.Errorf("header: %v", header)
	}
	if log := s.Log(); strings.Count(log, `"upstream token signed"`) != 1 || strings.Contains(log, raw) {
		t.Error("the log does not have the signed token once, or has its text")
	}
	claims, _ := token.AsMap(t.Context())
	delete(claims, "jti")
	if lifetime := token.Expiration().Sub(token.IssuedAt()); lifetime != 5*time.Minute {
		t.Errorf("lifetime: %s", lifetime)
	}
	delete(claims, "exp")
	delete(claims, "iat")
	text, _ := json.Marshal(claims)
	if want := `{"act":{"sub":"robot"},"aud":["https://films.internal"],"client_id":"app","iss":"http://api.example/jwt","sub":"alice"}`; string(
		text,
	) != want {
		t.Errorf("claims: %s\nwant: %s", text, want)
	}
	s.MustAnswer(200, s.Bearer("/api/films", sent), "the same token")
	if again, _ := b.token(t, s, "Authorization"); again != raw {
		t.Error("another token was signed for the same user")
	}
}

// Whatever the client sends, the upstream gets the site's token or no token.
func TestUpstreamTokenAttacks(t *testing.T) {
	forged := sitetest.HS256(t, sitetest.JSON{"iss": "http://api.example/jwt", "sub": "admin"})
	good := sitetest.HS256(t, nil)
	const own = `optional
		public /api/public
		upstream_token X-Jwt-Assertion {
			issuer http://api.example/jwt
		}`
	for name, attack := range map[string]struct {
		options, path string
		headers       []string
		header        string // whose value counts
		user          bool   // whether the upstream gets a token
	}{
		"control": {
			upstreamOptions, "/api/", []string{"Authorization: Bearer " + good}, "Authorization", true,
		},
		"control, own header": {own, "/api/", []string{"Authorization: Bearer " + good}, "X-Jwt-Assertion", true},
		"own header, sent too": {
			own, "/api/", []string{"Authorization: Bearer " + good, "X-Jwt-Assertion: " + forged},
			"X-Jwt-Assertion", true,
		},
		"own header, anonymous": {own, "/api/", []string{"X-Jwt-Assertion: " + forged}, "X-Jwt-Assertion", false},
		"own header, public":    {own, "/api/public", []string{"X-Jwt-Assertion: " + forged}, "X-Jwt-Assertion", false},
		"own header, elsewhere": {own, "/other", []string{"X-Jwt-Assertion: " + forged}, "X-Jwt-Assertion", false},
		"underscores":           {own, "/api/", []string{"X_Jwt_Assertion: " + forged}, "X_jwt_assertion", false},
		"dots":                  {own, "/api/", []string{"X.Jwt.Assertion: " + forged}, "X.jwt.assertion", false},
		"anonymous with another": {
			strings.Replace(upstreamOptions, "upstream", "optional\nupstream", 1),
			"/api/", []string{"Authorization: Basic YTpi"}, "Authorization", false,
		},
		"public with authorization": {
			"public /api/public\n" + upstreamOptions, "/api/public",
			[]string{"Authorization: Bearer " + forged}, "Authorization", false,
		},
		"credential of own header": {own, "/api/", []string{"Authorization: Bearer " + good}, "Authorization", false},
		"credential in another place": {
			"from header X-Token\n" + upstreamOptions, "/api/", []string{"X-Token: " + good}, "X-Token", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, b := upstreamSite(t, attack.options)
			s.MustAnswer(200, s.Get(attack.path, attack.headers...), name)
			if attack.user {
				if _, token := b.token(t, s, attack.header); token.Subject() != "alice" {
					t.Errorf("sub: %s", token.Subject())
				}
			} else if got := b.header(attack.header); got != nil {
				t.Errorf("the upstream got %s: %q", attack.header, got)
			}
		})
	}
}

// A token for one audience is not valid for another, and two handlers create one for each.
func TestUpstreamTokenAudiences(t *testing.T) {
	b := newBackend(t)
	option := func(header, audience string) string {
		return "secret \"" + sitetest.Secret + "\"\nupstream_token " + header +
			" {\nissuer http://api.example/jwt\naudience " + audience + "\n}\n"
	}
	s := sitetest.Serve(t, "route {\njwt {\n"+option("", "https://films.internal")+"}\njwt /api/* {\n"+
		option("X-Stars", "https://stars.internal")+"}\nreverse_proxy "+b.URL+"\n}\njwt /none {\n"+
		option("", "https://films.internal")+"}")
	s.MustAnswer(200, s.Bearer("/api/", sitetest.HS256(t, nil)), "both")
	_, films := b.token(t, s, "Authorization")
	_, stars := b.token(t, s, "X-Stars")
	if films.Audience()[0] != "https://films.internal" || stars.Audience()[0] != "https://stars.internal" {
		t.Errorf("audiences: %s, %s", films.Audience(), stars.Audience())
	}
}

// A browser's session also leads to a token, and its cookies are not passed on.
func TestUpstreamTokenOfSession(t *testing.T) {
	b := newBackend(t)
	s := sitetest.Serve(t, `
	jwt {
		accounts {
			store file `+sitetest.TempDir(t)+`/users.db
			signup open
		}
		upstream_token {
			issuer http://api.example/jwt
			claims email roles
		}
	}
	reverse_proxy `+b.URL)
	browser := sitetest.Browser(t)
	s.MustAnswer(303, s.Form(browser, "/auth/signup", sitetest.FormOf("alice@example.com")), "sign-up")
	request, _ := http.NewRequest(http.MethodGet, s.URL+"/films", nil)
	request.Header.Set("Cookie", "theme=dark")
	u, _ := url.Parse(s.URL)
	for _, cookie := range browser.Jar.Cookies(u) {
		request.AddCookie(cookie)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil || response.StatusCode != 200 {
		t.Fatal(response, err)
	}
	response.Body.Close()
	_, token := b.token(t, s, "Authorization")
	if email, _ := token.Get("email"); email != "alice@example.com" {
		t.Errorf("email: %v", email)
	}
	if got := b.header("Cookie"); len(got) != 1 || got[0] != "theme=dark" {
		t.Errorf("the upstream got cookies %q", got)
	}
}

// Two issuers may use the same name for two users, and the upstream can distinguish them.
func TestUpstreamTokenOfSeveralIssuers(t *testing.T) {
	b := newBackend(t)
	s := sitetest.Serve(t, `
	jwt {
		issuer https://issuer.example {
			secret "`+sitetest.Secret+`"
		}
		issuer https://other.example {
			secret "`+sitetest.Secret+`"
		}
		`+upstreamOptions+`
	}
	reverse_proxy `+b.URL)
	for _, issuer := range []string{"https://issuer.example", "https://other.example"} {
		s.MustAnswer(200, s.Bearer("/", sitetest.HS256(t, sitetest.JSON{"iss": issuer})), issuer)
		if _, token := b.token(t, s, "Authorization"); token.PrivateClaims()["idp"] != issuer {
			t.Errorf("%s: idp is %v", issuer, token.PrivateClaims()["idp"])
		}
	}
}

// A token does not outlive the credential.
func TestUpstreamTokenEnds(t *testing.T) {
	s, b := upstreamSite(t, "leeway 0s\n"+upstreamOptions)
	soon := time.Now().Add(time.Minute).Truncate(time.Second)
	for range 2 {
		s.MustAnswer(200, s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{"exp": soon.Unix()})), "expires soon")
		if _, token := b.token(t, s, "Authorization"); !token.Expiration().Equal(soon) {
			t.Errorf("expires at %s, want %s", token.Expiration(), soon)
		}
		s.MustAnswer(200, s.Bearer("/api/", sitetest.HS256(t, nil)), "expires later")
		if _, token := b.token(t, s, "Authorization"); !token.Expiration().After(soon) {
			t.Errorf("expires at %s, as the other credential", token.Expiration())
		}
	}
}

// Listed claims keep their place, and one that is listed as a whole stays whole.
func TestUpstreamTokenClaims(t *testing.T) {
	s, b := upstreamSite(t, "upstream_token {\nissuer http://api.example/jwt\n"+
		"claims org org.unit realm.roles app.example/groups gone\n}")
	s.MustAnswer(200, s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{
		"org": sitetest.JSON{"unit": "R&D", "id": 7}, "realm": sitetest.JSON{"roles": []string{"a"}, "secret": "x"},
		"app.example/groups": []string{"g"},
	})), "listed claims")
	_, token := b.token(t, s, "Authorization")
	text, err := json.Marshal(token.PrivateClaims())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"app.example/groups":["g"],"org":{"id":7,"unit":"R\u0026D"},"realm":{"roles":["a"]}}`
	if string(text) != want {
		t.Errorf("claims: %s\nwant: %s", text, want)
	}
}
