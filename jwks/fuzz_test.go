package jwks_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/jwks"
)

func FuzzDiscovery(f *testing.F) {
	const issuer = "https://issuer.example"
	f.Fuzz(func(t *testing.T, text string) {
		found, err := jwks.ParseDiscovery([]byte(text), issuer)
		if err != nil {
			return
		}
		var document struct {
			Issuer  string `json:"issuer"`
			JWKSURI string `json:"jwks_uri"`
		}
		decoder := json.NewDecoder(strings.NewReader(text))
		if err := decoder.Decode(&document); err != nil {
			t.Fatalf("encoding/json refuses the document: %v", err)
		}
		if !strings.Contains(strings.ToLower(text), "issuer") || found == "" {
			t.Fatalf("accepted without an issuer or a URL: %q", text)
		}
	})
}
