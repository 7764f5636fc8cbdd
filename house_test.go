package caddyjwt_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
)

const module = "github.com/caddy-jwt/caddy-jwt"

// linked returns the packages that a program links if it imports a package of this module; "." is
// the root.
func linked(t *testing.T, name string) []string {
	t.Helper()
	output, err := exec.Command("go", "list", "-deps", "./"+name).CombinedOutput()
	if err != nil {
		t.Fatalf("go list -deps ./%s: %v\n%s", name, err, output)
	}
	return strings.Fields(string(output))
}

// Imports run one way: a package of this module links only those listed for it.
func TestImportsRunOneWay(t *testing.T) {
	jwt := []string{"refusal"}
	store := slices.Concat([]string{"jwt", "internal/texts"}, jwt)
	config := slices.Concat([]string{"store"}, store)
	sqlstore := config
	signing := slices.Concat([]string{"jwt", "internal/outage"}, jwt)
	filestore := slices.Concat([]string{"config", "internal/owner", "store/sqlstore"}, config)
	password := []string{"internal/answer", "internal/network", "internal/texts", "refusal"}
	fetching := []string{"internal/thismachine", "internal/outgoing"}
	mail := slices.Concat(config, fetching, []string{"config", "internal/answer", "internal/outage"})
	passkey := slices.Concat([]string{"internal/place", "store"}, store)
	accounts := slices.Concat(filestore, signing, password, mail, passkey, []string{
		"accounts/passkey", "accounts/password", "mail", "signing", "store/filestore", "internal/clock", "internal/metadata", "internal/place",
		"internal/sealing",
	})
	upstream := slices.Concat(config, signing, []string{
		"config", "internal/answer", "internal/clock", "internal/metadata", "signing",
	})
	apikeys := slices.Concat(config, []string{
		"config", "credentials", "internal/answer", "internal/clock", "internal/outage",
	})
	web := slices.Concat(accounts, apikeys, []string{"accounts", "apikeys"})
	jwks := slices.Concat([]string{"jwt", "internal/clock", "internal/discovery", "internal/outage"}, fetching, jwt)
	introspection := slices.Concat(config, signing, fetching, []string{
		"config", "credentials", "internal/answer", "internal/clock", "internal/discovery", "internal/network",
		"internal/outage", "signing",
	})
	backchannel := slices.Concat([]string{"jwt", "internal/clock", "internal/outage"}, jwt)
	authorizers := slices.Concat(config, fetching, []string{
		"config", "internal/answer", "internal/clock", "internal/outage",
	})
	cli := slices.Concat(accounts, apikeys, jwks, upstream, []string{"accounts", "apikeys", "jwks", "upstream"})
	login := slices.Concat(accounts, jwks, []string{"accounts", "jwks", "oidc/internal/protocol"})
	table := map[string][]string{
		"refusal": {}, "internal/help": {"refusal"}, "internal/clock": {}, "internal/outage": {},
		"internal/thismachine": {}, "internal/outgoing": {}, "internal/network": {}, "internal/owner": {},
		"internal/place": {}, "internal/sealing": {}, "internal/texts": {}, "oidc/internal/protocol": {},
		"internal/answer":    {"refusal"},
		"internal/discovery": {"refusal"},
		"internal/metadata":  {"internal/answer", "refusal"},
		"upstream":           upstream,
		"apikeys":            apikeys,
		"introspection":      introspection,
		"backchannel":        backchannel,
		"mail":               mail,
		"authorizers":        authorizers,
		"credentials":        slices.Concat([]string{"jwt"}, jwt),
		"jwt":                jwt,
		"jwks":               jwks,
		"signing":            signing,
		"store":              store,
		"store/storetest":    config,
		"store/sqlstore":     sqlstore,
		"config":             config,
		"store/filestore":    filestore,
		"postgres":           slices.Concat([]string{"config", "store/sqlstore"}, config),
		"accounts/passkey":   passkey,
		"accounts/password":  password,
		"accounts":           accounts,
		"accounts/web":       web,
		"internal/cli":       cli,
		"oidc/login":         login,
		"oidc/provider": slices.Concat(web, cli, []string{
			"accounts/web", "internal/cli", "oidc/internal/protocol",
		}),
		".": slices.Concat(web, cli, introspection, []string{
			"accounts/web", "authorizers", "backchannel", "internal/cli", "introspection",
		}),
		"oidc": nil, "cmd/caddy": nil, "bench": nil, // they combine packages into programs
		// White-box tests use sitetest, so it must not link packages that have such tests.
		"internal/sitetest": {
			"refusal", "internal/answer", "internal/clock", "internal/caddytest", "internal/scenario",
		},
		// for tests
		"internal/caddytest": nil, "internal/scenario": nil, "internal/storefault": nil, "internal/chromiumtest": nil,
		"internal/opstest": nil, "internal/accountstest": nil, "scenarios": nil, "docs": nil, "examples": nil,
		"packaging": nil, "docs/migration": nil,
	}
	caddytest.Sources(t) // which the go command reads
	for _, name := range packages(t) {
		allowed, known := table[name]
		if !known {
			t.Errorf("%s has no line in the table: what may it import?", name)
		}
		if allowed == nil {
			continue
		}
		for _, path := range linked(t, name) {
			own, ours := strings.CutPrefix(path, module+"/")
			if path == module {
				own, ours = ".", true
			}
			if ours && slices.Contains([]string{"internal/help", "refusal"}, own) && logs(name) {
				continue
			}
			if ours && own != name && !slices.Contains(allowed, own) {
				t.Errorf("%s links %s", name, own)
			}
		}
	}
}

// logs reports whether a package may have log lines, which name an entry of the documents.
func logs(name string) bool {
	return !slices.Contains([]string{"refusal", "jwt", "credentials", "store"}, name)
}

// packages returns the packages of this module.
func packages(t *testing.T) (names []string) {
	t.Helper()
	output, err := exec.Command("go", "list", "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list ./...: %v\n%s", err, output)
	}
	for path := range strings.FieldsSeq(string(output)) {
		name := strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
		if name == "" {
			name = "."
		}
		names = append(names, name)
	}
	return names
}

// Only packages that add commands import the command line.
func TestOnlyTheTopUsesTheCommandLine(t *testing.T) {
	caddytest.Sources(t) // which the go command reads
	output, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports ","}}`, "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	var users []string
	for line := range strings.Lines(string(output)) {
		path, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		if slices.Contains(strings.Split(imports, ","), module+"/internal/cli") {
			users = append(users, path)
		}
	}
	if !slices.Equal(users, []string{module, module + "/oidc/provider"}) {
		t.Errorf("internal/cli is imported by %v", users)
	}
}

// A Go program that verifies tokens does not link a web server, a database or a rule language.
func TestVerifierIsSmall(t *testing.T) {
	caddytest.Sources(t) // which the go command reads
	heavy := func(path string) bool {
		return slices.ContainsFunc([]string{
			"github.com/caddyserver/", "go.uber.org/zap", "github.com/prometheus/", "modernc.org/",
			"github.com/google/cel-go", "github.com/spf13/cobra", "github.com/jackc/",
		}, func(prefix string) bool { return strings.HasPrefix(path, prefix) })
	}
	for _, path := range linked(t, "jwt") {
		if heavy(path) {
			t.Errorf("jwt links %s", path)
		}
	}
	for _, path := range linked(t, "jwks") {
		if heavy(path) && !strings.HasPrefix(path, "go.uber.org/zap") { // it logs outages
			t.Errorf("jwks links %s", path)
		}
	}
	if !slices.ContainsFunc(linked(t, "."), heavy) {
		t.Error("control: the root links none of them")
	}
}

// Every client names this module to the servers that it asks.
func TestClientsNameThemselves(t *testing.T) {
	clients := 0
	for _, path := range caddytest.Sources(t) {
		if strings.HasSuffix(path, "_test.go") || slices.ContainsFunc([]string{
			"bench/", "internal/sitetest/", "internal/opstest/", "internal/caddytest/", "internal/scenario/",
			"internal/storefault/",
		}, func(folder string) bool { return strings.HasPrefix(path, folder) }) {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"http.Get(", "http.Post(", "http.PostForm(", "http.Head(", "http.DefaultClient"} {
			if strings.Contains(string(text), word) {
				t.Errorf("%s uses %s", path, word)
			}
		}
		if strings.Contains(string(text), "http.Client{") {
			clients++
			if !strings.Contains(string(text), "outgoing.Wrap(") {
				t.Errorf("%s has a client whose transport is not wrapped by package outgoing", path)
			}
		}
	}
	if clients < 5 {
		t.Errorf("control: %d clients", clients)
	}
}

// A line of a source fits beside another on a screen. A row of a Markdown table in a comment
// cannot be broken.
func TestLinesFit(t *testing.T) {
	const limit = 120 // columns, where a tab is 4
	for _, path := range caddytest.Sources(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			columns := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    "))
			if columns > limit && !strings.HasPrefix(line, "// `{") {
				t.Errorf("%s:%d has %d columns", path, i+1, columns)
			}
		}
	}
}
