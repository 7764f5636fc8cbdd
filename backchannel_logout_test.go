package caddyjwt_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// logoutClaims returns the claims of a good logout token, with changes.
func logoutClaims(issuer string, changes sitetest.JSON) sitetest.JSON {
	now := time.Now().Unix()
	claims := sitetest.JSON{
		"iss": issuer, "aud": "my-app", "iat": now, "exp": now + 120, "jti": fmt.Sprint(time.Now().UnixNano()),
		"sub": "alice", "sid": "session-1", "events": sitetest.JSON{logoutEvent: sitetest.JSON{}},
	}
	for name, value := range changes {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	return claims
}

// sendLogout sends a logout token as an issuer does.
func sendLogout(t *testing.T, s *sitetest.Site, token string) sitetest.Reply {
	t.Helper()
	response, err := http.PostForm(s.URL+"/backchannel", url.Values{"logout_token": {token}})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return sitetest.Reply{Status: response.StatusCode, Header: response.Header, Body: string(body)}
}

func logoutBody(issuer string) string {
	return `
	jwt /api/* {
		issuer ` + issuer + ` {
			audience https://api.example
			backchannel_logout /backchannel my-app other-app {
				lifetime 1h
			}
		}
	}
	respond /api/* ok`
}

// sessionToken returns an access token of a session.
func sessionToken(i *sitetest.IntrospectionServer, changes sitetest.JSON) string {
	claims := sitetest.JSON{
		"iss": i.URL, "aud": "https://api.example", "sid": "session-1", "iat": time.Now().Unix() - 10,
	}
	for name, value := range changes {
		claims[name] = value
	}
	return i.Sign("JWT", sitetest.Claims(claims))
}

// A log-out that the issuer reports ends the tokens of the session at once, also remembered ones,
// and no others. It is not forgotten by a restart.
func TestBackchannelLogout(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	later := time.Now().Add(10 * time.Second).Unix() // within the leeway
	for name, of := range map[string]struct {
		changes sitetest.JSON // of the logout token
		ended   map[string]sitetest.JSON
		lives   map[string]sitetest.JSON
	}{
		"sid": {
			sitetest.JSON{"sub": nil},
			map[string]sitetest.JSON{"its session": nil, "a later token": {"iat": later}},
			map[string]sitetest.JSON{
				"another session": {"sid": "session-2"}, "without sid": {"sid": nil},
			},
		},
		"sub": {
			sitetest.JSON{"sid": nil},
			map[string]sitetest.JSON{
				"issued before": nil, "another session": {"sid": "session-2"}, "without sid": {"sid": nil},
				"without iat": {"iat": nil},
			},
			map[string]sitetest.JSON{"issued after": {"iat": later}, "another user": {"sub": "bob"}},
		},
		"sid and sub": {
			nil,
			map[string]sitetest.JSON{"its session": nil, "without sid": {"sid": nil}},
			map[string]sitetest.JSON{
				"another session": {"sid": "session-2"}, "without sid, issued after": {"sid": nil, "iat": later},
				"another user": {"sub": "bob", "sid": "session-3"},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			storage := sitetest.TempDir(t)
			s := &sitetest.Site{
				T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(sitetest.TempDir(t), "log.json"),
			}
			s.Load(logoutBody(i.URL), storage)
			sitetest.StopAfter(t)
			ended, lives := make(map[string]string), make(map[string]string)
			for name, changes := range of.ended {
				ended[name] = sessionToken(i, changes)
				s.MustAnswer(200, s.Bearer("/api/x", ended[name]), "before: "+name)
			}
			for name, changes := range of.lives {
				lives[name] = sessionToken(i, changes)
			}
			got := sendLogout(t, s, i.Sign("logout+jwt", logoutClaims(i.URL, of.changes)))
			if got.Status != 200 || got.Header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %s %v", got.Status, got.Body, got.Header)
			}
			check := func(when string) {
				t.Helper()
				for name, token := range ended {
					s.MustAnswer(401, s.Bearer("/api/x", token), when+": "+name)
				}
				for name, token := range lives {
					s.MustAnswer(200, s.Bearer("/api/x", token), when+": "+name)
				}
			}
			check("at once")
			s.Load("respond ok", storage) // nothing is left in memory
			s.Load(logoutBody(i.URL), storage)
			check("after a restart")
		})
	}
}

// Each row differs from the control in one thing, and ends no session.
func TestThreatsOfLogoutTokens(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	s := sitetest.Serve(t, logoutBody(i.URL))
	access := sessionToken(i, nil)
	sign := func(changes sitetest.JSON) string { return i.Sign("logout+jwt", logoutClaims(i.URL, changes)) }
	now := time.Now().Unix()
	event := func(value any) sitetest.JSON { return sitetest.JSON{logoutEvent: value} }
	for name, token := range map[string]string{
		"wrong key": sitetest.Sign(t, "RS256", sitetest.Keys().StrangerRSA,
			sitetest.JSON{"kid": "1", "typ": "logout+jwt"}, logoutClaims(i.URL, nil)),
		"alg none": sitetest.Unsigned(t, sitetest.JSON{"alg": "none", "typ": "logout+jwt"},
			logoutClaims(i.URL, nil)) + ".",
		"HMAC by the public key": sitetest.Sign(t, "HS256", []byte(sitetest.PEM(t, sitetest.Keys().RSA)),
			sitetest.JSON{"kid": "1", "typ": "logout+jwt"}, logoutClaims(i.URL, nil)),
		"typ of an access token": i.Sign("at+jwt", logoutClaims(i.URL, nil)),
		"an access token":        access,
		"another issuer":         sign(sitetest.JSON{"iss": "https://other.example"}),
		"no issuer":              sign(sitetest.JSON{"iss": nil}),
		"another client":         sign(sitetest.JSON{"aud": "their-app"}),
		"the audience of access": sign(sitetest.JSON{"aud": "https://api.example"}),
		"no audience":            sign(sitetest.JSON{"aud": nil}),
		"expired":                sign(sitetest.JSON{"exp": now - 60}),
		"no exp":                 sign(sitetest.JSON{"exp": nil}),
		"no iat":                 sign(sitetest.JSON{"iat": nil}),
		"old iat":                sign(sitetest.JSON{"iat": now - 3600}),
		"future iat":             sign(sitetest.JSON{"iat": now + 3600, "exp": now + 7200}),
		"no jti":                 sign(sitetest.JSON{"jti": nil}),
		"neither sid nor sub":    sign(sitetest.JSON{"sid": nil, "sub": nil}),
		"sid is a number":        sign(sitetest.JSON{"sid": 1}),
		"sub is a list":          sign(sitetest.JSON{"sub": []string{"alice"}}),
		"empty sid":              sign(sitetest.JSON{"sid": ""}),
		"a nonce":                sign(sitetest.JSON{"nonce": "x"}),
		"an empty nonce":         sign(sitetest.JSON{"nonce": ""}),
		"no events":              sign(sitetest.JSON{"events": nil}),
		"another event":          sign(sitetest.JSON{"events": sitetest.JSON{"https://x.example": sitetest.JSON{}}}),
		"event is true":          sign(sitetest.JSON{"events": event(true)}),
		"events is a list":       sign(sitetest.JSON{"events": []string{logoutEvent}}),
		"garbage":                "x.y.z",
		"empty":                  "",
	} {
		got := sendLogout(t, s, token)
		if got.MustFail(t, 400, "invalid_request"); got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", name, got.Header)
		}
		s.MustAnswer(200, s.Bearer("/api/x", access), name)
	}
	for name, of := range map[string]struct{ method, path, kind string }{
		"GET":           {"GET", "/backchannel?logout_token=" + sign(nil), ""},
		"in the query":  {"POST", "/backchannel?logout_token=" + sign(nil), "application/x-www-form-urlencoded"},
		"JSON":          {"POST", "/backchannel", "application/json"},
		"no media type": {"POST", "/backchannel", ""},
	} {
		got := s.Do(of.method, of.path, "Content-Type: "+of.kind)
		if want := map[string]int{"GET": 405, "POST": 400}[of.method]; got.Status != want {
			t.Errorf("%s: %d", name, got.Status)
		}
		s.MustAnswer(200, s.Bearer("/api/x", access), name)
	}
	for name, token := range map[string]string{
		"control": sign(nil),
		"without a typ": sitetest.SignExactly(
			t, "RS256", sitetest.Keys().RSA, sitetest.JSON{"alg": "RS256", "kid": "1"}, logoutClaims(i.URL, nil),
		),
		"typ JWT":         i.Sign("JWT", logoutClaims(i.URL, nil)),
		"the other app":   sign(sitetest.JSON{"aud": []string{"other-app", "x"}}),
		"event with more": sign(sitetest.JSON{"events": event(sitetest.JSON{"x": 1})}),
	} {
		s.MustAnswer(200, sendLogout(t, s, token), name)
		sendLogout(t, s, token).MustFail(t, 400, "invalid_request") // a second time
	}
	s.MustAnswer(401, s.Bearer("/api/x", access), "the control ends it")
	if strings.Contains(s.Log(), access) {
		t.Error("the log has a token")
	}
}

// Every node that shares the storage refuses the tokens within a second.
func TestBackchannelLogoutOnTwoNodes(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	dir := sitetest.TempDir(t)
	var nodes []*sitetest.Process
	for _, name := range []string{"1", "2"} {
		p := sitetest.NewProcess(t, dir, name, sitetest.FreeAddress(t), "", logoutBody(i.URL))
		p.Start()
		p.AwaitAnswer(func(int) bool { return true })
		nodes = append(nodes, p)
	}
	for round := range 5 {
		sid := fmt.Sprint("session-", round)
		token := sessionToken(i, sitetest.JSON{"sid": sid})
		for _, node := range nodes {
			sitetest.Eventually(t, "the keys are loaded", func() bool {
				return node.Bearer("/api/x", token).Status == 200
			})
		}
		logout := i.Sign("logout+jwt", logoutClaims(i.URL, sitetest.JSON{"sid": sid, "sub": nil}))
		got := sendLogout(t, nodes[round%2].Site, logout)
		start := time.Now()
		nodes[0].MustAnswer(200, got, "log-out")
		nodes[round%2].MustAnswer(401, nodes[round%2].Bearer("/api/x", token), "at once on this node")
		sitetest.Within(t, 2*time.Second, "the other node refuses it", func() bool {
			return nodes[1-round%2].Bearer("/api/x", token).Status == 401
		})
		t.Logf("the other node after %s", time.Since(start))
		if took := time.Since(start); took > time.Second {
			t.Errorf("the other node took %s", took)
		}
	}
}
