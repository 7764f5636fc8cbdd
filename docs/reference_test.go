package docs_test

import (
	"cmp"
	"context"
	"fmt"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"go/types"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	caddyjwt "github.com/caddy-jwt/caddy-jwt"
	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/mail"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
)

// TestReference compares docs/reference.md with the Go comments and the program; -update rewrites
// it. It fails if a config field has no comment, or if an option of the grammar has no field.
func TestReference(t *testing.T) {
	var paths []string
	sources := caddytest.Sources(t)
	for _, folder := range []string{
		"refusal", "accounts", "accounts/web", "apikeys", "config", "credentials", "introspection", "authorizers",
		"upstream", "store/filestore", "mail", ".",
	} {
		for _, path := range sources {
			if filepath.Dir(path) == folder {
				paths = append(paths, path)
			}
		}
	}
	r := &reference{t: t, comments: sourceComments(t, paths)}
	r.directive()
	r.accounts()
	r.mail()
	r.externalLogin()
	r.refusals()
	r.metrics()
	r.provider()
	r.commands()
	sitetest.UpToDate(t, "docs/reference.md", r.page.String())
}

type reference struct {
	t        *testing.T
	comments map[string]string
	page     strings.Builder
}

// write adds a block of Markdown.
func (r *reference) write(format string, args ...any) { fmt.Fprintf(&r.page, format+"\n\n", args...) }

// sourceComments returns the comments of files, by the names of their types, fields (Type.Field)
// and methods (Type.Method).
func sourceComments(t *testing.T, paths []string) map[string]string {
	found := make(map[string]string)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := goparser.ParseFile(token.NewFileSet(), path, nil, goparser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		var group *ast.GenDecl // its comment belongs to its only type
		var outer string
		ast.Inspect(file, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil {
					found[n.Name.Name] = n.Doc.Text()
				} else {
					found[strings.TrimPrefix(types.ExprString(n.Recv.List[0].Type), "*")+"."+n.Name.Name] = n.Doc.Text()
				}
				return false
			case *ast.GenDecl:
				group = n
			case *ast.TypeSpec:
				outer = n.Name.Name
				found[outer] = cmp.Or(n.Doc.Text(), group.Doc.Text())
			case *ast.Field:
				for _, name := range n.Names {
					found[outer+"."+name.Name] = n.Doc.Text()
				}
			}
			return true
		})
	}
	return found
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

var (
	word    = regexp.MustCompile(`\w+`)
	docLink = regexp.MustCompile(`\[(?:\w+\.)?(\w+)\]([^(]|$)`) // of Go's comments
)

// comment returns the comment of a type or field as text of the page: it begins with the shown
// name, other fields have their JSON names, and a paragraph is one line.
func (r *reference) comment(of reflect.Type, fieldName, shown string) string {
	key := strings.TrimSuffix(of.Name()+"."+fieldName, ".")
	text, named := strings.CutPrefix(r.comments[key], cmp.Or(fieldName, of.Name()))
	if !named {
		r.t.Errorf("the comment of %s is missing, or does not begin with its name", key)
	}
	names := make(map[string]string)
	if of.Kind() == reflect.Struct {
		for f := range of.Fields() {
			names[f.Name] = jsonName(f)
		}
	}
	pieces := strings.Split(paragraphs(text), "`")
	for i := 0; i < len(pieces); i += 2 { // the others are code
		pieces[i] = docLink.ReplaceAllString(pieces[i], "$1$2")
		pieces[i] = word.ReplaceAllStringFunc(pieces[i], func(w string) string {
			if names[w] == "" || w == strings.ToUpper(w) { // URL is a word as well
				return w
			}
			return "`" + names[w] + "`"
		})
	}
	return "`" + shown + "`" + strings.Join(pieces, "`")
}

func paragraphs(text string) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n\n")
	for i, paragraph := range all {
		if !isTable(paragraph) {
			all[i] = strings.ReplaceAll(paragraph, "\n", " ")
		}
	}
	return strings.Join(all, "\n\n")
}

func isTable(paragraph string) bool { return strings.Contains(paragraph, "\n---") }

// option is an option of the directive: its forms, and the options in its block.
type option struct {
	name  string
	forms []string
	block []*option
}

func parseGrammar(lines []string) *option {
	open := []*option{new(option)}
	for _, line := range lines {
		form := strings.Join(strings.Fields(line), " ")
		into := open[len(open)-1]
		name, _, _ := strings.Cut(form, " ")
		i := slices.IndexFunc(into.block, func(o *option) bool { return o.name == name })
		switch {
		case strings.HasPrefix(form, "}"):
			open = open[:len(open)-1]
			continue
		case i < 0:
			i = len(into.block)
			into.block = append(into.block, &option{name: name})
		}
		if strings.HasSuffix(form, "{") {
			open = append(open, into.block[i])
			form += " … }" + strings.Repeat("]", strings.Count(form, "[{"))
		}
		into.block[i].forms = append(into.block[i].forms, form)
	}
	return open[0].block[0]
}

func (r *reference) directive() {
	var grammar, around []string
	for line := range strings.Lines(r.comments["Handler.UnmarshalCaddyfile"]) {
		if code, indented := strings.CutPrefix(line, "\t"); indented {
			grammar = append(grammar, code)
		} else {
			around = append(around, line)
		}
	}
	_, more, _ := strings.Cut(strings.Join(around, ""), "\n\n") // the first paragraph is for Go programmers
	text := strings.Split(r.comment(reflect.TypeFor[caddyjwt.Handler](), "", "jwt"), "\n\n")
	table := slices.IndexFunc(text, isTable)

	r.write("# Reference\n\n<!-- TestReference generates this page from the Go comments. Change those. -->")
	r.write("This page says what each option of the `jwt` directive does, in the Caddyfile and in JSON, " +
		"and how a request is refused. It belongs to the version that it comes with.")
	r.write("[Directive](#directive) · [Placeholders](#placeholders) · [Options](#options) · [Accounts](#accounts) · " +
		"[`mail`](#mail) · [`login_with`](#login_with) · [Refusals](#refusals) · [Metrics](#metrics) · [Provider](#provider) · " +
		"[Commands](#commands)")
	r.write("## Directive\n\n%s\n\n```text\n%s```", text[0], strings.Join(grammar, ""))
	r.write("%s\n\n%s", paragraphs(more), strings.Join(text[table+1:], "\n\n"))
	r.write("In JSON it is the handler `%s`.", new(caddyjwt.Handler).CaddyModule().ID.Name())
	r.write("## Placeholders\n\n%s", strings.Join(text[1:table+1], "\n\n"))
	r.options(parseGrammar(grammar))
}

// modules are options that are modules, which JSON has in the list of another field.
var modules = map[string]reflect.Type{"api_keys": reflect.TypeFor[apikeys.APIKeys]()}

// options writes a section for each block of the grammar.
func (r *reference) options(directive *option) {
	type section struct {
		*option
		config reflect.Type
		path   string
	}
	for queue := []section{{directive, reflect.TypeFor[caddyjwt.Handler](), ""}}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		fields, of := configFields(at.config), make(map[*option]reflect.StructField)
		var links []string
		for _, o := range at.block {
			if modules[o.name] != nil {
				links = append(links, fmt.Sprintf("[`%s`](#%s)", o.name, o.name))
				continue
			}
			i := slices.IndexFunc(fields, func(f reflect.StructField) bool {
				return jsonName(f) == o.name || jsonName(f) == o.name+"s"
			})
			if i < 0 {
				r.t.Fatalf("%s has no field for the option %s of the grammar", at.config, o.name)
			}
			of[o] = fields[i]
			fields = slices.Delete(fields, i, i+1)
			links = append(links, fmt.Sprintf("[`%s`](#%s)", o.name, o.name))
		}
		if at.option == directive {
			r.write("## Options")
		} else {
			r.write("## Options of `%s`\n\n%s", at.name, r.comment(at.config, "", at.name))
		}
		if len(fields) > 0 { // fields without a line in the grammar: the arguments before the block
			r.write("Before its block, in JSON:\n\n%s", r.list(at.config, fields))
		}
		r.write("%s", strings.Join(links, " · "))
		for _, o := range at.block {
			if module := modules[o.name]; module != nil {
				const path = "credentials[]"
				r.write("### `%s`\n\n- Caddyfile: `%s`\n- JSON: `%s`, with `\"module\": \"%[1]s\"`", o.name,
					strings.Join(o.forms, "`, `"), path)
				r.write("In its block: [options of `%s`](#options-of-%s).", o.name, o.name)
				queue = append(queue, section{o, module, path + "."})
				continue
			}
			f, path := of[o], at.path+jsonName(of[o])
			r.write("### `%s`\n\n- Caddyfile: `%s`\n- JSON: `%s`", o.name, strings.Join(o.forms, "`, `"), path)
			r.write("%s", r.comment(at.config, f.Name, jsonName(f)))
			holds := f.Type
			for ; holds.Kind() == reflect.Pointer || holds.Kind() == reflect.Slice; holds = holds.Elem() {
				if holds.Kind() == reflect.Slice {
					path += "[]"
				}
			}
			switch {
			case len(o.block) > 0:
				queue = append(queue, section{o, holds, path + "."})
				r.write("In its block: [options of `%s`](#options-of-%s).", o.name, o.name)
			// another struct, whose first sentence repeats this one
			case strings.HasPrefix(holds.PkgPath(), "github.com/caddy-jwt/"):
				_, more, _ := strings.Cut(r.comment(holds, "", o.name)+" ", ". ")
				r.write("%sIn JSON:\n\n%s", more, r.list(holds, configFields(holds)))
			}
		}
	}
}

// accounts has its own section, because it has many options, which most sites do not need.
func (r *reference) accounts() {
	grammar, more := syntaxOf(r.comments["Parse"])
	of := reflect.TypeFor[accounts.Config]()
	r.write("## Accounts\n\n%s", r.comment(of, "", "accounts"))
	r.write("```text\n%s```\n\n%s", grammar, paragraphs(more))
	r.write("In JSON:\n\n%s", r.list(of, configFields(of)))
	r.write(
		"The store `file`, in JSON:\n\n%s",
		r.list(reflect.TypeFor[filestore.Store](), configFields(reflect.TypeFor[filestore.Store]())),
	)
}

// syntaxOf returns the indented lines of a comment, and what follows its first paragraph, which is for
// Go programmers.
func syntaxOf(comment string) (grammar, more string) {
	var code, around strings.Builder
	for line := range strings.Lines(comment) {
		if text, indented := strings.CutPrefix(line, "\t"); indented {
			code.WriteString(text)
		} else {
			around.WriteString(line)
		}
	}
	_, more, _ = strings.Cut(around.String(), "\n\n")
	return code.String(), more
}

// mail has a section for each mailer.
func (r *reference) mail() {
	settings := reflect.TypeFor[mail.Settings]()
	r.write("## `mail`\n\n`mail` is what sends mails to the users of the accounts. All mailers have, in JSON:")
	r.write("%s", r.list(settings, configFields(settings)))
	for _, of := range []reflect.Type{
		reflect.TypeFor[mail.SMTP](), reflect.TypeFor[mail.Command](), reflect.TypeFor[mail.Webhook](),
	} {
		name := strings.ToLower(of.Name())
		grammar, more := syntaxOf(r.comments[of.Name()+".UnmarshalCaddyfile"])
		r.write("### `mail` by `%s`\n\n%s", name, r.comment(of, "", name))
		r.write("```text\n%s```", grammar)
		if more != "" {
			r.write("%s", strings.TrimSpace(paragraphs(more)))
		}
		r.write("In JSON it is the module `jwt.mailers.%s`:\n\n%s", name, r.list(of, configFields(of)))
	}
}

// accounts.LoginProvider has the options of a module in a package that imports this one, so they
// are read from the source.
func (r *reference) externalLogin() {
	const path = "oidc/login/login.go"
	comments := sourceComments(r.t, []string{path})
	grammar, more := syntaxOf(comments["Login.UnmarshalCaddyfile"])
	about := strings.Replace(comments["Login"], "Login", "`login_with`", 1)
	r.write("## `login_with`\n\n%s\n\n```text\n%s```\n\n%s", paragraphs(about), grammar, paragraphs(more))
	r.write("In JSON it is the module `jwt.logins.oidc`, one of `login_with` of the accounts:")
	file, err := goparser.ParseFile(token.NewFileSet(), path, nil, goparser.ParseComments)
	if err != nil {
		r.t.Fatal(err)
	}
	var items []string
	fields := file.Scope.Lookup("Login").Decl.(*ast.TypeSpec).Type.(*ast.StructType).Fields.List
	for _, field := range fields {
		if field.Tag == nil {
			continue
		}
		name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("json"), ",")
		text, named := strings.CutPrefix(field.Doc.Text(), field.Names[0].Name)
		if !named {
			r.t.Errorf(
				"the comment of ExternalLogin.%s is missing, or does not begin with its name", field.Names[0].Name,
			)
		}
		items = append(items, "- `"+name+"`"+paragraphs(text))
	}
	r.write("%s", strings.Join(items, "\n"))
}

func configFields(of reflect.Type) (found []reflect.StructField) {
	for f := range of.Fields() {
		if name := jsonName(f); name != "" && name != "-" {
			found = append(found, f)
		}
	}
	return found
}

func (r *reference) list(of reflect.Type, fields []reflect.StructField) string {
	var items []string
	for _, f := range fields {
		items = append(items, "- "+r.comment(of, f.Name, cmp.Or(jsonName(f), f.Name)))
	}
	return strings.Join(items, "\n")
}

func (r *reference) refusals() {
	ctx := context.WithValue(r.t.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	w, h := httptest.NewRecorder(), answer.Responder{
		Realm: answer.DefaultRealm, Logger: zap.NewNop(), Decisions: answer.DecisionsOf(""),
	}
	if err := h.Refuse(
		w, httptest.NewRequestWithContext(ctx, "GET", "/", nil), &refusal.Error{Reason: refusal.Expired},
	); err != nil {
		r.t.Fatal(err)
	}
	r.write(
		"## Refusals\n\nWhere the site has no `handle_errors` for it, a refusal looks as this one of an expired token:",
	)
	r.write(
		"```text\nHTTP/1.1 %d %s\nWWW-Authenticate: %s\n\n%s\n```", w.Code,
		http.StatusText(w.Code), w.Header().Get("WWW-Authenticate"), w.Body,
	)
	r.write("%s", r.comment(reflect.TypeFor[refusal.Reason](), "", "reason"))
	r.write("%s", r.list(reflect.TypeFor[refusal.Answer](), slices.Collect(reflect.TypeFor[refusal.Answer]().Fields())))
	table := "Reason | Status | Name | Code | Challenge | Description\n---|---|---|---|---|---"
	for _, reason := range slices.SortedFunc(slices.Values(refusal.All()), func(a, b refusal.Reason) int {
		return cmp.Or(cmp.Compare(a.Answer().Status, b.Answer().Status), cmp.Compare(a, b))
	}) {
		told := reason.Answer()
		challenge := map[bool]string{true: "yes", false: "no"}[told.Challenge]
		table += fmt.Sprintf(
			"\n[`%s`](troubleshooting.md#%[1]s) | %d | `%s` | `%s` | %s | %s", reason, told.Status,
			told.Name, told.Code, challenge, told.Description,
		)
	}
	r.write("%s", table)
}

var description = regexp.MustCompile(`fqName: "(\w+)", help: "([^"]*)",.* variableLabels: \{([\w,]*)\}`)

func (r *reference) metrics() {
	registry := prometheus.NewRegistry()
	if err := answer.RegisterMetrics(registry); err != nil {
		r.t.Fatal(err)
	}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		registry.Describe(descriptions)
	}()
	var rows []string
	for d := range descriptions {
		parts := description.FindStringSubmatch(d.String())
		labels := "none"
		if parts[3] != "" {
			labels = "`" + strings.ReplaceAll(parts[3], ",", "`, `") + "`"
		}
		rows = append(rows, fmt.Sprintf("`%s` | %s | %s", parts[1], labels, parts[2]))
	}
	slices.Sort(rows)
	r.write("## Metrics\n\nMetric | Labels | Description\n---|---|---\n%s", strings.Join(rows, "\n"))
}

func (r *reference) provider() {
	refused := (&caddyjwt.Provider{Handler: caddyjwt.Handler{Optional: true}}).Validate()
	r.write(
		"## Provider\n\n%s",
		r.comment(reflect.TypeFor[caddyjwt.Provider](), "", string(new(caddyjwt.Provider).CaddyModule().ID)),
	)
	r.write("It is set up in JSON, with the fields of the handler but these: %s.", refused)
}

func (r *reference) commands() {
	registered, root := caddycmd.Commands()["jwt"], &cobra.Command{Use: "caddy"}
	parent := &cobra.Command{Use: registered.Name}
	registered.CobraFunc(parent)
	root.AddCommand(parent)
	r.write("## Commands")
	r.subcommands(parent)
}

func (r *reference) subcommands(of *cobra.Command) {
	for _, c := range of.Commands() {
		r.write("### `%s`\n\n%s.\n\n%s", c.CommandPath(), c.Short, strings.TrimSpace(c.Long))
		r.write("```text\n%s\n```", strings.TrimSpace(c.UsageString()))
		r.subcommands(c)
	}
}
