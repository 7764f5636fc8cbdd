package accounts

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddy-jwt/caddy-jwt/store"
)

// stores are those of the configs that are loaded. The newest one is used.
type stores struct {
	mu      sync.Mutex
	all     []*store.UserStore
	current atomic.Pointer[store.UserStore]
}

// Users is the store.
func (s *stores) Users() store.UserStore { return *s.current.Load() }

// AddStore has the store of the newest config be the one that is used. Each is
// cleaned up with its config, also with one that is refused after this.
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
