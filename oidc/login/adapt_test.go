package login_test

import (
	"path/filepath"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// TestAdapt runs the files of testdata/adapt as [sitetest.AdaptFiles] does.
func TestAdapt(t *testing.T) {
	for name, value := range map[string]string{
		"JWT_ISSUER": "https://tenant.example/", "JWT_CLIENT_ID": "site", "JWT_CLIENT_SECRET": "the-secret-of-the-site",
	} {
		t.Setenv(name, value)
	}
	t.Setenv("JWT_USERS", filepath.Join(t.TempDir(), "users.db"))
	sitetest.AdaptFiles(t)
}
