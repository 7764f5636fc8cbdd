package mail

import (
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"os"
	"path/filepath"
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
	folders   []folder // the last has the standard texts
	catalogue *texts.Catalogue
}

// folder has templates. Its path is for errors; it is empty for the standard ones.
type folder struct {
	fs.FS
	path string
}

// NewTemplates returns the texts in a folder, and for those that it lacks the standard ones. An
// empty dir is no folder.
func NewTemplates(dir string, catalogue *texts.Catalogue) *Templates {
	standard, _ := fs.Sub(embeddedTemplates, "templates") // the path is valid
	t := &Templates{[]folder{{standard, ""}}, catalogue}
	if dir != "" {
		t.folders = []folder{{os.DirFS(dir), dir}, {standard, ""}}
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
	parsed, err := texttemplate.New(filepath.Join(folder.path, file)).Funcs(language.Funcs()).Parse(text)
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
	file = strings.TrimSuffix(file, ".txt") + ".html"
	content, err := fs.ReadFile(folder, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		m.HTML, err = t.page(filepath.Join(folder.path, file), string(content), of, language)
	}
	if err != nil {
		return fmt.Errorf("templates: %w", err)
	}
	return nil
}

// Check returns an error, with the file and the line, if mails of a kind cannot be written with some
// data, in a language for which there are files.
func (t *Templates) Check(kind, site string, data any) error {
	languages := []string{""}
	for _, folder := range t.folders {
		for _, name := range []struct{ start, end string }{{kind + ".", ".txt"}, {"layout.", ".html"}} {
			files, err := fs.Glob(folder, name.start+"*"+name.end)
			if err != nil {
				return fmt.Errorf("templates: %w", err)
			}
			for _, file := range files {
				languages = append(languages, strings.TrimSuffix(strings.TrimPrefix(file, name.start), name.end))
			}
		}
	}
	for _, language := range languages {
		if err := t.Write(&Message{Kind: kind, To: "user@example.com", Language: language}, site, data); err != nil {
			return err
		}
	}
	return nil
}

// page returns the HTML of a mail. file is the path of its content.
func (t *Templates) page(file, content string, of TemplateData, language *texts.Language) (string, error) {
	folder, name, layout, err := t.find("layout", of.Language, ".html")
	if err != nil {
		return "", err
	}
	parsed, err := template.New(filepath.Join(folder.path, name)).Funcs(language.Funcs()).Parse(layout)
	if err == nil {
		_, err = parsed.New(file).Parse(content)
	}
	var html strings.Builder
	if err == nil {
		err = parsed.Execute(&html, of)
	}
	return html.String(), err
}

// find returns the text of a file, its name and its folder: in the language, in the language
// without its region, or in none.
func (t *Templates) find(name, language, extension string) (in folder, file, text string, err error) {
	for ; ; language = language[:max(0, strings.LastIndexByte(language, '-'))] {
		file = name + "." + language + extension
		if language == "" {
			file = name + extension
		}
		for _, in := range t.folders {
			content, err := fs.ReadFile(in, file)
			if err == nil {
				return in, file, string(content), nil
			}
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) { // no language has a slash
				return in, "", "", fmt.Errorf("templates: %w", err)
			}
		}
		if language == "" {
			return in, "", "", fmt.Errorf("templates: there is no %s", file)
		}
	}
}
