package docs_test

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/opstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"go.yaml.in/yaml/v3"
)

// The sections of docs/operations.md with commands, and the test that runs them.
var operationSections = map[string]string{
	"Backing up the file":      "TestOperationsFile",
	"Damaged user store":       "TestOperationsFile",
	"Lost signing keys":        "TestOperationsFile",
	"Replacing signing keys":   "TestOperationsFile",
	"Backing up PostgreSQL":    "postgres: TestOperationsBackup",
	"Lost PostgreSQL":          "postgres: TestOperationsBackup",
	"From one node to several": "postgres: TestOperationsSeveralNodes",
}

func TestOperationsSections(t *testing.T) {
	typed, found := slices.Sorted(maps.Keys(operationSections)), slices.Sorted(maps.Keys(opstest.Sections(t, ".")))
	if !slices.Equal(typed, found) {
		t.Errorf("the page has commands under %q, and tests type those under %q", found, typed)
	}
}

// broken matches where a text continues in the next line of the source.
var broken = regexp.MustCompile(`"\s*\+\s*"`)

// sourceText returns the program's source, with each text joined to one line.
func sourceText(t testing.TB) string {
	t.Helper()
	var code strings.Builder
	for _, path := range caddytest.Sources(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	return broken.ReplaceAllString(code.String(), "")
}

// The messages and alerts that the page names exist.
func TestOperationsNames(t *testing.T) {
	page, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	code := sourceText(t)
	rows := regexp.MustCompile("(?m)^\\| (?:error|warn) \\| `([^`]+)` \\|(.*)$").FindAllStringSubmatch(string(page), -1)
	if len(rows) < 10 {
		t.Errorf("control: only %d rows of log lines are found", len(rows))
	}
	for _, row := range rows {
		messages := []string{row[1]}
		if other := regexp.MustCompile("`([^`]+)`").FindStringSubmatch(row[2]); other != nil {
			messages = append(messages, other[1])
		}
		for _, message := range messages {
			if !strings.Contains(code, `"`+message+`"`) {
				t.Errorf("nothing logs %q", message)
			}
		}
	}
	for _, rule := range alertRules(t) {
		if !strings.Contains(string(page), "`"+rule.Alert+"`") {
			t.Errorf("the page does not say what to do about %s", rule.Alert)
		}
	}
}

// Users who sign up constantly, until stopped; each is reported when the sign-up is acknowledged.
type arrivals struct {
	mu   sync.Mutex
	who  []string
	stop func()
}

func arrive(t *testing.T, s *sitetest.Site) *arrivals {
	a, ended := new(arrivals), make(chan struct{})
	var all sync.WaitGroup
	for worker := range 2 {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-ended:
					return
				default:
				}
				email := fmt.Sprintf("arrival-%d-%d@example.com", worker, i)
				if got := s.Post("/auth/signup", sitetest.CredentialsOf(email)); got.Status == 201 {
					a.mu.Lock()
					a.who = append(a.who, email)
					a.mu.Unlock()
				}
			}
		})
	}
	a.stop = sync.OnceFunc(func() { close(ended); all.Wait() })
	t.Cleanup(a.stop)
	return a
}

func (a *arrivals) soFar() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.who)
}

// The page's commands for the file store and the keys work while users sign up.
func TestOperationsFile(t *testing.T) {
	caddytest.Needs(t, "bash", "curl", "sqlite3", "tar")
	binary := caddytest.Binary(t)
	host := opstest.NewHost(t, binary, ".")
	host.Write(
		"Caddyfile", "",
		"jwt /todos/* {\n accounts {\n signup open\n throttle off\n hash_queue 1000\n}\n}\n respond /todos/* ok",
	)
	host.Shell("systemctl start caddy")
	s := &sitetest.Site{T: t, URL: host.URL}
	const unused, refreshed, loggedOut = "unused@example.com", "refreshed@example.com", "logged-out@example.com"
	given := make(map[string]sitetest.Tokens)
	for _, email := range []string{unused, refreshed, loggedOut} {
		given[email] = s.SignedUp(email)
	}
	refresh := func(token string) sitetest.Reply {
		return s.Post("/auth/refresh", sitetest.JSON{"refreshToken": token})
	}
	store := host.Path("/var/lib/caddy/.local/share/caddy/jwt/users.db")

	arriving := arrive(t, s)
	sitetest.Eventually(t, "users sign up", func() bool { return len(arriving.soFar()) > 3 })
	acknowledged := arriving.soFar()
	listed := host.Type("Backing up the file", 0, 1)
	sitetest.Eventually(t, "users sign up after the backup", func() bool {
		return len(arriving.soFar()) > len(acknowledged)+8
	})
	arriving.stop()
	accountstest.Has(t, listed, "ok\n", unused)
	printed := host.Type("Backing up the file", 2) // with Caddy stopped
	accountstest.Has(t, printed, fmt.Sprintf("users: %d rows, the same in both", 3+len(arriving.soFar())))

	renewed := refresh(given[refreshed].RefreshToken).Tokens(t)
	s.MustAnswer(204, s.Post("/auth/logout", nil, "Authorization: Bearer "+given[loggedOut].Token), "log-out")
	const late = "late@example.com"
	lateTokens := s.SignedUp(late)

	file, err := os.OpenFile(store, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(bytes.Repeat([]byte("damaged "), 4096), 0); err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	host.Type("Damaged user store")
	for _, email := range append(acknowledged, unused, refreshed, loggedOut) {
		s.MustAnswer(200, s.Post("/auth/login", sitetest.CredentialsOf(email)), email+" logs in after the restore")
	}
	s.MustAnswer(401, s.Post("/auth/login", sitetest.CredentialsOf(late)), "who signed up after the backup")
	s.MustAnswer(200, s.Bearer("/todos/", lateTokens.Token), "their access token, until it expires")
	s.MustAnswer(401, s.Bearer("/auth/whoami", lateTokens.Token), "their access token where the user is looked up")
	s.MustAnswer(200, s.Bearer("/todos/", given[unused].Token), "a token of before the backup")
	s.MustAnswer(200, refresh(given[unused].RefreshToken), "a session that was not used since")
	s.MustAnswer(401, refresh(renewed.RefreshToken), "one that was refreshed since")
	s.MustAnswer(200, s.Bearer("/todos/", given[loggedOut].Token), "a session that ended since is back")
	s.MustAnswer(200, refresh(given[loggedOut].RefreshToken), "its refresh token too")

	before := s.LoggedIn(unused)
	host.Shell("rm -r /var/lib/caddy/.local/share/caddy/jwt/signing_keys; systemctl restart caddy")
	s.MustAnswer(401, s.Bearer("/todos/", before.Token), "a token of the lost key")
	renewed = refresh(before.RefreshToken).Tokens(t)
	s.MustAnswer(200, s.Bearer("/todos/", renewed.Token), "a token of the new key")
	host.Type("Lost signing keys")
	s.MustAnswer(200, s.Bearer("/todos/", before.Token), "a token of the key that is back")

	before = s.LoggedIn(unused)
	accountstest.Has(t, host.Type("Replacing signing keys", 0), "signs\n", " signs from 20")
	s.MustAnswer(200, s.Bearer("/todos/", before.Token), "a token of the key before")
	// sooner than 45 seconds
	host.Shell("caddy jwt keys rotate --lead 0 --config /etc/caddy/Caddyfile; systemctl restart caddy")
	keyOf := func(token string) string { header, _, _ := strings.Cut(token, "."); return header }
	if keyOf(s.LoggedIn(unused).Token) == keyOf(before.Token) {
		t.Error("after a rotation the key before signs")
	}
	s.MustAnswer(200, s.Bearer("/todos/", before.Token), "a token of the key before, when the new one signs")
	host.Type("Replacing signing keys", 1)
	s.MustAnswer(401, s.Bearer("/todos/", before.Token), "a token of the key that leaked")
	s.MustAnswer(
		200, s.Bearer("/todos/", refresh(before.RefreshToken).Tokens(t).Token), "its user, by the refresh token",
	)
}

type alertRule struct{ Alert, Expr string }

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	text, err := os.ReadFile("docs/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []alertRule } }
	if err := yaml.Unmarshal(text, &file); err != nil || len(file.Groups) == 0 {
		t.Fatalf("docs/alerts.yaml: %v", err)
	}
	return file.Groups[0].Rules
}

// dashboardQueries returns all queries of the dashboard.
func dashboardQueries(t *testing.T) (queries []string) {
	t.Helper()
	text, err := os.ReadFile("docs/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct {
				Name, Type, Definition string
			}
		}
	}
	if err := stdjson.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := ""
	for _, variable := range dashboard.Templating.List {
		variables += variable.Name + " " + variable.Type + "\n"
		if inner, ok := strings.CutPrefix(variable.Definition, "label_values("); ok {
			metric, _, _ := strings.Cut(inner, ",")
			queries = append(queries, metric)
		}
	}
	accountstest.Has(t, variables, "datasource datasource", "instance query")
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries = append(queries, target.Expr)
		}
	}
	return queries
}

// series returns the label values of a scrape, by metric and label.
type series map[string]map[string][]string

var (
	sampleLine   = regexp.MustCompile(`(?m)^(\w+)(?:\{(.*)\})? \S+$`)
	labelPair    = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"((?:[^"\\]|\\.)*)"`)
	grouping     = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left)\s*\(([^)]*)\)`)
	timeRange    = regexp.MustCompile(`\[[^\]]*\]`)
	promSelector = regexp.MustCompile(`\b([a-zA-Z_][\w:]*)\s*(\{[^}]*\}|\()?`)
)

func scrape(t *testing.T, s *sitetest.Site) series {
	t.Helper()
	found := make(series)
	for _, sample := range sampleLine.FindAllStringSubmatch(s.Get("/metrics").Body, -1) {
		if found[sample[1]] == nil {
			found[sample[1]] = map[string][]string{"instance": nil, "job": nil} // Prometheus adds these
		}
		for _, pair := range labelPair.FindAllStringSubmatch(sample[2], -1) {
			found[sample[1]][pair[1]] = append(found[sample[1]][pair[1]], pair[3])
		}
	}
	return found
}

// complaints returns the names in a query that no scrape has.
func (found series) complaints(query string) (wrong []string) {
	var grouped []string
	for _, labels := range grouping.FindAllStringSubmatch(query, -1) {
		for label := range strings.SplitSeq(labels[1], ",") {
			grouped = append(grouped, strings.TrimSpace(label))
		}
	}
	rest := timeRange.ReplaceAllString(grouping.ReplaceAllString(query, " "), " ")
	metrics := 0
	for _, selector := range promSelector.FindAllStringSubmatch(rest, -1) {
		name, braces := selector[1], selector[2]
		if braces == "(" || slices.Contains([]string{"and", "or", "unless", "bool", "offset"}, name) {
			continue
		}
		metrics++
		labels, known := found[name]
		if !known {
			wrong = append(wrong, "there is no metric "+name)
			continue
		}
		for _, label := range grouped {
			if _, known := labels[label]; !known {
				wrong = append(wrong, name+" has no label "+label)
			}
		}
		for _, pair := range labelPair.FindAllStringSubmatch(braces, -1) {
			label, values := pair[1], []string{pair[3]}
			if _, known := labels[label]; !known {
				wrong = append(wrong, name+" has no label "+label)
				continue
			}
			if strings.HasPrefix(pair[3], "$") {
				continue // a variable of the dashboard
			}
			if strings.HasSuffix(pair[2], "~") {
				values = strings.Split(pair[3], "|")
			}
			for _, value := range values {
				if !slices.ContainsFunc(labels[label], regexp.MustCompile("^(?:"+value+")$").MatchString) {
					wrong = append(wrong, fmt.Sprintf("no %s has %s=%q", name, label, value))
				}
			}
		}
	}
	if metrics == 0 {
		wrong = append(wrong, "it names no metric")
	}
	return wrong
}

// A site has every metric, label and value that the dashboard and the alert rules name.
func TestOperationsMetrics(t *testing.T) {
	provider := sitetest.NewIdentityProvider(t, sitetest.JWK(t, sitetest.Keys().RSA, sitetest.JSON{"kid": "a"}))
	s := sitetest.Serve(t, "metrics\n----------\n"+`
		metrics /metrics
		jwt /api/* {
			issuer `+provider.URL+`
			accounts {
				signup open
				store file `+filepath.Join(sitetest.TempDir(t), "users.db")+`
			}
		}
		respond /api/* ok
		respond /broken 503`)
	s.Get("/api/")
	s.Get("/broken")
	sitetest.Eventually(t, "the key set is fetched", func() bool {
		return len(scrape(t, s)["caddy_jwt_key_set_age_seconds"]) > 0
	})
	found := scrape(t, s)
	for _, query := range dashboardQueries(t) {
		for _, wrong := range found.complaints(query) {
			t.Errorf("docs/grafana-dashboard.json: %s: %s", query, wrong)
		}
	}
	for _, rule := range alertRules(t) {
		for _, wrong := range found.complaints(rule.Expr) {
			t.Errorf("docs/alerts.yaml: %s: %s", rule.Alert, wrong)
		}
	}
	for query, want := range map[string]string{
		`rate(caddy_jwt_decision_total[5m])`: "there is no metric " +
			"caddy_jwt_decision_total",
		`sum by (resalt) (caddy_jwt_decisions_total)`: "caddy_jwt_decisions_total has no " +
			"label resalt",
		`caddy_jwt_decisions_total{resalt="x"}`: "caddy_jwt_decisions_total has no " +
			"label resalt",
		`caddy_jwt_decisions_total{reason=~"signature|signatur"}`:              `no caddy_jwt_decisions_total has reason="signatur"`,
		`process_open_fds > 5 and up{job="caddy"} == 0`:                        "there is no metric up",
		`caddy_jwt_account_events_total{event="login", result="throttle"}`:     `no caddy_jwt_account_events_total has result="throttle"`,
		`rate(caddy_jwt_account_events_total{event="logout",result="ok"}[5m])`: "",
	} {
		if got := strings.Join(found.complaints(query), "; "); got != want {
			t.Errorf("control: of %s it says %q, expected %q", query, got, want)
		}
	}
}

// Prometheus accepts the rules, and each fires when it must and not before.
func TestOperationsAlerts(t *testing.T) {
	caddytest.Needs(t, "promtool")
	rules, err := filepath.Abs("docs/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	promtool := func(args ...string) {
		t.Helper()
		if output, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, output)
		}
	}
	promtool("check", "rules", rules)
	scenario := filepath.Join(sitetest.TempDir(t), "alerts.test.yaml")
	// The store fails from the 10th minute on, and the key set from the start.
	text := fmt.Sprintf(`
rule_files: [%q]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'caddy_jwt_decisions_total{instance="a", result="refused", reason="store_unavailable"}'
        values: '0x10 1+1x10'
      - series: 'caddy_jwt_key_set_fetches_total{instance="a", key_set="https://issuer.example", result="error"}'
        values: '0+1x60'
      - series: 'caddy_jwt_key_set_fetches_total{instance="a", key_set="https://issuer.example", result="ok"}'
        values: '7x60'
      - series: 'caddy_jwt_user_store_up{instance="a", issuer="https://site.example", store="/users.db"}'
        values: '1x10 0x50'
    alert_rule_test:
      - eval_time: 10m
        alertname: JWTStoreDown
      - eval_time: 13m
        alertname: JWTStoreDown
        exp_alerts:
          - exp_labels: {severity: critical, instance: a, issuer: "https://site.example", store: /users.db}
            exp_annotations:
              summary: The user store /users.db of https://site.example cannot be read by a
              description: Nobody can log in there, and sessions that end elsewhere stay valid until their tokens expire.
      - eval_time: 10m
        alertname: JWTStoreFails
      - eval_time: 13m
        alertname: JWTStoreFails
        exp_alerts:
          - exp_labels: {severity: critical, instance: a}
            exp_annotations: {summary: The user store of a fails; nobody can log in there}
      - eval_time: 40m
        alertname: JWTKeySetOld
      - eval_time: 40m
        alertname: JWTKeySetFetchFails
        exp_alerts:
          - exp_labels: {severity: warning, instance: a, key_set: "https://issuer.example", result: error}
            exp_annotations:
              summary: The key set https://issuer.example is not reached from a
              description: Its last good keys are used until max_stale, by default 24 hours after the last fetch; then its tokens are refused.
`, rules)
	if err := os.WriteFile(scenario, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool("test", "rules", scenario)
}

// The dashboard has the types of Grafana's own schema.
func TestDashboardSchema(t *testing.T) {
	folder := caddytest.NPM(t, "docs/testdata/grafana")
	dashboard, err := os.ReadFile("docs/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	complaints := func(json string) string {
		t.Helper()
		const file = "dashboard.ts"
		text := `import type { Dashboard } from "@grafana/schema";` + "\nexport const dashboard: Dashboard = " + json + ";\n"
		if err := os.WriteFile(filepath.Join(folder, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		command := exec.Command("node_modules/.bin/tsc", "--noEmit", "--strict", "--module", "nodenext", file)
		command.Dir = folder
		output, err := command.CombinedOutput()
		if err != nil && len(output) == 0 {
			t.Fatal(err)
		}
		return string(output)
	}
	if wrong := complaints(string(dashboard)); wrong != "" {
		t.Error(wrong)
	}
	broken := strings.Replace(string(dashboard), `"targets"`, `"tragets"`, 1)
	if wrong := complaints(broken); !strings.Contains(wrong, "tragets") {
		t.Errorf("control: a misspelt property: %q", wrong)
	}
}
