// Package filestore is the store `file`: users in an SQLite file. It is the Caddy module
// jwt.stores.file.
package filestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/owner"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/sqlstore"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

func init() {
	caddy.RegisterModule(new(Store))
}

// Store stores the users in an SQLite file. Other processes, such as `caddy jwt user`, can
// use the file at the same time. Changes are on disk before they are acknowledged.
type Store struct {
	// Path of the file. While it is in use, there are two more files with the suffixes
	// `-wal` and `-shm`. Default: `jwt/users.db` in Caddy's data directory.
	Path string `json:"path,omitempty"`

	sqlstore.Store `json:"-"`
	opened         string // the key under which the file is shared
	file           *databaseFile
}

// CaddyModule returns the Caddy module information.
func (*Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "jwt.stores.file",
		New: func() caddy.Module { return new(Store) },
	}
}

// UnmarshalCaddyfile sets the store up from Caddyfile tokens. Syntax:
//
//	store file [<path>]
func (f *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the kind of the store
	if d.NextArg() {
		f.Path = d.Val()
	}
	if d.NextArg() {
		return d.Errf("store file takes at most one path")
	}
	return nil
}

// files are the files in use, by path.
var files = caddy.NewUsagePool()

// Provision sets up the store. The file is opened when the config starts or when it is
// first needed. If opening fails, it is retried later; tokens are verified in the meantime.
func (f *Store) Provision(ctx caddy.Context) error {
	path, err := f.resolve()
	if err != nil {
		return err
	}
	if folder := filepath.Dir(path); folder == string(filepath.Separator) && !filepath.IsAbs(f.Path) {
		ctx.Logger().Warn("store file "+f.Path+" is relative to the working directory, which is "+folder+
			" here, as it is for services; write an absolute path, such as /var/lib/caddy/users.db",
			help.See("relative-store"))
	}
	shared, known, err := files.LoadOrNew(path, func() (caddy.Destructor, error) {
		return &databaseFile{path: path}, nil
	})
	if err != nil {
		return err
	}
	f.opened = path
	f.file = shared.(*databaseFile)
	f.Connect, f.Explain, f.Committed = f.file.connect, f.file.explain, f.file.committed
	f.Place = path
	config.OnCheck(ctx, config.Check{What: "user store " + path, Run: f.file.examine})
	config.AtStart(ctx, func() error {
		_, _, err := f.file.connect(ctx)
		return config.StoreAtStart(ctx, err, known)
	})
	return nil
}

// resolve replaces the placeholders of the path, and returns it in full.
func (f *Store) resolve() (string, error) {
	if err := config.Resolve("path", &f.Path); err != nil {
		return "", err
	}
	if strings.Contains(f.Path, "://") { // with a password in it
		return "", errors.New("a store file takes a path, not a URL; " +
			"for a database write `store postgres <dsn>` in the Caddyfile, and use --config <file> with the commands")
	}
	config.SetDefault(&f.Path, defaultStorePath())
	return filepath.Abs(f.Path)
}

func defaultStorePath() string { return filepath.Join(caddy.AppDataDir(), "jwt", "users.db") }

// Cleanup releases the shared file.
func (f *Store) Cleanup() error {
	if f.opened == "" {
		return nil
	}
	_, err := files.Delete(f.opened)
	f.opened = ""
	return err
}

// databaseFile is an SQLite file with one connection for writing and several for reading.
type databaseFile struct {
	path string

	mu          sync.Mutex
	read, write *sql.DB
	hold        *sql.Conn     // prevents the last process that closes it from removing its -wal file
	files       []os.FileInfo // of the opened files, in the order of paths
	triedAt     time.Time
	err         error
	damaged     error     // found while it was open; nothing is written any more
	saved       bool      // whether the content of a removed -wal file was saved
	rescued     string    // a copy of the acknowledged changes, if another process created the file again
	rescuedAt   time.Time // when the copy was last attempted
	rescueErr   error
	// usedBefore report whether there is proof, outside the file, that it was used before, or why that
	// cannot be known.
	usedBefore []func(context.Context) (bool, error)
}

// paths returns the file and the files that SQLite adds to it.
func (f *databaseFile) paths() []string { return []string{f.path, f.path + "-wal", f.path + "-shm"} }

const (
	// reopenAfter is how long to wait after opening failed.
	reopenAfter = time.Second
	// rescueAgain is how long to wait after a copy failed, because copying a large store is
	// expensive.
	rescueAgain = 10 * time.Second
)

func (f *databaseFile) connect(ctx context.Context) (read, write *sql.DB, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.write == nil && (f.err == nil || time.Since(f.triedAt) > reopenAfter) {
		f.triedAt = time.Now()
		f.err = f.open(ctx)
	}
	if f.write != nil {
		f.err = f.check(ctx)
	}
	return f.read, f.write, f.err
}

// committed is called after a change and before it is acknowledged: a change that was
// written to a removed file is lost.
func (f *databaseFile) committed(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = f.check(ctx)
	return f.err
}

// check detects that a file was replaced or removed. Changes to the opened file would then
// be lost.
func (f *databaseFile) check(ctx context.Context) error {
	if f.damaged != nil {
		return f.damaged
	}
	for i, path := range f.paths() {
		file, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && i > 0 {
			return fmt.Errorf("user store: %s was removed while Caddy was using it, together with the newest "+
				"changes%s; stop Caddy, put the file back if you still have it, and start Caddy", path, f.keep(ctx))
		}
		if err != nil {
			return fmt.Errorf("user store: the file no longer exists; restart Caddy when it is back: %w", err)
		}
		if !os.SameFile(file, f.files[i]) && i > 0 {
			return fmt.Errorf("user store: %s was removed while Caddy was using it, "+
				"and another process has created it again; a restart loses the changes that Caddy has acknowledged "+
				"since the last checkpoint%s", path, f.rescue(ctx))
		}
		if !os.SameFile(file, f.files[i]) {
			return fmt.Errorf(
				"user store %s: the file was replaced by another one; if the new file is right, restart Caddy", path,
			)
		}
	}
	f.saved, f.rescued, f.rescuedAt = false, "", time.Time{}
	return nil
}

// keep saves the acknowledged changes, in the file itself or in a copy, and returns a text
// that says where.
func (f *databaseFile) keep(ctx context.Context) string {
	if problem := f.save(ctx); problem != "" {
		return problem
	}
	return f.rescue(ctx)
}

// rescue copies the acknowledged changes, which the connections opened earlier can still
// read, and returns the name of the copy. It does nothing if the file itself was replaced.
func (f *databaseFile) rescue(ctx context.Context) string {
	file, err := os.Stat(f.path)
	if err != nil || !os.SameFile(file, f.files[0]) {
		return ""
	}
	if f.rescued == "" && time.Since(f.rescuedAt) > rescueAgain {
		f.rescuedAt = time.Now()
		name := f.path + "-rescued-" + time.Now().UTC().Format("20060102T150405.000")
		ctx := context.WithoutCancel(ctx)
		f.rescueErr = makePrivate(name) // VACUUM would make it readable by other users
		if f.rescueErr == nil {
			_, f.rescueErr = f.hold.ExecContext(ctx, `VACUUM INTO $1`, name)
		}
		if f.rescueErr == nil {
			f.rescued = name
		} else {
			_ = os.Remove(name)
		}
	}
	if f.rescued == "" {
		return fmt.Sprintf("; copying it failed: %v", f.rescueErr)
	}
	return "; a copy is in " + f.rescued + ": stop Caddy, compare the two with `caddy jwt user list --store`, " +
		"put the right one in place without its -wal and -shm files, and start Caddy"
}

// save writes the content of a removed -wal into the file itself, unless another process
// has opened the file since and created a new -wal.
func (f *databaseFile) save(ctx context.Context) string {
	file, err := os.Stat(f.path)
	if err != nil || !os.SameFile(file, f.files[0]) {
		return ""
	}
	for i, path := range f.paths()[1:] {
		if beside, err := os.Stat(path); err == nil && !os.SameFile(beside, f.files[i+1]) {
			return ""
		}
	}
	if !f.saved {
		var busy, pages, moved int
		err := f.hold.QueryRowContext(context.WithoutCancel(ctx), `PRAGMA wal_checkpoint(FULL)`).
			Scan(&busy, &pages, &moved)
		f.saved = err == nil && busy == 0 && pages == moved
	}
	if f.saved {
		return " (they were saved into " + f.path + " now, so no acknowledged change is lost)"
	}
	return ""
}

func (f *databaseFile) explain(err error) error {
	explained := explainSQLite(err)
	if failure, ok := errors.AsType[*sqlite.Error](err); ok &&
		slices.Contains([]int{sqlitelib.SQLITE_CORRUPT, sqlitelib.SQLITE_NOTADB}, failure.Code()&0xff) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.damaged = explained
	}
	return explained
}

func (f *databaseFile) open(ctx context.Context) error {
	if err := f.make(ctx); err != nil {
		return err
	}
	// SQLite would make these files readable by other users, or give them the mode of the
	// file.
	owner.WarnOfReaders(f.path)
	for _, path := range f.paths() {
		if err := makePrivate(path); err != nil {
			return fmt.Errorf("user store: %w", err)
		}
	}
	write, err := openSQLite(f.path)
	if err != nil {
		return err
	}
	write.SetMaxOpenConns(1)
	if err := holdsUsers(ctx, write); err != nil {
		return errors.Join(fmt.Errorf("user store %s: %w", f.path, err), write.Close())
	}
	if err := sqlstore.Migrate(ctx, write, ""); err != nil {
		_ = write.Close()
		return fmt.Errorf("user store %s: %w", f.path, explainSQLite(err))
	}
	read, err := openSQLite(f.path)
	if err != nil {
		return errors.Join(err, write.Close())
	}
	hold, err := read.Conn(ctx)
	if err == nil {
		err = holdsUsers(ctx, hold) // this makes it open the files
	}
	f.files = nil
	for _, path := range f.paths() {
		var file os.FileInfo
		if err == nil {
			file, err = os.Stat(path)
		}
		f.files = append(f.files, file)
	}
	if err != nil {
		return errors.Join(err, read.Close(), write.Close())
	}
	read.SetMaxOpenConns(2*runtime.GOMAXPROCS(0) + 1)
	read.SetMaxIdleConns(2*runtime.GOMAXPROCS(0) + 1)
	f.read, f.write, f.hold, f.saved, f.rescued = read, write, hold, false, ""
	return nil
}

func openSQLite(path string) (*sql.DB, error) {
	options := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(5000)", "foreign_keys(1)",
	}}
	return sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options.Encode())
}

// IsUsedWhere adds a proof, outside the file, that it was used before. If there is one, a
// missing file is an error instead of a new store, as it is if the proof cannot be looked for.
func (f *Store) IsUsedWhere(proof func(context.Context) (bool, error)) { f.file.addProof(proof) }

func (f *databaseFile) addProof(proof func(context.Context) (bool, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.usedBefore = append(f.usedBefore, proof)
}

// make creates the file, unless it exists or existed before. The file gets its name only
// after its tables are created, so a file without tables is never a store of Caddy's.
func (f *databaseFile) make(ctx context.Context) error {
	if err := owner.Check(f.path); err != nil {
		return fmt.Errorf("user store: %w", err)
	}
	info, err := os.Stat(f.path)
	if err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return fmt.Errorf("user store %s: the file is empty, but Caddy never creates an empty file, "+
			"so its users may be lost; restore a backup, or remove the file to start without users", f.path)
	}
	if err == nil { // before its mode is changed, and files are created beside it
		if err := f.isStore(ctx); err != nil {
			return fmt.Errorf("user store %s: %w", f.path, err)
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("user store %s: the file cannot be reached; the user who runs Caddy must be allowed to open "+
			"its folder: %w", f.path, err)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, usedBefore := range f.usedBefore {
		used, err := usedBefore(ctx)
		if err != nil {
			return fmt.Errorf("user store %s: the file is missing, and whether it existed before is not known, "+
				"because Caddy's storage cannot be read; let it belong to the user who runs Caddy: %w", f.path, err)
		}
		if used {
			return fmt.Errorf("user store %s: the file is missing, but it existed before: keys that sign tokens of "+
				"its users are in Caddy's storage. Is its disk mounted? Restore a backup, or, to start without "+
				"users, create a new file with: caddy jwt user add --create --store %s <email>",
				f.path, ShellWord(f.path))
		}
	}
	if _, err := os.Stat(f.path + "-wal"); err == nil {
		return fmt.Errorf("user store %s: the file is missing, but %[1]s-wal, which has its newest changes, exists; "+
			"put the file back, or remove both", f.path)
	}
	if err := owner.Creatable(f.path); err != nil {
		return fmt.Errorf("user store: %w", err)
	}
	give := owner.Keep(f.path)
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return fmt.Errorf("user store: %w", err)
	}
	made, err := os.CreateTemp(filepath.Dir(f.path), "."+filepath.Base(f.path)+"-*.new") // readable only by its owner
	if err != nil {
		return fmt.Errorf("user store: %w", err)
	}
	defer os.Remove(made.Name())
	db, err := openSQLite(made.Name())
	if err == nil {
		err = errors.Join(explainSQLite(sqlstore.Migrate(ctx, db, "")), db.Close(), made.Close())
	}
	if err == nil {
		err = os.Link(made.Name(), f.path)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) { // another process was faster
		return fmt.Errorf("user store %s cannot be created: %w", f.path, err)
	}
	return give()
}

// holdsUsers returns an error if a database does not have the tables.
func holdsUsers(ctx context.Context, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}) error {
	var tables int
	err := db.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_schema WHERE name = 'schema_version'`).Scan(&tables)
	if err == nil && tables == 0 {
		return errors.New("the file contains no users: it was not created by Caddy, " +
			"or it was copied without its -wal file; restore a backup")
	}
	return explainSQLite(err)
}

// makePrivate creates a file that others cannot read, or makes an existing file private. It
// refuses a file that others may have created.
func makePrivate(path string) error {
	give := owner.Keep(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := owner.Check(path); err != nil {
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
	for i, path := range f.paths() {
		if file, err := os.Stat(path); err == nil && !os.SameFile(file, f.files[i]) {
			// closing would let the last process overwrite the file, which was changed by others, with its -wal
			return nil
		}
	}
	return errors.Join(f.hold.Close(), f.read.Close(), f.write.Close())
}

// explainSQLite adds explanations to SQLite's errors.
func explainSQLite(err error) error {
	failure, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch failure.Code() & 0xff {
	case sqlitelib.SQLITE_FULL:
		return fmt.Errorf("%w: %w", store.ErrStoreFull, err)
	case sqlitelib.SQLITE_IOERR:
		return fmt.Errorf("the disk refuses to write: its file system is read-only, its quota is used up, "+
			"or it is failing; see the kernel log: %w", err)
	case sqlitelib.SQLITE_READONLY:
		return fmt.Errorf("the file cannot be written; the user who runs Caddy must own it: %w", err)
	case sqlitelib.SQLITE_CANTOPEN:
		return fmt.Errorf("the file, or its -wal or -shm file, cannot be opened; the user who runs Caddy must be "+
			"able to write to the folder, and the file system must not be read-only: %w", err)
	case sqlitelib.SQLITE_CORRUPT:
		return fmt.Errorf("the file is corrupt; restore a backup: %w", err)
	case sqlitelib.SQLITE_NOTADB:
		return fmt.Errorf("the file is corrupt; restore a backup. If it never was a user store, "+
			"choose the store with --store <path>, or by a Caddy config with --config <file>: %w", err)
	}
	return err
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Store)(nil)
	_ caddy.CleanerUpper    = (*Store)(nil)
	_ caddyfile.Unmarshaler = (*Store)(nil)
	_ store.UserStore       = (*Store)(nil)
	_ caddy.Destructor      = (*databaseFile)(nil)
)
