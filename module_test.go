package caddyjwt

import (
	stdjson "encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

func secretSite(t testing.TB, options string) *site {
	t.Helper()
	return serve(t, `
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
		{"another scheme", []string{"Authorization: Basic YTpi"}, 401, `Bearer realm="restricted"`, "credentials_required"},
		{"no token", []string{"Authorization: Bearer"}, 400, `Bearer realm="restricted", error="invalid_request", error_description="the credentials must be one scheme and one token, as in Authorization: Bearer xx.yy.zz"`, "invalid_request"},
		{"too many parts", []string{"Authorization: Bearer a b"}, 400, `Bearer realm="restricted", error="invalid_request", error_description="the credentials must be one scheme and one token, as in Authorization: Bearer xx.yy.zz"`, "invalid_request"},
		{"no JWT", []string{"Authorization: Bearer abc"}, 401, `Bearer realm="restricted", error="invalid_token", error_description="the token is not a signed JWT in compact form"`, "invalid_token"},
		{"expired", []string{"Authorization: Bearer " + sitetest.HS256(t, sitetest.JSON{"exp": 1})}, 401, `Bearer realm="restricted", error="invalid_token", error_description="the token has expired"`, "invalid_token"},
		{"scope missing", []string{"Authorization: Bearer " + sitetest.HS256(t, nil)}, 403, `Bearer realm="restricted", error="insufficient_scope", error_description="the token lacks a scope that is needed here", scope="read"`, "insufficient_scope"},
		{"good", []string{"Authorization: bEARER " + sitetest.HS256(t, sitetest.JSON{"scope": "read write"})}, 200, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := s.get("/api/x", c.headers...)
			if got.status != c.status || got.header.Get("WWW-Authenticate") != c.challenge {
				t.Fatalf("status %d, challenge %q; expected %d, %q", got.status, got.header.Get("WWW-Authenticate"), c.status, c.challenge)
			}
			if c.status == 200 {
				if got.body != "user=[alice]" {
					t.Errorf("body %q", got.body)
				}
				return
			}
			var body answer.ErrorBody
			if err := stdjson.Unmarshal([]byte(got.body), &body); err != nil {
				t.Fatalf("body %q: %v", got.body, err)
			}
			if body.Error.StatusCode != c.status || body.Error.Code != c.code || body.Error.Message == "" || !strings.HasSuffix(body.Error.Name, "Error") {
				t.Errorf("body %s", got.body)
			}
			if kind := got.header.Get("Content-Type"); kind != "application/json" {
				t.Errorf("content type %q", kind)
			}
		})
	}
	if got := s.get("/elsewhere"); got.status != 200 || got.body != "user=[]" && got.body != "user=[{http.auth.user.id}]" {
		t.Errorf("a path that the matcher does not name: %d %q", got.status, got.body)
	}
}

// The tokens, the secret and the claims of refused and accepted requests stay
// out of the logs, at the debug level too.
func TestNothingSecretIsLogged(t *testing.T) {
	s := serve(t, `log
		jwt {
			secret "`+sitetest.Secret+`"
		}
		respond ok`)
	good, bad := sitetest.HS256(t, sitetest.JSON{"secret_claim": "sesame"}), sitetest.HS256(t, sitetest.JSON{"secret_claim": "sesame", "exp": 1})
	s.mustAnswer(200, s.bearer("/", good), "control")
	s.mustAnswer(401, s.bearer("/", bad), "expired")
	s.mustAnswer(401, s.bearer("/", good+"x"), "tampered")
	log := s.log()
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
	s := serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			user_id employee email
		}
		respond "{http.auth.user.id}|{http.auth.user.sub}|{http.auth.user.roles}|{http.auth.user.roles.1}|{http.auth.user.org.unit.name}|{http.auth.user.org}|{http.auth.user.big}|{http.auth.user.half}|{http.auth.user.yes}|{http.auth.user.absent}|{http.auth.user.null}|{http.auth.user.https://example.com/groups}|{http.auth.user.https://example.com/groups.0}|{http.auth.user.nested}"`)
	payload := `{"sub":"alice","exp":9999999999,"employee":12345678901234567890,"roles":["a","b"],"org":{"unit":{"name":"R&D"},"id":7},
		"big":9007199254740993,"nested":{"big":12345678901234567890},"half":0.5,"yes":true,"null":null,"https://example.com/groups":["x"]}`
	got := s.bearer("/", sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"}`, payload))
	want := `12345678901234567890|alice|a,b|b|R&D|{"id":7,"unit":{"name":"R&D"}}|9007199254740993|0.5|true|||x|x|{"big":12345678901234567890}`
	if got.body != want {
		t.Errorf("got  %s\nwant %s", got.body, want)
	}
}

// A path that is public for the last handler has no user, whoever an earlier
// one saw.
func TestPublicForgetsUser(t *testing.T) {
	s := serve(t, `
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
	if got := s.bearer("/public", sitetest.HS256(t, nil)); got.body != "user=[]" {
		t.Errorf("body %q", got.body)
	}
	if got := s.bearer("/", sitetest.HS256(t, nil)); got.body != "user=[alicealice]" {
		t.Errorf("control: body %q", got.body)
	}
}

// Two handlers on the way: the last one's user counts, whole.
func TestSecondHandlerReplacesUser(t *testing.T) {
	const other = "another secret, of more than thirty-two bytes as well"
	s := serve(t, `
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
	got := s.get("/", "Authorization: Bearer "+sitetest.HS256(t, sitetest.JSON{"first": "1"}), "X-Second: "+sitetest.Sign(t, "HS256", []byte(other), nil, sitetest.Claims(sitetest.JSON{"sub": "bob", "second": "2"})))
	if got.body != "bob 2" {
		t.Errorf("body %q", got.body)
	}
}

func TestUserID(t *testing.T) {
	s := secretSite(t, "user_id uid email")
	s.mustAnswer(200, s.bearer("/api/", sitetest.HS256(t, sitetest.JSON{"email": "a@example.com"})), "second claim")
	s.mustAnswer(401, s.bearer("/api/", sitetest.HS256(t, nil)), "neither")
	s.mustAnswer(401, s.bearer("/api/", sitetest.HS256(t, sitetest.JSON{"uid": ""})), "empty")
	s.mustAnswer(401, s.bearer("/api/", sitetest.HS256(t, sitetest.JSON{"uid": []string{"a"}})), "a list")
	if got := s.bearer("/api/", sitetest.HS256(t, sitetest.JSON{"uid": 7, "email": "a@example.com"})); got.body != "user=[7]" {
		t.Errorf("body %q", got.body)
	}
	s = secretSite(t, "")
	s.mustAnswer(401, s.bearer("/api/", sitetest.HS256(t, sitetest.JSON{"sub": nil})), "no sub")
	s.mustAnswer(401, s.bearer("/api/", sitetest.HS256(t, sitetest.JSON{"sub": ""})), "empty sub")
}

func TestOptionalPublicPreflight(t *testing.T) {
	s := secretSite(t, "optional\nrequire role admin")
	if got := s.get("/api/"); got.status != 200 || got.body != "user=[]" {
		t.Errorf("anonymous: %d %q", got.status, got.body)
	}
	s.mustAnswer(401, s.bearer("/api/", sitetest.HS256(t, sitetest.JSON{"exp": 1})), "a bad token is refused all the same")
	s.mustAnswer(403, s.bearer("/api/", sitetest.HS256(t, nil)), "the rules are for those with a token")
	s.mustAnswer(200, s.bearer("/api/", sitetest.HS256(t, sitetest.JSON{"roles": []string{"admin"}})), "control")

	s = secretSite(t, "public /api/open/* /api/health\nallow_preflight")
	for _, path := range []string{"/api/open/x", "/api/health", "/API/Open/x"} {
		s.mustAnswer(200, s.get(path), path)
		s.mustAnswer(200, s.bearer(path, "rubbish"), path+" does not look at tokens")
	}
	s.mustAnswer(401, s.get("/api/closed"), "control")
	s.mustAnswer(200, s.do("OPTIONS", "/api/closed", "Origin: https://app.example", "Access-Control-Request-Method: PUT"), "preflight")
	s.mustAnswer(401, s.do("OPTIONS", "/api/closed", "Origin: https://app.example"), "no preflight")
	s.mustAnswer(401, s.do("OPTIONS", "/api/closed", "Access-Control-Request-Method: PUT"), "no preflight without an origin")
	s.mustAnswer(401, s.do("GET", "/api/closed", "Origin: https://app.example", "Access-Control-Request-Method: PUT"), "GET is no preflight")
	s = secretSite(t, "")
	s.mustAnswer(401, s.do("OPTIONS", "/api/closed", "Origin: https://app.example", "Access-Control-Request-Method: PUT"), "preflight not allowed")
}

func TestTokenSources(t *testing.T) {
	s := serve(t, `
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
			got := s.get(c.path, c.headers...)
			if got.status != 200 || got.body != c.rest {
				t.Errorf("%d, left for the next handler: %q, expected %q", got.status, got.body, c.rest)
			}
			byCookie := name == "cookie" || name == "basic beside"
			if private := got.header.Get("Cache-Control") == "private"; private != (byCookie || name == "query") {
				t.Errorf("Cache-Control %q", got.header.Get("Cache-Control"))
			}
			if varies := got.header.Get("Vary") == "Cookie"; varies != byCookie {
				t.Errorf("Vary %q", got.header.Get("Vary"))
			}
		})
	}
	s.mustAnswer(401, s.get("/", "Cookie: session="), "an emptied cookie is no credential")
}

func TestClaimHeaders(t *testing.T) {
	s := serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			claim_header X-User sub
			claim_header X-Roles roles
			claim_header X-Evil evil
		}
		respond "{http.request.header.X-User}|{http.request.header.X-Roles}|{http.request.header.X-Evil}"`)
	got := s.bearer("/", sitetest.HS256(t, sitetest.JSON{"roles": []string{"a", "b"}, "evil": "x\r\nX-Admin: 1"}))
	if got.body != "alice|a,b|" {
		t.Errorf("body %q", got.body)
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
		{"require scope a", sitetest.JSON{"scope": "", "scp": "a"}, false},
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
		{`require expression "'admin' in claims.roles || claims.level > 2"`, sitetest.JSON{"roles": []string{"x"}, "level": 3}, true},
		{`require expression "claims.level > 2.5"`, sitetest.JSON{"level": 2.75}, true},
		{`require expression "claims.absent == 1"`, nil, false},
		{`require expression "claims.n == 18446744073709551615u"`, sitetest.JSON{"n": uint64(18446744073709551615)}, true},
		{`require expression "claims.n == 18446744073709551615u"`, sitetest.JSON{"n": uint64(18446744073709551000)}, false},
		{"require scope r", sitetest.JSON{"scope": "x\u00a0r"}, false},
		{`require expression "!has(claims.absent) && {http.request.method} == 'GET'"`, nil, true},
		{`require expression claims.org.list[1] == "b" && claims.sub.startsWith("al")`, sitetest.JSON{"org": sitetest.JSON{"list": []string{"a", "b"}}}, true},
		{`require expression claims.sub`, nil, false},
		{`require expression "{http.vars.client_ip} == '127.0.0.1'"`, nil, true},
	} {
		t.Run(c.rule, func(t *testing.T) {
			s := secretSite(t, c.rule)
			want := 403
			if c.met {
				want = 200
			}
			s.mustAnswer(want, s.bearer("/api/alice", sitetest.HS256(t, c.claims)), sitetest.Marshal(t, c.claims))
		})
	}
}

func TestHandleErrors(t *testing.T) {
	s := serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			require role admin
		}
		respond ok
		handle_errors 401 {
			header Content-Type text/plain
			respond "custom {http.error.status_code} {http.jwt.error} {http.jwt.error_description}{http.auth.user.id}"
		}`)
	got := s.get("/")
	if got.status != 401 || got.body != "custom 401 credentials_required no bearer token was sent" || got.header.Get("WWW-Authenticate") == "" {
		t.Errorf("401: %d %q %v", got.status, got.body, got.header)
	}
	s2 := serve(t, "jwt {\n secret \""+sitetest.Secret+"\"\n require role sesame\n}\nhandle_errors {\n respond {http.error.message}\n}")
	if got := s2.bearer("/", sitetest.HS256(t, nil)); got.status != 403 || got.body != "the user lacks a role that is needed here" {
		t.Errorf("the detail is for the log alone: %d %q", got.status, got.body)
	}
	s = serve(t, "jwt {\n secret \""+sitetest.Secret+"\"\n require role admin\n}\nhandle_errors 401 {\n respond x\n}")
	if got := s.bearer("/", sitetest.HS256(t, nil)); got.status != 403 || !strings.Contains(got.body, `"code":"forbidden"`) {
		t.Errorf("the site handles no 403, so the JSON body is due: %d %q", got.status, got.body)
	}
}

// basic_auth may follow for those without a token: optional, then basic_auth
// for whom that left anonymous.
func TestBasicAuthBeside(t *testing.T) {
	s := serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			optional
		}
		@nobody expression {http.auth.user.id} == ""
		basic_auth @nobody {
			carol `+bcryptHash(t, "opensesame")+`
		}
		respond "user=[{http.auth.user.id}]"`)
	basic := "Authorization: Basic " + basicCredentials("carol", "opensesame")
	if got := s.get("/", basic); got.status != 200 || got.body != "user=[carol]" {
		t.Errorf("basic: %d %q", got.status, got.body)
	}
	if got := s.bearer("/", sitetest.HS256(t, nil)); got.status != 200 || got.body != "user=[alice]" {
		t.Errorf("bearer: %d %q", got.status, got.body)
	}
	s.mustAnswer(401, s.get("/"), "neither")
	s.mustAnswer(401, s.get("/", "Authorization: Basic "+basicCredentials("carol", "wrong")), "wrong password")
	s.mustAnswer(401, s.bearer("/", sitetest.HS256(t, sitetest.JSON{"exp": 1})), "bad token")
}

// Behind another handler that knows the user, all that is said of the user is
// the token's.
func TestBasicAuthInFront(t *testing.T) {
	s := serve(t, `
		route {
			basic_auth {
				carol `+bcryptHash(t, "opensesame")+`
			}
			jwt {
				secret "`+sitetest.Secret+`"
				from cookie session
			}
			respond "user=[{http.auth.user.id}]"
		}`)
	basic := "Authorization: Basic " + basicCredentials("carol", "opensesame")
	if got := s.get("/", basic, "Cookie: session="+sitetest.HS256(t, nil)); got.status != 200 || got.body != "user=[alice]" {
		t.Errorf("both: %d %q", got.status, got.body)
	}
	s.mustAnswer(401, s.get("/", basic), "no token")
}

// A remembered token is refused once it expires.
func TestCacheKeepsNothingPastExpiry(t *testing.T) {
	s := secretSite(t, "leeway 0s")
	token := sitetest.HS256(t, sitetest.JSON{"exp": float64(time.Now().UnixMilli())/1000 + 0.5})
	s.mustAnswer(200, s.bearer("/api/", token), "fresh")
	s.mustAnswer(200, s.bearer("/api/", token), "remembered")
	sitetest.Eventually(t, "the remembered token is refused", func() bool { return s.bearer("/api/", token).status == http.StatusUnauthorized })
}
