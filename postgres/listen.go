package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// channel is that on which nodes tell each other that sessions were ended. What
// was ended stands in the tables.
const channel = "caddy_jwt_revoked"

// tellTimeout is how long it may take to tell the other nodes, who ask anyway.
const tellTimeout = time.Second

// tell lets the other nodes know that sessions were ended. Where that fails, as
// in an engine without NOTIFY, they find out when they next ask.
func (p *pool) tell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTimeout)
	defer cancel()
	if !p.cannotNotify.Load() {
		_, err := p.db.ExecContext(ctx, "NOTIFY "+channel)
		p.cannotNotify.Store(unsupported(err))
	}
}

// ListenRevocations implements caddyjwt.RevocationListener by LISTEN, on a
// connection of its own.
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
	heard() // of what was ended before
	for {
		if _, err := connection.WaitForNotification(ctx); err != nil {
			return err
		}
		heard()
	}
}

// unsupported tells whether an engine does not know a statement:
// feature_not_supported, syntax_error.
func unsupported(err error) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (failure.Code == "0A000" || failure.Code == "42601")
}
