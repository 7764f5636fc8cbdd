package filestore_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddy-jwt/caddy-jwt/store/storetest"
	"github.com/caddyserver/caddy/v2"
)

// openFile returns a store on the file, as in a separate process: it shares nothing with other
// stores of this process.
func openFile(t testing.TB, path string) *filestore.Store {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	store := &filestore.Store{Path: path}
	if err := store.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := store.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func TestFileStore(t *testing.T) {
	dirs := make(map[string]string)
	storetest.Run(t, func(t *testing.T, name string) store.UserStore {
		if dirs[name] != "" {
			// A link to the folder, so that the same file is opened once more.
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(dirs[name], link); err != nil {
				t.Fatal(err)
			}
			return openFile(t, filepath.Join(link, "users.db"))
		}
		dirs[name] = t.TempDir()
		return openFile(t, filepath.Join(dirs[name], "users.db"))
	})
}
