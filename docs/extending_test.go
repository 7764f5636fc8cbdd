package docs_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

var (
	goBlock   = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")
	siteBlock = regexp.MustCompile("(?ms)^```text\n(http://localhost:8080 \\{.*?)^```$")
)

// The code of docs/extending.md compiles in a module of somebody else's, and works in a Caddy that
// is built with it.
func TestExtending(t *testing.T) {
	caddytest.Sources(t) // which the go command reads
	page, err := os.ReadFile("docs/extending.md")
	if err != nil {
		t.Fatal(err)
	}
	checkout, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := sitetest.TempDir(t)
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	blocks := goBlock.FindAllSubmatch(page, -1)
	if len(blocks) != 3 {
		t.Fatalf("%d blocks of Go", len(blocks))
	}
	for i, block := range blocks {
		write("part"+string(rune('1'+i))+".go", string(block[1]))
	}
	write("build/main.go", `package main

import (
	_ "example.org/example"
	_ "github.com/caddy-jwt/caddy-jwt"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() { caddycmd.Main() }
`)
	write("interfaces_test.go", `package example

import (
	"github.com/caddy-jwt/caddy-jwt/authorizers"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/upstream"
)

var (
	_ credentials.Verifier   = (*Tickets)(nil)
	_ authorizers.Authorizer = (*OwnFolder)(nil)
	_ upstream.ClaimSource   = (*Tenant)(nil)
)
`)
	own, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile("go.sum")
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/caddy-jwt/caddy-jwt"
	write("go.mod", strings.Replace(string(own), "module "+module, "module example.org/example", 1)+
		"\nrequire "+module+" v0.0.0\nreplace "+module+" => "+checkout+"\n")
	write("go.sum", string(sums))
	run := func(args ...string) {
		t.Helper()
		command := exec.Command("go", args...)
		command.Dir = dir
		command.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=mod")
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, output)
		}
	}
	run("vet", ".")
	binary := filepath.Join(dir, "caddy")
	run("build", "-o", binary, "./build")

	var token atomic.Value
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		token.Store(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	}))
	t.Cleanup(backend.Close)
	text := siteBlock.FindSubmatch(page)
	if text == nil {
		t.Fatal("no Caddyfile")
	}
	address := sitetest.FreeLocalhost(t)
	write("Caddyfile", sitetest.GlobalOptions(filepath.Join(dir, "storage"), filepath.Join(dir, "log.json"), "")+
		strings.NewReplacer("localhost:8080", address, "localhost:3000", strings.TrimPrefix(backend.URL, "http://")).
			Replace(string(text[1])))
	command := exec.Command(binary, "run", "--config", filepath.Join(dir, "Caddyfile"))
	scenario.Start(t, command)
	t.Cleanup(func() { _ = command.Process.Kill() })
	s := &sitetest.Site{T: t, URL: "http://" + address}
	sitetest.Eventually(t, "it answers", func() bool {
		response, err := http.Get(s.URL)
		if err == nil {
			_ = response.Body.Close()
		}
		return err == nil
	})
	s.MustAnswer(200, s.Bearer("/alice/x", "ticket-alice"), "her ticket, her folder")
	raw, _ := token.Load().(string)
	if claims := sitetest.ClaimsOf(t, raw); claims["tenant"] != strings.Split(address, ".")[0] &&
		claims["tenant"] != address || claims["sub"] != "alice" {
		t.Errorf("claims %v", claims)
	}
	s.MustAnswer(403, s.Bearer("/bob/x", "ticket-alice"), "another folder")
	s.MustAnswer(400, s.Bearer("/alice/../bob/x", "ticket-alice"), "a path that may be another")
	s.MustAnswer(401, s.Bearer("/mallory/x", "ticket-mallory"), "a ticket that nobody has")
	s.MustAnswer(401, s.Bearer("/alice/x", "alice"), "another kind")
}
