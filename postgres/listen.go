package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// channel is the channel on which nodes notify each other of ended sessions. The data is in
// the tables.
const channel = "caddy_jwt_revoked"

// tellTimeout is the maximum time for notifying the other nodes, which also poll.
const tellTimeout = time.Second

// tell notifies the other nodes of ended sessions. If that fails, as in a database without
// NOTIFY, they notice when they poll.
func (p *pool) tell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTimeout)
	defer cancel()
	if !p.cannotNotify.Load() {
		_, err := p.db.ExecContext(ctx, "NOTIFY "+channel)
		p.cannotNotify.Store(unsupported(err))
	}
}

// ListenRevocations implements caddyjwt.RevocationListener with LISTEN on its own
// connection.
func (s *Store) ListenRevocations(ctx context.Context, heard func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.pool.ctx, cancel)()
	connection, err := pgx.ConnectConfig(ctx, s.pool.config.Copy())
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close(context.Background()) }()
	if _, err := connection.Exec(ctx, "LISTEN "+channel); err != nil {
		if unsupported(err) {
			return errors.Join(store.ErrCannotListen, err)
		}
		return err
	}
	heard() // for sessions that ended before
	for {
		if _, err := connection.WaitForNotification(ctx); err != nil {
			return err
		}
		heard()
	}
}

// unsupported reports whether the database does not support a statement:
// feature_not_supported, syntax_error.
func unsupported(err error) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (failure.Code == "0A000" || failure.Code == "42601")
}
