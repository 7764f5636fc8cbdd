package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// docsEnvironment has the variables for the placeholders in the pages.
var docsEnvironment = map[string]string{
	"JWT_SECRET":        strings.Repeat("a secret of sixty-four bytes or more; ", 2),
	"SMTP_PASSWORD":     "a password of a mail server",
	"MAILER_TOKEN":      "a-token-of-a-service-that-sends-mails",
	"JWT_SECRET_BASE64": "Zm9ydHktZWlnaHQgYnl0ZXMsIGVuY29kZWQgYXMgdGhleSBhcmUgbWFkZSE=",
}

// docsFiles replaces the files that the pages name.
var docsFiles = strings.NewReplacer(
	"/etc/caddy/issuer.pem", "testdata/keys/rsa2048.pub.pem", "/etc/caddy/languages", "testdata/languages",
	serviceAccount+"/token", "testdata/keys/secret.txt",
	serviceAccount+"/ca.crt", "testdata/keys/rsa2048.crt.pem",
)

var (
	caddyfileBlock = regexp.MustCompile("(?ms)^```caddyfile\n(.*?)^```$")
	jwtDirective   = regexp.MustCompile(`(?m)^\s*jwt(\s|$)`)
)

// TestDocsCaddyfiles validates each block of the pages that is marked as caddyfile and has the
// directive, as `caddy validate` does. A block that begins with the directive is the body of a
// site.
func TestDocsCaddyfiles(t *testing.T) {
	for name, value := range docsEnvironment {
		t.Setenv(name, value)
	}
	t.Setenv("XDG_DATA_HOME", sitetest.TempDir(t)) // where accounts are by default
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	providers, err := filepath.Glob("docs/providers/*.md")
	if err != nil {
		t.Fatal(err)
	}
	migration, err := filepath.Glob("docs/migration/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range slices.Concat(pages, providers, migration, []string{"README.md"}) {
		text, err := os.ReadFile(page)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range caddyfileBlock.FindAllSubmatchIndex(text, -1) {
			block := string(text[at[2]:at[3]])
			// tested by the packages that they need
			if !jwtDirective.MatchString(block) || strings.Contains(block, "store postgres") ||
				strings.Contains(block, "login_with") {
				continue
			}
			line := 1 + strings.Count(string(text[:at[2]]), "\n")
			t.Run(fmt.Sprintf("%s:%d", filepath.Base(page), line), func(t *testing.T) { testDocsCaddyfile(t, block) })
		}
	}
}

func testDocsCaddyfile(t *testing.T, block string) {
	config := docsFiles.Replace(block)
	if strings.HasPrefix(block, "jwt") {
		config = ":8080 {\n" + config + "}\n"
	}
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), nil)
	if err == nil {
		err = sitetest.Validate(t, adapted)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, config)
	}
}
