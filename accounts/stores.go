package accounts

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddy-jwt/caddy-jwt/store"
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
