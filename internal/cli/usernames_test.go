package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

func TestUserNames(t *testing.T) {
	c, path := newUserStore(t)
	id := strings.TrimSpace(c.Must(sitetest.GoodPassword, "user", "add", "--username", "Bob", "--role", "admin"))
	c.Must(sitetest.GoodPassword, "user", "add", "--username", "Alice", "--profile", "name=Alice A.", "alice@example.com")
	for _, name := range []string{"bob", "BOB", id} {
		accountstest.Has(t, c.Must("", "user", "show", name), "Username  Bob\n", "E-mail    \n", id)
	}
	accountstest.Has(t, c.Must("", "user", "show", "--json", "alice"),
		`"email":"alice@example.com"`, `"username":"Alice"`, `"profile":{"name":"Alice A."}`)
	accountstest.Has(t, c.Must("", "user", "list"), "alice@example.com  Alice", "Bob  ")
	for _, args := range [][]string{
		{"add", "--username", "BOB"}, {"add", "--username", "alice"}, {"add", "--username", "bob", "carol@example.com"},
		{"update", "alice@example.com", "--username", "bob"}, {"update", "bob", "--username", "ALICE"},
	} {
		c.Refuses("", "another user has this user name", append([]string{"user"}, args...)...)
	}
	for _, args := range [][]string{
		{"add", "--username", "b ob"}, {"add", "--username", ""}, {"add", "--username", "bob@example.com"},
		{"update", "bob", "--username", id},
	} {
		c.Refuses("", "must have 1 to 64 letters, digits and signs", append([]string{"user"}, args...)...)
	}
	c.Refuses("", "write: --username carol", "user", "add", "carol")
	c.Refuses("", "write --username <name>", "user", "add")
	c.Refuses("", "Bob has no e-mail address", "user", "verify", "bob")
	c.Refuses("", "there is no user", "user", "show", "carol")

	c.Must("", "user", "update", "bob", "--username", "Bobby", "--profile", "name=Bob B.")
	c.Refuses("", "there is no user", "user", "show", "bob")
	c.Must("", "user", "email", "bobby", "bob@example.com")
	accountstest.Has(t, c.Must("", "user", "show", "--json", "bob@example.com"),
		`"username":"Bobby"`, `"id":"`+id+`"`, `"name":"Bob B."`)
	c.Must("", "user", "delete", "--yes", "bobby")
	c.Must(sitetest.GoodPassword, "user", "add", "--username", "bobby")
	accountstest.WithUsers(t, path, func(users store.UserStore) {
		if user, err := store.FindUser(t.Context(), users, "bobby"); err != nil || user.ID == id {
			t.Errorf("user %+v, %v", user, err)
		}
	})
}

// An ID that was imported may be the name of another user: no command chooses between them.
func TestUserNameThatIsAnID(t *testing.T) {
	c, _ := newUserStore(t)
	c.Must(`{"id":"4711","email":"alice@example.com","password_hash":""}`, "user", "import", "--format", "jsonl", "-")
	c.Must("", "user", "show", "4711")
	c.Must(sitetest.GoodPassword, "user", "add", "--username", "4711")
	c.Refuses("", "another user has this ID", "user", "delete", "--yes", "4711")
	c.Must("", "user", "show", "alice@example.com")
}

// What is exported can be imported elsewhere, with the names.
func TestUserNamesExported(t *testing.T) {
	c, _ := newUserStore(t)
	c.Must(sitetest.GoodPassword, "user", "add", "--username", "Bob")
	c.Must("", "user", "add", "--no-password", "--username", "=Alice", "--profile", "name=A.", "alice@example.com")
	c.Must("", "user", "add", "--no-password", "carol@example.com")
	for _, format := range []string{"csv", "jsonl"} {
		exported := c.Must("", "user", "export", "--format", format)
		other, _ := newUserStore(t)
		accountstest.Has(t, other.Must(exported, "user", "import", "--format", format, "-"), "imported 3, skipped 0, refused 0")
		accountstest.Has(t, other.Must(exported, "user", "import", "--format", format, "-"), "imported 0, skipped 3, refused 0")
		if again := other.Must("", "user", "export", "--format", format); again != exported {
			t.Errorf("%s: exported\n%s\nand again\n%s", format, exported, again)
		}
		accountstest.Has(t, other.Must("", "user", "show", "=alice"), "alice@example.com")
	}
}

func TestUserNamesImported(t *testing.T) {
	c, _ := newUserStore(t)
	c.Must(sitetest.GoodPassword, "user", "add", "--username", "bob")
	for _, file := range [][2]string{
		{"users.csv", "username,email,password_hash\nBOB,,\nbob,bob@example.com,\nb ob,,\n,,\nerin,,\nErin,,\nfrank,frank@example.com,\n"},
		{"users.jsonl", `{"username":"BOB","password_hash":""}` + "\n" +
			`{"username":"bob","email":"bob@example.com","password_hash":""}` + "\n" +
			`{"username":"b ob","password_hash":""}` + "\n" + `{"password_hash":""}` + "\n" +
			`{"username":"grace","password_hash":""}` + "\n" + `{"username":"Grace","password_hash":""}` + "\n" +
			`{"username":"heidi","email":"heidi@example.com","password_hash":""}` + "\n" +
			`{"profile":{"login name":"x"},"email":"x@example.com","password_hash":""}` + "\n"},
	} {
		path := filepath.Join(sitetest.TempDir(t), file[0])
		if err := os.WriteFile(path, []byte(file[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, err := c.Run("", "user", "import", path)
		refused := strings.Count(file[1], "\n") - 4 - strings.Count(file[0], ".csv")
		if err == nil || !strings.Contains(stdout, "imported 2, skipped 2, refused "+string(rune('0'+refused))) {
			t.Errorf("%s: %s%s%v", file[0], stdout, stderr, err)
		}
		accountstest.Has(t, stderr, "skipped: another user has this user name", "refused: another user has this user name",
			"refused: username must have 1 to 64", "refused: email must look like")
	}
	// Nobody who was refused has taken a name or an address.
	c.Must(sitetest.GoodPassword, "user", "add", "bob@example.com")
}

// The commands say if users cannot log in by names.
func TestUserNamesWhereTheyAreNotUsed(t *testing.T) {
	dir := sitetest.TempDir(t)
	for option, notes := range map[string]bool{"": true, "identifier any": false} {
		config := filepath.Join(dir, "Caddyfile")
		if err := os.WriteFile(config, []byte("example.com {\n jwt {\n accounts {\n store file "+
			filepath.Join(dir, "users"+option[:len(option)/2]+".db")+"\n"+option+"\n}\n}\n}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &accountstest.CommandLine{TB: t, Where: []string{"--config", config}}
		_, stderr, err := c.Run(sitetest.GoodPassword, "user", "add", "--create", "--username", "bob")
		if err != nil || strings.Contains(stderr, "write `identifier any`") != notes {
			t.Errorf("%q: %s, %v", option, stderr, err)
		}
	}
}

// The name of a service is not that of a user, who could have chosen it to get the service's keys.
func TestThreatKeySubjectIsNoUserName(t *testing.T) {
	c, _ := newUserStore(t)
	id := strings.TrimSpace(c.Must(sitetest.GoodPassword, "user", "add", "--username", "billing", "billing@example.com"))
	c.Must("", "key", "add", "--subject", "billing")
	c.Must("", "key", "add", "--subject", "billing@example.com")
	list := c.Must("", "key", "list", "--json")
	if strings.Count(list, `"subject":"billing"`) != 1 || strings.Count(list, `"subject":"`+id+`"`) != 1 {
		t.Errorf("keys %s", list)
	}
}
