package caddyjwt_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// Two sites with the same issuer are told apart: decisions by the site, and the rest by the store. What a
// client sends is in no label.
func TestMetricsBySiteAndStore(t *testing.T) {
	dir := sitetest.TempDir(t)
	port := sitetest.FreePort(t)
	site := func(host, options string) string {
		return "http://" + host + ":" + port + " {\n metrics /metrics\n jwt /x {\n accounts {\n store file " +
			filepath.Join(dir, host+".db") + "\n" + options + "\n}\n}\n}\n"
	}
	sitetest.LoadText(t, sitetest.GlobalOptions(dir, filepath.Join(dir, "log.json"), "")+
		site("127.0.0.1", "")+site("localhost", "signup open"))
	a, b := &sitetest.Site{T: t, URL: "http://127.0.0.1:" + port}, &sitetest.Site{T: t, URL: "http://localhost:" + port}
	a.MustAnswer(401, a.Get("/x"), "at a")
	b.MustAnswer(201, b.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "at b")
	text := a.Get("/metrics").Body
	for _, series := range []string{
		`caddy_jwt_user_store_up{issuer="caddy-jwt-accounts",store="` + dir + `/127.0.0.1.db"} 1`,
		`caddy_jwt_user_store_up{issuer="caddy-jwt-accounts",store="` + dir + `/localhost.db"} 1`,
		`caddy_jwt_account_events_total{event="signup",result="ok",store="` + dir + `/127.0.0.1.db"} 0`,
		`caddy_jwt_account_events_total{event="signup",result="ok",store="` + dir + `/localhost.db"} 1`,
	} {
		if !strings.Contains(text, series+"\n") {
			t.Errorf("no series %s", series)
		}
	}
	const refused = `caddy_jwt_decisions_total{reason="no_credentials",result="refused",site=`
	count := func(site string) string {
		_, after, _ := strings.Cut(a.Get("/metrics").Body, refused+`"`+site+`"} `)
		number, _, _ := strings.Cut(after, "\n")
		return number
	}
	beforeA, beforeB := count("127.0.0.1"), count("localhost")
	b.MustAnswer(401, b.Get("/x"), "at b")
	if count("127.0.0.1") != beforeA || count("localhost") == beforeB || beforeA == "" || beforeB == "" {
		t.Errorf("refused at a: %s, then %s; at b: %s, then %s", beforeA, count("127.0.0.1"), beforeB, count("localhost"))
	}
	a.Get("/x", "Host: evil.example", "X-Forwarded-Host: evil.example")
	if strings.Contains(a.Get("/metrics").Body, "evil") {
		t.Error("the host of a request is in a label")
	}
}
