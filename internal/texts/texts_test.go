package texts_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/texts"
)

func standard(t *testing.T) *texts.Catalogue {
	t.Helper()
	catalogue, err := texts.Standard()
	if err != nil {
		t.Fatal(err)
	}
	return catalogue
}

// The language of an answer is the best of those that the client accepts, or else English.
func TestAccepting(t *testing.T) {
	catalogue := standard(t)
	for header, want := range map[string]string{
		"": "en", "de": "de", "de-CH;q=0.9, fr;q=0.8": "de", "fr;q=0.8, de;q=0.9": "de", "pt-BR": "pt", "pt-PT,en": "pt",
		"zh-CN": "zh", "zh-Hans-SG": "zh", "ja-JP": "ja", "en-GB,de;q=0.5": "en", "EN-us": "en", "es-419": "es",
		"sv": "en", "sv, fr;q=0.5": "fr", "xx, nl;q=0.1": "nl", "nl;q=0.1,x-": "nl", "*": "en", "*, de;q=0.1": "de", "tlh": "en", "de;q=0": "en", "fr;q=0, de": "de",
		"\x00\xff": "en", "de;q=x": "en", ";;;,,,": "en", "../../etc/passwd": "en", "de\r\nX: y": "en", "<script>": "en",
		strings.Repeat("de,", 4000): "en", strings.Repeat("a-", 500) + "b": "en",
	} {
		if got := catalogue.Accepting(header).Tag(); got != want {
			t.Errorf("%.60q: %s, not %s", header, got, want)
		}
		if again := catalogue.Accepting(header).Tag(); again != want {
			t.Errorf("%.60q, again: %s", header, again)
		}
	}
}

// Headers that are remembered have a limit.
func TestManyHeaders(t *testing.T) {
	catalogue := standard(t)
	for i := range 5000 {
		header := "de;q=0." + strings.Repeat("1", i%3+1) + ",x" + strings.Repeat("y", i%7) + ";q=0.0" + string(rune('a'+i%26))
		catalogue.Accepting(header + strings.Repeat(" ", i%900))
	}
	if got := catalogue.Accepting("pl").Tag(); got != "pl" {
		t.Errorf("%s", got)
	}
}

// Numbers take the form that the language has for them.
func TestPlurals(t *testing.T) {
	catalogue := standard(t)
	for language, all := range map[string]map[int]string{
		"en": {1: "1 minute ago", 2: "2 minutes ago", 5: "5 minutes ago"},
		"pl": {1: "1 minutę temu", 2: "2 minuty temu", 5: "5 minut temu", 12: "12 minut temu", 22: "22 minuty temu"},
		"de": {1: "vor 1 Minute", 5: "vor 5 Minuten"}, "ja": {1: "1分前", 5: "5分前"},
		"fr": {0: "il y a 0 minute", 1: "il y a 1 minute", 2: "il y a 2 minutes"},
	} {
		l, ok := catalogue.Named(language)
		if !ok {
			t.Fatal(language)
		}
		for n, want := range all {
			if got := l.Text("%d minutes ago", n); got != want {
				t.Errorf("%s, %d: %q, not %q", language, n, got, want)
			}
		}
	}
}

// A text that is not ours shows itself, whatever is in it.
func TestUnknownTexts(t *testing.T) {
	german, _ := standard(t).Named("de")
	for key, want := range map[string]string{
		"100 % of %s and %d": "100 % of %s and %d", "Log in": "Anmelden", "": "", "%[1000000000]d": "%[1000000000]d",
	} {
		if got := german.Text(key); got != want {
			t.Errorf("%q: %q", key, got)
		}
	}
	if got := german.Text("Dear %s of %s", "A%s", "B"); got != "Dear A%s of B" {
		t.Errorf("%q", got)
	}
	if got := german.ErrorText(texts.Errorf("must have at least %d characters", 12)); got != "muss mindestens 12 Zeichen haben" {
		t.Errorf("%q", got)
	}
}

// A folder adds languages and replaces texts; a wrong file is an error that says what would be right.
func TestFolder(t *testing.T) {
	open := func(files map[string]string) (*texts.Catalogue, error) {
		dir := t.TempDir()
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return texts.Open(dir, "")
	}
	catalogue, err := open(map[string]string{
		"ar.json":    `{"Log in": "تسجيل الدخول", "%d minutes ago": {"zero":"%d","one":"%d","two":"%d","few":"%d","many":"%d","other":"%d"}}`,
		"de.json":    `{"Log in": "Einloggen"}`,
		"de-AT.json": `{"Log out": "Baba"}`,
		"en.json":    `{"Log in": "Sign in"}`,
		"es-MX.json": `{"Log out": "Salir"}`,
		"README.txt": "not a language",
	})
	if err != nil {
		t.Fatal(err)
	}
	for tag, all := range map[string]map[string]string{
		"ar": {"Log in": "تسجيل الدخول", "Log out": "Log out"}, "de": {"Log in": "Einloggen", "Log out": "Abmelden"},
		"de-AT": {"Log in": "Einloggen", "Log out": "Baba"}, "es-MX": {"Log in": "Iniciar sesión", "Log out": "Salir"}, "en": {"Log in": "Sign in"}, "fr": {"Log in": "Se connecter"},
	} {
		l := catalogue.Accepting(tag)
		for key, want := range all {
			if got := l.Text(key); got != want || l.Tag() != tag {
				t.Errorf("%s: %s: %q, not %q", tag, l.Tag(), got, want)
			}
		}
	}
	if l := catalogue.Accepting("ar"); l.Direction() != "rtl" || catalogue.Accepting("de").Direction() != "ltr" {
		t.Error("directions")
	}
	for name, c := range map[string]struct{ file, text, want string }{
		"no tag":         {"german?.json", `{}`, "german?.json: the name must be the tag of a language, as in sv.json"},
		"no JSON":        {"sv.json", `{`, "sv.json: it must be a JSON object"},
		"a text twice":   {"sv.json", `{"Log in": "x", "Log in": "y"}`, `sv.json: it must be a JSON object of English texts`},
		"no UTF-8":       {"sv.json", "{\"Log in\": \"\xff\"}", "invalid UTF-8"},
		"unknown text":   {"sv.json", `{"Log inn": "x"}`, `sv.json: "Log inn" is not a text of this program; ` + "`caddy jwt texts`"},
		"empty":          {"sv.json", `{"Log in": " "}`, `sv.json: "Log in": its translation is empty`},
		"no string":      {"sv.json", `{"Log in": 1}`, "must be a string or"},
		"forms of none":  {"sv.json", `{"Log in": {"other": "x"}}`, "it has no number, so its translation must be a string"},
		"missing":        {"sv.json", `{"Log in to %s": "x"}`, `"Log in to %s": it must have %s, as the English text; it has no placeholder`},
		"another kind":   {"sv.json", `{"Log in to %s": "x %d"}`, "it must have %s, as the English text; it has %d"},
		"one too many":   {"sv.json", `{"Log in to %s": "%s %s"}`, "it must have %s"},
		"a stray %":      {"sv.json", `{"Log in to %s": "100 % %s"}`, "it has a % that is not one of the English text"},
		"category":       {"sv.json", `{"%d days": {"one": "%d", "few": "%d", "other": "%d"}}`, `no plural category "few"; it has one, other`},
		"lacks category": {"pl.json", `{"%d days": {"one": "%d", "other": "%d"}}`, `no form for the plural category "few"; the language has one, few, many`},
		"no date":        {"sv.json", `{"2 Jan 2006": "dd.mm.yyyy"}`, `"dd.mm.yyyy" must say how the day of 2 January 2006 is written`},
		"half a date":    {"sv.json", `{"2 Jan 2006, 15:04 UTC": "2006, 15:04 UTC"}`, "must say how the day"},
		"in a form":      {"sv.json", `{"%d days": {"one": "en", "other": "%d"}}`, "one: it must have %d"},
	} {
		if _, err := open(map[string]string{c.file: c.text}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, not %s", name, err, c.want)
		}
	}
	if _, err := texts.Open(filepath.Join(t.TempDir(), "none"), ""); err == nil || !strings.Contains(err.Error(), "create it") {
		t.Errorf("no folder: %v", err)
	}
	if _, err := open(map[string]string{"sv.json": `{"Log in to %s": "Hej %[1]s 100"}`}); err != nil {
		t.Errorf("control: %v", err)
	}
}

// A file can translate the texts of own templates, and of them only.
func TestOwnTexts(t *testing.T) {
	languages, templates := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(languages, "sv.json"), `{"The \"best\" shop, %s": "Den bästa affären, %s", "Bye": "Hej då"}`)
	write(filepath.Join(templates, "login.html"), `<p>{{with .Name}}{{t "The \"best\" shop, %s" .}}{{end}}</p>`)
	_, err := texts.Open(languages, templates)
	if err == nil || !strings.Contains(err.Error(), `"Bye" is not a text of this program`) {
		t.Errorf("a text of no template: %v", err)
	}
	write(filepath.Join(templates, "mail", "verify.txt"), `{{t "Bye"}}`)
	catalogue, err := texts.Open(languages, templates)
	if err != nil {
		t.Fatal(err)
	}
	if got := catalogue.Accepting("sv").Text(`The "best" shop, %s`, "x"); got != "Den bästa affären, x" {
		t.Errorf("the text is %q", got)
	}
}

// What is exported for a language can be read as its file.
func TestExport(t *testing.T) {
	for _, tag := range []string{"en", "de", "pt-BR", "pl", "sv", "ar", "ja", "cy", "es-MX"} {
		all, err := texts.Export(tag)
		if err != nil || len(all) < 400 {
			t.Fatalf("%s: %d texts, %v", tag, len(all), err)
		}
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, tag+".json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		catalogue, err := texts.Open(dir, "")
		if err != nil {
			t.Fatalf("%s: %v", tag, err)
		}
		if got, _ := catalogue.Named(tag); got.Tag() != tag || got.Text("%d days", 7) == "" {
			t.Errorf("%s: %s", tag, got.Tag())
		}
	}
	for tag, want := range map[string]string{"de": "Anmelden", "pt-BR": "Entrar", "es-MX": "Iniciar sesión", "sv": "Log in"} {
		if all, _ := texts.Export(tag); all["Log in"] != want {
			t.Errorf("%s: %v", tag, all["Log in"])
		}
	}
	if _, err := texts.Export("german!"); err == nil || !strings.Contains(err.Error(), "write it as in sv or pt-BR") {
		t.Errorf("%v", err)
	}
}
