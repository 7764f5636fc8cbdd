package cli_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/owner"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// doctor says of each thing that a config needs whether it works, and creates nothing.
func TestDoctor(t *testing.T) {
	binary := caddytest.Binary(t)
	key := sitetest.Marshal(t, sitetest.JSON{"keys": []any{sitetest.JWK(t, sitetest.Keys().RSA, nil)}})
	answer := func(body string, ahead time.Duration) *httptest.Server {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			fmt.Fprint(w, body)
		}))
		t.Cleanup(server.Close)
		return server
	}
	good, wrong, fast := answer(key, 0), answer("<html>", 0), answer(key, 3*time.Minute)
	gone := "http://" + sitetest.FreeAddress(t)
	mails := sitetest.NewSMTPServer(t).Start()
	site := func(address, options string) string {
		return address + " {\njwt {\n" + options + "\n}\n}\n"
	}
	issuer := func(server string) string { return "issuer x\naudience a\njwks " + server + "/keys\n" }
	for name, test := range map[string]struct {
		site string
		want []string // beginnings of lines, of which there must be one each
	}{
		"an issuer that works": {site(":1", issuer(good.URL)), []string{
			"ok       config ", "ok       Caddy's storage", "ok       keys of " + good.URL + "/keys: usable: 1",
			"ok       clock, by that of " + good.URL + "/keys: differs by ",
		}},
		"an issuer that answers something else": {site(":1", issuer(wrong.URL)), []string{
			"fault    keys of " + wrong.URL + "/keys: ", "warning  clock, by that of " + wrong.URL,
		}},
		"an issuer that does not answer": {site(":1", issuer(gone)), []string{"fault    keys of " + gone + "/keys: "}},
		"a clock that is wrong": {site(":1", issuer(fast.URL)), []string{
			"ok       keys of ", "fault    clock, by that of " + fast.URL + "/keys: the clock of this machine differs by ",
		}},
		"the leeway of that clock": {site(":1", "leeway 5m\n"+issuer(fast.URL)), []string{
			"ok       keys of ", "ok       clock, by that of ",
		}},
		"a config with a warning": {site("https://a.example", "issuer x\njwks "+good.URL+"/keys"), []string{
			"warning  config ", "ok       keys of ",
		}},
		"a config with an error": {":1 {\njwt {\nsecret short\n}\n}\n", []string{"fault    config "}},
		"accounts over http": {site("http://a.example", "accounts {\nstore file $users\n}"), []string{
			"warning  https of the accounts at ", "ok       user store $users: schema version ",
		}},
		"accounts on this machine": {site("http://localhost:8080", "accounts {\nstore file $users\n}"), []string{
			"ok       https of the accounts at ",
		}},
		"accounts over https": {site("https://a.example", "accounts {\nstore file $users\n}"), []string{
			"ok       https of the accounts at ",
		}},
		"accounts behind a proxy": {"{\nservers {\ntrusted_proxies static private_ranges\n}\n}\n" +
			site("http://a.example", "accounts {\nstore file $users\n}"), []string{"ok       https of the accounts at "}},
		"no store yet": {site("https://a.example", "accounts {\nstore file $dir/none.db\n}"), []string{
			"warning  user store $dir/none.db: the file does not exist yet",
		}},
		"a store that is no store": {site("https://a.example", "accounts {\nstore file $dir/bad.db\n}"), []string{
			"fault    user store $dir/bad.db: ",
		}},
		"a mail server": {site("https://a.example", "accounts {\nstore file $users\nmail smtp://"+mails.Address+
			" {\nfrom a@example.com\n}\n}"), []string{"ok       mail server "}},
		"no mail server": {site("https://a.example", "accounts {\nstore file $users\nmail smtp://"+
			strings.TrimPrefix(gone, "http://")+" {\nfrom a@example.com\n}\n}"), []string{"fault    mail server "}},
		"a provider that is gone": {site("https://a.example", "accounts {\nstore file $users\nlogin_with home {\nissuer "+
			gone+"\nclient_id a\nclient_secret b\n}\n}"), []string{"fault    login_with home: "}},
		"an issuer of upstream_token that is not there": {
			site(":1", issuer(good.URL)+"upstream_token {\nissuer "+gone+"/jwt\n}"),
			[]string{"warning  upstream_token of " + gone + "/jwt: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sitetest.TempDir(t)
			users := filepath.Join(dir, "users.db")
			accountstest.CreateStore(t, users)
			if err := os.WriteFile(filepath.Join(dir, "bad.db"), []byte("no database"), 0o600); err != nil {
				t.Fatal(err)
			}
			replace := strings.NewReplacer("$users", users, "$dir", dir).Replace
			config := filepath.Join(dir, "Caddyfile")
			text := replace(test.site)
			options, rest := "", text
			if strings.HasPrefix(text, "{\n") {
				options, rest, _ = strings.Cut(strings.TrimPrefix(text, "{\n"), "\n}\n}\n")
				options += "\n}\n"
			}
			text = fmt.Sprintf("{\n%sstorage file_system %q\n}\n%s", options, dir+"/storage", rest)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			before := filesIn(t, dir)
			output, err := exec.Command(binary, "jwt", "doctor", "--config", config).Output()
			if faults := strings.Contains("\n"+string(output), "\nfault "); faults != (err != nil) {
				t.Errorf("%v with\n%s", err, output)
			}
			for _, want := range test.want {
				if strings.Count("\n"+string(output), "\n"+replace(want)) != 1 {
					t.Errorf("no line %q in\n%s", replace(want), output)
				}
			}
			asked := 0
			for _, want := range test.want {
				if strings.HasPrefix(want, "fault") {
					asked++
				}
			}
			if got := strings.Count("\n"+string(output), "\nfault "); got != asked {
				t.Errorf("faults: %d\n%s", got, output)
			}
			asJSON, _ := exec.Command(binary, "jwt", "doctor", "--json", "--config", config).Output()
			if strings.Count(string(asJSON), "\n") != strings.Count(string(output), "\n") {
				t.Errorf("%s\nas JSON: %s", output, asJSON)
			}
			for line := range strings.Lines(string(asJSON)) {
				if !json.Valid([]byte(line)) {
					t.Errorf("no JSON: %s", line)
				}
			}
			if after := filesIn(t, dir); after != before {
				t.Errorf("files before: %s, after: %s", before, after)
			}
		})
	}
	if sent := mails.Received(); len(sent) > 0 {
		t.Errorf("a mail was sent: %v", sent)
	}
}

// A file that root made beside those of the service is a fault.
func TestDoctorFindsFilesOfRoot(t *testing.T) {
	if owner.EffectiveUser() != 0 {
		caddytest.Missing(t, "root, to give files away")
	}
	dir := sitetest.TempDir(t)
	storage, users := filepath.Join(dir, "storage"), filepath.Join(dir, "data", "users.db")
	accountstest.CreateStore(t, users)
	kept := filepath.Join(storage, "jwt", "signing_keys", "x.json")
	if err := errorsOf(os.MkdirAll(filepath.Dir(kept), 0o700), os.WriteFile(kept, []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf("{\nstorage file_system %q\n}\nhttps://a.example {\njwt {\naccounts {\nstore file %q\n}\n}\n}\n",
		storage, users)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(faults int) {
		t.Helper()
		output, _ := exec.Command(caddytest.Binary(t), "jwt", "doctor", "--config", config).Output()
		if strings.Count(string(output), "fault ") != faults || strings.Count(string(output), "run: chown ") != faults {
			t.Errorf("expected %d faults:\n%s", faults, output)
		}
	}
	run(0)
	for _, folder := range []string{storage, filepath.Dir(users)} {
		if err := os.Chown(folder, 4321, 4321); err != nil {
			t.Fatal(err)
		}
	}
	run(2)
}

func filesIn(t testing.TB, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		info, statErr := os.Stat(path)
		if statErr == nil && !info.IsDir() {
			path += fmt.Sprint(info.Size(), info.ModTime())
		}
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}
