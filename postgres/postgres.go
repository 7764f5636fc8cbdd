// Package postgres keeps the accounts in PostgreSQL, so that several Caddys
// share them: the Caddy module jwt.stores.postgres, `store postgres <dsn>`.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/sqlstore"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

func init() {
	caddy.RegisterModule(new(Store))
}

// Store keeps the accounts in PostgreSQL, or in an engine that speaks its
// language. It uses the queries of the file store, and nothing that such engines
// lack: no extensions, triggers, sequences or advisory locks. Only NOTIFY, by which
// nodes hear of ended sessions at once, is not everywhere; without it they ask,
// every 0.4 seconds. Its tables are made and migrated by the first node that starts.
type Store struct {
	sqlstore.Store `json:"-"`

	// DSN says where the database is: a URL as
	// postgres://user:password@host:5432/name?sslmode=verify-full, or words as
	// host=… user=…, with pgx's options for TLS and timeouts
	// (`connect_timeout`, `statement_timeout`), and `pool_max_conns` for how many
	// connections a node holds at most, beside one that listens. Placeholders such as {env.DSN} keep the
	// password out of the config. Required. Default of pool_max_conns: 16, and of
	// connect_timeout and statement_timeout: 5 seconds. A call that has no answer
	// after both together fails, also where the network drops it without a word.
	DSN string `json:"dsn,omitempty"`

	opened string // the key of the shared pool
	pool   *pool
}

// CaddyModule returns the Caddy module information.
func (*Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "jwt.stores.postgres", New: func() caddy.Module { return new(Store) }}
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store postgres <dsn>
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the kind
	args := d.RemainingArgs()
	if len(args) > 1 {
		return d.Errf("store postgres takes one DSN; put a DSN of several words in quotes, as in: store postgres \"host=db.example.com dbname=accounts user=caddy\"")
	}
	if len(args) == 0 {
		return d.Errf("store postgres takes a DSN, as in: store postgres {env.ACCOUNTS_DSN}")
	}
	s.DSN = args[0]
	return nil
}

// pools are those in use, by DSN.
var pools = caddy.NewUsagePool()

const (
	defaultConnections = 16
	defaultTimeout     = 5 * time.Second
)

// Provision sets the pool up, which connects when the config starts, or when it is
// needed. If the database cannot be reached then, it is tried again when it is
// needed, so that tokens are verified meanwhile.
func (s *Store) Provision(ctx caddy.Context) error {
	dsn := caddy.NewReplacer().ReplaceKnown(s.DSN, "")
	if dsn == "" {
		return errors.New("dsn is empty; is the environment variable set, and does the file exist?")
	}
	settings, err := parseDSN(dsn)
	if err != nil {
		return err
	}
	shared, known, err := pools.LoadOrNew(dsn, func() (caddy.Destructor, error) { return newPool(settings), nil })
	if err != nil {
		return err
	}
	s.opened = dsn
	s.pool = shared.(*pool)
	s.Connect, s.Explain, s.Retry, s.Revoked, s.Timeout = s.pool.connect, explain, stoodInTheWay, s.pool.tell, settings.callTimeout
	config.AtStart(ctx, func() error {
		_, _, err := s.pool.connect(ctx)
		return config.StoreAtStart(ctx, err, known)
	})
	return nil
}

// poolConfig is what a DSN says.
type poolConfig struct {
	connection  *pgx.ConnConfig
	connections int
	callTimeout time.Duration // 0 is none
}

// parseDSN reads a DSN. Its errors do not show it, since it has a password.
func parseDSN(dsn string) (poolConfig, error) {
	connection, err := pgx.ParseConfig(dsn)
	if err != nil {
		if failure, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
			err = errors.Unwrap(failure)
		}
		if err == nil || strings.Contains(err.Error(), dsn) {
			err = errors.New("it is malformed")
		}
		return poolConfig{}, fmt.Errorf("dsn, as postgres://user:password@host:5432/name or host=… user=…: %w", err)
	}
	config := poolConfig{connection: connection, connections: defaultConnections}
	if text, given := connection.RuntimeParams["pool_max_conns"]; given {
		delete(connection.RuntimeParams, "pool_max_conns")
		if config.connections, err = strconv.Atoi(text); err != nil || config.connections < 1 {
			return config, fmt.Errorf("dsn: pool_max_conns is %q; it must be a number of connections", text)
		}
	}
	for name := range connection.RuntimeParams {
		if strings.HasPrefix(name, "pool_") {
			return config, fmt.Errorf("dsn: %s is not supported; use pool_max_conns for the maximum number of connections", name)
		}
	}
	if connection.ConnectTimeout == 0 {
		connection.ConnectTimeout = defaultTimeout
	}
	if _, given := connection.RuntimeParams["statement_timeout"]; !given {
		connection.RuntimeParams["statement_timeout"] = fmt.Sprint(defaultTimeout.Milliseconds())
	}
	statement, err := statementTimeout(connection.RuntimeParams["statement_timeout"])
	if err != nil {
		return config, err
	}
	if statement > 0 {
		config.callTimeout = connection.ConnectTimeout + statement
	} else { // a pooler may refuse connections that say anything of it
		delete(connection.RuntimeParams, "statement_timeout")
	}
	return config, nil
}

// statementTimeout reads a time as PostgreSQL does: milliseconds unless a unit
// is given. 0 is none.
func statementTimeout(text string) (time.Duration, error) {
	if ms, err := strconv.Atoi(text); err == nil && ms >= 0 {
		return time.Duration(ms) * time.Millisecond, nil
	}
	timeout, err := time.ParseDuration(strings.ReplaceAll(strings.ReplaceAll(text, " ", ""), "min", "m"))
	if err != nil || timeout < 0 {
		return 0, fmt.Errorf("dsn: statement_timeout is %q; it must be a number of milliseconds, such as 5000, or have a unit, such as 5s or 1min", text)
	}
	return timeout, nil
}

// Cleanup gives the shared pool back.
func (s *Store) Cleanup() error {
	if s.opened == "" {
		return nil
	}
	_, err := pools.Delete(s.opened)
	s.opened = ""
	return err
}

// pool is a database whose tables are there.
type pool struct {
	db     *sql.DB
	config *pgx.ConnConfig
	ctx    context.Context // ends with Destruct
	end    context.CancelFunc

	cannotNotify atomic.Bool // the engine knows no NOTIFY

	mu       sync.Mutex
	migrated bool
	triedAt  time.Time
	err      error
}

func newPool(config poolConfig) *pool {
	db := stdlib.OpenDB(*config.connection)
	db.SetMaxOpenConns(config.connections)
	db.SetMaxIdleConns(config.connections)
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour) // so that a change of the database's address is found
	p := &pool{db: db, config: config.connection}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// retryAfter is how long a failure to reach the database is believed.
const retryAfter = time.Second

func (p *pool) connect(ctx context.Context) (read, write *sql.DB, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.migrated && (p.err == nil || time.Since(p.triedAt) > retryAfter) {
		p.err = p.migrate(ctx)
		p.triedAt = time.Now()
		p.migrated = p.err == nil
	}
	return p.db, p.db, p.err
}

// migrate makes the tables. Nodes that start at once may stand in each other's
// way where the first table is made; then it is tried again.
func (p *pool) migrate(ctx context.Context) error {
	var err error
	for range 10 {
		if err = sqlstore.Migrate(ctx, p.db, " FOR UPDATE"); err == nil || !conflict(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("user store in PostgreSQL: %w", explain(err))
	}
	return nil
}

// conflict tells whether another node was faster to make the tables:
// unique_violation, duplicate_table, duplicate_object, and what PostgreSQL says of
// one CREATE TABLE IF NOT EXISTS beside another.
func conflict(err error) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return stoodInTheWay(err) || ok && slices.Contains([]string{"23505", "42P07", "42710", "XX000"}, failure.Code)
}

// stoodInTheWay tells whether a transaction was undone because of another one:
// serialization_failure, deadlock_detected. Engines that isolate more than
// PostgreSQL does by default say so often.
func stoodInTheWay(err error) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (failure.Code == "40001" || failure.Code == "40P01")
}

// Destruct implements caddy.Destructor.
func (p *pool) Destruct() error {
	p.end()
	return p.db.Close()
}

// explain says in other words what PostgreSQL has a code for.
func explain(err error) error {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch failure.Code {
	case "53100": // disk_full
		return fmt.Errorf("%w: %w", store.ErrStoreFull, err)
	case "25006": // read_only_sql_transaction
		return fmt.Errorf("the database is read-only; is it a standby? %w", err)
	case "42501": // insufficient_privilege
		return fmt.Errorf("the user of the DSN lacks a permission; it must own the tables and be allowed to create them in its schema: %w", err)
	}
	return err
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Store)(nil)
	_ caddy.CleanerUpper    = (*Store)(nil)
	_ caddyfile.Unmarshaler = (*Store)(nil)
	_ store.UserStore       = (*Store)(nil)
	_ store.TryCounter      = (*Store)(nil)

	_ store.RevocationListener = (*Store)(nil)

	_ caddy.Destructor = (*pool)(nil)
)
