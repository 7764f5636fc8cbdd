package accounts

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
)

// stores are the stores of the loaded configs. The newest one is used.
type stores struct {
	mu      sync.Mutex
	all     []*store.UserStore
	current atomic.Pointer[store.UserStore]
}

// Users returns the store in use.
func (s *stores) Users() store.UserStore { return *s.current.Load() }

// AddStore makes the store of the newest config the one in use. Each store is cleaned up
// with its config, even if the config is refused later.
func (s *stores) AddStore(users *store.UserStore) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, users)
	s.current.Store(users)
}

func (s *stores) dropStore(users *store.UserStore) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(known *store.UserStore) bool { return known == users })
	if len(s.all) > 0 {
		s.current.Store(s.all[len(s.all)-1])
	}
}

// site is what all parts of a [Service] share.
type site struct {
	// Config is resolved: defaults are set.
	Config Config
	// Now is the clock, and Log the logger of the accounts.
	Now func() time.Time
	Log *zap.Logger

	stores
}

// Audit logs an account event. It identifies users by ID, because text in the e-mail field
// may be a password.
func (s *site) Audit(event, userID, sessionID string, client Client) {
	s.Log.Named("audit").Info(
		event, zap.String("user_id", userID), zap.String("session_id", sessionID),
		zap.String("client_ip", client.Address),
	)
}

// HashTurn returns the place of a client in the queue for hashing.
func (s *site) HashTurn(what string, client Client) password.Turn {
	return password.Turn{Queue: s.Config.HashQueue, What: what, Client: client.Address}
}
