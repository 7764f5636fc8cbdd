package caddyjwt_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// With Caddy's `tracing`, the span of a request has the decision, and neither user nor token. A
// collector receives it by OTLP, whose strings are readable in its messages.
func TestTracing(t *testing.T) {
	var mu sync.Mutex
	var received strings.Builder
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if received.Write(text); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
		}
	}))
	defer collector.Close()
	var traceparent atomic.Value
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		traceparent.Store(r.Header.Get("Traceparent"))
		fmt.Fprint(w, `{"active":false}`)
	}))
	defer issuer.Close()
	dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
	config := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
	storage file_system %q
}
http://%s {
	tracing
	jwt /opaque {
		introspection %s
	}
	jwt /own/* {
		issuer https://issuer.example
		audience a
		secret %q
	}
	respond ok
}
`, dir, address, issuer.URL, sitetest.Secret)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(caddytest.Binary(t), "run", "--config", config)
	command.Env = append(os.Environ(), "HOME="+dir, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL, "OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_METRICS_EXPORTER=none")
	scenario.Start(t, command)
	s := &sitetest.Site{T: t, URL: "http://" + address}
	sitetest.Eventually(t, "Caddy answers", func() bool {
		response, err := http.Get(s.URL)
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	})
	has := func(want ...string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, text := range want {
				if !strings.Contains(received.String(), text) {
					return false
				}
			}
			return true
		}
	}
	claims := sitetest.JSON{"iss": "https://issuer.example", "aud": "a", "sub": "a-user-of-the-test"}
	good := sitetest.HS256(t, claims)
	claims["exp"] = 1
	expired := sitetest.HS256(t, claims)
	s.MustAnswer(401, s.Bearer("/own/", expired), "an expired token")
	sitetest.Eventually(t, "a refusal", has("jwt.result", "refused", "jwt.reason", "expired"))
	if has("allowed")() {
		t.Error("a request was allowed")
	}
	s.MustAnswer(200, s.Bearer("/own/", good), "a token that is valid")
	sitetest.Eventually(t, "an allowed request", has("allowed", "jwt.issuer", "https://issuer.example", "jwt.credential"))
	s.MustAnswer(401, s.Bearer("/opaque", "an-opaque-token-of-the-test"), "a token that the issuer does not know")
	sitetest.Eventually(t, "a span of the request to the issuer", has("POST "+strings.TrimPrefix(issuer.URL, "http://")))
	if parent, _ := traceparent.Load().(string); !strings.HasPrefix(parent, "00-") {
		t.Errorf("the issuer got the trace context %q", parent)
	}
	for what, secret := range map[string]string{
		"the user": "a-user-of-the-test", "the token": strings.Split(good, ".")[2], "the secret": sitetest.Secret,
		"an opaque token": "an-opaque-token-of-the-test",
	} {
		if has(secret)() {
			t.Errorf("%s is in the trace", what)
		}
	}
}
