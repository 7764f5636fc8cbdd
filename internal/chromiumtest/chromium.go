// Package chromiumtest controls Debian's Chromium for the tests. It is a separate package so that
// tests without a browser do not link chromedp, which is large.
package chromiumtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
)

// Start starts the browser with additional flags. It fails the test if the browser's console
// reports an error, such as a violation of the Content-Security-Policy.
func Start(t *testing.T, flags ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		caddytest.Missing(t, "chromium")
	}
	dir, err := os.MkdirTemp("", "chromium")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // t.TempDir fails if the browser ends slowly
	options := append(
		chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.UserDataDir(dir),
	)
	options = append(options, flags...)
	allocator, cancelAllocator := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	ctx, cancelTimeout := context.WithTimeout(ctx, 2*time.Minute)
	var mu sync.Mutex
	var complaints []string
	err = chromedp.Listen(ctx, func(event any) {
		// a response of 401 is expected, and on a busy machine a test may type before autofocus
		entry, ok := event.(*log.EventEntryAdded)
		if ok && entry.Entry.Source != log.EntrySourceNetwork && !strings.Contains(entry.Entry.Text, "Autofocus") {
			mu.Lock()
			defer mu.Unlock()
			complaints = append(complaints, entry.Entry.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancelTimeout()
		cancel()
		cancelAllocator()
		mu.Lock()
		defer mu.Unlock()
		for _, complaint := range complaints {
			t.Errorf("the console says: %s", complaint)
		}
	})
	return ctx
}

// Picture saves screenshots of the page if SCREENSHOTS names a folder: desktop and phone, light
// and dark.
func Picture(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	for _, scheme := range []string{"light", "dark"} {
		for width, kind := range map[int64]string{1280: "desk", 360: "phone"} {
			Page{t, ctx, name}.Show(scheme, width)
			png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name+"-"+kind+"-"+scheme+".png"), png, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}
