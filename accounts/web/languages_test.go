package web_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/store"
)

func accepting(language string) string { return "Accept-Language: " + language }

// otherScript writes a folder with a language in which every text is there, in Arabic letters and
// a third longer than in English.
func otherScript(t *testing.T) string {
	t.Helper()
	word := regexp.MustCompile(`%(\[\d+\])?[sd]|[A-Za-z][A-Za-z'-]*`)
	all := make(map[string]any)
	for key := range texts.Keys() {
		text := word.ReplaceAllStringFunc(key, func(word string) string {
			if strings.HasPrefix(word, "%") {
				return word
			}
			return strings.Repeat("كلمة", len(word)/3+1)[:2*(len(word)+len(word)/3+1)]
		})
		if strings.HasPrefix(key, "2 Jan") {
			text = "2006/01/02"
		}
		all[key] = text
		if strings.Contains(key, "%d") {
			forms := make(map[string]string)
			for _, category := range []string{"zero", "one", "two", "few", "many", "other"} {
				forms[category] = text
			}
			all[key] = forms
		}
	}
	dir := t.TempDir()
	text, err := json.Marshal(all)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ar.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Pages, refusals and errors of fields are in the language that the client accepts, or in English.
func TestLanguages(t *testing.T) {
	s := sitetest.AccountsSite(t, "languages "+otherScript(t))
	for accepted, want := range map[string][2]string{
		"de-CH;q=0.9, fr;q=0.8": {"de", "Anmelden"}, "pl": {"pl", "Zaloguj się"}, "ja": {"ja", "ログイン"},
		"zh-CN, en;q=0.5": {"zh", "登录"}, "en": {"en", "Log in"}, "": {"en", "Log in"}, "tlh": {"en", "Log in"},
		"*": {"en", "Log in"}, "\x80;;q=": {"en", "Log in"}, strings.Repeat("de, ", 2500): {"en", "Log in"},
	} {
		page := s.Get("/auth/login", browserAccept, accepting(accepted))
		mustHave(t, page, accepted, `<html lang="`+want[0]+`" dir="ltr">`, "<h1>"+want[1]+"</h1>", "<button>"+want[1]+"</button>")
		if page.Header.Get("Content-Language") != want[0] || page.Header.Get("Vary") != "Accept-Language" {
			t.Errorf("%.40q: headers %v", accepted, page.Header)
		}
	}
	page := s.Get("/auth/login", browserAccept, accepting("ar-EG"))
	mustHave(t, page, "from right to left", `<html lang="ar" dir="rtl">`, "<h1>كلم")

	// refusals: as a page, and as JSON
	mustHave(
		t, s.Get("/auth/refresh", browserAccept, accepting("de")), "a refusal as a page", "Diese Seite kann das nicht",
		"Diese Methode ist hier nicht erlaubt.",
	)
	wrong := sitetest.JSON{"email": "alice@example.com", "password": "wrong password"}
	for language, want := range map[string]string{
		"de": "E-Mail-Adresse oder Passwort ist falsch.", "en": "Invalid email or password.",
		"fr": "Adresse e-mail ou mot de passe incorrect.",
	} {
		got := s.Post("/auth/login", wrong, accepting(language))
		if answer := got.ErrorBody(t).Error; got.Status != 401 || answer.Message != want || answer.Code != "invalid_credentials" ||
			got.Header.Get("Content-Language") != language {
			t.Errorf("%s: %+v %v", language, answer, got.Header)
		}
	}
	if got := s.Post("/auth/login", wrong); got.ErrorBody(t).Error.Message != "Invalid email or password." {
		t.Errorf("a program without a language: %s", got.Body)
	}
	// what is also in the challenge stays in English
	got := s.Bearer("/auth/whoami", "no.token.x")
	inGerman := s.Get("/auth/whoami", "Authorization: Bearer no.token.x", accepting("de"))
	if inGerman.Body != got.Body || !strings.Contains(got.Body, "the token") ||
		inGerman.Header.Get("WWW-Authenticate") != got.Header.Get("WWW-Authenticate") {
		t.Errorf("%s %v", inGerman.Body, inGerman.Header)
	}
	mustHave(
		t, s.Get("/auth/whoami", browserAccept, accepting("de"), "Authorization: Bearer no.token.x"), "for people",
		"Bitte melden Sie sich an", "Ihre Anmeldung ist hier ungültig oder beendet.",
	)

	// errors of fields
	got = s.Post("/auth/signup", sitetest.JSON{"email": "alice", "password": "short", "x": 1}, accepting("de"))
	messages := map[string]string{}
	for _, detail := range got.ErrorBody(t).Error.Details {
		messages[detail.Path+" "+detail.Code] = detail.Message
	}
	for of, want := range map[string]string{
		"/email format": "muss aussehen wie name@example.com", "/password minLength": "muss mindestens 8 Zeichen haben",
		"/x additionalProperties": "ist keine bekannte Eigenschaft",
	} {
		if messages[of] != want {
			t.Errorf("%s: %q", of, messages[of])
		}
	}
	refused := s.Form(http.DefaultClient, "/auth/signup", url.Values{"email": {"alice"}}, accepting("fr"), browserAccept)
	mustHave(
		t, refused, "a form", "Erreur : Créer un compte", "Adresse e-mail : la forme attendue est name@example.com.",
		"Mot de passe : saisie obligatoire.", "Veuillez vérifier votre saisie :",
	)
}

// Times, in the plural that the language has.
func TestLanguageOfTimes(t *testing.T) {
	clock := sitetest.SetClock(t)
	s := sitetest.AccountsSite(t, "refresh_lifetime 30d")
	alice := s.Visitor()
	alice.SignUp("alice@example.com")
	s.LoggedIn("alice@example.com")
	account := func(language string) sitetest.Reply {
		return alice.Do("GET", "/auth/account", nil, browserAccept, accepting(language))
	}
	mustHave(t, account("pl"), "now", "Ostatnie użycie: <time datetime=", ">przed chwilą</time> z 127.0.0.1")
	for _, c := range []struct {
		minutes int
		want    string
	}{{1, "1 minutę temu"}, {2, "2 minuty temu"}, {5, "5 minut temu"}} {
		clock.Ahead.Store(int64(c.minutes)*60 + 1)
		mustHave(t, account("pl"), "later", ">"+c.want+"</time>")
	}
	mustHave(t, account("de"), "a date", "Angemeldet seit <time datetime=", time.Now().UTC().Format("02.01.2006, "))
	mustHave(t, account("ja"), "a date", time.Now().UTC().Format("2006/01/02 "))
}

// Mails are in the language of the user, or else of who asks for them.
func TestLanguageOfMails(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, own := range map[string]string{
		"reset.sv.txt":  `{{define "subject"}}Eget brev{{end}}{{define "text"}}Koden: {{.Data.Code}}{{end}}`,
		"reset.sv.html": `{{define "content"}}Koden: {{.Data.Code}}{{end}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, "mail", name), []byte(own), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := mailSite(t, "verify_email\nprofile locale\ntemplates "+dir)
	p.MustAnswer(202, p.Post(
		"/auth/signup", sitetest.JSON{"email": "new@example.com", "password": sitetest.GoodPassword}, accepting("de"),
	), "sign-up")
	if got := p.next(); !strings.Contains(got.Text, "Der Code ist: ") || !strings.Contains(got.Text, "Gültig für 15 Minuten.") {
		t.Errorf("of who asks: %+v", got)
	}
	p.MustAnswer(202, p.Post("/auth/signup", sitetest.JSON{
		"email": "pl@example.com", "password": sitetest.GoodPassword, "locale": "pl-PL",
	}, accepting("de")), "sign-up")
	if got := p.next(); !strings.Contains(got.Text, "Ważne przez 15 minut.") {
		t.Errorf("of the profile: %+v", got)
	}
	forgot := func(locale any) letter {
		t.Helper()
		accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Profile = map[string]any{"locale": locale} })
		p.MustAnswer(202, p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"}, accepting("fr")), "forgot")
		return p.next()
	}
	p.signUp("alice@example.com", sitetest.GoodPassword)
	p.MustAnswer(200, p.Post("/auth/verify", sitetest.JSON{"email": "alice@example.com", "code": p.next().Code}), "verify")
	for locale, want := range map[any]string{
		"de_DE": "Der Code ist: ", "ja": "コード：", "": "Le code est : ", "?": "Le code est : ", 1: "Le code est : ",
		"sv": "Koden: ", "tlh": "The code is: ",
	} {
		if got := forgot(locale); !strings.Contains(got.Text, want) {
			t.Errorf("%v: %+v", locale, got)
		}
	}
	// The answer does not depend on the language of the account.
	same := func(email string) sitetest.Reply {
		got := p.Post("/auth/forgot", sitetest.JSON{"email": email}, accepting("fr"))
		got.Header.Del("Date")
		return got
	}
	if a, b := same("alice@example.com"), same("nobody@example.com"); a.Body != b.Body || a.Status != b.Status ||
		len(a.Header) != len(b.Header) || a.Header.Get("Content-Language") != b.Header.Get("Content-Language") {
		t.Errorf("%+v %+v", a, b)
	}
}

// No page is heavy in any language, and no refusal is longer than 8 KiB.
func TestLanguagesAreLight(t *testing.T) {
	p, _ := axeSite(t, "languages "+otherScript(t))
	files := len(p.Get("/auth/style.css").Body) + len(p.Get("/auth/script.js").Body)
	alice := p.Visitor()
	alice.SignUp("alice@example.com")
	long := strings.Repeat("<x>", 5000)
	for _, language := range []string{"ar", "de", "en", "es", "fr", "it", "ja", "nl", "pl", "pt", "zh"} {
		for _, path := range []string{
			"login", "signup", "forgot", "code", "account", "delete", "logout", "email", "factors", "keys", "passkeys",
			"refresh", "reset?token=x",
		} {
			page := alice.Do("GET", "/auth/"+path, nil, browserAccept, accepting(language))
			if weight := len(page.Body) + files; weight > maxPageBytes {
				t.Errorf("%s of %s: %d bytes", language, path, weight)
			}
			if strings.Contains(page.Body, "%!") || strings.Contains(page.Body, "{{") {
				t.Errorf("%s of %s: %s", language, path, page.Body)
			}
			if page.Header.Get("Content-Language") != language {
				t.Errorf("%s of %s: %d in %s", language, path, page.Status, page.Header.Get("Content-Language"))
			}
		}
		for path, form := range map[string]url.Values{
			"login":  {"email": {long}, "password": {"wrong"}, "return_to": {"/?" + strings.Repeat("a='&", 500)}},
			"signup": {"email": {long}, "password": {"wrong"}, "name": {long}},
			"delete": {"decision": {"yes"}}, "email": {"email": {"x"}}, "password": {"newPassword": {"short"}},
			"passkeys/options": {"password": {"wrong"}}, "factors/totp": {"password": {"wrong"}},
		} {
			got := alice.Post("/auth/"+path, form, browserAccept, accepting(language))
			if got.Status >= 400 && len(got.Body) >= 8<<10 {
				t.Errorf("%s of a refusal of %s: %d, %d bytes", language, path, got.Status, len(got.Body))
			}
		}
		unknown := make(map[string]any)
		for i := range 100 {
			unknown[strings.Repeat(`"`, 60)+string(rune('a'+i%26))+strings.Repeat("x", i)] = 1
		}
		if got := p.Post("/auth/signup", unknown, accepting(language)); got.Status != 422 || len(got.Body) >= 8<<10 {
			t.Errorf("%s of errors: %d, %d bytes", language, got.Status, len(got.Body))
		}
	}
}

// A wrong file of a language is an error when the config is loaded.
func TestLanguageFolderIsChecked(t *testing.T) {
	dir := t.TempDir()
	check := func() string {
		return sitetest.ConfigError(t, sitetest.AccountsBody(t.TempDir()+"/users.db", "languages "+dir))
	}
	if err := os.WriteFile(filepath.Join(dir, "sv.json"), []byte(`{"Logg in": "x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := check(); !strings.Contains(got, `languages: sv.json: "Logg in" is not a text of this program`) {
		t.Errorf("%s", got)
	}
	dir = filepath.Join(dir, "none")
	if got := check(); !strings.Contains(got, "languages: there is no folder") {
		t.Errorf("%s", got)
	}
}

// A template of the operator can use texts of its own; each shows itself.
func TestTextsOfOwnTemplates(t *testing.T) {
	dir := t.TempDir()
	own := `{{define "title"}}{{t "Log in"}}{{end}}{{define "content"}}<h1>{{t "Hello & <welcome>"}}</h1>` +
		`<p title="{{t "Say \"hi\""}}">{{t "Hi, %s!" (strong "<b>")}} {{t "Log in to %s" "<i>"}} {{t "%s on %s" (strong "a") "<u>"}} {{.Site.Name}}</p>{{end}}`
	if err := os.WriteFile(filepath.Join(dir, "login.html"), []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	s := sitetest.AccountsSite(t, "templates "+dir)
	mustHave(
		t, s.Get("/auth/login", accepting("de")), "own texts", "<title>Anmelden – ", "<h1>Hello &amp; &lt;welcome&gt;</h1>",
		`title="Say &#34;hi&#34;"`, "Hi, <strong>&lt;b&gt;</strong>!", "Bei &lt;i&gt; anmelden", "<strong>a</strong> unter &lt;u&gt;",
	)
}

var languages = []string{"de", "es", "fr", "it", "ja", "nl", "pl", "pt", "zh"}

// The catalogue has the languages that it promises.
func TestStandardLanguages(t *testing.T) {
	catalogue, err := texts.Standard()
	if err != nil {
		t.Fatal(err)
	}
	var tags []string
	for _, l := range catalogue.Languages() {
		tags = append(tags, l.Tag())
	}
	if !slices.Equal(tags, append([]string{"en"}, languages...)) {
		t.Errorf("%v", tags)
	}
}
