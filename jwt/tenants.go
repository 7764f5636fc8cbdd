package jwt

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// anyTenant is the segment of an issuer's name that can be any tenant.
const anyTenant = "*"

// Matches reports whether a token with this `iss` is of the issuer: it is the name or, of a
// multi-tenant issuer, the name of one of its tenants.
func (i *Issuer) Matches(iss string) bool {
	if i.MultiTenant {
		_, ok := i.tenant(iss)
		return ok
	}
	return iss == i.Name
}

// CheckName returns an error if the name of a multi-tenant issuer has no `*` that is one whole
// segment of its path, or if a tenant cannot be such a segment.
func (i *Issuer) CheckName() error {
	if !i.MultiTenant {
		if len(i.Tenants) > 0 {
			return errors.New("tenants are the values of a `*` in the name of the issuer, which has none; " +
				"write it where the tenant is, as in: issuer https://id.example.com/*/v2.0")
		}
		return nil
	}
	u, err := url.Parse(i.Name)
	segments := strings.Split(i.Name, "/") // the scheme, an empty one, the host, and those of the path
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(i.Name, "?# ") ||
		strings.Count(i.Name, anyTenant) != 1 || !slices.Contains(segments[3:], anyTenant) {
		return errors.New("`*` is the tenant: exactly one whole segment of the path of a URL, as in " +
			"https://id.example.com/*/v2.0; list issuers of any other form one by one")
	}
	for _, tenant := range i.Tenants {
		if !isTenant(tenant) {
			return fmt.Errorf("tenants %q: it must be what `*` is in the iss of a token, one segment of "+
				"letters, digits, and - . _ ~", tenant)
		}
	}
	return nil
}

// tenant returns the segment of an `iss` that is at the `*` of the name.
func (i *Issuer) tenant(iss string) (tenant string, ok bool) {
	before, after, _ := strings.Cut(i.Name, anyTenant)
	rest, begins := strings.CutPrefix(iss, before)
	tenant, ends := strings.CutSuffix(rest, after)
	return tenant, begins && ends && i.mayBe(tenant)
}

// mayBe reports whether `*` can be the segment.
func (i *Issuer) mayBe(segment string) bool {
	return isTenant(segment) && (len(i.Tenants) == 0 || slices.Contains(i.Tenants, segment))
}

// isTenant reports whether a text is a segment that no reader of a URL changes: unreserved
// characters (RFC 3986 §2.3), and no dot segment (§3.3).
func isTenant(text string) bool {
	return text != "" && text != "." && text != ".." && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~", r)
	})
}

// overlap reports whether an `iss` can be of tenants of both issuers.
func overlap(a, b *Issuer) bool {
	ofA, ofB := strings.Split(a.Name, "/"), strings.Split(b.Name, "/")
	if len(ofA) != len(ofB) {
		return false
	}
	for n := range ofA {
		here, there := ofA[n], ofB[n]
		switch {
		case here == anyTenant && there == anyTenant:
			if len(a.Tenants) > 0 && len(b.Tenants) > 0 && !slices.ContainsFunc(a.Tenants, b.mayBe) {
				return false
			}
		case here == anyTenant && a.mayBe(there), there == anyTenant && b.mayBe(here):
		case here != there:
			return false
		}
	}
	return true
}

// checkTenant checks the claim `tid`, with which a provider repeats the tenant of the `iss`.
func (i *Issuer) checkTenant(claims Claims) error {
	if !i.MultiTenant {
		return nil
	}
	id, present := claims["tid"]
	if !present {
		return nil
	}
	iss, _ := claims["iss"].(string)
	if tenant, _ := i.tenant(iss); id != tenant {
		return refusal.New(refusal.Issuer, "tid is %s, but iss is of the tenant %s",
			refusal.Quoted(ClaimText(id)), refusal.Quoted(tenant))
	}
	return nil
}
