package provider_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"net/http"
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The code flow, from the log-in to the tokens: the time of each step, as a client sees it over
// HTTP, and the exchange of a code compared with its two signatures.
func BenchmarkCodeFlow(b *testing.B) {
	s := serveClients(b)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	steps := []string{"log-in", "authorize", "exchange", "userinfo", "refresh", "raw-signing"}
	spent, cpu := make(map[string]time.Duration), make(map[string]time.Duration)
	timed := func(step string, f func()) {
		start, used := time.Now(), processorTime()
		f()
		spent[step] += time.Since(start)
		cpu[step] += processorTime() - used
	}
	for b.Loop() {
		timed("log-in", func() {
			chrome.Post("/auth/login", url.Values{"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}})
		})
		var code string
		timed("authorize", func() { code = chrome.Get(s.authorizeURL("spa", nil)).To(b).Query().Get("code") })
		var given map[string]any
		timed("exchange", func() { given = chrome.redeem("spa", code).JSON(b) })
		timed("userinfo", func() {
			if got := chrome.Do(
				http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+given["access_token"].(string),
			); got.Status != 200 {
				b.Fatal(got.Status, got.Body)
			}
		})
		timed("refresh", func() {
			if got := chrome.refresh("spa", given["refresh_token"].(string)); got.Status != 200 {
				b.Fatal(got.Status, got.Body)
			}
		})
		timed("raw-signing", func() {
			digest := sha256.Sum256([]byte(code))
			if _, err := rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, digest[:]); err != nil {
				b.Fatal(err)
			}
			if _, err := ecdsa.SignASN1(rand.Reader, ecKey, digest[:]); err != nil {
				b.Fatal(err)
			}
		})
	}
	for _, step := range steps {
		b.ReportMetric(float64(spent[step].Microseconds())/float64(b.N), step+"-µs")
	}
	b.ReportMetric(float64(cpu["exchange"].Microseconds())/float64(b.N), "exchange-cpu-µs")
	b.ReportMetric(float64(cpu["exchange"])/float64(cpu["raw-signing"]), "exchange-cpu/raw-signing")
	b.ReportMetric(0, "ns/op")
}

// processorTime returns the processor time of this process, which includes the server and the
// client.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
