package docs_test

import (
	"go/ast"
	goparser "go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// Each reason and each warning of the program has an entry in docs/troubleshooting.md, and each
// entry has a reason or a warning.
func TestTroubleshooting(t *testing.T) {
	text, err := os.ReadFile("docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	entries := make(map[string]bool)
	for _, anchor := range regexp.MustCompile("(?m)^\\| <a id=\"([a-z_-]+)\"></a>`([a-z_-]+)` \\|").
		FindAllStringSubmatch(string(text), -1) {
		if anchor[1] != anchor[2] || entries[anchor[1]] {
			t.Errorf("the anchor %s is not that of its name, or is there twice", anchor[1])
		}
		entries[anchor[1]] = true
	}
	if lines := strings.Count(string(text), "\n"); lines > 300 {
		t.Errorf("the page has %d lines", lines)
	}
	named := make(map[string]bool) // in the sources
	for _, reason := range refusal.All() {
		named[string(reason)] = true
	}
	for _, name := range namesOfWarnings(t) {
		named[name] = true
	}
	for name := range named {
		if !entries[name] {
			t.Errorf("docs/troubleshooting.md has no entry %s", name)
		}
	}
	for name := range entries {
		if !named[name] {
			t.Errorf("the entry %s is of no reason and no warning", name)
		}
	}
}

// namesOfWarnings returns the entries that log lines name. It fails for a warning or an error in
// the log that names none.
func namesOfWarnings(t *testing.T) (names []string) {
	files := token.NewFileSet()
	for _, path := range caddytest.Sources(t) {
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
			regexp.MustCompile(`^(bench|internal/\w*test|internal/storefault|internal/scenario|store/storetest)/`).
				MatchString(filepath.ToSlash(path)) {
			continue
		}
		file, err := goparser.ParseFile(files, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.CallExpr:
				method, _ := node.Fun.(*ast.SelectorExpr)
				if name := entryOf(node, "help.See", "warningOf"); name != "" {
					names = append(names, name)
				}
				if method != nil && isLogged(method) && len(node.Args) > 0 && path != "internal/outage/outage.go" &&
					!mentions(node, "help", "See") {
					t.Errorf("%s: a warning without an entry", files.Position(node.Pos()))
				}
			case *ast.CompositeLit:
				if kind, ok := node.Type.(*ast.Ident); ok && kind.Name == "warning" && len(node.Elts) > 0 {
					if name := literal(node.Elts[0]); name != "" {
						names = append(names, name)
					}
				}
			case *ast.ReturnStmt: // as in introspection.failing
				if len(node.Results) == 2 && regexp.MustCompile(`^introspection-`).MatchString(literal(node.Results[0])) {
					names = append(names, literal(node.Results[0]))
				}
			}
			return true
		})
	}
	return names
}

// isLogged reports whether a method makes a warning or an error in the log.
func isLogged(method *ast.SelectorExpr) bool {
	pkg, _ := method.X.(*ast.Ident)
	return slices.Contains([]string{"Warn", "Error", "Note"}, method.Sel.Name) &&
		(pkg == nil || !slices.Contains([]string{"zap", "http", "caddyhttp"}, pkg.Name))
}

// entryOf returns the entry that a call of one of the functions names as its first argument.
func entryOf(call *ast.CallExpr, functions ...string) string {
	name := ""
	switch function := call.Fun.(type) {
	case *ast.Ident:
		name = function.Name
	case *ast.SelectorExpr:
		if pkg, ok := function.X.(*ast.Ident); ok {
			name = pkg.Name + "." + function.Sel.Name
		}
	}
	if !slices.Contains(functions, name) || len(call.Args) == 0 {
		return ""
	}
	return literal(call.Args[0])
}

func literal(expression ast.Expr) string {
	basic, ok := expression.(*ast.BasicLit)
	if !ok || basic.Kind != token.STRING {
		return ""
	}
	text, _ := strconv.Unquote(basic.Value)
	return text
}

// mentions reports whether the arguments of a call have a field `help`, or a variable `see` that is
// one.
func mentions(call *ast.CallExpr, pkg, function string) (found bool) {
	ast.Inspect(call, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.SelectorExpr:
			name, ok := node.X.(*ast.Ident)
			found = found || ok && name.Name == pkg && node.Sel.Name == function
		case *ast.Ident:
			found = found || node.Name == "see"
		}
		return !found
	})
	return found
}

// Log lines link to their entries.
func TestHelpInLogLines(t *testing.T) {
	s := sitetest.Serve(t, "jwt /api {\n secret `"+sitetest.Secret+"`\n}\n respond ok")
	s.MustAnswer(401, s.Bearer("/api", sitetest.HS256(t, sitetest.JSON{"exp": 1})), "an old token")
	for _, help := range []string{"matcher-without-star", "expired"} {
		if want := `"help":"` + refusal.HelpURL + help + `"`; !strings.Contains(s.Log(), want) {
			t.Errorf("the log has no %s", want)
		}
	}
}
