package caddytest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Sources returns the paths of the module's Go files without tests, relative to the module's
// folder. A test calls it if it makes the go command read them: Go's test cache only knows the
// files that the test itself opens, and then runs it again when a source has changed.
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
	// With -C instead of Dir: the test would look at Dir, where git writes, and the cached result
	// would become invalid.
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
		case path == module: // git writes in it, so it changes constantly
		case filepath.Ext(path) == "":
			_, err = os.ReadDir(path) // for new files
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
