package web_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// describedAs reports whether an answer has the form that the document describes: the properties that
// must be there, and no others.
func describedAs(value any, described map[string]any) bool {
	for _, one := range listOf(described["oneOf"]) {
		if describedAs(value, one.(map[string]any)) {
			return true
		}
	}
	properties, _ := described["properties"].(map[string]any)
	object, isObject := value.(map[string]any)
	if properties == nil || !isObject {
		return properties == nil && described["oneOf"] == nil
	}
	for name, value := range object {
		of, known := properties[name].(map[string]any)
		if !known || !describedAs(value, of) {
			return false
		}
	}
	for _, name := range listOf(described["required"]) {
		if _, there := object[name.(string)]; !there {
			return false
		}
	}
	return true
}

func listOf(value any) []any {
	list, _ := value.([]any)
	return list
}

// The document describes what log-ins with a second factor or a passkey answer.
func TestOpenAPIOfFactors(t *testing.T) {
	clock := sitetest.SetClock(t)
	s := passkeySite(t, "passkeys\nsecond_factor required board")
	paths := s.Get("/auth/openapi.json").JSON(t)["paths"].(map[string]any)
	is := func(got sitetest.Reply, method, path string) sitetest.Reply {
		t.Helper()
		operation, _ := paths[path].(map[string]any)[strings.ToLower(method)].(map[string]any)
		answer, _ := operation["responses"].(map[string]any)[fmt.Sprint(got.Status)].(map[string]any)
		content, _ := answer["content"].(map[string]any)["application/json"].(map[string]any)
		described, _ := content["schema"].(map[string]any)
		if described == nil || !describedAs(map[string]any(got.JSON(t)), described) {
			t.Errorf("%s %s: %d %s is not described: %v", method, path, got.Status, got.Body, described)
		}
		return got
	}
	post := func(path string, body any, headers ...string) sitetest.Reply {
		t.Helper()
		return is(s.Post(path, body, headers...), "POST", path)
	}
	s.SignedUp("alice@example.com")
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Roles = []string{"board"} })
	enrol := post("/auth/login", sitetest.CredentialsOf("alice@example.com")).ErrorBody(t).Error.Challenge
	begun := post("/auth/factors/totp", sitetest.JSON{"challenge": enrol})
	app := accountstest.NewApp(t, begun.JSON(t)["secret"].(string))
	confirmed := post("/auth/factors/totp/confirm", sitetest.JSON{"challenge": enrol, "code": app.Code(0)})
	if confirmed.JSON(t)["token"] == nil || confirmed.JSON(t)["recoveryCodes"] == nil {
		t.Errorf("control: %s", confirmed.Body)
	}
	clock.Ahead.Add(60)
	challenge := post("/auth/login", sitetest.CredentialsOf("alice@example.com")).ErrorBody(t).Error.Challenge
	if challenge == "" {
		t.Fatal("control: no challenge")
	}
	token := post("/auth/login/factor", sitetest.JSON{"challenge": challenge, "code": app.Code(0)}).Tokens(t).Token

	options := is(s.Send(http.MethodPost, "/auth/passkeys/options", "", bearer(token)), "POST", "/auth/passkeys/options")
	key := accountstest.NewPasskey(t)
	post("/auth/passkeys", sitetest.JSON{
		"name": "x", "credential": key.Make(s.URL, accountstest.Options(t, options)),
	}, bearer(token))
	options = is(s.Send(http.MethodPost, "/auth/login/passkey/options", ""), "POST", "/auth/login/passkey/options")
	post("/auth/login/passkey", sitetest.JSON{
		"challenge": options.JSON(t)["challenge"], "credential": key.Use(s.URL, accountstest.Options(t, options)),
	})
	for _, path := range []string{"/auth/passkeys/options", "/auth/login/passkey/options"} {
		if body := paths[path].(map[string]any)["post"].(map[string]any)["requestBody"].(map[string]any); body["required"] != false {
			t.Errorf("%s requires a body", path)
		}
	}
}
