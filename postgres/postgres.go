// Package postgres stores the accounts in PostgreSQL, so that several Caddy servers can
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

// Store stores the accounts in PostgreSQL or a compatible database. It uses the same
// queries as the file store, and no features that compatible databases may lack: no
// extensions, triggers, sequences or advisory locks. Only NOTIFY, which informs nodes of
// ended sessions at once, is optional; without it, nodes poll every 0.4 seconds. The first
// node that starts creates and migrates the tables.
type Store struct {
	sqlstore.Store `json:"-"`

	// DSN is the address of the database: a URL such as
	// postgres://user:password@host:5432/name?sslmode=verify-full, or words such as host=…
	// user=…. It can have pgx's options for TLS and timeouts (`connect_timeout`,
	// `statement_timeout`), and `pool_max_conns`, the maximum number of connections of a
	// node, in addition to one that listens. To keep the password out of the config, use a
	// placeholder such as {env.DSN}. Required. Defaults: 16 for pool_max_conns, 5 seconds
	// for connect_timeout and statement_timeout. If a call gets no response within the sum
	// of both timeouts, it fails, even if the network drops it silently.
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
		return d.Errf("store postgres takes one DSN; put a DSN of several words in quotes, as in: " +
			"store postgres \"host=db.example.com dbname=accounts user=caddy\"")
	}
	if len(args) == 0 {
		return d.Errf("store postgres takes a DSN, as in: store postgres {env.ACCOUNTS_DSN}")
	}
	s.DSN = args[0]
	return nil
}

// pools are the connection pools in use, by DSN.
var pools = caddy.NewUsagePool()

const (
	defaultConnections = 16
	defaultTimeout     = 5 * time.Second
)

// Provision sets up the pool, which connects when the config starts or when it is first
// needed. If the database is unavailable, it tries again when it is needed next; tokens are
// verified in the meantime.
func (s *Store) Provision(ctx caddy.Context) error {
	dsn := caddy.NewReplacer().ReplaceKnown(s.DSN, "")
	if dsn == "" {
		return errors.New("the DSN is empty; " + config.WhyEmpty(s.DSN))
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
	s.Connect, s.Explain, s.Retry, s.ForUpdate = s.pool.connect, explain, stoodInTheWay, " FOR UPDATE"
	s.Revoked, s.Timeout = s.pool.tell, settings.callTimeout
	s.Place = settings.connection.Host + "/" + settings.connection.Database
	where := fmt.Sprintf("user store in PostgreSQL at %s, database %s", settings.connection.Host,
		settings.connection.Database)
	config.OnCheck(ctx, config.Check{What: where, Run: s.pool.examine})
	config.AtStart(ctx, func() error {
		_, _, err := s.pool.connect(ctx)
		return config.StoreAtStart(ctx, err, known)
	})
	return nil
}

// poolConfig is a parsed DSN.
type poolConfig struct {
	connection  *pgx.ConnConfig
	connections int
	callTimeout time.Duration // 0 for none
}

// parseDSN parses a DSN. Its errors do not contain the DSN, which includes a password.
func parseDSN(dsn string) (poolConfig, error) {
	connection, err := pgx.ParseConfig(dsn)
	if err != nil {
		if failure, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
			err = errors.Unwrap(failure)
		}
		if err == nil || strings.Contains(err.Error(), dsn) {
			err = errors.New("it is malformed")
		}
		return poolConfig{}, fmt.Errorf(
			"the DSN is not valid (%w); write postgres://user:password@host:5432/name or host=… user=…", err,
		)
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
			return config, fmt.Errorf(
				"dsn: %s is not supported; use pool_max_conns for the maximum number of connections", name,
			)
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
	} else { // a pooler may refuse connections that set it
		delete(connection.RuntimeParams, "statement_timeout")
	}
	return config, nil
}

// statementTimeout parses a duration like PostgreSQL: milliseconds unless it has a unit. 0
// means no timeout.
func statementTimeout(text string) (time.Duration, error) {
	if ms, err := strconv.Atoi(text); err == nil && ms >= 0 {
		return time.Duration(ms) * time.Millisecond, nil
	}
	timeout, err := time.ParseDuration(strings.ReplaceAll(strings.ReplaceAll(text, " ", ""), "min", "m"))
	if err != nil || timeout < 0 {
		return 0, fmt.Errorf("dsn: statement_timeout is %q; "+
			"it must be a number of milliseconds, such as 5000, or have a unit, such as 5s or 1min", text)
	}
	return timeout, nil
}

// Cleanup releases the shared pool.
func (s *Store) Cleanup() error {
	if s.opened == "" {
		return nil
	}
	_, err := pools.Delete(s.opened)
	s.opened = ""
	return err
}

// pool is a database whose tables exist.
type pool struct {
	db     *sql.DB
	config *pgx.ConnConfig
	ctx    context.Context // ends with Destruct
	end    context.CancelFunc

	cannotNotify atomic.Bool // the database does not support NOTIFY

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
	db.SetConnMaxLifetime(time.Hour) // to notice when the address of the database changes
	p := &pool{db: db, config: config.connection}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// retryAfter is how long to wait after connecting failed.
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

// migrate creates or upgrades the tables. Nodes that start at the same time can conflict
// when they create the first table; then it retries.
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

// examine checks the database without changing it.
func (p *pool) examine(ctx context.Context) (found string, err error) {
	found, err = sqlstore.CheckVersion(ctx, p.db)
	if failure, ok := errors.AsType[*pgconn.PgError](err); ok && failure.Code == "42P01" { // undefined_table
		return "", config.Doubtful(errors.New("the database has no tables yet; Caddy creates them when it starts"))
	}
	return found, explain(err)
}

// conflict reports whether another node created the tables first: unique_violation,
// duplicate_table, duplicate_object, and the error of PostgreSQL for concurrent CREATE
// TABLE IF NOT EXISTS.
func conflict(err error) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return stoodInTheWay(err) || ok && slices.Contains([]string{"23505", "42P07", "42710", "XX000"}, failure.Code)
}

// stoodInTheWay reports whether a transaction failed because of another one:
// serialization_failure, deadlock_detected. This is frequent with databases that use a
// stricter isolation level than PostgreSQL by default.
func stoodInTheWay(err error) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (failure.Code == "40001" || failure.Code == "40P01")
}

// Destruct implements caddy.Destructor.
func (p *pool) Destruct() error {
	p.end()
	return p.db.Close()
}

// explain adds explanations to errors of PostgreSQL.
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
		return fmt.Errorf("the user of the DSN lacks a permission; "+
			"it must own the tables and be allowed to create them in its schema: %w", err)
	}
	return err
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Store)(nil)
	_ caddy.CleanerUpper    = (*Store)(nil)
	_ caddyfile.Unmarshaler = (*Store)(nil)
	_ store.UserStore       = (*Store)(nil)
	_ store.AttemptCounter  = (*Store)(nil)

	_ store.RevocationListener = (*Store)(nil)

	_ caddy.Destructor = (*pool)(nil)
)
