package web_test

import (
	"context"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// beforeRecord is a store that does something once before it adds a record of a kind.
type beforeRecord struct {
	store.UserStore
	kind string
	do   func()
}

func (b *beforeRecord) CreateRecord(ctx context.Context, r store.Record) error {
	if do := b.do; do != nil && r.Kind == b.kind {
		b.do = nil
		do()
	}
	return b.UserStore.CreateRecord(ctx, r)
}

// A passkey or an app that a thief's session adds at the moment of a recovery does not outlive it.
func TestThreatFactorAddedDuringRecovery(t *testing.T) {
	for _, kind := range []string{"control", "passkey", "totp"} {
		s := passkeySite(t, "passkeys\nsecond_factor optional")
		token := s.SignedUp("alice@example.com").Token
		real := accountstest.StoreOf(t)
		var racing store.UserStore = &beforeRecord{real, kind, func() { resetByOperator(s, "alice@example.com") }}
		p := accountstest.NewPasskey(t)
		options := s.Post("/auth/passkeys/options", sitetest.JSON{"password": sitetest.GoodPassword}, bearer(token))
		begun := s.Post("/auth/factors/totp", sitetest.JSON{"password": sitetest.GoodPassword}, bearer(token))
		app := accountstest.NewApp(t, begun.JSON(t)["secret"].(string))
		accountstest.ServiceOf(t).AddStore(&racing)
		var got sitetest.Reply
		if kind == "totp" {
			got = s.Post("/auth/factors/totp/confirm", sitetest.JSON{"code": app.Code(0)}, bearer(token))
		} else {
			got = s.Post("/auth/passkeys", sitetest.JSON{
				"name": "x", "credential": p.Make(s.URL, accountstest.Options(t, options)),
			}, bearer(token))
		}
		accountstest.ServiceOf(t).DropStore(&racing)
		found, err := accounts.LoadFactors(
			t.Context(), real, accountstest.UserOf(t, "alice@example.com").ID, accountstest.ServiceOf(t).Now(),
		)
		if err != nil {
			t.Fatal(err)
		}
		left := len(found.Passkeys) + found.RecoveryCodesLeft
		if kind == "control" && (got.Status != 201 || left != 1) || kind != "control" && (got.Status != 401 || left != 0) {
			t.Errorf("%s: %d %s, left %+v", kind, got.Status, got.Body, found)
		}
	}
}

// After a recovery, a passkey of before is no second factor for a log-in without the password.
func TestThreatSuspendedPasskeyAfterMailedCode(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	p := &postbox{Site: passkeySite(t, "passkeys\nsecond_factor optional\nemail_login\n"+mailOption(server, "per_address 1000")), server: server}
	token := p.SignedUp("alice@example.com").Token
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.EmailVerified = true })
	key, _ := accountstest.WithPasskey(p.Site, token)
	p.next()
	accountstest.WithApp(p.Site, token)
	p.next()
	complete := func(body sitetest.JSON) sitetest.Reply {
		challenge := p.Post("/auth/login", body).ErrorBody(t).Error.Challenge
		options := p.Post("/auth/login/passkey/options", sitetest.JSON{"challenge": challenge})
		return p.Post("/auth/login/factor", sitetest.JSON{
			"challenge": challenge, "credential": key.Use(p.URL, accountstest.Options(t, options)),
		})
	}
	byMail := func() sitetest.Reply {
		p.MustAnswer(202, p.Post("/auth/code", sitetest.JSON{"email": "alice@example.com"}), "asking for a code")
		return complete(sitetest.JSON{"email": "alice@example.com", "code": p.next().Code})
	}
	byMail().Tokens(t)
	resetByOperator(p.Site, "alice@example.com")
	mustRefuse(t, byMail(), 401, "invalid_passkey", "after the recovery")
	complete(sitetest.JSON{"email": "alice@example.com", "password": "another good password"}).Tokens(t)
	byMail().Tokens(t)
}
