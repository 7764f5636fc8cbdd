package examples_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// tokenOf returns a token that the issuer made for the API of the examples.
func tokenOf(issuer *sitetest.IntrospectionServer, user, session string) []string {
	return bearerOf(issuer.Sign("JWT", sitetest.Claims(sitetest.JSON{
		"iss": issuer.URL, "aud": "https://api.example.com", "sub": user, "sid": session, "iat": time.Now().Unix() - 10,
	})))
}

func TestExampleBackchannelLogout(t *testing.T) {
	issuer := sitetest.NewIntrospectionServer(t)
	s := runExample(t, "backchannel-logout", "ISSUER", issuer.URL)
	alice, bob := tokenOf(issuer, "alice", "1"), tokenOf(issuer, "bob", "2")
	runSteps(s, step{"/api/", alice, 200, "hello alice"}, step{"/api/", bob, 200, "hello bob"})
	now := time.Now().Unix()
	response, err := http.PostForm(s.URL+"/backchannel-logout", url.Values{
		"logout_token": {issuer.Sign("logout+jwt", sitetest.JSON{
			"iss": issuer.URL, "aud": "my-app", "iat": now, "exp": now + 120, "jti": "1", "sid": "1",
			"events": sitetest.JSON{"http://schemas.openid.net/event/backchannel-logout": sitetest.JSON{}},
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != 200 {
		t.Fatalf("the log-out: %s", response.Status)
	}
	runSteps(s, step{"/api/", alice, 401, "ended"}, step{"/api/", bob, 200, "hello bob"})
}

func TestExamplePolicyService(t *testing.T) {
	issuer := sitetest.NewIntrospectionServer(t)
	policy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var question struct {
			Input struct {
				Path   string
				Claims struct{ Sub string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
			t.Error(err)
		}
		own := strings.HasPrefix(question.Input.Path, "/api/"+question.Input.Claims.Sub+"/")
		sitetest.WriteJSON(t, w, 200, sitetest.JSON{"result": own})
	}))
	t.Cleanup(policy.Close)
	s := runExample(t, "policy-service", "ISSUER", issuer.URL, "POLICY", policy.URL)
	alice := tokenOf(issuer, "alice", "1")
	runSteps(s, step{"/api/alice/1", alice, 200, "hello alice"}, step{"/api/bob/1", alice, 403, "forbidden"})
	policy.Close()
	runSteps(s, step{"/api/alice/1", alice, 503, ""})
}
