package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// older is a copy of the previous version's data, in the working directory of the test, because its
// config has relative paths.
type older struct {
	t         testing.TB
	transport *http.Transport
}

func copyOlder(t *testing.T) *older {
	t.Helper()
	dir := sitetest.TempDir(t)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "older"))); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	keepRetiredKeys(t)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", "caddy.sock")
	}
	return &older{t, &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}

// keepRetiredKeys extends the life of the provider's keys of before the rotation: it is at most a day,
// whatever the config, and the data are older.
func keepRetiredKeys(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("storage/jwt/signing_keys/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte(`"verify_until":"2026-`), []byte(`"verify_until":"2126-`))
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (o *older) run(config string) {
	o.t.Helper()
	text := []byte(o.file(config))
	if config == "Caddyfile" {
		text = o.adapted()
	}
	if err := caddy.Load(text, true); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			o.t.Error(err)
		}
		// a later run of this process still logs to the first file
		if text, err := os.ReadFile("caddy.log"); err == nil && o.t.Failed() {
			o.t.Logf("%s", text)
		}
	})
}

func (o *older) adapted() []byte {
	o.t.Helper()
	text, _, err := caddyconfig.GetAdapter("caddyfile").
		Adapt([]byte(o.file("Caddyfile")), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		o.t.Fatal(err)
	}
	return text
}

// signingKeys returns the files with the signing keys, by name and content.
func (o *older) signingKeys() string {
	o.t.Helper()
	files, err := filepath.Glob("storage/jwt/signing_keys/*")
	if err != nil || len(files) == 0 {
		o.t.Fatal("no signing keys: ", err)
	}
	var all strings.Builder
	for _, file := range files {
		all.WriteString(file + ": " + o.file(file) + "\n")
	}
	return all.String()
}

func (o *older) answer(name string) string { return o.file(filepath.Join("answers", name)) }

func (o *older) file(path string) string {
	o.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		o.t.Fatal(err)
	}
	return string(text)
}

type olderTokens struct{ Token, RefreshToken string }

func (o *older) tokens(name string) (found olderTokens) {
	o.t.Helper()
	o.decode(o.answer(name), &found)
	return found
}

func (o *older) user(name string) (found struct{ ID string }) {
	o.t.Helper()
	o.decode(o.answer(name+".json"), &found)
	return found
}

func (o *older) decode(text string, into any) {
	o.t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		o.t.Errorf("%v in %s", err, text)
	}
}

// keyIDs returns the key IDs of a key set, in order.
func keyIDs(t testing.TB, set string) string {
	t.Helper()
	var keys struct {
		Keys []struct{ Kid string }
	}
	if err := json.Unmarshal([]byte(set), &keys); err != nil || len(keys.Keys) == 0 {
		t.Fatalf("no key set: %v %s", err, set)
	}
	var ids []string
	for _, key := range keys.Keys {
		ids = append(ids, key.Kid)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

type olderReply struct {
	status int
	header http.Header
	body   string
}

func (o *older) get(target string, headers ...string) olderReply {
	o.t.Helper()
	return o.send(o.request(http.MethodGet, target, "", headers...))
}

func (o *older) bearer(target, token string) olderReply {
	o.t.Helper()
	return o.get(target, "Authorization: Bearer "+token)
}

func (o *older) post(target string, body sitetest.JSON) olderReply {
	o.t.Helper()
	return o.send(o.request(http.MethodPost, target, sitetest.Marshal(o.t, body), "Content-Type: application/json"))
}

func (o *older) request(method, target, body string, headers ...string) *http.Request {
	o.t.Helper()
	request, err := http.NewRequest(method, "http://"+target, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	return request
}

func (o *older) send(request *http.Request) olderReply {
	o.t.Helper()
	response, err := o.transport.RoundTrip(request)
	if err != nil {
		o.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return olderReply{response.StatusCode, response.Header, string(body)}
}
