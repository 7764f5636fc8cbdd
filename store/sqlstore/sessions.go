package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
)

const sessionColumns = `id, user_id, family_hash, refresh_hash, previous_hash, rotated_at, created_at,
	used_at, expires_at, last_token_until, client, address, methods, authenticated_at`

func scanSession(row interface{ Scan(...any) error }) (x store.Session, err error) {
	var rotated, created, used, expires, last, authenticated int64
	var methods string
	err = row.Scan(
		&x.ID, &x.UserID, &x.FamilyHash, &x.RefreshHash, &x.PreviousHash,
		&rotated, &created, &used, &expires, &last, &x.UserAgent, &x.Address, &methods, &authenticated,
	)
	x.RotatedAt, x.CreatedAt, x.UsedAt = fromMilliseconds(rotated), fromMilliseconds(created), fromMilliseconds(used)
	x.ExpiresAt, x.LastTokenUntil = fromMilliseconds(expires), fromMilliseconds(last)
	x.AuthenticatedAt = fromMilliseconds(max(authenticated, created)) // 0 in sessions of before it was kept
	if methods != "" {
		x.Methods = strings.Fields(methods)
	}
	return x, err
}

// CreateSession implements UserStore.
func (s *Store) CreateSession(ctx context.Context, x store.Session, passwordHash string) error {
	return orNotFound(s.Exec(ctx, `INSERT INTO sessions (`+sessionColumns+
		`) SELECT $1, id, $2, $3, $4, CAST($5 AS BIGINT), CAST($6 AS BIGINT),
			CAST($7 AS BIGINT), CAST($8 AS BIGINT), CAST($9 AS BIGINT), $10, $11, $14, CAST($15 AS BIGINT)
			FROM users WHERE id = $12 AND NOT disabled AND password_hash = $13`,
		x.ID, x.FamilyHash, x.RefreshHash, x.PreviousHash,
		milliseconds(x.RotatedAt), milliseconds(x.CreatedAt), milliseconds(x.UsedAt),
		milliseconds(x.ExpiresAt), milliseconds(x.LastTokenUntil), x.UserAgent, x.Address, x.UserID, passwordHash,
		strings.Join(x.Methods, " "), milliseconds(x.AuthenticatedAt)))
}

// SessionByFamily implements UserStore.
func (s *Store) SessionByFamily(ctx context.Context, familyHash string, now time.Time) (store.Session, error) {
	return one(query(
		ctx, s, scanSession, `SELECT `+sessionColumns+` FROM sessions WHERE family_hash = $1 AND expires_at > $2`,
		familyHash, milliseconds(now),
	))
}

// RotateSession implements UserStore.
func (s *Store) RotateSession(ctx context.Context, r store.Rotation) error {
	return orNotFound(s.Exec(
		ctx,
		`UPDATE sessions SET previous_hash = $8, refresh_hash = $1, rotated_at = $2, used_at = $2,
			last_token_until = CASE WHEN last_token_until > $3 THEN last_token_until ELSE $3 END,
			client = $4, address = $5
			WHERE family_hash = $6 AND refresh_hash = $7 AND expires_at > $2`,
		r.NewHash, milliseconds(r.Now), milliseconds(r.LastTokenUntil),
		r.UserAgent, r.Address, r.FamilyHash, r.ValidHash, r.OldHash,
	))
}

// AuthenticateSession implements UserStore.
func (s *Store) AuthenticateSession(ctx context.Context, x store.Session, passwordHash string) error {
	return orNotFound(s.Exec(
		ctx,
		`UPDATE sessions SET methods = $1, authenticated_at = $2
			WHERE id = $3 AND user_id = $4 AND expires_at > $2 AND EXISTS (
				SELECT 1 FROM users WHERE users.id = sessions.user_id AND NOT disabled AND password_hash = $5
			)`,
		strings.Join(x.Methods, " "), milliseconds(x.AuthenticatedAt), x.ID, x.UserID, passwordHash,
	))
}

// Sessions implements UserStore.
func (s *Store) Sessions(ctx context.Context, userID string, now time.Time) ([]store.Session, error) {
	return query(
		ctx, s, scanSession,
		`SELECT `+sessionColumns+` FROM sessions WHERE user_id = $1 AND expires_at > $2 ORDER BY used_at DESC, id`,
		userID, milliseconds(now),
	)
}

// EndSessions implements UserStore.
func (s *Store) EndSessions(ctx context.Context, userID, only, except string, now time.Time) ([]string, error) {
	var ended []store.Revocation
	err := s.transaction(ctx, func(tx *sql.Tx) (err error) {
		ended, err = endSessions(ctx, tx, userID, only, except, now)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(ended) > 0 && s.Revoked != nil {
		s.Revoked(ctx)
	}
	ids := make([]string, len(ended))
	for i, r := range ended {
		ids[i] = r.SessionID
	}
	return ids, nil
}

func endSessions(
	ctx context.Context, tx *sql.Tx, userID, only, except string, now time.Time,
) ([]store.Revocation, error) {
	ended, err := deleteSessions(ctx, tx, userID, only, except)
	for _, r := range ended {
		if err == nil {
			_, err = tx.ExecContext(
				ctx, `INSERT INTO revocations (session_id, revoked_at, until) VALUES ($1, $2, $3)`,
				r.SessionID, milliseconds(now), milliseconds(r.Until),
			)
		}
	}
	return ended, err
}

func deleteSessions(
	ctx context.Context, tx *sql.Tx, userID, only, except string,
) (ended []store.Revocation, err error) {
	rows, err := tx.QueryContext(
		ctx,
		`DELETE FROM sessions WHERE user_id = $1 AND ($2 = '' OR id = $2) AND id <> $3 RETURNING id, last_token_until`,
		userID, only, except,
	)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r store.Revocation
		var until int64
		if err := rows.Scan(&r.SessionID, &until); err != nil {
			return nil, err
		}
		r.Until = fromMilliseconds(until)
		ended = append(ended, r)
	}
	return ended, rows.Err()
}

// Revocations implements UserStore.
func (s *Store) Revocations(ctx context.Context, since, now time.Time) ([]store.Revocation, error) {
	return query(ctx, s, func(row interface{ Scan(...any) error }) (r store.Revocation, err error) {
		var revoked, until int64
		err = row.Scan(&r.SessionID, &revoked, &until)
		r.RevokedAt, r.Until = fromMilliseconds(revoked), fromMilliseconds(until)
		return r, err
	}, `SELECT session_id, revoked_at, until FROM revocations WHERE revoked_at >= $1 AND until > $2`,
		milliseconds(since), milliseconds(now))
}

// CreateOneTimeToken implements UserStore.
func (s *Store) CreateOneTimeToken(ctx context.Context, t store.OneTimeToken) error {
	return orNotFound(s.Exec(
		ctx,
		`INSERT INTO one_time_tokens (hash, purpose, user_id, expires_at) SELECT $1, $2, id, CAST($3 AS BIGINT)
			FROM users WHERE id = $4`,
		t.Hash, t.Purpose, milliseconds(t.ExpiresAt), t.UserID,
	))
}

// OneTimeToken implements UserStore.
func (s *Store) OneTimeToken(ctx context.Context, hash, purpose string, now time.Time) (store.OneTimeToken, error) {
	return one(query(ctx, s, func(row interface{ Scan(...any) error }) (store.OneTimeToken, error) {
		t, expires := store.OneTimeToken{Hash: hash, Purpose: purpose}, int64(0)
		err := row.Scan(&t.UserID, &expires)
		t.ExpiresAt = fromMilliseconds(expires)
		return t, err
	}, `SELECT user_id, expires_at FROM one_time_tokens WHERE hash = $1 AND purpose = $2 AND expires_at > $3`,
		hash, purpose, milliseconds(now)))
}

// TakeOneTimeToken implements UserStore.
func (s *Store) TakeOneTimeToken(ctx context.Context, hash, purpose string, now time.Time) (store.OneTimeToken, error) {
	t := store.OneTimeToken{Hash: hash, Purpose: purpose}
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		var expires int64
		err := tx.QueryRowContext(
			ctx,
			`DELETE FROM one_time_tokens WHERE hash = $1 AND purpose = $2 AND expires_at > $3
			RETURNING user_id, expires_at`,
			hash, purpose, milliseconds(now),
		).Scan(&t.UserID, &expires)
		if err != nil {
			return err
		}
		t.ExpiresAt = fromMilliseconds(expires)
		_, err = tx.ExecContext(
			ctx, `DELETE FROM one_time_tokens WHERE user_id = $1 AND purpose = $2`, t.UserID, purpose,
		)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return store.OneTimeToken{}, store.ErrNotFound
	}
	return t, err
}
