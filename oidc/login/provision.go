package login

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	gooidc "github.com/coreos/go-oidc/v3/oidc"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
)

// isAddressClaim matches claims with an address, whether inside another one or not.
var isAddressClaim = regexp.MustCompile(`(?i)(^|\.)e?-?mail(_?address)?$`)

// Provision resolves placeholders and checks the config.
func (l *Login) Provision(ctx caddy.Context) error {
	l.log = ctx.Logger()
	options := map[string]*string{
		"label": &l.Label, "issuer": &l.Issuer, "client_id": &l.ClientID,
		"client_secret": &l.ClientSecret, "redirect_uri": &l.RedirectURI,
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		value := *options[name]
		err := config.CheckVariable(value)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", l.Name, name, err)
		}
		if *options[name], err = caddy.NewReplacer().ReplaceOrErr(value, true, true); err != nil {
			// without err, which may quote a part of the secret
			return fmt.Errorf("%s: %s: it has a placeholder without a value when the config is loaded; %s "+
				"Use {env.NAME} or {file./path}", l.Name, name, config.WhyEmpty(value))
		}
		if value != "" && *options[name] == "" {
			return fmt.Errorf("%s: %s is empty; %s", l.Name, name, config.WhyEmpty(value))
		}
	}
	for option, value := range map[string]*string{
		"authorization_endpoint": &l.AuthorizationEndpoint, "token_endpoint": &l.TokenEndpoint,
		"userinfo_endpoint": &l.UserinfoEndpoint, "team_id": &l.TeamID, "key_id": &l.KeyID,
		"private_key": &l.PrivateKey,
	} {
		if err := config.Resolve(option, value); err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
	}
	if err := config.ResolveList("tenant", l.Tenants); err != nil {
		return fmt.Errorf("%s: %w", l.Name, err)
	}
	from, err := l.complete()
	if err != nil {
		return fmt.Errorf("%s: %w", l.Name, err)
	}
	if !l.plain() && withoutDiscovery(l.Issuer) {
		l.log.Warn("login_with "+l.Name+": "+l.Issuer+
			" has no OpenID discovery document, so nobody can log in through it; use one of the presets ("+
			strings.Join(presetNames(), ", ")+"), or set authorization_endpoint, token_endpoint and userinfo_endpoint",
			help.See("provider-without-discovery"))
	}
	shared, _, err := providers.LoadOrNew(from, func() (caddy.Destructor, error) { return newProvider(from) })
	if err != nil {
		return err
	}
	l.provider = shared.(*provider)
	answers := func(ctx context.Context) (string, error) {
		if l.plain() {
			return "its endpoints are in the config", nil
		}
		_, err := l.metadata(ctx)
		return "its discovery document is valid", err
	}
	config.OnCheck(ctx, config.Check{What: "login_with " + l.Name, Server: l.Issuer, Run: answers})
	return nil
}

// complete fills in what the preset knows, checks the config, and returns where the provider is.
func (l *Login) complete() (from source, err error) {
	if _, known := presets[l.Preset]; l.Preset != "" && !known {
		return from, config.Unknown("a preset", l.Preset, presetNames())
	}
	l.fill()
	l.needScopes()
	if !l.plain() && !slices.Contains(l.Scopes, gooidc.ScopeOpenID) {
		l.Scopes = append([]string{gooidc.ScopeOpenID}, l.Scopes...)
	}
	from.allowHTTP = l.AllowHTTP
	if err := l.check(from); err != nil {
		return from, err
	}
	base := l.Issuer
	if err := l.checkTenants(); err != nil {
		return from, err
	}
	if err := l.readSecret(); err != nil {
		return from, err
	}
	if from.trustedCAs, err = readCAs(l.TrustedCACerts); err != nil {
		return from, err
	}
	from.issuer = l.Issuer
	if l.plain() {
		for _, at := range []string{l.AuthorizationEndpoint, l.TokenEndpoint, l.UserinfoEndpoint} {
			u, err := url.Parse(at)
			if err != nil {
				return from, err
			}
			from.hosts += u.Host + " "
		}
		return from, nil
	}
	from.document = l.Issuer
	if strings.Contains(l.Issuer, tenantPlace) { // the keys of all tenants
		base = strings.TrimSuffix(base, "/") + "/" + anyTenant
		from.document, from.keysURL = base+"/v2.0", base+"/discovery/v2.0/keys"
	}
	return from, nil
}

// readCAs returns the certificates in PEM files.
func readCAs(files []string) (certificates string, err error) {
	for _, path := range files {
		if err := config.Resolve("trusted_ca_certs", &path); err != nil {
			return "", err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("trusted_ca_certs: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(text) {
			return "", fmt.Errorf("trusted_ca_certs: %s contains no PEM certificate", path)
		}
		certificates += string(text) + "\n"
	}
	return certificates, nil
}

// withoutDiscovery reports whether an issuer is a well-known service that only supports
// OAuth 2.0.
func withoutDiscovery(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && slices.Contains([]string{
		"github.com", "www.github.com", "api.github.com", "x.com", "api.x.com",
		"twitter.com", "api.twitter.com", "www.reddit.com", "bitbucket.org", "oauth.vk.com",
	}, u.Hostname())
}

// check checks the config, except for what depends on the preset.
func (l *Login) check(from source) error {
	if err := l.checkAddresses(from); err != nil {
		return err
	}
	if strings.ContainsAny(strings.TrimRight(l.ClientSecret, "\r\n"), "\r\n") {
		return errors.New("client_secret has several lines; write it on one line, as the provider shows it")
	}
	if l.ClientID == "" {
		return errors.New("client_id is missing; set the ID of this site at the provider")
	}
	if l.IDClaim == l.EmailClaim && l.IDClaim != "sub" || isAddressClaim.MatchString(l.IDClaim) {
		return fmt.Errorf("id_claim %s is an address, which may belong to somebody else one day; name the claim with "+
			"the ID that the provider gives the user and never gives another, as in: id_claim id", l.IDClaim)
	}
	for _, scope := range l.Scopes {
		if err := protocol.CheckScope(scope); err != nil {
			return err
		}
	}
	for claim, property := range l.MapClaim {
		if claim == "" || property == "" {
			return errors.New(
				"map_claim has an empty name; set a claim and a property, as in: map_claim given_name name",
			)
		}
	}
	if err := l.checkFlow(); err != nil {
		return err
	}
	if err := l.checkRules(); err != nil {
		return err
	}
	if u, err := url.Parse(l.RedirectURI); l.RedirectURI != "" &&
		(err != nil || u.Host == "" || u.Fragment != "" || !protocol.SecureURL(u) ||
			!strings.HasSuffix(u.Path, "/callback/"+l.Name)) {
		return fmt.Errorf(
			"redirect_uri %q: it must be an https URL that ends in /callback/%s, "+
				"as in https://example.com/auth/callback/%s",
			l.RedirectURI, l.Name, l.Name,
		)
	}
	return nil
}

// checkAddresses checks the URLs of the provider.
func (l *Login) checkAddresses(from source) error {
	const where = "https, or http on this machine; in a network that you trust, set allow_http"
	if !l.plain() {
		if u, err := url.Parse(l.Issuer); l.Issuer == "" || err != nil || u.Host == "" || u.RawQuery != "" ||
			u.Fragment != "" || u.User != nil || !from.secure(u) {
			return fmt.Errorf("issuer %q: it must be the URL of the provider: %s; as in https://accounts.google.com",
				l.Issuer, where)
		}
		return nil
	}
	for _, option := range []struct{ name, value string }{
		{"authorization_endpoint", l.AuthorizationEndpoint}, {"token_endpoint", l.TokenEndpoint},
		{"userinfo_endpoint", l.UserinfoEndpoint},
	} {
		u, err := url.Parse(option.value)
		if option.value == "" || err != nil || u.Host == "" || u.Fragment != "" || u.User != nil || !from.secure(u) {
			return fmt.Errorf("%s %q: a provider without OpenID Connect needs authorization_endpoint, token_endpoint "+
				"and userinfo_endpoint, each a URL: %s", option.name, option.value, where)
		}
	}
	return nil
}

// ownParameters are the parameters of the authorization request that are set by other options, or
// by the log-in itself.
var ownParameters = []string{
	"client_id", "redirect_uri", "response_type", "scope", "state", "nonce", "code_challenge",
	"code_challenge_method", "response_mode", "request", "request_uri",
}

// checkFlow checks the options about the flow.
func (l *Login) checkFlow() error {
	if l.AuthMethod != "" && !slices.Contains([]string{basicMethod, postMethod, noMethod}, l.AuthMethod) {
		return fmt.Errorf("auth_method %q: it must be %s, %s or %s", l.AuthMethod, basicMethod, postMethod, noMethod)
	}
	if l.ResponseMode != "" && l.ResponseMode != formPost && l.ResponseMode != "query" {
		return fmt.Errorf("response_mode %q: it must be query or %s", l.ResponseMode, formPost)
	}
	for name := range l.AuthorizationParameters {
		if name == "" || slices.Contains(ownParameters, name) {
			return fmt.Errorf("authorization_parameter %s: it is set by the log-in itself, or by another option", name)
		}
	}
	return nil
}

// checkRules checks who may log in, and with which roles.
func (l *Login) checkRules() error {
	for _, from := range l.RolesFrom {
		if from.Claim == "" {
			return errors.New("roles_from names no claim, as in: roles_from groups")
		}
		for value, roles := range from.Roles {
			if len(roles) == 0 {
				return fmt.Errorf("roles_from %s %s: it gives no role; write one after the value", from.Claim, value)
			}
			if err := store.CheckRoles(roles); err != nil {
				return fmt.Errorf("roles_from %s %s: %w", from.Claim, value, err)
			}
		}
		if instead, never := l.preset.without[from.Claim]; never {
			return fmt.Errorf("roles_from %s: %s never sends this claim; %s", from.Claim, l.preset.label,
				strings.Replace(instead, "allow organization <", "roles_from organizations <", 1))
		}
	}
	for _, condition := range l.Allow {
		kinds := []string{"claim", "domain", "group", "organization"}
		if !slices.Contains(kinds, condition.Kind) {
			return config.Unknown("allow: a kind of condition", condition.Kind, kinds)
		}
		if len(condition.Values) == 0 || (condition.Kind == "claim") != (condition.Claim != "") {
			return fmt.Errorf("allow %s lists no values, as in: allow domain example.com", condition)
		}
		if instead, never := l.preset.without[condition.claim()]; never && condition.Kind != "domain" {
			return fmt.Errorf("allow %s: %s never sends the claim %s, so nobody could log in; %s",
				condition, l.preset.label, condition.claim(), instead)
		}
		if condition.Kind == "domain" && l.Preset == "facebook" && !l.TrustEmail {
			return fmt.Errorf("allow %s: Facebook does not say whether an address is verified, so nobody could log "+
				"in; remove it, or set trust_email if you trust all addresses there", condition)
		}
		for _, value := range condition.Values {
			if condition.Kind == "domain" && domainKey(value) == "" {
				return fmt.Errorf(
					"allow domain %q: it must be the part of an address after the @, as in example.com", value,
				)
			}
		}
	}
	return nil
}

// Cleanup releases the provider's cached metadata.
func (l *Login) Cleanup() error {
	if l.provider == nil {
		return nil
	}
	_, err := providers.Delete(l.provider.source)
	return err
}
