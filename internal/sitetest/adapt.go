package sitetest

import (
	"bytes"
	stdjson "encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// Update reports whether tests rewrite generated files, as with `go test -update`.
var Update = flag.Bool("update", false, "rewrite the generated parts of testdata and docs")

const separator = "\n----------\n"

// AdaptFiles runs the files of testdata/adapt: a Caddyfile, a line of ten dashes, then the
// adapted JSON or a part of the expected error. If a config adapts, it is also provisioned, as
// in `caddy validate`, because keys and ranges are checked there.
func AdaptFiles(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no adapt tests: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".caddyfiletest")
		t.Run(name, func(t *testing.T) { adaptFile(t, file) })
	}
}

func adaptFile(t *testing.T, file string) {
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	input, expected, found := strings.Cut(string(content), separator)
	if !found {
		t.Fatal("the file has no line of ten dashes")
	}
	input, expected = input+"\n", strings.TrimSpace(expected)
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), nil)
	if err == nil {
		err = Validate(t, adapted)
	}
	if !strings.HasPrefix(expected, "{") && !(*Update && expected == "") {
		switch {
		case err == nil:
			t.Errorf("no error; expected:\n%s", expected)
		case expected == "" || !strings.Contains(err.Error(), expected):
			t.Errorf("got the error:\n%v\nexpected in it:\n%s", err, expected)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, warning := range warnings { // for example that the file is not formatted
		t.Error(warning)
	}
	var pretty bytes.Buffer
	if err := stdjson.Indent(&pretty, adapted, "", "\t"); err != nil {
		t.Fatal(err)
	}
	if pretty.String() == expected {
		return
	}
	if !*Update {
		t.Fatalf(
			"adapted to other JSON than the file has; -update rewrites it, and git diff shows what changed:\n%s",
			pretty.String(),
		)
	}
	if err := os.WriteFile(file, []byte(input[:len(input)-1]+separator+pretty.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// UpToDate compares a generated page with its file, or rewrites the file.
func UpToDate(t *testing.T, file, page string) {
	t.Helper()
	page = strings.TrimSpace(page) + "\n"
	if *Update && !t.Failed() {
		if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	there, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(there) != page {
		t.Errorf("%s differs from the sources; `go test -run '^%s$' -update` here rewrites it, "+
			"and git diff shows what changed", file, t.Name())
	}
}
