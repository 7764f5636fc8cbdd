package main_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// A store, keys and a config of the previous version still work, with the Caddyfile and with the
// JSON that it adapted to then.
func TestDataOfTheVersionBefore(t *testing.T) {
	for _, config := range []string{"Caddyfile", "adapted.json"} {
		t.Run(config, func(t *testing.T) {
			o := copyOlder(t)
			keys := o.signingKeys()
			o.run(config)
			o.tokensAreAccepted()
			o.usersLogIn()
			o.resetLinkWorksOnce()
			o.clientsAreKnown()
			o.metricsAreThere()
			for host, answer := range map[string]string{
				"app.example/auth/jwks.json": "app-jwks.json", "id.example/oidc/jwks.json": "id-jwks.json",
			} {
				if got := o.get(host); keyIDs(t, got.body) != keyIDs(t, o.answer(answer)) {
					t.Errorf("keys at %s: %s, before: %s", host, got.body, o.answer(answer))
				}
			}
			if now := o.signingKeys(); now != keys {
				t.Errorf("the signing keys in the storage changed from\n%s\nto\n%s", keys, now)
			}
		})
	}
}

func TestAdaptedAsBefore(t *testing.T) {
	o := copyOlder(t)
	var before bytes.Buffer
	if err := json.Compact(&before, []byte(o.file("adapted.json"))); err != nil {
		t.Fatal(err)
	}
	// added since: the way from the prefix to the account page
	home := []byte(`{"handle":[{"handler":"static_response","headers":{"Cache-Control":["no-store"],"Location":["auth/account"]},` +
		`"status_code":303}],"match":[{"header":{"Accept":["*text/html*"]},"method":["GET","HEAD"],"path":["/auth"]}]},`)
	if now := bytes.ReplaceAll(o.adapted(), home, nil); string(now) != before.String() {
		t.Errorf("the Caddyfile adapts to\n%s\nand before it did to\n%s", now, before.String())
	}
}

// Keys that were withdrawn in the previous version stay withdrawn, even if a backup restores them.
func TestKeysWithdrawnBefore(t *testing.T) {
	for _, test := range []struct {
		name   string
		remove string
		back   bool
	}{
		{"the store remembers", "nothing", false},
		{"control: a store without memory", "users.db", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := copyOlder(t)
			for _, path := range []string{"storage/jwt/signing_keys", test.remove} {
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.CopyFS("storage/jwt/signing_keys", os.DirFS("withdrawn")); err != nil {
				t.Fatal(err)
			}
			var withdrawn struct {
				Keys []struct{ JWK json.RawMessage }
			}
			files, err := filepath.Glob("withdrawn/*.json")
			if err != nil || len(files) != 3 {
				t.Fatal(files, err)
			}
			o.run("Caddyfile")
			published := o.get("app.example/auth/jwks.json").body + o.get("id.example/oidc/jwks.json").body
			for _, file := range files {
				o.decode(o.file(file), &withdrawn)
				id := keyIDs(t, `{"keys":[`+string(withdrawn.Keys[0].JWK)+`]}`)
				if strings.Contains(published, id) != test.back {
					t.Errorf("key %s is published: %v, expected %v", id, !test.back, test.back)
				}
			}
		})
	}
}

func (o *older) tokensAreAccepted() {
	alice := o.user("alice")
	for _, of := range []string{"login", "later"} {
		got := o.bearer("app.example/todos/", o.tokens(of+".json").Token)
		if user := o.user(map[string]string{"login": "alice", "later": "bob"}[of]); got.body != "user="+user.ID+
			" roles=author" {
			o.t.Errorf("the access token of %s: %d %s", of, got.status, got.body)
		}
	}
	cookies := "Cookie: " + strings.TrimSpace(o.answer("cookies.txt"))
	if got := o.get("app.example/todos/", cookies); got.body != "user="+alice.ID+" roles=author" {
		o.t.Errorf("the cookies: %d %s", got.status, got.body)
	}
	partner := strings.TrimSpace(o.answer("partner.jwt"))
	for what, got := range map[string]olderReply{
		"header": o.bearer("app.example/partner/", partner), "query": o.get("app.example/partner/?token=" + partner),
	} {
		if got.body != "partner=paula" {
			o.t.Errorf("the partner's token by %s, with the key set in the storage: %d %s", what, got.status, got.body)
		}
	}
}

func (o *older) usersLogIn() {
	fresh := o.post("app.example/auth/refresh", sitetest.JSON{"refreshToken": o.tokens("login.json").RefreshToken})
	var refreshed olderTokens
	o.decode(fresh.body, &refreshed)
	if got := o.bearer("app.example/todos/", refreshed.Token); fresh.status != 200 || got.status != 200 {
		o.t.Errorf("refresh: %d %s; the new token: %d", fresh.status, fresh.body, got.status)
	}
	for _, name := range []string{"alice", "bob"} {
		o.logIn(name, "correct horse battery", 200)
		o.logIn(name, "wrong horse battery", 401)
	}
	if got := o.bearer("app.example/auth/whoami", refreshed.Token); got.body != o.answer("alice.json") {
		o.t.Errorf("whoami: %d %s, before: %s", got.status, got.body, o.answer("alice.json"))
	}
}

func (o *older) logIn(name, password string, status int) {
	o.t.Helper()
	if got := o.post("app.example/auth/login", sitetest.JSON{
		"email": name + "@example.com", "password": password,
	}); got.status != status {
		o.t.Errorf("log-in of %s with %q: %d %s, expected %d", name, password, got.status, got.body, status)
	}
}

func (o *older) resetLinkWorksOnce() {
	link, err := url.Parse(strings.TrimSpace(o.answer("reset-link.txt")))
	if err != nil {
		o.t.Fatal(err)
	}
	for _, status := range []int{204, 401} {
		body := sitetest.JSON{"token": link.Query().Get("token"), "newPassword": "another horse battery"}
		if got := o.post(link.Host+link.Path, body); got.status != status {
			o.t.Errorf("reset link: %d %s, expected %d", got.status, got.body, status)
		}
	}
	o.logIn("bob", "another horse battery", 200)
}

// clientsAreKnown sends requests of the client in the config, and of the one in the store.
func (o *older) clientsAreKnown() {
	const shop = "a-secret-of-the-shop-0123456789"
	for client, secret := range map[string]string{"shop": shop, "wiki": strings.TrimSpace(o.answer("wiki.txt"))} {
		if got := o.token(client, secret, url.Values{"grant_type": {"client_credentials"}}); got.status != 200 {
			o.t.Errorf("client %s: %d %s", client, got.status, got.body)
		}
		if got := o.token(client, "not "+secret, url.Values{"grant_type": {"client_credentials"}}); got.status != 401 {
			o.t.Errorf("client %s with another secret: %d %s", client, got.status, got.body)
		}
	}
	var before, now struct {
		RefreshToken string `json:"refresh_token"`
		AccessToken  string `json:"access_token"`
	}
	o.decode(o.answer("shop.json"), &before)
	got := o.token("shop", shop, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {before.RefreshToken}})
	o.decode(got.body, &now)
	if user := o.bearer("id.example/oidc/userinfo", now.AccessToken); !strings.Contains(user.body, o.user("alice").ID) {
		o.t.Errorf("refresh token of the client: %d %s; its user: %d %s", got.status, got.body, user.status, user.body)
	}
	query := url.Values{
		"client_id": {"shop"}, "response_type": {"code"},
		"redirect_uri": {"https://shop.example/callback"}, "scope": {"openid"},
	}
	page := o.get("id.example/oidc/authorize?"+query.Encode(), "Cookie: "+strings.TrimSpace(o.answer("cookies.txt")))
	if to := page.header.Get("Location"); !strings.HasPrefix(to, "https://shop.example/callback?code=") {
		o.t.Errorf("authorize, with the cookies of before: %d to %q", page.status, to)
	}
}

func (o *older) token(client, secret string, form url.Values) olderReply {
	request := o.request(
		http.MethodPost, "id.example/oidc/token", form.Encode(), "Content-Type: application/x-www-form-urlencoded",
	)
	request.SetBasicAuth(client, secret)
	return o.send(request)
}

// metricsAreThere checks that each previous series still exists, by name and labels; there may be more
// labels by now, which come after those.
func (o *older) metricsAreThere() {
	now := o.get("app.example/metrics").body
	for series := range strings.Lines(o.answer("metrics.txt")) {
		series = strings.TrimSpace(series)
		more := strings.TrimSuffix(series, "}") + ","
		if !strings.Contains(now, "\n"+series+" ") && !strings.Contains(now, "\n"+more) {
			o.t.Errorf("no metric %s", series)
		}
	}
}
