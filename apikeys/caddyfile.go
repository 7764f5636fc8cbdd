package apikeys

import (
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() {
	config.RegisterBlock("api_keys", new(APIKeys).options())
}

// UnmarshalCaddyfile sets the module up from Caddyfile tokens. Syntax:
//
//	api_keys [{
//	    store    file [<path>] | <module> [<args...>]
//	    header   <name>
//	    prefix   <text>
//	    max_keys <keys>
//	}]
func (a *APIKeys) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // its name
	if d.NextArg() {
		return d.Errf("api_keys takes only a block, not %q, as in: api_keys { header X-Api-Key }", d.Val())
	}
	return config.ReadBlock(d, "api_keys", a.options())
}

func (a *APIKeys) options() []config.Option {
	return []config.Option{
		{Name: "store", Read: a.readStore},
		{Name: "header", Read: config.Word("the name of a header, as in: header X-Api-Key", &a.Header)},
		{Name: "prefix", Read: config.Word("the beginning of keys, as in: prefix acme_live", &a.Prefix)},
		{Name: "max_keys", Read: config.Count("a number of keys", &a.MaxKeys)},
	}
}

func (a *APIKeys) readStore(b *config.Block, _ string) (err error) {
	const takes = "store takes the kind of the store and its options, as in: store file /var/lib/keys.db"
	a.StoreRaw, err = config.ReadModule(b, "jwt.stores", takes)
	return err
}

// Interface guards
var _ caddyfile.Unmarshaler = (*APIKeys)(nil)
