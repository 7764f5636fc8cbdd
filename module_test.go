package caddyjwt_test

import (
	stdjson "encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

func secretSite(t testing.TB, options string) *sitetest.Site {
	t.Helper()
	return sitetest.Serve(t, `
		jwt /api/* {
			secret "`+sitetest.Secret+`"
			`+options+`
		}
		respond "user=[{http.auth.user.id}]"`)
}

func TestAnswers(t *testing.T) {
	s := secretSite(t, "require scope read")
	for _, c := range []struct {
		name      string
		headers   []string
		status    int
		challenge string
		code      string
	}{
		{"no credentials", nil, 401, `Bearer realm="restricted"`, "credentials_required"},
		{
			"another scheme", []string{"Authorization: Basic YTpi"},
			401, `Bearer realm="restricted"`, "credentials_required",
		},
		{
			"no token", []string{"Authorization: Bearer"}, 400,
			`Bearer realm="restricted", error="invalid_request", error_description="the credentials must be a scheme and a token, as in Authorization: Bearer xx.yy.zz"`,
			"invalid_request",
		},
		{
			"too many parts", []string{"Authorization: Bearer a b"}, 400,
			`Bearer realm="restricted", error="invalid_request", error_description="the credentials must be a scheme and a token, as in Authorization: Bearer xx.yy.zz"`,
			"invalid_request",
		},
		{
			"no JWT", []string{"Authorization: Bearer abc"}, 401,
			`Bearer realm="restricted", error="invalid_token", error_description="the token is not a signed JWT in compact form"`,
			"invalid_token",
		},
		{
			"expired", []string{"Authorization: Bearer " + sitetest.HS256(t, sitetest.JSON{"exp": 1})}, 401,
			`Bearer realm="restricted", error="invalid_token", error_description="the token has expired"`,
			"invalid_token",
		},
		{
			"scope missing", []string{"Authorization: Bearer " + sitetest.HS256(t, nil)}, 403,
			`Bearer realm="restricted", error="insufficient_scope", error_description="the token lacks a required scope", scope="read"`,
			"insufficient_scope",
		},
		{
			"good", []string{"Authorization: bEARER " + sitetest.HS256(t, sitetest.JSON{"scope": "read write"})},
			200, "", "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := s.Get("/api/x", c.headers...)
			if got.Status != c.status || got.Header.Get("WWW-Authenticate") != c.challenge {
				t.Fatalf(
					"status %d, challenge %q; expected %d, %q", got.Status,
					got.Header.Get("WWW-Authenticate"), c.status, c.challenge,
				)
			}
			if c.status == 200 {
				if got.Body != "user=[alice]" {
					t.Errorf("body %q", got.Body)
				}
				return
			}
			var body answer.ErrorBody
			if err := stdjson.Unmarshal([]byte(got.Body), &body); err != nil {
				t.Fatalf("body %q: %v", got.Body, err)
			}
			if body.Error.StatusCode != c.status || body.Error.Code != c.code || body.Error.Message == "" ||
				!strings.HasSuffix(body.Error.Name, "Error") {
				t.Errorf("body %s", got.Body)
			}
			if kind := got.Header.Get("Content-Type"); kind != "application/json" {
				t.Errorf("content type %q", kind)
			}
		})
	}
	if got := s.Get("/elsewhere"); got.Status != 200 ||
		got.Body != "user=[]" && got.Body != "user=[{http.auth.user.id}]" {
		t.Errorf("a path that the matcher does not name: %d %q", got.Status, got.Body)
	}
}

// The tokens, the secret and the claims of refused and accepted requests stay
// out of the logs, at the debug level too.
func TestNothingSecretIsLogged(t *testing.T) {
	s := sitetest.Serve(t, `log
		jwt {
			secret "`+sitetest.Secret+`"
		}
		respond ok`)
	good, bad := sitetest.HS256(t, sitetest.JSON{"secret_claim": "sesame"}), sitetest.HS256(t, sitetest.JSON{
		"secret_claim": "sesame", "exp": 1,
	})
	s.MustAnswer(200, s.Bearer("/", good), "control")
	s.MustAnswer(401, s.Bearer("/", bad), "expired")
	s.MustAnswer(401, s.Bearer("/", good+"x"), "tampered")
	log := s.Log()
	for _, secret := range []string{sitetest.Secret, good, bad, good[:40], strings.Split(good, ".")[2], "sesame"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	for _, wanted := range []string{`"user_id":"alice"`, `"reason":"expired"`, `"reason":"signature"`} {
		if !strings.Contains(log, wanted) {
			t.Errorf("the log lacks %s:\n%s", wanted, log)
		}
	}
}

func TestPlaceholders(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			user_id employee email
		}
		respond "{http.auth.user.id}|{http.auth.user.sub}|{http.auth.user.roles}|{http.auth.user.roles.1}|{http.auth.user.org.unit.name}|{http.auth.user.org}|{http.auth.user.big}|{http.auth.user.half}|{http.auth.user.yes}|{http.auth.user.absent}|{http.auth.user.null}|{http.auth.user.https://example.com/groups}|{http.auth.user.https://example.com/groups.0}|{http.auth.user.nested}"`)
	payload := `{"sub":"alice","exp":9999999999,"employee":12345678901234567890,"roles":["a","b"],"org":{"unit":{"name":"R&D"},"id":7},
		"big":9007199254740993,"nested":{"big":12345678901234567890},"half":0.5,"yes":true,"null":null,"https://example.com/groups":["x"]}`
	got := s.Bearer("/", sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"}`, payload))
	want := `12345678901234567890|alice|a,b|b|R&D|{"id":7,"unit":{"name":"R&D"}}|9007199254740993|0.5|true|||x|x|{"big":12345678901234567890}`
	if got.Body != want {
		t.Errorf("got  %s\nwant %s", got.Body, want)
	}
}

// A path that is public for the last handler has no user, even if an earlier handler identified
// one.
func TestPublicForgetsUser(t *testing.T) {
	s := sitetest.Serve(t, `
		route {
			jwt {
				secret "`+sitetest.Secret+`"
			}
			jwt {
				secret "`+sitetest.Secret+`"
				public /public
			}
			respond "user=[{http.auth.user.id}{http.auth.user.sub}]"
		}`)
	if got := s.Bearer("/public", sitetest.HS256(t, nil)); got.Body != "user=[]" {
		t.Errorf("body %q", got.Body)
	}
	if got := s.Bearer("/", sitetest.HS256(t, nil)); got.Body != "user=[alicealice]" {
		t.Errorf("control: body %q", got.Body)
	}
}

// If two handlers run, all values of the user come from the last one.
func TestSecondHandlerReplacesUser(t *testing.T) {
	const other = "another secret, of more than thirty-two bytes as well"
	s := sitetest.Serve(t, `
		route {
			jwt {
				secret "`+sitetest.Secret+`"
			}
			jwt {
				secret "`+other+`"
				from header X-Second
			}
			respond "{http.auth.user.id} {http.auth.user.first}{http.auth.user.second}"
		}`)
	got := s.Get(
		"/", "Authorization: Bearer "+sitetest.HS256(t, sitetest.JSON{"first": "1"}), "X-Second: "+
			sitetest.Sign(t, "HS256", []byte(other), nil, sitetest.Claims(sitetest.JSON{"sub": "bob", "second": "2"})),
	)
	if got.Body != "bob 2" {
		t.Errorf("body %q", got.Body)
	}
}

func TestUserID(t *testing.T) {
	s := secretSite(t, "user_id uid email")
	s.MustAnswer(200, s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{"email": "a@example.com"})), "second claim")
	s.MustAnswer(401, s.Bearer("/api/", sitetest.HS256(t, nil)), "neither")
	s.MustAnswer(401, s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{"uid": ""})), "empty")
	s.MustAnswer(401, s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{"uid": []string{"a"}})), "a list")
	if got := s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{
		"uid": 7, "email": "a@example.com",
	})); got.Body != "user=[7]" {
		t.Errorf("body %q", got.Body)
	}
	s = secretSite(t, "")
	s.MustAnswer(401, s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{"sub": nil})), "no sub")
	s.MustAnswer(401, s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{"sub": ""})), "empty sub")
}

func TestOptionalPublicPreflight(t *testing.T) {
	s := secretSite(t, "optional\nrequire role admin")
	if got := s.Get("/api/"); got.Status != 200 || got.Body != "user=[]" {
		t.Errorf("anonymous: %d %q", got.Status, got.Body)
	}
	s.MustAnswer(
		401, s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{"exp": 1})), "a bad token is refused all the same",
	)
	s.MustAnswer(403, s.Bearer("/api/", sitetest.HS256(t, nil)), "the rules are for those with a token")
	s.MustAnswer(200, s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{"roles": []string{"admin"}})), "control")

	s = secretSite(t, "public /api/open/* /api/health\nallow_preflight")
	for _, path := range []string{"/api/open/x", "/api/health", "/API/Open/x"} {
		s.MustAnswer(200, s.Get(path), path)
		s.MustAnswer(200, s.Bearer(path, "rubbish"), path+" does not look at tokens")
	}
	s.MustAnswer(401, s.Get("/api/closed"), "control")
	s.MustAnswer(
		200, s.Do("OPTIONS", "/api/closed", "Origin: https://app.example", "Access-Control-Request-Method: PUT"),
		"preflight",
	)
	s.MustAnswer(401, s.Do("OPTIONS", "/api/closed", "Origin: https://app.example"), "no preflight")
	s.MustAnswer(
		401, s.Do("OPTIONS", "/api/closed", "Access-Control-Request-Method: PUT"), "no preflight without an origin",
	)
	s.MustAnswer(
		401, s.Do("GET", "/api/closed", "Origin: https://app.example", "Access-Control-Request-Method: PUT"),
		"GET is no preflight",
	)
	s = secretSite(t, "")
	s.MustAnswer(
		401, s.Do("OPTIONS", "/api/closed", "Origin: https://app.example", "Access-Control-Request-Method: PUT"),
		"preflight not allowed",
	)
}

func TestTokenSources(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			from header
			from header X-Token
			from header X-Custom Token
			from cookie session
			from query access_token
			strip_token
		}
		respond "{http.request.header.Authorization}|{http.request.header.X-Token}|{http.request.header.Cookie}|{query}"`)
	token := sitetest.HS256(t, nil)
	for name, c := range map[string]struct {
		path    string
		headers []string
		rest    string
	}{
		"header":        {"/", []string{"Authorization: Bearer " + token}, "|||"},
		"custom header": {"/", []string{"X-Token: " + token}, "|||"},
		"custom scheme": {"/", []string{"X-Custom: tOKEN " + token}, "|||"},
		"cookie":        {"/", []string{"Cookie: a=1; session=" + token + `; b="2 3"`}, `||a=1; b="2 3"|`},
		"query":         {"/?a=1&access_token=" + token + "&b=%20", nil, "|||a=1&b=%20"},
		"basic beside":  {"/", []string{"Authorization: Basic YTpi", "Cookie: session=" + token}, "Basic YTpi|||"},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.Get(c.path, c.headers...)
			if got.Status != 200 || got.Body != c.rest {
				t.Errorf("%d, left for the next handler: %q, expected %q", got.Status, got.Body, c.rest)
			}
			byCookie := name == "cookie" || name == "basic beside"
			if private := got.Header.Get("Cache-Control") == "private"; private != (byCookie || name == "query") {
				t.Errorf("Cache-Control %q", got.Header.Get("Cache-Control"))
			}
			if varies := got.Header.Get("Vary") == "Cookie"; varies != byCookie {
				t.Errorf("Vary %q", got.Header.Get("Vary"))
			}
		})
	}
	s.MustAnswer(401, s.Get("/", "Cookie: session="), "an emptied cookie is no credential")
}

func TestClaimHeaders(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			claim_header X-User sub
			claim_header X-Roles roles
			claim_header X-Evil evil
		}
		respond "{http.request.header.X-User}|{http.request.header.X-Roles}|{http.request.header.X-Evil}"`)
	got := s.Bearer("/", sitetest.HS256(t, sitetest.JSON{"roles": []string{"a", "b"}, "evil": "x\r\nX-Admin: 1"}))
	if got.Body != "alice|a,b|" {
		t.Errorf("body %q", got.Body)
	}
}

func TestRules(t *testing.T) {
	for _, c := range []struct {
		rule   string
		claims sitetest.JSON
		met    bool
	}{
		{"require scope a b", sitetest.JSON{"scope": "a b c"}, true},
		{"require scope a b", sitetest.JSON{"scope": "a"}, false},
		{"require scope a", sitetest.JSON{"scope": "ab"}, false},
		{"require scope a b", sitetest.JSON{"scope": []string{"b", "a"}}, true},
		{"require scope a", sitetest.JSON{"scp": "a"}, true},
		{"require scope a", sitetest.JSON{"scope": "", "scp": "a"}, true}, // an empty claim has no scopes
		{"require any scope a b", sitetest.JSON{"scope": "b"}, true},
		{"require any scope a b", sitetest.JSON{"scope": "c"}, false},
		{"require role admin editor", sitetest.JSON{"roles": []string{"editor"}}, true},
		{"require role admin", sitetest.JSON{"roles": "admin"}, true},
		{"require role admin", sitetest.JSON{"roles": []any{[]string{"admin"}}}, false},
		{"require role admin", nil, false},
		{"require claim org.plan pro max", sitetest.JSON{"org": sitetest.JSON{"plan": "max"}}, true},
		{"require claim org.plan pro", sitetest.JSON{"org": sitetest.JSON{"plan": "free"}}, false},
		{"require claim level 3", sitetest.JSON{"level": 3}, true},
		{"require claim verified true", sitetest.JSON{"verified": true}, true},
		{"require role a\nrequire claim b c", sitetest.JSON{"roles": "a"}, false},
		{"require role a\nrequire claim b c", sitetest.JSON{"roles": "a", "b": "c"}, true},
		{`require expression claims.sub == {http.request.uri.path.1}`, nil, true},
		{`require expression claims.sub == {path.1}`, sitetest.JSON{"sub": "bob"}, false},
		{
			`require expression "'admin' in claims.roles || claims.level > 2"`,
			sitetest.JSON{"roles": []string{"x"}, "level": 3}, true,
		},
		{`require expression "claims.level > 2.5"`, sitetest.JSON{"level": 2.75}, true},
		{`require expression "claims.absent == 1"`, nil, false},
		{
			`require expression "claims.n == 18446744073709551615u"`,
			sitetest.JSON{"n": uint64(18446744073709551615)}, true,
		},
		{
			`require expression "claims.n == 18446744073709551615u"`,
			sitetest.JSON{"n": uint64(18446744073709551000)}, false,
		},
		{"require scope r", sitetest.JSON{"scope": "x\u00a0r"}, false},
		{`require expression "!has(claims.absent) && {http.request.method} == 'GET'"`, nil, true},
		{
			`require expression claims.org.list[1] == "b" && claims.sub.startsWith("al")`,
			sitetest.JSON{"org": sitetest.JSON{"list": []string{"a", "b"}}}, true,
		},
		{`require expression claims.sub`, nil, false},
		{`require expression "{http.vars.client_ip} == '127.0.0.1'"`, nil, true},
	} {
		t.Run(c.rule, func(t *testing.T) {
			s := secretSite(t, c.rule)
			want := 403
			if c.met {
				want = 200
			}
			s.MustAnswer(want, s.Bearer("/api/alice", sitetest.HS256(t, c.claims)), sitetest.Marshal(t, c.claims))
		})
	}
}

func TestHandleErrors(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			require role admin
		}
		respond ok
		handle_errors 401 {
			header Content-Type text/plain
			respond "custom {http.error.status_code} {http.jwt.error} {http.jwt.error_description}{http.auth.user.id}"
		}`)
	got := s.Get("/")
	if got.Status != 401 || got.Body != "custom 401 credentials_required no bearer token was sent" ||
		got.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("401: %d %q %v", got.Status, got.Body, got.Header)
	}
	s2 := sitetest.Serve(t, "jwt {\n secret \""+sitetest.Secret+
		"\"\n require role sesame\n}\nhandle_errors {\n respond {http.error.message}\n}")
	if got := s2.Bearer("/", sitetest.HS256(t, nil)); got.Status != 403 ||
		got.Body != "You do not have a role that is required here." {
		t.Errorf("the detail is for the log alone: %d %q", got.Status, got.Body)
	}
	s = sitetest.Serve(
		t, "jwt {\n secret \""+sitetest.Secret+"\"\n require role admin\n}\nhandle_errors 401 {\n respond x\n}",
	)
	if got := s.Bearer("/", sitetest.HS256(t, nil)); got.Status != 403 ||
		!strings.Contains(got.Body, `"code":"forbidden"`) {
		t.Errorf("the site handles no 403, so the JSON body is due: %d %q", got.Status, got.Body)
	}
}

// basic_auth may follow for users without a token: optional, then basic_auth for users who are
// still anonymous.
func TestBasicAuthBeside(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			optional
		}
		@nobody expression {http.auth.user.id} == ""
		basic_auth @nobody {
			carol `+sitetest.BcryptHash(t, "opensesame")+`
		}
		respond "user=[{http.auth.user.id}]"`)
	basic := "Authorization: Basic " + sitetest.BasicCredentials("carol", "opensesame")
	if got := s.Get("/", basic); got.Status != 200 || got.Body != "user=[carol]" {
		t.Errorf("basic: %d %q", got.Status, got.Body)
	}
	if got := s.Bearer("/", sitetest.HS256(t, nil)); got.Status != 200 || got.Body != "user=[alice]" {
		t.Errorf("bearer: %d %q", got.Status, got.Body)
	}
	s.MustAnswer(401, s.Get("/"), "neither")
	s.MustAnswer(401, s.Get("/", "Authorization: Basic "+sitetest.BasicCredentials("carol", "wrong")), "wrong password")
	s.MustAnswer(401, s.Bearer("/", sitetest.HS256(t, sitetest.JSON{"exp": 1})), "bad token")
}

// If another handler has identified the user before, all values of the user come from the token.
func TestBasicAuthInFront(t *testing.T) {
	s := sitetest.Serve(t, `
		route {
			basic_auth {
				carol `+sitetest.BcryptHash(t, "opensesame")+`
			}
			jwt {
				secret "`+sitetest.Secret+`"
				from cookie session
			}
			respond "user=[{http.auth.user.id}]"
		}`)
	basic := "Authorization: Basic " + sitetest.BasicCredentials("carol", "opensesame")
	if got := s.Get("/", basic, "Cookie: session="+sitetest.HS256(t, nil)); got.Status != 200 ||
		got.Body != "user=[alice]" {
		t.Errorf("both: %d %q", got.Status, got.Body)
	}
	s.MustAnswer(401, s.Get("/", basic), "no token")
}

// A remembered token is refused once it expires.
func TestCacheKeepsNothingPastExpiry(t *testing.T) {
	s := secretSite(t, "leeway 0s")
	token := sitetest.HS256(t, sitetest.JSON{"exp": float64(time.Now().UnixMilli())/1000 + 0.5})
	s.MustAnswer(200, s.Bearer("/api/", token), "fresh")
	s.MustAnswer(200, s.Bearer("/api/", token), "remembered")
	sitetest.Eventually(t, "the remembered token is refused", func() bool {
		return s.Bearer("/api/", token).Status == http.StatusUnauthorized
	})
}
