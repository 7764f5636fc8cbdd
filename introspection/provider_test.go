package introspection_test

import (
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	_ "github.com/caddy-jwt/caddy-jwt/oidc/provider"
)

// Our own provider, whose access tokens are JWTs, is asked about them with `always`: a token
// that is revoked there is refused.
func TestOurProvider(t *testing.T) {
	const secret = "a-secret-of-a-client-0123456789-abcdef"
	s := &sitetest.Site{
		T: t, URL: "http://" + sitetest.FreeLocalhost(t), LogFile: filepath.Join(sitetest.TempDir(t), "log.json"),
	}
	s.Load(`
	oidc_provider {
		issuer `+s.URL+`
		accounts {
			store file `+filepath.Join(sitetest.TempDir(t), "users.db")+`
		}
		client app {
			secret `+secret+`
			grant_types client_credentials
			scopes orders
		}
		client api {
			secret `+secret+`
			grant_types client_credentials
			introspect
		}
	}
	jwt /api/* {
		issuer `+s.URL+` {
			introspection {
				client_id api
				client_secret `+secret+`
				cache off
				always
			}
		}
	}
	respond /api/* "{http.auth.user.client_id}"`, sitetest.TempDir(t))
	sitetest.StopAfter(t)
	post := func(path string, form url.Values) string {
		t.Helper()
		request, err := http.NewRequest(http.MethodPost, s.URL+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth("app", secret)
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != 200 {
			t.Fatalf("%s: %d %s %v", path, response.StatusCode, body, err)
		}
		return string(body)
	}
	answer := sitetest.Reply{Body: post("/oidc/token", url.Values{"grant_type": {"client_credentials"}})}
	token, _ := answer.JSON(t)["access_token"].(string)
	if got := s.Bearer("/api/x", token); got.Status != 200 || got.Body != "app" {
		t.Fatalf("control: %d %s", got.Status, got.Body)
	}
	post("/oidc/revoke", url.Values{"token": {token}})
	s.MustAnswer(401, s.Bearer("/api/x", token), "revoked at the provider")
	s.MustAnswer(401, s.Bearer("/api/x", "opaque"), "unknown to the provider")
}
