package texts

import (
	"fmt"
	"html/template"
	"text/template/parse"
	"time"
)

// Funcs returns the functions of templates, for text and HTML:
//
//   - t translates a text: {{t "Log in"}}, or {{t "Welcome, %s" .Name}};
//   - strong and code make an argument of t stand out;
//   - day and moment write a time, and time one with a text of its own.
func (l *Language) Funcs() map[string]any {
	return map[string]any{
		"t":      l.translate,
		"strong": func(text any) template.HTML { return element("strong", "", text) },
		"code":   func(text any) template.HTML { return element("code", "", text) },
		"day":    func(t time.Time) template.HTML { return l.time(t, "2 Jan 2006") },
		"moment": func(t time.Time) template.HTML { return l.time(t, "2 Jan 2006, 15:04 UTC") },
		"time":   timed,
	}
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
		if text, is := arg.(string); is {
			arg = template.HTMLEscapeString(text)
		}
		safe[i] = arg
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

// Inline replaces the calls of t without arguments in a parsed HTML template by the translated
// texts, so that they cost nothing when the template is executed. They may be in text and in quoted
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
			if key, ok := Constant(n); ok {
				list.Nodes[i] = &parse.TextNode{
					NodeType: parse.NodeText, Pos: n.Pos, Text: []byte(template.HTMLEscapeString(l.Text(key))),
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

// Constant returns the text of an action that only translates a constant, as {{t "Log in"}} does.
func Constant(action *parse.ActionNode) (key string, ok bool) {
	if len(action.Pipe.Decl) > 0 || len(action.Pipe.Cmds) != 1 || len(action.Pipe.Cmds[0].Args) != 2 {
		return "", false
	}
	name, isName := action.Pipe.Cmds[0].Args[0].(*parse.IdentifierNode)
	text, isText := action.Pipe.Cmds[0].Args[1].(*parse.StringNode)
	if !isName || name.Ident != "t" || !isText {
		return "", false
	}
	return text.Text, true
}
