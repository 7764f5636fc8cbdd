// Package sqlstore keeps users in an SQL database; packages store/filestore and postgres
// connect it to one.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
)

// Store is a [store.UserStore] on a database. Its queries are the common ground
// of SQLite and PostgreSQL and what speaks its language; where one statement
// cannot do a thing at once, a version column sees to it that none is lost.
type Store struct {
	// Connect returns the database for reading and the one for writing, which
	// may be the same. It is called by each method, and may connect anew.
	Connect func(ctx context.Context) (read, write *sql.DB, err error)
	// Explain may wrap an error of the driver, such as by [store.ErrStoreFull].
	// Default: it stays as it is.
	Explain func(error) error
	// Retry tells whether an error means that a transaction stood in another's
	// way and nothing is changed, so that it may be tried again. Default: none
	// does.
	Retry func(error) bool
	// Revoked is called after sessions were ended, so that other processes can
	// be told. Default: they ask.
	Revoked func(ctx context.Context)
	// Committed is called after a change; its error keeps the change from being
	// acknowledged. Default: it is acknowledged.
	Committed func(ctx context.Context) error
	// Timeout is how long a statement or a transaction may take, the wait for a
	// connection included, so that nobody waits for a database whose answers do
	// not arrive. Default: as long as the context allows.
	Timeout time.Duration
}

// bounded is the context of one statement or transaction.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.Timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.Timeout)
}

// conflictTries is how often a transaction is tried that stands in another's
// way.
const conflictTries = 20

// retried does something again as long as it stands in another's way.
func (s *Store) retried(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if err == nil || s.Retry == nil || try == conflictTries || !s.Retry(err) {
			return s.explain(err)
		}
		select {
		case <-ctx.Done():
			return s.explain(err)
		case <-time.After(rand.N(time.Duration(try) * 2 * time.Millisecond)):
		}
	}
}

// transaction changes all or nothing. do may be called again.
func (s *Store) transaction(ctx context.Context, do func(tx *sql.Tx) error) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, write, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	err = s.retried(ctx, func() error {
		tx, err := write.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		if err := do(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
	return s.acknowledged(ctx, err)
}

// acknowledged is the error of a change that was made.
func (s *Store) acknowledged(ctx context.Context, err error) error {
	if err == nil && s.Committed != nil {
		return s.Committed(ctx)
	}
	return err
}

func (s *Store) explain(err error) error {
	if err != nil && s.Explain != nil {
		return s.Explain(err)
	}
	return err
}

// Exec runs one statement, and returns how many rows it changed.
func (s *Store) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, write, err := s.Connect(ctx)
	if err != nil {
		return 0, err
	}
	var changed int64
	err = s.retried(ctx, func() error {
		result, err := write.ExecContext(ctx, statement, args...)
		if err == nil {
			changed, err = result.RowsAffected()
		}
		return err
	})
	return changed, s.acknowledged(ctx, err)
}

// query scans each row of a read.
func query[T any](ctx context.Context, s *Store, scan func(interface{ Scan(...any) error }) (T, error), statement string, args ...any) ([]T, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	read, _, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	var found []T
	err = s.retried(ctx, func() error {
		rows, err := read.QueryContext(ctx, statement, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		found = nil
		for rows.Next() {
			row, err := scan(rows)
			if err != nil {
				return err
			}
			found = append(found, row)
		}
		return rows.Err()
	})
	return found, err
}

func one[T any](rows []T, err error) (T, error) {
	if err == nil && len(rows) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		var none T
		return none, err
	}
	return rows[0], nil
}

// orNotFound is the error of a statement that must change one row.
func orNotFound(changed int64, err error) error {
	if err == nil && changed == 0 {
		return store.ErrNotFound
	}
	return err
}

func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMilliseconds(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// cleanUpBatch is how many rows one statement removes, so that none takes long.
const cleanUpBatch = 5000

// CleanUp implements UserStore. What one table refuses keeps no other from it.
func (s *Store) CleanUp(ctx context.Context, now time.Time) error {
	var errs []error
	for _, table := range []struct{ name, key, expires string }{
		{"sessions", "id", "expires_at"}, {"revocations", "session_id", "until"}, {"one_time_tokens", "hash", "expires_at"},
		{"records", "kind, id", "expires_at"}, {"tries", "key", "full_until"},
	} {
		statement := fmt.Sprintf(`DELETE FROM %s WHERE (%s) IN (SELECT %s FROM %s WHERE %s <= $1 LIMIT %d)`, table.name, table.key, table.key, table.name, table.expires, cleanUpBatch)
		for removed := int64(cleanUpBatch); removed == cleanUpBatch; {
			var err error
			if removed, err = s.Exec(ctx, statement, milliseconds(now)); err != nil {
				errs = append(errs, fmt.Errorf("table %s: %w", table.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Interface guards
var _ store.UserStore = (*Store)(nil)
