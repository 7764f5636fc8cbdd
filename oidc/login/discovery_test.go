package login

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
)

// A provider elsewhere cannot make the site send requests to its own machine.
func TestLoginWithEndpointsOnThisMachine(t *testing.T) {
	asked := false
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer inside.Close()
	var hostile *httptest.Server
	hostile = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": hostile.URL, "authorization_endpoint": hostile.URL + "/a",
			"token_endpoint": inside.URL + "/stop", "jwks_uri": hostile.URL + "/k",
		})
	}))
	defer hostile.Close()
	d := &provider{source: source{issuer: hostile.URL, document: hostile.URL}}
	_, err := d.look(gooidc.ClientContext(t.Context(), hostile.Client()))
	if err == nil || !strings.Contains(err.Error(), "its token_endpoint is") || asked {
		t.Errorf("%v, asked: %v", err, asked)
	}
}
