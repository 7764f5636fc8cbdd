package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
)

const keyColumns = `id, owner, subject, value, expires_at, revoked_at, kept_until, changed_at, used_at, version`

type versionedKey struct {
	store.APIKey
	version int64
}

func scanKey(row interface{ Scan(...any) error }) (k versionedKey, err error) {
	var expires, revoked, kept, changed, used int64
	err = row.Scan(
		&k.ID, &k.Owner, &k.Subject, &k.Value, &expires, &revoked, &kept, &changed, &used, &k.version,
	)
	k.ExpiresAt, k.RevokedAt = fromMilliseconds(expires), fromMilliseconds(revoked)
	k.ChangedAt, k.UsedAt = fromMilliseconds(changed), fromMilliseconds(used)
	if kept != math.MaxInt64 {
		k.KeptUntil = fromMilliseconds(kept)
	}
	return k, err
}

func withoutVersion(found []versionedKey, err error) ([]store.APIKey, error) {
	keys := make([]store.APIKey, len(found))
	for i := range found {
		keys[i] = found[i].APIKey
	}
	return keys, err
}

// CreateKeys implements KeyStore.
func (s *Store) CreateKeys(ctx context.Context, keys []store.APIKey) error {
	return s.transaction(ctx, func(tx *sql.Tx) error {
		add, err := tx.PrepareContext(ctx, `INSERT INTO api_keys (`+keyColumns+`) SELECT $1, $2, $3, $4,
			CAST($5 AS BIGINT), CAST($6 AS BIGINT), CAST($7 AS BIGINT), CAST($8 AS BIGINT), CAST($9 AS BIGINT), 1
			WHERE $10 = '' OR EXISTS (SELECT 1 FROM users WHERE id = $11 AND NOT disabled)`)
		if err != nil {
			return err
		}
		defer add.Close()
		for _, k := range keys {
			result, err := add.ExecContext(
				ctx, k.ID, k.Owner, k.Subject, string(k.Value), milliseconds(k.ExpiresAt), milliseconds(k.RevokedAt),
				recordEnd(k.KeptUntil), milliseconds(k.ChangedAt), milliseconds(k.UsedAt), k.Owner, k.Owner,
			)
			if err != nil {
				return err
			}
			if added, err := result.RowsAffected(); err != nil || added == 0 {
				return orNotFound(added, err)
			}
		}
		return nil
	})
}

func (s *Store) key(ctx context.Context, id string) (versionedKey, error) {
	if !canBeThere(id) {
		return versionedKey{}, store.ErrNotFound
	}
	return one(query(
		ctx, s, scanKey, `SELECT `+keyColumns+` FROM api_keys WHERE id = $1 AND revoked_at = 0`, id,
	))
}

// Key implements KeyStore.
func (s *Store) Key(ctx context.Context, id string) (store.APIKey, error) {
	k, err := s.key(ctx, id)
	return k.APIKey, err
}

// Keys implements KeyStore.
func (s *Store) Keys(ctx context.Context, subject, after string, limit int) ([]store.APIKey, error) {
	if !canBeThere(subject) {
		return nil, nil
	}
	return withoutVersion(query(
		ctx, s, scanKey, `SELECT `+keyColumns+` FROM api_keys
			WHERE ($1 = '' OR subject = $2) AND id > $3 AND revoked_at = 0 ORDER BY id LIMIT $4`,
		subject, subject, after, limit,
	))
}

// UpdateKey implements KeyStore.
func (s *Store) UpdateKey(
	ctx context.Context, id string, now time.Time, change func(*store.APIKey) error,
) (store.APIKey, error) {
	for {
		k, err := s.key(ctx, id)
		if err != nil {
			return store.APIKey{}, err
		}
		changed := k.APIKey
		if err := change(&changed); err != nil {
			return store.APIKey{}, err
		}
		changed.ID, changed.Owner, changed.UsedAt, changed.ChangedAt = k.ID, k.Owner, k.UsedAt, now
		updated, err := s.Exec(
			ctx,
			`UPDATE api_keys SET subject = $1, value = $2, expires_at = $3, revoked_at = $4, kept_until = $5,
			changed_at = $6, version = version + 1 WHERE id = $7 AND version = $8`,
			changed.Subject, string(changed.Value), milliseconds(changed.ExpiresAt), milliseconds(changed.RevokedAt),
			recordEnd(changed.KeptUntil), milliseconds(now), id, k.version,
		)
		if err != nil {
			return store.APIKey{}, err
		}
		if updated == 1 {
			return changed, nil
		}
	}
}

// ChangedKeys implements KeyStore.
func (s *Store) ChangedKeys(
	ctx context.Context, since time.Time, after string, limit int,
) ([]store.APIKey, error) {
	if since.IsZero() {
		return s.Keys(ctx, "", after, limit)
	}
	return withoutVersion(query(
		ctx, s, scanKey,
		// id || '' keeps SQLite from reading the whole table in the order of the primary key.
		`SELECT `+keyColumns+` FROM api_keys WHERE changed_at >= $1 AND id || '' > $2 ORDER BY id || '' LIMIT $3`,
		milliseconds(since), after, limit,
	))
}

// ChangedOwners implements KeyStore.
func (s *Store) ChangedOwners(ctx context.Context, since time.Time) ([]store.User, error) {
	return query(ctx, s, func(row interface{ Scan(...any) error }) (u store.User, err error) {
		var roles string
		if err = row.Scan(&u.ID, &roles, &u.Disabled); err == nil {
			if err = json.Unmarshal([]byte(roles), &u.Roles); err != nil {
				err = fmt.Errorf("the roles of user %s are corrupt", u.ID)
			}
		}
		return u, err
	}, `SELECT id, roles, disabled FROM users
		WHERE updated_at >= $1 AND EXISTS (SELECT 1 FROM api_keys WHERE owner = users.id)`, milliseconds(since))
}

// NoteKeysUsed implements KeyStore.
func (s *Store) NoteKeysUsed(ctx context.Context, used map[string]time.Time) error {
	return s.transaction(ctx, func(tx *sql.Tx) error {
		note, err := tx.PrepareContext(ctx, `UPDATE api_keys SET used_at = $1 WHERE id = $2 AND used_at < $3`)
		if err != nil {
			return err
		}
		defer note.Close()
		for id, at := range used {
			if _, err := note.ExecContext(ctx, milliseconds(at), id, milliseconds(at)); err != nil {
				return err
			}
		}
		return nil
	})
}

// RevokeKeys implements KeyStore.
func (s *Store) RevokeKeys(ctx context.Context, owner string, now time.Time) error {
	return s.transaction(ctx, func(tx *sql.Tx) error { return revokeKeys(ctx, tx, owner, now) })
}

func revokeKeys(ctx context.Context, tx *sql.Tx, owner string, now time.Time) error {
	_, err := tx.ExecContext(
		ctx,
		`UPDATE api_keys SET value = '{}', revoked_at = $1, changed_at = $2, kept_until = $3, version = version + 1
		WHERE owner = $4 AND revoked_at = 0`,
		milliseconds(now), milliseconds(now), milliseconds(now.Add(store.RevokedKeyKept)), owner,
	)
	return err
}

// Interface guards
var _ store.KeyStore = (*Store)(nil)
