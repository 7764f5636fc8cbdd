package caddyjwt_test

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

func claimSite(t *testing.T, options string) (*sitetest.Site, *backend) {
	t.Helper()
	b := newBackend(t)
	return sitetest.Serve(t, `servers {
			expected_underscore_headers X_C
		}
----------
		jwt {
			secret "`+sitetest.Secret+`"
			`+options+`
		}
		reverse_proxy `+b.URL), b
}

// A claim header has the form that the upstream can read.
func TestClaimHeaderForms(t *testing.T) {
	const payload = `{"sub":"alice","exp":9999999999,"name":"Zoë Ünal 中 😀","roles":["a,b","ü"],` +
		`"groups":["x",1,{"n":2}],` +
		`"big":12345678901234567890,"exact":9007199254740993,"half":0.5,"yes":true,"null":null,"none":[],"empty":"",` +
		`"lines":"a\r\nX-Admin: 1","items":["a","b\nc"],"del":"a\u007fb","org":{"é":"<&>"},"quote":"\"\\"}`
	for _, c := range []struct {
		claim string
		want  []string // nil if the header is not set
	}{
		{"name", []string{"Zoë Ünal 中 😀"}},
		{"roles", []string{"a,b,ü"}},
		{"none", []string{""}},
		{"lines", nil}, {"items", nil}, {"del", nil}, {"null", nil}, {"absent", nil},
		{"org", []string{`{"é":"<&>"}`}},

		{"name percent", []string{"Zo%C3%AB%20%C3%9Cnal%20%E4%B8%AD%20%F0%9F%98%80"}},
		{"roles percent", []string{"a%2Cb%2C%C3%BC"}},
		{"lines percent", []string{"a%0D%0AX-Admin%3A%201"}},
		{"del percent", []string{"a%7Fb"}},
		{"exact percent", []string{"9007199254740993"}},
		{"absent percent", nil}, {"null percent", nil},

		{"name base64", []string{base64.StdEncoding.EncodeToString([]byte("Zoë Ünal 中 😀"))}},
		{"sub base64", []string{"YWxpY2U="}},
		{"sub base64url", []string{"YWxpY2U"}},
		{"quote base64", []string{"Ilw="}},
		{"lines base64url", []string{"YQ0KWC1BZG1pbjogMQ"}},

		{"sub json", []string{`"alice"`}},
		{"name json", []string{`"Zo\u00eb \u00dcnal \u4e2d \ud83d\ude00"`}},
		{"roles json", []string{`["a,b","\u00fc"]`}},
		{"groups json", []string{`["x",1,{"n":2}]`}},
		{"none json", []string{"[]"}},
		{"big json", []string{"12345678901234567890"}}, {"exact json", []string{"9007199254740993"}},
		{"half json", []string{"0.5"}}, {"yes json", []string{"true"}},
		{"lines json", []string{`"a\r\nX-Admin: 1"`}}, {"items json", []string{`["a","b\nc"]`}},
		{"del json", []string{`"a\u007fb"`}}, {"quote json", []string{`"\"\\"`}},
		{"org json", []string{`{"\u00e9":"<&>"}`}}, {"org.é json", []string{`"<&>"`}},
		{"absent json", nil}, {"null json", nil},

		{"roles lines", []string{"a,b", "ü"}},
		{"groups lines", []string{"x", "1", `{"n":2}`}},
		{"sub lines", []string{"alice"}},
		{"none lines", nil}, {"items lines", nil},
		{"roles lines percent", []string{"a%2Cb", "%C3%BC"}},
		{"items percent lines", []string{"a", "b%0Ac"}},
		{"groups json base64", []string{base64.StdEncoding.EncodeToString([]byte(`["x",1,{"n":2}]`))}},
		{"name json percent", []string{url.PathEscape(`"Zo\u00eb \u00dcnal \u4e2d \ud83d\ude00"`)}},
	} {
		s, b := claimSite(t, "claim_header X-C "+c.claim)
		token := sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"}`, payload)
		got := s.Get(
			"/", "Authorization: Bearer "+token, "X-C: spoofed", "X_C: spoofed", "x.c: spoofed", "Connection: X-C",
		)
		s.MustAnswer(200, got, c.claim)
		if values := b.header("X-C"); !reflect.DeepEqual(values, c.want) {
			t.Errorf("%s: %q, expected %q", c.claim, values, c.want)
		}
		for _, name := range []string{"X_C", "X.c"} {
			if values := b.header(name); values != nil {
				t.Errorf("%s: the client's %s: %q", c.claim, name, values)
			}
		}
	}
}

// All claims in one header, as other gateways send them.
func TestClaimHeaderOfAllClaims(t *testing.T) {
	payload := `{"sub":"alice","exp":9999999999,"id":9007199254740993,"name":"Zoë","line":"a\nb"}`
	const want = `{"exp":9999999999,"id":9007199254740993,"line":"a\nb","name":"Zo\u00eb","sub":"alice"}`
	token := sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"}`, payload)
	for form, decode := range map[string]func(string) (string, error){
		"":     func(text string) (string, error) { return text, nil },
		"json": func(text string) (string, error) { return text, nil },
		"base64": func(text string) (string, error) {
			decoded, err := base64.StdEncoding.DecodeString(text)
			return string(decoded), err
		},
		"json base64url": func(text string) (string, error) {
			decoded, err := base64.RawURLEncoding.DecodeString(text)
			return string(decoded), err
		},
		"percent": url.PathUnescape,
	} {
		s, b := claimSite(t, "optional\nclaim_header X-C * "+form)
		s.MustAnswer(200, s.Get("/", "Authorization: Bearer "+token, "X-C: {}"), form)
		values := b.header("X-C")
		if len(values) != 1 {
			t.Fatalf("%q: %q", form, values)
		}
		if got, err := decode(values[0]); err != nil || got != want || !json.Valid([]byte(got)) {
			t.Errorf("%q: %s, %v, expected %s", form, got, err, want)
		}
		s.MustAnswer(200, s.Get("/", `X-C: {"sub":"admin"}`), "anonymous")
		if values := b.header("X-C"); values != nil {
			t.Errorf("%q: anonymous, but %q", form, values)
		}
	}
	// The largest token that is accepted.
	s, b := claimSite(t, "claim_header X-C * percent")
	large := sitetest.HS256(t, sitetest.JSON{"name": strings.Repeat("ü", 5900)})
	s.MustAnswer(200, s.Bearer("/", large), "a large token")
	if values := b.header("X-C"); len(values) != 1 || len(values[0]) < 40_000 || len(values[0]) > 60_000 {
		t.Errorf("a large token: %d lines", len(values))
	}
}

// Two tokens that are both required: the upstream gets the claims of both, also without `route`.
func TestClaimHeadersOfTwoTokens(t *testing.T) {
	keys, b := sitetest.Keys(), newBackend(t)
	s := sitetest.Serve(t, `
		jwt {
			public_key "`+sitetest.PEM(t, keys.RSA)+`"
			claim_header X-User sub
		}
		jwt {
			issuer https://scope.example {
				public_key "`+sitetest.PEM(t, keys.P256)+`"
			}
			from header X-Scope-Token
			claim_header X-Scope scope
		}
		reverse_proxy `+b.URL)
	user := "Authorization: Bearer " + sitetest.Sign(t, "RS256", keys.RSA, nil, sitetest.Claims(nil))
	scope := "X-Scope-Token: " + sitetest.Sign(t, "ES256", keys.P256, nil, sitetest.Claims(
		sitetest.JSON{"iss": "https://scope.example", "sub": "service", "scope": "read"},
	))
	s.MustAnswer(200, s.Get("/", user, scope, "X-User: admin", "X-Scope: all", "X_Scope: all"), "both")
	if who, may := b.header("X-User"), b.header("X-Scope"); !reflect.DeepEqual(who, []string{"alice"}) ||
		!reflect.DeepEqual(may, []string{"read"}) {
		t.Errorf("the upstream gets %q, %q", who, may)
	}
	s.MustAnswer(401, s.Get("/", user), "the first only")
	s.MustAnswer(401, s.Get("/", scope), "the second only")
	again := "X-Scope-Token: " + strings.TrimPrefix(user, "Authorization: Bearer ")
	s.MustAnswer(401, s.Get("/", user, again), "one for both")
}

// A client cannot add to a list, nor send the header as a trailer.
func TestThreatClaimHeaderLines(t *testing.T) {
	s, b := claimSite(t, "claim_header X-C roles lines")
	token := "Authorization: Bearer " + sitetest.HS256(t, sitetest.JSON{"roles": []string{"reader", "writer"}})
	s.MustAnswer(200, s.Get("/", token, "X-C: admin", "X-C: root", "X_C: admin"), "several lines of the client")
	if got := b.header("X-C"); !reflect.DeepEqual(got, []string{"reader", "writer"}) {
		t.Errorf("the upstream gets %q", got)
	}
	s.MustAnswer(200, s.Get("/", "Authorization: Bearer "+sitetest.HS256(t, nil), "X-C: admin"), "no roles")
	if got := b.header("X-C"); got != nil {
		t.Errorf("without roles, the upstream gets %q", got)
	}
}
