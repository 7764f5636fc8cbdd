package sitetest

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// waitForOldServers waits until no address has two listeners of this process: Caddy closes
// those of the previous config in the background, and until then its servers may answer.
// Where there is no /proc it does nothing.
func waitForOldServers(t testing.TB) {
	t.Helper()
	Eventually(t, "the servers of the previous config have closed their listeners", func() bool {
		own := ownSockets()
		seen := make(map[string]bool)
		for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
			file, err := os.Open(table)
			if err != nil {
				continue
			}
			lines := bufio.NewScanner(file)
			for lines.Scan() {
				const local, state, inode = 1, 3, 9
				fields := strings.Fields(lines.Text())
				if len(fields) <= inode || fields[state] != "0A" || !own[fields[inode]] {
					continue
				}
				if seen[fields[local]] {
					_ = file.Close()
					return false
				}
				seen[fields[local]] = true
			}
			_ = file.Close()
		}
		return true
	})
}

// ownSockets returns the inodes of the sockets of this process.
func ownSockets() map[string]bool {
	own := make(map[string]bool)
	files, _ := filepath.Glob("/proc/self/fd/*")
	for _, file := range files {
		target, _ := os.Readlink(file)
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return own
}
