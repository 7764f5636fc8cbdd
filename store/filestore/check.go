package filestore

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/owner"
	"github.com/caddy-jwt/caddy-jwt/store/sqlstore"
)

// examine examines the file without changing it, and without creating anything beside it.
func (f *databaseFile) examine(ctx context.Context) (found string, err error) {
	_, err = os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := owner.Creatable(f.path); err != nil {
			return "", err
		}
		return "", config.Doubtful(errors.New("the file does not exist yet; Caddy creates it when it starts"))
	}
	if err == nil {
		err = owner.Check(f.path)
	}
	if err == nil {
		err = owner.SameAs(filepath.Dir(f.path), f.paths()...)
	}
	if err != nil {
		return "", err
	}
	db, err := f.untouched()
	if err != nil {
		return "", err
	}
	defer db.Close()
	if err := holdsUsers(ctx, db); err != nil {
		return "", err
	}
	found, err = sqlstore.CheckVersion(ctx, db)
	return found, explainSQLite(err)
}

// isStore returns an error if a file is something else than a store, such as a Caddyfile. It
// leaves the file as it is.
func (f *databaseFile) isStore(ctx context.Context) error {
	db, err := f.untouched()
	if err != nil {
		return err
	}
	defer db.Close()
	return holdsUsers(ctx, db)
}

// untouched opens the file for reading, so that nothing is changed, and nothing is created beside
// it.
func (f *databaseFile) untouched() (*sql.DB, error) {
	how := "mode=ro"
	if _, err := os.Stat(f.path + "-shm"); err != nil { // SQLite would create it
		how = "immutable=1"
	}
	return sql.Open("sqlite", "file:"+(&url.URL{Path: f.path}).EscapedPath()+"?"+how)
}
