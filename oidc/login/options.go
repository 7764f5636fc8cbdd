package login

import (
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile sets the log-in up from Caddyfile tokens. Syntax:
//
//	login_with <name> {
//	    label                   <text>
//	    preset                  apple|discord|facebook|github|gitlab|google|linkedin|microsoft|x
//	    issuer                  <url>
//	    authorization_endpoint  <url>
//	    token_endpoint          <url>
//	    userinfo_endpoint       <url>
//	    tenant                  <id...>|common|organizations|consumers
//	    client_id               <id>
//	    client_secret           <secret>
//	    auth_method             client_secret_basic|client_secret_post|none
//	    team_id                 <id>
//	    key_id                  <id>
//	    private_key             <file>
//	    scopes                  <scope...>
//	    map_claim               <claim> <property>
//	    id_claim                <claim>
//	    email_claim             <claim>
//	    trust_email
//	    roles_from              <claim> [<value> <role...>]
//	    allow                   domain|group|organization <value...>
//	    allow                   claim <name> <value...>
//	    authorization_parameter <name> <value>
//	    response_mode           query|form_post
//	    without_pkce
//	    without_nonce
//	    allow_http
//	    trusted_ca_certs        <pem_file...>
//	    auto_login
//	    redirect_uri            <url>
//	}
//
// `map_claim`, `roles_from`, `allow` and `authorization_parameter` may be repeated.
func (l *Login) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.NextArg() || d.Val() == "" {
		return d.Errf("login_with takes a name and a block, as in: login_with google {")
	}
	l.Name = d.Val()
	if d.NextArg() {
		return d.Errf("login_with takes a name and a block, as in: login_with google {")
	}
	if err := config.ReadBlock(d, "login_with "+l.Name, l.options()); err != nil {
		return err
	}
	plain := l.plain()
	if _, known := presets[l.Name]; known && l.Preset == "" && l.Issuer == "" && !plain {
		l.Preset = l.Name
	}
	if l.Preset == "" && l.Issuer == "" && !plain {
		return d.Errf("login_with %s needs issuer and client_id, as in: issuer https://accounts.google.com; "+
			"a preset (%s) needs no issuer%s", l.Name, strings.Join(presetNames(), ", "),
			config.Meant(l.Name, presetNames()...))
	}
	if l.ClientID == "" {
		return d.Errf("login_with %s needs client_id, the ID that the provider gave this site, as in: "+
			"client_id {env.CLIENT_ID}", l.Name)
	}
	return nil
}

func (l *Login) options() []config.Option {
	return []config.Option{
		{Name: "label", Read: config.Word("the text of its button, as in: label Google", &l.Label)},
		{
			Name: "issuer",
			Read: config.Word("the URL of the provider, as in: issuer https://accounts.google.com", &l.Issuer),
		},
		{Name: "preset", Read: config.Word("the name of a provider, as in: preset github", &l.Preset)},
		{Name: "authorization_endpoint", Read: config.Word("a URL", &l.AuthorizationEndpoint)},
		{Name: "token_endpoint", Read: config.Word("a URL", &l.TokenEndpoint)},
		{Name: "userinfo_endpoint", Read: config.Word("a URL", &l.UserinfoEndpoint)},
		{Name: "tenant", Read: config.Words("IDs of tenants, or common", &l.Tenants)},
		{Name: "client_id", Read: config.Word("the ID that the provider gave this site", &l.ClientID)},
		{Name: "client_secret", Read: config.Word(
			"the secret of this site at the provider, as in: client_secret {env.CLIENT_SECRET}", &l.ClientSecret,
		)},
		{Name: "auth_method", Read: config.Word("client_secret_basic, client_secret_post or none", &l.AuthMethod)},
		{Name: "team_id", Read: config.Word("the ID of the team at Apple", &l.TeamID)},
		{Name: "key_id", Read: config.Word("the ID of the key at Apple", &l.KeyID)},
		{Name: "private_key", Read: config.Word("the .p8 file of Apple", &l.PrivateKey)},
		{Name: "scopes", Read: config.Words("scopes, as in: scopes openid email profile", &l.Scopes)},
		{Name: "map_claim", Read: l.readMapClaim, Repeatable: true},
		{Name: "id_claim", Read: config.Word("a claim, as in: id_claim id", &l.IDClaim)},
		{Name: "email_claim", Read: config.Word("a claim, as in: email_claim preferred_username", &l.EmailClaim)},
		{Name: "roles_from", Read: l.readRolesFrom, Repeatable: true},
		{Name: "allow", Read: l.readAllow, Repeatable: true},
		{Name: "authorization_parameter", Read: l.readParameter, Repeatable: true},
		{Name: "response_mode", Read: config.Word("query or form_post", &l.ResponseMode)},
		{Name: "without_pkce", Read: config.Flag(&l.WithoutPKCE)},
		{Name: "without_nonce", Read: config.Flag(&l.WithoutNonce)},
		{Name: "allow_http", Read: config.Flag(&l.AllowHTTP)},
		{Name: "trusted_ca_certs", Read: config.Words("PEM files", &l.TrustedCACerts)},
		{Name: "auto_login", Read: config.Flag(&l.AutoLogin)},
		{Name: "trust_email", Read: config.Flag(&l.TrustEmail)},
		{
			Name: "redirect_uri",
			Read: config.Word("a URL, as in: redirect_uri https://example.com/auth/callback/"+l.Name, &l.RedirectURI),
		},
	}
}

func (l *Login) readMapClaim(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) != 2 {
		return b.Errf("map_claim takes a claim and a property, as in: map_claim given_name name")
	}
	if l.MapClaim == nil {
		l.MapClaim = make(map[string]string)
	}
	if l.MapClaim[args[0]] != "" {
		return b.Errf("map_claim %s is specified twice; a claim goes into one property", args[0])
	}
	l.MapClaim[args[0]] = args[1]
	return nil
}

// readRolesFrom reads one line; those of the same claim are one entry.
func (l *Login) readRolesFrom(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) == 0 || len(args) == 2 {
		return b.Errf("roles_from takes a claim, and a value and its roles, as in: roles_from groups staff editor")
	}
	at := slices.IndexFunc(l.RolesFrom, func(from RolesFrom) bool { return from.Claim == args[0] })
	if len(args) == 1 {
		if at >= 0 {
			return b.Errf("roles_from %s is specified twice, with and without values", args[0])
		}
		l.RolesFrom = append(l.RolesFrom, RolesFrom{Claim: args[0]})
		return nil
	}
	if at < 0 {
		at, l.RolesFrom = len(l.RolesFrom), append(l.RolesFrom, RolesFrom{
			Claim: args[0], Roles: make(map[string][]string),
		})
	}
	roles := l.RolesFrom[at].Roles
	if roles == nil {
		return b.Errf("roles_from %s is specified twice, with and without values", args[0])
	}
	if roles[args[1]] != nil {
		return b.Errf("roles_from %s %s is specified twice; list all roles on one line", args[0], args[1])
	}
	roles[args[1]] = args[2:]
	return nil
}

func (l *Login) readAllow(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) < 2 || args[0] == "claim" && len(args) < 3 {
		return b.Errf("allow takes domain, group, organization or claim, and values, as in: allow domain example.com")
	}
	condition := Condition{Kind: args[0], Values: args[1:]}
	if condition.Kind == "claim" {
		condition.Claim, condition.Values = args[1], args[2:]
	}
	l.Allow = append(l.Allow, condition)
	return nil
}

func (l *Login) readParameter(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) != 2 {
		return b.Errf("authorization_parameter takes a name and a value, as in: authorization_parameter prompt login")
	}
	if l.AuthorizationParameters == nil {
		l.AuthorizationParameters = make(map[string]string)
	}
	if _, twice := l.AuthorizationParameters[args[0]]; twice {
		return b.Errf("authorization_parameter %s is specified twice", args[0])
	}
	l.AuthorizationParameters[args[0]] = args[1]
	return nil
}
