package cli_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/owner"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The links of commands lead to the site that the config says, as those in mails do.
func TestLinksWithConfig(t *testing.T) {
	for name, c := range map[string]struct{ site, issuer, flags, want string }{
		"a host":                 {"https://a.example", "", "", "https://a.example/auth/reset?token="},
		"a port":                 {"http://localhost:8099", "", "", "http://localhost:8099/auth/reset?token="},
		"the first of two":       {"https://*.example, https://b.example", "", "", "https://b.example/auth/reset?token="},
		"an issuer of the site":  {"https://a.example, https://b.example", "https://b.example", "", "https://b.example/auth/reset?token="},
		"an issuer of elsewhere": {"https://a.example", "https://id.invalid", "", "https://a.example/auth/reset?token="},
		"an issuer of all hosts": {"http://:8099", "https://id.example", "", "https://id.example/auth/reset?token="},
		"--base":                 {"https://a.example", "https://a.example", "--base https://c.example", "https://c.example/auth/reset?token="},
		"no host":                {"http://:8099", "", "", ""},
		"only a wildcard":        {"https://*.example", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sitetest.TempDir(t)
			issuer := ""
			if c.issuer != "" {
				issuer = "issuer " + c.issuer + "\n"
			}
			w := withCaddyfile(t, "{\nstorage file_system "+dir+"/storage\n}\n"+c.site+" {\njwt {\naccounts {\n"+issuer+
				"store file "+dir+"/users.db\n}\n}\n}\n")
			w.Must("", "user", "add", "--create", "--no-password", "alice@example.com")
			for _, command := range [][]string{{"user", "reset-link", "alice@example.com"}, {"user", "invite", "bob@example.com"}} {
				command = append(command, strings.Fields(c.flags)...)
				if c.want == "" {
					w.Refuses("", "write --base https://<host>", command...)
					continue
				}
				if link := w.Must("", command...); !strings.HasPrefix(link, c.want) {
					t.Errorf("%q: %s", command, link)
				}
			}
		})
	}
	c, _ := newUserStore(t)
	c.Must("", "user", "add", "--no-password", "alice@example.com")
	c.Refuses("", "Set --base to its URL", "user", "reset-link", "alice@example.com")
	c.Refuses("", "Set --base to its URL", "user", "invite", "carol@example.com")
}

// Who sets a password, or makes a link to set one, sees how many API keys end.
func TestPasswordCommandsCountKeys(t *testing.T) {
	c, _ := newUserStore(t)
	for _, email := range []string{"alice@example.com", "bob@example.com"} {
		c.Must("", "user", "add", "--no-password", email)
	}
	for range 2 {
		c.Must("", "key", "add", "--subject", "alice@example.com")
	}
	for email, want := range map[string]string{"alice@example.com": "2", "bob@example.com": ""} {
		_, stderr, err := c.Run("", "user", "reset-link", "--base", "https://example.com", email)
		if err != nil || strings.Contains(stderr, "API keys that are revoked: "+want) != (want != "") {
			t.Errorf("%s: %v %s", email, err, stderr)
		}
	}
	for _, step := range []struct{ email, want string }{
		{"alice@example.com", "API keys revoked: 2,"}, {"alice@example.com", "API keys revoked: 0,"},
		{"bob@example.com", "API keys revoked: 0,"},
	} {
		accountstest.Has(t, c.Must(sitetest.GoodPassword+"\n", "user", "passwd", step.email), step.want)
	}
}

// A role that the user does not have is named.
func TestRemoveOfMissingRole(t *testing.T) {
	c, _ := newUserStore(t)
	c.Must("", "user", "add", "--no-password", "--role", "admin", "--role", "editor", "alice@example.com")
	for role, want := range map[string]string{
		"nosuch": `does not have the role "nosuch"`, "amdin": "did you mean admin?", "editor": "",
	} {
		out, stderr, err := c.Run("", "user", "roles", "alice@example.com", "--remove", role)
		if err != nil || !strings.Contains(stderr, want) || (stderr == "") != (want == "") || !strings.Contains(out, "admin") {
			t.Errorf("%s: %v %q %q", role, err, out, stderr)
		}
	}
}

// Each command names itself, or the one beside it that adds, and repeats the flags it was given.
func TestCommandsSuggestTheirOwn(t *testing.T) {
	path := filepath.Join(sitetest.TempDir(t), "users.db")
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}
	for line, want := range map[string]string{
		"key add --subject billing": "`caddy jwt key add --create`", "key show x": "`caddy jwt key add --create`",
		"key list": "`caddy jwt key add --create`", "user list": "`caddy jwt user add --create`",
		"user invite a@example.com": "`caddy jwt user invite --create`", "store backup x": "`caddy jwt user add --create`",
	} {
		c.Refuses("", want, strings.Fields(line)...)
	}
	key := strings.TrimSpace(c.Must("", "key", "add", "--create", "--subject", "billing"))
	config := withCaddyfile(t, ":1 {\njwt {\napi_keys\naccounts {\nstore file "+path+"\n}\n}\n}\n")
	config.Refuses(key, " --config "+config.Where[1], "inspect")
	_, _, err := (&accountstest.CommandLine{TB: t}).Run(key, "inspect")
	if err == nil || strings.Contains(err.Error(), "--config") || !strings.Contains(err.Error(), "caddy jwt key show ") {
		t.Errorf("without a config: %v", err)
	}
}

// Keys of users are listed by what users are called, and limits have columns if there are any.
func TestKeyList(t *testing.T) {
	c, _ := newUserStore(t)
	id := strings.TrimSpace(c.Must("", "user", "add", "--no-password", "alice@example.com"))
	c.Must("", "key", "add", "--subject", "billing", "--name", "nightly")
	c.Must("", "key", "add", "--subject", "alice@example.com", "--name", "laptop")
	list := c.Must("", "key", "list")
	if accountstest.Has(t, list, "billing", "alice@example.com", "laptop"); strings.Contains(list, id) ||
		strings.Contains(list, "RATE") || strings.Contains(list, "NETWORKS") {
		t.Errorf("the list is:\n%s", list)
	}
	for line := range strings.Lines(c.Must("", "key", "list", "--json")) {
		var key struct{ Subject, User string }
		if err := json.Unmarshal([]byte(line), &key); err != nil || (key.Subject == id) != (key.User == "alice@example.com") ||
			(key.Subject == "billing") != (key.User == "") {
			t.Errorf("%v %s", err, line)
		}
	}
	c.Must("", "key", "add", "--subject", "ci", "--rate", "100/1m")
	if list = c.Must("", "key", "list"); !strings.Contains(list, "RATE") || !strings.Contains(list, "100/1m") ||
		strings.Contains(list, "NETWORKS") {
		t.Errorf("with a rate:\n%s", list)
	}
	c.Must("", "key", "add", "--subject", "ci", "--network", "192.0.2.0/24")
	accountstest.Has(t, c.Must("", "key", "list"), "RATE", "NETWORKS", "192.0.2.0/24")
}

// A folder is not a backup, and a store that is not empty is named.
func TestStoreCommandsNameWhatIsWrong(t *testing.T) {
	c, path := newUserStore(t)
	c.Must("", "user", "add", "--no-password", "alice@example.com")
	backup := filepath.Join(filepath.Dir(path), "backup.db")
	c.Must("", "store", "backup", backup)
	c.Refuses("", filepath.Dir(path)+" is a folder", "store", "restore", "--yes", filepath.Dir(path))
	c.Must("", "store", "restore", "--yes", backup)
	plain := &accountstest.CommandLine{TB: t}
	plain.Refuses("", "the store to copy to, "+backup+": it already has 1 row", "store", "copy", path, backup)
	plain.Must("", "store", "copy", path, filepath.Join(filepath.Dir(path), "new.db"))
	accountstest.Has(t, plain.Must("", "store", "copy", "--help"), "API keys")
}

// root does not make the default store in its home beside a Caddy that runs as the user caddy.
func TestRootAndDefaultStore(t *testing.T) {
	defer func(euid func() int, lookup func(string) (*user.User, error)) {
		owner.EffectiveUser, owner.LookupUser = euid, lookup
	}(owner.EffectiveUser, owner.LookupUser)
	withUser := func(uid string) func(string) (*user.User, error) {
		return func(name string) (*user.User, error) {
			if uid == "" {
				return nil, user.UnknownUserError(name)
			}
			return &user.User{Username: name, Uid: uid}, nil
		}
	}
	for name, in := range map[string]struct {
		root         bool
		caddy        string // the ID of the user caddy
		data         bool   // whether XDG_DATA_HOME is set, as in a container
		store, added bool   // whether the config has a store; whether the user is added
	}{
		"root beside a user caddy": {true, "998", false, false, false},
		"a store in the config":    {true, "998", false, true, true},
		"in a container":           {true, "998", true, false, true},
		"no user caddy":            {true, "", false, false, true},
		"caddy is root":            {true, "0", false, false, true},
		"another user":             {false, "998", false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			home := sitetest.TempDir(t)
			t.Setenv("HOME", home)
			t.Setenv("XDG_DATA_HOME", "")
			if in.data {
				t.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
			}
			me := os.Geteuid()
			owner.EffectiveUser = func() int {
				if in.root {
					return 0
				}
				return max(me, 1)
			}
			owner.LookupUser = withUser(in.caddy)
			store := ""
			if in.store {
				store = " {\nstore file " + filepath.Join(home, "users.db") + "\n}"
			}
			c := withCaddyfile(t, ":1 {\njwt {\naccounts"+store+"\n}\n}\n")
			_, _, err := c.Run("", "user", "add", "--create", "--no-password", "you@example.com")
			if in.added {
				if err != nil && strings.Contains(err.Error(), "this would create a store") {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("it is created")
			}
			accountstest.Has(t, err.Error(), "sudo -u caddy -H caddy jwt user add --config "+c.Where[1]+
				" --create 'you@example.com'", "--store "+home)
			if found, _ := filepath.Glob(filepath.Join(home, ".local", "*", "*", "jwt")); len(found) > 0 {
				t.Errorf("it is created: %s", found)
			}
		})
	}
}

// Who reads that a file belongs to somebody else gets the advice that fits: root is nobody to become.
func TestAdviceOnOtherOwners(t *testing.T) {
	for name, c := range map[string]struct {
		err        error
		want, lack string
	}{
		"root's file":       {&owner.OtherError{Path: "/d/users.db", Owner: "root", Runner: "caddy"}, "sudo chown caddy /d/users.db", "sudo -u root"},
		"the service's":     {&owner.OtherError{Path: "/d/users.db", Owner: "caddy", Runner: "bob"}, "sudo -u caddy -H caddy", "chown bob"},
		"a nameless user's": {&owner.OtherError{Path: "/d/users.db", Owner: "4321", Runner: "bob"}, "sudo -u '#4321' -H caddy", "chown bob"},
	} {
		if got := owner.OfCommand(c.err).Error(); !strings.Contains(got, c.want) || strings.Contains(got, c.lack) {
			t.Errorf("%s: %s", name, got)
		}
		if got := c.err.Error(); strings.Contains(got, "sudo -u") || !strings.Contains(got, "sudo chown ") {
			t.Errorf("%s, for Caddy: %s", name, got)
		}
	}
	other := errors.New("control")
	if owner.OfCommand(other) != other || owner.OfCommand(nil) != nil {
		t.Error("another error is changed")
	}
}
