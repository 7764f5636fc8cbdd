package mail

import (
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"os"
	"strings"
	texttemplate "text/template"

	"github.com/caddy-jwt/caddy-jwt/internal/texts"
)

//go:embed templates/*
var embeddedTemplates embed.FS

// Templates are the texts of mails. A mail is a file with its kind as its name, `test.txt`, which
// defines "subject" and "text". If `test.html` is beside it, which defines "content", it has HTML
// too, in the layout of `layout.html`. `test.de.txt` and `test.de.html` are the same in German. In all of
// them, t translates a text, as in {{t "Your code for %s" .Site}}.
type Templates struct {
	folders   []fs.FS // the last has the standard texts
	catalogue *texts.Catalogue
}

// NewTemplates returns the texts in a folder, and for those that it lacks the standard ones. An
// empty dir is no folder.
func NewTemplates(dir string, catalogue *texts.Catalogue) *Templates {
	standard, _ := fs.Sub(embeddedTemplates, "templates") // the path is valid
	t := &Templates{[]fs.FS{standard}, catalogue}
	if dir != "" {
		t.folders = []fs.FS{os.DirFS(dir), standard}
	}
	return t
}

// TemplateData is the data of a template.
type TemplateData struct {
	// Site is the name of the site, To the recipient, Language that of the text, and Direction in
	// which it is written: ltr or rtl.
	Site, To, Language, Direction string
	// Subject is for the HTML.
	Subject string
	// Data is of the kind of mail.
	Data any
}

// Write sets subject, text and HTML of a message by the templates of its kind: by those of its
// language, or else by those of none, whose texts it translates. It sets Language to that of the texts,
// or to none if that is not known.
func (t *Templates) Write(m *Message, site string, data any) error {
	language, _ := t.catalogue.Named(m.Language)
	folder, file, text, err := t.find(m.Kind, m.Language, ".txt")
	if err != nil {
		return err
	}
	if file == m.Kind+".txt" {
		if m.Language = language.Tag(); !strings.Contains(text, "{{t ") { // an operator's
			m.Language = ""
		}
	}
	of := TemplateData{Site: site, To: m.To, Language: m.Language, Direction: language.Direction(), Data: data}
	parsed, err := texttemplate.New(file).Funcs(language.Funcs()).Parse(text)
	if err != nil {
		return fmt.Errorf("templates: %w", err)
	}
	var subject, body strings.Builder
	if err := errors.Join(
		parsed.ExecuteTemplate(&subject, "subject", of), parsed.ExecuteTemplate(&body, "text", of),
	); err != nil {
		return fmt.Errorf("templates: %w", err)
	}
	m.Subject, m.Text, m.HTML = oneLine(subject.String()), body.String(), ""
	of.Subject = m.Subject
	content, err := fs.ReadFile(folder, strings.TrimSuffix(file, ".txt")+".html")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		m.HTML, err = t.page(string(content), of, language)
	}
	if err != nil {
		return fmt.Errorf("templates: %w", err)
	}
	return nil
}

// page returns the HTML of a mail.
func (t *Templates) page(content string, of TemplateData, language *texts.Language) (string, error) {
	_, file, layout, err := t.find("layout", of.Language, ".html")
	if err != nil {
		return "", err
	}
	parsed, err := template.New(file).Funcs(language.Funcs()).Parse(layout)
	if err == nil {
		parsed, err = parsed.Parse(content)
	}
	var html strings.Builder
	if err == nil {
		err = parsed.ExecuteTemplate(&html, file, of)
	}
	return html.String(), err
}

// find returns the text of a file, its name and its folder: in the language, in the language
// without its region, or in none.
func (t *Templates) find(name, language, extension string) (folder fs.FS, file, text string, err error) {
	for ; ; language = language[:max(0, strings.LastIndexByte(language, '-'))] {
		file = name + "." + language + extension
		if language == "" {
			file = name + extension
		}
		for _, folder := range t.folders {
			content, err := fs.ReadFile(folder, file)
			if err == nil {
				return folder, file, string(content), nil
			}
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) { // no language has a slash
				return nil, "", "", fmt.Errorf("templates: %w", err)
			}
		}
		if language == "" {
			return nil, "", "", fmt.Errorf("templates: there is no %s", file)
		}
	}
}
