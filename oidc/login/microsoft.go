package login

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"golang.org/x/oauth2"
)

// Names of tenants of Microsoft's identity platform.
const (
	anyTenant       = "common"
	anyOrganization = "organizations"
	personal        = "consumers"
	// personalTenant is the ID of the tenant of all personal accounts.
	personalTenant = "9188040d-6c67-4c5b-b112-36a304b66dad"

	tenantPlace = "{tenantid}" // in the issuer of metadata for several tenants
)

var tenantID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// checkTenants checks the tenants, and sets the issuer by them: that of the only one, or a template.
func (l *Login) checkTenants() error {
	if !l.preset.anyTenant {
		if len(l.Tenants) > 0 {
			return errors.New("tenant is an option of preset microsoft")
		}
		return nil
	}
	for i, tenant := range l.Tenants {
		tenant = strings.ToLower(tenant)
		switch {
		case tenant == personal:
			tenant = personalTenant
		case tenant == anyTenant || tenant == anyOrganization:
			if len(l.Tenants) > 1 {
				return fmt.Errorf("tenant %s includes others; write it alone", tenant)
			}
		case !tenantID.MatchString(tenant):
			return fmt.Errorf(
				"tenant %q: it must be the ID of a tenant, as in 8eaef023-2b34-4da1-9baa-8bc8c9d6a490 "+
					"(in Entra under Overview), or common, organizations or consumers", l.Tenants[i],
			)
		}
		l.Tenants[i] = tenant
		if l.TrustEmail && !tenantID.MatchString(tenant) {
			return fmt.Errorf("trust_email and tenant %s: the administrators of any tenant can write any address; "+
				"list the IDs of the tenants that you trust", tenant)
		}
	}
	tenant := tenantPlace
	if len(l.Tenants) == 1 && tenantID.MatchString(l.Tenants[0]) {
		tenant = l.Tenants[0]
	}
	l.Issuer = strings.TrimSuffix(l.Issuer, "/") + "/" + tenant + "/v2.0"
	return nil
}

// checkIssuer checks the `iss` of a token. That of a provider with several tenants depends on the
// tenant in the token, which must be one of those that may log in.
func (l *Login) checkIssuer(claims jwt.Claims) error {
	expected := l.Issuer
	if strings.Contains(expected, tenantPlace) {
		tenant, _ := claims["tid"].(string)
		if !tenantID.MatchString(tenant) {
			return faulty(faultTenant, "tid of the ID token is no tenant")
		}
		if !l.mayTenant(tenant) {
			return &notAllowed{"the tenant " + tenant + " is not one of the login's"}
		}
		expected = strings.Replace(expected, tenantPlace, tenant, 1)
	}
	if iss := claims["iss"]; iss != expected {
		return faulty(faultIssuer, "iss of the token is %.100q, not %q", iss, expected)
	}
	return nil
}

func (l *Login) mayTenant(tenant string) bool {
	switch l.Tenants[0] {
	case anyTenant:
		return true
	case anyOrganization:
		return tenant != personalTenant
	}
	return slices.Contains(l.Tenants, tenant)
}

// microsoftUser says whether the address is verified: Microsoft sends no email_verified, and the
// administrators of a tenant can write any address. xms_edov is an optional claim that says that
// the domain's owner did, and an address of a personal account is always verified.
func microsoftUser(_ context.Context, l *Login, _ *oauth2.Token, claims jwt.Claims) error {
	edov := claims["xms_edov"]
	claims["email_verified"] = edov == true || edov == int64(1) || edov == "1" || edov == "true" ||
		claims["tid"] == personalTenant
	if names, ok := claims["_claim_names"].(jwt.Claims); ok && names["groups"] != nil && l.uses("groups") {
		return faulty(faultGroups, "the user is in more groups than fit into the token")
	}
	return nil
}
