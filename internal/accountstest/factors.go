package accountstest

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// CodeAt is TOTP as RFC 6238 §4 and RFC 4226 §5.3 define it, apart from the library that the accounts
// use.
func CodeAt(secret []byte, at time.Time, digits int) string {
	mac := hmac.New(sha1.New, secret)
	_ = binary.Write(mac, binary.BigEndian, at.Unix()/30)
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 0xf
	number := binary.BigEndian.Uint32(sum[offset:]) & 0x7fffffff
	modulus := uint32(1)
	for range digits {
		modulus *= 10
	}
	return fmt.Sprintf("%0*d", digits, number%modulus)
}

// App is an authenticator app.
type App struct{ Secret []byte }

func NewApp(t testing.TB, secret string) App {
	t.Helper()
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ReplaceAll(secret, " ", ""))
	if err != nil || len(key) < 16 { // RFC 4226 §4, R6
		t.Fatalf("the secret %q: %v", secret, err)
	}
	return App{key}
}

// Code is the code that the app shows now, or some steps later.
func (a App) Code(steps int) string {
	return CodeAt(a.Secret, clock.Now().Add(time.Duration(steps)*30*time.Second), 6)
}

// Wrong is a code that the app does not show around now.
func (a App) Wrong() string {
	for n := 0; ; n++ {
		guess, taken := fmt.Sprintf("%06d", n), false
		for steps := -3; steps <= 3; steps++ {
			taken = taken || a.Code(steps) == guess
		}
		if !taken {
			return guess
		}
	}
}

// WithApp sets up an app in a session, and returns it with the recovery codes.
func WithApp(s *sitetest.Site, token string) (App, []string) {
	s.T.Helper()
	own := "Authorization: Bearer " + token
	begun := s.Post("/auth/factors/totp", sitetest.JSON{"password": sitetest.GoodPassword}, own)
	s.MustAnswer(200, begun, "the secret")
	phone := NewApp(s.T, begun.JSON(s.T)["secret"].(string))
	confirmed := s.Post("/auth/factors/totp/confirm", sitetest.JSON{"code": phone.Code(0)}, own)
	s.MustAnswer(200, confirmed, "the confirmation")
	return phone, RecoveryCodesOf(s.T, confirmed)
}

func RecoveryCodesOf(t testing.TB, got sitetest.Reply) (codes []string) {
	t.Helper()
	list, _ := got.JSON(t)["recoveryCodes"].([]any)
	for _, code := range list {
		codes = append(codes, code.(string))
	}
	if len(codes) != 10 {
		t.Fatalf("recovery codes: %s", got.Body)
	}
	return codes
}
