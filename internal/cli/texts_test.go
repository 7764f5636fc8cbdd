package cli_test

import (
	"encoding/json"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
)

// The texts to translate are printed as JSON, with what there is in the language.
func TestTextsCommand(t *testing.T) {
	c := &accountstest.CommandLine{TB: t}
	for language, want := range map[string]string{"de": "Anmelden", "sv": "Log in"} {
		var all map[string]any
		if err := json.Unmarshal([]byte(c.Must("", "texts", "--language", language)), &all); err != nil ||
			all["Log in"] != want || len(all) < 400 {
			t.Errorf("%s: %v, %d texts, %v", language, err, len(all), all["Log in"])
		}
	}
	c.Refuses("", `--language: "x!" is not the tag of a language; write it as in sv or pt-BR`, "texts", "--language", "x!")
	c.Refuses("", "unknown flag: --langauge; did you mean --language", "texts", "--langauge", "de")
}
