package config_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// The error about a misspelt option names the option that was probably meant, and lists all of
// them. It does not show text that may be a line of a secret.
func TestUnknownOption(t *testing.T) {
	for word, want := range map[string]string{
		"audiense":                       "did you mean audience?",
		"token_typ":                      "did you mean token_type?",
		"token-type":                     "did you mean token_type?",
		"backchannel_logout_session_uri": "no option",
		"Audience":                       "did you mean audience?",
		"lewe":                           "no option \"lewe\"; it has audience, leeway and token_type",
		"leewya":                         "did you mean leeway?",
		"aud":                            "did you mean audience?",
		"leeways_of_time":                "did you mean leeway?",
		"something":                      "no option \"something\"; it has audience, leeway and token_type",
		"Zm9vYmFyYmF6cXV4cXV1eA==":       "has no such option",
		"{":                              "unexpected block",
	} {
		_, err := read("test {\n\t" + word + " value\n}")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; expected %q", word, err, want)
		}
		if err != nil && strings.HasSuffix(word, "=") && strings.Contains(err.Error(), word) {
			t.Errorf("%s is shown: %v", word, err)
		}
		if err != nil && !strings.Contains(err.Error(), "Testfile:2") {
			t.Errorf("%s: %v names no line", word, err)
		}
	}
}

func TestOptionsOnce(t *testing.T) {
	if _, err := read("test {\n\tleeway 1s\n\tleeway 2s\n}"); err == nil ||
		!strings.Contains(err.Error(), "leeway is specified twice") {
		t.Errorf("twice: %v", err)
	}
	got, err := read("test {\n\taudience a\n\taudience b c\n\tleeway 5s\n}")
	if err != nil || strings.Join(got.audience, " ") != "a b c" || got.leeway != caddy.Duration(5e9) {
		t.Errorf("control: %+v, %v", got, err)
	}
}

type options struct {
	audience  []string
	leeway    caddy.Duration
	tokenType string
}

func read(text string) (o options, err error) {
	d := caddyfile.NewTestDispenser(text)
	d.Next()
	return o, config.ReadBlock(d, "test", []config.Option{
		{Name: "audience", Read: config.Words("values", &o.audience), Repeatable: true},
		{Name: "leeway", Read: config.Duration(&o.leeway)},
		{Name: "token_type", Read: config.Word("a typ", &o.tokenType)},
	})
}

// An option that once had a single value still reads it, and a single value is written as before.
func TestOneOrMore(t *testing.T) {
	for text, values := range map[string]int{`"a"`: 1, `["a","b"]`: 2, `[]`: 0} {
		var o config.OneOrMore
		if err := json.Unmarshal([]byte(text), &o); err != nil || len(o) != values {
			t.Errorf("%s: %q, %v", text, o, err)
		}
		if written, err := json.Marshal(o); err != nil || string(written) != text {
			t.Errorf("%s is written as %s, %v", text, written, err)
		}
	}
	for _, none := range []string{`""`, `null`} {
		o := config.OneOrMore{"before"}
		if err := json.Unmarshal([]byte(none), &o); err != nil || o != nil {
			t.Errorf("%s: %q, %v", none, o, err)
		}
	}
	for _, wrong := range []string{`1`, `{}`, `["a",1]`} {
		if err := json.Unmarshal([]byte(wrong), new(config.OneOrMore)); err == nil {
			t.Errorf("%s is read", wrong)
		}
	}
}
