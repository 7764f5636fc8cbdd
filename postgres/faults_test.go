package postgres_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// processes returns the processes of the server: the first is the postmaster.
func (s *server) processes() (pids []int) {
	s.t.Helper()
	text, err := os.ReadFile(s.dir + "/data/postmaster.pid")
	if err != nil {
		s.t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	children, err := os.ReadFile("/proc/" + first + "/task/" + first + "/children")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, field := range append([]string{first}, strings.Fields(string(children))...) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			s.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// refresher refreshes at a node, and at the next one if that does not respond.
type refresher struct {
	nodes []*node
	at    atomic.Int64
}

var refreshClient = &http.Client{Timeout: answerLimit, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}

func (r *refresher) use(kind int, token string) (got scenario.Answered) {
	url1 := r.nodes[int(r.at.Load())%len(r.nodes)].URL
	var request *http.Request
	switch kind {
	case byJSON:
		request, _ = http.NewRequest(
			http.MethodPost, url1+"/auth/refresh", strings.NewReader(`{"refreshToken":"`+token+`"}`),
		)
		request.Header.Set("Content-Type", "application/json")
	case byCookie:
		request, _ = http.NewRequest(http.MethodGet, url1+"/auth/whoami", nil)
		request.AddCookie(&http.Cookie{Name: "refresh", Value: token})
	case byOpenID:
		form := url.Values{"grant_type": {"refresh_token"}, "client_id": {"app"}, "refresh_token": {token}}
		request, _ = http.NewRequest(http.MethodPost, url1+"/oidc/token", strings.NewReader(form.Encode()))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := refreshClient.Do(request)
	if err == nil {
		defer response.Body.Close()
		got.Status = response.StatusCode
	}
	if got.Status != http.StatusOK {
		r.at.Add(1)
		return got
	}
	var given struct {
		Token, RefreshToken string
		AccessToken         string `json:"access_token"`
		Fresh               string `json:"refresh_token"`
	}
	if json.NewDecoder(response.Body).Decode(&given) != nil {
		return scenario.Answered{}
	}
	got.AccessToken, got.RefreshToken = given.Token+given.AccessToken, given.RefreshToken+given.Fresh
	for _, cookie := range response.Cookies() {
		switch cookie.Name {
		case "session":
			got.AccessToken = cookie.Value
		case "refresh":
			got.RefreshToken = cookie.Value
		}
	}
	return got
}

// Kinds of clients.
const (
	byJSON = iota
	byCookie
	byOpenID
	kinds
)

// PostgreSQL stops, crashes, ends connections and waits for a missing standby, and nodes are
// killed, while clients of two nodes refresh: with JSON, with cookies and at the OpenID Provider.
// If a client gets no response, it sends the same token again, to the other node.
func TestScenarioLostAnswers(t *testing.T) {
	seen := scenario.Promise(t, "clients that send the same token again, however long the fault: 0 sessions ended, "+
		"0 tokens of an answer refused")
	s := start(t)
	dsn := s.database("lost_answers")
	limits := ""
	if !scenario.Full() {
		limits = " connect_timeout=1 statement_timeout=1000" // so that the faults, which are longer, can be short
	}
	nodes := startNodes(t, 2, fmt.Sprintf(`oidc_provider {
		issuer http://localhost:1
		accounts {
			signup open
			store postgres %q
			throttle off
			hash_queue 1000
		}
		client app {
			public
			redirect_uri https://app.example/callback
			consent never
		}
	}`, dsn+limits))
	db, err := sql.Open("pgx", s.dsn("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	must := func(statement string) {
		t.Helper()
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}

	var first []scenario.Answered
	clients := scenario.Length(9, 24)
	v := newVisitor(t)
	if status, _, body := v.ask(nodes[0], "/auth/signup", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword},
	}); status != 303 {
		t.Fatalf("sign-up: %d %s", status, body)
	}
	for i := range clients {
		if i%kinds == byOpenID {
			first = append(first, openIDTokens(t, v, nodes[0]))
			continue
		}
		status, given := nodes[0].send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"))
		if status != 200 {
			t.Fatalf("log-in: %d %v", status, given)
		}
		first = append(first, scenario.Answered{
			AccessToken: given["token"].(string), RefreshToken: given["refreshToken"].(string),
		})
	}
	each := make([]*refresher, clients)
	for i := range each {
		each[i] = &refresher{nodes: nodes}
		each[i].at.Store(int64(i))
	}
	load := scenario.Refresh(first, 5*time.Millisecond, func(client int, token string) scenario.Answered {
		return each[client].use(client%kinds, token)
	})
	goesOn := func() {
		t.Helper()
		before, _ := load.GoOn(nil)
		sitetest.Eventually(t, "all clients refresh", func() bool { _, all := load.GoOn(before); return all })
	}
	// longer than each time-out, and the last with 10 seconds more
	long := scenario.Length(4*time.Second, 25*time.Second)
	goesOn()

	stopped := s.processes()
	for _, pid := range stopped {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	time.Sleep(long)
	for _, pid := range stopped {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	goesOn()

	must(`ALTER SYSTEM SET synchronous_standby_names = 's1'`)
	must(`SELECT pg_reload_conf()`)
	time.Sleep(max(long, 13*time.Second))
	must(`ALTER SYSTEM RESET synchronous_standby_names`)
	must(`SELECT pg_reload_conf()`)
	goesOn()

	crashes, terminated := scenario.Length(1, 6), scenario.Length(2, 4)
	for range crashes {
		s.restart()
		goesOn()
	}
	for range terminated {
		must(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'lost_answers'`)
		goesOn()
	}
	kills := scenario.Length(4, 35)
	for i := range kills {
		n := nodes[i%2]
		n.Kill()
		n.Start()
		n.mustAnswer()
		goesOn()
	}
	told := load.Finish(t, func(client int, token string) bool {
		path := "/auth/whoami"
		if client%kinds == byOpenID {
			path = "/oidc/userinfo"
		}
		status, _ := nodes[client%2].send("GET", path, token, nil)
		return status == 200
	})
	seen(
		"stopped for %s, a standby away for %s, %d × stop -m immediate, %d × all backends terminated, "+
			"%d × kill -9 of a node by turns",
		long, max(long, 13*time.Second), crashes, terminated, kills,
	)
	seen("%s", told)
}

// openIDTokens returns the tokens for a code.
func openIDTokens(t *testing.T, v *visitor, n *node) scenario.Answered {
	t.Helper()
	const verifier = "a-code-verifier-that-is-long-enough-for-rfc-7636"
	request := url.Values{
		"client_id": {"app"}, "redirect_uri": {"https://app.example/callback"},
		"response_type": {"code"}, "scope": {"openid"}, "state": {"x"},
		"code_challenge": {sitetest.Challenge(verifier)}, "code_challenge_method": {"S256"},
	}
	_, location, body := v.ask(n, "/oidc/authorize?"+request.Encode(), nil)
	_, _, text := v.ask(n, "/oidc/token", url.Values{
		"grant_type": {"authorization_code"}, "client_id": {"app"}, "code": {location.Query().Get("code")},
		"redirect_uri": {"https://app.example/callback"}, "code_verifier": {verifier},
	})
	var given struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.Unmarshal([]byte(text), &given); err != nil || given.RefreshToken == "" {
		t.Fatalf("no tokens: %s %s %s", location, body, text)
	}
	return scenario.Answered{AccessToken: given.AccessToken, RefreshToken: given.RefreshToken}
}
