// Package sqlstore stores users in an SQL database. Packages store/filestore and postgres
// connect it to a database.
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

// Store is a [store.UserStore] in a database. Its queries work with SQLite, PostgreSQL and
// compatible databases. If a change takes more than one statement, a version column
// prevents lost updates.
type Store struct {
	// Connect returns the database for reading and the one for writing, which may be the
	// same. Each method calls it, and it may connect again.
	Connect func(ctx context.Context) (read, write *sql.DB, err error)
	// Explain may wrap an error of the driver, for example with [store.ErrStoreFull].
	// Default: errors are unchanged.
	Explain func(error) error
	// Retry reports whether a transaction failed because of a concurrent one without
	// changing anything, so that it can be retried. Default: never.
	Retry func(error) bool
	// ForUpdate is the clause that locks a row when it is read, such as " FOR UPDATE". Default: a
	// transaction locks everything.
	ForUpdate string
	// Revoked is called after sessions were ended, to notify other processes. Default: they
	// poll.
	Revoked func(ctx context.Context)
	// Committed is called after a change. If it returns an error, the change is not
	// acknowledged. Default: none.
	Committed func(ctx context.Context) error
	// Timeout is the maximum duration of a statement or transaction, including the wait for
	// a connection, so that nothing waits for an unavailable database. Default: only the
	// context limits it.
	Timeout time.Duration
	// Place is where the data are: a path, or a host and a database. Default: the empty string.
	Place string
}

// Where implements [store.Located].
func (s *Store) Where() string { return s.Place }

// bounded returns the context for a statement or transaction.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.Timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.Timeout)
}

// conflictTries is the maximum number of attempts for a conflicting transaction.
const conflictTries = 20

// retried calls a function until it does not conflict.
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

// transaction runs do in a transaction. It may call do again.
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

// acknowledged returns the error for a completed change.
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

// Exec runs a statement and returns the number of changed rows.
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

// query reads all rows of a query.
func query[T any](
	ctx context.Context, s *Store, scan func(interface{ Scan(...any) error }) (T, error), statement string,
	args ...any,
) ([]T, error) {
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

// orNotFound returns the error of a statement that must change one row.
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

// cleanUpBatch is the number of rows that one statement removes, so that none takes long.
const cleanUpBatch = 5000

// CleanUp implements UserStore. An error for one table does not affect the others.
func (s *Store) CleanUp(ctx context.Context, now time.Time) error {
	var errs []error
	for _, table := range []struct{ name, key, expires string }{
		{"sessions", "id", "expires_at"}, {"revocations", "session_id", "until"},
		{"one_time_tokens", "hash", "expires_at"},
		{"records", "kind, id", "expires_at"}, {"tries", "key", "full_until"},
		{"api_keys", "id", "kept_until"},
	} {
		statement := fmt.Sprintf(
			`DELETE FROM %s WHERE (%s) IN (SELECT %s FROM %s WHERE %s <= $1 LIMIT %d)`,
			table.name, table.key, table.key, table.name, table.expires, cleanUpBatch,
		)
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
