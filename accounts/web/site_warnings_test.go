package web_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// Sites that share their users, but let them in by other rules, are warned of, once.
func TestSitesWithOtherRules(t *testing.T) {
	const mailTo = "mail smtp://127.0.0.1:25 {\n from no-reply@example.com\n}\n"
	for name, c := range map[string]struct {
		first, second string
		store, issuer bool // another one
		says          []string
	}{
		"no second factor": {"second_factor required admin", "", false, false,
			[]string{" has `second_factor required admin`", " has no second_factor", "import"}},
		"no verified addresses, and codes": {mailTo + "verify_email", mailTo + "email_login", false, false,
			[]string{"has `verify_email`", "has no verify_email", "has `email_login`", "has no email_login"}},
		"passkeys":                           {"passkeys localhost", "", false, false, []string{"has `passkeys localhost`", "has no passkeys"}},
		"control: the same":                  {"second_factor optional", "second_factor optional", false, false, nil},
		"control: another, unrelated option": {"second_factor optional", "second_factor optional\nname Shop", false, false, nil},
		"control: another store":             {"second_factor optional", "", true, false, nil},
		"another issuer": {"second_factor optional", "", false, true,
			[]string{"has `second_factor optional`", "has no second_factor", "different stores"}},
		"control: another issuer": {mailTo + "second_factor optional\nverify_email", "second_factor optional", false, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sitetest.TempDir(t)
			other, more := "users.db", ""
			if c.store {
				other = "others.db"
			}
			if c.issuer {
				more = "\nissuer other"
			}
			body := func(file, options string) string {
				return "jwt {\n accounts {\n store file " + filepath.Join(dir, file) + "\n" + options + "\n}\n}"
			}
			log := filepath.Join(dir, "log.json")
			one, two := "http://"+sitetest.FreeLocalhost(t), "http://"+sitetest.FreeLocalhost(t)
			third := "http://" + sitetest.FreeLocalhost(t) // as the second
			sitetest.RunSites(t, log, one+" {\n"+body("users.db", c.first)+"\n}\n"+
				two+" {\n"+body(other, c.second+more)+"\n}\n"+third+" {\n"+body(other, c.second+more)+"\n}\n")
			got := (&sitetest.Site{T: t, LogFile: log}).Log()
			if want := min(len(c.says), 1); strings.Count(got, "sites-with-other-rules") != want {
				t.Errorf("expected %d warnings: %s", want, got)
			}
			for _, text := range append(c.says, map[bool]string{true: one, false: ""}[c.says != nil]) {
				if !strings.Contains(got, text) {
					t.Errorf("no %q", text)
				}
			}
		})
	}
}

// If mails lead to a host that is not served here, the log says so.
func TestMailLinksLeadElsewhere(t *testing.T) {
	for name, c := range map[string]struct {
		issuer, hosts, more string
		warns               bool
	}{
		"another host":                   {"https://id.example.com", "http://example.com", "", true},
		"control: the same":              {"http://example.com", "http://example.com", "", false},
		"control: one of two":            {"https://id.example.com", "http://example.com, http://id.example.com", "", false},
		"control: all hosts":             {"https://id.example.com", "", "", false},
		"control: a wildcard":            {"https://id.example.com", "http://*.example.com", "", false},
		"control: another site":          {"https://id.example.com", "http://example.com", "http://id.example.com", false},
		"control: no URL":                {"films", "http://example.com", "", false},
		"another site with another host": {"https://id.example.com", "http://example.com", "http://x.example.com", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, port := sitetest.TempDir(t), ":"+sitetest.FreePort(t)
			log := filepath.Join(dir, "log.json")
			hosts := strings.ReplaceAll(c.hosts+",", ",", port+",")
			text := strings.TrimSuffix(hosts, ",") + " {\n jwt {\n accounts {\n store file " + filepath.Join(dir, "users.db") +
				"\n issuer " + c.issuer + "\n mail smtp://127.0.0.1:25 {\n from no-reply@example.com\n}\n}\n}\n}\n"
			if c.more != "" {
				text += c.more + port + " {\n respond ok\n}\n"
			}
			sitetest.RunSites(t, log, text)
			if got := (&sitetest.Site{T: t, LogFile: log}).Log(); strings.Contains(got, "mail-links-lead-elsewhere") != c.warns {
				t.Errorf("expected a warning: %t: %s", c.warns, got)
			}
		})
	}
}
