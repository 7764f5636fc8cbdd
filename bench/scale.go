package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	caddyjwt "github.com/caddy-jwt/caddy-jwt"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
	directive "github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/uuid"
	"golang.org/x/crypto/argon2"
)

const (
	scalePassword = "correct horse battery"
	scaleWorkers  = 16 // concurrent clients
	scaleRounds   = 5  // the median is printed
)

// scaleRun is one run of `go run ./bench scale`.
type scaleRun struct {
	dir, caddy string
	users      int
	seconds    time.Duration // of each measurement
	table      *tabwriter.Writer
}

// scale measures how performance grows with cores, users and nodes, and prints it.
func scale(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bench scale", flag.ContinueOnError)
	users := flags.Int("users", 1_000_000, "users in the stores")
	seconds := flags.Int("seconds", 10, "length of each measurement, in seconds")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected %q; see -help for the flags", flags.Arg(0))
	case *users < 1000 || *seconds < 1:
		return errors.New("-users must be 1000 or more, and -seconds 1 or more")
	}
	s := &scaleRun{
		users: *users, seconds: time.Duration(*seconds) * time.Second,
		table: tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0),
	}
	if s.dir, err = os.MkdirTemp("", "caddy-jwt-scale-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	if err := os.Chmod(s.dir, 0o755); err != nil { // PostgreSQL runs as another user
		return err
	}
	fmt.Fprintln(os.Stderr, "Building Caddy ...")
	if s.caddy, err = buildCaddy(ctx, s.dir); err != nil {
		return err
	}
	if err := printMachine(ctx, s.caddy, ""); err != nil {
		return err
	}
	fmt.Printf("%d users, %s a measurement\n", s.users, s.seconds)
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"Verification, in process", s.verification},
		{"Log-ins and their hash", s.logIns},
		{"A file store", s.fileStore},
		{"PostgreSQL and two nodes", s.postgres},
	} {
		fmt.Fprintf(os.Stderr, "%s ...\n", part.name)
		fmt.Printf("\n%s\n", part.name)
		began := time.Now()
		if err := errors.Join(part.run(ctx), s.table.Flush()); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		fmt.Fprintf(os.Stderr, "  took %s\n", time.Since(began).Round(time.Second))
	}
	return nil
}

func (s *scaleRun) row(name, format string, args ...any) {
	fmt.Fprintf(s.table, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
}

func medianOf(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// perSecond calls do on several goroutines for a while. It returns the calls per second and the
// median time of a call.
func perSecond(
	ctx context.Context, workers int, length time.Duration, do func(worker, i int) error,
) (rate float64, middle time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	took := make([][]float64, workers)
	errs := make([]error, workers)
	began := time.Now()
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			for i := 0; ctx.Err() == nil && errs[worker] == nil; i++ {
				start := time.Now()
				errs[worker] = do(worker, i)
				took[worker] = append(took[worker], time.Since(start).Seconds())
			}
		})
	}
	all.Wait()
	elapsed := time.Since(began).Seconds()
	times := slices.Concat(took...)
	if len(times) == 0 {
		return 0, 0, errors.Join(append(errs, errors.New("nothing was done"))...)
	}
	return float64(len(times)) / elapsed, time.Duration(medianOf(times) * 1e9), errors.Join(errs...)
}

// byCores has measurements on one core and on two.
type byCores struct {
	rate [2]float64 // per second, in the best round
	cpu  [2]float64 // processor time of one in seconds, the median
}

func (b byCores) String() string {
	return fmt.Sprintf(
		"%s /s on 1 core, %s /s on 2; processor time of one %s and %s, by which 2 cores do %.2f times as much",
		digits(b.rate[0]), digits(b.rate[1]), duration(b.cpu[0]), duration(b.cpu[1]), 2*b.cpu[0]/b.cpu[1],
	)
}

func digits(rate float64) string {
	if rate < 1000 {
		return fmt.Sprintf("%.1f", rate)
	}
	return fmt.Sprintf("%.0f", rate)
}

func duration(seconds float64) string {
	d, step := time.Duration(seconds*1e9), time.Duration(1)
	for d/step >= 1000 { // three digits
		step *= 10
	}
	return d.Round(step).String()
}

// onCores measures in turn on one core and on two, in rounds. Other processes affect the rate, but
// not the processor time, so it records both.
func (s *scaleRun) onCores(ctx context.Context, batch int, do func(worker, i int) error) (found byCores, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var cpu [2][]float64
	for range scaleRounds {
		for i := range cpu {
			runtime.GOMAXPROCS(i + 1)
			before, err := cpuTime(os.Getpid())
			if err != nil {
				return found, err
			}
			began := time.Now()
			rate, _, err := perSecond(ctx, i+1, s.seconds/scaleRounds, do)
			if err != nil {
				return found, err
			}
			elapsed := time.Since(began).Seconds()
			after, err := cpuTime(os.Getpid())
			if err != nil {
				return found, err
			}
			rate *= float64(batch)
			found.rate[i] = max(found.rate[i], rate)
			cpu[i] = append(cpu[i], (after-before).Seconds()/(rate*elapsed))
		}
	}
	found.cpu = [2]float64{medianOf(cpu[0]), medianOf(cpu[1])}
	return found, nil
}

var nothing = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// verification measures only the handler, because a load generator would use the measured cores.
func (s *scaleRun) verification(ctx context.Context) error {
	keys, err := newIssuerKeys(s.dir)
	if err != nil {
		return err
	}
	key := keys[0] // RS256
	for _, c := range []struct{ name, option string }{
		{"a token seen before", ""}, {"RS256 verified each time", "cache off"},
	} {
		caddyContext, cancel := caddy.NewContext(caddy.Context{Context: ctx})
		defer cancel()
		h := new(caddyjwt.Handler)
		err := h.UnmarshalCaddyfile(directive.NewTestDispenser(fmt.Sprintf(
			"jwt {\nissuer %s\naudience %s\npublic_key %s\n%s\n}", issuer, audience, key.path, c.option,
		)))
		if err == nil {
			err = h.Provision(caddyContext)
		}
		if err != nil {
			return err
		}
		defer h.Cleanup()
		var requests []*http.Request
		for _, text := range key.good[:1000] {
			request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
			if err != nil {
				return err
			}
			requests = append(requests, request)
		}
		const batch = 100
		found, err := s.onCores(ctx, batch, func(worker, i int) error {
			recorder := httptest.NewRecorder()
			for n := range batch {
				request := caddyhttp.PrepareRequest(
					requests[(worker*500+i*batch+n)%len(requests)], caddy.NewReplacer(), nil, nil,
				)
				if err := h.ServeHTTP(recorder, request, nothing); err != nil || recorder.Code != http.StatusOK {
					return fmt.Errorf("status %d: %w", recorder.Code, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.row(c.name, "%s", found)
	}
	return nil
}

func argonHash(salt []byte) []byte {
	return argon2.IDKey([]byte(scalePassword), salt, 2, 19456, 1, 32) // as package password does
}

// logIns compares log-ins with the bare hash on the same number of cores.
func (s *scaleRun) logIns(ctx context.Context) error {
	salt := make([]byte, 16)
	raw, err := s.onCores(ctx, 1, func(int, int) error { argonHash(salt); return nil })
	if err != nil {
		return err
	}
	s.row("argon2id alone (m=19456, t=2, p=1)", "%s", raw)
	path := filepath.Join(s.dir, "few.db")
	if err := fillUsers(ctx, path, 1000); err != nil {
		return err
	}
	for cores := range 2 {
		node, err := s.start(ctx, "store file "+path, fmt.Sprintf("GOMAXPROCS=%d", cores+1))
		if err != nil {
			return err
		}
		rate, cpu, err := node.cpuPerSecond(ctx, 4, s.seconds, node.logIn(1000))
		node.stop()
		if err != nil {
			return err
		}
		s.row(
			fmt.Sprintf("log-ins over HTTP, Caddy with GOMAXPROCS=%d", cores+1),
			"%.1f /s; processor time of one %s, %.2f of the hash alone", rate, duration(cpu), cpu/raw.cpu[0],
		)
	}
	return nil
}

// cpuPerSecond is like perSecond, and also returns Caddy's processor time per call.
func (n *scaleNode) cpuPerSecond(
	ctx context.Context, workers int, length time.Duration, do func(worker, i int) error,
) (rate, cpu float64, err error) {
	before, err := cpuTime(n.process.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if rate, _, err = perSecond(ctx, workers, length, do); err != nil {
		return 0, 0, err
	}
	elapsed := time.Since(began).Seconds()
	after, err := cpuTime(n.process.Process.Pid)
	return rate, (after - before).Seconds() / (rate * elapsed), err
}

// fillUsers adds users to the file as sign-ups would, all with the same password.
func fillUsers(ctx context.Context, path string, users int) (err error) {
	caddyContext, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer cancel()
	store := &filestore.Store{Path: path}
	if err := store.Provision(caddyContext); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Cleanup()) }()
	_, write, err := store.Connect(ctx)
	if err != nil {
		return err
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt)
	hash := "$argon2id$v=19$m=19456,t=2,p=1$" + base64.RawStdEncoding.EncodeToString(salt) + "$" +
		base64.RawStdEncoding.EncodeToString(argonHash(salt))
	tx, err := write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	insert, err := tx.PrepareContext(
		ctx,
		`INSERT INTO users (id, email, email_key, password_hash, roles, profile, disabled,
			created_at, updated_at, version) VALUES ($1, $2, $2, $3, '["user"]', '{}', false, 1, 1, 1)`,
	)
	if err != nil {
		return err
	}
	for i := range users {
		if _, err := insert.ExecContext(ctx, uuid.NewString(), userName(i), hash); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func userName(i int) string { return fmt.Sprintf("user-%d@example.com", i) }

// scaleNode is a Caddy with accounts.
type scaleNode struct {
	*server
	url    string
	client *http.Client
}

// start runs a Caddy with accounts in a store. All nodes share the storage.
func (s *scaleRun) start(ctx context.Context, store string, environ ...string) (*scaleNode, error) {
	server := &server{
		command: []string{s.caddy, "run", "--adapter", "caddyfile", "--config"},
		config: func(port string) string {
			return fmt.Sprintf("{\nadmin off\nauto_https off\npersist_config off\nstorage file_system %s\n}\n"+
				"http://127.0.0.1:%s {\njwt /todos/* {\naccounts {\nsignup open\n %s\nthrottle off\nhash_queue 1000\n"+
				"}\n}\nrespond /todos/* ok\n}\n",
				filepath.Join(s.dir, "storage"), port, store)
		},
		environ: environ,
	}
	if err := server.start(ctx, s.dir); err != nil {
		return nil, err
	}
	return &scaleNode{server, "http://" + server.address, &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 2 * scaleWorkers},
	}}, nil
}

func (n *scaleNode) stop() {
	_ = n.process.Process.Signal(os.Interrupt)
	n.wait()
}

type scaleTokens struct{ Token, RefreshToken string }

// send posts JSON, and reads the tokens of the response, if any.
func (n *scaleNode) send(method, path, token string, body any, expected int) (given scaleTokens, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return given, err
	}
	request, err := http.NewRequest(method, n.url+path, bytes.NewReader(text))
	if err != nil {
		return given, err
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := n.client.Do(request)
	if err != nil {
		return given, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != expected {
		err = fmt.Errorf("%s %s: status %d, expected %d: %s", method, path, response.StatusCode, expected, answer)
	}
	_ = json.Unmarshal(answer, &given)
	return given, err
}

func (n *scaleNode) logInAs(email string) (scaleTokens, error) {
	return n.send("POST", "/auth/login", "", map[string]string{"email": email, "password": scalePassword}, 200)
}

// logIn logs in one user after the other.
func (n *scaleNode) logIn(users int) func(worker, i int) error {
	return func(worker, i int) error {
		_, err := n.logInAs(userName((worker*7919 + i*104729) % users))
		return err
	}
}

var signUps atomic.Int64

func (n *scaleNode) signUp(int, int) error {
	_, err := n.send(
		"POST", "/auth/signup", "",
		map[string]string{"email": fmt.Sprintf("new-%d@example.com", signUps.Add(1)), "password": scalePassword}, 201,
	)
	return err
}

// refreshing returns a function that refreshes sessions. Each worker has its own session.
func refreshing(nodes []*scaleNode, workers int) (func(worker, i int) error, error) {
	sessions := make([]scaleTokens, workers)
	for worker := range sessions {
		var err error
		if sessions[worker], err = nodes[0].logInAs(userName(worker)); err != nil {
			return nil, err
		}
	}
	return func(worker, i int) (err error) {
		sessions[worker], err = nodes[i%len(nodes)].send(
			"POST", "/auth/refresh", "", map[string]string{"refreshToken": sessions[worker].RefreshToken}, 200,
		)
		return err
	}, nil
}

func (s *scaleRun) usersFile() string { return filepath.Join(s.dir, "users.db") }

func (s *scaleRun) fileStore(ctx context.Context) error {
	if err := fillUsers(ctx, s.usersFile(), s.users); err != nil {
		return err
	}
	file, err := os.Stat(s.usersFile())
	if err != nil {
		return err
	}
	s.row(
		"size on the disk", "%.0f MB, %.0f bytes a user",
		float64(file.Size())/1e6, float64(file.Size())/float64(s.users),
	)
	if err := s.lookUps(ctx); err != nil {
		return err
	}
	began := time.Now()
	list := exec.CommandContext(
		ctx, "sh", "-c", `"$0" jwt user list --store "$1" --json | head -n 100 | wc -l`, s.caddy, s.usersFile(),
	)
	if output, err := list.Output(); err != nil || strings.TrimSpace(string(output)) != "100" {
		return fmt.Errorf("caddy jwt user list: %q, %w", output, err)
	}
	s.row(
		"caddy jwt user list, the first 100, with the start of the program",
		"%s", time.Since(began).Round(time.Millisecond),
	)
	node, err := s.start(ctx, "store file "+s.usersFile())
	if err != nil {
		return err
	}
	defer node.stop()
	rate, middle, err := perSecond(ctx, 4, s.seconds, node.logIn(s.users))
	if err != nil {
		return err
	}
	s.row("log-ins, 4 clients", "%.1f /s, median %s", rate, middle.Round(100*time.Microsecond))
	if rate, middle, err = perSecond(ctx, 4, s.seconds, node.signUp); err != nil {
		return err
	}
	s.row("sign-ups, 4 clients", "%.1f /s, median %s", rate, middle.Round(100*time.Microsecond))
	refresh, err := refreshing([]*scaleNode{node}, scaleWorkers)
	if err != nil {
		return err
	}
	if rate, middle, err = perSecond(ctx, scaleWorkers, s.seconds, refresh); err != nil {
		return err
	}
	s.row(
		fmt.Sprintf("refreshes, %d clients", scaleWorkers),
		"%.0f /s, median %s", rate, middle.Round(100*time.Microsecond),
	)
	return nil
}

// lookUps measures look-ups of users by e-mail address.
func (s *scaleRun) lookUps(ctx context.Context) (err error) {
	caddyContext, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer cancel()
	store := &filestore.Store{Path: s.usersFile()}
	if err := store.Provision(caddyContext); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Cleanup()) }()
	_, middle, err := perSecond(ctx, 1, s.seconds/scaleRounds, func(_, i int) error {
		_, err := store.UserByEmail(ctx, userName(i*104729%s.users))
		return err
	})
	s.row("look-up of a user by e-mail address", "median %s", middle.Round(time.Microsecond))
	return err
}
