package postgres_test

import (
	"fmt"
	"io"
	"mime/quotedprintable"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

var mailedCode = regexp.MustCompile(`The code is: (\d{6})`)

// A code that was asked for at one node is used at the other, and once, although both nodes try at
// the same time. Wrong ones are counted at both together. Either node sends the mails.
func TestTwoNodesMailedCodes(t *testing.T) {
	s := start(t)
	server := sitetest.NewSMTPServer(t)
	server.Start()
	options := fmt.Sprintf("mail smtp://%s {\nfrom no-reply@example.com\n}\nverify_email\nthrottle 100 15m\n", server.Address)
	nodes := startNodes(t, 2, accountsOnly(s.database("mailed"), options))
	mails := 0
	code := func() string { // of the next mail that is no notice
		t.Helper()
		for {
			mails++
			raw := server.MustGet(mails)[mails-1].Raw
			text, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(raw)))
			if err != nil {
				t.Fatal(err)
			}
			if found := mailedCode.FindSubmatch(text); found != nil {
				return string(found[1])
			}
			if !strings.Contains(raw, "Subject: Your password at") {
				t.Fatalf("no code in %q", text)
			}
		}
	}
	send := func(i int, path string, body map[string]string, want int) {
		t.Helper()
		if status, answer := nodes[i].send("POST", path, "", body); status != want {
			t.Fatalf("%s at node %d: %d %v, expected %d", path, i, status, answer, want)
		}
	}
	credentials := map[string]string{"email": "alice@example.com", "password": sitetest.GoodPassword}
	send(0, "/auth/signup", credentials, 202)
	verify := map[string]string{"email": "alice@example.com", "code": code()}
	send(0, "/auth/login", credentials, 403)
	verify["code"] = code() // of another mail
	var all sync.WaitGroup
	var given atomic.Int64
	for i := range 10 {
		all.Go(func() {
			switch status, answer := nodes[i%2].send("POST", "/auth/verify", "", verify); status {
			case 200:
				given.Add(1)
			case 401:
			default:
				t.Errorf("%d %v", status, answer)
			}
		})
	}
	all.Wait()
	if given.Load() != 1 {
		t.Errorf("the code was used %d times", given.Load())
	}
	send(1, "/auth/login", credentials, 200)

	send(1, "/auth/forgot", map[string]string{"email": "alice@example.com"}, 202)
	reset := map[string]string{"email": "alice@example.com", "code": "abcdef", "newPassword": "another password"}
	right := code()
	for i := range 4 {
		send(i%2, "/auth/reset", reset, 401)
	}
	reset["code"] = right
	send(0, "/auth/reset", reset, 204)
	send(1, "/auth/reset", reset, 401)

	send(0, "/auth/forgot", map[string]string{"email": "alice@example.com"}, 202)
	reset["code"] = "abcdef"
	right = code()
	for i := range 5 {
		send(i%2, "/auth/reset", reset, 401)
	}
	reset["code"] = right
	send(0, "/auth/reset", reset, 401)
}
