package scenarios_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddy-jwt/caddy-jwt/store/sqlstore"
	"github.com/caddyserver/caddy/v2"
)

// Caddy is killed repeatedly while users sign up: no user whose sign-up was acknowledged is lost.
func TestScenarioKilledDuringSignUps(t *testing.T) {
	seen := scenario.Promise(t, "no acknowledged user lost; answers again within 2 s")
	dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
	var mu sync.Mutex
	var acknowledged []string
	kills := scenario.Length(4, 100)
	var slowest time.Duration // of the starts; the first makes the store and its keys
	for round := range kills {
		began := time.Now()
		p := sitetest.StartAccounts(t, dir, address)
		if round > 0 {
			slowest = max(slowest, time.Since(began))
		}
		var all sync.WaitGroup
		for worker := range 4 {
			all.Go(func() {
				for i := 0; ; i++ {
					email := fmt.Sprintf("user-%d-%d-%d@example.com", round, worker, i)
					status, err := p.TrySignUp(email)
					if err != nil {
						return // killed
					}
					if status != 201 {
						t.Errorf("status %d", status)
						return
					}
					mu.Lock()
					acknowledged = append(acknowledged, email)
					mu.Unlock()
				}
			})
		}
		mu.Lock()
		before := len(acknowledged)
		mu.Unlock()
		sitetest.Eventually(t, "some have signed up", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acknowledged) >= before+10
		})
		p.Kill()
		all.Wait()
	}
	p := sitetest.StartAccounts(t, dir, address)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "users.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	lost := 0
	for _, email := range acknowledged {
		var id string
		if err := db.QueryRow(`SELECT id FROM users WHERE email_key = $1`, email).Scan(&id); err != nil {
			t.Errorf("%s is lost: %v", email, err)
			lost++
		}
	}
	var check string
	if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&check); err != nil || check != "ok" {
		t.Errorf("integrity check: %s %v", check, err)
	}
	p.MustAnswer(
		200, p.Post("/auth/login", sitetest.CredentialsOf(acknowledged[len(acknowledged)-1])), "the last one logs in",
	)
	if scenario.Full() && slowest > 2*time.Second {
		t.Errorf("a start took %s", slowest)
	}
	seen(
		"killed %d times: %d sign-ups acknowledged, %d lost; the file is whole: %s; slowest start %s",
		kills, len(acknowledged), lost, check, slowest.Round(time.Millisecond),
	)
}

// Caddy is killed repeatedly while clients refresh, half of them with cookies: each continues
// with its token. The same holds for two processes that share the file and are killed in turn.
func TestScenarioKilledDuringRefreshes(t *testing.T) {
	seen := scenario.Promise(
		t, "clients that send the same token again: 0 sessions ended, 0 tokens of an answer refused",
	)
	for _, number := range []int{1, 2} {
		var processes []*sitetest.Process
		dir := sitetest.TempDir(t)
		if err := os.Mkdir(filepath.Join(dir, "storage"), 0o700); err != nil {
			t.Fatal(err)
		}
		body := sitetest.AccountsBody(filepath.Join(dir, "users.db"), "throttle off\n hash_queue 1000")
		for range number {
			own := sitetest.TempDir(t)
			if err := os.Symlink(filepath.Join(dir, "storage"), filepath.Join(own, "storage")); err != nil {
				t.Fatal(err)
			}
			processes = append(processes, sitetest.StartProcess(t, own, sitetest.FreeAddress(t), body))
		}
		first := processes[0]
		first.SignedUp("alice@example.com")
		var given []scenario.Answered
		for range 16 {
			got := first.LoggedIn("alice@example.com")
			given = append(given, scenario.Answered{AccessToken: got.Token, RefreshToken: got.RefreshToken})
		}
		var urls []string
		for _, p := range processes {
			urls = append(urls, p.URL)
		}
		var requests atomic.Int64
		clients := scenario.Refresh(given, 5*time.Millisecond, func(client int, token string) scenario.Answered {
			return sitetest.RefreshAt(urls[requests.Add(1)%int64(number)], client%2 == 1, token)
		})
		kills := scenario.Length(4, 35)
		for i := range kills {
			before, _ := clients.GoOn(nil)
			sitetest.Eventually(t, "all clients refresh", func() bool { _, all := clients.GoOn(before); return all })
			p := processes[i%number]
			p.Kill()
			processes[i%number] = sitetest.StartProcess(t, p.Dir, strings.TrimPrefix(p.URL, "http://"), body)
		}
		told := clients.Finish(t, func(_ int, token string) bool {
			return processes[0].Bearer("/todos/", token).Status == 200
		})
		seen("%d processes, killed %d times: %s", number, kills, told)
	}
}

// Revoked sessions stay revoked after a restart, from the first request on.
func TestRevokedAcrossRestarts(t *testing.T) {
	dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
	p := sitetest.StartAccounts(t, dir, address)
	ended := p.SignedUp("alice@example.com")
	kept := p.LoggedIn("alice@example.com")
	p.MustAnswer(204, p.Send("POST", "/auth/logout", "", "Authorization: Bearer "+ended.Token), "log-out")
	p.Kill()
	p = sitetest.StartAccounts(t, dir, address)
	p.MustAnswer(401, p.Bearer("/todos/", ended.Token), "the session that was ended")
	p.MustAnswer(200, p.Bearer("/todos/", kept.Token), "control: another one")
}

// A sign-up is on the disk before the client gets the response.
func TestSignUpIsOnDiskBeforeItIsAcknowledged(t *testing.T) {
	caddytest.Needs(t, "strace")
	dir := sitetest.TempDir(t)
	trace := filepath.Join(dir, "trace")
	p := sitetest.StartAccounts(
		t, dir, sitetest.FreeAddress(t), "strace", "-f", "-y",
		"-e", "trace=fsync,fdatasync,write,pwrite64", "-s", "64", "-o", trace,
	)
	for i := range 3 {
		if status, err := p.TrySignUp(fmt.Sprintf("user%d@example.com", i)); err != nil || status != 201 {
			t.Fatal(status, err)
		}
	}
	p.Kill()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	written, synced := regexp.MustCompile(`pwrite64\(\d+<[^>]*users\.db-wal>`), regexp.MustCompile(
		`(fsync|fdatasync)\(\d+<[^>]*users\.db-wal>`,
	)
	answers, onDisk := 0, false
	for line := range strings.Lines(string(text)) {
		switch {
		case synced.MatchString(line):
			onDisk = true
		case written.MatchString(line):
			onDisk = false
		case strings.Contains(line, `"HTTP/1.1 201 Created`):
			answers++
			if !onDisk {
				t.Errorf("answer %d was written before the disk had it", answers)
			}
			onDisk = false
		}
	}
	if answers != 3 {
		t.Errorf("%d answers in the trace, expected 3", answers)
	}
}

// The store is damaged, missing or unreachable: the response and the log line are clear, tokens are
// still verified, and afterwards everything works again.
func TestStoreFailures(t *testing.T) {
	t.Run("deleted while it is used", func(t *testing.T) {
		file := filepath.Join(sitetest.TempDir(t), "users.db")
		s := sitetest.Serve(t, sitetest.AccountsBody(file, ""))
		got := s.SignedUp("alice@example.com")
		if err := os.Rename(file, file+".away"); err != nil {
			t.Fatal(err)
		}
		s.MustAnswer(503, s.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "sign-up")
		s.MustAnswer(200, s.Bearer("/todos/", got.Token), "verification goes on")
		if !strings.Contains(s.Log(), "the file no longer exists; restart Caddy") {
			t.Errorf("the log does not say so:\n%s", s.Log())
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.MustAnswer(
			503, s.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "another file in its place",
		)
		if err := os.Rename(file+".away", file); err != nil {
			t.Fatal(err)
		}
		s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "it is back")
	})
	t.Run("away while a session is to be renewed", func(t *testing.T) {
		file := filepath.Join(sitetest.TempDir(t), "users.db")
		s := sitetest.Serve(t, sitetest.AccountsBody(file, "token_lifetime 1s"))
		chrome := sitetest.Browser(t)
		s.MustAnswer(303, s.Form(chrome, "/auth/signup", sitetest.FormOf("alice@example.com")), "sign-up")
		if err := os.Rename(file, file+".away"); err != nil {
			t.Fatal(err)
		}
		sitetest.Eventually(t, "a browser is told so, and not sent to log in again", func() bool {
			return s.Form(chrome, "/todos/", nil).Status == 503
		})
		if err := os.Rename(file+".away", file); err != nil {
			t.Fatal(err)
		}
		sitetest.Eventually(t, "it is still logged in", func() bool {
			return s.Form(chrome, "/todos/", nil).Status == 200
		})
	})
	t.Run("damaged", func(t *testing.T) {
		file := filepath.Join(sitetest.TempDir(t), "users.db")
		if err := os.WriteFile(file, bytes.Repeat([]byte("damaged "), 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		s := sitetest.Serve(t, sitetest.AccountsBody(file, ""))
		got := s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"))
		s.MustAnswer(503, got, "sign-up")
		if got.Header.Get("Retry-After") == "" || got.ErrorBody(t).Error.Code != "store_unavailable" {
			t.Errorf("answer %v %s", got.Header, got.Body)
		}
		if !strings.Contains(s.Log(), "the file is corrupt; restore a backup") {
			t.Error("the log does not say what is wrong")
		}
	})
	t.Run("of a newer program", func(t *testing.T) {
		file := filepath.Join(sitetest.TempDir(t), "users.db")
		sitetest.Serve(t, sitetest.AccountsBody(file, "")).Load("respond ok", sitetest.TempDir(t))
		db, err := sql.Open("sqlite", file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(`UPDATE schema_version SET version = 99`); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if got := sitetest.StartError(t, sitetest.AccountsBody(file, "")); !strings.Contains(
			got, "created by a newer program: its schema has version 99, this program supports",
		) {
			t.Errorf("error %s", got)
		}
	})
	t.Run("out of reach, and back", func(t *testing.T) {
		s := sitetest.AccountsSite(t, "")
		got := s.SignedUp("alice@example.com")
		users := accountstest.StoreOf(t).(*filestore.Store)
		var broken atomic.Bool
		var wrapped store.UserStore = &sqlstore.Store{
			Explain: users.Explain, Connect: func(ctx context.Context) (*sql.DB, *sql.DB, error) {
				if broken.Load() {
					return nil, nil, errors.New("unplugged")
				}
				return users.Connect(ctx)
			},
		}
		accountstest.ServiceOf(t).AddStore(&wrapped)
		broken.Store(true)
		for name, answer := range map[string]sitetest.Reply{
			"sign-up":  s.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")),
			"log-in":   s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")),
			"who-am-I": s.Bearer("/auth/whoami", got.Token),
			"refresh":  s.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}),
			"log-out":  s.Send("POST", "/auth/logout", "", "Authorization: Bearer "+got.Token),
		} {
			s.MustAnswer(503, answer, name)
		}
		s.MustAnswer(200, s.Bearer("/todos/", got.Token), "verification goes on")
		broken.Store(false)
		s.MustAnswer(
			200, s.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}),
			"the refresh token was not used up",
		)
	})
}

// The disk is full: a sign-up is refused completely, tokens are still verified, and when there is
// space again, everything works again.
func TestScenarioDiskFull(t *testing.T) {
	seen := scenario.Promise(t, "507 or 503, never a 201 that is lost; verification goes on; recovers")
	dir := sitetest.TempDir(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		caddytest.Missing(t, "leave to mount a small tmpfs")
	}
	scenario.Ends(t, `umount -l "$1" 2>/dev/null`, dir)
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := sitetest.Serve(t, sitetest.AccountsBody(filepath.Join(dir, "users.db"), "throttle off"))
	got := s.SignedUp("alice@example.com")
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	statuses, verified := make(map[int]int), 0
	var kept []string
	for i := range 40 {
		email := fmt.Sprintf("user%d@example.com", i)
		answer := s.Post("/auth/signup", sitetest.CredentialsOf(email))
		statuses[answer.Status]++
		if answer.Status == 201 {
			kept = append(kept, email)
		}
		if answer := s.Bearer("/todos/", got.Token); answer.Status == 200 {
			verified++
		} else {
			t.Errorf("verification: %d", answer.Status)
		}
	}
	if statuses[507] == 0 || statuses[201]+statuses[507]+statuses[503] != 40 {
		t.Errorf("answers of a full disk: %v", statuses)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("later@example.com")), "with room again")
	for _, email := range append(kept, "alice@example.com") {
		s.MustAnswer(200, s.Post("/auth/login", sitetest.CredentialsOf(email)), email+" is still there")
	}
	seen(
		"sign-ups on a full disk: %d × 201, %d × 507, %d × 503; %d of 40 tokens verified",
		statuses[201], statuses[507], statuses[503], verified,
	)
	seen("with room again a sign-up is made, and all %d acknowledged users log in", len(kept)+1)
}

// fill writes until no space is left.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for {
		if _, err := file.Write(make([]byte, 512)); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// Nodes with the same storage share its key sets: a node that starts while the identity provider
// is down knows the keys that the others have fetched.
func TestTwoNodesShareKeySets(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	body := sitetest.JWKSBody(p, "refresh 1h\n cooldown 100ms")
	dir := sitetest.TempDir(t)
	a := sitetest.StartProcess(t, dir, sitetest.FreeAddress(t), body)
	token := sitetest.SignRS(t, keys.RSA, "a")
	sitetest.Eventually(t, "the first node has the keys", func() bool { return a.Bearer("/api/", token).Status == 200 })
	p.SetAnswer(500, "away")
	b := sitetest.StartProcess(t, dir, sitetest.FreeAddress(t), body)
	b.MustAnswer(200, b.Bearer("/api/", token), "the second node's first request")
	b.MustAnswer(401, b.Bearer("/api/", sitetest.SignRS(t, keys.StrangerRSA, "a")), "control: a stranger's key")
	c := sitetest.StartProcess(t, sitetest.TempDir(t), sitetest.FreeAddress(t), body)
	c.MustAnswer(503, c.Bearer("/api/", token), "control: a node with another storage")

	// If one of them fetches a new key, the next one finds it in the storage.
	p.SetKeys(
		sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}),
		sitetest.JWK(t, keys.StrangerRSA, sitetest.JSON{"kid": "b"}),
	)
	fresh := sitetest.SignRS(t, keys.StrangerRSA, "b")
	sitetest.Eventually(t, "one node has the new key", func() bool { return a.Bearer("/api/", fresh).Status == 200 })
	p.SetAnswer(500, "away")
	d := sitetest.StartProcess(t, dir, sitetest.FreeAddress(t), body)
	d.MustAnswer(200, d.Bearer("/api/", fresh), "a node that starts then")
}

// The files of a store are removed, replaced, truncated or partly copied: no change is
// acknowledged that would be lost, and no new, empty store replaces the previous one.
func TestStoreFilesTakenAway(t *testing.T) {
	for _, name := range []string{"-wal", "-shm", "-wal and -shm"} {
		for how, take := range map[string]func(path string) error{
			"removed": os.Remove,
			"replaced": func(path string) error {
				return errors.Join(os.Rename(path, path+".away"), os.WriteFile(path, nil, 0o600))
			},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
				file := filepath.Join(dir, "users.db")
				p := sitetest.StartAccounts(t, dir, address)
				before := p.SignedUp("before@example.com")
				for _, suffix := range strings.Split(name, " and ") {
					if err := take(file + suffix); err != nil {
						t.Fatal(err)
					}
				}
				for range 3 {
					p.MustAnswer(503, p.Post("/auth/signup", sitetest.CredentialsOf("after@example.com")), "a sign-up")
					p.MustAnswer(
						503, p.Post("/auth/refresh", sitetest.JSON{"refreshToken": before.RefreshToken}), "a refresh",
					)
				}
				p.MustAnswer(200, p.Bearer("/todos/", before.Token), "verification goes on")
				if log := p.Log(); !strings.Contains(log, "users.db"+name[:4]) ||
					!strings.Contains(log, "start Caddy") && !strings.Contains(log, "restart Caddy") {
					t.Errorf("the log does not say what to do: %s", log)
				}
				p.Kill()
				if how == "replaced" {
					return // the operator must restore the previous file
				}
				p = sitetest.StartAccounts(t, dir, address)
				p.MustAnswer(
					200, p.Post("/auth/login", sitetest.CredentialsOf("before@example.com")),
					"who was acknowledged before",
				)
				p.MustAnswer(401, p.Post("/auth/login", sitetest.CredentialsOf("after@example.com")), "who was not")
			})
		}
	}
	t.Run("0 bytes", func(t *testing.T) {
		dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
		file := filepath.Join(dir, "users.db")
		p := sitetest.StartAccounts(t, dir, address)
		token := p.SignedUp("alice@example.com").Token
		p.Kill()
		for _, suffix := range []string{"-wal", "-shm"} {
			if err := os.Remove(file + suffix); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
		p = sitetest.StartAccounts(t, dir, address)
		p.MustAnswer(503, p.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "a sign-up")
		p.MustAnswer(200, p.Bearer("/todos/", token), "a token")
		if !strings.Contains(p.Log(), "the file is empty") {
			t.Error("the log does not say so")
		}
		if info, err := os.Stat(file); err != nil || info.Size() != 0 {
			t.Errorf("it was written: %v %v", info, err)
		}
	})
	t.Run("not there", func(t *testing.T) {
		dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
		file := filepath.Join(dir, "users.db")
		p := sitetest.StartAccounts(t, dir, address)
		token := p.SignedUp("alice@example.com").Token
		p.Kill()
		if err := os.Mkdir(filepath.Join(dir, "away"), 0o700); err != nil {
			t.Fatal(err)
		}
		move := func(from, to string) {
			t.Helper()
			for _, suffix := range []string{"", "-wal", "-shm"} {
				if err := os.Rename(
					filepath.Join(from, "users.db"+suffix), filepath.Join(to, "users.db"+suffix),
				); err != nil {
					t.Fatal(err)
				}
			}
		}
		move(dir, filepath.Join(dir, "away"))
		p = sitetest.StartAccounts(t, dir, address)
		p.MustAnswer(503, p.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "a sign-up")
		p.MustAnswer(200, p.Bearer("/todos/", token), "a token")
		if !strings.Contains(p.Log(), "keys that sign tokens of its users are in Caddy's storage") {
			t.Error("the log does not say why")
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a new one was made: %v", err)
		}
		move(filepath.Join(dir, "away"), dir)
		sitetest.Eventually(t, "it is back", func() bool {
			return p.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")).Status == 200
		})
	})
	t.Run("-wal removed, put back, and removed again", func(t *testing.T) {
		dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
		wal := filepath.Join(dir, "users.db-wal")
		p := sitetest.StartAccounts(t, dir, address)
		p.SignedUp("first@example.com")
		if err := os.Rename(wal, wal+".away"); err != nil {
			t.Fatal(err)
		}
		p.MustAnswer(503, p.Post("/auth/signup", sitetest.CredentialsOf("refused@example.com")), "control")
		if err := os.Rename(wal+".away", wal); err != nil {
			t.Fatal(err)
		}
		p.SignedUp("second@example.com")
		if err := os.Remove(wal); err != nil {
			t.Fatal(err)
		}
		p.MustAnswer(503, p.Post("/auth/signup", sitetest.CredentialsOf("refused@example.com")), "removed again")
		p.Kill()
		p = sitetest.StartAccounts(t, dir, address)
		for _, email := range []string{"first@example.com", "second@example.com"} {
			p.MustAnswer(200, p.Post("/auth/login", sitetest.CredentialsOf(email)), email+" was acknowledged")
		}
	})
	t.Run("-wal removed, and made anew by another process", func(t *testing.T) {
		dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
		file := filepath.Join(dir, "users.db")
		p := sitetest.StartAccounts(t, dir, address)
		acknowledged := []string{"first@example.com", "second@example.com", "third@example.com"}
		for _, email := range acknowledged {
			p.SignedUp(email)
		}
		if err := errors.Join(os.Remove(file+"-wal"), os.WriteFile(file+"-wal", nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		p.MustAnswer(503, p.Post("/auth/signup", sitetest.CredentialsOf("refused@example.com")), "control")
		rescued, err := filepath.Glob(file + "-rescued-*")
		if err != nil || len(rescued) != 1 || !strings.Contains(p.Log(), rescued[0]) {
			t.Fatalf("rescued: %v %v; the log must name it", rescued, err)
		}
		if info, err := os.Stat(rescued[0]); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("others may read it: %v %v", info, err)
		}
		p.Kill()
		if err := errors.Join(
			os.Remove(file), os.Remove(file+"-wal"), os.Remove(file+"-shm"), os.Rename(rescued[0], file),
		); err != nil {
			t.Fatal(err)
		}
		p = sitetest.StartAccounts(t, dir, address)
		for _, email := range acknowledged {
			p.MustAnswer(200, p.Post("/auth/login", sitetest.CredentialsOf(email)), email+" was acknowledged")
		}
	})
	t.Run("an old copy, made without its -wal", func(t *testing.T) {
		dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
		file := filepath.Join(dir, "users.db")
		p := sitetest.StartAccounts(t, dir, address)
		kept := p.SignedUp("kept@example.com")
		db, err := sql.Open("sqlite", file)
		if err == nil {
			_, err = db.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
		}
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		p.SignedUp("newer@example.com")
		copied, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		p.Kill()
		if err := errors.Join(
			os.WriteFile(file, copied, 0o600), os.Remove(file+"-wal"), os.Remove(file+"-shm"),
		); err != nil {
			t.Fatal(err)
		}
		p = sitetest.StartAccounts(t, dir, address)
		p.MustAnswer(200, p.Post("/auth/login", sitetest.CredentialsOf("kept@example.com")), "who is in the copy")
		p.MustAnswer(
			200, p.Post("/auth/refresh", sitetest.JSON{"refreshToken": kept.RefreshToken}),
			"a session that is in the copy",
		)
		p.MustAnswer(401, p.Post("/auth/login", sitetest.CredentialsOf("newer@example.com")), "who is not")
		p.MustAnswer(201, p.Post("/auth/signup", sitetest.CredentialsOf("newer@example.com")), "and can sign up again")
	})
	t.Run("a copy without its -wal", func(t *testing.T) {
		dir := sitetest.TempDir(t)
		p := sitetest.StartAccounts(t, dir, sitetest.FreeAddress(t))
		// its tables are only in its -wal file
		db, err := sql.Open("sqlite", filepath.Join(dir, "another.db")+"?_pragma=journal_mode(WAL)")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := sqlstore.Migrate(t.Context(), db, ""); err != nil {
			t.Fatal(err)
		}
		p.Kill()
		text, err := os.ReadFile(filepath.Join(dir, "another.db"))
		if err != nil || len(text) == 0 {
			t.Fatal(len(text), err)
		}
		if err := os.WriteFile(filepath.Join(dir, "users.db"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{"-wal", "-shm"} {
			_ = os.Remove(filepath.Join(dir, "users.db"+suffix))
		}
		p = sitetest.StartAccounts(t, dir, sitetest.FreeAddress(t))
		p.MustAnswer(503, p.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "a sign-up")
		if !strings.Contains(p.Log(), "it was copied without its -wal file") {
			t.Errorf("the log does not say what it is: %s", p.Log())
		}
	})
}

// A reload to a store that cannot be opened is refused, and the previous config keeps running. A
// start is not refused, and neither is a reload with the same store.
func TestReloadToAStoreThatFails(t *testing.T) {
	file, broken := filepath.Join(sitetest.TempDir(t), "users.db"), filepath.Join(sitetest.TempDir(t), "no-folder")
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	storage := sitetest.TempDir(t)
	s := sitetest.Serve(t, "respond ok")
	s.Load(sitetest.AccountsBody(file, ""), storage)
	got := s.SignedUp("alice@example.com")
	tryLoad := func(body string) error {
		config, err := sitetest.AdaptCaddyfile(t, body, strings.TrimPrefix(s.URL, "http://"), storage, s.LogFile)
		if err == nil {
			err = caddy.Load(config, true)
			http.DefaultClient.CloseIdleConnections()
		}
		return err
	}
	for range 2 {
		err := tryLoad(sitetest.AccountsBody(filepath.Join(broken, "users.db"), ""))
		if err == nil || !strings.Contains(err.Error(), "the new config has a user store that cannot be opened") {
			t.Errorf("a reload to a store that cannot be opened: %v", err)
		}
		s.MustAnswer(200, s.Bearer("/todos/", got.Token), "a token of before")
		got = s.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}).Tokens(t)
	}

	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	if err := tryLoad(sitetest.AccountsBody(file, "token_lifetime 5m")); err != nil {
		t.Errorf("a reload while the store fails that runs: %v", err)
	}
	s.MustAnswer(503, s.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "control: it fails")
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	s.MustAnswer(200, s.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}), "it is back")

	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := tryLoad(sitetest.AccountsBody(filepath.Join(broken, "users.db"), "")); err != nil {
		t.Errorf("a start is refused: %v", err)
	}
	s.MustAnswer(
		503, s.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "a start with a store that fails",
	)
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	sitetest.Eventually(t, "it works when the store can be opened", func() bool {
		return s.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")).Status == 201
	})
}
