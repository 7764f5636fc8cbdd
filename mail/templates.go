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
)

//go:embed templates/*
var embeddedTemplates embed.FS

// Templates are the texts of mails. A mail is a file with its kind as its name, `test.txt`, which
// defines "subject" and "text". If `test.html` is beside it, which defines "content", it has HTML
// too, in the layout of `layout.html`. `test.de.txt` and `test.de.html` are the same in German.
type Templates struct{ folders []fs.FS }

// NewTemplates returns the texts in a folder, and for those that it lacks the standard ones. An
// empty dir is no folder.
func NewTemplates(dir string) *Templates {
	standard, _ := fs.Sub(embeddedTemplates, "templates") // the path is valid
	if dir == "" {
		return &Templates{[]fs.FS{standard}}
	}
	return &Templates{[]fs.FS{os.DirFS(dir), standard}}
}

// TemplateData is the data of a template.
type TemplateData struct {
	// Site is the name of the site, To the recipient, and Language that of the text.
	Site, To, Language string
	// Subject is for the HTML.
	Subject string
	// Data is of the kind of mail.
	Data any
}

// Write sets subject, text and HTML of a message by the templates of its kind, in its language or
// else in none.
func (t *Templates) Write(m *Message, site string, data any) error {
	of := TemplateData{Site: site, To: m.To, Language: m.Language, Data: data}
	folder, file, text, err := t.find(m.Kind, m.Language, ".txt")
	if err != nil {
		return err
	}
	parsed, err := texttemplate.New(file).Parse(text)
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
		m.HTML, err = t.page(string(content), of)
	}
	if err != nil {
		return fmt.Errorf("templates: %w", err)
	}
	return nil
}

// page returns the HTML of a mail.
func (t *Templates) page(content string, of TemplateData) (string, error) {
	_, file, layout, err := t.find("layout", of.Language, ".html")
	if err != nil {
		return "", err
	}
	parsed, err := template.New(file).Parse(layout)
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
