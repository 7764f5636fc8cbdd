package provider_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/provider"
)

// TestReference compares docs/oidc-reference.md with the Go comments; -update rewrites it. It fails
// if an option has no comment.
func TestReference(t *testing.T) {
	comments := make(map[string]string)
	for _, name := range []string{"provider.go", "clients.go", "apis.go", "caddyfile.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.TypeSpec:
				if of, ok := n.Type.(*ast.StructType); ok {
					for _, field := range of.Fields.List {
						for _, id := range field.Names {
							comments[n.Name.Name+"."+id.Name] = field.Doc.Text()
						}
					}
				}
			case *ast.FuncDecl:
				comments["func "+n.Name.Name] = n.Doc.Text()
			}
			return true
		})
	}
	var page strings.Builder
	page.WriteString("# Reference of oidc_provider\n\nMade from the comments of the sources by `go test " +
		"./oidc/provider -run TestReference -update`. See [being an OpenID Provider](oidc.md) for how it is used.\n\n")
	_, grammar, _ := strings.Cut(comments["func UnmarshalCaddyfile"], "Syntax:\n\n")
	grammar, after, _ := strings.Cut(grammar, "\n\n`")
	page.WriteString(
		"## Directive\n\n```text\n" +
			strings.ReplaceAll(grammar, "\t", "") + "\n```\n\n`" +
			strings.ReplaceAll(strings.TrimSpace(after), "\n", " ") + "\n\n",
	)
	for _, of := range []struct {
		title string
		kind  reflect.Type
	}{
		{"Options", reflect.TypeFor[provider.Provider]()}, {"Options of a client", reflect.TypeFor[provider.Client]()},
		{"Options of an API", reflect.TypeFor[provider.API]()},
	} {
		page.WriteString(
			"## " + of.title + "\n\nThe names are those in JSON; the Caddyfile has some in the singular, as above.\n\n",
		)
		for i := range of.kind.NumField() {
			field := of.kind.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "" {
				continue
			}
			comment := strings.TrimSpace(comments[of.kind.Name()+"."+field.Name])
			if comment == "" {
				t.Errorf("%s.%s has no comment", of.kind.Name(), field.Name)
			}
			page.WriteString("### `" + name + "`\n\n" + strings.ReplaceAll(comment, "\n", " ") + "\n\n")
		}
	}
	sitetest.UpToDate(t, "../../docs/oidc-reference.md", page.String())
}
