package introspection_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// Each row is an attack, or a lie of an endpoint, and differs from the control in one thing.
func TestThreatsOfResponses(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	var caught atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		caught.Add(1)
		sitetest.WriteJSON(t, w, 200, i.AnswerTo("opaque"))
	}))
	t.Cleanup(elsewhere.Close)
	i.Issue("opaque", nil)
	body := sitetest.Marshal(t, i.AnswerTo("opaque"))
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
	}
	s := site(t, i, "cache off\ntimeout 500ms", "")
	for name, respond := range map[string]http.HandlerFunc{
		"oversize":               text(body + strings.Repeat(" ", 256<<10)),
		"endless":                func(w http.ResponseWriter, r *http.Request) { drip(w, r, "p") },
		"redirect, same host":    http.RedirectHandler(i.URL+"/introspect", http.StatusTemporaryRedirect).ServeHTTP,
		"redirect, other host":   http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect).ServeHTTP,
		"redirect, by GET":       http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP,
		"active is a string":     text(strings.Replace(body, `"active":true`, `"active":"true"`, 1)),
		"active is 1":            text(strings.Replace(body, `"active":true`, `"active":1`, 1)),
		"active is missing":      text(strings.Replace(body, `"active":true,`, ``, 1)),
		"active in another case": text(strings.Replace(body, `"active":true`, `"Active":true`, 1)),
		"active twice":           text(strings.Replace(body, `"active":true`, `"active":false,"active":true`, 1)),
		"a list":                 text("[" + body + "]"),
		"two objects":            text(body + body),
		"truncated":              text(body[:len(body)-1]),
		"empty":                  text(""),
		"null":                   text("null"),
		"slow":                   func(w http.ResponseWriter, r *http.Request) { drip(w, r, " ") },
	} {
		i.Respond(text(body))
		s.MustAnswer(200, s.Bearer("/api/x", "opaque"), "control")
		i.Respond(respond)
		s.MustAnswer(503, s.Bearer("/api/x", "opaque"), name)
	}
	if caught.Load() != 0 {
		t.Error("a token was sent to another address")
	}
}

func drip(w http.ResponseWriter, r *http.Request, text string) {
	for r.Context().Err() == nil {
		if _, err := w.Write([]byte(text)); err != nil {
			return
		}
		w.(http.Flusher).Flush()
	}
}

// RFC 9701: a response that is a JWT proves who made it, for whom, and when.
func TestThreatsOfSignedResponses(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("opaque", nil)
	const typ = "token-introspection+jwt"
	claims := func(changes sitetest.JSON) sitetest.JSON {
		c := sitetest.JSON{
			"iss": i.URL, "aud": "api", "iat": time.Now().Unix(), "token_introspection": i.AnswerTo("opaque"),
		}
		for name, value := range changes {
			c[name] = value
			if value == nil {
				delete(c, name)
			}
		}
		return c
	}
	s := site(t, i, "cache off", "")
	stranger := sitetest.Keys().StrangerRSA
	for name, of := range map[string]struct {
		answer string
		status int
	}{
		"control":       {i.Sign(typ, claims(nil)), 200},
		"wrong key":     {sitetest.Sign(t, "RS256", stranger, sitetest.JSON{"kid": "1", "typ": typ}, claims(nil)), 503},
		"alg none":      {sitetest.Unsigned(t, sitetest.JSON{"alg": "none", "typ": typ}, claims(nil)) + ".", 503},
		"other typ":     {i.Sign("JWT", claims(nil)), 503},
		"access token":  {i.Sign("at+jwt", claims(nil)), 503},
		"other client":  {i.Sign(typ, claims(sitetest.JSON{"aud": "another"})), 503},
		"no audience":   {i.Sign(typ, claims(sitetest.JSON{"aud": nil})), 503},
		"other issuer":  {i.Sign(typ, claims(sitetest.JSON{"iss": "https://other.example"})), 503},
		"old":           {i.Sign(typ, claims(sitetest.JSON{"iat": time.Now().Unix() - 3600})), 503},
		"without iat":   {i.Sign(typ, claims(sitetest.JSON{"iat": nil})), 503},
		"expired":       {i.Sign(typ, claims(sitetest.JSON{"exp": time.Now().Unix() - 3600})), 503},
		"no object":     {i.Sign(typ, claims(sitetest.JSON{"token_introspection": "active"})), 503},
		"active beside": {i.Sign(typ, claims(sitetest.JSON{"token_introspection": sitetest.JSON{}, "active": true})), 503},
		"inactive":      {i.Sign(typ, claims(sitetest.JSON{"token_introspection": sitetest.JSON{"active": false}})), 401},
		"JSON":          {sitetest.Marshal(t, i.AnswerTo("opaque")), 503},
	} {
		i.Respond(func(w http.ResponseWriter, r *http.Request) {
			if accept := r.Header.Get("Accept"); accept != "application/token-introspection+jwt, application/json" {
				t.Errorf("Accept: %s", accept)
			}
			w.Header().Set("Content-Type", "application/token-introspection+jwt")
			_, _ = w.Write([]byte(of.answer))
		})
		got := s.Bearer("/api/x", "opaque")
		s.MustAnswer(of.status, got, name)
	}
}

// What is remembered is the response, not the decision: another handler applies its own rules,
// audience and user.
func TestThreatCachedDecision(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("opaque", sitetest.JSON{"scope": "read"})
	jwt := func(path, audience, rules string) string {
		return "jwt " + path + " {\nissuer " + i.URL + " {\naudience " + audience + "\nintrospection {\n" + client +
			"}\n}\n" + rules + "\n}\n"
	}
	s := sitetest.Serve(t, jwt("/read", "https://api.example", "require scope read")+
		jwt("/write", "https://api.example", "require scope write")+
		jwt("/other", "https://other.example", "")+
		jwt("/none", "https://api.example", "user_id email")+"respond ok")
	for range 2 {
		s.MustAnswer(200, s.Bearer("/read", "opaque"), "control")
		s.MustAnswer(403, s.Bearer("/write", "opaque"), "a scope that the token lacks")
		s.MustAnswer(401, s.Bearer("/other", "opaque"), "another audience")
		s.MustAnswer(401, s.Bearer("/none", "opaque"), "another user ID")
	}
	if asked := i.Asked.Load(); asked != 1 {
		t.Errorf("asked %d times; the handlers do not share the response", asked)
	}
}

// Responses that arrive at the same time are not mixed up.
func TestThreatResponseOfAnotherToken(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	users := []string{"alice", "bob", "carol", "dave"}
	for _, user := range users {
		i.Issue("token-of-"+user, sitetest.JSON{"sub": user})
	}
	s := site(t, i, "cache off", "")
	var all sync.WaitGroup
	for n := range 200 {
		user := users[n%len(users)]
		all.Go(func() {
			if got := s.Bearer("/api/x", "token-of-"+user); !strings.HasPrefix(got.Body, user+" ") {
				t.Errorf("%s is %q", user, got.Body)
			}
		})
	}
	all.Wait()
}

// An endpoint that hangs for one client's tokens keeps a share of the requests, not all.
func TestThreatEndpointThatHangs(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("opaque", nil)
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	var held atomic.Int64
	i.Respond(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.PostFormValue("token"), "flood") {
			held.Add(1)
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
		sitetest.WriteJSON(t, w, 200, i.AnswerTo(r.PostFormValue("token")))
	})
	s := site(t, i, "timeout 5s", "")
	t.Cleanup(release)
	var all sync.WaitGroup
	for n := range 40 {
		all.Go(func() { s.Bearer("/api/x", "flood-"+string(rune('A'+n))) })
	}
	sitetest.Eventually(t, "the flood is held", func() bool { return held.Load() == 16 })
	// from another address of this machine, so another client
	other := *s
	other.Transport = fromAddress(t, "127.0.0.2")
	start := time.Now()
	s.MustAnswer(200, other.Bearer("/api/x", "opaque"), "another client")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("another client waited %s", took)
	}
	if held.Load() != 16 {
		t.Errorf("%d requests for one client", held.Load())
	}
	release()
	all.Wait()
}

// What a browser sends as the session cookie is for the accounts, and not for another issuer.
func TestThreatSessionCookie(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("opaque", nil)
	s := site(t, i, "", "accounts {\nstore file "+filepath.Join(t.TempDir(), "users.db")+"\n}")
	s.MustAnswer(200, s.Bearer("/api/", "opaque"), "an opaque token as a bearer token")
	asked := i.Asked.Load()
	s.MustAnswer(401, s.Get("/api/", "Cookie: session=opaque-of-a-cookie"), "one as the session cookie")
	if i.Asked.Load() != asked {
		t.Error("the issuer was asked about the session cookie")
	}
}
