package thismachine_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
)

func TestIs(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST.": true, "a.localhost": true, "127.0.0.1": true,
		"127.9.9.9": true, "[::1]": true, "::ffff:127.0.0.1": true, "0.0.0.0": true, "::": true,
		"example.com": false, "10.0.0.1": false, "localhost.example.com": false, "128.0.0.1": false,
	} {
		if thismachine.Is(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
}

// A request that must not reach this machine is stopped by the machine's names, and by the address
// of any other name.
func TestForbid(t *testing.T) {
	asked := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	t.Cleanup(server.Close)
	inner := new(http.Transport)
	client := &http.Client{Transport: thismachine.NewTransport(inner)}
	get := func(forbid bool) (reached bool, err error) {
		ctx, here := thismachine.Reached(t.Context())
		if forbid {
			ctx = thismachine.Forbid(ctx)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			client.CloseIdleConnections()
		}
		return here(), err
	}
	if _, err := get(true); err == nil || asked || !strings.Contains(err.Error(), "this machine") {
		t.Errorf("forbidden: %v", err)
	}
	if _, err := inner.DialContext(
		thismachine.Forbid(t.Context()), "tcp", strings.TrimPrefix(server.URL, "http://"),
	); err == nil {
		t.Error("the address is reached")
	}
	if reached, err := get(false); err != nil || !asked || !reached {
		t.Errorf("control: %v, reached %v", err, reached)
	}
}
