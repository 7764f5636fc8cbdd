package web

import (
	"fmt"
	"html/template"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/texts"
)

// pageTemplate is a page in all languages.
type pageTemplate struct {
	languages []func() (*template.Template, error) // by the index of the language
}

// parsePage parses the files of a page, of which a later one can replace what an earlier one defines.
func parsePage(catalogue *texts.Catalogue, name string, files ...[]byte) (*pageTemplate, error) {
	parsed := template.New(name).Funcs(pageFuncs(catalogue.English()))
	for _, text := range files {
		var err error
		if parsed, err = parsed.Parse(string(text)); err != nil {
			return nil, fmt.Errorf("templates: %w", err)
		}
	}
	page := new(pageTemplate)
	for _, language := range catalogue.Languages() {
		page.languages = append(page.languages, sync.OnceValues(func() (*template.Template, error) {
			return translated(parsed, language)
		}))
	}
	return page, nil
}

// translated returns a page with the texts of a language in it.
func translated(parsed *template.Template, language *texts.Language) (*template.Template, error) {
	page, err := parsed.Clone()
	if err != nil {
		return nil, err
	}
	page.Funcs(pageFuncs(language))
	for _, part := range page.Templates() {
		language.Inline(part.Tree)
	}
	return page, nil
}

// in returns the page in a language.
func (p *pageTemplate) in(language *texts.Language) (*template.Template, error) {
	return p.languages[language.Index()]()
}

// pageFuncs returns the functions of the pages.
func pageFuncs(language *texts.Language) template.FuncMap {
	funcs := language.Funcs()
	funcs["wrong"] = func(field, problem string) string { return wrong(language, field, problem) }
	return funcs
}

// fieldSentences are the sentences about an error in a field, by the name of the field.
var fieldSentences = map[string]string{
	"email": "The e-mail address %s.", "password": "The password %s.", "newPassword": "The new password %s.",
	"currentPassword": "The current password %s.", "code": "The code %s.", "name": "The name %s.",
	"expires": "The expiry %s.", "username": "The user name %s.",
}

// wrong returns a sentence about an error in a field.
func wrong(language *texts.Language, field, problem string) string {
	if sentence := fieldSentences[field]; sentence != "" {
		return language.Text(sentence, problem)
	}
	return language.Text("%s %s.", field, problem)
}

// translate translates what a page shows of the texts of this package. Texts with arguments are
// translated already.
func (d *pageData) translate(language *texts.Language) {
	shown := []*string{&d.Title, &d.Text, &d.Notice, &d.Error}
	if d.Next != nil {
		shown = append(shown, &d.Next.Name)
	}
	if d.Confirm != nil {
		shown = append(shown, &d.Confirm.Question, &d.Confirm.Yes, &d.Confirm.No)
	}
	if d.Ask != nil {
		shown = append(shown, &d.Ask.Title, &d.Ask.Text, &d.Ask.Button)
		if d.Ask.Again != nil {
			shown = append(shown, &d.Ask.Again.Name)
		}
	}
	for i := range d.Links {
		shown = append(shown, &d.Links[i].Label)
	}
	for i := range d.Fields {
		shown = append(shown, &d.Fields[i].Label)
	}
	for _, text := range shown {
		*text = language.Text(*text)
	}
}

// wait returns how long to wait, in words; empty for not at all.
func wait(language *texts.Language, d time.Duration) string {
	switch seconds := (d + time.Second - 1) / time.Second; {
	case seconds <= 0:
		return ""
	case seconds < 120:
		return language.Text("%d seconds", int(seconds))
	}
	return language.Text("%d minutes", int((d+time.Minute-1)/time.Minute))
}

// ago returns how long ago a time was, in words.
func ago(language *texts.Language, now, t time.Time) string {
	const day = 24 * time.Hour
	switch passed := now.Sub(t); {
	case passed >= day:
		return language.Text("%d days ago", int(passed/day))
	case passed >= time.Hour:
		return language.Text("%d hours ago", int(passed/time.Hour))
	case passed >= time.Minute:
		return language.Text("%d minutes ago", int(passed/time.Minute))
	}
	return language.Text("just now")
}

// daysText returns a duration in words; empty if it is not positive.
func daysText(language *texts.Language, d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d <= 0:
		return ""
	case d%day == 0:
		return language.Text("%d days", int(d/day))
	case d%time.Hour == 0:
		return language.Text("%d hours", int(d/time.Hour))
	case d%time.Minute == 0:
		return language.Text("%d minutes", int(d/time.Minute))
	}
	return d.String()
}
