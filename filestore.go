package caddyjwt

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"
	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

func init() {
	caddy.RegisterModule(new(FileStore))
}

// FileStore keeps the users in one file, by SQLite. Other processes, such as
// `caddy jwt user`, can use it at the same time. A change is on the disk before
// it is acknowledged.
type FileStore struct {
	// Path of the file. Two more stand beside it while it is used, with `-wal`
	// and `-shm` behind the name. Default: `jwt/users.db` in Caddy's data
	// directory.
	Path string `json:"path,omitempty"`

	SQLStore `json:"-"`
	opened   string // under which the file is shared
}

// CaddyModule returns the Caddy module information.
func (*FileStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "jwt.stores.file",
		New: func() caddy.Module { return new(FileStore) },
	}
}

// UnmarshalCaddyfile sets the store up from Caddyfile tokens. Syntax:
//
//	store file [<path>]
func (f *FileStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the kind of the store
	if d.NextArg() {
		f.Path = d.Val()
	}
	if d.NextArg() {
		return d.Errf("store file takes at most one path")
	}
	return nil
}

// files are those in use, by path.
var files = caddy.NewUsagePool()

// Provision sets the store up; the file is opened when the config starts, or when it
// is needed. If that cannot be now, it is tried again later, so that tokens are
// verified meanwhile.
func (f *FileStore) Provision(ctx caddy.Context) error {
	if err := resolve("path", &f.Path); err != nil {
		return err
	}
	setDefault(&f.Path, defaultStorePath())
	path, err := filepath.Abs(f.Path)
	if err != nil {
		return err
	}
	if folder := filepath.Dir(path); folder == string(filepath.Separator) && !filepath.IsAbs(f.Path) {
		ctx.Logger().Warn("store file " + f.Path + " is relative to the working folder, which is " + folder + " here, as services have it; write the whole path, such as /var/lib/caddy/users.db")
	}
	shared, _, err := files.LoadOrNew(path, func() (caddy.Destructor, error) { return &databaseFile{path: path}, nil })
	if err != nil {
		return err
	}
	f.opened = path
	file := shared.(*databaseFile)
	f.Connect, f.Explain = file.connect, file.explain
	AtStart(ctx, func() error {
		_, _, err := file.connect(ctx)
		if err != nil && !errors.Is(err, ErrNewerSchema) {
			ctx.Logger().Error("user store cannot be opened; accounts answer 503 until it can", zap.Error(err))
			err = nil
		}
		return err
	})
	return nil
}

func defaultStorePath() string { return filepath.Join(caddy.AppDataDir(), "jwt", "users.db") }

// Cleanup gives the shared file back.
func (f *FileStore) Cleanup() error {
	if f.opened == "" {
		return nil
	}
	_, err := files.Delete(f.opened)
	f.opened = ""
	return err
}

// databaseFile is an SQLite file: one connection writes, several read.
type databaseFile struct {
	path string

	mu          sync.Mutex
	read, write *sql.DB
	file        os.FileInfo // of what was opened
	triedAt     time.Time
	err         error
	damaged     error // found so while it was open; nothing is written any more
}

// reopenAfter is how long a failure to open is believed.
const reopenAfter = time.Second

func (f *databaseFile) connect(ctx context.Context) (read, write *sql.DB, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.write == nil && (f.err == nil || time.Since(f.triedAt) > reopenAfter) {
		f.triedAt = time.Now()
		f.err = f.open(ctx)
	}
	if f.write != nil {
		f.err = f.check()
	}
	return f.read, f.write, f.err
}

// check finds out that the file is another one by now: what is written to the
// one that was opened would be lost.
func (f *databaseFile) check() error {
	if f.damaged != nil {
		return f.damaged
	}
	file, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("user store: it was there, and cannot be found any more; restart Caddy when it is back: %w", err)
	}
	if !os.SameFile(file, f.file) {
		return fmt.Errorf("user store %s: another file was put in its place; restart Caddy if it is the right one", f.path)
	}
	return nil
}

func (f *databaseFile) explain(err error) error {
	explained := explainSQLite(err)
	if failure, ok := errors.AsType[*sqlite.Error](err); ok && slices.Contains([]int{sqlitelib.SQLITE_CORRUPT, sqlitelib.SQLITE_NOTADB}, failure.Code()&0xff) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.damaged = explained
	}
	return explained
}

func (f *databaseFile) open(ctx context.Context) error {
	// SQLite would make them readable by others, or as the file is.
	warnOfReaders(f.path)
	for _, path := range []string{f.path, f.path + "-wal", f.path + "-shm"} {
		if err := makePrivate(path); err != nil {
			return fmt.Errorf("user store: %w", err)
		}
	}
	options := url.Values{"_txlock": {"immediate"}, "_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)", "foreign_keys(1)"}}
	name := "file:" + (&url.URL{Path: f.path}).EscapedPath() + "?" + options.Encode()
	write, err := sql.Open("sqlite", name)
	if err != nil {
		return err
	}
	write.SetMaxOpenConns(1)
	if err := Migrate(ctx, write, ""); err != nil {
		_ = write.Close()
		return fmt.Errorf("user store %s: %w", f.path, explainSQLite(err))
	}
	read, err := sql.Open("sqlite", name)
	if err != nil {
		_ = write.Close()
		return err
	}
	if f.file, err = os.Stat(f.path); err != nil {
		return errors.Join(err, read.Close(), write.Close())
	}
	read.SetMaxOpenConns(2 * runtime.GOMAXPROCS(0))
	read.SetMaxIdleConns(2 * runtime.GOMAXPROCS(0))
	f.read, f.write = read, write
	return nil
}

// makePrivate makes a file that others cannot read, where there is none, and ends
// that they can. One that they may have made is refused.
func makePrivate(path string) error {
	give := keepOwner(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := checkStoreFile(path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(file.Chmod(0o600), file.Close(), give())
}

// Destruct implements caddy.Destructor.
func (f *databaseFile) Destruct() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.write == nil {
		return nil
	}
	return errors.Join(f.read.Close(), f.write.Close())
}

// explainSQLite says in other words what SQLite has a code for.
func explainSQLite(err error) error {
	failure, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch failure.Code() & 0xff {
	case sqlitelib.SQLITE_FULL:
		return fmt.Errorf("%w: %w", ErrStoreFull, err)
	case sqlitelib.SQLITE_READONLY:
		return fmt.Errorf("the file cannot be written; who runs Caddy must own it: %w", err)
	case sqlitelib.SQLITE_CANTOPEN:
		return fmt.Errorf("the file, or one beside it, cannot be opened; who runs Caddy must be able to write into the folder, and the file system must not be read-only: %w", err)
	case sqlitelib.SQLITE_CORRUPT, sqlitelib.SQLITE_NOTADB:
		return fmt.Errorf("the file is damaged; restore a backup: %w", err)
	}
	return err
}

// Interface guards
var (
	_ caddy.Provisioner     = (*FileStore)(nil)
	_ caddy.CleanerUpper    = (*FileStore)(nil)
	_ caddyfile.Unmarshaler = (*FileStore)(nil)
	_ UserStore             = (*FileStore)(nil)
	_ caddy.Destructor      = (*databaseFile)(nil)
)
