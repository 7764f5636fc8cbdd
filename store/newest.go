package store

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Newest are the stores of the loaded configs. The newest one is used.
type Newest struct {
	mu      sync.Mutex
	all     []*UserStore
	current atomic.Pointer[UserStore]
}

// Users returns the store in use. There must have been one.
func (n *Newest) Users() UserStore { return *n.current.Load() }

// AddStore makes the store of the newest config the one in use. Each store is cleaned up with
// its config, even if the config is refused later; drop it before.
func (n *Newest) AddStore(users *UserStore) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Contains(n.all, users) {
		n.all = append(n.all, users)
	}
	n.current.Store(users)
}

// DropStore removes a store. The last one remains in use.
func (n *Newest) DropStore(users *UserStore) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = slices.DeleteFunc(n.all, func(known *UserStore) bool { return known == users })
	if len(n.all) > 0 {
		n.current.Store(n.all[len(n.all)-1])
	}
}
