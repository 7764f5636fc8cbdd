package docs_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"html/template"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template/parse"

	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// usedTexts returns the texts that templates, Go code and refusals use, each with a place.
func usedTexts(t *testing.T) map[string]string {
	t.Helper()
	used := make(map[string]string)
	for _, pattern := range []string{
		"accounts/web/pages/*.html", "oidc/provider/pages/*.html", "mail/templates/*",
	} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			textsOfTemplate(t, file, used)
		}
	}
	for _, folder := range []string{"accounts", "accounts/web", "accounts/passkey", "accounts/password", "store", "oidc/provider"} {
		files, _ := filepath.Glob(folder + "/*.go")
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				textsOfCode(t, file, used)
			}
		}
	}
	for _, reason := range refusal.All() {
		if public := reason.Answer(); !public.Challenge {
			used[public.Description] = "refusal " + string(reason)
		}
	}
	for _, layout := range []string{"2 Jan 2006", "2 Jan 2006, 15:04 UTC"} {
		used[layout] = "times"
	}
	return used
}

func textsOfTemplate(t *testing.T, file string, used map[string]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	funcs := template.FuncMap{"wrong": func(string, string) string { return "" }}
	catalogue, err := texts.Standard()
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(funcs, catalogue.English().Funcs())
	parsed, err := template.New(file).Funcs(funcs).Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range parsed.Templates() {
		if part.Tree == nil {
			continue
		}
		walk(part.Tree.Root, func(node parse.Node) {
			command, ok := node.(*parse.CommandNode)
			if !ok || len(command.Args) < 2 {
				return
			}
			name, isName := command.Args[0].(*parse.IdentifierNode)
			key, isText := command.Args[1].(*parse.StringNode)
			if isName && name.Ident == "t" && isText {
				used[key.Text] = file
			}
		})
		walk(part.Tree.Root, func(node parse.Node) {
			plain, ok := node.(*parse.TextNode)
			if ok && !strings.HasSuffix(file, ".txt") && words(string(plain.Text)) {
				t.Errorf("%s: %q is not translated", file, plain.Text)
			}
		})
	}
}

// words reports whether HTML has words outside of tags.
func words(html string) bool {
	if !strings.ContainsAny(html, "<>") {
		return strings.Contains(strings.TrimSpace(html), " ") && !strings.Contains(html, `"`)
	}
	depth, run := 0, 0
	if open, shut := strings.IndexByte(html, '<'), strings.IndexByte(html, '>'); shut >= 0 && (open < 0 || shut < open) {
		html = html[shut+1:] // it begins inside a tag
	}
	for _, r := range html {
		switch {
		case r == '<':
			depth++
		case r == '>':
			depth--
		case depth > 0:
		case r >= 'a' && r <= 'z':
			if run++; run > 2 {
				return true
			}
		default:
			run = 0
		}
	}
	return false
}

func walk(node parse.Node, visit func(parse.Node)) {
	if node == nil || fmt.Sprint(node) == "<nil>" {
		return
	}
	visit(node)
	branch := func(b *parse.BranchNode) {
		walk(b.Pipe, visit)
		walk(b.List, visit)
		if b.ElseList != nil {
			walk(b.ElseList, visit)
		}
	}
	switch n := node.(type) {
	case *parse.ListNode:
		for _, inner := range n.Nodes {
			walk(inner, visit)
		}
	case *parse.ActionNode:
		walk(n.Pipe, visit)
	case *parse.PipeNode:
		for _, command := range n.Cmds {
			walk(command, visit)
		}
	case *parse.CommandNode:
		for _, arg := range n.Args {
			walk(arg, visit)
		}
	case *parse.TemplateNode:
		if n.Pipe != nil {
			walk(n.Pipe, visit)
		}
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	}
}

// textFields are the fields of structs, and their elements by position, that pages translate.
var textFields = []string{"Title", "Text", "Notice", "Error", "Question", "Yes", "No", "Button", "Label"}

// tables are the variables whose values are texts.
var tables = []string{"refusedTitles", "fieldSentences", "scopeTexts"}

// textsOfCode finds texts by where they are: arguments of calls, fields of the data of pages, tables.
func textsOfCode(t *testing.T, file string, used map[string]string) {
	t.Helper()
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	web := strings.Contains(file, "/web/") || strings.Contains(file, "applications.go")
	constants := make(map[string]ast.Expr)
	add := func(e ast.Expr) {
		if name, ok := e.(*ast.Ident); ok && constants[name.Name] != nil {
			e = constants[name.Name]
		}
		if text, ok := literalText(e); ok && strings.ContainsFunc(text, func(r rune) bool { return r >= 'a' && r <= 'z' }) {
			used[text] = set.Position(e.Pos()).String()
		}
	}
	ast.Inspect(tree, func(node ast.Node) bool {
		if n, ok := node.(*ast.ValueSpec); ok {
			for i, name := range n.Names {
				if i < len(n.Values) {
					constants[name.Name] = n.Values[i]
				}
			}
		}
		return true
	})
	ast.Inspect(tree, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.CallExpr:
			name, on := calledName(n)
			switch {
			case name == "Text" && len(n.Args) > 0, on == "texts" && name == "Errorf":
				add(n.Args[0])
			case name == "both":
				add(n.Args[1])
				add(n.Args[2])
			}
		case *ast.ReturnStmt:
			for _, result := range n.Results {
				if text, ok := literalText(result); ok && web && strings.HasSuffix(text, ".") {
					add(result)
				}
			}
		case *ast.CompositeLit:
			if kind := fmt.Sprint(n.Type); web && strings.Contains(kind, "pageLink") && len(n.Elts) > 0 {
				add(n.Elts[0])
			}
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && web && slices.Contains(textFields, key.Name) {
				add(n.Value)
			}
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				name := ""
				switch l := left.(type) {
				case *ast.SelectorExpr:
					name = l.Sel.Name
				case *ast.Ident:
					name = strings.ToUpper(l.Name[:1]) + l.Name[1:]
				}
				if web && i < len(n.Rhs) && slices.Contains(textFields, name) {
					add(n.Rhs[i])
				}
			}
		case *ast.ValueSpec:
			for i, name := range n.Names {
				if !slices.Contains(tables, name.Name) && name.Name != "forUsers" && name.Name != "autocomplete" {
					continue
				}
				for _, element := range n.Values[i].(*ast.CompositeLit).Elts {
					pair := element.(*ast.KeyValueExpr)
					switch name.Name {
					case "forUsers":
						add(pair.Key)
					case "autocomplete": // names of properties, of which labels are made
						property, _ := literalText(pair.Key)
						label := strings.ReplaceAll(property, "_", " ")
						used[strings.ToUpper(label[:1])+label[1:]] = file
					default:
						add(pair.Value)
					}
				}
			}
		}
		return true
	})
}

func calledName(call *ast.CallExpr) (name, on string) {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name, ""
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			on = x.Name
		}
		return f.Sel.Name, on
	}
	return "", ""
}

// literalText returns the value of a string literal, or of several with a plus between them.
func literalText(e ast.Expr) (string, bool) {
	switch n := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(n.Value)
		return text, n.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		left, ok := literalText(n.X)
		right, also := literalText(n.Y)
		return left + right, ok && also && n.Op == token.ADD
	}
	return "", false
}

// Every text that is used is in each standard language, and no language has another.
func TestTexts(t *testing.T) {
	used := usedTexts(t)
	if path := os.Getenv("TEXTS"); path != "" {
		list, _ := json.MarshalIndent(used, "", " ")
		_ = os.WriteFile(path, list, 0o600)
	}
	if len(used) < 300 {
		t.Errorf("control: %d texts", len(used))
	}
	files, err := filepath.Glob("internal/texts/catalogue/*.json")
	if err != nil || len(files) != 10 {
		t.Fatalf("%d languages: %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var all map[string]any
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatal(err)
		}
		for _, key := range slices.Sorted(maps.Keys(used)) {
			_, forms := all[key].(map[string]any)
			switch plural := strings.Contains(key, "%d"); {
			case all[key] == nil && (plural || !strings.HasSuffix(file, "/en.json")):
				t.Errorf("%s: %q of %s is missing", file, key, used[key])
			case all[key] != nil && plural && !forms:
				t.Errorf("%s: %q has no plural forms", file, key)
			}
		}
		for key := range all {
			if used[key] == "" {
				t.Errorf("%s: %q is not used", file, key)
			}
		}
	}
}
