package provider_test

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// client show takes --json, as other commands that show something do, and prints the same without it.
func TestClientShowTakesJSON(t *testing.T) {
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", filepath.Join(sitetest.TempDir(t), "users.db")}}
	c.Must("", "client", "add", "--create", "--public", "--redirect-uri", "https://wiki.example/", "wiki")
	plain, asJSON := c.Must("", "client", "show", "wiki"), c.Must("", "client", "show", "--json", "wiki")
	if plain != asJSON || !json.Valid([]byte(asJSON)) {
		t.Errorf("%s and %s", plain, asJSON)
	}
	c.Refuses("", "unknown flag", "client", "show", "--yaml", "wiki")
}
