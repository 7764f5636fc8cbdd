package caddyjwt_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// apiKeySite is a site that accepts API keys, and the commands on its store.
type apiKeySite struct {
	*sitetest.Site
	accountstest.CommandLine
	file string
}

// serveKeys serves a site. $keys in the body is the store of the API keys.
func serveKeys(t *testing.T, body string) *apiKeySite {
	t.Helper()
	file := filepath.Join(sitetest.TempDir(t), "keys.db")
	return &apiKeySite{
		sitetest.Serve(t, strings.ReplaceAll(body, "$keys", "store file "+file)),
		accountstest.CommandLine{TB: t, Where: []string{"--store", file}}, file,
	}
}

const keyBody = `
	jwt {
		api_keys {
			$keys
		}
		require scope films.read
	}
	respond "{http.auth.user.id} [{http.auth.user.scope}] [{http.auth.user.roles}] [{http.auth.user.team}] {http.auth.user.client_id}"`

// made makes a key and waits until the site knows it.
func (s *apiKeySite) made(args ...string) apikeys.View {
	s.Helper()
	var key apikeys.View
	text := s.Must("", append([]string{"key", "add", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &key); err != nil {
		s.Fatalf("%v: %s", err, text)
	}
	s.known(key.Key, true)
	return key
}

// known waits until the site knows a key, or no longer does.
func (s *apiKeySite) known(key string, want bool) {
	s.Helper()
	sitetest.Eventually(s.TB, "the site notices", func() bool {
		return (s.Bearer("/", key).Status != http.StatusUnauthorized) == want
	})
}

// refused checks a refusal.
func (s *apiKeySite) refused(got sitetest.Reply, status int, code string) {
	s.Helper()
	if body := got.ErrorBody(s.TB); got.Status != status || body.Error.Code != code {
		s.Errorf("got %d %s, expected %d %s", got.Status, got.Body, status, code)
	}
}

// A key is made by the command, and its claims are those of a user.
func TestAPIKeys(t *testing.T) {
	s := serveKeys(t, keyBody)
	key := s.made(
		"--subject", "billing", "--scope", "films.read", "--scope", "films.write", "--role", "robot", "--metadata",
		"team=web", "--name", "nightly",
	)
	got := s.Bearer("/", key.Key)
	s.MustAnswer(200, got, "a key")
	if want := "billing [films.read films.write] [robot] [web] " + key.ID; got.Body != want {
		t.Errorf("got %q, expected %q", got.Body, want)
	}
	if !regexp.MustCompile("^" + apikeys.Pattern("key") + "$").MatchString(key.Key) {
		t.Errorf("%s does not match %s", key.Key, apikeys.Pattern("key"))
	}
	other := s.made("--subject", "billing", "--scope", "films.list")
	s.refused(s.Bearer("/", other.Key), 403, "insufficient_scope")

	accountstest.Has(t, s.Must("", "key", "list"), key.ID, "billing", "nightly", "films.read films.write", "robot", other.ID)
	shown := s.Must("", "key", "show", key.ID) + s.Must("", "key", "show", "--json", key.Key)
	accountstest.Has(t, shown, `"metadata":{"team":"web"}`, "metadata team:", "web")
	if strings.Contains(shown+s.Must("", "key", "list", "--json"), key.Key) || strings.Contains(s.Log(), key.Key) {
		t.Error("the key is shown or logged")
	}
	elsewhere := accountstest.CommandLine{TB: t}
	elsewhere.Refuses(key.Key, "this is the API key with the ID "+key.ID, "inspect")
	s.Must("", "key", "revoke", "--yes", key.ID)
	s.known(key.Key, false)
	s.MustAnswer(403, s.Bearer("/", other.Key), "another key")
	s.Refuses("", "neither the ID of an API key nor a whole key", "key", "revoke", key.Key[:40])
	s.Refuses("", "there is no API key "+`"`+key.ID, "key", "revoke", key.Key)
	s.Refuses("", "did you mean "+other.ID+"?", "key", "show", other.ID[:6])
	s.Refuses("", "`caddy jwt key list --subject billing` lists them", "key", "roll", "billing")
}

// Each way to misuse a key is refused, and the same key is accepted where it should be.
func TestAPIKeyAttacks(t *testing.T) {
	s := serveKeys(t, keyBody)
	key := s.made("--subject", "billing", "--scope", "films.read")
	other := s.made("--subject", "other", "--scope", "films.read")
	parts, others := strings.Split(key.Key, "_"), strings.Split(other.Key, "_")
	mix := func(parts ...string) string { return apikeys.Text(parts[0], parts[1], parts[2]) }
	for name, c := range map[string]struct {
		path    string
		headers []string
		status  int
		code    string
	}{
		"the key":              {"/", []string{"Authorization: Bearer " + key.Key}, 200, ""},
		"another scheme case":  {"/", []string{"Authorization: bearer " + key.Key}, 200, ""},
		"in the query":         {"/?key=" + key.Key + "&access_token=" + key.Key, nil, 401, "invalid_token"},
		"in another header":    {"/", []string{"X-Api-Key: " + key.Key}, 401, "invalid_token"},
		"in a cookie":          {"/", []string{"Cookie: session=" + key.Key + "; key=" + key.Key}, 401, "invalid_token"},
		"as Basic credentials": {"/", []string{"Authorization: Basic " + key.Key}, 401, "invalid_token"},
		"two keys": {"/", []string{
			"Authorization: Bearer " + key.Key, "Authorization: Bearer " + other.Key,
		}, 400, "invalid_request"},
		"a wrong checksum":         {"/", []string{"Authorization: Bearer " + flip(key.Key)}, 401, "invalid_token"},
		"cut off":                  {"/", []string{"Authorization: Bearer " + key.Key[:40]}, 401, "invalid_token"},
		"only the prefix":          {"/", []string{"Authorization: Bearer key_"}, 401, "invalid_token"},
		"the prefix of other keys": {"/", []string{"Authorization: Bearer " + mix("key", parts[1], parts[2])}, 200, ""},
		"the secret of another ID": {"/", []string{"Authorization: Bearer " + mix("key", parts[1], others[2])}, 401, "invalid_token"},
		"an unknown ID":            {"/", []string{"Authorization: Bearer " + mix("key", "AAAAAAAAAAAA", parts[2])}, 401, "invalid_token"},
		"another prefix":           {"/", []string{"Authorization: Bearer " + mix("kex", parts[1], parts[2])}, 401, "invalid_token"},
		"a longer prefix":          {"/", []string{"Authorization: Bearer " + mix("key_x", parts[1], parts[2])}, 401, "invalid_token"},
		"its hash":                 {"/", []string{"Authorization: Bearer " + strings.Repeat("0", 64)}, 401, "invalid_token"},
	} {
		got := s.Get(c.path, c.headers...)
		if c.status == 401 && len(c.headers) == 0 || strings.HasPrefix(name, "in ") || strings.HasPrefix(name, "as ") {
			s.MustAnswer(401, got, name)
			continue
		}
		if c.status == 200 {
			s.MustAnswer(200, got, name)
			continue
		}
		s.refused(got, c.status, c.code)
	}
	if strings.Contains(s.Log(), parts[2]) {
		t.Error("the secret is logged")
	}
}

// flip changes the last character of a key.
func flip(key string) string {
	if last := len(key) - 1; key[last] == '0' {
		return key[:last] + "1"
	}
	return key[:len(key)-1] + "0"
}

// In a header of their own, keys are accepted only there, and nothing else is.
func TestAPIKeyHeader(t *testing.T) {
	s := serveKeys(t, `
	jwt {
		secret "`+sitetest.Secret+`"
		api_keys {
			$keys
			header x-api-key
			prefix acme_live
		}
		strip_token
	}
	respond "{http.auth.user.id} key=[{http.request.header.X-Api-Key}]"`)
	key := func(args ...string) string {
		return strings.TrimSpace(s.Must("", append([]string{"key", "add", "--prefix", "acme_live"}, args...)...))
	}("--subject", "billing")
	token := sitetest.HS256(t, nil)
	sitetest.Eventually(t, "the site notices", func() bool { return s.Get("/", "X-Api-Key: "+key).Status == 200 })
	for name, c := range map[string]struct {
		headers []string
		status  int
		body    string
	}{
		"a key":                   {[]string{"X-Api-Key: " + key}, 200, "billing key=[]"},
		"a token":                 {[]string{"Authorization: Bearer " + token}, 200, "alice key=[]"},
		"a key in Authorization":  {[]string{"Authorization: Bearer " + key}, 401, ""},
		"a token in X-Api-Key":    {[]string{"X-Api-Key: " + token}, 401, ""},
		"both":                    {[]string{"X-Api-Key: " + key, "Authorization: Bearer " + token}, 400, ""},
		"a key twice":             {[]string{"X-Api-Key: " + key, "X-Api-Key: " + key}, 400, ""},
		"a key with a scheme":     {[]string{"X-Api-Key: Bearer " + key}, 400, ""},
		"a default key of theirs": {[]string{"X-Api-Key: " + strings.Replace(key, "acme_live", "key", 1)}, 401, ""},
	} {
		got := s.Get("/", c.headers...)
		s.MustAnswer(c.status, got, name)
		if c.body != "" && got.Body != c.body {
			t.Errorf("%s: %q, expected %q", name, got.Body, c.body)
		}
	}
}

// Without issuers, another header of the request is for the upstream.
func TestAPIKeyHeaderOnly(t *testing.T) {
	s := serveKeys(t, `
	jwt {
		api_keys {
			$keys
			header X-Api-Key
		}
	}
	respond "{http.auth.user.id} {http.request.header.Authorization}"`)
	key := strings.TrimSpace(s.Must("", "key", "add", "--subject", "billing"))
	sitetest.Eventually(t, "the site notices", func() bool { return s.Get("/", "X-Api-Key: "+key).Status == 200 })
	got := s.Get("/", "X-Api-Key: "+key, "Authorization: Basic YWxpY2U6c2VjcmV0")
	s.MustAnswer(200, got, "Authorization for the upstream")
	if got.Body != "billing Basic YWxpY2U6c2VjcmV0" {
		t.Error(got.Body)
	}
}

// An expired key is refused, also if it was used before.
func TestAPIKeyExpires(t *testing.T) {
	clock := sitetest.SetClock(t)
	s := serveKeys(t, keyBody)
	key := s.made("--subject", "billing", "--scope", "films.read", "--expires", "90d")
	s.MustAnswer(200, s.Bearer("/", key.Key), "before")
	clock.Ahead.Store(91 * 24 * 3600)
	s.refused(s.Bearer("/", key.Key), 401, "invalid_token")
	for name, expires := range map[string]string{
		"in the past": "2020-01-01", "now": "0s", "never": "never", "a number": "90", "too long": "200000d",
	} {
		if _, _, err := s.Run("", "key", "add", "--subject", "x", "--expires", expires); err == nil {
			t.Errorf("expires %s: a key was made", name)
		}
	}
}

// A roll gives a new secret, and the old one is accepted for the grace period.
func TestAPIKeyRoll(t *testing.T) {
	clock := sitetest.SetClock(t)
	s := serveKeys(t, keyBody)
	first := s.made("--subject", "billing", "--scope", "films.read")
	second := strings.TrimSpace(s.Must("", "key", "roll", "--grace", "1h", first.ID))
	s.known(second, true)
	s.MustAnswer(200, s.Bearer("/", first.Key), "the old key within the grace period")
	clock.Ahead.Store(3601)
	s.refused(s.Bearer("/", first.Key), 401, "invalid_token")
	s.MustAnswer(200, s.Bearer("/", second), "the new key after the grace period")
	s.Must("", "key", "show", first.ID)
	third := strings.TrimSpace(s.Must("", "key", "roll", first.ID))
	s.known(third, true)
	s.refused(s.Bearer("/", second), 401, "invalid_token")
	s.refused(s.Bearer("/", first.Key), 401, "invalid_token")
	s.Refuses("", "was rolled a moment ago", "key", "roll", first.ID)
	s.Refuses("", "the grace period is", "key", "roll", "--grace", "9999h", first.ID)
}

// A key is accepted only from its networks, by the address that Caddy's client_ip has.
func TestAPIKeyNetworks(t *testing.T) {
	s := serveKeys(t, `
	servers {
		trusted_proxies static 127.0.0.0/8
	}
	----------
	`+strings.Replace(keyBody, "require scope films.read", "", 1))
	key := s.made("--subject", "ci", "--network", "192.0.2.0/24", "--network", "2001:db8::/32", "--network", "127.0.0.1")
	for address, status := range map[string]int{
		"": 200, "192.0.2.7": 200, "2001:db8::1": 200, "::ffff:192.0.2.7": 200, "198.51.100.1": 403, "192.0.3.1": 403,
		"2001:db9::1": 403,
	} {
		headers := []string{"Authorization: Bearer " + key.Key}
		if address != "" {
			headers = append(headers, "X-Forwarded-For: "+address)
		}
		s.MustAnswer(status, s.Get("/", headers...), "from "+address)
	}
	for _, wrong := range []string{"192.0.2.1/24", "::ffff:192.0.2.0/120", "example.com", "192.0.2.0/33", ""} {
		if _, _, err := s.Run("", "key", "add", "--subject", "x", "--network", wrong); err == nil {
			t.Errorf("network %q: a key was made", wrong)
		}
	}
}

// Requests with a key are limited by its rate, and other keys are not.
func TestAPIKeyRate(t *testing.T) {
	s := serveKeys(t, keyBody)
	key := s.made("--subject", "billing", "--scope", "films.read", "--rate", "20/1h")
	free := s.made("--subject", "billing", "--scope", "films.read")
	var got sitetest.Reply
	allowed := 0
	for range 40 {
		if got = s.Bearer("/", key.Key); got.Status == 200 {
			allowed++
			if allowed > 1 && got.Header.Get("RateLimit-Policy") != `"key";q=20;w=3600` {
				t.Fatalf("RateLimit-Policy: %q", got.Header.Get("RateLimit-Policy"))
			}
		}
	}
	if allowed > 20 || allowed < 18 { // some were made while the site did not know the key yet
		t.Errorf("%d of 40 requests were allowed", allowed)
	}
	s.refused(got, 429, "too_many_requests")
	if got.Header.Get("Retry-After") == "" || !strings.HasPrefix(got.Header.Get("RateLimit"), `"key";r=0;t=`) {
		t.Errorf("headers: %v", got.Header)
	}
	reply := s.Bearer("/", free.Key)
	s.MustAnswer(200, reply, "another key")
	if reply.Header.Get("RateLimit") != "" {
		t.Error("a key without a rate has one")
	}
	again := s.made("--subject", "billing", "--scope", "films.read", "--rate", "1/1s")
	for _, status := range []int{429, 200} {
		sitetest.Eventually(t, "the next request", func() bool { return s.Bearer("/", again.Key).Status == status })
	}
	for _, wrong := range []string{"0/1m", "x/1m", "100", "100/", "100/1x", "-1/1m", "100/1ms", "99999999/1m"} {
		if _, _, err := s.Run("", "key", "add", "--subject", "x", "--rate", wrong); err == nil {
			t.Errorf("rate %q: a key was made", wrong)
		}
	}
}

// A request counts once, also if several handlers verify its key.
func TestAPIKeyRateOfTwoHandlers(t *testing.T) {
	twice := serveKeys(t, strings.Replace(keyBody, "jwt {", "jwt /twice/* {\n api_keys {\n $keys\n}\n}\n jwt {", 1))
	few := twice.made("--subject", "billing", "--scope", "films.read", "--rate", "1000/1h")
	before := twice.Bearer("/twice/", few.Key).Header.Get("RateLimit")
	if after := twice.Bearer("/twice/", few.Key).Header.Get("RateLimit"); remaining(t, before)-remaining(t, after) != 1 {
		t.Errorf("a request that two handlers verify counts twice: %s, then %s", before, after)
	}
}

// remaining returns the requests that a RateLimit field says remain.
func remaining(t *testing.T, field string) (number int) {
	t.Helper()
	if _, err := fmt.Sscanf(field, `"key";r=%d;`, &number); err != nil {
		t.Fatalf("RateLimit %q: %v", field, err)
	}
	return number
}

// The upstream gets a token of the site instead of the key.
func TestAPIKeyUpstreamToken(t *testing.T) {
	b := newBackend(t)
	s := serveKeys(t, `
	jwt {
		api_keys {
			$keys
		}
		upstream_token {
			issuer http://api.example/jwt
			audience https://films.internal
			claims scope team
		}
	}
	reverse_proxy `+b.URL)
	key := s.made("--subject", "billing", "--scope", "films.read", "--metadata", "team=web")
	s.MustAnswer(200, s.Bearer("/films", key.Key), "a key")
	raw, token := b.token(t, s.Site, "Authorization")
	client, _ := token.Get("client_id")
	team, _ := token.Get("team")
	if token.Subject() != "billing" || client != key.ID || team != "web" {
		t.Errorf("%s: %v", raw, token)
	}
	for name, values := range b.last.Header {
		if strings.Contains(strings.Join(values, " "), key.Key) {
			t.Errorf("the upstream got the key in %s", name)
		}
	}
}

// The keys of a disabled user are refused, those of a deleted one are gone, and a key that its
// user made loses the roles that the user loses.
func TestAPIKeyOwners(t *testing.T) {
	file := filepath.Join(sitetest.TempDir(t), "users.db")
	s := &apiKeySite{
		sitetest.Serve(t, `
	jwt {
		api_keys
		accounts {
			store file `+file+`
		}
	}
	respond "{http.auth.user.id} [{http.auth.user.roles}]"`),
		accountstest.CommandLine{TB: t, Where: []string{"--store", file}}, file,
	}
	id := strings.TrimSpace(s.Must("", "user", "add", "--no-password", "--role", "admin", "alice@example.com"))
	id = id[strings.LastIndex(id, " ")+1:]
	key := s.made("--subject", "alice@example.com", "--role", "robot")
	byID := s.made("--subject", id)
	if got := s.Bearer("/", key.Key); got.Body != id+" [robot]" {
		t.Errorf("got %q", got.Body)
	}
	s.Must("", "user", "disable", "--yes", "alice@example.com")
	s.known(key.Key, false)
	s.known(byID.Key, false)
	s.Refuses("", "is disabled", "key", "add", "--subject", "alice@example.com")
	s.Must("", "user", "enable", "alice@example.com")
	s.known(key.Key, true)
	s.Must("", "user", "delete", "--yes", "alice@example.com")
	s.known(key.Key, false)
	if list := s.Must("", "key", "list"); strings.Contains(list, key.ID) {
		t.Errorf("the keys of a deleted user are still there: %s", list)
	}
	s.Refuses("", "there is no user", "key", "add", "--subject", "alice@example.com")
	s.Refuses("", "there is no user", "key", "add", "--subject", id)
}

// Keys are made from a file, if all lines are valid. A wrong line is named.
func TestAPIKeyBatch(t *testing.T) {
	s := serveKeys(t, keyBody)
	made := s.Must(`{"subject":"a","scope":["films.read"],"rate":"5/1m","networks":["127.0.0.1"],"expires":"90d"}

{"subject":"b","roles":["x"],"metadata":{"team":"web"},"name":"n"}
`, "key", "add", "--batch", "-")
	lines := strings.Split(strings.TrimSpace(made), "\n")
	if len(lines) != 2 {
		t.Fatal(made)
	}
	var key apikeys.View
	if err := json.Unmarshal([]byte(lines[0]), &key); err != nil {
		t.Fatal(err)
	}
	s.known(key.Key, true)
	s.MustAnswer(200, s.Bearer("/", key.Key), "a key of a batch")
	for line, want := range map[string]string{
		`{"scope":["x"]}`:                        "line 2: it needs a subject",
		`{"subject":"x","scopes":["x"]}`:         `unknown member "scopes"; did you mean scope?`,
		`{"subject":"x","scope":["x y"]}`:        "a scope is one word",
		"\ufeff" + `{"subject":"x","rate":"x"}`:  `rate "x"`,
		`{"subject":"x"`:                         "line 2: malformed JSON",
		`{"subject":"nobody@example.com"}`:       "there is no user",
		`{"subject":"x","metadata":{"iss":"x"}}`: "this claim has a meaning of its own",
	} {
		before := strings.Count(s.Must("", "key", "list", "--json"), "\n")
		_, _, err := s.Run(`{"subject":"before"}`+"\n"+line, "key", "add", "--batch", "-")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", line, err)
		}
		if after := strings.Count(s.Must("", "key", "list", "--json"), "\n"); after != before {
			t.Errorf("%s: %d keys were made", line, after-before)
		}
	}
}

// Keys beyond max_keys are refused, and an error says so.
func TestAPIKeyLimits(t *testing.T) {
	s := serveKeys(t, strings.Replace(keyBody, "$keys", "$keys\n max_keys 2", 1))
	one := s.made("--subject", "one", "--scope", "films.read")
	s.made("--subject", "two", "--scope", "films.read")
	third := strings.TrimSpace(s.Must("", "key", "add", "--subject", "three", "--scope", "films.read"))
	sitetest.Eventually(t, "an error", func() bool { return strings.Contains(s.Log(), "more API keys than max_keys") })
	s.refused(s.Bearer("/", third), 401, "invalid_token")
	s.Must("", "key", "revoke", "--yes", one.ID)
	s.known(one.Key, false)
	s.known(third, true) // there is room again
}

// A key whose row is corrupt is refused; others are not, are listed, and it can be revoked.
func TestAPIKeyCorrupt(t *testing.T) {
	s := serveKeys(t, keyBody)
	key := s.made("--subject", "billing", "--scope", "films.read")
	other := s.made("--subject", "other", "--scope", "films.read")
	db, err := sql.Open("sqlite", s.file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(
		t.Context(), "UPDATE api_keys SET value = 'nonsense', changed_at = changed_at + 1000 WHERE id = ?", key.ID,
	); err != nil {
		t.Fatal(err)
	}
	s.known(key.Key, false)
	s.MustAnswer(200, s.Bearer("/", other.Key), "another key")
	list, _, err := s.Run("", "key", "list")
	if err == nil || !strings.Contains(err.Error(), key.ID+": what is stored of it is corrupt; revoke it") {
		t.Errorf("the list: %v", err)
	}
	accountstest.Has(t, list, key.ID, other.ID)
	s.Refuses("", "corrupt", "key", "show", key.ID)
	s.Must("", "key", "revoke", "--yes", key.ID)
	if list := s.Must("", "key", "list"); strings.Contains(list, key.ID) {
		t.Error(list)
	}
	s.Refuses(strings.Repeat("a", 100_000), "line 1 is longer than 65536 bytes", "key", "add", "--batch", "-")
}

func TestAPIKeyConfigErrors(t *testing.T) {
	for options, want := range map[string]string{
		"api_keys x":                                                 "api_keys takes only a block",
		"api_keys { \n prefx x \n }":                                 "did you mean prefix",
		"api_keys { \n prefix a-b \n }":                              "letters and digits",
		"api_keys { \n header Authorization \n }":                    "header for keys only",
		"api_keys { \n header Host \n }":                             "header for keys only",
		"api_keys { \n max_keys 0 \n }":                              "max_keys",
		"api_keys { \n store fil \n }":                               "did you mean file",
		"api_keys \n api_keys":                                       "specified twice",
		"credentials api_key":                                        "did you mean api_keys",
		"api_keys \n from header X-Key \n require role x of someone": "unknown issuer",
	} {
		if got := sitetest.ConfigError(t, "jwt {\n"+options+"\n}"); !strings.Contains(got, want) {
			t.Errorf("%s: %s", options, got)
		}
	}
}
