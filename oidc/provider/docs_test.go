package provider_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

var caddyfileBlock = regexp.MustCompile("(?ms)^```caddyfile\n(.*?)^```$")

// TestDocsCaddyfiles validates the blocks of the pages that need this package, as `caddy validate`
// does.
func TestDocsCaddyfiles(t *testing.T) {
	for _, name := range []string{"SHOP_SECRET", "REPORT_SECRET", "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET"} {
		t.Setenv(name, appSecret)
	}
	t.Setenv("XDG_DATA_HOME", t.TempDir()) // where accounts are by default
	found := 0
	for _, page := range []string{"accounts.md", "oidc.md", "mcp.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range caddyfileBlock.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(block[1], "login_with") && !strings.Contains(block[1], "oidc_provider") {
				continue
			}
			found++
			t.Run(fmt.Sprint(page, i), func(t *testing.T) {
				adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(block[1]), nil)
				if err == nil {
					err = sitetest.Validate(t, adapted)
				}
				if err != nil {
					t.Errorf("%v\n%s", err, block[1])
				}
			})
		}
	}
	if found == 0 {
		t.Error("no blocks are found")
	}
}
