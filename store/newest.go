package store

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Latest are the values that the loaded configs have for the same thing, such as a module. That of
// the newest config is used.
type Latest[T any] struct {
	mu      sync.Mutex
	all     []*T
	current atomic.Pointer[T]
}

// Current returns the value in use, or the zero value if there was none.
func (l *Latest[T]) Current() (value T) {
	if current := l.current.Load(); current != nil {
		value = *current
	}
	return value
}

// Add makes the value of the newest config the one in use.
func (l *Latest[T]) Add(value *T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.all, value) {
		l.all = append(l.all, value)
	}
	l.current.Store(value)
}

// Drop removes a value, such as that of a config that is refused. The last one remains in use.
func (l *Latest[T]) Drop(value *T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = slices.DeleteFunc(l.all, func(known *T) bool { return known == value })
	if len(l.all) > 0 {
		l.current.Store(l.all[len(l.all)-1])
	}
}

// Newest are the stores of the loaded configs. The newest one is used.
type Newest struct{ stores Latest[UserStore] }

// Users returns the store in use. There must have been one.
func (n *Newest) Users() UserStore { return n.stores.Current() }

// AddStore makes the store of the newest config the one in use. Each store is cleaned up with
// its config, even if the config is refused later; drop it before.
func (n *Newest) AddStore(users *UserStore) { n.stores.Add(users) }

// DropStore removes a store. The last one remains in use.
func (n *Newest) DropStore(users *UserStore) { n.stores.Drop(users) }
