package caddyjwt_test

import (
	"crypto"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

const tenantPattern = "https://id.example/*/v2.0"

func tenantIssuer(tenant string) string { return "https://id.example/" + tenant + "/v2.0" }

// oneLine returns a public key for a Caddyfile.
func oneLine(t testing.TB, key crypto.Signer) string {
	return `public_key "` + strings.ReplaceAll(sitetest.PEM(t, key), "\n", " ") + `"` + "\n"
}

// ofTenant returns a token that the provider of all tenants has signed.
func ofTenant(t testing.TB, iss any, changes sitetest.JSON) string {
	claims := sitetest.Claims(changes)
	claims["iss"] = iss
	return sitetest.Sign(t, "RS256", sitetest.Keys().RSA, nil, claims)
}

// `*` is exactly one segment of the issuer, and that of the tenants that are listed.
func TestThreatTenants(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt /any {
			issuer `+tenantPattern+" {\n"+oneLine(t, sitetest.Keys().RSA)+`}
		}
		jwt /listed {
			issuer `+tenantPattern+" {\n"+oneLine(t, sitetest.Keys().RSA)+`
				tenants contoso Fabrikam
			}
		}
		respond ok`)
	both := []string{"/any", "/listed"}
	var passes, attacks []attack
	at := func(list *[]attack, paths []string, iss any, changes sitetest.JSON) {
		for _, path := range paths {
			*list = append(*list, attack{fmt.Sprint(path, " ", iss, " ", changes), path, ofTenant(t, iss, changes)})
		}
	}
	for _, tenant := range []string{"contoso", "Fabrikam"} {
		at(&passes, both, tenantIssuer(tenant), nil)
		at(&passes, both, tenantIssuer(tenant), sitetest.JSON{"tid": tenant})
	}
	for _, other := range []string{
		"northwind", "Contoso", "fabrikam", "contoso2", "9122040d-6c67-4c5b-b112-36a304b66dad", "a.b_c~d", "...", "v2.0",
	} {
		at(&passes, both[:1], tenantIssuer(other), nil)
		at(&attacks, both[1:], tenantIssuer(other), nil)
	}
	for _, tenant := range []string{
		"", ".", "..", "*", "contoso/contoso", "contoso/", "/contoso", "contoso%2fx", "contoso%00", "%63ontoso",
		"contoso?", "contoso?x=", "contoso#", "contoso;x", "contoso\\x", "contoso ", " contoso", "contoso\n", "contoso\x00",
		"contoso:x", "contoso@x", "contoso,fabrikam", "cöntoso", "contoso\u200b", "ｃontoso", "{tenantid}", "../contoso",
		"contoso/../fabrikam", "contoso/v2.0/x", "v2.0/https://id.example/contoso",
	} {
		at(&attacks, both, tenantIssuer(tenant), nil)
	}
	for _, iss := range []any{
		"https://id.example/v2.0", "https://id.example/contoso/v2.0/", "https://id.example/contoso", "contoso",
		"https://id.example//contoso/v2.0", "https://ID.example/contoso/v2.0", "http://id.example/contoso/v2.0",
		"https://id.example.evil.example/contoso/v2.0", "https://evil.example/https://id.example/contoso/v2.0",
		"https://id.example:443/contoso/v2.0", "https://id.example@evil.example/contoso/v2.0", tenantPattern,
		[]string{tenantIssuer("contoso")}, 7, nil,
	} {
		at(&attacks, both, iss, nil)
	}
	for _, tid := range []any{"fabrikam", "Contoso", "", "*", 7, []string{"contoso"}, sitetest.JSON{}, true} {
		at(&attacks, both, tenantIssuer("contoso"), sitetest.JSON{"tid": tid})
	}
	for _, path := range both {
		attacks = append(attacks, attack{"tid null", path, sitetest.SignRaw(
			t, "RS256", sitetest.Keys().RSA, `{"alg":"RS256"}`,
			`{"iss":"`+tenantIssuer("contoso")+`","sub":"a","exp":9999999999,"tid":null}`,
		)}, attack{"another key", path, sitetest.Sign(
			t, "RS256", sitetest.Keys().StrangerRSA, nil, sitetest.Claims(sitetest.JSON{"iss": tenantIssuer("contoso")}),
		)})
	}
	mustRefuse(t, s, passes, attacks)
	if want := `tid is \"fabrikam\", but iss is of the tenant \"contoso\"`; !strings.Contains(s.Log(), want) {
		t.Errorf("the log does not say %s", want)
	}
}

// The provider of the tenants cannot sign for an issuer that is configured by its exact name, in
// whatever order they are written, nor for the accounts of the site.
func TestThreatTenantOfAnotherIssuer(t *testing.T) {
	keys := sitetest.Keys()
	shared := "issuer " + tenantPattern + " {\n" + oneLine(t, keys.RSA) + "}\n"
	exact := "issuer " + tenantIssuer("contoso") + " {\n" + oneLine(t, keys.StrangerRSA) + "}\n"
	s := sitetest.Serve(t, "jwt /a {\n"+shared+exact+"}\n jwt /b {\n"+exact+shared+"}\n respond ok")
	own := sitetest.Sign(
		t, "RS256", keys.StrangerRSA, nil, sitetest.Claims(sitetest.JSON{"iss": tenantIssuer("contoso")}),
	)
	for _, path := range []string{"/a", "/b"} {
		mustRefuse(t, s, []attack{
			{"its own keys", path, own}, {"another tenant", path, ofTenant(t, tenantIssuer("fabrikam"), nil)},
		}, []attack{{"the keys of the tenants", path, ofTenant(t, tenantIssuer("contoso"), nil)}})
	}

	s = sitetest.Serve(t, `
		jwt /todos/* {
			`+shared+`
			accounts {
				store file `+filepath.Join(sitetest.TempDir(t), "users.db")+`
				signup open
				issuer `+tenantIssuer("site")+`
			}
		}
		respond ok`)
	alice := s.SignedUp("alice@example.com")
	forged := sitetest.ClaimsOf(t, alice.Token)
	typed := sitetest.Sign(t, "RS256", keys.RSA, sitetest.JSON{"typ": "at+jwt"}, forged)
	mustRefuse(t, s, []attack{
		{"the site's own token", "/todos/1", alice.Token}, {"a tenant", "/todos/1", ofTenant(t, tenantIssuer("x"), nil)},
	}, []attack{{"the site's name with the tenants' key", "/todos/1", typed}})
}

// A rule can be bound to all tenants, or to one of them.
func TestRulesOfTenants(t *testing.T) {
	keys := sitetest.Keys()
	issuers := "issuer " + tenantPattern + " {\n" + oneLine(t, keys.RSA) + "}\n" +
		"issuer " + tenantIssuer("special") + " {\n" + oneLine(t, keys.StrangerRSA) + "}\n"
	s := sitetest.Serve(t, `
		jwt /all {
			`+issuers+`
			require role admin of `+tenantPattern+`
		}
		jwt /one {
			`+issuers+`
			require role admin of `+tenantIssuer("contoso")+`
		}
		respond ok`)
	admin := sitetest.JSON{"roles": []string{"admin"}}
	special := sitetest.Claims(admin)
	special["iss"] = tenantIssuer("special")
	for name, c := range map[string]struct {
		token    string
		all, one int
	}{
		"the tenant":                    {ofTenant(t, tenantIssuer("contoso"), admin), 200, 200},
		"another tenant":                {ofTenant(t, tenantIssuer("fabrikam"), admin), 200, 403},
		"without the role":              {ofTenant(t, tenantIssuer("contoso"), nil), 403, 403},
		"an issuer that looks like one": {sitetest.Sign(t, "RS256", keys.StrangerRSA, nil, special), 403, 403},
	} {
		s.MustAnswer(c.all, s.Bearer("/all", c.token), "all tenants: "+name)
		s.MustAnswer(c.one, s.Bearer("/one", c.token), "one tenant: "+name)
	}
}

// The keys of all tenants are one set. The service behind is told which tenant a user is of, and
// clients of a resource are told the tenants that are known.
func TestTenantsShareAKeySet(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	b := newBackend(t)
	s := sitetest.Serve(t, `
		jwt {
			issuer `+p.URL+`/*/v2.0 {
				jwks `+p.URL+`/jwks
				tenants contoso fabrikam
			}
			resource https://api.example/mcp
			upstream_token X-Token {
				issuer https://api.example/jwt
			}
		}
		reverse_proxy `+b.URL)
	for _, tenant := range []string{"contoso", "fabrikam"} {
		iss := p.URL + "/" + tenant + "/v2.0"
		s.MustAnswer(200, s.Bearer("/", sitetest.Sign(t, "RS256", keys.RSA, sitetest.JSON{"kid": "a"}, sitetest.Claims(
			sitetest.JSON{"iss": iss, "aud": "https://api.example/mcp"},
		))), tenant)
		if got := sitetest.ClaimsOf(t, b.header("X-Token")[0]); got["idp"] != iss || got["sub"] != "alice" {
			t.Errorf("%s: the upstream gets %v", tenant, got)
		}
	}
	if fetches := p.Fetches.Load(); fetches != 1 {
		t.Errorf("%d fetches", fetches)
	}
	servers := fmt.Sprint(s.Get("/.well-known/oauth-protected-resource/mcp").JSON(t)["authorization_servers"])
	if want := fmt.Sprintf("[%s/contoso/v2.0 %[1]s/fabrikam/v2.0]", p.URL); servers != want {
		t.Errorf("authorization servers: %s, expected %s", servers, want)
	}
}

// An introspection endpoint of all tenants answers with the tenant, and not for other issuers.
func TestIntrospectionOfTenants(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	other := oneLine(t, sitetest.Keys().P256)
	s := sitetest.Serve(t, `
		jwt {
			issuer `+tenantPattern+` {
				`+oneLine(t, sitetest.Keys().RSA)+`
				introspection `+i.URL+`/introspect {
					client_id api
					client_secret secret
					cache off
					always
				}
			}
			issuer `+tenantIssuer("special")+" {\n"+other+`}
		}
		respond {http.auth.user.iss}`)
	for iss, status := range map[any]int{
		tenantIssuer("contoso"): 200, tenantIssuer("special"): 401, tenantPattern: 401, nil: 401,
		tenantIssuer("a/b"): 401, "": 401,
	} {
		i.Issue("opaque", sitetest.JSON{"iss": iss})
		got := s.Bearer("/", "opaque")
		s.MustAnswer(status, got, fmt.Sprint("opaque token of ", iss))
		if status == 200 && got.Body != iss {
			t.Errorf("iss %s", got.Body)
		}
	}
	i.Issue("opaque", sitetest.JSON{"iss": tenantIssuer("contoso"), "tid": "fabrikam"})
	s.MustAnswer(401, s.Bearer("/", "opaque"), "another tid")

	token := ofTenant(t, tenantIssuer("contoso"), nil) // `always` finds the endpoint of its tenant
	s.MustAnswer(401, s.Bearer("/", token), "a JWT that is not active")
	i.Issue(token, sitetest.JSON{"iss": tenantIssuer("contoso"), "aud": nil})
	s.MustAnswer(200, s.Bearer("/", token), "a JWT that is active")
	special := sitetest.Claims(sitetest.JSON{"iss": tenantIssuer("special")})
	asked := i.Asked.Load()
	s.MustAnswer(200, s.Bearer("/", sitetest.Sign(t, "ES256", sitetest.Keys().P256, nil, special)), "another issuer")
	if i.Asked.Load() != asked {
		t.Error("the endpoint of the tenants is asked about a token of another issuer")
	}
}
