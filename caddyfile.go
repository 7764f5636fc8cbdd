package caddyjwt

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterDirective("jwt", parseDirective)
	httpcaddyfile.RegisterDirectiveOrder("jwt", httpcaddyfile.Before, "basic_auth")
}

// parseDirective yields the route of the handler and, with accounts, theirs.
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
	var routes []httpcaddyfile.ConfigValue
	if handler.Accounts != nil {
		routes = h.NewRoute(handler.Accounts.Matcher(), &AccountsHandler{Accounts: *handler.Accounts})
	}
	if matcher != nil {
		routes = append(routes, h.NewRoute(nil, &Guard{Headers: handler.ClaimHeaders, MatcherSetsRaw: caddyhttp.RawMatcherSets{matcher}})...)
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
//	            allow_http
//	            trusted_ca_certs <pem_file...>
//	        }]
//	        public_key <PEM, JWK, or path>
//	        secret     [base64|hex] <value>
//	        algorithms <alg...>
//	        audience   <aud...>
//	        token_type <typ>
//	    }]
//	    leeway <duration>
//	    allow_missing_exp
//	    from header [<name> [<scheme>]] | cookie <name> | query <name>
//	    user_id <claim...>
//	    public <path...>
//	    optional
//	    allow_preflight
//	    require [any] scope <scope...> [of <issuer>]
//	    require role <role...> [of <issuer>]
//	    require claim <name> <value...> [of <issuer>]
//	    require expression <CEL>
//	    claim_header <Header> <claim>
//	    trusted_origins <origin...>
//	    strip_token
//	    cache <entries>|off
//	    realm <name>
//	    accounts [<prefix>]
//	}
//
// `issuer`, `public_key`, `secret`, `from`, `require` and `claim_header` may be
// repeated. The options of an issuer may also stand outside its block where
// there is only one, and need no `issuer` where `iss` is not to be checked.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("jwt takes a matcher and a block, not %q; a path matcher begins with a slash, as in: jwt /api/* {, and several paths need a named matcher", d.Val())
	}
	p := parser{Dispenser: d, handler: h, given: make(map[string]bool)}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := p.option(d.Val()); err != nil {
			return err
		}
	}
	return p.finish()
}

type parser struct {
	*caddyfile.Dispenser
	handler *Handler
	given   map[string]bool // options that may stand only once
	outside *IssuerConfig   // what stands outside the issuer blocks
}

func (p *parser) option(name string) error {
	h := p.handler
	switch name {
	case "issuer":
		return p.issuer()
	case "jwks", "public_key", "secret", "algorithms", "audience", "token_type":
		if p.outside == nil {
			p.outside = new(IssuerConfig)
		}
		return p.issuerOption(name, p.outside)
	case "leeway":
		h.Leeway = new(caddy.Duration)
		return p.duration(name, h.Leeway)
	case "allow_missing_exp":
		return p.flag(name, &h.AllowMissingExp)
	case "from":
		return p.from()
	case "user_id":
		return p.words(name, "claim names, as in: user_id sub", &h.UserID)
	case "public":
		return p.words(name, "paths, as in: public /health /assets/*", (*[]string)(&h.Public))
	case "optional":
		return p.flag(name, &h.Optional)
	case "allow_preflight":
		return p.flag(name, &h.AllowPreflight)
	case "require":
		return p.require()
	case "claim_header":
		args := p.RemainingArgs()
		if len(args) != 2 {
			return p.Errf("claim_header takes a header and a claim, as in: claim_header X-User-Id sub")
		}
		h.ClaimHeaders = append(h.ClaimHeaders, &ClaimHeader{Header: args[0], Claim: args[1]})
		return nil
	case "trusted_origins":
		return p.words(name, "origins, as in: trusted_origins https://app.example.com", &h.TrustedOrigins)
	case "strip_token":
		return p.flag(name, &h.StripToken)
	case "cache":
		return p.cache()
	case "realm":
		return p.word(name, "a name", &h.Realm)
	case "accounts":
		if err := p.once(name); err != nil {
			return err
		}
		var err error
		h.Accounts, err = p.accounts()
		return err
	}
	if name == "{" {
		return p.Errf("a block stands where none is expected: of these options jwks, issuer and accounts take one")
	}
	return UnknownOption(p.Dispenser, "jwt", "it has issuer, jwks, public_key, secret, algorithms, audience, token_type, leeway, allow_missing_exp, from, user_id, public, optional, allow_preflight, require, claim_header, trusted_origins, strip_token, cache, realm and accounts")
}

func (p *parser) issuer() error {
	config := new(IssuerConfig)
	args := p.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return p.Errf("issuer takes the value of the iss claim, as in: issuer https://tenant.example.com/")
	}
	config.Issuer = args[0]
	for _, other := range p.handler.Issuers {
		if other.Issuer == config.Issuer {
			return p.Errf("issuer %s is specified twice; put all its options into one block", config.Issuer)
		}
	}
	p.handler.Issuers = append(p.handler.Issuers, config)
	inner := parser{Dispenser: p.Dispenser, given: make(map[string]bool)}
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		if err := inner.issuerOption(p.Val(), config); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) issuerOption(name string, config *IssuerConfig) error {
	switch name {
	case "jwks":
		config.JWKS = new(JWKSConfig)
		return p.jwks(config.JWKS)
	case "public_key":
		var key string
		if err := p.repeatable(name, "a PEM, a JWK or the path of a file with one, quoted if it has blanks", &key); err != nil {
			return err
		}
		config.PublicKeys = append(config.PublicKeys, key)
		return nil
	case "secret":
		return p.secret(config)
	case "algorithms":
		return p.words(name, "algorithms, as in: algorithms RS256 ES256", &config.Algorithms)
	case "audience":
		return p.words(name, "values of the aud claim", &config.Audience)
	case "token_type":
		return p.word(name, "a typ, as in: token_type at+jwt", &config.TokenType)
	}
	return UnknownOption(p.Dispenser, "issuer", "it has jwks, public_key, secret, algorithms, audience and token_type, and the other options stand outside its block")
}

func (p *parser) jwks(config *JWKSConfig) error {
	if err := p.once("jwks"); err != nil {
		return err
	}
	if p.NextArg() {
		config.URL = p.Val()
	}
	if p.NextArg() {
		return p.Errf("jwks takes at most one URL; for keys of several issuers, give each its issuer block")
	}
	inner := parser{Dispenser: p.Dispenser, given: make(map[string]bool)}
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		var err error
		switch name := p.Val(); name {
		case "refresh":
			err = inner.duration(name, &config.Refresh)
		case "max_stale":
			err = inner.duration(name, &config.MaxStale)
		case "cooldown":
			err = inner.duration(name, &config.Cooldown)
		case "timeout":
			err = inner.duration(name, &config.Timeout)
		case "allow_http":
			err = inner.flag(name, &config.AllowHTTP)
		case "trusted_ca_certs":
			err = inner.words(name, "PEM files", &config.TrustedCACerts)
		default:
			err = UnknownOption(p.Dispenser, "jwks", "it has refresh, max_stale, cooldown, timeout, allow_http and trusted_ca_certs")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) secret(config *IssuerConfig) error {
	secret := new(SecretConfig)
	switch args := p.RemainingArgs(); len(args) {
	case 1:
		secret.Value = args[0]
	case 2:
		secret.Encoding, secret.Value = args[0], args[1]
		if secret.Encoding != "base64" && secret.Encoding != "hex" {
			return p.Errf("secret takes base64, hex or nothing before its value; quote the value if it has blanks")
		}
	default:
		return p.Errf("secret takes a value, as in: secret {env.JWT_SECRET}, or an encoding and a value, as in: secret base64 {env.JWT_SECRET}")
	}
	config.Secrets = append(config.Secrets, secret)
	return nil
}

func (p *parser) from() error {
	source := new(TokenSource)
	args := p.RemainingArgs()
	switch {
	case len(args) >= 1 && len(args) <= 3 && args[0] == "header":
		source.Header = "Authorization"
		if len(args) > 1 {
			source.Header = args[1]
		}
		if len(args) > 2 {
			source.Scheme = args[2]
		}
	case len(args) == 2 && args[0] == "cookie":
		source.Cookie = args[1]
	case len(args) == 2 && args[0] == "query":
		source.Query = args[1]
	default:
		return p.Errf("from takes: header [<name> [<scheme>]], cookie <name>, or query <name>")
	}
	p.handler.From = append(p.handler.From, source)
	return nil
}

func (p *parser) require() error {
	const forms = "require takes: scope <scope...>, any scope <scope...>, role <role...>, claim <name> <value...>, each followed by of <issuer> or not, or expression <CEL>"
	if !p.NextArg() {
		return p.Errf(forms)
	}
	requirement := new(Requirement)
	kind := p.Val()
	if kind == "expression" {
		// Quotes inside of the expression are part of it, unless they are
		// around all of it, as with Caddy's expression matcher.
		switch raw := p.RemainingArgsRaw(); len(raw) {
		case 0:
		case 1:
			requirement.Expression = p.Val()
		default:
			requirement.Expression = joined(raw)
		}
		if requirement.Expression == "" {
			return p.Errf("require expression takes a CEL expression, as in: require expression claims.sub == {http.request.uri.path.1}")
		}
		p.handler.Require = append(p.handler.Require, requirement)
		return nil
	}
	args := p.RemainingArgs()
	if kind == "any" && len(args) > 0 && args[0] == "scope" {
		kind, args = "any scope", args[1:]
	}
	if n := len(args); n > 2 && args[n-2] == "of" {
		requirement.Issuer, args = args[n-1], args[:n-2]
	}
	if len(args) == 0 || kind == "claim" && len(args) == 1 {
		return p.Errf("require %s needs a value; %s", kind, forms)
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
	default:
		return p.Errf("require has no form %q; %s", kind, forms)
	}
	p.handler.Require = append(p.handler.Require, requirement)
	return nil
}

func joined(raw []string) string {
	text := raw[0]
	for _, word := range raw[1:] {
		text += " " + word
	}
	return text
}

func (p *parser) cache() error {
	var text string
	const takes = "a number of entries, or off"
	if err := p.word("cache", takes, &text); err != nil {
		return err
	}
	entries := 0
	if text != "off" {
		var err error
		if entries, err = strconv.Atoi(text); err != nil || entries < 1 {
			return p.Errf("cache takes %s, not %q%s", takes, text, placeholderHint(text))
		}
	}
	p.handler.Cache = &entries
	return nil
}

// finish gives the options outside of an issuer block to the one issuer.
func (p *parser) finish() error {
	h := p.handler
	if p.outside == nil {
		if len(h.Issuers) == 0 && h.Accounts == nil {
			return p.Errf("jwt has neither keys nor an issuer, so no token could be accepted; give `issuer <url>` to find the keys by discovery, `secret`, `public_key` or `jwks`, or `accounts` for users of its own")
		}
		return nil
	}
	switch len(h.Issuers) {
	case 0:
		if h.Accounts != nil {
			return p.Errf("jwt has accounts, and jwks, public_key, secret, algorithms, audience or token_type outside a block; what is for the accounts' own tokens stands in the block of accounts, and what is for those of others in the block of their issuer")
		}
		h.Issuers = []*IssuerConfig{p.outside}
		return nil
	case 1:
		return p.merge(h.Issuers[0])
	}
	return p.Errf("jwt has %d issuers, and jwks, public_key, secret, algorithms, audience or token_type outside their blocks; move each into the block of its issuer", len(h.Issuers))
}

func (p *parser) merge(into *IssuerConfig) error {
	from := p.outside
	if into.JWKS != nil && from.JWKS != nil || into.Algorithms != nil && from.Algorithms != nil ||
		into.Audience != nil && from.Audience != nil || into.TokenType != "" && from.TokenType != "" {
		return p.Errf("an option of issuer %s stands both inside and outside its block; keep one", into.Issuer)
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
	if from.TokenType != "" {
		into.TokenType = from.TokenType
	}
	return nil
}

// optionName is what options are named like, and a line of a secret is not.
var optionName = regexp.MustCompile(`^[A-Za-z][A-Za-z_]{0,23}$`)

// UnknownOption is the error of a word that is no option of a block; has says which
// there are. It shows the word only where that cannot be the second line of
// a secret.
func UnknownOption(d *caddyfile.Dispenser, block, has string) error {
	name := d.Val()
	if !optionName.MatchString(name) && name != "{" {
		return d.Errf("%s has no option of the name that stands here; %s. If it is the second line of a secret: a secret has one line, as openssl rand -hex 64 prints it", block, has)
	}
	return d.Errf("%s has no option %q; %s", block, name, has)
}

func (p *parser) once(name string) error {
	if p.given[name] {
		return p.Errf("%s is specified twice", name)
	}
	p.given[name] = true
	return nil
}

func (p *parser) flag(name string, into *bool) error {
	*into = true
	if p.NextArg() {
		return p.Errf("%s takes no value, not %q; take the whole line out to switch it off", name, p.Val())
	}
	return p.once(name)
}

func (p *parser) repeatable(name, takes string, into *string) error {
	args := p.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return p.Errf("%s takes %s", name, takes)
	}
	*into = args[0]
	return nil
}

func (p *parser) word(name, takes string, into *string) error {
	if err := p.once(name); err != nil {
		return err
	}
	return p.repeatable(name, takes, into)
}

func (p *parser) words(name, takes string, into *[]string) error {
	if err := p.once(name); err != nil {
		return err
	}
	*into = p.RemainingArgs()
	if len(*into) == 0 {
		return p.Errf("%s takes one or more %s", name, takes)
	}
	return nil
}

// placeholderHint says how a number or a time can come of the environment.
func placeholderHint(text string) string {
	if strings.Contains(text, "{") {
		return "; a placeholder has no value yet here, but {$NAME} has that of the environment variable NAME"
	}
	return ""
}

func (p *parser) duration(name string, into *caddy.Duration) error {
	const takes = "a duration, as in: 30s, 10m or 24h"
	var text string
	if err := p.word(name, takes, &text); err != nil {
		return err
	}
	duration, err := caddy.ParseDuration(text)
	if err != nil {
		return p.Errf("%s takes %s, not %q%s", name, takes, text, placeholderHint(text))
	}
	if duration == 0 && name != "leeway" {
		return p.Errf("%s is 0; give a time, or take the line out for the default", name)
	}
	*into = caddy.Duration(duration)
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Handler)(nil)
