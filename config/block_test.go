package config_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// The error about a misspelt option names the option that was probably meant, or lists all of
// them, and suspects a brace if it is a directive. It does not show text that may be a line of a secret.
func TestUnknownOption(t *testing.T) {
	config.RegisterForeign("test", "docs/other.md", "sign_key")
	for word, want := range map[string]string{
		"audiense":                       "did you mean audience?",
		"token_typ":                      "did you mean token_type?",
		"token-type":                     "did you mean token_type?",
		"backchannel_logout_session_uri": "; it has ",
		"Audience":                       "did you mean audience?",
		"lewe":                           "no option \"lewe\"; it has audience, leeway and token_type",
		"leewya":                         "did you mean leeway?",
		"aud":                            "did you mean audience?",
		"leeways_of_time":                "did you mean leeway?",
		"something":                      "no option \"something\"; it has audience, leeway and token_type",
		"Zm9vYmFyYmF6cXV4cXV1eA==":       "has no such option; it has ",
		"{":                              "unexpected block",
		"leeways":                        "did you mean leeway?",
		"respond":                        "is a } missing above?",
		"reverse_proxy":                  "is a } missing above?",
		"sign_key":                       "of another plugin; what to write instead is in docs/other.md",
	} {
		_, err := read("test {\n\t" + word + " value\n}")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; expected %q", word, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "; it has ") && !strings.Contains(want, "it has ") {
			t.Errorf("%s: %v lists all options", word, err)
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

// The error about a value that is empty names what has no value, and shows none.
func TestWhyEmpty(t *testing.T) {
	t.Setenv("TEST_SET", "the-value")
	file := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for written, want := range map[string]string{
		"{env.TEST_UNSET}":                   "is the environment variable TEST_UNSET set?",
		"a{env.TEST_SET}b{env.TEST_UNSET}":   "is the environment variable TEST_UNSET set?",
		"{env.TEST_UNSET}{env.TEST_UNSET_2}": "variable TEST_UNSET set and is the environment variable TEST_UNSET_2 set?",
		"{file." + file + "}":                "does the file " + file + " exist, with a text in it?",
		"{env.TEST_SET}":                     "is the environment variable set, and does the file exist?",
		"{http.request.host}":                "is the environment variable set, and does the file exist?",
		"a secret {of mine}":                 "is the environment variable set, and does the file exist?",
	} {
		if got := config.WhyEmpty(written); !strings.HasSuffix(got, want) || strings.Contains(got, "the-value") {
			t.Errorf("%s: %s", written, got)
		}
	}
	_, err := (&config.Secret{Value: "{env.TEST_UNSET}"}).Key()
	if err == nil || !strings.Contains(err.Error(), "TEST_UNSET set?") {
		t.Errorf("secret: %v", err)
	}
	if _, err := config.LoadPublicKeys("{env.TEST_UNSET}"); err == nil || !strings.Contains(err.Error(), "TEST_UNSET set?") {
		t.Errorf("public_key: %v", err)
	}
}
