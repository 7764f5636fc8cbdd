package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
)

// database is a PostgreSQL server for this run, which counts statements.
type database struct {
	bin, dir string
	attr     *syscall.SysProcAttr
	db       *sql.DB
}

func (d *database) run(ctx context.Context, name string, args ...string) error {
	command := exec.CommandContext(ctx, filepath.Join(d.bin, name), args...)
	command.SysProcAttr, command.Dir = d.attr, d.dir
	log, err := os.CreateTemp("", "pg-log") // the server would keep a pipe open
	if err != nil {
		return err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	if err := command.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%s: %w\n%s", name, err, text)
	}
	return nil
}

func (d *database) dsn() string { return "host=" + d.dir + " user=test dbname=postgres" }

// openDatabase starts PostgreSQL in the folder with the default settings; root runs it as the user
// postgres. If PostgreSQL is not installed, it returns nil.
func openDatabase(ctx context.Context, dir string) (*database, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return nil, err
	}
	d := &database{bin: filepath.Dir(found[len(found)-1]), dir: dir}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		account, err := user.Lookup("postgres")
		if err != nil {
			return nil, nil
		}
		uid, err := strconv.Atoi(account.Uid)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.Atoi(account.Gid)
		if err != nil {
			return nil, err
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			return nil, err
		}
		d.attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	if err := d.run(ctx, "initdb", "-D", dir+"/data", "-U", "test", "-A", "trust"); err != nil {
		return nil, err
	}
	options := "-c listen_addresses='' -c unix_socket_directories=" + dir +
		" -c shared_preload_libraries=pg_stat_statements"
	if err := d.run(ctx, "pg_ctl", "-D", dir+"/data", "-w", "-l", dir+"/log", "-o", options, "start"); err != nil {
		return nil, err
	}
	if d.db, err = sql.Open("pgx", d.dsn()); err == nil {
		_, err = d.db.ExecContext(ctx, "CREATE EXTENSION pg_stat_statements")
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *database) close() error {
	if d.db != nil {
		_ = d.db.Close()
	}
	return d.run(context.Background(), "pg_ctl", "-D", d.dir+"/data", "-m", "fast", "stop")
}

// statements returns the number of statements that the nodes have executed, including BEGIN and
// COMMIT.
func (d *database) statements(ctx context.Context) (calls float64, err error) {
	err = d.db.QueryRowContext(
		ctx, `SELECT COALESCE(SUM(calls), 0) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'`,
	).Scan(&calls)
	return calls, err
}

// idleStatements returns the nodes' statements per second without requests.
func (d *database) idleStatements(ctx context.Context, length time.Duration) (float64, error) {
	before, err := d.statements(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(length):
	}
	after, err := d.statements(ctx)
	return (after - before) / time.Since(began).Seconds(), err
}

func (s *scaleRun) postgres(ctx context.Context) (err error) {
	d, err := openDatabase(ctx, filepath.Join(s.dir, "pg"))
	if err != nil {
		return err
	}
	if d == nil {
		s.row("not run", "PostgreSQL is not installed. On Debian and Ubuntu: apt-get install postgresql")
		return nil
	}
	defer func() { err = errors.Join(err, d.close()) }()
	began := time.Now()
	copying := exec.CommandContext(ctx, s.caddy, "jwt", "store", "copy", s.usersFile(), "postgres {env.ACCOUNTS_DSN}")
	copying.Env = append(os.Environ(), "ACCOUNTS_DSN="+d.dsn())
	if output, err := copying.CombinedOutput(); err != nil || !strings.Contains(string(output), "the same in both") {
		return fmt.Errorf("caddy jwt store copy: %w\n%s", err, output)
	}
	took := time.Since(began)
	s.row(
		"caddy jwt store copy, compared", "%s, %.0f users/s", took.Round(time.Second), float64(s.users)/took.Seconds(),
	)
	var size int64
	if err := d.db.QueryRowContext(ctx, `SELECT pg_database_size(current_database())`).Scan(&size); err != nil {
		return err
	}
	s.row("size of the database", "%.0f MB", float64(size)/1e6)

	var nodes []*scaleNode
	for range 2 {
		node, err := s.start(ctx, "store postgres {env.ACCOUNTS_DSN}", "ACCOUNTS_DSN="+d.dsn())
		if err != nil {
			return err
		}
		defer node.stop()
		nodes = append(nodes, node)
	}
	return s.twoNodes(ctx, d, nodes)
}

func (s *scaleRun) twoNodes(ctx context.Context, d *database, nodes []*scaleNode) error {
	turn := func(do func(n *scaleNode, worker, i int) error) func(worker, i int) error {
		return func(worker, i int) error { return do(nodes[(worker+i)%len(nodes)], worker, i) }
	}
	logIn := turn(func(n *scaleNode, worker, i int) error { return n.logIn(s.users)(worker, i) })
	signUp := turn((*scaleNode).signUp)
	rate, middle, err := perSecond(ctx, 8, s.seconds, logIn)
	if err != nil {
		return err
	}
	s.row("log-ins over both nodes, 8 clients", "%.1f /s, median %s", rate, middle.Round(100*time.Microsecond))
	refresh, err := refreshing(nodes, scaleWorkers)
	if err != nil {
		return err
	}
	if rate, middle, err = perSecond(ctx, scaleWorkers, s.seconds, refresh); err != nil {
		return err
	}
	s.row(
		fmt.Sprintf("refreshes over both nodes, %d clients", scaleWorkers),
		"%.0f /s, median %s", rate, middle.Round(100*time.Microsecond),
	)

	var seen []float64
	for i := range 30 {
		delay, err := logOutSeen(nodes[i%2], nodes[1-i%2], userName(i))
		if err != nil {
			return err
		}
		seen = append(seen, delay.Seconds()*1000)
	}
	s.row(
		"log-out at one node, refused by the other after",
		"median %.1f ms, longest of %d %.1f ms", medianOf(seen), len(seen), seen[len(seen)-1],
	)

	idle, err := d.idleStatements(ctx, s.seconds)
	if err != nil {
		return err
	}
	s.row("statements of an idle node", "%.2f /s", idle/2)
	for _, operation := range []struct {
		name string
		do   func(worker, i int) error
	}{{"log-in", logIn}, {"sign-up", signUp}, {"refresh", refresh}} {
		const times = 50
		before, err := d.statements(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		for i := range times {
			if err := operation.do(0, i); err != nil {
				return err
			}
		}
		elapsed := time.Since(began).Seconds()
		after, err := d.statements(ctx)
		if err != nil {
			return err
		}
		s.row("statements of a "+operation.name, "%.1f", (after-before-idle*elapsed)/times)
	}
	return nil
}

// logOutSeen returns how long another node accepts a token after its session has ended at this
// node.
func logOutSeen(at, other *scaleNode, email string) (time.Duration, error) {
	given, err := at.logInAs(email)
	if err != nil {
		return 0, err
	}
	if _, err := other.send("GET", "/todos/", given.Token, nil, 200); err != nil {
		return 0, err
	}
	if _, err := at.send("POST", "/auth/logout", given.Token, nil, 204); err != nil {
		return 0, err
	}
	for began := time.Now(); time.Since(began) < 10*time.Second; {
		if _, err := other.send("GET", "/todos/", given.Token, nil, 401); err == nil {
			return time.Since(began), nil
		}
	}
	return 0, errors.New("the other node takes the token 10 seconds after the log-out")
}
