package web_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// ownMails returns the option for templates of mails of one's own, and a function that writes one.
func ownMails(t *testing.T) (option string, write func(name, text string) (path string)) {
	dir := sitetest.TempDir(t)
	if err := os.Mkdir(filepath.Join(dir, "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	return "\n templates " + dir, func(name, text string) string {
		path := filepath.Join(dir, "mail", name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

// A template of a mail that cannot be used is an error of the config, with its file and line.
func TestBrokenMailTemplate(t *testing.T) {
	const good = "{{define \"subject\"}}x{{end}}\n{{define \"text\"}}{{.Data.Code}}{{end}}"
	for name, c := range map[string]struct{ file, text, line string }{
		"syntax":              {"reset.txt", good + "\n{{if}}", ":3"},
		"an unknown property": {"account-exists.txt", "{{define \"subject\"}}x{{end}}\n{{define \"text\"}}{{.Data.Cod}}{{end}}", ":2"},
		"no subject":          {"email.txt", `{{define "text"}}x{{end}}`, ""},
		"of HTML":             {"verify.html", "{{define \"content\"}}\n{{.Data.Cod}}{{end}}", ":2"},
		"of another language": {"login.de.txt", "{{define \"subject\"}}x{{end}}\n{{define \"text\"}}{{.Data.Cod}}{{end}}", ":2"},
		"of the layout":       {"layout.html", "\n\n{{.Sit}}", ":3"},
		"of the test mail":    {"test.txt", good, ":2"},
	} {
		t.Run(name, func(t *testing.T) {
			option, write := ownMails(t)
			path := write(c.file, c.text)
			if c.file == "verify.html" {
				write("verify.txt", good)
			}
			got := sitetest.ConfigError(t, sitetest.AccountsBody(
				filepath.Join(t.TempDir(), "users.db"), "mail smtp://127.0.0.1:25 {\n from no-reply@example.com\n}"+option,
			))
			if !strings.Contains(got, path+c.line) && !strings.Contains(got, path+`"`) {
				t.Errorf("the error is %s, without %s", got, path+c.line)
			}
		})
	}
}

// Whether an address has an account is not seen by a mail that cannot be written or queued.
func TestThreatEnumerationByMailsNotQueued(t *testing.T) {
	option, write := ownMails(t)
	p := mailSite(t, "verify_email\n email_login"+option)
	token := p.verified("alice@example.com").Token
	ask := func(path, email string) sitetest.Reply {
		body := sitetest.JSON{"email": email}
		if path == "/auth/signup" {
			body = sitetest.CredentialsOf(email)
		}
		return p.Post(path, body, bearer(token))
	}
	paths := []string{"/auth/signup", "/auth/forgot", "/auth/code", "/auth/email"}
	same := func(what string, wantStatus int) {
		t.Helper()
		p.signUpOther()
		for _, path := range paths {
			taken, free := ask(path, "bob@example.com"), ask(path, "carol@example.com")
			if taken.Status != wantStatus || free.Status != taken.Status || free.Body != taken.Body ||
				fmt.Sprint(free.Header["Retry-After"]) != fmt.Sprint(taken.Header["Retry-After"]) {
				t.Errorf("%s, %s: taken %d %s, free %d %s", what, path, taken.Status, taken.Body, free.Status, free.Body)
			}
		}
	}
	same("control", 202)
	for _, name := range []string{"account-exists.txt", "verify.txt", "email.txt", "reset.txt", "login.txt"} {
		path := write(name, "{{if}}")
		same(name, 202)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.Log(); strings.Count(got, "mail-not-written") != 1 || strings.Contains(got, "bob@example.com") {
		t.Error("the log has no warning, or too many, or an address")
	}
	for i := range 1001 {
		if err := accountstest.StoreOf(t).CreateRecord(t.Context(), store.Record{
			Kind: "mail of " + accountstest.ServiceOf(t).Config.Issuer, ID: fmt.Sprint("full-", i),
			Value: []byte(`{"not_before":"` + time.Now().Add(30*time.Minute).Format(time.RFC3339) + `"}`),
		}); err != nil {
			t.Fatal(err)
		}
	}
	sitetest.Eventually(t, "the outbox is full", func() bool { return ask("/auth/forgot", "carol@example.com").Status == 503 })
	same("a full outbox", 503)
}

// signUpOther makes sure that bob@example.com has an account.
func (p *postbox) signUpOther() {
	p.T.Helper()
	users := accountstest.StoreOf(p.T)
	err := users.CreateUser(p.T.Context(), store.User{ID: "bob", Email: "bob@example.com", EmailKey: "bob@example.com"})
	if err != nil && err != store.ErrEmailTaken {
		p.T.Fatal(err)
	}
}

// A page that cannot be shown is an error when the config is loaded.
func TestPageTemplatesAreChecked(t *testing.T) {
	for what, c := range map[string]struct{ file, text, want string }{
		"no content":       {"login.html", "hello", `login.html cannot be shown`},
		"an unknown field": {"login.html", `{{define "title"}}x{{end}}{{define "content"}}{{.Nope}}{{end}}`, "Nope"},
		"an unknown field of a part": {
			"passkeys.html", `{{define "title"}}x{{end}}{{define "content"}}{{.Passkeys.Nope}}{{end}}`, "Nope",
		},
		"control": {"login.html", `{{define "title"}}x{{end}}{{define "content"}}{{.Email}}{{end}}`, ""},
	} {
		dir := sitetest.TempDir(t)
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		adapted, err := sitetest.AdaptCaddyfile(t, sitetest.AccountsBody(
			filepath.Join(dir, "users.db"), "second_factor optional\npasskeys localhost\ntemplates "+dir,
		), "localhost:8080", dir, filepath.Join(dir, "log.json"))
		if err == nil {
			err = sitetest.Validate(t, adapted)
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
