package caddyjwt

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// SQLStore is a [store.UserStore] on a database. Its queries are the common ground
// of SQLite and PostgreSQL and what speaks its language; where one statement
// cannot do a thing at once, a version column sees to it that none is lost.
type SQLStore struct {
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
func (s *SQLStore) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.Timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.Timeout)
}

// conflictTries is how often a transaction is tried that stands in another's
// way.
const conflictTries = 20

// retried does something again as long as it stands in another's way.
func (s *SQLStore) retried(ctx context.Context, do func() error) error {
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
func (s *SQLStore) transaction(ctx context.Context, do func(tx *sql.Tx) error) error {
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
func (s *SQLStore) acknowledged(ctx context.Context, err error) error {
	if err == nil && s.Committed != nil {
		return s.Committed(ctx)
	}
	return err
}

// migrations make the tables, each from the version before it. One that was
// released is never changed.
var migrations = []string{
	`CREATE TABLE users (
		id            TEXT PRIMARY KEY,
		email         TEXT NOT NULL,
		email_key     TEXT NOT NULL UNIQUE,
		password_hash TEXT NOT NULL,
		roles         TEXT NOT NULL,
		profile       TEXT NOT NULL,
		disabled      BOOLEAN NOT NULL,
		created_at    BIGINT NOT NULL,
		updated_at    BIGINT NOT NULL,
		version       BIGINT NOT NULL
	);
	CREATE TABLE sessions (
		id               TEXT PRIMARY KEY,
		user_id          TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
		family_hash      TEXT NOT NULL UNIQUE,
		refresh_hash     TEXT NOT NULL,
		previous_hash    TEXT NOT NULL,
		rotated_at       BIGINT NOT NULL,
		created_at       BIGINT NOT NULL,
		used_at          BIGINT NOT NULL,
		expires_at       BIGINT NOT NULL,
		last_token_until BIGINT NOT NULL,
		client           TEXT NOT NULL,
		address          TEXT NOT NULL
	);
	CREATE INDEX sessions_by_user ON sessions (user_id);
	CREATE INDEX sessions_by_expiry ON sessions (expires_at);
	CREATE TABLE revocations (
		session_id TEXT PRIMARY KEY,
		revoked_at BIGINT NOT NULL,
		until      BIGINT NOT NULL
	);
	CREATE INDEX revocations_by_time ON revocations (revoked_at);
	CREATE TABLE one_time_tokens (
		hash       TEXT PRIMARY KEY,
		purpose    TEXT NOT NULL,
		user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
		expires_at BIGINT NOT NULL
	)`,
	`CREATE TABLE records (
		kind       TEXT NOT NULL,
		id         TEXT NOT NULL,
		owner      TEXT NOT NULL,
		value      TEXT NOT NULL,
		expires_at BIGINT NOT NULL,
		version    BIGINT NOT NULL,
		PRIMARY KEY (kind, id)
	);
	CREATE INDEX records_by_owner ON records (owner, kind);
	CREATE INDEX records_by_expiry ON records (expires_at)`,
	`CREATE TABLE tries (
		key  TEXT PRIMARY KEY,
		full_until BIGINT NOT NULL
	);
	CREATE INDEX tries_by_time ON tries (full_until)`,
}

// Migrate brings the tables to the version of this program, in one
// transaction. Tables of a newer program are an error. Of many nodes that start
// at once one migrates and the others wait: forUpdate is the clause that locks a
// row that is read, such as " FOR UPDATE", empty where a transaction locks all.
func Migrate(ctx context.Context, db *sql.DB, forUpdate string) error {
	var version int
	err := db.QueryRowContext(ctx, `SELECT version FROM schema_version`).Scan(&version)
	if err == nil && version == len(migrations) {
		return refuseHalfCopy(ctx, db) // without a write
	}
	for _, statement := range []string{
		`CREATE TABLE IF NOT EXISTS schema_version (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)`,
		`INSERT INTO schema_version (id, version) VALUES (1, 0) ON CONFLICT (id) DO NOTHING`,
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if err := tx.QueryRowContext(ctx, `SELECT version FROM schema_version`+forUpdate).Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("%w: it has version %d, this one knows %d; use the newer program, or a backup from before it", store.ErrNewerSchema, version, len(migrations))
	}
	for ; version < len(migrations); version++ {
		if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
			return fmt.Errorf("making version %d of the tables: %w", version+1, err)
		}
	}
	if _, err := tx.ExecContext(ctx, `UPDATE schema_version SET version = $1`, len(migrations)); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	return refuseHalfCopy(ctx, db)
}

func (s *SQLStore) explain(err error) error {
	if err != nil && s.Explain != nil {
		return s.Explain(err)
	}
	return err
}

// Exec runs one statement, and returns how many rows it changed.
func (s *SQLStore) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
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
func query[T any](ctx context.Context, s *SQLStore, scan func(interface{ Scan(...any) error }) (T, error), statement string, args ...any) ([]T, error) {
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

const userColumns = `id, email, email_key, password_hash, roles, profile, disabled, created_at, updated_at, version`

type versionedUser struct {
	store.User
	version int64
}

func scanUser(row interface{ Scan(...any) error }) (u versionedUser, err error) {
	var roles, profile string
	var created, updated int64
	if err := row.Scan(&u.ID, &u.Email, &u.EmailKey, &u.PasswordHash, &roles, &profile, &u.Disabled, &created, &updated, &u.version); err != nil {
		return u, err
	}
	u.CreatedAt, u.UpdatedAt = fromMilliseconds(created), fromMilliseconds(updated)
	if err := json.Unmarshal([]byte(roles), &u.Roles); err != nil {
		return u, fmt.Errorf("the roles of user %s are damaged", u.ID)
	}
	claims, err := jwt.ParseClaims([]byte(profile)) // keeps every digit of a whole number
	if err != nil && profile != "null" {
		return u, fmt.Errorf("the profile of user %s is damaged", u.ID)
	}
	if claims != nil {
		u.Profile = store.PlainValue(claims).(map[string]any)
	}
	return u, nil
}

func userValues(u store.User) (roles, profile string, err error) {
	rolesText, err := json.Marshal(u.Roles)
	if err != nil {
		return "", "", err
	}
	profileText, err := json.Marshal(u.Profile)
	if err == nil && store.OutOfRange(u.Profile) {
		err = errors.New("the profile has a number that is out of range")
	}
	return string(rolesText), string(profileText), err
}

// CreateUser implements UserStore.
func (s *SQLStore) CreateUser(ctx context.Context, u store.User) error {
	roles, profile, err := userValues(u)
	if err != nil {
		return err
	}
	added, err := s.Exec(ctx, `INSERT INTO users (`+userColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1) ON CONFLICT (email_key) DO NOTHING`,
		u.ID, u.Email, u.EmailKey, u.PasswordHash, roles, profile, u.Disabled, milliseconds(u.CreatedAt), milliseconds(u.UpdatedAt))
	if err == nil && added == 0 {
		return store.ErrEmailTaken
	}
	return err
}

// canBeThere tells whether a text can be in any database: what clients send need
// not be UTF-8, and PostgreSQL knows no NUL.
func canBeThere(text string) bool {
	return utf8.ValidString(text) && !strings.Contains(text, "\x00")
}

func (s *SQLStore) user(ctx context.Context, where string, value string) (versionedUser, error) {
	if !canBeThere(value) {
		return versionedUser{}, store.ErrNotFound
	}
	return one(query(ctx, s, scanUser, `SELECT `+userColumns+` FROM users WHERE `+where+` = $1`, value))
}

// User implements UserStore.
func (s *SQLStore) User(ctx context.Context, id string) (store.User, error) {
	u, err := s.user(ctx, "id", id)
	return u.User, err
}

// UserByEmail implements UserStore.
func (s *SQLStore) UserByEmail(ctx context.Context, emailKey string) (store.User, error) {
	u, err := s.user(ctx, "email_key", emailKey)
	return u.User, err
}

// UpdateUser implements UserStore.
func (s *SQLStore) UpdateUser(ctx context.Context, id string, now time.Time, change func(*store.User) error) (store.User, error) {
	for {
		u, err := s.user(ctx, "id", id)
		if err != nil {
			return store.User{}, err
		}
		changed := u.User
		if err := change(&changed); err != nil {
			return store.User{}, err
		}
		changed.ID, changed.CreatedAt, changed.UpdatedAt = u.ID, u.CreatedAt, now
		if changed.EmailKey != u.EmailKey {
			if other, err := s.user(ctx, "email_key", changed.EmailKey); err == nil && other.ID != id {
				return store.User{}, store.ErrEmailTaken
			}
		}
		roles, profile, err := userValues(changed)
		if err != nil {
			return store.User{}, err
		}
		if changed.PasswordHash != u.PasswordHash || changed.Disabled && !u.Disabled {
			if _, err := s.Exec(ctx, `DELETE FROM one_time_tokens WHERE user_id = $1`, id); err != nil {
				return store.User{}, err
			}
		}
		updated, err := s.Exec(ctx, `UPDATE users SET email = $1, email_key = $2, password_hash = $3, roles = $4, profile = $5, disabled = $6, updated_at = $7, version = version + 1 WHERE id = $8 AND version = $9`,
			changed.Email, changed.EmailKey, changed.PasswordHash, roles, profile, changed.Disabled, milliseconds(now), id, u.version)
		if err != nil {
			return store.User{}, err
		}
		if updated == 1 {
			return changed, nil
		}
	}
}

// DeleteUser implements UserStore.
func (s *SQLStore) DeleteUser(ctx context.Context, id string, now time.Time) error {
	if _, err := s.UpdateUser(ctx, id, now, func(u *store.User) error { u.Disabled = true; return nil }); err != nil { // so that no session begins meanwhile
		return err
	}
	if _, err := s.EndSessions(ctx, id, "", "", now); err != nil {
		return err
	}
	if _, err := s.Exec(ctx, `DELETE FROM records WHERE owner = $1`, id); err != nil {
		return err
	}
	return orNotFound(s.Exec(ctx, `DELETE FROM users WHERE id = $1`, id))
}

// Users implements UserStore.
func (s *SQLStore) Users(ctx context.Context, afterEmailKey string, limit int) ([]store.User, error) {
	found, err := query(ctx, s, scanUser, `SELECT `+userColumns+` FROM users WHERE email_key > $1 ORDER BY email_key LIMIT $2`, afterEmailKey, limit)
	users := make([]store.User, len(found))
	for i := range found {
		users[i] = found[i].User
	}
	return users, err
}

const sessionColumns = `id, user_id, family_hash, refresh_hash, previous_hash, rotated_at, created_at, used_at, expires_at, last_token_until, client, address`

func scanSession(row interface{ Scan(...any) error }) (x store.Session, err error) {
	var rotated, created, used, expires, last int64
	err = row.Scan(&x.ID, &x.UserID, &x.FamilyHash, &x.RefreshHash, &x.PreviousHash, &rotated, &created, &used, &expires, &last, &x.Client, &x.Address)
	x.RotatedAt, x.CreatedAt, x.UsedAt = fromMilliseconds(rotated), fromMilliseconds(created), fromMilliseconds(used)
	x.ExpiresAt, x.LastTokenUntil = fromMilliseconds(expires), fromMilliseconds(last)
	return x, err
}

// CreateSession implements UserStore.
func (s *SQLStore) CreateSession(ctx context.Context, x store.Session, passwordHash string) error {
	return orNotFound(s.Exec(ctx, `INSERT INTO sessions (`+sessionColumns+`) SELECT $1, id, $2, $3, $4, CAST($5 AS BIGINT), CAST($6 AS BIGINT), CAST($7 AS BIGINT), CAST($8 AS BIGINT), CAST($9 AS BIGINT), $10, $11 FROM users WHERE id = $12 AND NOT disabled AND password_hash = $13`,
		x.ID, x.FamilyHash, x.RefreshHash, x.PreviousHash, milliseconds(x.RotatedAt), milliseconds(x.CreatedAt), milliseconds(x.UsedAt),
		milliseconds(x.ExpiresAt), milliseconds(x.LastTokenUntil), x.Client, x.Address, x.UserID, passwordHash))
}

// SessionByFamily implements UserStore.
func (s *SQLStore) SessionByFamily(ctx context.Context, familyHash string, now time.Time) (store.Session, error) {
	return one(query(ctx, s, scanSession, `SELECT `+sessionColumns+` FROM sessions WHERE family_hash = $1 AND expires_at > $2`, familyHash, milliseconds(now)))
}

// RotateSession implements UserStore.
func (s *SQLStore) RotateSession(ctx context.Context, r store.Rotation) error {
	return orNotFound(s.Exec(ctx, `UPDATE sessions SET previous_hash = $8, refresh_hash = $1, rotated_at = $2, used_at = $2, last_token_until = CASE WHEN last_token_until > $3 THEN last_token_until ELSE $3 END, client = $4, address = $5 WHERE family_hash = $6 AND refresh_hash = $7 AND expires_at > $2`,
		r.NewHash, milliseconds(r.Now), milliseconds(r.LastTokenUntil), r.Client, r.Address, r.FamilyHash, r.ValidHash, r.OldHash))
}

// Sessions implements UserStore.
func (s *SQLStore) Sessions(ctx context.Context, userID string, now time.Time) ([]store.Session, error) {
	return query(ctx, s, scanSession, `SELECT `+sessionColumns+` FROM sessions WHERE user_id = $1 AND expires_at > $2 ORDER BY used_at DESC, id`, userID, milliseconds(now))
}

// EndSessions implements UserStore.
func (s *SQLStore) EndSessions(ctx context.Context, userID, only, except string, now time.Time) ([]string, error) {
	var ended []store.Revocation
	err := s.transaction(ctx, func(tx *sql.Tx) (err error) {
		if ended, err = deleteSessions(ctx, tx, userID, only, except); err != nil {
			return err
		}
		for _, r := range ended {
			if _, err := tx.ExecContext(ctx, `INSERT INTO revocations (session_id, revoked_at, until) VALUES ($1, $2, $3)`, r.SessionID, milliseconds(now), milliseconds(r.Until)); err != nil {
				return err
			}
		}
		return nil
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

func deleteSessions(ctx context.Context, tx *sql.Tx, userID, only, except string) (ended []store.Revocation, err error) {
	rows, err := tx.QueryContext(ctx, `DELETE FROM sessions WHERE user_id = $1 AND ($2 = '' OR id = $2) AND id <> $3 RETURNING id, last_token_until`, userID, only, except)
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
func (s *SQLStore) Revocations(ctx context.Context, since, now time.Time) ([]store.Revocation, error) {
	return query(ctx, s, func(row interface{ Scan(...any) error }) (r store.Revocation, err error) {
		var revoked, until int64
		err = row.Scan(&r.SessionID, &revoked, &until)
		r.RevokedAt, r.Until = fromMilliseconds(revoked), fromMilliseconds(until)
		return r, err
	}, `SELECT session_id, revoked_at, until FROM revocations WHERE revoked_at >= $1 AND until > $2`, milliseconds(since), milliseconds(now))
}

// CreateOneTimeToken implements UserStore.
func (s *SQLStore) CreateOneTimeToken(ctx context.Context, t store.OneTimeToken) error {
	return orNotFound(s.Exec(ctx, `INSERT INTO one_time_tokens (hash, purpose, user_id, expires_at) SELECT $1, $2, id, CAST($3 AS BIGINT) FROM users WHERE id = $4`, t.Hash, t.Purpose, milliseconds(t.ExpiresAt), t.UserID))
}

// OneTimeToken implements UserStore.
func (s *SQLStore) OneTimeToken(ctx context.Context, hash, purpose string, now time.Time) (store.OneTimeToken, error) {
	return one(query(ctx, s, func(row interface{ Scan(...any) error }) (store.OneTimeToken, error) {
		t, expires := store.OneTimeToken{Hash: hash, Purpose: purpose}, int64(0)
		err := row.Scan(&t.UserID, &expires)
		t.ExpiresAt = fromMilliseconds(expires)
		return t, err
	}, `SELECT user_id, expires_at FROM one_time_tokens WHERE hash = $1 AND purpose = $2 AND expires_at > $3`, hash, purpose, milliseconds(now)))
}

// TakeOneTimeToken implements UserStore.
func (s *SQLStore) TakeOneTimeToken(ctx context.Context, hash, purpose string, now time.Time) (store.OneTimeToken, error) {
	t := store.OneTimeToken{Hash: hash, Purpose: purpose}
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		var expires int64
		err := tx.QueryRowContext(ctx, `DELETE FROM one_time_tokens WHERE hash = $1 AND purpose = $2 AND expires_at > $3 RETURNING user_id, expires_at`, hash, purpose, milliseconds(now)).Scan(&t.UserID, &expires)
		if err != nil {
			return err
		}
		t.ExpiresAt = fromMilliseconds(expires)
		_, err = tx.ExecContext(ctx, `DELETE FROM one_time_tokens WHERE user_id = $1 AND purpose = $2`, t.UserID, purpose)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return store.OneTimeToken{}, store.ErrNotFound
	}
	return t, err
}

// recordEnd is when a record expires, as it is kept: far away for never.
func recordEnd(t time.Time) int64 {
	if t.IsZero() {
		return math.MaxInt64
	}
	return t.UnixMilli()
}

const recordColumns = `kind, id, owner, value, expires_at, version`

type versionedRecord struct {
	store.Record
	version int64
}

func scanRecord(row interface{ Scan(...any) error }) (r versionedRecord, err error) {
	var expires int64
	err = row.Scan(&r.Kind, &r.ID, &r.Owner, &r.Value, &expires, &r.version)
	if expires != math.MaxInt64 {
		r.ExpiresAt = fromMilliseconds(expires)
	}
	return r, err
}

// CreateRecord implements RecordStore.
func (s *SQLStore) CreateRecord(ctx context.Context, r store.Record) error {
	added, err := s.Exec(ctx, `INSERT INTO records (`+recordColumns+`) VALUES ($1, $2, $3, $4, $5, 1) ON CONFLICT (kind, id) DO NOTHING`,
		r.Kind, r.ID, r.Owner, string(r.Value), recordEnd(r.ExpiresAt))
	if err == nil && added == 0 {
		return store.ErrRecordExists
	}
	return err
}

func (s *SQLStore) record(ctx context.Context, kind, id string, now time.Time) (versionedRecord, error) {
	if !canBeThere(id) {
		return versionedRecord{}, store.ErrNotFound
	}
	return one(query(ctx, s, scanRecord, `SELECT `+recordColumns+` FROM records WHERE kind = $1 AND id = $2 AND expires_at > $3`, kind, id, milliseconds(now)))
}

// Record implements RecordStore.
func (s *SQLStore) Record(ctx context.Context, kind, id string, now time.Time) (store.Record, error) {
	r, err := s.record(ctx, kind, id, now)
	return r.Record, err
}

// UpdateRecord implements RecordStore.
func (s *SQLStore) UpdateRecord(ctx context.Context, kind, id string, now time.Time, change func(*store.Record) error) (store.Record, error) {
	for {
		r, err := s.record(ctx, kind, id, now)
		if err != nil {
			return store.Record{}, err
		}
		changed := r.Record
		if err := change(&changed); err != nil {
			return store.Record{}, err
		}
		changed.Kind, changed.ID = kind, id
		updated, err := s.Exec(ctx, `UPDATE records SET owner = $1, value = $2, expires_at = $3, version = version + 1 WHERE kind = $4 AND id = $5 AND version = $6`,
			changed.Owner, string(changed.Value), recordEnd(changed.ExpiresAt), kind, id, r.version)
		if err != nil {
			return store.Record{}, err
		}
		if updated == 1 {
			return changed, nil
		}
	}
}

// TakeRecord implements RecordStore.
func (s *SQLStore) TakeRecord(ctx context.Context, kind, id string, now time.Time) (store.Record, error) {
	if !canBeThere(id) {
		return store.Record{}, store.ErrNotFound
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, write, err := s.Connect(ctx)
	if err != nil {
		return store.Record{}, err
	}
	var r versionedRecord
	err = s.retried(ctx, func() (err error) {
		r, err = scanRecord(write.QueryRowContext(ctx, `DELETE FROM records WHERE kind = $1 AND id = $2 AND expires_at > $3 RETURNING `+recordColumns, kind, id, milliseconds(now)))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return store.Record{}, store.ErrNotFound
	}
	return r.Record, s.acknowledged(ctx, err)
}

// Records implements RecordStore.
func (s *SQLStore) Records(ctx context.Context, kind, owner string, now time.Time) ([]store.Record, error) {
	found, err := query(ctx, s, scanRecord, `SELECT `+recordColumns+` FROM records WHERE kind = $1 AND ($2 = '' OR owner = $2) AND expires_at > $3 ORDER BY id`, kind, owner, milliseconds(now))
	records := make([]store.Record, len(found))
	for i := range found {
		records[i] = found[i].Record
	}
	return records, err
}

// cleanUpBatch is how many rows one statement removes, so that none takes long.
const cleanUpBatch = 5000

// CleanUp implements UserStore. What one table refuses keeps no other from it.
func (s *SQLStore) CleanUp(ctx context.Context, now time.Time) error {
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
var _ store.UserStore = (*SQLStore)(nil)
