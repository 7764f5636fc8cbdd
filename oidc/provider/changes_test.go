package provider_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// A client's permissions change with its config, also during a log-in and after it.
const (
	shopOfMore = "client shop {\n secret " + appSecret + "\n redirect_uri " + appCallback +
		"\n scopes openid email roles offline_access\n}\n"
	shopOfLess = "client shop {\n secret " + appSecret + "\n redirect_uri " + appCallback +
		"\n scopes openid offline_access\n}\n"
)

func shopRequest(s *site, more url.Values) string {
	values := url.Values{"scope": {"openid email roles offline_access"}}
	for name, value := range more {
		values[name] = value
	}
	return s.authorizeURL("shop", values)
}

func (b *browser) asShop(form url.Values) sitetest.Reply {
	return b.Post("/oidc/token", form, sitetest.Basic("shop", appSecret))
}

func (b *browser) redeemAsShop(code string) sitetest.Reply {
	return b.asShop(url.Values{
		"grant_type": {"authorization_code"}, "code": {code},
		"redirect_uri": {appCallback}, "code_verifier": {verifier},
	})
}

// Consent covers only what the page lists.
func TestThreatConsentToAnOldPage(t *testing.T) {
	s := serve(t, shopOfLess, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	old := chrome.Get(chrome.Get(shopRequest(s, nil)).To(t).String())
	if strings.Contains(old.Body, "See your e-mail address") {
		t.Fatalf("control: %s", old.Body)
	}
	s.load(shopOfMore, "", s.dir)
	page := chrome.Decide("/oidc/consent", old, "allow")
	if page.Status != http.StatusOK || !strings.Contains(page.Body, "See your e-mail address") {
		t.Fatalf("it is not asked again: %d %s", page.Status, page.Body)
	}
	back := chrome.GoOn(chrome.Decide("/oidc/consent", page, "allow").To(t).String())
	if given := chrome.redeemAsShop(back.Query().Get("code")).JSON(t); given["scope"] !=
		"openid email roles offline_access" {
		t.Errorf("control: after the new page the scope is %v", given["scope"])
	}
}

// A scope that a client is no longer allowed to use has no effect: neither in later tokens, nor on
// claims that were requested by name.
func TestThreatScopesThatWereTaken(t *testing.T) {
	s := serve(t, shopOfMore, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	byName := url.Values{"claims": {`{"userinfo":{"email":null},"id_token":{"email":null}}`}}
	given := chrome.redeemAsShop(chrome.GoOn(shopRequest(s, byName)).Query().Get("code")).JSON(t)
	userinfo := func(tokens map[string]any) map[string]any {
		return chrome.Do(
			http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+tokens["access_token"].(string),
		).JSON(t)
	}
	if sitetest.ClaimsOf(t, given["id_token"].(string))["email"] == nil || userinfo(given)["email"] == nil {
		t.Fatal("control: the address is not given")
	}
	code := chrome.GoOn(shopRequest(s, byName)).Query().Get("code")
	s.load(shopOfLess, "", s.dir)
	refreshed := chrome.asShop(url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {given["refresh_token"].(string)},
	}).JSON(t)
	for name, tokens := range map[string]map[string]any{
		"a refresh": refreshed, "a code from before": chrome.redeemAsShop(code).JSON(t),
	} {
		if tokens["scope"] != "openid offline_access" ||
			sitetest.ClaimsOf(t, tokens["id_token"].(string))["email"] != nil || userinfo(tokens)["email"] != nil {
			t.Errorf(
				"%s gives %v, %v, %v", name, tokens["scope"],
				sitetest.ClaimsOf(t, tokens["id_token"].(string)), userinfo(tokens),
			)
		}
	}
	if got := userinfo(given); got["email"] != nil {
		t.Errorf("a token from before gives %v", got)
	}
}

// Refreshes at the provider are counted like those of the accounts.
func TestRefreshMetrics(t *testing.T) {
	s := serve(t, shopOfMore, "metrics /metrics")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	count := func(result string) (all string) { // of the stores of all tests
		for line := range strings.Lines(chrome.Get("/metrics").Body) {
			if strings.HasPrefix(line, `caddy_jwt_account_events_total{event="refresh",result="`+result+`",`) {
				_, count, _ := strings.Cut(line, "} ")
				all += count
			}
		}
		return all
	}
	before := map[string]string{
		"ok": count("ok"), "repeated": count("repeated"), "reused": count("reused"), "refused": count("refused"),
	}
	given := chrome.redeemAsShop(chrome.GoOn(shopRequest(s, nil)).Query().Get("code")).JSON(t)
	form := func(tokens map[string]any) url.Values {
		return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens["refresh_token"].(string)}}
	}
	first := chrome.asShop(form(given)).JSON(t)
	for i, step := range []struct {
		tokens map[string]any
		status int
	}{
		{given, 200}, {first, 200}, // again, and its successor
		{given, 400}, {given, 400}, // its successor was used; its grant has ended
	} {
		if got := chrome.asShop(form(step.tokens)); got.Status != step.status {
			t.Errorf("step %d: %d %s", i+1, got.Status, got.Body)
		}
	}
	for result, was := range before {
		if now := count(result); now == was {
			t.Errorf("%s was %s and is %s", result, was, now)
		}
	}
}
