package docs_test

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

func auth0(t *testing.T) provider {
	const iss = "https://example.eu.auth0.com/"
	keys := sitetest.Keys()
	key := func(key crypto.Signer, kid string) object {
		return certified(t, key, object{"kid": kid, "use": "sig", "alg": "RS256", "x5t#S256": nil, "x5t": kid})
	}
	access := rs256(object{"typ": "JWT", "kid": "NkRBMjJEQjQ5MTE0RUUwQTY2"}, object{
		"iss": iss, "sub": "auth0|5f7c8ec7c33c6c004bbafe82", "aud": list{"https://api.example.com", iss + "userinfo"},
		"azp": "mYCLIENTidOfTheSinglePageApp0001", "scope": "openid profile email", "permissions": list{"read:films"},
		"https://example.com/roles": list{"editor", "author"},
	})
	id := access.with(object{
		"aud": "mYCLIENTidOfTheSinglePageApp0001", "azp": nil, "scope": nil, "permissions": nil, "nonce": "n",
		"sid":   "s",
		"email": "alice@example.com", "email_verified": true, "name": "Alice",
	})
	encrypted := strings.Join([]string{
		sitetest.Encode(`{"alg":"dir","enc":"A256GCM","iss":"` + iss + `"}`), "", "aXY", "Y2lwaGVydGV4dA", "dGFn",
	}, ".")
	machine := access.with(object{
		"sub": "mACHINEidOfTheBatchJob0000000001@clients", "gty": "client-credentials", "scope": "read:films",
	})
	return provider{
		documents: map[string]any{
			iss + ".well-known/openid-configuration": object{
				"issuer": iss, "authorization_endpoint": iss + "authorize", "token_endpoint": iss + "oauth/token",
				"jwks_uri": iss + ".well-known/jwks.json", "userinfo_endpoint": iss + "userinfo",
				"id_token_signing_alg_values_supported": list{"HS256", "RS256", "PS256"},
			},
			iss + ".well-known/jwks.json": object{"keys": list{
				key(keys.RSA, "NkRBMjJEQjQ5MTE0RUUwQTY2"), key(keys.StrangerRSA, "bmV4dCBzaWduaW5nIGtleQ"),
			}},
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{why: "an access token", token: access, user: "auth0|5f7c8ec7c33c6c004bbafe82", upstream: []string{
					"X-User: auth0|5f7c8ec7c33c6c004bbafe82", "X-Roles: editor,author",
				}},
				{
					why: "a machine's", token: machine, user: "mACHINEidOfTheBatchJob0000000001@clients",
					upstream: []string{"X-User: mACHINEidOfTheBatchJob0000000001@clients"},
				},
				{why: "of the RFC 9068 profile", token: access.headed(object{"typ": "at+jwt"})},
				strangerSigned(access),
				{why: "opaque", token: opaque("dZ1YlPq5JHlAcIuIVoWXUZrlXvFqVs3v"), reason: refusal.MalformedToken},
				{why: "encrypted", token: opaque(encrypted), reason: refusal.MalformedToken},
				{why: "an ID token", token: id, reason: refusal.Audience},
				otherClaims(access, "for another API", object{"aud": "https://other.example.com"}, refusal.Audience),
				otherClaims(access, "of another tenant", object{"iss": "https://other.eu.auth0.com/"}, refusal.Issuer),
				otherClaims(access, "without permissions", object{"permissions": nil}, refusal.Scope),
				otherClaims(access, "the scope is no permission", object{
					"permissions": list{}, "scope": "read:films",
				}, refusal.Scope),
			}},
			{change: []string{"auth0.com/\n", "auth0.com\n"}, requests: []pageRequest{
				{why: "no slash", token: access, reason: refusal.Issuer},
			}},
			{change: []string{"\t\tscope_claim permissions\n", ""}, requests: []pageRequest{
				{why: "without RBAC", token: machine},
			}},
			{
				change: []string{
					"require scope read:films", "role_claim https://example.com/roles\n require role editor\n" +
						"require expression `\"editor\" in claims[\"https://example.com/roles\"]`",
				},
				requests: []pageRequest{
					{why: "a role", token: access},
					otherClaims(access, "no role", object{"https://example.com/roles": list{"author"}}, refusal.Role),
				},
			},
		},
	}
}

func keycloak(t *testing.T) provider {
	const alice = "f2a9c1de-8a7b-4f0e-9d57-0a6e0c8a1b11"
	const iss = "https://id.example.com/realms/shop"
	const certs = "/protocol/openid-connect/certs"
	keys := sitetest.Keys()
	set := object{"keys": list{
		certified(t, keys.StrangerRSA, object{"kid": "enc-a3", "use": "enc", "alg": "RSA-OAEP"}),
		certified(t, keys.RSA, object{"kid": "pJ6QyhA5vd7K", "use": "sig", "alg": "RS256"}),
		certified(t, keys.RSA, object{"kid": "pJ6QyhA5vd7K", "use": "sig", "alg": "PS256"}),
		publicKey(t, keys.P256, "ec", "ES256"),
	}}
	access := rs256(object{"typ": "JWT", "kid": "pJ6QyhA5vd7K"}, object{
		"jti": "onrtac:8a5f7f9c", "iss": iss, "aud": list{"shop-api", "account"},
		"sub": alice, "typ": "Bearer", "azp": "shop-web", "sid": "5d1e", "acr": "1",
		"allowed-origins": list{"https://shop.example.com"},
		"realm_access":    object{"roles": list{"offline_access", "uma_authorization"}},
		"resource_access": object{
			"shop-api": object{"roles": list{"editor"}}, "account": object{"roles": list{"view-profile"}},
		},
		"scope":              "openid email profile",
		"preferred_username": "alice", "email": "alice@example.com", "email_verified": true,
	})
	id := access.with(object{
		"aud": "shop-web", "typ": "ID", "at_hash": "x", "realm_access": nil, "resource_access": nil, "scope": nil,
	})
	realmRoles := object{"realm_access": object{"roles": list{"editor"}}, "resource_access": nil}
	return provider{
		documents: map[string]any{
			iss + "/.well-known/openid-configuration": object{
				"issuer": iss, "jwks_uri": iss + certs, "token_endpoint": iss + "/protocol/openid-connect/token",
				"id_token_signing_alg_values_supported": list{"PS384", "RS384", "EdDSA", "ES384", "HS256", "RS256"},
			},
			iss + certs: set,
			"http://keycloak:8080/realms/shop" + certs: set,
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{why: "an access token", token: access, user: alice, upstream: []string{
					"X-User: " + alice, "X-Name: alice",
				}},
				{why: "another algorithm of the same key", token: access.signedBy("PS256", keys.RSA)},
				{why: "a role of the realm", token: access.with(realmRoles)},
				strangerSigned(access),
				{
					why:    "signed by the key for encryption",
					token:  access.headed(object{"kid": "enc-a3"}).signedBy("RS256", keys.StrangerRSA),
					reason: refusal.UnknownKey,
				},
				otherClaims(access, "no audience mapper", object{"aud": "account"}, refusal.Audience),
				otherClaims(access, "no aud", object{"aud": nil}, refusal.Audience),
				{why: "an ID token", token: id, reason: refusal.Audience},
				{why: "an ID token of the API", token: id.with(object{"aud": "shop-api"}), reason: refusal.Claim},
				otherClaims(access, "another host", object{"iss": "http://keycloak:8080/realms/shop"}, refusal.Issuer),
				otherClaims(access, "another realm", object{
					"iss": "https://id.example.com/realms/master",
				}, refusal.Issuer),
				otherClaims(access, "no role", object{"resource_access": nil}, refusal.Role),
				otherClaims(access, "a role of another client", object{
					"resource_access": object{"other-api": object{"roles": list{"editor"}}},
				}, refusal.Role),
			}},
			{
				change:   []string{"\t\trole_claim resource_access.shop-api.roles realm_access.roles\n", ""},
				requests: []pageRequest{{why: "no role_claim", token: access, reason: refusal.Role}},
			},
			{change: []string{"audience shop-api", "audience shop-web\n audience_claim azp"}, requests: []pageRequest{
				{why: "of the client", token: access.with(object{"aud": "account"})},
				{why: "for another service", token: access.with(object{"aud": "other-api"})}, // as the page warns
				otherClaims(access, "of another client", object{"azp": "other-web"}, refusal.Audience),
			}},
			{block: 1, requests: []pageRequest{
				{why: "an access token", token: access, user: alice},
				otherClaims(access, "for another service", object{"aud": "account"}, refusal.Audience),
			}},
		},
	}
}

func entraID(t *testing.T) provider {
	const alice = "6467882c-fdfd-4354-a1ed-4e13f064be25"
	const (
		tenant   = "9122040d-6c67-4c5b-b112-36a304b66dad"
		partner  = "72f988bf-86f1-41af-91ab-2d7cd011db47"
		stranger = "f8cdef31-a31e-4b4a-93e4-5f571e91255a"
		client   = "11111111-2222-3333-4444-555555555555"
		login    = "https://login.microsoftonline.com/"
		v1       = "https://sts.windows.net/" + tenant + "/"
		v2Keys   = login + tenant + "/discovery/v2.0/keys"
		b2c      = "https://contoso.b2clogin.com/"
		policy   = b2c + "contoso.onmicrosoft.com/B2C_1_signin/discovery/v2.0/keys"
		kid      = "L1KfKFI_jnXbwWc22xZxw1sUHH0"
	)
	v2 := func(tenant string) string { return login + tenant + "/v2.0" }
	keys := sitetest.Keys()
	set := object{"keys": list{
		certified(t, keys.RSA, object{
			"kid": kid, "x5t": kid, "use": "sig", "x5t#S256": nil, "cloud_instance_name": "microsoftonline.com",
			"issuer": login + "{tenantid}/v2.0",
		}),
		certified(t, keys.StrangerRSA, object{"kid": "other", "x5t": "other", "use": "sig", "x5t#S256": nil}),
	}}
	discovery := func(issuer, keys string) object {
		return object{
			"issuer": issuer, "jwks_uri": keys, "id_token_signing_alg_values_supported": list{"RS256"},
			"tenant_region_scope": "EU", "cloud_instance_name": "microsoftonline.com",
		}
	}
	second := rs256(object{"typ": "JWT", "kid": kid}, object{
		"aud": client, "iss": v2(tenant), "aio": "AXQAi", "azp": "22222222-2222-3333-4444-555555555555", "azpacr": "0",
		"name": "Alice", "oid": alice, "preferred_username": "alice@contoso.example",
		"rh": "0.AXk", "scp": "Films.Read Films.Write", "sub": "hKSpz8lFYP8j4cBKQRAVL5Ht8Ac6L0Yx1V8D", "tid": tenant,
		"uti": "Sr0P", "ver": "2.0",
	})
	first := second.with(object{
		"aud": "api://films", "iss": v1, "appid": "22222222-2222-3333-4444-555555555555", "azp": nil, "azpacr": nil,
		"ver": "1.0", "upn": "alice@contoso.example", "unique_name": "alice@contoso.example", "ipaddr": "192.0.2.1",
	}).headed(object{"x5t": kid})
	graph := first.with(object{"aud": "00000003-0000-0000-c000-000000000000", "scp": "User.Read"})
	// Graph's tokens are signed with the hash of the nonce, which is then replaced by the nonce.
	const nonce = "SqmTnbL1V2DLaD0HnEmTnRpTdVzVyL0OT1bd4cpGSKo"
	sum := sha256.Sum256([]byte(nonce))
	hashed := sitetest.Encode(string(sum[:]))
	graph = graph.headed(object{"nonce": hashed})
	graph.tamper = func(signed string) string {
		header, rest, _ := strings.Cut(signed, ".")
		text, err := base64.RawURLEncoding.DecodeString(header)
		if err != nil {
			t.Fatal(err)
		}
		return sitetest.Encode(strings.Replace(string(text), hashed, nonce, 1)) + "." + rest
	}
	guest := func(tenant string) object { return object{"iss": v2(tenant), "tid": tenant} }
	const b2cTenant = "775527ff-9a37-4307-8b3d-cc311f58d925"
	consumer := rs256(object{"typ": "JWT", "kid": "X5eXk4xyojNFum1kl2Ytv8dlNP4-c57dO6QGTVBwaNk"}, object{
		"iss": b2c + b2cTenant + "/v2.0/", "aud": client, "sub": "884408e1-2918-4cf0-b12d-3aa027d7563b", "ver": "1.0",
		"tfp": "B2C_1_signin", "scp": "films.read", "azp": "33333333-2222-3333-4444-555555555555", "nbf": 1438535543,
	})
	group := "0a4c1c0e-7b0c-4f5e-8f5b-2f7f1d1f9a55"
	return provider{
		documents: map[string]any{
			v2(tenant) + "/.well-known/openid-configuration": discovery(v2(tenant), v2Keys),
			v1 + ".well-known/openid-configuration":          discovery(v1, login+"common/discovery/keys"),
			v2Keys:                                           set,
			login + "common/discovery/v2.0/keys":             set,
			login + "common/discovery/keys":                  set,
			policy: object{"keys": list{sitetest.JWK(t, keys.RSA, object{
				"kid": "X5eXk4xyojNFum1kl2Ytv8dlNP4-c57dO6QGTVBwaNk", "nbf": 1493763266, "use": "sig",
			})}},
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{why: "version 2", token: second, user: alice, upstream: []string{"X-User: " + alice}},
				{why: "version 1", token: first, reason: refusal.Issuer},
				{why: "for Graph", token: graph, reason: refusal.Issuer},
				strangerSigned(second),
				otherClaims(second, "another tenant", guest(stranger), refusal.Issuer),
				otherClaims(second, "for another app", object{"aud": "api://other"}, refusal.Audience),
				otherClaims(second, "the audience of version 1", object{"aud": "api://films"}, refusal.Audience),
				otherClaims(second, "a daemon", object{"scp": nil, "roles": list{"Films.Read"}}, refusal.Scope),
				otherClaims(second, "no oid", object{"oid": nil}, refusal.UserID),
			}},
			{change: []string{v2(tenant), v1, client, "api://films"}, requests: []pageRequest{
				{why: "version 1", token: first, user: alice, upstream: []string{"X-User: " + alice}},
				{why: "version 2", token: second, reason: refusal.Issuer},
				{why: "for Graph", token: graph, reason: refusal.Signature},
			}},
			{
				change: []string{"require scope Films.Read", "role_claim groups\n require role " + group},
				requests: []pageRequest{
					{why: "in the group", token: second.with(object{"groups": list{group}})},
					{why: "in too many groups", token: second.with(object{
						"_claim_names": object{"groups": "src1"},
						"_claim_sources": object{"src1": object{
							"endpoint": "https://graph.microsoft.com/v1.0/users/6467882c/getMemberObjects",
						}},
					}), reason: refusal.Role},
				},
			},
			{block: 1, requests: []pageRequest{
				{why: "a tenant", token: second, user: alice},
				{why: "another tenant", token: second.with(guest(partner))},
				otherClaims(second, "a tenant that is not listed", guest(stranger), refusal.Issuer),
				otherClaims(second, "tid of another tenant", object{"tid": partner}, refusal.Issuer),
				otherClaims(second, "for another app", object{"aud": stranger}, refusal.Audience),
			}},
			{block: 2, requests: []pageRequest{
				{why: "a consumer", token: consumer, user: "884408e1-2918-4cf0-b12d-3aa027d7563b"},
				otherClaims(consumer, "another policy", object{"tfp": "B2C_1_signup"}, refusal.Claim),
				otherClaims(consumer, "another tenant", object{"iss": b2c + tenant + "/v2.0/"}, refusal.Issuer),
			}},
		},
	}
}

func google(t *testing.T) provider {
	const alice = "110169484474386276334"
	const iss, client = "https://accounts.google.com", "1234567890-abc.apps.googleusercontent.com"
	keys := sitetest.Keys()
	id := rs256(object{"typ": "JWT", "kid": "6f9777a685907798ef794062c00b65d66c240b1b"}, object{
		"iss": iss, "azp": client, "aud": client, "sub": alice, "hd": "example.com",
		"email": "alice@example.com", "email_verified": true, "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "name": "Alice",
		"picture": "https://lh3.googleusercontent.com/a/x", "given_name": "Alice", "nonce": "n-0S6_WzA2Mj",
	})
	robot := id.with(object{
		"azp": "104029292853099978293", "sub": "104029292853099978293",
		"email": "robot@project.iam.gserviceaccount.com",
		"hd":    nil, "name": nil, "picture": nil, "given_name": nil, "nonce": nil, "at_hash": nil,
	})
	proxied := issued{algorithm: "ES256", key: keys.P256, header: object{"typ": "JWT", "kid": "f9R3yg"}, claims: object{
		"aud":   "/projects/123456789/global/backendServices/987654321",
		"azp":   "/projects/123456789/global/backendServices/987654321",
		"email": "alice@example.com", "hd": "example.com", "iss": "https://cloud.google.com/iap",
		"sub": "accounts.google.com:" + alice, "identity_source": "GOOGLE",
		"google": object{"access_levels": list{}},
	}}
	iap := []string{"X-Goog-Iap-Jwt-Assertion: "}
	return provider{
		documents: map[string]any{
			iss + "/.well-known/openid-configuration": object{
				"issuer": iss, "jwks_uri": "https://www.googleapis.com/oauth2/v3/certs",
				"id_token_signing_alg_values_supported": list{"RS256"},
			},
			"https://www.googleapis.com/oauth2/v3/certs": object{"keys": list{
				publicKey(t, keys.StrangerRSA, "c8ab71530972bba20b49f78a09c9852c43ff9118", "RS256"),
				publicKey(t, keys.RSA, "6f9777a685907798ef794062c00b65d66c240b1b", "RS256"),
			}},
			"https://www.gstatic.com/iap/verify/public_key-jwk": object{"keys": list{
				publicKey(t, keys.P256, "f9R3yg", "ES256"),
			}},
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{why: "an employee", token: id, user: alice, upstream: []string{
					"X-User: " + alice, "X-Email: alice@example.com",
				}},
				strangerSigned(id),
				{why: "an access token", token: opaque("ya29.a0AfH6SMBx-3x"), reason: refusal.MalformedToken},
				otherClaims(id, "another app", object{"aud": "other.apps.googleusercontent.com"}, refusal.Audience),
				otherClaims(id, "another domain", object{"hd": "evil.example"}, refusal.Claim),
				otherClaims(id, "a private account", object{"hd": nil, "email": "a@gmail.com"}, refusal.Claim),
				otherClaims(id, "an address of the domain", object{"hd": nil}, refusal.Claim),
				{why: "a service account", token: robot, reason: refusal.Claim},
				otherClaims(id, "the form without https", object{"iss": "accounts.google.com"}, refusal.Issuer),
			}},
			{
				change: []string{"issuer " + iss + "\n\t\taudience " + client, "issuer " + iss + " {\naudience " + client +
					"\n}\nissuer accounts.google.com {\njwks https://www.googleapis.com/oauth2/v3/certs\naudience " +
					client + "\n}"},
				requests: []pageRequest{
					{why: "with https", token: id, user: alice},
					{why: "without https", token: id.with(object{"iss": "accounts.google.com"})},
					otherClaims(id, "another issuer", object{"iss": "accounts.google.example"}, refusal.Issuer),
				},
			},
			{change: []string{"\t\trequire claim hd example.com\n", ""}, requests: []pageRequest{ // as the page warns
				{why: "anybody", token: id.with(object{"hd": nil, "email": "a@gmail.com"})},
				{why: "any service account", token: robot},
			}},
			{
				change: []string{"claim hd example.com", "claim email robot@project.iam.gserviceaccount.com"},
				requests: []pageRequest{
					{why: "the service account", token: robot},
					otherClaims(robot, "another one", object{
						"email": "x@other.iam.gserviceaccount.com",
					}, refusal.Claim),
				},
			},
			{block: 1, requests: []pageRequest{
				{why: "through the proxy", token: proxied, as: iap, user: "accounts.google.com:" + alice},
				{why: "past the proxy", token: proxied, reason: refusal.NoCredentials},
				{
					why: "another backend", token: proxied.with(object{"aud": "/projects/1/global/backendServices/2"}),
					as: iap, reason: refusal.Audience,
				},
				{why: "the ID token", token: id, as: iap, reason: refusal.Issuer},
			}},
			{
				block: 1, change: []string{"/projects/123456789/global/backendServices/987654321", client},
				requests: []pageRequest{
					{why: "the client ID as audience", token: proxied, as: iap, reason: refusal.Audience},
				},
			},
		},
	}
}

func okta(t *testing.T) provider {
	const alice = "00uid4BxXw6I6TV4m0g3"
	const org = "https://example.okta.com"
	const iss = org + "/oauth2/default"
	keys := sitetest.Keys()
	discovery := func(issuer, prefix string) object {
		return object{
			"issuer": issuer, "authorization_endpoint": prefix + "/v1/authorize", "jwks_uri": prefix + "/v1/keys",
			"id_token_signing_alg_values_supported": list{"RS256"},
		}
	}
	access := rs256(object{"kid": "U5R8cHbGw445Qbq8zVO1PcCpXL8yG6IcovVa3laCoxM"}, object{
		"ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "iss": iss, "aud": "api://default",
		"cid": "0oa5s6ktkelKQmDHK0h7", "uid": alice, "scp": list{"openid", "films.read"},
		"auth_time": 1467145094, "sub": "alice@example.com",
	})
	id := access.with(object{
		"aud": "0oa5s6ktkelKQmDHK0h7", "sub": alice, "cid": nil, "uid": nil, "scp": nil,
		"amr": list{"pwd"},
		"idp": "00o1n8sbwArJ7OQRw406", "email": "alice@example.com", "nonce": "n",
	})
	internal := access.with(object{"iss": org, "aud": org}).headed(object{
		"typ": "application/okta-internal-at+jwt", "kid": "cdX5zsTOV5HKI2GfvJEcQtRPNZyCdJ1PQAEtAvpVpFY",
	}).signedBy("RS256", keys.StrangerRSA)
	service := access.with(object{
		"uid": nil, "sub": "0oa5s6ktkelKQmDHK0h7", "auth_time": nil, "scp": list{"films.read"},
	})
	set := object{"keys": list{publicKey(t, keys.RSA, "U5R8cHbGw445Qbq8zVO1PcCpXL8yG6IcovVa3laCoxM", "RS256")}}
	return provider{
		documents: map[string]any{
			iss + "/.well-known/openid-configuration": discovery(iss, iss),
			iss + "/v1/keys": set,
			org + "/.well-known/openid-configuration": discovery(org, org+"/oauth2"),
			// the key of its ID tokens; that of its access tokens is not published
			org + "/oauth2/v1/keys": set,
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{why: "a user", token: access, user: alice, upstream: []string{
					"X-User: " + alice, "X-Email: alice@example.com",
				}},
				{why: "a service", token: service, user: "0oa5s6ktkelKQmDHK0h7"},
				strangerSigned(access),
				{why: "of the org authorization server", token: internal, reason: refusal.Issuer},
				{why: "an ID token", token: id, reason: refusal.Audience},
				otherClaims(access, "another audience", object{"aud": "api://other"}, refusal.Audience),
				otherClaims(access, "another server", object{"iss": org + "/oauth2/aus9"}, refusal.Issuer),
				otherClaims(access, "no scope", object{"scp": list{"openid"}}, refusal.Scope),
			}},
			{change: []string{iss, org, "api://default", org}, requests: []pageRequest{
				{why: "the org as issuer", token: internal, reason: refusal.TokenType},
			}},
			{
				change: []string{"require scope films.read", "role_claim groups\n require role editors"},
				requests: []pageRequest{
					{why: "in the group", token: access.with(object{"groups": list{"Everyone", "editors"}})},
					{why: "no claim of groups", token: access, reason: refusal.Role},
				},
			},
		},
	}
}

func cognito(t *testing.T) provider {
	const alice = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	const host = "https://cognito-idp.eu-central-1.amazonaws.com/"
	const iss, client = host + "eu-central-1_Example", "1example23456789"
	keys := sitetest.Keys()
	access := rs256(object{"kid": "abcdefghijklmnopqrstuvwxyz="}, object{
		"sub": alice, "cognito:groups": list{"editors"}, "iss": iss, "version": 2,
		"client_id": client, "origin_jti": "b", "event_id": "c", "token_use": "access", "username": "alice",
		"scope": "openid aws.cognito.signin.user.admin https://api.example.com/read", "auth_time": 1676312777,
		"jti": "d",
	})
	id := access.with(object{
		"aud": client, "client_id": nil, "token_use": "id", "scope": nil, "version": nil, "username": nil,
		"cognito:username": "alice", "email": "alice@example.com", "email_verified": true, "custom:tenant": "films",
	}).headed(object{"kid": "1234example="})
	id.key = keys.StrangerRSA // a user pool has a key for each kind of token
	return provider{
		documents: map[string]any{
			iss + "/.well-known/openid-configuration": object{
				"issuer": iss, "jwks_uri": iss + "/.well-known/jwks.json", "scopes_supported": list{"openid"},
			},
			iss + "/.well-known/jwks.json": object{"keys": list{
				publicKey(t, keys.StrangerRSA, "1234example=", "RS256"),
				publicKey(t, keys.RSA, "abcdefghijklmnopqrstuvwxyz=", "RS256"),
			}},
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{why: "an access token", token: access, user: alice, upstream: []string{
					"X-User: " + alice, "X-Name: alice",
				}},
				strangerSigned(access),
				{why: "an ID token", token: id, reason: refusal.Audience},
				otherClaims(access, "another client", object{"client_id": "2other"}, refusal.Audience),
				otherClaims(access, "another user pool", object{"iss": host + "eu-central-1_Other"}, refusal.Issuer),
				otherClaims(access, "no group", object{"cognito:groups": nil}, refusal.Role),
			}},
			{change: []string{"\t\taudience_claim client_id\n", ""}, requests: []pageRequest{
				{why: "no audience_claim", token: access, reason: refusal.Audience},
			}},
			{change: []string{"audience_claim client_id", "audience_claim aud client_id"}, requests: []pageRequest{
				{why: "an access token", token: access},
				{why: "an ID token", token: id, reason: refusal.Claim},
			}},
			{
				change: []string{"require role editors", "require scope https://api.example.com/read"},
				requests: []pageRequest{
					{why: "the scope of a resource server", token: access},
					otherClaims(access, "another", object{"scope": "openid"}, refusal.Scope),
				},
			},
			{block: 1, requests: []pageRequest{
				{why: "an ID token", token: id, user: alice, upstream: []string{"X-Email: alice@example.com"}},
				{why: "an access token", token: access, reason: refusal.Audience},
				otherClaims(id, "another client", object{"aud": "2other"}, refusal.Audience),
			}},
		},
	}
}

func supabase(t *testing.T) provider {
	const alice = "5a1d1f0e-3a0b-4c57-9d51-8f2f8b8ac111"
	const iss = "https://abcdefghijklmnopqrst.supabase.co/auth/v1"
	keys := sitetest.Keys()
	claims := object{
		"aal": "aal1", "amr": list{object{"method": "password", "timestamp": 1720000000}},
		"app_metadata": object{"provider": "email", "providers": list{"email"}, "roles": list{"editor"}},
		"aud":          "authenticated", "email": "alice@example.com", "is_anonymous": false, "iss": iss, "phone": "",
		"role": "authenticated", "session_id": "0e6f", "sub": alice,
		"user_metadata": object{},
	}
	user := issued{
		algorithm: "ES256", key: keys.P256, claims: claims,
		header: object{"typ": "JWT", "kid": "b6b0c0f2-55a4-4b8e-8f86-1a9a5f0f3a77"},
	}
	legacy := user.signedBy("HS256", []byte(docsEnvironment["JWT_SECRET"])).headed(object{"kid": "wxZyY2lVQp7L"})
	anonKey := legacy.headed(object{"kid": nil})
	anonKey.claims = object{"iss": "supabase", "ref": "abcdefghijklmnopqrst", "role": "anon"}
	forged := object{
		"app_metadata":  object{"provider": "email"},
		"user_metadata": object{"roles": list{"editor"}, "app_metadata": object{"roles": list{"editor"}}},
	}
	const old = "https://legacylegacylegacyle.supabase.co/auth/v1" // a project without signing keys
	oldUser := legacy.with(object{"iss": old})
	set := "/.well-known/jwks.json"
	return provider{
		documents: map[string]any{
			old + set: object{"keys": list{}},
			iss + set: object{"keys": list{sitetest.JWK(t, keys.P256, object{
				"kid": "b6b0c0f2-55a4-4b8e-8f86-1a9a5f0f3a77", "alg": "ES256", "use": "sig", "ext": true,
				"key_ops": list{"verify"},
			})}},
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{why: "a user", token: user, user: alice, upstream: []string{
					"X-User: " + alice, "X-Email: alice@example.com",
				}},
				{why: "the anon key", token: anonKey, reason: refusal.Issuer},
				{why: "the legacy secret", token: legacy, reason: refusal.Algorithm},
				otherClaims(user, "roles of the user's own", forged, refusal.Role),
				otherClaims(user, "anonymous", object{"is_anonymous": true}, refusal.Claim),
				otherClaims(user, "another project", object{
					"iss": "https://zyxwvutsrqponmlkjihg.supabase.co/auth/v1",
				}, refusal.Issuer),
				otherClaims(user, "another audience", object{"aud": "anon"}, refusal.Audience),
			}},
			{block: 1, requests: []pageRequest{
				{why: "a signing key", token: user, user: alice},
				{why: "the legacy secret", token: legacy},
				{
					why: "another secret", token: legacy.signedBy("HS256", []byte(sitetest.Secret)),
					reason: refusal.Signature,
				},
				{why: "the anon key", token: anonKey, reason: refusal.Issuer},
			}},
			{change: []string{iss, old}, requests: []pageRequest{
				{why: "an empty key set", token: oldUser, reason: refusal.Algorithm},
			}},
			{block: 1, change: []string{iss, old}, requests: []pageRequest{
				{why: "an empty key set and the secret", token: oldUser},
			}},
			{
				block: 1, change: []string{"secret {env.JWT_SECRET}", "secret base64 " + legacySecret},
				requests: []pageRequest{{
					why: "the text is base64", token: legacy.signedBy("HS256", []byte(legacySecret)),
					reason: refusal.Signature,
				}},
			},
		},
	}
}

// legacySecret is a secret in the form that Supabase has: text that looks like base64.
const legacySecret = "c2VjcmV0IG9mIGEgcHJvamVjdCwgYXMgdGV4dCBhbmQgbm90IGFzIHRoZSBieXRlcyB0aGF0IGl0IHNlZW1z"

func firebase(t *testing.T) provider {
	const alice = "ggVvKdF1rUTnGLPWnSXy0Pj8Zfh1"
	const iss, google = "https://securetoken.google.com/my-project", "https://www.googleapis.com/"
	const set = google + "service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"
	const certificates = google + "robot/v1/metadata/x509/securetoken@system.gserviceaccount.com"
	const kid = "28a421cafbe3dd889271df900f4bbf16db5c24d4"
	keys := sitetest.Keys()
	id := rs256(object{"typ": "JWT", "kid": kid}, object{
		"name": "Alice", "iss": iss, "aud": "my-project", "auth_time": 1720000000,
		"user_id": alice,
		"sub":     alice, "email": "alice@example.com", "email_verified": true, "admin": true,
		"firebase": object{
			"identities":       object{"google.com": list{"1"}, "email": list{"alice@example.com"}},
			"sign_in_provider": "google.com",
		},
	})
	anonymous := id.with(object{
		"provider_id": "anonymous", "email": nil, "name": nil,
		"firebase": object{"identities": object{}, "sign_in_provider": "anonymous"},
	})
	custom := id.with(object{
		"iss": "firebase-adminsdk@my-project.iam.gserviceaccount.com",
		"sub": "firebase-adminsdk@my-project.iam.gserviceaccount.com",
		"aud": "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit",
		"uid": "alice",
	})
	return provider{
		documents: map[string]any{
			iss + "/.well-known/openid-configuration": object{
				"issuer": iss, "jwks_uri": set, "response_types_supported": list{"id_token"},
				"subject_types_supported": list{"public"}, "id_token_signing_alg_values_supported": list{"RS256"},
			},
			set: object{"keys": list{
				publicKey(t, keys.RSA, kid, "RS256"),
				publicKey(t, keys.StrangerRSA, "other", "RS256"),
			}},
			certificates: object{kid: certificatePEM(t, keys.RSA), "other": certificatePEM(t, keys.StrangerRSA)},
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{why: "a user", token: id, user: alice, upstream: []string{
					"X-User: " + alice, "X-Email: alice@example.com",
				}},
				strangerSigned(id),
				{why: "an anonymous user", token: anonymous, reason: refusal.Expression},
				{why: "a custom token", token: custom, reason: refusal.Issuer},
				otherClaims(id, "of Google", object{"iss": "https://accounts.google.com"}, refusal.Issuer),
				otherClaims(id, "a session cookie", object{
					"iss": "https://session.firebase.google.com/my-project",
				}, refusal.Issuer),
				otherClaims(id, "another project", object{
					"iss": "https://securetoken.google.com/my-staging", "aud": "my-staging",
				}, refusal.Issuer),
				otherClaims(id, "another audience", object{"aud": "my-staging"}, refusal.Audience),
			}},
			{
				change: []string{"expression `claims.firebase.sign_in_provider != \"anonymous\"`", "claim admin true"},
				requests: []pageRequest{
					{why: "with the custom claim", token: id},
					otherClaims(id, "before it is renewed", object{"admin": nil}, refusal.Claim),
				},
			},
			{change: []string{"\t\taudience", "\t\tjwks " + certificates + "\n\t\taudience"}, requests: []pageRequest{
				{why: "certificates as key set", token: id},
				strangerSigned(id),
			}},
		},
	}
}

func cloudflareAccess(t *testing.T) provider {
	const alice = "7335d417-61da-459d-899c-0a01c76a2f94"
	const iss = "https://example.cloudflareaccess.com"
	const tag = "32eafc7626e974616deaf0dc3ce63d7bcbed58a2731e84d06bc3cdf1b53c4228"
	const kid = "9338abe1baf2fe492f646a736f25afbf7b025e35c627be4f60c414d4c73069b8"
	keys := sitetest.Keys()
	user := rs256(object{"typ": "JWT", "kid": kid}, object{
		"aud": list{tag}, "email": "alice@example.com", "iss": iss, "type": "app", "identity_nonce": "6ei69kawdKzMIAPF",
		"sub": alice, "country": "DE", "custom": object{"groups": list{"editors"}},
	})
	service := user.with(object{
		"aud": tag, "sub": "", "common_name": "e367826f93b8d71185e03fe518aff3b4.access", "email": nil,
		"identity_nonce": nil, "country": nil, "custom": nil,
	})
	header, cookie := []string{"Cf-Access-Jwt-Assertion: "}, []string{"Cookie: CF_Authorization="}
	at := func(r pageRequest, as ...string) pageRequest {
		r.as = as
		return r
	}
	certs := list{
		object{"kid": kid, "cert": certificatePEM(t, keys.RSA)},
		object{"kid": "old", "cert": certificatePEM(t, keys.StrangerRSA)},
	}
	return provider{
		documents: map[string]any{iss + "/cdn-cgi/access/certs": object{
			"keys":        list{publicKey(t, keys.RSA, kid, "RS256"), publicKey(t, keys.StrangerRSA, "old", "RS256")},
			"public_cert": certs[0], "public_certs": certs,
		}},
		sites: []pageSite{
			{requests: []pageRequest{
				{why: "a user", token: user, as: header, user: alice, upstream: []string{
					"X-User: " + alice, "X-Email: alice@example.com",
				}},
				{why: "as Cloudflare sends it", token: user, as: append(cookie, header...)},
				{why: "a service token", token: service, as: header, user: "e367826f93b8d71185e03fe518aff3b4.access"},
				at(strangerSigned(user), header...),
				{
					why: "past Cloudflare", token: opaque("alice"), as: []string{"X-User: "},
					reason: refusal.NoCredentials,
				},
				at(otherClaims(user, "another application", object{"aud": list{"other"}}, refusal.Audience), header...),
				at(otherClaims(user, "another team", object{
					"iss": "https://other.cloudflareaccess.com",
				}, refusal.Issuer), header...),
				{why: "the cookie only", token: user, as: cookie, reason: refusal.NoCredentials},
			}},
			{
				change: []string{"\t\tuser_id", "\t\tfrom cookie CF_Authorization\n\t\tuser_id"},
				requests: []pageRequest{
					{why: "header and cookie", token: user, as: append(cookie, header...)},
					{why: "the cookie only", token: user, as: cookie},
				},
			},
			{change: []string{"\t\tuser_id sub common_name\n", ""}, requests: []pageRequest{
				{why: "a user", token: user, as: header},
				{why: "no user_id", token: service, as: header, reason: refusal.UserID},
			}},
			{change: []string{"\t\t\tjwks " + iss + "/cdn-cgi/access/certs\n", ""}, requests: []pageRequest{
				{why: "no jwks", token: user, as: header, reason: refusal.KeysUnavailable},
			}},
			{change: []string{"\t\tfrom header Cf-Access-Jwt-Assertion\n", ""}, requests: []pageRequest{
				{why: "no from", token: user, as: header, reason: refusal.NoCredentials},
			}},
			{change: []string{"\t\tuser_id", "\t\trole_claim custom.groups\n\t\trequire role editors\n\t\tuser_id"},
				requests: []pageRequest{
					{why: "in the group", token: user, as: header},
					at(otherClaims(user, "in no group", object{"custom": nil}, refusal.Role), header...),
				}},
		},
	}
}
