package mail_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	own "github.com/caddy-jwt/caddy-jwt/mail"
)

// What users choose adds no header, no recipient and no part to a mail.
func TestThreatMailInjection(t *testing.T) {
	const evil = "Bcc: eve@example.net"
	server := sitetest.NewSMTPServer(t)
	server.SMTPUTF8 = true
	server.Start()
	site(t, smtp(server, "per_address 100\nper_client 100"))
	for name, c := range map[string]struct {
		change  func(m *own.Message)
		refused bool
		subject string // as it must arrive; empty for that of the control
	}{
		"control":             {change: func(*own.Message) {}},
		"subject CRLF":        {func(m *own.Message) { m.Subject = "Hi\r\n" + evil }, false, "Hi " + evil},
		"subject LF":          {func(m *own.Message) { m.Subject = "Hi\n" + evil }, false, "Hi " + evil},
		"subject CR":          {func(m *own.Message) { m.Subject = "Hi\r" + evil }, false, "Hi " + evil},
		"subject NEL":         {func(m *own.Message) { m.Subject = "Hi\u0085\u2028" + evil }, false, "Hi " + evil},
		"subject encoded":     {func(m *own.Message) { m.Subject = "=?utf-8?q?=0D=0ABcc:_x?=" }, false, "\r\nBcc: x"},
		"subject bidi":        {func(m *own.Message) { m.Subject = "a\u202Eb" }, false, "a b"},
		"subject not UTF-8":   {func(m *own.Message) { m.Subject = "a\xffb" }, false, "a\uFFFDb"},
		"subject in Greek":    {func(m *own.Message) { m.Subject = "Κωδικός" }, false, "Κωδικός"},
		"subject long":        {func(m *own.Message) { m.Subject = strings.Repeat("x", 5000) }, false, strings.Repeat("x", 199) + "…"},
		"text with a dot":     {change: func(m *own.Message) { m.Text = "a\r\n.\r\nMAIL FROM:<eve@example.net>\r\n" }},
		"text long":           {change: func(m *own.Message) { m.Text = strings.Repeat("é", 50_000) }},
		"text with a header":  {change: func(m *own.Message) { m.Text = evil + "\r\n\r\n--boundary--\r\n" }},
		"to CRLF":             {change: func(m *own.Message) { m.To += "\r\n" + evil }, refused: true},
		"to two":              {change: func(m *own.Message) { m.To += ", eve@example.net" }, refused: true},
		"to with parameters":  {change: func(m *own.Message) { m.To = "a> SIZE=1@example.com" }, refused: true},
		"to with a name":      {change: func(m *own.Message) { m.To = "Eve <" + m.To + ">" }, refused: true},
		"to quoted":           {change: func(m *own.Message) { m.To = "\"a\\\r\n\"@example.com" }, refused: true},
		"to NUL":              {change: func(m *own.Message) { m.To = "a\x00@example.com" }, refused: true},
		"to without a domain": {change: func(m *own.Message) { m.To = "alice" }, refused: true},
		"language":            {change: func(m *own.Message) { m.Language = "de\r\n" + evil }, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := message("alice@example.com")
			c.change(&m)
			before := len(server.Received())
			err := accountstest.ServiceOf(t).Mails.Tell(t.Context(), m, client)
			if (err != nil) != c.refused {
				t.Fatalf("%v, expected an error: %t", err, c.refused)
			}
			if c.refused {
				m.ID = "1"
				if _, err := module(t, server).Send(t.Context(), &m); own.ClassOf(err) != own.Refused {
					t.Errorf("sent without the outbox: %v", err)
				}
				return
			}
			got := server.MustGet(before + 1)[before]
			text, html := parts(t, got.Raw)
			if strings.TrimRight(text, "\r\n") != strings.TrimRight(m.Text, "\r\n") || !strings.Contains(html, "123456") {
				t.Errorf("text %.80q, HTML %q", text, html)
			}
			header := got.Message(t).Header
			want := c.subject
			if want == "" {
				want = m.Subject
			}
			if subject := decoded(t, header.Get("Subject")); subject != want {
				t.Errorf("subject %q, expected %q", subject, want)
			}
			if len(header["Bcc"]) > 0 || len(header["To"]) != 1 || got.To != "TO:<alice@example.com>" ||
				header.Get("Auto-Submitted") != "auto-generated" || header.Get("Message-Id") == "" ||
				header.Get("User-Agent") != "" {
				t.Errorf("header %v, to %s", header, got.To)
			}
			for line := range strings.SplitSeq(got.Raw, "\r\n") {
				if len(line) > 998 || strings.ContainsAny(line, "\r\n\x00") {
					t.Errorf("a line has %d bytes: %.80q", len(line), line)
				}
			}
		})
	}
}

// decoded returns the text of a header (RFC 2047).
func decoded(t *testing.T, text string) string {
	t.Helper()
	text, err := new(mime.WordDecoder).DecodeHeader(text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// parts returns the two parts of a mail.
func parts(t *testing.T, raw string) (text, html string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	kind, parameters, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatal(kind, err)
	}
	reader := multipart.NewReader(m.Body, parameters["boundary"])
	var found []string
	for {
		part, err := reader.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, string(body))
	}
	if len(found) != 2 {
		t.Fatalf("%d parts", len(found))
	}
	return found[0], found[1]
}

// Addresses in any script arrive, if the server can pass them on.
func TestInternationalAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		to, want string
		utf8     bool // the server can
	}{
		"domain":               {"alice@bücher.example", "TO:<alice@xn--bcher-kva.example>", false},
		"local part":           {"δοκιμή@example.com", "TO:<δοκιμή@example.com>", true},
		"case":                 {"Alice@example.com", "TO:<Alice@example.com>", true},
		"local part, not able": {"δοκιμή@example.com", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			server := sitetest.NewSMTPServer(t)
			server.SMTPUTF8 = c.utf8
			server.Start()
			s := site(t, strings.Replace(smtp(server, ""), from, "from \"Büro <no-reply@bücher.example>\"\n", 1))
			queue(t, message(c.to))
			sent(t)
			if c.want == "" {
				if len(server.Received()) > 0 || !strings.Contains(s.Log(), "SMTPUTF8") {
					t.Error("it was sent")
				}
				return
			}
			got := server.MustGet(1)[0]
			if got.To != c.want || strings.Contains(got.From, "SMTPUTF8") != (name == "local part") ||
				!strings.HasPrefix(got.From, "FROM:<no-reply@xn--bcher-kva.example>") {
				t.Errorf("from %s, to %s", got.From, got.To)
			}
			if sender := decoded(t, got.Message(t).Header.Get("From")); sender != "Büro <no-reply@xn--bcher-kva.example>" {
				t.Errorf("sender %q", sender)
			}
		})
	}
}

// The mailer command runs a program without a shell, and says what it says.
func TestCommand(t *testing.T) {
	dir := sitetest.TempDir(t)
	program, out := filepath.Join(dir, "send"), filepath.Join(dir, "out")
	script := func(text string) {
		t.Helper()
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	script("")
	mailer := "mail command " + program + " -i -- {mail.to} \"$(id)\" {\n" + from + "timeout 1s\n}\n"
	send := func(to string) (string, error) {
		stdout, _, err := command(t, mailer).Run("", "mail", "test", to)
		return stdout, err
	}
	script(`{ printf '[%s]' "$@"; cat; } > ` + out)
	if stdout, err := send("Alice@bücher.example"); err != nil || !strings.Contains(stdout, "send has taken it") {
		t.Fatal(stdout, err)
	}
	text, err := os.ReadFile(out)
	if err != nil || !strings.HasPrefix(string(text), "[-i][--][Alice@xn--bcher-kva.example][$(id)]") ||
		bytes.Contains(text, []byte("\r")) || !bytes.Contains(text, []byte("\nTo: <Alice@xn--bcher-kva.example>\n")) {
		t.Errorf("%v %s", err, text)
	}
	for name, c := range map[string]struct{ script, want string }{
		"exit 67":   {"echo nobody >&2; exit 67", "exit status 67; nobody"},
		"much said": {"yes | head -c 1000000 >&2; exit 1", "exit status 1; y y"},
		"hangs":     {"sleep 60", "did not end within 1s"},
	} {
		script(c.script)
		if _, err := send("a@example.com"); err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 500 {
			t.Errorf("%s: %v; expected %q", name, err, c.want)
		}
	}
	for code, class := range map[int]string{67: "mail refused", 75: "mail deferred", 1: "mails cannot be sent"} {
		script(fmt.Sprintf("cat >/dev/null; exit %d", code))
		s := site(t, mailer)
		queue(t, message("alice@example.com"))
		sitetest.Eventually(t, class, func() bool { return strings.Contains(s.Log(), class) })
	}
	script("cat > " + out)
	s := site(t, mailer)
	queue(t, message("-oQ/tmp@example.com"))
	sitetest.Eventually(t, "an option is refused", func() bool { return strings.Contains(s.Log(), "begins with -") })
	queue(t, message("alice@example.com")) // control
	sent(t)
	if text, err := os.ReadFile(out); err != nil || !strings.Contains(string(text), "alice@example.com") {
		t.Errorf("control: %v %s", err, text)
	}
	hasNoSecret(t, s.Log())
}

// The mailer webhook posts JSON, and follows no redirect.
func TestWebhook(t *testing.T) {
	var mu sync.Mutex
	var answer http.HandlerFunc
	var last *http.Request
	var body sitetest.JSON
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		last, body = r, nil
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		respond := answer
		mu.Unlock()
		respond(w, r)
	}))
	answerBy := func(respond http.HandlerFunc) {
		mu.Lock()
		defer mu.Unlock()
		answer = respond
	}
	t.Cleanup(service.Close)
	asked := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	t.Cleanup(elsewhere.Close)
	t.Setenv("TOKEN", "hunter2")
	mailer := "mail webhook " + service.URL + "/send?key=hunter2 {\n" + from +
		"header Authorization \"Bearer {env.TOKEN}\"\ntimeout 1s\n}\n"
	answerBy(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202) })
	accountstest.Has(t, command(t, mailer).Must("", "mail", "test", "alice@example.com"), "answered 202 Accepted")
	if last.Method != "POST" || last.Header.Get("Authorization") != "Bearer hunter2" ||
		last.Header.Get("Idempotency-Key") != body["id"] || body["id"] == "" || body["to"] != "alice@example.com" ||
		body["from"] != "<no-reply@example.com>" || body["kind"] != "test" || body["html"] == nil ||
		!strings.HasPrefix(last.UserAgent(), "caddy-jwt/") {
		t.Errorf("%v %v", last.Header, body)
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"500":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "answered 500"},
		"401":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "does it want a token?"},
		"redirect": {http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect).ServeHTTP, "answered 307"},
		"hangs":    {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "is the URL right"},
	} {
		answerBy(c.answer)
		_, _, err := command(t, mailer).Run("", "mail", "test", "alice@example.com")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; expected %q", name, err, c.want)
		} else {
			hasNoSecret(t, err.Error())
		}
	}
	if asked > 0 {
		t.Error("it followed a redirect")
	}
	for status, event := range map[int]string{422: "mail refused", 503: "mails cannot be sent"} {
		answerBy(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		s := site(t, mailer)
		queue(t, message("alice@example.com"))
		sitetest.Eventually(t, event, func() bool { return strings.Contains(s.Log(), event) })
		hasNoSecret(t, s.Log())
	}
}

// Texts of a site's own replace the standard ones, by language; what they show is escaped in HTML.
func TestTemplates(t *testing.T) {
	dir := sitetest.TempDir(t)
	for name, text := range map[string]string{
		"hello.txt":     `{{define "subject"}}Hello {{.Data}}{{end}}{{define "text"}}{{.Data}} of {{.Site}}{{end}}`,
		"hello.html":    `{{define "content"}}<p>{{.Data}}</p>{{end}}`,
		"hello.de.txt":  `{{define "subject"}}Hallo {{.Data}}{{end}}{{define "text"}}{{.Data}}{{end}}`,
		"hello.fr.txt":  `{{define "subject"}}Salut{{end}}{{define "text"}}{{.Data}}{{end}}`,
		"hello.fr.html": `{{define "content"}}<p lang="{{.Language}}">{{.Data}}</p>{{end}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	catalogue, err := texts.Standard()
	if err != nil {
		t.Fatal(err)
	}
	templates := own.NewTemplates(dir, catalogue)
	const name = "<b>\r\nBcc: x</b>"
	for _, c := range []struct{ language, subject, html string }{
		{"", "Hello <b> Bcc: x</b>", "&lt;b&gt;"}, {"en-GB", "Hello <b> Bcc: x</b>", "&lt;b&gt;"},
		{"de-AT", "Hallo <b> Bcc: x</b>", ""}, {"fr", "Salut", `<p lang="fr">&lt;b&gt;`},
		{"../fr", "Hello <b> Bcc: x</b>", "&lt;b&gt;"},
	} {
		m := own.Message{Kind: "hello", Language: c.language}
		err := templates.Write(&m, "example.com", name)
		if err != nil || m.Subject != c.subject || !strings.Contains(m.HTML, c.html) || (m.HTML == "") != (c.html == "") {
			t.Errorf("%s: %v %+v", c.language, err, m)
		}
	}
	if err := templates.Write(&own.Message{Kind: "none"}, "example.com", nil); err == nil {
		t.Error("a kind without texts")
	}
	if m := (own.Message{Kind: "test"}); templates.Write(&m, "example.com", nil) != nil || m.HTML == "" {
		t.Error("control: the standard texts")
	}
}
