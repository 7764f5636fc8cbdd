package provider

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"

	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
)

//go:embed pages/*.html
var embeddedPages embed.FS

// pages are the provider's pages, in the style of the accounts' pages.
type pages struct {
	all map[string]*web.Page
}

func newPages(accounts *web.Shared, dir string) (*pages, error) {
	p := &pages{all: make(map[string]*web.Page)}
	for _, name := range []string{"consent", "device", "logout", "applications", "error"} {
		page, err := accounts.NewPage(embeddedPages, "pages/"+name+".html", dir)
		if err != nil {
			return nil, err
		}
		p.all[name] = page
	}
	return p, nil
}

func (p *pages) render(
	w http.ResponseWriter, r *http.Request, language *texts.Language, name string, data map[string]any, status int,
) error {
	return p.all[name].Render(w, r, language, data, status)
}

const submit = "document.forms[0].submit()"

var (
	submitHash   = sha256.Sum256([]byte(submit))
	submitPolicy = "default-src 'none'; script-src 'sha256-" + base64.StdEncoding.EncodeToString(submitHash[:]) +
		"'; frame-ancestors 'none'; base-uri 'none'"
	formPostPage = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Redirecting…</title></head>
<body><form method="post" action="{{.Action}}">
{{range $name, $value := .Values}}<input type="hidden" name="{{$name}}" value="{{$value}}">
{{end}}<noscript><button>Continue</button></noscript></form><script>` + submit + `</script></body></html>
`))
)

// formPost sends the response to the client with a form that submits itself, or with a
// button if scripts are disabled (OAuth 2.0 Form Post Response Mode §2).
func (p *pages) formPost(w http.ResponseWriter, to string, values map[string]string) error {
	var page bytes.Buffer
	// Schemes other than http were checked when the client was registered.
	if err := formPostPage.Execute(&page, map[string]any{
		"Action": template.URL(to), "Values": values,
	}); err != nil { //nolint:gosec // see above
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", submitPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	_, err := w.Write(page.Bytes())
	return err
}
