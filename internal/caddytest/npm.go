package caddytest

import (
	"os/exec"
	"sync"
	"testing"
)

var (
	installing sync.Mutex
	installed  = make(map[string]error)
)

// NPM installs the packages of a folder from npm, once a run. Where that cannot
// be done the test is skipped, and fails in CI.
func NPM(t testing.TB, folder string) {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			Missing(t, program)
		}
	}
	installing.Lock()
	defer installing.Unlock()
	err, done := installed[folder]
	if !done {
		command := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		command.Dir = folder
		_, err = command.CombinedOutput()
		installed[folder] = err
	}
	if err != nil {
		Missing(t, "npm's registry: "+err.Error())
	}
}
