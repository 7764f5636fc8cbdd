package cli_test

import (
	stdjson "encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/google/uuid"
)

// otherIDs are IDs as other systems make them.
var otherIDs = []string{
	"auth0|64f1c0de5f1a2b3c4d5e6f70", "google-oauth2|117204811732384958102", "samlp|conn|carol@example.com",
	"507f1f77bcf86cd799439011", "aVXGwVBCuqQ0tZ2hB1jCkqQwSl23", "us-east-1:0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
	"42", "00u1abcdEFGHijk.2", "_x~y=(z)!+", strings.Repeat("z", 255), "dave@example.net",
}

// An ID of another system is kept, and names its user.
func TestImportIDs(t *testing.T) {
	for _, format := range []string{"jsonl", "csv"} {
		c, _ := newUserStore(t)
		text := "email,password_hash,id\n"
		if format == "jsonl" {
			text = ""
		}
		for i, id := range otherIDs {
			if format == "csv" {
				text += fmt.Sprintf("user%d@example.com,,%s\n", i, id)
			} else {
				text += fmt.Sprintf(`{"email":"user%d@example.com","password_hash":"","id":%q}`+"\n", i, id)
			}
		}
		accountstest.Has(t, c.Must(text, "user", "import", "--format", format, "-"), fmt.Sprint("imported ", len(otherIDs)))
		exported := c.Must("", "user", "export", "--format", format)
		other, _ := newUserStore(t)
		other.Must(exported, "user", "import", "--format", format, "-")
		if again := other.Must("", "user", "export", "--format", format); again != exported {
			t.Errorf("exported, imported and exported it is\n%s\nand was\n%s", again, exported)
		}
		for i, id := range otherIDs {
			email := fmt.Sprintf("user%d@example.com", i)
			for _, name := range []string{id, email} {
				if got := c.Must("", "user", "show", name, "--json"); !strings.Contains(got, fmt.Sprintf(`"id":%q`, id)) ||
					!strings.Contains(got, fmt.Sprintf(`"email":%q`, email)) {
					t.Errorf("%s names %s", name, got)
				}
			}
			accountstest.Has(t, c.Must("", "key", "add", "--subject", id, "--json"), fmt.Sprintf(`"subject":%q`, id))
		}
	}
}

// If an ID looks like the address of another user, a command never chooses between the two.
func TestThreatIDThatIsAnAddress(t *testing.T) {
	c, _ := newUserStore(t)
	c.Must("email,password_hash,id\nalice@example.com,,mallory@example.com\n", "user", "import", "--format", "csv", "-")
	c.Must("", "user", "show", "mallory@example.com")
	c.Must("", "user", "add", "--no-password", "mallory@example.com")
	for _, args := range [][]string{
		{"user", "disable", "--yes"}, {"user", "delete", "--yes"}, {"user", "reset-link", "--base", "https://example.com"},
		{"key", "add", "--subject"},
	} {
		c.Refuses("", "and another user has this ID", append(args, "mallory@example.com")...)
	}
	accountstest.Has(t, c.Must("", "user", "disable", "--yes", "alice@example.com"), "alice@example.com is disabled")
	c.Refuses("", `the e-mail address "a|b@" must look like`, "user", "show", "a|b@")
	c.Refuses("", "there is no user", "user", "show", "nobody@example.com")
}

// An ID that would break where a site puts it is refused with the reason.
func TestThreatImportedIDs(t *testing.T) {
	c, _ := newUserStore(t)
	for id, want := range map[string]string{
		"app@clients": "not end with @clients", "APP@Clients": "not end with @clients",
		strings.Repeat("z", 256): "1 to 255", ".": "1 to 255", "..": "1 to 255", "-x": "1 to 255", "=1+1": "1 to 255",
		"@x": "1 to 255", "a/b": "1 to 255", `a\b`: "1 to 255", "a b": "1 to 255", "a,b": "1 to 255", "a;b": "1 to 255",
		"a%2fb": "1 to 255", "a?b": "1 to 255", "a#b": "1 to 255", "a*": "1 to 255", "a[b]": "1 to 255",
		"{env.HOME}": "1 to 255", "a{b}": "1 to 255", "a<b>": "1 to 255", `a"b`: "1 to 255", "a'b": "1 to 255",
		"a`b": "1 to 255", "a$b": "1 to 255", "a&b": "1 to 255", "a\r\nb": "1 to 255", "a\x00": "1 to 255",
		"ä": "1 to 255", "a\u200b": "1 to 255", "https://id.example.com/1": "1 to 255",
	} {
		line, err := stdjson.Marshal(map[string]string{"email": "a@example.com", "password_hash": "", "id": id})
		if err != nil {
			t.Fatal(err)
		}
		_, said, err := c.Run(string(line), "user", "import", "--format", "jsonl", "-")
		if err == nil || !strings.Contains(said, "id must be a UUID, or") || !strings.Contains(said, want) {
			t.Errorf("%q: %s", id, said)
		}
	}
	id := strings.ToUpper(uuid.NewString())
	c.Must(
		fmt.Sprintf(`{"email":"a@example.com","password_hash":"","id":%q}`, id),
		"user", "import", "--format", "jsonl", "-",
	)
	accountstest.Has(t, c.Must("", "user", "show", id, "--json"), strings.ToLower(id))
}
