package caddyjwt_test

import (
	"net/http"
	"path/filepath"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// The keys of users have no address: a rule about it refuses them, and the rule of the warning accepts them
// beside tokens of users with a verified address only.
func TestKeysWithoutEmail(t *testing.T) {
	for rule, withKey := range map[string]int{
		"require claim email_verified true":                                      403,
		"require expression `!has(claims.iss) || claims.email_verified == true`": 200,
	} {
		s := sitetest.Serve(t, "jwt {\n api_keys\n accounts {\n signup open\n store file "+
			filepath.Join(sitetest.TempDir(t), "users.db")+"\n}\n"+rule+"\n}\nrespond hi")
		unverified := s.SignedUp("bob@example.com").Token
		s.SignedUp("alice@example.com")
		accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.EmailVerified = true })
		verified := s.LoggedIn("alice@example.com").Token
		made := s.Post("/auth/keys", sitetest.JSON{"name": "ci"}, "Authorization: Bearer "+verified)
		key, _ := made.JSON(t)["key"].(string)
		s.MustAnswer(201, made, "a key")
		s.MustAnswer(withKey, s.Bearer("/", key), rule+": a key")
		s.MustAnswer(200, s.Bearer("/", verified), rule+": a verified user")
		s.MustAnswer(http.StatusForbidden, s.Bearer("/", unverified), rule+": an unverified user")
		s.MustAnswer(401, s.Get("/"), rule+": nobody")
	}
}
