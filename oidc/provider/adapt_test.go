package provider_test

import (
	"path/filepath"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// TestAdapt runs the files of testdata/adapt as [sitetest.AdaptFiles] does.
func TestAdapt(t *testing.T) {
	t.Setenv("JWT_USERS", filepath.Join(t.TempDir(), "users.db"))
	sitetest.AdaptFiles(t)
}
