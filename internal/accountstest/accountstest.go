// Package accountstest gives tests access to the accounts of a running site, and runs the
// commands. It is apart from sitetest because it imports the accounts, whose own tests use
// sitetest.
package accountstest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// ServiceOf returns the accounts service of the running site.
func ServiceOf(t testing.TB) (service *accounts.Service) {
	t.Helper()
	for _, service = range accounts.Running() {
	}
	return service
}

func StoreOf(t testing.TB) store.UserStore {
	t.Helper()
	return ServiceOf(t).Users()
}

func UserOf(t testing.TB, email string) store.User {
	t.Helper()
	user, err := StoreOf(t).UserByEmail(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	return user
}

func ChangeUser(t testing.TB, email string, change func(*store.User)) {
	t.Helper()
	_, err := StoreOf(t).UpdateUser(t.Context(), UserOf(t, email).ID, time.Now(), func(u *store.User) error {
		change(u)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// FillHashGate keeps all hash slots in use, and one log-in of a client waiting, until the
// returned function is called.
func FillHashGate(t testing.TB, address string) (stop func()) {
	t.Helper()
	release := password.Occupy()
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	before := password.Busy()
	waiting.Go(func() {
		_, _ = password.Hash(ctx, password.Turn{Queue: 1, What: "log-in", Client: address}, "a password")
	})
	sitetest.Eventually(t, "somebody waits", func() bool { return password.Busy() > before })
	return func() {
		cancel()
		waiting.Wait()
		release()
	}
}
