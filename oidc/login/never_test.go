package login_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// What a preset's provider never sends can be no condition; and each preset needs a secret, unless the
// client is public.
func TestPresetsRefuseWhatCannotWork(t *testing.T) {
	dir := sitetest.TempDir(t)
	const secret = "\nclient_secret s"
	for _, c := range []struct{ preset, options, refused string }{
		{"github", "allow group acme" + secret, "allow organization <name>"},
		{"github", "allow organization acme" + secret, ""},
		{"github", "issuer https://github.example\nallow group acme" + secret, "allow organization <name>"},
		{"github", "roles_from groups staff editor" + secret, "roles_from organizations <name>"},
		{"github", "roles_from organizations acme editor" + secret, ""},
		{"github", "allow claim groups acme" + secret, "allow organization <name>"},
		{"discord", "allow group acme" + secret, "allow organization <ID of a server>"},
		{"discord", "allow organization 1" + secret, ""},
		{"gitlab", "allow organization acme" + secret, "allow group <path>"},
		{"gitlab", "allow group acme" + secret, ""},
		{"google", "allow group acme" + secret, "use allow domain"},
		{"google", "allow organization acme" + secret, "use allow domain"},
		{"google", "allow domain example.com" + secret, ""},
		{"google", "issuer https://id.example\nallow group acme" + secret, ""},
		{"linkedin", "allow group acme" + secret, "use allow domain"},
		{"x", "allow organization acme" + secret, "use allow domain"},
		{"facebook", "allow group acme" + secret, "never sends the claim groups"},
		{"facebook", "allow domain example.com" + secret, "set trust_email"},
		{"facebook", "allow domain example.com\ntrust_email" + secret, ""},
		{"microsoft", "allow group acme" + secret, ""},
		{"google", "", "client_secret is missing"},
		{"github", "", "client_secret is missing"},
		{"microsoft", "", "auth_method none"},
		{"google", "client_secret s", ""},
		{"microsoft", "auth_method none", ""},
	} {
		body := sitetest.AccountsBody(
			filepath.Join(dir, "users.db"), "login_with a {\npreset "+c.preset+"\nclient_id c\n"+c.options+"\n}",
		)
		adapted, err := sitetest.AdaptCaddyfile(t, body, sitetest.FreeAddress(t), dir, filepath.Join(dir, "log"))
		if err == nil {
			err = sitetest.Validate(t, adapted)
		}
		if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s, %s: %v, expected %q", c.preset, c.options, err, c.refused)
		}
	}
}
