package docs_test

import (
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

func githubActions(t *testing.T) provider {
	const iss = "https://token.actions.githubusercontent.com"
	const kid = "38826b17-6a30-5f9b-b169-8beb8202f723"
	keys := sitetest.Keys()
	job := rs256(object{"typ": "JWT", "kid": kid, "x5t": "ykNaY4qM_ta4k2TgZOCEYLkcYlA"}, object{
		"jti": "example-id", "sub": "repo:octo-org/octo-repo:environment:production", "environment": "production",
		"aud": "https://deploy.example.com", "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true",
		"sha": "example-sha", "repository": "octo-org/octo-repo", "repository_owner": "octo-org", "actor_id": "12",
		"repository_visibility": "private", "repository_id": "74", "repository_owner_id": "65",
		"run_id":     "example-run-id",
		"run_number": "10", "run_attempt": "2", "runner_environment": "github-hosted", "actor": "octocat",
		"workflow": "deploy", "head_ref": "", "base_ref": "", "event_name": "workflow_dispatch", "iss": iss,
		"job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main", "nbf": 1632492967,
	})
	stranger := object{
		"sub": "repo:evil/repo:environment:production", "repository": "evil/repo", "repository_owner": "evil",
		"repository_owner_id": "666", "repository_id": "667",
	}
	pullRequest := object{
		"sub": "repo:octo-org/octo-repo:pull_request", "ref": "refs/pull/1/merge", "event_name": "pull_request",
		"environment": nil,
	}
	rules := []string{
		"\t\trequire claim repository octo-org/octo-repo\n", "", "\t\trequire claim repository_owner_id 65\n", "",
		"\t\trequire claim ref refs/heads/main\n", "", "\t\trequire claim environment production\n", "",
	}
	return provider{
		documents: map[string]any{
			iss + "/.well-known/openid-configuration": object{
				"issuer": iss, "jwks_uri": iss + "/.well-known/jwks",
				"subject_types_supported":  list{"public", "pairwise"},
				"response_types_supported": list{"id_token"}, "id_token_signing_alg_values_supported": list{"RS256"},
			},
			iss + "/.well-known/jwks": object{"keys": list{
				certified(t, keys.StrangerRSA, object{"kid": "other", "alg": "RS256", "use": "sig", "x5t#S256": nil}),
				certified(t, keys.RSA, object{"kid": kid, "alg": "RS256", "use": "sig", "x5t#S256": nil}),
			}},
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{
					why: "the workflow", token: job, user: "repo:octo-org/octo-repo:environment:production",
					upstream: []string{
						"X-Workflow: octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
					},
				},
				strangerSigned(job),
				otherClaims(job, "a stranger's repository", stranger, refusal.Claim),
				otherClaims(job, "a stranger with the name", object{"repository_owner_id": "666"}, refusal.Claim),
				otherClaims(job, "another repository", object{"repository": "octo-org/other"}, refusal.Claim),
				otherClaims(job, "another branch", object{"ref": "refs/heads/feature"}, refusal.Claim),
				otherClaims(job, "a pull request", pullRequest, refusal.Claim),
				otherClaims(job, "another environment", object{"environment": "staging"}, refusal.Claim),
				otherClaims(job, "the default audience", object{
					"aud": "https://github.com/octo-org",
				}, refusal.Audience),
				otherClaims(job, "an instance of GitHub Enterprise Server", object{
					"iss": "https://github.evil.example/_services/token",
				}, refusal.Issuer),
				{
					why: "GITHUB_TOKEN", token: opaque("ghs_16C7e42F292c6912E7710c838347Ae178B4a"),
					reason: refusal.MalformedToken,
				},
			}},
			{change: rules, requests: []pageRequest{ // as the page warns
				{why: "everybody", token: job.with(stranger)},
			}},
			{change: rules[4:], requests: []pageRequest{ // as the page warns
				{why: "any pull request", token: job.with(pullRequest)},
				otherClaims(job, "a stranger's repository", stranger, refusal.Claim),
			}},
		},
	}
}

func gitLabCI(t *testing.T) provider {
	const iss, kid = "https://gitlab.com", "4i3sFE7sxqNPOT7FdvcGA1ZVGGI_r-tsDXnEuYT4ZqE"
	keys := sitetest.Keys()
	job := rs256(object{"typ": "JWT", "kid": kid}, object{
		"namespace_id": "72", "namespace_path": "my-group", "project_id": "20", "project_path": "my-group/my-project",
		"user_id": "1", "user_login": "alice", "user_email": "alice@example.com", "user_access_level": "owner",
		"pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "ref": "main", "ref_type": "branch",
		"ref_path": "refs/heads/main", "ref_protected": "true", "groups_direct": list{"my-group"},
		"environment": "production", "environment_protected": "false", "deployment_tier": "production",
		"runner_environment": "gitlab-hosted", "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
		"project_visibility": "public",
		"ci_config_ref_uri":  "gitlab.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
		"jti":                "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b", "iss": iss, "nbf": 1681395188,
		"sub": "project_path:my-group/my-project:ref_type:branch:ref:main", "aud": "https://deploy.example.com",
	})
	stranger := object{
		"project_id": "666", "project_path": "evil/project", "namespace_path": "evil", "namespace_id": "665",
		"sub": "project_path:evil/project:ref_type:branch:ref:main",
	}
	rules := []string{
		"\t\trequire claim project_id 20\n", "", "\t\trequire claim project_path my-group/my-project\n", "",
		"\t\trequire claim ref main\n", "", "\t\trequire claim ref_protected true\n", "",
	}
	return provider{
		documents: map[string]any{
			iss + "/.well-known/openid-configuration": object{
				"issuer": iss, "jwks_uri": iss + "/oauth/discovery/keys",
				"id_token_signing_alg_values_supported": list{"RS256"},
			},
			iss + "/oauth/discovery/keys": object{"keys": list{
				publicKey(t, keys.StrangerRSA, "kewiQq9jiC84CvSsJYOB-N6A8WFLSV20Mb-y7IlWDSQ", "RS256"),
				publicKey(t, keys.RSA, kid, "RS256"),
			}},
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{
					why: "the job", token: job, user: "project_path:my-group/my-project:ref_type:branch:ref:main",
					upstream: []string{"X-Project: my-group/my-project", "X-User: alice"},
				},
				strangerSigned(job),
				otherClaims(job, "a stranger's project", stranger, refusal.Claim),
				otherClaims(job, "a stranger with the path", object{"project_id": "666"}, refusal.Claim),
				otherClaims(job, "another branch", object{"ref": "feature"}, refusal.Claim),
				otherClaims(job, "not protected", object{"ref_protected": "false"}, refusal.Claim),
				otherClaims(job, "another audience", object{"aud": "https://vault.example.com"}, refusal.Audience),
				otherClaims(job, "an own instance", object{"iss": "https://gitlab.example.com"}, refusal.Issuer),
				{why: "CI_JOB_TOKEN", token: opaque("glcbt-64_Xx1yYzZ"), reason: refusal.MalformedToken},
			}},
			{change: rules, requests: []pageRequest{ // as the page warns
				{why: "everybody", token: job.with(stranger)},
			}},
			{
				change:   []string{"claim ref_protected true", "expression claims.ref_protected == true"},
				requests: []pageRequest{{why: "a boolean", token: job, reason: refusal.Expression}},
			},
		},
	}
}

func kubernetes(t *testing.T) provider {
	const importer = "system:serviceaccount:films:importer"
	const iss = "https://kubernetes.default.svc.cluster.local"
	const eks = "https://oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"
	keys := sitetest.Keys()
	account := func(namespace, name string) object {
		return object{
			"sub": "system:serviceaccount:" + namespace + ":" + name,
			"kubernetes.io": object{
				"namespace": namespace, "node": object{"name": "node-1", "uid": "u"},
				"pod":            object{"name": name + "-6d4cf56db6-abcde", "uid": "u"},
				"serviceaccount": object{"name": name, "uid": "u"}, "warnafter": 1724153907,
			},
		}
	}
	pod := rs256(object{"kid": "aUzM2PUfLCDvjpxVqI0JqYPzqKBYLBCD8VTgKyHMgTo"}, object{
		"aud": list{"https://api.example.com"}, "iss": iss, "jti": "j", "nbf": 1724150300,
	}).with(account("films", "importer"))
	set := object{"keys": list{publicKey(t, keys.RSA, "aUzM2PUfLCDvjpxVqI0JqYPzqKBYLBCD8VTgKyHMgTo", "RS256")}}
	managed := pod.with(object{"iss": eks})
	ofSecret := pod.with(object{
		"iss": "kubernetes/serviceaccount", "aud": nil, "exp": nil, "iat": nil, "nbf": nil, "kubernetes.io": nil,
		"kubernetes.io/serviceaccount/namespace":            "films",
		"kubernetes.io/serviceaccount/service-account.name": "importer",
	})
	return provider{
		apiServer: iss,
		documents: map[string]any{
			iss + "/.well-known/openid-configuration": object{
				"issuer": iss, "jwks_uri": "https://172.18.0.2:6443/openid/v1/jwks", // an address of its own
				"response_types_supported": list{"id_token"}, "id_token_signing_alg_values_supported": list{"RS256"},
			},
			iss + "/openid/v1/jwks": set,
			eks + "/.well-known/openid-configuration": object{
				"issuer": eks, "jwks_uri": eks + "/keys", "id_token_signing_alg_values_supported": list{"RS256"},
			},
			eks + "/keys": set,
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{why: "the pod", token: pod, user: importer, upstream: []string{"X-User: " + importer}},
				{why: "a name with a dot", token: pod.with(account("films", "other.importer")), reason: refusal.Claim},
				strangerSigned(pod),
				otherClaims(pod, "the token of every pod", object{"aud": list{iss}}, refusal.Audience),
				otherClaims(pod, "another pod", account("films", "web"), refusal.Claim),
				otherClaims(pod, "another namespace", account("evil", "importer"), refusal.Claim),
				otherClaims(pod, "another cluster", object{"iss": "https://kubernetes.default.svc"}, refusal.Issuer),
				{why: "of a Secret", token: ofSecret, reason: refusal.Issuer},
			}},
			{
				change:   []string{`header Authorization "Bearer {file.` + serviceAccount + `/token}"`, ""},
				requests: []pageRequest{{why: "no header", token: pod, reason: refusal.KeysUnavailable}},
			},
			{block: 1, requests: []pageRequest{
				{why: "the pod", token: managed, user: importer},
				otherClaims(managed, "another pod", account("films", "web"), refusal.Claim),
				otherClaims(managed, "another audience", object{"aud": list{"sts.amazonaws.com"}}, refusal.Audience),
				otherClaims(managed, "another cluster", object{
					"iss": "https://oidc.eks.eu-central-1.amazonaws.com/id/OTHER",
				}, refusal.Issuer),
			}},
		},
	}
}

func spiffe(t *testing.T) provider {
	const importer = "spiffe://example.org/films/importer"
	const bundle, oidc = "https://spire.example.org:8443/", "https://oidc.example.org"
	keys := sitetest.Keys()
	svid := issued{
		algorithm: "ES256", key: keys.P256, header: object{"kid": "TYd3yAbQXpgD7Yp2", "typ": "JWT"}, claims: object{
			"aud": list{"spiffe://example.org/api"}, "sub": importer,
		},
	}
	rsaSVID := svid.headed(object{"kid": "rsa"}).signedBy("RS256", keys.RSA)
	stamped := svid.with(object{"iss": oidc})
	return provider{
		documents: map[string]any{
			bundle: object{"spiffe_sequence": 3, "spiffe_refresh_hint": 300, "keys": list{
				changed(certified(t, keys.P384, object{"use": "x509-svid"}), object{"x5t": nil, "x5t#S256": nil}),
				sitetest.JWK(t, keys.P256, object{"use": "jwt-svid", "kid": "TYd3yAbQXpgD7Yp2"}),
				sitetest.JWK(t, keys.RSA, object{"use": "jwt-svid", "kid": "rsa"}),
			}},
			oidc + "/.well-known/openid-configuration": object{
				"issuer": oidc, "jwks_uri": oidc + "/keys", "authorization_endpoint": "",
				"response_types_supported":              list{"id_token"},
				"id_token_signing_alg_values_supported": list{"RS256", "ES256", "ES384"},
			},
			oidc + "/keys": object{"keys": list{
				publicKey(t, keys.P256, "TYd3yAbQXpgD7Yp2", "ES256"),
			}},
		},
		sites: []pageSite{
			{requests: []pageRequest{
				{why: "the workload", token: svid, user: importer, upstream: []string{"X-User: " + importer}},
				{why: "typ JOSE", token: svid.headed(object{"typ": "JOSE"})},
				{why: "no typ", token: svid.headed(object{"typ": nil})},
				{why: "an RSA key", token: rsaSVID},
				{
					why: "the key of certificates", token: svid.headed(object{"kid": nil}).signedBy("ES384", keys.P384),
					reason: refusal.UnknownKey,
				},
				strangerSigned(rsaSVID),
				otherClaims(svid, "another workload", object{"sub": "spiffe://example.org/web"}, refusal.Expression),
				otherClaims(svid, "another trust domain", object{
					"sub": "spiffe://example.org.evil.example/films/importer",
				}, refusal.Expression),
				otherClaims(svid, "for another service", object{
					"aud": list{"spiffe://example.org/db"},
				}, refusal.Audience),
				otherClaims(svid, "no audience", object{"aud": nil}, refusal.Audience),
				otherClaims(svid, "no workload", object{"sub": nil}, refusal.UserID),
			}},
			{change: []string{"spiffe://example.org/films/\"", "spiffe://example.org\""}, requests: []pageRequest{
				{
					why:   "as the page warns",
					token: svid.with(object{"sub": "spiffe://example.org.evil.example/films/importer"}),
				},
			}},
			{change: []string{bundle, "https://127.0.0.1:1/"}, requests: []pageRequest{
				{why: "keys that cannot be fetched", token: svid, reason: refusal.KeysUnavailable},
			}},
			{block: 1, requests: []pageRequest{
				{why: "the workload", token: stamped, user: importer},
				{why: "no iss", token: svid, reason: refusal.Issuer},
				otherClaims(stamped, "another workload", object{"sub": "spiffe://example.org/web"}, refusal.Claim),
				otherClaims(stamped, "for another service", object{"aud": "spiffe://example.org/db"}, refusal.Audience),
			}},
		},
	}
}

func loopBack() provider {
	const alice = "6a7c1f2e-0c8e-4f0c-8f55-b4a4b9a2f111"
	user := issued{
		algorithm: "HS256", key: []byte(docsEnvironment["JWT_SECRET"]), header: object{"typ": "JWT"}, claims: object{
			"id": alice, "name": "alice", "email": "alice@example.com",
			"roles": list{"editor"},
		},
	}
	return provider{sites: []pageSite{
		{requests: []pageRequest{
			{why: "a user", token: user, user: alice, upstream: []string{
				"X-User: " + alice, "X-Name: alice",
			}},
			{
				why: "the default secret", token: user.signedBy("HS256", []byte("myjwts3cr3t")),
				reason: refusal.Signature,
			},
			{why: "a refresh token", token: user.signedBy("HS256", []byte("r3fr35htok3n")), reason: refusal.Signature},
			{
				why: "another algorithm", token: user.signedBy("RS256", sitetest.Keys().RSA), reason: refusal.Algorithm,
			},
			{why: "log-in", path: "/users/login", token: opaque("none")},
			{why: "below log-in", path: "/users/login/x", token: opaque("none"), reason: refusal.MalformedToken},
			otherClaims(user, "no user", object{"id": nil}, refusal.UserID),
			otherClaims(user, "an old one", object{"exp": 1600000000, "iat": 1599978400}, refusal.Expired),
		}},
		{change: []string{"\t\tuser_id id\n", ""}, requests: []pageRequest{
			{why: "no user_id", token: user, reason: refusal.UserID},
		}},
		{change: []string{"secret {env.JWT_SECRET}", "secret myjwts3cr3t"}, fails: "32 bytes"},
		{
			change: []string{"secret {env.JWT_SECRET}", "secret base64 " + legacySecret},
			requests: []pageRequest{{
				why: "the text is base64", token: user.signedBy("HS256", []byte(legacySecret)),
				reason: refusal.Signature,
			}},
		},
		{change: []string{"\t\tclaim_header X-User id", "\t\trequire role editor\n\t\tclaim_header X-User id"},
			requests: []pageRequest{
				{why: "the role", token: user},
				otherClaims(user, "no role", object{"roles": nil}, refusal.Role),
			}},
	}}
}
