package filestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/owner"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/sqlstore"
)

// Backup writes a snapshot of the store into a new file that only its owner can read, and checks
// it. Others can use the store meanwhile. Progress is called now and then with the size of the
// file so far, in bytes. It returns the number of users in the backup.
func (f *Store) Backup(ctx context.Context, path string, progress func(size int64)) (users int64, err error) {
	read, _, err := f.file.connect(ctx)
	if err != nil {
		return 0, err
	}
	err = writeNew(path, func(temporary string) error {
		done := make(chan struct{})
		defer close(done)
		go func() {
			for tick := time.NewTicker(time.Second / 2); ; {
				select {
				case <-done:
					tick.Stop()
					return
				case <-tick.C:
					if file, err := os.Stat(temporary); err == nil {
						progress(file.Size())
					}
				}
			}
		}()
		if _, err := read.ExecContext(ctx, `VACUUM INTO $1`, temporary); err != nil {
			return explainSQLite(err)
		}
		users, err = checkBackup(ctx, temporary)
		return err
	})
	return users, err
}

// writeNew makes a file that only its owner can read. It appears at its path when it is complete.
func writeNew(path string, write func(temporary string) error) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s already exists; a backup needs a name of its own", path), err)
	}
	give := owner.Keep(path)
	made, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*.new") // readable only by its owner
	if err != nil {
		return err
	}
	defer os.Remove(made.Name())
	err = write(made.Name())
	if err == nil {
		err = made.Sync() // which VACUUM leaves to the system
	}
	if err = errors.Join(err, made.Close()); err == nil {
		err = os.Link(made.Name(), path)
	}
	if err != nil {
		return err
	}
	return give()
}

// checkBackup returns the number of users in a file that nobody changes, or an error if it is not a
// whole store. It creates nothing beside the file.
func checkBackup(ctx context.Context, path string) (users int64, err error) {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?immutable=1")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	var found string
	if err := db.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&found); err != nil {
		return 0, explainSQLite(err)
	}
	if found != "ok" {
		return 0, fmt.Errorf("the file is corrupt: %s", found)
	}
	if err := holdsUsers(ctx, db); err != nil {
		return 0, err
	}
	err = db.QueryRowContext(ctx, `SELECT COUNT(*) FROM users`).Scan(&users)
	return users, explainSQLite(err)
}

// Restore replaces the content of the store by that of a backup, in one transaction: whoever reads
// the store, such as a running server, sees either. What ended since the backup stays ended, if
// the store has users: sessions, links, grants, revoked API keys and withdrawn signing keys. What
// was made since is gone, and servers refuse its access tokens and API keys within a second. It
// returns the number of users in the backup.
func (f *Store) Restore(ctx context.Context, path string, now time.Time) (users int64, err error) {
	if users, err = CheckBackup(ctx, path); err != nil {
		return 0, err
	}
	return users, f.restore(ctx, path, now)
}

// CheckBackup returns the number of users in a backup, or why it cannot be restored.
func CheckBackup(ctx context.Context, path string) (users int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if info.IsDir() {
		return 0, fmt.Errorf("%s is a folder; a backup is a file, such as %s", path, filepath.Join(path, "users.db"))
	}
	if newest, err := os.Stat(path + "-wal"); err == nil && newest.Size() > 0 {
		return 0, fmt.Errorf("%s is in use, or its newest changes are in %[1]s-wal; "+
			"make a backup of it with `caddy jwt store backup --store %[1]s <file>`, and restore that", path)
	}
	if users, err = checkBackup(ctx, path); err != nil {
		return 0, fmt.Errorf("the backup %s: %w", path, err)
	}
	return users, nil
}

func (f *Store) restore(ctx context.Context, path string, now time.Time) error {
	_, write, err := f.file.connect(ctx)
	if err != nil {
		return err
	}
	// The backup may be of an older version. It stays as it is, and the copy is upgraded.
	copied, err := os.CreateTemp(filepath.Dir(f.file.path), "."+filepath.Base(f.file.path)+"-*.restored")
	if err != nil {
		return err
	}
	defer func() {
		_ = copied.Close()
		for _, suffix := range []string{"", "-wal", "-shm"} {
			_ = os.Remove(copied.Name() + suffix)
		}
	}()
	if err := upgradedCopy(ctx, path, copied); err != nil {
		return fmt.Errorf("the backup %s: %w", path, err)
	}
	conn, err := write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, `ATTACH $1 AS backup`, copied.Name()); err != nil {
		return explainSQLite(err)
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), `DETACH backup`)
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return explainSQLite(err)
	}
	defer func() { _ = tx.Rollback() }()
	for _, statement := range restoring(now) {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return explainSQLite(err)
		}
	}
	return explainSQLite(tx.Commit())
}

// upgradedCopy copies a backup, and upgrades the tables of the copy.
func upgradedCopy(ctx context.Context, path string, to *os.File) error {
	text, err := os.ReadFile(path)
	if err == nil {
		_, err = to.Write(text)
	}
	if err != nil {
		return err
	}
	db, err := openSQLite(to.Name())
	if err != nil {
		return err
	}
	return errors.Join(explainSQLite(sqlstore.Migrate(ctx, db, "")), db.Close())
}

// restoring returns the statements that replace what is in a store by what is in the attached
// database `backup`.
func restoring(now time.Time) (statements []string) {
	for _, kept := range []string{
		"before_users AS SELECT id FROM main.users",
		"before_sessions AS SELECT id, last_token_until FROM main.sessions",
		"before_tokens AS SELECT hash FROM main.one_time_tokens",
		"before_records AS SELECT * FROM main.records",
		"before_keys AS SELECT * FROM main.api_keys",
	} {
		statements = append(statements, "CREATE TEMP TABLE "+kept)
	}
	all := sqlstore.Tables()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Name != "revocations" { // these last until their tokens have expired
			statements = append(statements, "DELETE FROM main."+all[i].Name)
		}
	}
	for _, table := range all {
		columns := strings.Join(table.Columns, ", ")
		statements = append(statements, fmt.Sprintf(
			"INSERT OR IGNORE INTO main.%s (%s) SELECT %[2]s FROM backup.%[1]s", table.Name, columns,
		))
	}
	const used = " AND EXISTS (SELECT 1 FROM before_users)"
	ms := now.UnixMilli()
	statements = append(
		statements,
		// what ended stays so
		"DELETE FROM main.sessions WHERE id NOT IN (SELECT id FROM before_sessions)"+used,
		"DELETE FROM main.sessions WHERE id IN (SELECT session_id FROM main.revocations)",
		"DELETE FROM main.one_time_tokens WHERE hash NOT IN (SELECT hash FROM before_tokens)"+used,
		fmt.Sprintf("DELETE FROM main.records WHERE expires_at < %d AND NOT EXISTS (SELECT 1 FROM before_records b "+
			"WHERE b.kind = records.kind AND b.id = records.id)", int64(math.MaxInt64))+used,
		"INSERT OR IGNORE INTO main.records SELECT * FROM before_records WHERE kind = '"+store.KindWithdrawn+"'",
		"INSERT OR REPLACE INTO main.api_keys SELECT * FROM before_keys WHERE revoked_at > 0",
		// servers learn what is gone and what is changed by these times
		fmt.Sprintf("INSERT OR IGNORE INTO main.revocations (session_id, revoked_at, until) SELECT id, %d, "+
			"last_token_until FROM before_sessions WHERE id NOT IN (SELECT id FROM main.sessions)", ms),
		fmt.Sprintf(
			"UPDATE before_keys SET revoked_at = %d, kept_until = %d", ms, now.Add(store.RevokedKeyKept).UnixMilli(),
		),
		"INSERT OR IGNORE INTO main.api_keys SELECT * FROM before_keys",
		fmt.Sprintf("UPDATE main.api_keys SET changed_at = %d", ms),
		fmt.Sprintf("UPDATE main.users SET updated_at = %d WHERE id IN (SELECT owner FROM main.api_keys)", ms),
	)
	for _, name := range []string{"users", "sessions", "tokens", "records", "keys"} {
		statements = append(statements, "DROP TABLE before_"+name)
	}
	return statements
}
