package sitetest

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// NewUpstream returns a server that echoes its requests.
func NewUpstream(t testing.TB) string {
	t.Helper()
	address := FreeAddress(t)
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/public":
			w.Header().Set("Cache-Control", "public, max-age=60")
		case "/max-age":
			w.Header().Set("Cache-Control", "max-age=60")
		case "/no-store":
			w.Header().Set("Cache-Control", "no-store")
		}
		fmt.Fprintf(w, "%s %s\n", r.Method, r.URL)
		_ = r.Header.Write(w)
	})}
	go func() { _ = server.ListenAndServe() }()
	t.Cleanup(func() { _ = server.Close() })
	Eventually(t, "the upstream answers", func() bool {
		response, err := http.Get("http://" + address)
		if err == nil {
			_ = response.Body.Close()
		}
		return err == nil
	})
	return address
}

// LoadText runs a Caddyfile until the test ends.
func LoadText(t testing.TB, text string) {
	t.Helper()
	(&Site{T: t}).LoadText(text)
	StopAfter(t)
}

// RunSites runs whole sites with their own storage.
func RunSites(t testing.TB, logFile, sites string) {
	t.Helper()
	LoadText(t, GlobalOptions(TempDir(t), logFile, "")+sites)
}

// ServeSeveral runs several sites over http.
func ServeSeveral(t testing.TB, bodies ...string) (sites []*Site) {
	t.Helper()
	logFile := filepath.Join(TempDir(t), "log.json")
	text := GlobalOptions(TempDir(t), logFile, "")
	for _, body := range bodies {
		s := &Site{T: t, URL: "http://" + FreeAddress(t), LogFile: logFile}
		text += s.URL + " {\n" + body + "\n}\n"
		sites = append(sites, s)
	}
	LoadText(t, text)
	return sites
}

// ServeTLS runs sites over https, each under its host name, and returns the port.
func ServeTLS(t *testing.T, sites map[string]string) (port string) {
	t.Helper()
	port = FreePort(t)
	text := GlobalOptions(
		TempDir(t), filepath.Join(TempDir(t), "log.json"), "skip_install_trust\nhttp_port "+FreePort(t),
	)
	text = strings.Replace(text, "auto_https off", "auto_https disable_redirects", 1)
	for host, body := range sites {
		text += "https://" + host + ":" + port + " {\n tls internal {\n on_demand\n}\n" + body + "\n}\n"
	}
	LoadText(t, text)
	return port
}
