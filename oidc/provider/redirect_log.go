package provider

import (
	"fmt"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"go.uber.org/zap"
)

const (
	// redirectNotesPause is how often a wrong redirect URI of a client is logged, because anybody can
	// send some.
	redirectNotesPause = time.Minute
	maxRedirectNotes   = 1000 // clients
)

// redirectNotes remembers for which clients a wrong redirect URI was logged.
type redirectNotes struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (n *redirectNotes) isNew(clientID string, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at, ok := n.last[clientID]; ok && now.Sub(at).Abs() < redirectNotesPause {
		return false
	}
	if n.last == nil || len(n.last) >= maxRedirectNotes {
		n.last = make(map[string]time.Time)
	}
	n.last[clientID] = now
	return true
}

// noteRedirect logs a redirect URI that is not one of the client's, beside those that are: the user
// only sees that they differ.
func (p *Provider) noteRedirect(client *Client, parameter, presented string, registered []string) {
	if !p.redirectNotes.isNew(client.ID, p.accounts.Now()) {
		return
	}
	p.log.Warn(
		parameter+" is not one that is registered for the client; they are compared exactly, so register this "+
			"one too if it is the client's",
		help.See("redirect-uri-unknown"), zap.String("client_id", client.ID),
		zap.String("presented", fmt.Sprintf("%.500s", presented)), zap.Strings("registered", registered),
	)
}
