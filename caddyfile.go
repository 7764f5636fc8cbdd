package caddyjwt

import (
	"bytes"
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/introspection"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterDirective("jwt", parseDirective)
	httpcaddyfile.RegisterDirectiveOrder("jwt", httpcaddyfile.Before, "basic_auth")
	config.RegisterBlock("jwt", (&parser{handler: new(Handler)}).options())
	config.RegisterBlock("issuer", issuerOptions(new(IssuerConfig)))
	config.RegisterBlock("backchannel_logout", logoutOptions(new(Logout)))
	config.RegisterBlock("upstream_token", upstreamTokenOptions(new(UpstreamToken)))
	config.RegisterBlock("jwks", jwksOptions(new(JWKSConfig)))
	config.RegisterForeign("jwt", refusal.DocsURL+"migration/ggicci-caddy-jwt.md",
		"sign_key", "sign_alg", "jwk_url", "skip_verification", "from_query", "from_header", "from_cookies",
		"issuer_whitelist", "audience_whitelist", "user_claims", "meta_claims")
	config.RegisterForeign("jwt", refusal.DocsURL+"migration/caddy-security.md",
		"authenticate", "authorize", "crypto", "inject", "acl", "bypass")
}

// parseDirective returns the route of the handler and, with accounts, the account routes.
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next()
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	config.Remember(h.Dispenser, handler)
	var routes []httpcaddyfile.ConfigValue
	if handler.Accounts != nil {
		routes = web.Routes(h, *handler.Accounts)
	}
	if handler.UpstreamToken != nil {
		documents := &IssuerDocuments{Issuer: handler.UpstreamToken.Issuer, Algorithm: handler.UpstreamToken.Algorithm}
		config.Remember(h.Dispenser, documents)
		routes = append(routes, h.NewRoute(documents.matcher(), documents)...)
	}
	if handler.Resource != "" {
		document := metadataOf(handler)
		config.Remember(h.Dispenser, document)
		routes = append(routes, h.NewRoute(document.matcher(), document)...)
	}
	for _, logout := range logoutsOf(handler) {
		config.Remember(h.Dispenser, logout)
		routes = append(routes, h.NewRoute(logout.matcher(), logout)...)
	}
	if matcher != nil {
		routes = append(routes, h.NewRoute(nil, &Guard{
			Headers:        guardedHeaders(handler.ClaimHeaders, handler.UpstreamToken),
			MatcherSetsRaw: caddyhttp.RawMatcherSets{matcher},
		})...)
	}
	return append(routes, h.NewRoute(matcher, handler)...), nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	jwt [<matcher>] {
//	    issuer <iss> [{
//	        jwks [<url>] [{
//	            refresh          <duration>
//	            max_stale        <duration>
//	            cooldown         <duration>
//	            timeout          <duration>
//	            header           <name> <value>
//	            allow_http
//	            trusted_ca_certs <pem_file...>
//	        }]
//	        public_key <PEM, JWK, or path>
//	        secret     [base64|hex] <value>
//	        algorithms <alg...>
//	        audience   <aud...>
//	        audience_claim <claim...>
//	        token_type <typ...>
//	        tenants    <value...>
//	        introspection [<url>] [{
//	            client_id        <id>
//	            client_secret    <secret>
//	            private_key      <PEM, JWK, or path>
//	            cache            <duration>|off
//	            timeout          <duration>
//	            always
//	            allow_http
//	            trusted_ca_certs <pem_file...>
//	        }]
//	        backchannel_logout <path> [<client_id...>] [{
//	            lifetime <duration>
//	        }]
//	    }]
//	    api_keys [{
//	        store    file [<path>] | <module> [<args...>]
//	        header   <name>
//	        prefix   <text>
//	        max_keys <keys>
//	    }]
//	    credentials <module> [<args...>]
//	    leeway <duration>
//	    allow_missing_exp
//	    from header [<name> [<scheme>]] | cookie <name> | query <name> | websocket_protocol [<name>]
//	    first_source
//	    user_id <claim...>
//	    scope_claim <claim...>
//	    role_claim <claim...>
//	    public <path...>
//	    optional
//	    allow_preflight
//	    require [any] scope <scope...> [of <issuer>]
//	    require role <role...> [of <issuer>]
//	    require claim <name> <value...> [of <issuer>]
//	    require acr <value...> [within <duration>] [of <issuer>]
//	    require expression <CEL>
//	    require <authorizer> [<args...>]
//	    claim_header <Header> <claim>|* [json|lines] [percent|base64|base64url]
//	    trusted_origins <origin...>
//	    strip_token
//	    close_at_expiry
//	    log_refused
//	    upstream_token [<Header>] [{
//	        issuer    <url>
//	        audience  <aud...>
//	        lifetime  <duration>
//	        algorithm RS256|ES256|EdDSA
//	        claims    <claim...>
//	        claims_from <module> [<args...>]
//	    }]
//	    resource <url>
//	    cache <entries>|off
//	    realm <name>
//	    accounts [<prefix>]
//	}
//
// `issuer`, `public_key`, `secret`, `header`, `from`, `require` and `claim_header` may be repeated. If
// there is only one issuer, its options may also be outside its block. If `iss` is not to be
// checked, omit `issuer`.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("jwt takes a matcher and a block, not %q; a path matcher begins with a slash, as in: jwt "+
			"/api/* {, and several paths require a named matcher", d.Val())
	}
	p := parser{Dispenser: d, handler: h}
	if err := config.ReadBlock(d, "jwt", p.options()); err != nil {
		return err
	}
	return p.finish()
}

type parser struct {
	*caddyfile.Dispenser
	handler *Handler
	outside IssuerConfig     // options outside the issuer blocks
	names   []string         // of these
	first   *config.Block    // where the first of these is
	keys    *apikeys.APIKeys // nil if there are none
}

func (p *parser) options() []config.Option {
	h := p.handler
	return slices.Concat([]config.Option{
		{Name: "issuer", Read: p.issuer, Repeatable: true},
	}, p.outsideOptions(), []config.Option{
		{Name: "leeway", Read: func(b *config.Block, name string) error {
			h.Leeway = new(caddy.Duration)
			return config.DurationOrZero(h.Leeway)(b, name)
		}},
		{Name: "api_keys", Read: p.apiKeys},
		{Name: "credentials", Read: p.credentials, Repeatable: true},
		{Name: "allow_missing_exp", Read: config.Flag(&h.AllowMissingExp)},
		{Name: "from", Read: p.from, Repeatable: true},
		{Name: "first_source", Read: config.Flag(&h.FirstSource)},
		{Name: "user_id", Read: config.Words("claim names, as in: user_id sub", &h.UserID)},
		{Name: "scope_claim", Read: config.Words("claim names, as in: scope_claim permissions", &h.ScopeClaim)},
		{Name: "role_claim", Read: config.Words("claim names, as in: role_claim realm_access.roles", &h.RoleClaim)},
		{Name: "public", Read: config.Words("paths, as in: public /health /assets/*", (*[]string)(&h.Public))},
		{Name: "optional", Read: config.Flag(&h.Optional)},
		{Name: "allow_preflight", Read: config.Flag(&h.AllowPreflight)},
		{Name: "require", Read: p.require, Repeatable: true},
		{Name: "claim_header", Read: p.claimHeader, Repeatable: true},
		{
			Name: "trusted_origins",
			Read: config.Words("origins, as in: trusted_origins https://app.example.com", &h.TrustedOrigins),
		},
		{Name: "strip_token", Read: config.Flag(&h.StripToken)},
		{Name: "close_at_expiry", Read: config.Flag(&h.CloseAtExpiry)},
		{Name: "upstream_token", Read: func(b *config.Block, _ string) error {
			h.UpstreamToken = new(UpstreamToken)
			return readUpstreamToken(b, h.UpstreamToken)
		}},
		{
			Name: "resource",
			Read: config.Word("the URL of the API, as in: resource https://api.example.com/mcp", &h.Resource),
		},
		{Name: "cache", Read: p.cache},
		{Name: "realm", Read: config.Word("a name", &h.Realm)},
		{Name: "log_refused", Read: config.Flag(&h.LogRefused)},
		{Name: "accounts", Read: func(b *config.Block, _ string) (err error) {
			h.Accounts, err = accounts.Parse(b.Dispenser)
			return err
		}},
	})
}

func (p *parser) issuer(b *config.Block, _ string) error {
	issuer := new(IssuerConfig)
	args := p.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return p.Errf("issuer takes the value of the iss claim, as in: issuer https://tenant.example.com/")
	}
	issuer.Issuer = args[0]
	for _, other := range p.handler.Issuers {
		if other.Issuer == issuer.Issuer {
			return p.Errf("issuer %s is specified twice; put all its options into one block", issuer.Issuer)
		}
	}
	p.handler.Issuers = append(p.handler.Issuers, issuer)
	return config.ReadBlock(b.Dispenser, "issuer", issuerOptions(issuer))
}

// issuerOptions returns the options of an issuer block, which can also be in the `jwt`
// block if there is only one issuer.
func issuerOptions(issuer *IssuerConfig) []config.Option {
	return []config.Option{
		{Name: "jwks", Read: func(b *config.Block, _ string) error {
			issuer.JWKS = new(JWKSConfig)
			return readJWKS(b, issuer.JWKS)
		}},
		{Name: "public_key", Repeatable: true, Read: func(b *config.Block, name string) error {
			var key string
			err := config.Word("a PEM, a JWK or the path of its file, in quotes if it contains spaces", &key)(b, name)
			issuer.PublicKeys = append(issuer.PublicKeys, key)
			return err
		}},
		{Name: "secret", Repeatable: true, Read: func(b *config.Block, name string) error {
			secret, err := config.ParseSecret(b, name)
			issuer.Secrets = append(issuer.Secrets, secret)
			return err
		}},
		{Name: "algorithms", Read: config.Words("algorithms, as in: algorithms RS256 ES256", &issuer.Algorithms)},
		{Name: "audience", Read: config.Words("values of the aud claim", &issuer.Audience)},
		{Name: "audience_claim", Read: config.Words(
			"claim names, as in: audience_claim aud client_id", &issuer.AudienceClaim,
		)},
		{Name: "token_type", Read: config.Words(
			"values of typ, as in: token_type at+jwt", (*[]string)(&issuer.TokenType),
		)},
		{Name: "tenants", Read: config.Words(
			"values of the * in the issuer, as in: tenants contoso fabrikam", &issuer.Tenants,
		)},
		{Name: "introspection", Read: func(b *config.Block, _ string) error {
			issuer.Introspection = new(introspection.Introspection)
			return issuer.Introspection.Read(b.Dispenser)
		}},
		{Name: "backchannel_logout", Read: func(b *config.Block, _ string) error {
			issuer.BackchannelLogout = new(Logout)
			return readLogout(b, issuer.BackchannelLogout)
		}},
	}
}

func readLogout(b *config.Block, into *Logout) error {
	args := b.RemainingArgs()
	if len(args) == 0 || !strings.HasPrefix(args[0], "/") && !strings.HasPrefix(args[0], "{") {
		return b.Errf("backchannel_logout takes a path of this site and the IDs of the clients at the issuer, as in: " +
			"backchannel_logout /backchannel-logout my-app")
	}
	into.Path, into.ClientIDs = args[0], args[1:]
	return config.ReadBlock(b.Dispenser, "backchannel_logout", logoutOptions(into))
}

func logoutOptions(into *Logout) []config.Option {
	return []config.Option{{Name: "lifetime", Read: config.Duration(&into.Lifetime)}}
}

func readJWKS(b *config.Block, into *JWKSConfig) error {
	if b.NextArg() {
		into.URL = b.Val()
	}
	if b.NextArg() {
		return b.Errf("jwks takes at most one URL; for keys of several issuers, give each its issuer block")
	}
	return config.ReadBlock(b.Dispenser, "jwks", jwksOptions(into))
}

func jwksOptions(into *JWKSConfig) []config.Option {
	return []config.Option{
		{Name: "refresh", Read: config.Duration(&into.Refresh)},
		{Name: "max_stale", Read: config.Duration(&into.MaxStale)},
		{Name: "cooldown", Read: config.Duration(&into.Cooldown)},
		{Name: "timeout", Read: config.Duration(&into.Timeout)},
		{Name: "header", Repeatable: true, Read: func(b *config.Block, _ string) error { return readHeader(b, into) }},
		{Name: "allow_http", Read: config.Flag(&into.AllowHTTP)},
		{Name: "trusted_ca_certs", Read: config.Words("PEM files", &into.TrustedCACerts)},
	}
}

func readHeader(b *config.Block, into *JWKSConfig) error {
	args := b.RemainingArgs()
	if len(args) != 2 || args[1] == "" {
		return b.Errf("header takes a name and a value, in quotes if it contains spaces, as in: " +
			`header Authorization "Bearer {file./run/secrets/token}"`)
	}
	if into.Headers == nil {
		into.Headers = make(map[string]string)
	}
	if _, twice := into.Headers[args[0]]; twice {
		return b.Errf("header %s is specified twice", args[0])
	}
	into.Headers[args[0]] = args[1]
	return nil
}

func upstreamTokenOptions(into *UpstreamToken) []config.Option {
	return []config.Option{
		{Name: "issuer", Read: config.Word("a URL, as in: issuer https://api.example.com/jwt", &into.Issuer)},
		{Name: "audience", Read: config.Words(
			"values of the aud claim, as in: audience https://films.internal", &into.Audience,
		)},
		{Name: "lifetime", Read: config.Duration(&into.Lifetime)},
		{Name: "algorithm", Read: config.Word("RS256, ES256 or EdDSA", &into.Algorithm)},
		{Name: "claims", Read: config.Words("claim names, as in: claims email roles", &into.Claims)},
		{Name: "claims_from", Read: into.readSource, Repeatable: true},
	}
}

func readUpstreamToken(b *config.Block, into *UpstreamToken) error {
	if b.NextArg() {
		into.Header = b.Val()
	}
	if b.NextArg() {
		return b.Errf("upstream_token takes at most the name of a header, and its options in a block, as in: " +
			"upstream_token { audience https://films.internal }")
	}
	return config.ReadBlock(b.Dispenser, "upstream_token", upstreamTokenOptions(into))
}

// credentials reads a module of other credentials, by its own grammar.
func (p *parser) credentials(b *config.Block, _ string) error {
	const takes = "credentials takes the name of a module in the namespace jwt.credentials, and its options"
	module, err := config.ReadModule(b, "jwt.credentials", takes)
	p.handler.CredentialsRaw = append(p.handler.CredentialsRaw, module)
	return err
}

func (p *parser) apiKeys(b *config.Block, _ string) error {
	p.keys = new(apikeys.APIKeys)
	err := p.keys.UnmarshalCaddyfile(b.NewFromNextSegment())
	p.handler.CredentialsRaw = append(
		p.handler.CredentialsRaw, caddyconfig.JSONModuleObject(p.keys, "module", "api_keys", nil),
	)
	return err
}

func (p *parser) claimHeader(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) < 2 {
		return b.Errf("claim_header takes a header and a claim, as in: claim_header X-User-Id sub")
	}
	header := &ClaimHeader{Header: args[0], Claim: args[1]}
	if len(args) > 2 {
		header.Form = args[2:]
	}
	p.handler.ClaimHeaders = append(p.handler.ClaimHeaders, header)
	return nil
}

func (p *parser) from(*config.Block, string) error {
	source := new(credentials.Source)
	args := p.RemainingArgs()
	switch {
	case len(args) >= 1 && len(args) <= 3 && args[0] == "header":
		source.Header = "Authorization"
		if len(args) > 1 {
			source.Header = args[1]
		}
		if len(args) > 2 {
			source.Scheme, source.NoScheme = args[2], args[2] == ""
		}
	case len(args) == 2 && args[0] == "cookie":
		source.Cookie = args[1]
	case len(args) == 2 && args[0] == "query":
		source.Query = args[1]
	case len(args) >= 1 && len(args) <= 2 && args[0] == "websocket_protocol":
		source.WebSocketProtocol = "bearer"
		if len(args) > 1 {
			source.WebSocketProtocol = args[1]
		}
	default:
		return p.Errf(
			"from takes: header [<name> [<scheme>]], cookie <name>, query <name>, or websocket_protocol [<name>]%s",
			config.Meant(append(args, "")[0], "header", "cookie", "query", "websocket_protocol"),
		)
	}
	p.handler.From = append(p.handler.From, source)
	return nil
}

func (p *parser) require(b *config.Block, _ string) error {
	if !p.NextArg() {
		return p.Errf(requireForms)
	}
	requirement := new(Requirement)
	kind := p.Val()
	if kind == "expression" {
		// Quotes inside the expression are part of it. As in Caddy's expression matcher,
		// quotes around the whole expression are not.
		switch raw := p.RemainingArgsRaw(); len(raw) {
		case 0:
		case 1:
			requirement.Expression = p.Val()
		default:
			requirement.Expression = joined(raw)
		}
		if requirement.Expression == "" {
			return p.Errf("require expression takes a CEL expression, as in: require expression claims.sub == " +
				"{http.request.uri.path.1}")
		}
		p.handler.Require = append(p.handler.Require, requirement)
		return nil
	}
	if !slices.Contains(ruleKinds, kind) && slices.Contains(authorizerNames(), kind) {
		var err error
		requirement.AuthorizerRaw, err = config.ReadNamedModule(b, authorizerNamespace)
		p.handler.Require = append(p.handler.Require, requirement)
		return err
	}
	args := p.RemainingArgs()
	if kind == "any" && len(args) > 0 && args[0] == "scope" {
		kind, args = "any scope", args[1:]
	}
	if n := len(args); n > 2 && args[n-2] == "of" {
		requirement.Issuer, args = args[n-1], args[:n-2]
	}
	if err := p.unknownRequirement(kind, args); err != nil {
		return err
	}
	if len(args) == 0 || kind == "claim" && len(args) == 1 {
		return p.Errf("require %s needs a value; %s", kind, requireForms)
	}
	if n := len(args); kind != "acr" && n > 2 && args[n-2] == "within" {
		if _, err := caddy.ParseDuration(args[n-1]); err == nil { // it would be one more value that is accepted
			return p.Errf("within only applies to acr; add a rule, as in: require acr mfa within %s", args[n-1])
		}
	}
	switch kind {
	case "scope":
		requirement.Scope = args
	case "any scope":
		requirement.AnyScope = args
	case "role":
		requirement.Role = args
	case "claim":
		requirement.Claim, requirement.Values = args[0], args[1:]
	case "acr":
		if err := p.readACR(requirement, args); err != nil {
			return err
		}
	}
	p.handler.Require = append(p.handler.Require, requirement)
	return nil
}

// ruleKinds are the rules that no authorizer can replace.
var ruleKinds = []string{"scope", "any scope", "role", "claim", "acr", "expression"}

const requireForms = "require takes: scope <scope...>, any scope <scope...>, role <role...>, " +
	"claim <name> <value...>, acr <value...> [within <duration>], " +
	"each optionally followed by of <issuer>, or expression <CEL>, or the name of an authorizer such as http"

// unknownRequirement returns the error about a kind of requirement that does not exist, or
// nil.
func (p *parser) unknownRequirement(kind string, args []string) error {
	kinds := slices.Concat(ruleKinds, authorizerNames())
	switch meant := config.Meant(kind, kinds...); {
	case slices.Contains(kinds, kind):
		return nil
	case kind == "any" && len(args) > 1 && slices.Contains(kinds, args[0]):
		return p.Errf("any only applies to scope; `require %s` already accepts any of them", strings.Join(args, " "))
	case kind == "any" && len(args) == 1 && slices.Contains(kinds, args[0]):
		return p.Errf("any only applies to scope; write: require %s <value...>, which accepts any of them", args[0])
	case kind == "any":
		return p.Errf("require any takes scope and its values, as in: require any scope read write")
	case meant == "" && len(args) == 0:
		return p.Errf("unknown requirement %q; did you mean: require role %[1]s?", kind)
	default:
		return p.Errf("unknown requirement %q; %s%s", kind, requireForms, meant)
	}
}

func joined(raw []string) string {
	text := raw[0]
	for _, word := range raw[1:] {
		text += " " + word
	}
	return text
}

func (p *parser) cache(b *config.Block, name string) error {
	var text string
	const takes = "a number of entries, or off"
	if err := config.Word(takes, &text)(b, name); err != nil {
		return err
	}
	entries := 0
	if text != "off" {
		var err error
		if entries, err = strconv.Atoi(text); err != nil || entries < 1 {
			return p.Errf(
				"cache takes %s, not %q%s%s", takes, text, config.PlaceholderHint(text), config.Meant(text, "off"),
			)
		}
	}
	p.handler.Cache = &entries
	return nil
}

// outsideOptions are the options of an issuer, outside its block.
func (p *parser) outsideOptions() []config.Option {
	options := issuerOptions(&p.outside)
	for i, option := range options {
		options[i].Read = func(b *config.Block, name string) error {
			if p.first == nil {
				at := *b.Dispenser // which goes on
				p.first = &config.Block{Dispenser: &at}
			}
			if !slices.Contains(p.names, name) {
				p.names = append(p.names, name)
			}
			return option.Read(b, name)
		}
	}
	return options
}

// finish adds the options outside of issuer blocks to the only issuer.
func (p *parser) finish() error {
	h := p.handler
	if p.keys != nil && h.Accounts != nil &&
		(p.keys.StoreRaw == nil || bytes.Equal(p.keys.StoreRaw, h.Accounts.StoreRaw)) {
		h.Accounts.KeyPrefix = cmp.Or(p.keys.Prefix, apikeys.DefaultPrefix)
	}
	if p.outside.empty() {
		if len(h.Issuers) == 0 && h.Accounts == nil && len(h.CredentialsRaw) == 0 {
			return p.Errf("jwt has neither keys nor an issuer, so it would reject every token; " +
				"set `issuer <url>` to find the keys by discovery, or `secret`, `public_key` or `jwks`, " +
				"or `accounts` for a site with its own users, or `api_keys`")
		}
		return nil
	}
	switch len(h.Issuers) {
	case 0:
		if h.Accounts != nil {
			return p.first.Errf("jwt has accounts and also %s outside a block; move options for the accounts' own "+
				"tokens into the accounts block, and options for other tokens into the block of their issuer",
				config.List(p.names))
		}
		h.Issuers = []*IssuerConfig{&p.outside}
		return nil
	case 1:
		return p.merge(h.Issuers[0])
	}
	return p.first.Errf("jwt has %d issuers and also %s outside their blocks; move each option into the block of its "+
		"issuer", len(h.Issuers), config.List(p.names))
}

func (p *parser) merge(into *IssuerConfig) error {
	from := p.outside
	for _, option := range []struct {
		name string
		both bool
	}{
		{"jwks", into.JWKS != nil && from.JWKS != nil},
		{"algorithms", into.Algorithms != nil && from.Algorithms != nil},
		{"audience", into.Audience != nil && from.Audience != nil},
		{"audience_claim", into.AudienceClaim != nil && from.AudienceClaim != nil},
		{"token_type", into.TokenType != nil && from.TokenType != nil},
		{"tenants", into.Tenants != nil && from.Tenants != nil},
		{"introspection", into.Introspection != nil && from.Introspection != nil},
		{"backchannel_logout", into.BackchannelLogout != nil && from.BackchannelLogout != nil},
	} {
		if option.both {
			return p.first.Errf("%s of issuer %s is specified both inside and outside its block; keep one",
				option.name, into.Issuer)
		}
	}
	into.PublicKeys = append(into.PublicKeys, from.PublicKeys...)
	into.Secrets = append(into.Secrets, from.Secrets...)
	if from.JWKS != nil {
		into.JWKS = from.JWKS
	}
	if from.Algorithms != nil {
		into.Algorithms = from.Algorithms
	}
	if from.Audience != nil {
		into.Audience = from.Audience
	}
	if from.AudienceClaim != nil {
		into.AudienceClaim = from.AudienceClaim
	}
	if from.TokenType != nil {
		into.TokenType = from.TokenType
	}
	if from.Tenants != nil {
		into.Tenants = from.Tenants
	}
	if from.Introspection != nil {
		into.Introspection = from.Introspection
	}
	if from.BackchannelLogout != nil {
		into.BackchannelLogout = from.BackchannelLogout
	}
	return nil
}

// empty reports whether no option of the issuer is set.
func (c *IssuerConfig) empty() bool { return reflect.ValueOf(*c).IsZero() }

// Interface guards
var _ caddyfile.Unmarshaler = (*Handler)(nil)
