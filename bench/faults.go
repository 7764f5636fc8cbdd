package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
)

// scenarioPackages are the packages with scenarios.
var scenarioPackages = []string{".", "scenarios", "postgres", "oidc/provider"}

const scenarioPrefix = "TestScenario"

// fault is a scenario and its result.
type fault struct {
	pkg, test string
	about     string // its comment

	promised, seen []string
	verdict        string
	bad            bool
}

// name returns the name of the test in words.
func (f *fault) name() string {
	var words strings.Builder
	for i, r := range strings.TrimPrefix(f.test, scenarioPrefix) {
		if unicode.IsUpper(r) && i > 0 {
			words.WriteByte(' ')
		}
		words.WriteRune(unicode.ToLower(r))
	}
	return words.String()
}

// faults runs the scenarios one after the other, each in a separate process, and prints what they
// promise and what was seen.
func faults(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench faults", flag.ContinueOnError)
	short := flags.Bool("short", false, "run each as short as `go test` does")
	pattern := flags.String("run", "", "run only the scenarios whose name, as -list shows it, matches this `regexp`")
	list := flags.Bool("list", false, "list the scenarios and run none")
	soak := flags.Duration(
		"soak", 0, "how long the soak runs, as in 10m (default two minutes, with -short a few seconds)",
	)
	deadline := flags.Duration(
		"deadline", 15*time.Minute, "how long each scenario may take; the soak has its own length more",
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := regexp.Compile(*pattern)
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected %q; see faults -help for the flags", flags.Arg(0))
	case err != nil:
		return fmt.Errorf("-run: %w", err)
	case *soak < 0 || *deadline <= 0:
		return errors.New("-soak and -deadline must be durations above 0, as in 10m")
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	found, err := findScenarios(root, wanted)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("-run %q matches no scenario; see faults -list for their names", *pattern)
	}
	if *list {
		return printScenarios(os.Stdout, found)
	}

	dir, err := os.MkdirTemp("", "cj") // short, because it contains sockets
	if err != nil {
		return err
	}
	// Even if this process is killed. What it has started may write once more before it ends.
	removed, err := scenario.Watch(`until rm -rf "$1" && sleep 1 && ! test -e "$1"; do :; done`, dir)
	if err != nil {
		return err
	}
	defer removed()
	if err := os.Chmod(dir, 0o755); err != nil { // some scenarios run as another user
		return err
	}
	arguments := []string{"-test.v", "-test.timeout=" + (*deadline + *soak).String(), "-soak=" + soak.String()}
	if !*short {
		arguments = append(arguments, "-full")
	}
	failed := 0
	binaries := make(map[string]string)
	for i, f := range found {
		binary, built := binaries[f.pkg]
		if !built {
			binary = filepath.Join(dir, fmt.Sprintf("scenarios-%d.test", len(binaries)))
			fmt.Fprintf(os.Stderr, "Building the tests of %s ...\n", f.pkg)
			build := command(ctx, root, "go", "test", "-c", "-o", binary, "./"+f.pkg)
			build.Env = append(os.Environ(), "GOTMPDIR="+dir)
			if output, err := runToItsEnd(build); err != nil {
				return fmt.Errorf("building the tests of %s: %w\n%s", f.pkg, err, output)
			}
			binaries[f.pkg] = binary
		}
		fmt.Fprintf(os.Stderr, "%2d of %d  %s ... ", i+1, len(found), f.name())
		began := time.Now()
		limit, cancel := context.WithTimeout(ctx, *deadline+*soak+time.Minute) // the test ends itself before
		run := command(limit, filepath.Join(root, f.pkg), binary, append(arguments, "-test.run=^"+f.test+"$")...)
		run.Env = append(os.Environ(), "TMPDIR="+dir)
		output, err := runToItsEnd(run)
		cancel()
		if ctx.Err() != nil {
			break // and print the results so far
		}
		f.judge(output, err)
		fmt.Fprintf(os.Stderr, "%s, %s\n", f.verdict, time.Since(began).Round(time.Second))
		if f.bad {
			failed++
			fmt.Fprintf(os.Stderr, "%s\n", output)
		}
	}
	fmt.Fprintln(os.Stderr)
	if err := printFaults(os.Stdout, found); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d scenarios failed", failed, len(found))
	}
	return nil
}

// runToItsEnd runs a command, and kills it and what it has started if this process is killed.
func runToItsEnd(c *exec.Cmd) ([]byte, error) {
	var output bytes.Buffer
	c.Stdout, c.Stderr = &output, &output
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		return nil, err
	}
	end, err := scenario.Watch(
		`grep -qsaFe "$2" "/proc/$1/cmdline" && kill -9 -"$1"`, strconv.Itoa(c.Process.Pid), c.Args[len(c.Args)-1],
	)
	err = errors.Join(c.Wait(), err)
	if end != nil {
		end()
	}
	return output.Bytes(), err
}

// command returns a command that is interrupted when ctx ends, so that it can clean up.
func command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second // for processes that it started and did not end
	return c
}

func moduleRoot(ctx context.Context) (string, error) {
	output, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}}\n{{.Dir}}").Output()
	path, dir, _ := strings.Cut(strings.TrimSpace(string(output)), "\n")
	if err != nil || path != "github.com/caddy-jwt/caddy-jwt" {
		return "", errors.New("faults runs the tests of this module, so it must be started within a checkout of it")
	}
	return dir, nil
}

// findScenarios reads the scenarios from the tests' source, so that a list needs no build.
func findScenarios(root string, wanted *regexp.Regexp) (found []*fault, err error) {
	for _, pkg := range scenarioPackages {
		files, err := filepath.Glob(filepath.Join(root, pkg, "*_test.go"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			parsed, err := parser.ParseFile(
				token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution,
			)
			if err != nil {
				return nil, err
			}
			for _, declared := range parsed.Decls {
				function, ok := declared.(*ast.FuncDecl)
				if !ok || !strings.HasPrefix(function.Name.Name, scenarioPrefix) {
					continue
				}
				about := strings.Join(strings.Fields(function.Doc.Text()), " ")
				f := &fault{pkg: pkg, test: function.Name.Name, about: about, verdict: "not run"}
				if wanted.MatchString(f.name()) {
					found = append(found, f)
				}
			}
		}
	}
	return found, nil
}

// judge reads the output of a test.
func (f *fault) judge(output []byte, err error) {
	skipped := false
	var reason string // for a skip: the line before it
	for line := range strings.Lines(string(output)) {
		line = strings.TrimSpace(line)
		switch text, tells := strings.CutPrefix(line, scenario.Prefix); {
		case tells:
			var told scenario.Told
			if json.Unmarshal([]byte(text), &told) == nil {
				f.promised = append(f.promised, told.Promised)
				f.seen = append(f.seen, told.Seen)
			}
		case strings.HasPrefix(line, "--- SKIP: "+f.test):
			skipped = true
		case strings.Contains(line, "this test needs "):
			_, reason, _ = strings.Cut(line, "this test ")
		}
	}
	switch {
	case err == nil && skipped:
		f.verdict = "not run: it " + reason
	case err == nil && bytes.Contains(output, []byte("--- PASS: "+f.test)):
		f.verdict = "ok"
	case bytes.Contains(output, []byte("panic: test timed out")) || errors.Is(err, context.DeadlineExceeded):
		f.verdict, f.bad = "failed: not done by its deadline", true
	default:
		f.verdict, f.bad = "failed", true
	}
}

func printScenarios(out io.Writer, found []*fault) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, f := range found {
		printRow(table, f.name(), wrap(f.about, 80))
	}
	return table.Flush()
}

func printFaults(out io.Writer, found []*fault) error {
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	printRow(table, "scenario", []string{"promised"}, []string{"seen"}, []string{"verdict"})
	for _, f := range found {
		printRow(table, "", nil, nil, nil) // an empty line that does not end the columns
		printRow(table, f.name(), wrapAll(f.promised, 44), wrapAll(f.seen, 64), wrap(f.verdict, 24))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// printRow prints cells of several lines beside each other.
func printRow(table io.Writer, name string, cells ...[]string) {
	lines := 1
	for _, cell := range cells {
		lines = max(lines, len(cell))
	}
	for i := range lines {
		fmt.Fprint(table, name)
		name = ""
		for _, cell := range cells {
			text := ""
			if i < len(cell) {
				text = cell[i]
			}
			fmt.Fprint(table, "\t", text)
		}
		fmt.Fprintln(table)
	}
}

func wrapAll(texts []string, width int) (lines []string) {
	for _, text := range texts {
		lines = append(lines, wrap(text, width)...)
	}
	return lines
}

// wrap breaks a text into lines of at most width bytes, unless a word is longer.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
