package introspection

import (
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() {
	i := new(Introspection)
	config.RegisterBlock("introspection", append(i.options(), i.inIssuer()...))
}

// UnmarshalCaddyfile sets up a module of `credentials` from Caddyfile tokens. Syntax:
//
//	introspection [<url>] {
//	    issuer           <iss>
//	    audience         <aud...>
//	    user_id          <claim...>
//	    client_id        <id>
//	    client_secret    <secret>
//	    private_key      <PEM, JWK, or path>
//	    cache            <duration>|off
//	    timeout          <duration>
//	    allow_http
//	    trusted_ca_certs <pem_file...>
//	}
//
// In the block of an issuer it has `always`, but no `issuer`, `audience` and `user_id`.
func (i *Introspection) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return i.read(d, append(i.alone(), i.options()...))
}

// Read parses the option of an issuer. The dispenser is at its name.
func (i *Introspection) Read(d *caddyfile.Dispenser) error {
	return i.read(d, append(i.options(), i.inIssuer()...))
}

func (i *Introspection) alone() []config.Option {
	return []config.Option{
		{Name: "issuer", Read: config.Word("the value of the iss claim", &i.Issuer)},
		{Name: "audience", Read: config.Words("values of the aud claim", &i.Audience)},
		{Name: "user_id", Read: config.Words("claim names, as in: user_id sub", &i.UserID)},
	}
}

func (i *Introspection) inIssuer() []config.Option {
	return []config.Option{{Name: "always", Read: config.Flag(&i.Always)}}
}

func (i *Introspection) read(d *caddyfile.Dispenser, options []config.Option) error {
	if d.NextArg() {
		i.URL = d.Val()
	}
	if d.NextArg() {
		return d.Errf("introspection takes at most a URL, and its options in a block, as in: " +
			"introspection { client_id api }")
	}
	return config.ReadBlock(d, "introspection", options)
}

func (i *Introspection) options() []config.Option {
	return []config.Option{
		{Name: "client_id", Read: config.Word("the ID of this site at the issuer", &i.ClientID)},
		{Name: "client_secret", Read: config.Word(
			"the secret of this site at the issuer, as in: client_secret {env.CLIENT_SECRET}", &i.ClientSecret,
		)},
		{Name: "private_key", Read: config.Word(
			"a PEM, a JWK or the path of its file, in quotes if it contains spaces", &i.PrivateKey,
		)},
		{Name: "cache", Read: i.readCache},
		{Name: "timeout", Read: config.Duration(&i.Timeout)},
		{Name: "allow_http", Read: config.Flag(&i.AllowHTTP)},
		{Name: "trusted_ca_certs", Read: config.Words("PEM files", &i.TrustedCACerts)},
	}
}

func (i *Introspection) readCache(b *config.Block, name string) error {
	i.Cache = new(caddy.Duration)
	if b.CountRemainingArgs() == 1 {
		if next := b.RemainingArgs()[0]; next == "off" {
			return nil
		}
		b.Prev()
	}
	return config.DurationOrZero(i.Cache)(b, name)
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Introspection)(nil)
