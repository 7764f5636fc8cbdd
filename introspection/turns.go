package introspection

import (
	"context"
	"sync"

	"github.com/caddy-jwt/caddy-jwt/internal/network"
)

const (
	// maxRequests is how many requests an endpoint gets at the same time.
	maxRequests = 64
	// maxRequestsPerClient is how many of these are about tokens of one client, so that a
	// flood of unknown tokens does not stop the others.
	maxRequestsPerClient = maxRequests / 4
)

// turns bounds the requests to an endpoint. The zero value is ready to use.
type turns struct {
	mu      sync.Mutex
	all     chan struct{}
	clients map[string]*turn // by network
}

type turn struct {
	slots chan struct{}
	users int // that wait or have a slot
}

// enter waits for a turn of a client, until ctx ends. The caller must call leave.
func (t *turns) enter(ctx context.Context, client string) (leave func(), err error) {
	key := network.Key(client)
	own, all := t.join(key)
	select {
	case own.slots <- struct{}{}:
	case <-ctx.Done():
		t.part(key, own)
		return nil, ctx.Err()
	}
	select {
	case all <- struct{}{}:
	case <-ctx.Done():
		<-own.slots
		t.part(key, own)
		return nil, ctx.Err()
	}
	return func() {
		<-all
		<-own.slots
		t.part(key, own)
	}, nil
}

func (t *turns) join(key string) (own *turn, all chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all, t.clients = make(chan struct{}, maxRequests), make(map[string]*turn)
	}
	own = t.clients[key]
	if own == nil {
		own = &turn{slots: make(chan struct{}, maxRequestsPerClient)}
		t.clients[key] = own
	}
	own.users++
	return own, t.all
}

func (t *turns) part(key string, own *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own.users--; own.users == 0 {
		delete(t.clients, key)
	}
}
