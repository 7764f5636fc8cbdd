package docs_test

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// provider is a page of docs/providers, and a stand-in for its provider: the documents that it
// publishes and the tokens that it issues, in its form and with keys of our own.
type provider struct {
	// documents by URL: a text, or what is sent as JSON.
	documents map[string]any
	// apiServer is the URL of the API server of Kubernetes, if there is one: it has a certificate of
	// its own authority, and sends documents only to those who have the token of a pod.
	apiServer string
	// sites are the Caddyfiles of the page, and those in which its mistakes are made.
	sites []pageSite
}

// pageSite is a site with a Caddyfile of the page.
type pageSite struct {
	block    int      // which of the page's Caddyfiles, from 0
	change   []string // the mistake: pairs of a text on the page and what is written instead
	fails    string   // in the error of a config that does not load
	requests []pageRequest
}

// pageRequest is a request to the site. Its reason is that of the refusal; without one it is
// answered by the upstream.
type pageRequest struct {
	why      string
	path     string // default: /
	token    issued
	as       []string // the headers before the token; default: the bearer token
	reason   refusal.Reason
	user     string   // who it is, by user_id
	upstream []string // headers that the upstream gets, as "X-User: alice"
}

// issued is a token of the provider. A text is sent as it is.
type issued struct {
	text           string
	algorithm      string
	key            any
	header, claims sitetest.JSON
	tamper         func(token string) string // after it is signed
}

// with returns the token with other claims; nil removes one.
func (k issued) with(changes sitetest.JSON) issued {
	k.claims = changed(k.claims, changes)
	return k
}

// headed returns the token with other members of its header; nil removes one.
func (k issued) headed(changes sitetest.JSON) issued {
	k.header = changed(k.header, changes)
	return k
}

func (k issued) signedBy(algorithm string, key any) issued {
	k.algorithm, k.key = algorithm, key
	return k
}

func changed(object, changes sitetest.JSON) sitetest.JSON {
	object = maps.Clone(object)
	for name, value := range changes {
		if object[name] = value; value == nil {
			delete(object, name)
		}
	}
	return object
}

// serviceAccount is where a pod has its token.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// standIn serves the documents of a provider. Each of its hosts is a server on this machine.
type standIn struct {
	t    *testing.T
	here *strings.Replacer // replaces the provider's hosts by the servers
}

func newStandIn(t *testing.T, p provider) *standIn {
	s := &standIn{t: t}
	var pairs []string
	for address := range p.documents {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		origin := u.Scheme + "://" + u.Host
		if slices.Contains(pairs, origin) {
			continue
		}
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.serve(w, r, p, origin+r.URL.Path)
		})
		if origin == p.apiServer {
			server := httptest.NewTLSServer(handler)
			t.Cleanup(server.Close)
			pairs = append(pairs, origin, server.URL, serviceAccount, podFiles(t, server.Certificate()))
			continue
		}
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		pairs = append(pairs, origin, server.URL)
	}
	s.here = strings.NewReplacer(pairs...)
	return s
}

// podFiles returns a folder with the token of a pod and the certificate of the API server.
func podFiles(t *testing.T, certificate *x509.Certificate) string {
	folder := sitetest.TempDir(t)
	for name, text := range map[string]string{
		"token":  "the-token-of-the-pod\n",
		"ca.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func (s *standIn) serve(w http.ResponseWriter, r *http.Request, p provider, address string) {
	document, found := p.documents[address]
	text, isText := document.(string)
	switch {
	case r.TLS != nil && r.Header.Get("Authorization") != "Bearer the-token-of-the-pod":
		w.WriteHeader(http.StatusForbidden) // as the API server answers system:anonymous
	case !found:
		http.NotFound(w, r)
	default:
		if !isText {
			text = sitetest.Marshal(s.t, document)
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write([]byte(s.here.Replace(text)))
	}
}

// issue signs a token, as of this minute.
func (s *standIn) issue(k issued) string {
	if k.text != "" {
		return k.text
	}
	now := time.Now().Unix()
	header := changed(sitetest.JSON{"alg": k.algorithm}, k.header)
	claims := changed(sitetest.JSON{"iat": now - 60, "exp": now + 3540}, k.claims)
	signed := sitetest.SignRaw(
		s.t, k.algorithm, k.key, sitetest.Marshal(s.t, header), s.here.Replace(sitetest.Marshal(s.t, claims)),
	)
	if k.tamper != nil {
		return k.tamper(signed)
	}
	return signed
}

// namedRefusal matches a refusal as the pages name it: a status and a reason.
var namedRefusal = regexp.MustCompile("\\b([45]\\d\\d) `([a-z_]+)`")

// TestProviders runs the Caddyfiles of each page of docs/providers against a stand-in for the
// provider: with good tokens, with those of others, and with the mistakes that the page names. Every
// refusal that a page names is seen.
func TestProviders(t *testing.T) {
	t.Setenv("JWT_SECRET", docsEnvironment["JWT_SECRET"])
	pages, err := filepath.Glob("docs/providers/*.md")
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile("docs/providers/README.md")
	if err != nil {
		t.Fatal(err)
	}
	upstream, all := sitetest.NewUpstream(t), providers(t)
	for _, page := range pages {
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		if name == "README" {
			continue
		}
		p, found := all[name]
		if !found {
			t.Errorf("%s is in no test", page)
			continue
		}
		delete(all, name)
		if !strings.Contains(string(index), "]("+name+".md)") {
			t.Errorf("%s is not in the list of pages", page)
		}
		t.Run(name, func(t *testing.T) { testProvider(t, page, p, upstream) })
	}
	for name := range all {
		t.Errorf("there is no page docs/providers/%s.md", name)
	}
}

func testProvider(t *testing.T, page string, p provider, upstream string) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(text), "\n"); lines > 60 {
		t.Errorf("%d lines: more than a screen", lines)
	}
	blocks := caddyfileBlock.FindAllSubmatch(text, -1)
	in := newStandIn(t, p)
	tested, seen := make(map[int]bool), make(map[string]bool)
	for _, site := range p.sites {
		if len(blocks) <= site.block {
			t.Fatalf("the page has %d Caddyfiles", len(blocks))
		}
		block := string(blocks[site.block][1])
		for i := 0; i < len(site.change); i += 2 {
			if !strings.Contains(block, site.change[i]) {
				t.Fatalf("the Caddyfile %d of the page has no %q", site.block, site.change[i])
			}
			block = strings.ReplaceAll(block, site.change[i], site.change[i+1])
		}
		body := siteBody(in.here.Replace(block), upstream)
		name := fmt.Sprint("Caddyfile ", site.block, " ", strings.Join(site.change, " "))
		if site.fails != "" {
			if got := sitetest.ConfigError(t, body); !strings.Contains(got, site.fails) {
				t.Errorf("%s: the error is %s", name, got)
			}
			continue
		}
		s := sitetest.Serve(t, body)
		users := 0
		for _, r := range site.requests {
			why := name + ": " + r.why
			if r.reason == "" {
				mustReach(s, in, r, why)
				if r.user != "" {
					users++
				}
				continue
			}
			mustBeRefused(s, in, r, why)
			seen[fmt.Sprint(r.reason.Answer().Status, " ", r.reason)] = true
		}
		if len(site.change) == 0 {
			tested[site.block] = users > 0
		}
	}
	for i := range blocks {
		if !tested[i] {
			t.Errorf("no user is tested with the Caddyfile %d of the page", i)
		}
	}
	named := namedRefusal.FindAllSubmatch(text, -1)
	for _, m := range named {
		if !seen[string(m[1])+" "+string(m[2])] {
			t.Errorf("the page names %s, which is in no test", m[0])
		}
	}
	if len(named) == 0 {
		t.Error("the page names no refusal")
	}
}

// siteBody returns the body of a site of which a page shows all, or only the directive. Its answers
// name the user.
func siteBody(block, upstream string) string {
	const user = "header >Page-User {http.auth.user.id}\n"
	if strings.HasPrefix(block, "jwt") {
		return user + block + "reverse_proxy " + upstream
	}
	_, body, _ := strings.Cut(block, "{\n")
	body = body[:strings.LastIndex(body, "}")]
	return user + strings.ReplaceAll(body, "localhost:3000", upstream)
}

func (r pageRequest) send(s *sitetest.Site, in *standIn) sitetest.Reply {
	if r.as == nil {
		r.as = []string{"Authorization: Bearer "}
	}
	text := in.issue(r.token)
	headers := make([]string, 0, len(r.as))
	for _, before := range r.as {
		headers = append(headers, before+text)
	}
	return s.Get(cmp.Or(r.path, "/"), headers...)
}

func mustReach(s *sitetest.Site, in *standIn, r pageRequest, why string) {
	s.T.Helper()
	got := r.send(s, in)
	s.MustAnswer(http.StatusOK, got, why)
	if user := got.Header.Get("Page-User"); r.user != "" && user != r.user {
		s.T.Errorf("%s: the user is %q, expected %q", why, user, r.user)
	}
	for _, header := range r.upstream {
		if !strings.Contains(got.Body, "\n"+in.here.Replace(header)+"\r\n") && got.Status == http.StatusOK {
			s.T.Errorf("%s: the upstream does not get %q, but\n%s", why, header, got.Body)
		}
	}
}

func mustBeRefused(s *sitetest.Site, in *standIn, r pageRequest, why string) {
	s.T.Helper()
	before := len(s.Log())
	got := r.send(s, in)
	s.MustAnswer(r.reason.Answer().Status, got, why)
	if log := s.Log()[before:]; !strings.Contains(log, `"reason":"`+string(r.reason)+`"`) {
		s.T.Errorf("%s: not refused by %s; the log says\n%s", why, r.reason, log)
	}
}
