package web_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// A user with the ID of another system has all of an account: tokens, cookies that browsers keep,
// sessions, a second factor, a passkey, a new password and the end of all of it.
func TestImportedIDs(t *testing.T) {
	s := sitetest.ServeLocalhost(t, sitetest.AccountsBody(
		filepath.Join(sitetest.TempDir(t), "users.db"),
		"passkeys\n second_factor optional\n token_claims id sub\n throttle off",
	))
	hash := sitetest.WeakArgon2id(sitetest.GoodPassword)
	for i, id := range []string{
		"auth0|64f1c0de5f1a2b3c4d5e6f70", "us-east-1:0f1e2d3c-4b5a", "samlp|c|carol@example.com", "42",
		"_x~y=(z)!+.", strings.Repeat("z|", 127) + "z",
	} {
		email := fmt.Sprintf("user%d@example.com", i)
		now := time.Now()
		if err := accountstest.StoreOf(t).CreateUser(t.Context(), store.User{
			ID: id, Email: email, EmailKey: email, PasswordHash: hash, CreatedAt: now, UpdatedAt: now,
			Roles: []string{strings.Repeat("r", 1024)},
		}); err != nil {
			t.Fatal(err)
		}
		got := s.LoggedIn(email)
		if claims := sitetest.ClaimsOf(t, got.Token); claims["sub"] != id || claims["id"] != id {
			t.Errorf("%s: claims %v", id, claims)
		}
		own := "Authorization: Bearer " + got.Token
		if about := s.Bearer("/auth/whoami", got.Token).JSON(t); about["id"] != id {
			t.Errorf("%s: whoami %v", id, about)
		}
		if seen := s.Bearer("/todos/", got.Token); seen.Status != 200 || !strings.Contains(seen.Body, id) {
			t.Errorf("%s: behind it is seen %d %s", id, seen.Status, seen.Body)
		}
		browser := s.Form(sitetest.Browser(t), "/auth/login", sitetest.FormOf(email))
		for _, cookie := range browser.Header["Set-Cookie"] {
			parsed, err := http.ParseSetCookie(cookie)
			if err != nil || len(parsed.Name)+len(parsed.Value) > 4096 {
				t.Errorf("%s: a cookie of %d bytes, which no browser keeps, %v", id, len(cookie), err)
			}
		}
		if len(browser.Header["Set-Cookie"]) == 0 {
			t.Errorf("%s: control: no cookies, %d", id, browser.Status)
		}
		s.MustAnswer(200, s.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}), id+": refresh")
		s.MustAnswer(200, s.Bearer("/auth/sessions", got.Token), id+": sessions")
		accountstest.WithPasskey(s, got.Token)
		_, codes := accountstest.WithApp(s, got.Token)
		if len(codes) == 0 {
			t.Errorf("%s: no recovery codes", id)
		}
		s.MustAnswer(200, s.Bearer("/auth/export", got.Token), id+": export")
		s.MustAnswer(204, s.Post("/auth/password", sitetest.JSON{
			"currentPassword": sitetest.GoodPassword, "newPassword": "another good password",
		}, own), id+": a new password")
		s.MustAnswer(204, s.Send(
			"DELETE", "/auth/whoami", `{"password":"another good password"}`, own, "Content-Type: application/json",
		), id+": deletion")
		if _, err := accountstest.StoreOf(t).User(t.Context(), id); err == nil {
			t.Errorf("%s is still there", id)
		}
	}
}
