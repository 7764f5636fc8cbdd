package accounts

import (
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
)

// site is what all parts of a [Service] share.
type site struct {
	// Config is resolved: defaults are set.
	Config Config
	// Now is the clock, and Log the logger of the accounts.
	Now func() time.Time
	Log *zap.Logger

	store.Newest
	where string // the store is, for metrics

	texts atomic.Pointer[texts.Catalogue]
}

// Texts returns the texts of the newest config.
func (s *site) Texts() *texts.Catalogue { return s.texts.Load() }

// Audit logs an account event. It identifies users by ID, because text in the e-mail field
// may be a password.
func (s *site) Audit(event, userID, sessionID string, client Client, more ...zap.Field) {
	s.Log.Named("audit").Info(event, append([]zap.Field{
		zap.String("user_id", userID), zap.String("session_id", sessionID), zap.String("client_ip", client.Address),
	}, more...)...)
}

// HashTurn returns the place of a client in the queue for hashing.
func (s *site) HashTurn(what string, client Client) password.Turn {
	return password.Turn{Queue: s.Config.HashQueue, What: what, Client: client.Address}
}
