package caddytest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Sources are the module's Go files but for its tests, as paths below the module's
// folder. A test that has the go command read them calls it: Go's test cache knows what
// the test itself opens, and so runs it again when a source has changed.
func Sources(t testing.TB) (files []string) {
	t.Helper()
	files, err := sources()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sources() (files []string, err error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("go list -m: %w", err)
	}
	module := strings.TrimSpace(string(root))
	// By -C, since a command with a Dir has that looked at by the test, and git writes in it.
	list := exec.Command("go", "list", "-C", module, "-f", `{{$dir := .Dir}}{{$dir}}{{range .GoFiles}}
{{$dir}}/{{.}}{{end}}{{range .IgnoredGoFiles}}
{{$dir}}/{{.}}{{end}}{{range .EmbedFiles}}
{{$dir}}/{{.}}{{end}}`, "./...")
	output, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list ./...: %w", err)
	}
	for _, path := range append(strings.Fields(string(output)), filepath.Join(module, "go.mod")) {
		switch {
		case path == module: // git writes in it, so that it changes all the time
		case filepath.Ext(path) == "":
			_, err = os.ReadDir(path) // a file that is new counts too
		default:
			_, err = os.ReadFile(path)
		}
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			files = append(files, strings.TrimPrefix(path, module+"/"))
		}
	}
	return files, nil
}
