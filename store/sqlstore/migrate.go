package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/store"
)

// migrations upgrade the tables, each from the previous version. A released migration is
// never changed.
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
	`CREATE TABLE api_keys (
		id         TEXT PRIMARY KEY,
		owner      TEXT NOT NULL,
		subject    TEXT NOT NULL,
		value      TEXT NOT NULL,
		expires_at BIGINT NOT NULL,
		revoked_at BIGINT NOT NULL,
		kept_until BIGINT NOT NULL,
		changed_at BIGINT NOT NULL,
		used_at    BIGINT NOT NULL,
		version    BIGINT NOT NULL
	);
	CREATE INDEX api_keys_by_owner ON api_keys (owner);
	CREATE INDEX api_keys_by_subject ON api_keys (subject, id);
	CREATE INDEX api_keys_by_change ON api_keys (changed_at);
	CREATE INDEX api_keys_by_end ON api_keys (kept_until);
	CREATE INDEX users_by_change ON users (updated_at)`,
	`ALTER TABLE users ADD COLUMN email_verified BOOLEAN NOT NULL DEFAULT FALSE;
	ALTER TABLE sessions ADD COLUMN methods TEXT NOT NULL DEFAULT '';
	ALTER TABLE sessions ADD COLUMN authenticated_at BIGINT NOT NULL DEFAULT 0`,
}

const (
	createVersion = `CREATE TABLE IF NOT EXISTS schema_version (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)`
	firstVersion  = `INSERT INTO schema_version (id, version) VALUES (1, 0) ON CONFLICT (id) DO NOTHING`
)

// SchemaVersion is the version of the tables that this program uses.
var SchemaVersion = len(migrations)

// Schema returns the SQL that makes the tables of SchemaVersion in an empty database. It is the
// same for SQLite and PostgreSQL.
func Schema() string {
	statements := append([]string{createVersion, firstVersion}, migrations...)
	statements = append(statements, fmt.Sprintf(`UPDATE schema_version SET version = %d`, SchemaVersion))
	text := "BEGIN;\n" + strings.Join(statements, ";\n") + ";\nCOMMIT;\n"
	return strings.ReplaceAll(strings.ReplaceAll(text, "\n\t\t", "\n\t"), "\n\t)", "\n)")
}

// CheckVersion returns the version of the tables in words, or an error if this program cannot use
// them.
func CheckVersion(ctx context.Context, db *sql.DB) (found string, err error) {
	var version int
	if err := db.QueryRowContext(ctx, `SELECT version FROM schema_version`).Scan(&version); err != nil {
		return "", err
	}
	switch {
	case version > SchemaVersion:
		return "", newerSchema(version)
	case version < SchemaVersion:
		return fmt.Sprintf("schema version %d, which Caddy upgrades to %d when it starts", version, SchemaVersion), nil
	}
	return fmt.Sprintf("schema version %d", version), nil
}

func newerSchema(version int) error {
	return fmt.Errorf(
		"%w: its schema has version %d, this program supports up to %d; "+
			"use the newer program, or a backup from before it ran",
		store.ErrNewerSchema, version, SchemaVersion,
	)
}

// Migrate upgrades the tables to the version of this program, in one transaction. It
// returns an error if the tables have a newer version. If several nodes start at once, one
// migrates and the others wait. forUpdate is the clause that locks a row when it is read,
// such as " FOR UPDATE", or empty if a transaction locks everything.
func Migrate(ctx context.Context, db *sql.DB, forUpdate string) error {
	var version int
	err := db.QueryRowContext(ctx, `SELECT version FROM schema_version`).Scan(&version)
	if err == nil && version == len(migrations) {
		return refuseHalfCopy(ctx, db) // without a write
	}
	for _, statement := range []string{createVersion, firstVersion} {
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
		return newerSchema(version)
	}
	for ; version < len(migrations); version++ {
		if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
			return fmt.Errorf("upgrading the tables to version %d: %w", version+1, err)
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
