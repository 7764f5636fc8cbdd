package docs_test

import (
	"html"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

const (
	repository  = "https://github.com/caddy-jwt/caddy-jwt/blob/main/"
	longestPage = 300 // lines, but for references
)

var (
	listedPage   = regexp.MustCompile(`(?m)^- \[(.+?)\]\((.+?\.md)\): (.+)$`)
	markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading      = regexp.MustCompile(`(?m)^#+ (.+)$`)
	anchor       = regexp.MustCompile(`<a id="([^"]+)">`)
	codeBlock    = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
)

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents returns the Markdown files of the repository.
func documents(t *testing.T) (files []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	return files
}

// Each page is in the table of contents once, begins with its title, and is short.
func TestBook(t *testing.T) {
	contents := readText(t, "docs/README.md")
	listed := make(map[string]int)
	for _, page := range listedPage.FindAllStringSubmatch(contents, -1) {
		listed[filepath.Join("docs", page[2])]++
	}
	for _, file := range documents(t) {
		text := readText(t, file)
		if !strings.HasPrefix(text, "# ") {
			t.Errorf("%s does not begin with its title", file)
		}
		if lines := strings.Count(text, "\n"); lines > longestPage && !strings.HasSuffix(file, "reference.md") {
			t.Errorf("%s has %d lines; split it", file, lines)
		}
		folder, name := filepath.Split(file)
		part := folder == "docs/providers/" || folder == "docs/migration/" // listed by the page of the folder
		if want := folder == "docs/" && name != "README.md"; want != (listed[file] == 1) && !part &&
			folder == "docs/" || listed[file] > 1 {
			t.Errorf("docs/README.md lists %s %d times", file, listed[file])
		}
	}
	if lines := strings.Count(readText(t, "README.md"), "\n"); lines >= 150 {
		t.Errorf("README.md has %d lines", lines)
	}
}

// anchorOf returns the anchor of a heading, as GitHub and Hugo make it.
func anchorOf(title string) string {
	title = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(title, "$1")
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, title)
}

func anchorsOf(text string) map[string]bool {
	anchors := make(map[string]bool)
	for _, title := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		anchors[anchorOf(title[1])] = true
	}
	for _, id := range anchor.FindAllStringSubmatch(text, -1) {
		anchors[id[1]] = true
	}
	return anchors
}

// Links between documents lead to files and headings that exist.
func TestLinks(t *testing.T) {
	checked := 0
	for _, file := range documents(t) {
		text := codeBlock.ReplaceAllString(readText(t, file), "")
		for _, link := range markdownLink.FindAllStringSubmatch(text, -1) {
			path, fragment, _ := strings.Cut(link[1], "#")
			if strings.Contains(path, ":") {
				continue // of another site
			}
			to := file
			if path != "" {
				to = filepath.Join(filepath.Dir(file), path)
			}
			checked++
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s, which does not exist", file, link[1])
			} else if fragment != "" && strings.HasSuffix(to, ".md") && !anchorsOf(readText(t, to))[fragment] {
				t.Errorf("%s links to %s, which has no such heading", file, link[1])
			}
		}
	}
	if checked < 300 {
		t.Errorf("only %d links were checked", checked)
	}
}

// llms.txt (llmstxt.org) lists the pages for programs that read them. `-update` writes it.
func TestLLMs(t *testing.T) {
	contents := readText(t, "docs/README.md")
	var text strings.Builder
	text.WriteString("# caddy-jwt\n\n> A plugin that gives Caddy log-in, JSON Web Tokens and API keys: the directives " +
		"`jwt` and `oidc_provider`. It is not ggicci/caddy-jwt, whose directive is `jwtauth`.\n")
	for line := range strings.Lines(contents) {
		if strings.HasPrefix(line, "## ") {
			text.WriteString("\n" + line + "\n")
		} else if page := listedPage.FindStringSubmatch(line); page != nil {
			text.WriteString("- [" + page[1] + "](" + repository + filepath.Join("docs", page[2]) + "): " + page[3] + "\n")
		}
	}
	const file = "docs/llms.txt"
	if *sitetest.Update {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if readText(t, file) != text.String() {
		t.Errorf("%s is not that of docs/README.md; run: go test ./docs -run TestLLMs -update", file)
	}
}

var (
	htmlLink = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	htmlID   = regexp.MustCompile(`\bid="?([^"\s>]+)`)
)

// The pages as a web site, made by Hugo: each link leads to a page and a heading that exist, or to a file
// of the repository.
func TestSite(t *testing.T) {
	caddytest.Needs(t, "hugo")
	out := sitetest.TempDir(t)
	command := exec.Command("hugo", "--source", "docs/site", "--destination", out, "--noBuildLock")
	if printed, err := command.CombinedOutput(); err != nil || strings.Contains(string(printed), "WARN") {
		t.Fatalf("%v\n%s", err, printed)
	}
	pages := make(map[string]string)
	err := filepath.WalkDir(out, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".html") {
			pages[path] = readText(t, path)
		}
		return err
	})
	if err != nil || len(pages) < 45 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, file := range slices.Sorted(maps.Keys(pages)) {
		if navigation, _, _ := strings.Cut(pages[file], "</nav>"); strings.Count(navigation, "<a href=") < 30 {
			t.Errorf("%s has no navigation", filepath.Base(file))
		}
		for _, link := range htmlLink.FindAllStringSubmatch(pages[file], -1) {
			checkSiteLink(t, pages, file, html.UnescapeString(link[1]))
		}
	}
}

func checkSiteLink(t *testing.T, pages map[string]string, file, link string) {
	t.Helper()
	name := filepath.Base(file)
	if path, ours := strings.CutPrefix(link, repository); ours {
		path, _, _ = strings.Cut(path, "#")
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s links to %s: %v", name, link, err)
		}
		return
	}
	path, fragment, _ := strings.Cut(link, "#")
	if strings.Contains(path, ":") {
		return
	}
	to := file
	if path != "" {
		to = filepath.Join(filepath.Dir(file), path)
	}
	if _, err := os.Stat(to); err != nil {
		t.Errorf("%s links to %s, which does not exist", name, link)
	} else if fragment != "" && !slices.ContainsFunc(htmlID.FindAllStringSubmatch(pages[to], -1), func(id []string) bool {
		return id[1] == fragment
	}) {
		t.Errorf("%s links to %s, which has no such heading", name, link)
	}
}
