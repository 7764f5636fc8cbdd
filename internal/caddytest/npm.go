package caddytest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var (
	installing sync.Mutex
	installed  = make(map[string]*installation)
)

type installation struct {
	dir string
	err error
}

// NPM returns a copy of a folder with its packages from npm, which are installed once per run. If
// that is not possible, the test is skipped, or fails in CI. The folder itself stays unchanged,
// so that two packages can use it at once, and so that Go's test cache stays valid.
func NPM(t testing.TB, folder string) (dir string) {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			Missing(t, program)
		}
	}
	installing.Lock()
	defer installing.Unlock()
	done := installed[folder]
	if done == nil {
		done = new(installation)
		done.dir, done.err = install(folder)
		installed[folder] = done
	}
	if done.err != nil {
		Missing(t, "npm's registry: "+done.err.Error())
	}
	return done.dir
}

func install(folder string) (dir string, err error) {
	if dir, err = scratch(); err != nil {
		return "", err
	}
	for _, pattern := range []string{"*", "*/*"} {
		files, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			name, err := filepath.Rel(folder, file)
			if err != nil {
				return "", err
			}
			if first, _, _ := strings.Cut(name, "/"); first == "node_modules" { // from an npm run by hand
				continue
			}
			if err := copyFile(file, filepath.Join(dir, name)); err != nil {
				return "", err
			}
		}
	}
	command := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, output)
	}
	return dir, nil
}

// copyFile copies a file, or creates the folder.
func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.Mkdir(to, 0o755)
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}
