package authorizers_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// policy is a service that answers as a test wants.
type policy struct {
	*httptest.Server
	mu      sync.Mutex
	respond http.HandlerFunc
	asked   []sitetest.JSON // the questions
}

func newPolicy(t *testing.T) *policy {
	p := new(policy)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		text, _ := io.ReadAll(r.Body)
		var question sitetest.JSON
		if err := json.Unmarshal(text, &question); err != nil || r.Method != http.MethodPost {
			t.Errorf("%s %s", r.Method, text)
		}
		p.asked = append(p.asked, question)
		p.respond(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *policy) set(respond http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.respond = respond
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func site(t *testing.T, p *policy, options string) *sitetest.Site {
	return sitetest.Serve(t, `
	jwt {
		secret "`+sitetest.Secret+`"
		require scope films
		require http `+p.URL+`/v1/data/site/allow {
			`+options+`
		}
	}
	respond ok`)
}

// The service decides, and whatever is no clear answer allows nothing.
func TestHTTP(t *testing.T) {
	p := newPolicy(t)
	s := site(t, p, "timeout 300ms")
	token := sitetest.HS256(t, sitetest.JSON{"scope": "films", "roles": []string{"editor"}})
	const yes = `{"result":true}`
	elsewhere := httptest.NewServer(answer(200, yes))
	t.Cleanup(elsewhere.Close)
	p.set(answer(200, yes))
	s.MustAnswer(200, s.Bearer("/films/1?a=b", token), "control")
	input, _ := p.asked[0]["input"].(sitetest.JSON)
	claims, _ := input["claims"].(sitetest.JSON)
	if input["method"] != "GET" || input["path"] != "/films/1" || input["query"] != "a=b" || input["user"] != "alice" ||
		input["host"] != strings.TrimPrefix(s.URL, "http://") || input["client_ip"] != "127.0.0.1" ||
		claims["scope"] != "films" {
		t.Errorf("input %v", input)
	}
	for name, of := range map[string]struct {
		respond http.HandlerFunc
		status  int
	}{
		"false":        {answer(200, `{"result":false}`), 403},
		"undefined":    {answer(200, `{}`), 403},
		"text":         {answer(200, `{"result":"true"}`), 403},
		"an object":    {answer(200, `{"result":{"allow":true}}`), 403},
		"another name": {answer(200, `{"Result":true}`), 403},
		"twice":        {answer(200, `{"result":false,"result":true}`), 503},
		"no JSON":      {answer(200, "true"), 503},
		"empty":        {answer(200, ""), 503},
		"201":          {answer(201, yes), 503},
		"403":          {answer(403, yes), 503},
		"500":          {answer(500, yes), 503},
		"huge":         {answer(200, yes+strings.Repeat(" ", 64<<10)), 503},
		"redirect":     {http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect).ServeHTTP, 503},
		"hangs":        {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 503},
	} {
		p.set(of.respond)
		got := s.Bearer("/films/1", token)
		s.MustAnswer(of.status, got, name)
		if (got.Header.Get("Retry-After") != "") != (of.status == 503) {
			t.Errorf("%s: %v", name, got.Header)
		}
		p.set(answer(200, yes))
		s.MustAnswer(200, s.Bearer("/films/1", token), "control after "+name)
	}
	if log := s.Log(); !strings.Contains(log, `"msg":"request denied by the authorizer","user_id":"alice",`+
		`"method":"GET","path":"/films/1"`) {
		t.Error("the audit log does not say that requests were denied")
	}
	asked := len(p.asked)
	s.MustAnswer(403, s.Bearer("/films/1", sitetest.HS256(t, nil)), "a rule before it")
	s.MustAnswer(401, s.Get("/films/1"), "no token")
	s.MustAnswer(400, s.Bearer("/films/../admin", token), "a path that may be another")
	if len(p.asked) != asked {
		t.Error("the service was asked about a request that is refused anyway")
	}
	p.Close()
	s.MustAnswer(503, s.Bearer("/films/1", token), "down")
}

func TestByStatus(t *testing.T) {
	p := newPolicy(t)
	s := site(t, p, "by_status")
	token := sitetest.HS256(t, sitetest.JSON{"scope": "films"})
	for status, want := range map[int]int{200: 200, 204: 200, 401: 403, 403: 403, 404: 503, 500: 503, 302: 503} {
		p.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		s.MustAnswer(want, s.Bearer("/films/1", token), http.StatusText(status))
	}
}
