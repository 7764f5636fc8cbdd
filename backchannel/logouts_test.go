package backchannel

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddyserver/certmagic"
)

func open(t *testing.T) *Logouts {
	return &Logouts{
		Revoked: jwt.NewRevocations(), issuer: "https://issuer.example",
		storage: &certmagic.FileStorage{Path: t.TempDir()}, known: make(map[string]time.Time),
	}
}

// refused reports whether a token of the session is refused.
func refused(l *Logouts) bool {
	issuer := jwt.Issuer{Revoked: l.Revoked}
	_, err := jwt.CheckClaims(jwt.VerifierConfig{AllowMissingExpiry: true}, &issuer, jwt.Claims{
		"sub": "alice", "sid": "1",
	}, time.Now())
	return err != nil
}

// A log-out is forgotten when its tokens have expired, and not before; then its file is removed.
func TestClean(t *testing.T) {
	l, now := open(t), time.Now()
	if refused(l) {
		t.Fatal("control")
	}
	if err := l.Add(t.Context(), "jti", Logout{SessionID: "1", Issued: now, Until: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		kept  bool
	}{{time.Minute, true}, {2 * time.Hour, false}} {
		l.clean(t.Context(), now.Add(step.after))
		stored := l.storage.Exists(t.Context(), l.path(hashed("jti")+".json"))
		if stored != step.kept || refused(l) != step.kept {
			t.Errorf("after %s: stored %v, refused %v", step.after, stored, refused(l))
		}
	}
}

// However many log-outs are kept, the next one has an effect on this node, and the issuer hears
// that the others do not know of it.
func TestFull(t *testing.T) {
	l, now := open(t), time.Now()
	for n := range MaxLogouts {
		l.known[fmt.Sprint(n)] = now
	}
	err := l.Add(t.Context(), "jti", Logout{SessionID: "1", Issued: now, Until: now.Add(time.Hour)})
	if !errors.Is(err, ErrFull) || !refused(l) {
		t.Errorf("%v, refused %v", err, refused(l))
	}
}

// If the storage fails, the issuer can repeat the logout token.
func TestStorageFails(t *testing.T) {
	l, now := open(t), time.Now()
	good := l.storage
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.storage = &certmagic.FileStorage{Path: file} // no folder
	logout := Logout{SessionID: "1", Issued: now, Until: now.Add(time.Hour)}
	if err := l.Add(t.Context(), "jti", logout); err == nil || !refused(l) {
		t.Errorf("%v, refused %v", err, refused(l))
	}
	l.storage = good
	if err := l.Add(t.Context(), "jti", logout); err != nil {
		t.Error(err)
	}
	if err := l.Add(t.Context(), "jti", logout); !errors.Is(err, ErrRepeated) {
		t.Errorf("a second time: %v", err)
	}
	other := open(t)
	other.storage = good
	if err := other.look(t.Context()); err != nil || !refused(other) {
		t.Errorf("another node: %v, refused %v", err, refused(other))
	}
	if err := other.Add(t.Context(), "jti", logout); !errors.Is(err, ErrRepeated) {
		t.Errorf("at another node: %v", err)
	}
}
