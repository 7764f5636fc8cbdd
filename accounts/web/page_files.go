package web

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"regexp"

	"github.com/caddy-jwt/caddy-jwt/accounts"
)

// pageFile is a file that the pages load.
type pageFile struct {
	kind    string // its media type
	content []byte
	version string // the query of its URL, which changes with its content
}

// newPageFiles returns the files of the pages, by their route.
func newPageFiles(config *accounts.Config, embedded fs.FS) (map[string]*pageFile, error) {
	style, err := readPage(config.Templates, embedded, "style.css")
	if err != nil {
		return nil, err
	}
	if config.Accent != "" {
		accent, err := accounts.ParseColor(config.Accent)
		if err != nil {
			return nil, err
		}
		style = append(style, accentStyle(accent)...)
	}
	script, err := readPage(config.Templates, embedded, "script.js")
	if err != nil {
		return nil, err
	}
	explorer, err := readPage(config.Templates, embedded, "explorer.js")
	if err != nil {
		return nil, err
	}
	return map[string]*pageFile{
		"explorer script": newPageFile("text/javascript; charset=utf-8", explorer),
		"style":           newPageFile("text/css; charset=utf-8", style),
		"script":          newPageFile("text/javascript; charset=utf-8", script),
	}, nil
}

func newPageFile(kind string, content []byte) *pageFile {
	sum := sha256.Sum256(content)
	return &pageFile{kind, content, "?v=" + hex.EncodeToString(sum[:4])}
}

func (f *pageFile) serve(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_, err := w.Write(f.content)
	return err
}

var plainHost = regexp.MustCompile(`^[A-Za-z0-9.-]+(:\d+)?$`)

// sourceOf returns the source for a Content-Security-Policy that allows one file of this site: other
// files of the site, such as uploads, are no scripts of these pages. An IPv6 address cannot be a
// source (CSP Level 3 §2.3.1).
func sourceOf(r *http.Request, path string) string {
	if !plainHost.MatchString(r.Host) {
		return "'self'"
	}
	return r.Host + path
}
