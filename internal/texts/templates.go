package texts

import (
	"fmt"
	"html/template"
	"io/fs"
	"regexp"
	"strconv"
	"text/template/parse"
	"time"
)

// Funcs returns the functions of templates, for text and HTML:
//
//   - t translates a text: {{t "Log in"}}, or {{t "Welcome, %s" .Name}};
//   - strong and code make an argument of t stand out;
//   - language and direction are its tag, and ltr or rtl;
//   - day and moment write a time, and time one with a text of its own.
func (l *Language) Funcs() map[string]any {
	return map[string]any{
		"t":      l.translate,
		"strong": func(text any) template.HTML { return element("strong", "", text) },
		"code":   func(text any) template.HTML { return element("code", "", text) },
		"day":    func(t time.Time) template.HTML { return l.time(t, "2 Jan 2006") },
		"moment": func(t time.Time) template.HTML { return l.time(t, "2 Jan 2006, 15:04 UTC") },
		"time":   timed,

		"language": l.Tag, "direction": l.Direction,
	}
}

// inTemplate matches a text that a template translates.
var inTemplate = regexp.MustCompile(`\bt ("(?:[^"\\]|\\.)*")`)

// addTexts adds the texts that the templates of a folder translate.
func addTexts(known map[string]bool, templates fs.FS) error {
	return fs.WalkDir(templates, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		source, err := fs.ReadFile(templates, path)
		for _, found := range inTemplate.FindAllSubmatch(source, -1) {
			if text, err := strconv.Unquote(string(found[1])); err == nil {
				known[text] = true
			}
		}
		return err
	})
}

// translate returns a text, which is HTML if an argument is.
func (l *Language) translate(key string, args ...any) any {
	markup := false
	for _, arg := range args {
		_, is := arg.(template.HTML)
		markup = markup || is
	}
	if !markup {
		return l.Text(key, args...)
	}
	safe := make([]any, len(args))
	for i, arg := range args {
		switch arg.(type) {
		case template.HTML, int:
			safe[i] = arg
		default:
			safe[i] = template.HTMLEscaper(arg)
		}
	}
	return template.HTML(l.Text(key, safe...)) // the catalogue is the operator's, and the arguments are escaped
}

func element(name, attributes string, text any) template.HTML {
	return template.HTML(fmt.Sprintf("<%s%s>%s</%s>", name, attributes, template.HTMLEscaper(text), name))
}

// time writes a time in UTC. The format is a text of the catalogue.
func (l *Language) time(t time.Time, format string) template.HTML {
	return timed(t, t.UTC().Format(l.Text(format)))
}

func timed(t time.Time, text string) template.HTML {
	return element("time", ` datetime="`+t.UTC().Format(time.RFC3339)+`"`, text)
}

// Inline replaces t without arguments, language and direction in a parsed HTML template by what they
// write, so that they cost nothing when the template is executed. They may be in text and in quoted
// attributes.
func (l *Language) Inline(tree *parse.Tree) {
	if tree != nil {
		l.inline(tree.Root)
	}
}

func (l *Language) inline(list *parse.ListNode) {
	if list == nil {
		return
	}
	for i, node := range list.Nodes {
		switch n := node.(type) {
		case *parse.ActionNode:
			if text, ok := l.constant(n); ok {
				list.Nodes[i] = &parse.TextNode{
					NodeType: parse.NodeText, Pos: n.Pos, Text: []byte(template.HTMLEscapeString(text)),
				}
			}
		case *parse.IfNode:
			l.inline(n.List)
			l.inline(n.ElseList)
		case *parse.RangeNode:
			l.inline(n.List)
			l.inline(n.ElseList)
		case *parse.WithNode:
			l.inline(n.List)
			l.inline(n.ElseList)
		}
	}
}

// constant returns what an action writes if it is the same for all data, as {{t "Log in"}} is.
func (l *Language) constant(action *parse.ActionNode) (text string, ok bool) {
	if len(action.Pipe.Decl) > 0 || len(action.Pipe.Cmds) != 1 {
		return "", false
	}
	args := action.Pipe.Cmds[0].Args
	name, _ := args[0].(*parse.IdentifierNode)
	switch {
	case name == nil:
	case len(args) == 1 && name.Ident == "language":
		return l.Tag(), true
	case len(args) == 1 && name.Ident == "direction":
		return l.Direction(), true
	case len(args) == 2 && name.Ident == "t":
		key, isText := args[1].(*parse.StringNode)
		if isText {
			return l.Text(key.Text), true
		}
	}
	return "", false
}
