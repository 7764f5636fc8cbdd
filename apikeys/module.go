package apikeys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
)

func init() {
	caddy.RegisterModule(new(APIKeys))
	answer.AddMetrics(ringCollector{})
}

// Defaults of [APIKeys].
const (
	DefaultMaxKeys = 1_000_000
	mostMaxKeys    = 10_000_000
)

// APIKeys accepts API keys, as in `Authorization: Bearer key_…`. They are made by `caddy jwt
// key add` and, with accounts, by users on the page `/auth/keys`. Rules, placeholders, claim
// headers and tokens for the upstream use the claims of a key like those of a token: `sub`,
// `scope`, `roles`, its metadata by name, and `client_id`, which is the ID of the key. Keys
// have no `iss`, so a rule `of <issuer>` refuses them.
//
// All live keys are in memory, in about 320 bytes each. A revoked key, and the keys of a user
// who is disabled or deleted, are refused by this Caddy at once and by others with the same
// store within a second.
type APIKeys struct {
	// StoreRaw stores the keys: a module in the namespace `jwt.stores`. Default: the store of
	// the accounts; without accounts, `{"module": "file"}`, a file in Caddy's data directory.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=jwt.stores inline_key=module"`

	// Header is the request header for keys; its whole value is the key. Then keys are not
	// accepted anywhere else, and nothing but a key is accepted there. Caddy's access log only
	// redacts `Authorization`; filter any other header there. Default: the places of tokens,
	// such as `Authorization` with the scheme `Bearer`.
	Header string `json:"header,omitempty"`

	// Prefix is the beginning of keys, so that people and secret scanners recognize them: at
	// most 32 letters and digits, with single underscores between them. Other keys of the same
	// store are not accepted. Default: `key`.
	Prefix string `json:"prefix,omitempty"`

	// MaxKeys is the maximum number of live keys in memory; further ones are refused, and an
	// error is logged. Default: 1000000, at most 10000000.
	MaxKeys int `json:"max_keys,omitempty"`

	ring    *Ring
	sources credentials.Sources
}

// CaddyModule returns the Caddy module information.
func (*APIKeys) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "jwt.credentials.api_keys",
		New: func() caddy.Module { return new(APIKeys) },
	}
}

// Provision checks the options.
func (a *APIKeys) Provision(caddy.Context) error {
	if err := config.Resolve("api_keys", &a.Header, &a.Prefix); err != nil {
		return err
	}
	config.SetDefault(&a.Prefix, DefaultPrefix)
	config.SetDefault(&a.MaxKeys, DefaultMaxKeys)
	if err := CheckPrefix(a.Prefix); err != nil {
		return fmt.Errorf("api_keys: %w", err)
	}
	if a.MaxKeys < 1 || a.MaxKeys > mostMaxKeys {
		return fmt.Errorf("api_keys: max_keys is %d; it must be from 1 to %d", a.MaxKeys, mostMaxKeys)
	}
	if a.Header == "" {
		return nil
	}
	a.Header = http.CanonicalHeaderKey(a.Header)
	if !httpguts.ValidHeaderFieldName(a.Header) || credentials.IsReservedHeader(a.Header) ||
		a.Header == "Authorization" || a.Header == "Cookie" {
		return fmt.Errorf("api_keys: header %s: it must be the name of a header for keys only, as in: "+
			"header X-Api-Key; keys in Authorization: Bearer need no option", a.Header)
	}
	a.sources = credentials.Sources{{Header: a.Header}}
	return nil
}

// Sources implements credentials.Lister.
func (a *APIKeys) Sources() credentials.Sources { return a.sources }

// UseStore opens the keys. users is the store of the site's accounts, and name identifies it;
// both are empty without accounts.
func (a *APIKeys) UseStore(ctx caddy.Context, users store.UserStore, name string) error {
	own := a.StoreRaw != nil || users == nil
	if own {
		if a.StoreRaw == nil {
			a.StoreRaw = json.RawMessage(`{"module":"file"}`)
		}
		name = string(a.StoreRaw)
		loaded, err := ctx.LoadModule(a, "StoreRaw")
		if err != nil {
			return fmt.Errorf("api_keys: store: %w", err)
		}
		users, _ = loaded.(store.UserStore)
	}
	if _, err := In(users, a.Prefix, clock.Now); err != nil {
		return fmt.Errorf("api_keys: store: %w", err)
	}
	ring, err := OpenRing(fmt.Sprint(own, name), a.MaxKeys, own)
	if err != nil {
		return err
	}
	a.ring = ring
	ring.AddStore(&users)
	ring.ReadAgain() // what the name of the store stands for may have changed
	context.AfterFunc(ctx, func() { ring.DropStore(&users) })
	config.AtStart(ctx, func() error {
		ring.Start(ctx)
		return nil
	})
	return nil
}

// Cleanup releases the keys.
func (a *APIKeys) Cleanup() error {
	if a.ring == nil {
		return nil
	}
	return a.ring.Release()
}

// Verify implements credentials.Verifier.
func (a *APIKeys) Verify(
	w http.ResponseWriter, r *http.Request, credential credentials.Credential,
) (*jwt.Token, error) {
	if a.Header != "" && credential.Source.Only == nil {
		return nil, credentials.ErrOtherKind
	}
	id, secret, err := split(a.Prefix, credential.Token)
	if errors.Is(err, errOtherPrefix) && a.Header == "" && IDIn(credential.Token) == credential.Token {
		return nil, credentials.ErrOtherKind
	}
	if err != nil {
		return nil, refusal.New(refusal.APIKey, "%v", err)
	}
	now := clock.Now()
	key, entry, failure := a.ring.Find(a.Prefix, id, secret, now)
	if failure != nil {
		return nil, failure
	}
	if len(key.Networks) > 0 && !within(key.Networks, r) {
		return nil, refusal.New(refusal.Network, "key %s was sent from another network than it allows", id)
	}
	if limiter := entry.limiterOf(key.Rate); limiter != nil && firstOfRequest(r, entry) {
		counter, _ := a.ring.Users().(store.AttemptCounter)
		wait := limiter.take(r.Context(), counter, id, now)
		limiter.announce(w, wait, now)
		if wait > 0 {
			return nil, tooMany(id, key.Rate, wait)
		}
	}
	a.ring.uses.note(key, id, now)
	return key.token, nil
}

// firstOfRequest reports whether the key is verified for the first time in this request, which
// several handlers may do.
func firstOfRequest(r *http.Request, key *entry) bool {
	const variable = "caddy_jwt_counted_key"
	if caddyhttp.GetVar(r.Context(), variable) == key {
		return false
	}
	caddyhttp.SetVar(r.Context(), variable, key)
	return true
}

// within reports whether the client is in one of the networks.
func within(networks []netip.Prefix, r *http.Request) bool {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	address, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	address = address.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(address) })
}

// Interface guards
var (
	_ caddy.Provisioner    = (*APIKeys)(nil)
	_ caddy.CleanerUpper   = (*APIKeys)(nil)
	_ credentials.Verifier = (*APIKeys)(nil)
	_ credentials.Lister   = (*APIKeys)(nil)
)
