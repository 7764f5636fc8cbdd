package caddyjwt_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// `require acr` with tokens of any issuer (RFC 9470).
func TestRequireACR(t *testing.T) {
	of := func(claims sitetest.JSON) attack {
		return attack{fmt.Sprint(claims), "/api/", sitetest.HS256(t, claims)}
	}
	mustRefuse := func(t *testing.T, s *sitetest.Site, controls, attacks []attack) {
		t.Helper()
		for _, control := range controls {
			s.MustAnswer(200, s.Bearer(control.path, control.token), "control: "+control.name)
		}
		for _, a := range attacks {
			got := s.Bearer(a.path, a.token)
			if got.Status != 401 || got.ErrorBody(t).Error.Code != "insufficient_user_authentication" {
				t.Errorf("%s: %d %s", a.name, got.Status, got.Body)
			}
		}
	}
	now := time.Now().Unix()
	s := secretSite(t, "require acr gold mfa within 5m")
	mustRefuse(t, s, []attack{
		of(sitetest.JSON{"acr": "mfa", "auth_time": now}), of(sitetest.JSON{"acr": "gold", "auth_time": now - 290}),
	}, []attack{
		of(nil), of(sitetest.JSON{"acr": "mfa"}), of(sitetest.JSON{"acr": "pwd", "auth_time": now}),
		of(sitetest.JSON{"auth_time": now}), of(sitetest.JSON{"acr": "mfa", "auth_time": now - 310}),
		of(sitetest.JSON{"acr": "mfa", "auth_time": now + 3600}), of(sitetest.JSON{"acr": "mfa", "auth_time": "now"}),
		of(sitetest.JSON{"acr": "mfa", "auth_time": 1e30}), of(sitetest.JSON{"acr": "mfa", "auth_time": -1}),
		of(sitetest.JSON{"acr": "mfa", "auth_time": int64(1) << 62}), of(sitetest.JSON{"acr": "mfa", "auth_time": nil}),
		of(sitetest.JSON{"acr": []string{"mfa"}, "auth_time": now}), of(sitetest.JSON{"acr": "MFA", "auth_time": now}),
		of(sitetest.JSON{"acr": "gold mfa", "auth_time": now}), of(sitetest.JSON{"amr": []string{"mfa"}, "auth_time": now}),
	})
	got := s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{"acr": "pwd"}))
	if challenge := got.Header.Get("WWW-Authenticate"); got.Status != 401 ||
		!strings.HasSuffix(challenge, `acr_values="gold mfa", max_age="300"`) ||
		!strings.Contains(challenge, `error="insufficient_user_authentication"`) {
		t.Errorf("%d %s %s", got.Status, challenge, got.Body)
	}
	s = secretSite(t, "require acr mfa")
	mustRefuse(t, s, []attack{of(sitetest.JSON{"acr": "mfa"})}, []attack{of(sitetest.JSON{"acr": "pwd"})})
	if challenge := s.Bearer("/api/", sitetest.HS256(t, nil)).Header.Get("WWW-Authenticate"); strings.Contains(
		challenge, "max_age",
	) || !strings.HasSuffix(challenge, `acr_values="mfa"`) {
		t.Errorf("without within: %s", challenge)
	}
}
