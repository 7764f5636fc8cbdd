package provider

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

const (
	defaultAccessTokenLifetime  = 15 * time.Minute
	defaultIDTokenLifetime      = time.Hour
	defaultRefreshTokenLifetime = 30 * 24 * time.Hour
	longestTokenLifetime        = 24 * time.Hour
	minSecretBytes              = 16

	grantCode        = "authorization_code"
	grantRefresh     = "refresh_token"
	grantCredentials = "client_credentials"
	grantImplicit    = "implicit"
	grantDevice      = "urn:ietf:params:oauth:grant-type:device_code"
)

var (
	grantTypes    = []string{grantCode, grantRefresh, grantCredentials, grantDevice, grantImplicit}
	responseTypes = []string{"code", "id_token", "id_token token", "code id_token", "code token", "code id_token token"}
	consentModes  = []string{"always", "once", "never"}
)

// Client is a site or program that users can log in to (RFC 6749 §2).
type Client struct {
	// ID is the `client_id`. Required.
	ID string `json:"id,omitempty"`

	// Name is the name that users see. Default: the ID.
	Name string `json:"name,omitempty"`

	// Secret is the `client_secret`, or its hash from `caddy hash-password`: argon2id
	// ($argon2id$…) or bcrypt ($2b$…). At least 16 bytes. Default: none; then the client
	// must be public or have a PublicKey.
	Secret string `json:"secret,omitempty"`

	// Public clients run where a secret cannot be kept, such as in a browser or on a phone.
	// They must use PKCE (RFC 7636). Default: false.
	Public bool `json:"public,omitempty"`

	// PublicKey verifies the assertions of a client that authenticates with private_key_jwt
	// (RFC 7523): PEM, a JWK or a JWK set. Default: none.
	PublicKey string `json:"public_key,omitempty"`

	// RedirectURIs are the URLs that users can be sent back to. They are compared exactly:
	// https, http on this machine, or an app's own scheme that contains a dot. A URL for
	// http://127.0.0.1, http://[::1] or http://localhost without a port matches any port (RFC
	// 8252 §7.3).
	RedirectURIs []string `json:"redirect_uris,omitempty"`

	// PostLogoutRedirectURIs are the URLs that users can be sent to after a log-out.
	// Default: none.
	PostLogoutRedirectURIs []string `json:"post_logout_redirect_uris,omitempty"`

	// GrantTypes are the grant types that the client may use. Default: `authorization_code`
	// and `refresh_token`, and `implicit` if a response type contains tokens.
	GrantTypes []string `json:"grant_types,omitempty"`

	// ResponseTypes are the response types that the client may request. Those with `token`
	// or `id_token` put tokens into the browser's address bar, where they can leak (RFC
	// 9700 §2.1.2). Default: `code`.
	ResponseTypes []string `json:"response_types,omitempty"`

	// Scopes are the scopes that the client may request. Default: `openid`, `profile`,
	// `email` and `offline_access`.
	Scopes []string `json:"scopes,omitempty"`

	// AccessTokenLifetime is how long an access token is valid, at most 24h. Services that
	// verify it with the JWK set do not learn of its revocation. Default: `15m`.
	AccessTokenLifetime caddy.Duration `json:"access_token_lifetime,omitempty"`

	// RefreshTokenLifetime is the maximum time that a user stays logged in at the client.
	// Default: `30d`.
	RefreshTokenLifetime caddy.Duration `json:"refresh_token_lifetime,omitempty"`

	// IDTokenLifetime is how long an ID token is valid, at most 24h. Default: `1h`.
	IDTokenLifetime caddy.Duration `json:"id_token_lifetime,omitempty"`

	// Consent determines when the user is asked for consent: `always`, `once` or `never`.
	// Do not use `never` for clients of third parties. A public client is asked about every
	// time, regardless of this option, if the redirect URI of the request is on the user's
	// machine (http on a loopback address, or an app's own scheme), because any program
	// there can send such a request and intercept the response. Default: `once`.
	Consent string `json:"consent,omitempty"`

	// BackchannelLogoutURI is notified when a session ends (OpenID Connect Back-Channel
	// Logout 1.0). Default: none.
	BackchannelLogoutURI string `json:"backchannel_logout_uri,omitempty"`

	// Introspect allows the client to introspect (RFC 7662) the access tokens of all
	// clients; it is for an API that accepts these tokens. Any other client can only
	// introspect its own tokens and those with its ID in `aud`; all other tokens are
	// reported as not active. Default: false.
	Introspect bool `json:"introspect,omitempty"`

	// Roles are the roles of which a user must have one to log in to the client. A user who loses
	// them gets no further tokens for it. Default: every user may log in.
	Roles []string `json:"roles,omitempty"`

	// IDTokenClaims puts the claims of the granted scopes into the ID token, too, for clients that
	// do not ask userinfo. It makes the ID token longer, and what is in it visible to whoever sees
	// it. Default: only claims that the client requests by name (OpenID Connect Core §5.4, §5.5).
	IDTokenClaims bool `json:"id_token_claims,omitempty"`

	// RenameClaims gives claims other names for the client, in the ID token and in userinfo: from
	// its name for the client, such as `groups`, to its name here, such as `roles`. Default: none.
	RenameClaims map[string]string `json:"rename_claims,omitempty"`

	// UndottedScheme accepts redirect URIs of an app's own scheme without a dot, such as
	// `oc://ios.owncloud.com`. Other apps may use the same scheme, and the system may send the
	// response to one of them (RFC 8252 §8.4); PKCE then protects the code. Default: the scheme
	// must contain a dot.
	UndottedScheme bool `json:"undotted_scheme,omitempty"`

	// Since is when the client was added to the store. Grants and consents from before
	// belong to an earlier client with the same ID.
	Since string `json:"since,omitempty"`

	host       string            // of its metadata document; empty if it has none
	keys       *jwt.Verifier     // verify assertions
	secretHash [sha256.Size]byte // of a Secret that is not a hash
}

// resolve sets defaults and resolves placeholders. It returns an error if a value is not
// valid.
func (c *Client) resolve(p *Provider) error {
	replacer := caddy.NewReplacer()
	for name, value := range map[string]*string{
		"secret": &c.Secret, "public_key": &c.PublicKey, "name": &c.Name,
		"backchannel_logout_uri": &c.BackchannelLogoutURI,
	} {
		if *value == "" {
			continue
		}
		if name == "secret" && isHash(*value) {
			continue
		}
		if err := config.CheckVariable(*value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		resolved := replacer.ReplaceKnown(*value, "")
		if name == "secret" {
			// the text in braces may be part of the secret
			if _, err := replacer.ReplaceOrErr(*value, false, true); err != nil {
				return errors.New("secret has a placeholder without a value when the config is loaded; " +
					config.WhyEmpty(*value) + " Use {env.NAME} or {file./path}")
			}
		}
		if resolved == "" {
			return fmt.Errorf("%s is empty; %s", name, config.WhyEmpty(*value))
		}
		*value = resolved
	}
	c.setDefaults()
	for i, responseType := range c.ResponseTypes {
		c.ResponseTypes[i] = normalResponseType(responseType)
		if !slices.Contains(responseTypes, c.ResponseTypes[i]) {
			return fmt.Errorf("response_types: %w", config.Unknown("response type", responseType, responseTypes))
		}
	}
	return c.check(p)
}

// shownName returns the name for users: with its host if nobody here checked the name.
func (c *Client) shownName() string {
	if c.host != "" {
		return c.Name + " (" + c.host + ")"
	}
	return c.Name
}

// setDefaults sets the options that are not set.
func (c *Client) setDefaults() {
	setDefault(&c.Name, c.ID)
	setDefault(&c.Consent, "once")
	setDefault(&c.AccessTokenLifetime, caddy.Duration(defaultAccessTokenLifetime))
	setDefault(&c.RefreshTokenLifetime, caddy.Duration(defaultRefreshTokenLifetime))
	setDefault(&c.IDTokenLifetime, caddy.Duration(defaultIDTokenLifetime))
	setDefaults(&c.ResponseTypes, "code")
	grants := []string{grantCode, grantRefresh}
	if c.handsOutTokens() {
		grants = append(grants, grantImplicit)
	}
	setDefaults(&c.GrantTypes, grants...)
	setDefaults(&c.Scopes, "openid", "profile", "email", "offline_access")
}

// handsOutTokens reports whether a response type includes tokens.
func (c *Client) handsOutTokens() bool {
	return slices.ContainsFunc(c.ResponseTypes, func(responseType string) bool {
		return strings.Contains(responseType, "token")
	})
}

// tooLong returns the error about a lifetime of tokens that, unlike refresh tokens, cannot be
// revoked.
func tooLong(option string, lifetime caddy.Duration) error {
	return fmt.Errorf("%s is %s; it must not be longer than %s, because these tokens cannot be revoked",
		option, time.Duration(lifetime), longestTokenLifetime)
}

func (c *Client) check(p *Provider) error {
	authentications := 0
	for _, given := range []bool{c.Public, c.Secret != "", c.PublicKey != ""} {
		if given {
			authentications++
		}
	}
	switch {
	case c.ID == "" || strings.ContainsFunc(c.ID, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("a client must have an ID of visible ASCII characters")
	case c.Public && (c.Secret != "" || c.PublicKey != ""):
		return errors.New("it is public but has a secret or key; remove one of them")
	case authentications == 0:
		return errors.New("it must have `secret`, `public_key` or `public`, which determines how it authenticates")
	case isHash(c.Secret) && !strings.HasPrefix(c.Secret, randomPrefix) && password.CheckHash(c.Secret) != nil:
		return fmt.Errorf(
			"secret starts like a hash, but %w; if it is not a hash, choose a secret that starts differently",
			password.CheckHash(c.Secret),
		)
	case strings.ContainsAny(strings.TrimRight(c.Secret, "\r\n"), "\r\n"):
		return errors.New(
			"secret has several lines; a secret must be a single line, such as the output of openssl rand -hex 32",
		)
	case c.Secret != "" && len(c.Secret) < minSecretBytes:
		return fmt.Errorf("secret has a length of %d; it must have at least %d bytes", len(c.Secret), minSecretBytes)
	case !slices.Contains(consentModes, c.Consent):
		return fmt.Errorf("consent: %w", config.Unknown("value", c.Consent, consentModes))
	case c.AccessTokenLifetime < 0 || c.RefreshTokenLifetime < 0 || c.IDTokenLifetime < 0:
		return errors.New("a lifetime is negative")
	case c.AccessTokenLifetime > caddy.Duration(longestTokenLifetime):
		return tooLong("access_token_lifetime", c.AccessTokenLifetime)
	case c.IDTokenLifetime > caddy.Duration(longestTokenLifetime):
		return tooLong("id_token_lifetime", c.IDTokenLifetime)
	case c.Public && c.Introspect:
		return errors.New("introspect: a public client cannot introspect, as it cannot prove who it is; " +
			"give it a `secret` or a `public_key`")
	case c.Public && slices.Contains(c.GrantTypes, grantCredentials):
		return errors.New("grant_types: a public client cannot have client_credentials, as it cannot prove who it is")
	case len(c.RedirectURIs) == 0 && slices.Contains(c.GrantTypes, grantCode):
		return errors.New("it must have `redirect_uri`, the URL that users are sent back to, " +
			"or grant_types without authorization_code")
	case c.handsOutTokens() && !slices.Contains(c.GrantTypes, grantImplicit):
		return errors.New("response_types with token or id_token require the grant type implicit")
	case slices.Contains(c.Scopes, "account"):
		return errors.New("scopes: account is reserved for the accounts' own tokens")
	}
	if err := store.CheckRoles(c.Roles); err != nil {
		return fmt.Errorf("roles: %w", err)
	}
	for name, claim := range c.RenameClaims {
		if err := p.checkRenamed(name, claim); err != nil {
			return err
		}
	}
	for _, scope := range c.Scopes {
		if err := protocol.CheckScope(scope); err != nil {
			return err
		}
	}
	for _, grantType := range c.GrantTypes {
		if !slices.Contains(grantTypes, grantType) {
			return fmt.Errorf("grant_types: %w", config.Unknown("grant type", grantType, grantTypes))
		}
	}
	for name, uris := range map[string][]string{
		"redirect_uri": c.RedirectURIs, "post_logout_redirect_uri": c.PostLogoutRedirectURIs,
	} {
		for _, uri := range uris {
			if err := c.checkRedirectURI(uri); err != nil {
				return fmt.Errorf("%s %q: %w", name, uri, err)
			}
		}
	}
	if c.BackchannelLogoutURI != "" {
		u, err := url.Parse(c.BackchannelLogoutURI)
		if err != nil || u.Host == "" || u.Fragment != "" || !protocol.SecureURL(u) {
			return fmt.Errorf(
				"backchannel_logout_uri %q: it must be an https URL, or http on this machine", c.BackchannelLogoutURI,
			)
		}
	}
	if c.Secret != "" && !isHash(c.Secret) {
		c.secretHash = sha256.Sum256([]byte(c.Secret))
	}
	if c.PublicKey == "" {
		return nil
	}
	return c.provisionKeys(p)
}

func (c *Client) provisionKeys(p *Provider) error {
	keys, err := jwt.ParsePublicKeys(c.PublicKey)
	if err != nil {
		return fmt.Errorf("public_key: %w", err)
	}
	c.keys, err = jwt.NewVerifier(jwt.VerifierConfig{Leeway: 30 * time.Second, Issuers: []jwt.Issuer{{
		Name: c.ID, Keys: []jwt.KeySource{jwt.NewKeySet(keys...)}, Algorithms: assertionAlgorithms,
		Audience: []string{p.Issuer, p.at("/oidc/token"), p.at("/oidc/par")},
	}}})
	return err
}

func setDefault[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}

func setDefaults(values *[]string, defaults ...string) {
	if len(*values) == 0 {
		*values = defaults
	}
}

// normalResponseType sorts the parts, which are a set (RFC 6749 §3.1.1).
func normalResponseType(text string) string {
	parts := strings.Fields(text)
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// asksAllTheSame returns a redirect URI that requires consent despite `consent never`, or the
// empty string.
func (c *Client) asksAllTheSame() string {
	i := slices.IndexFunc(c.RedirectURIs, onThisMachine)
	if c.Consent != "never" || i < 0 || !c.Public && !c.handsOutTokens() {
		return ""
	}
	return c.RedirectURIs[i]
}

func isHash(secret string) bool {
	return strings.HasPrefix(secret, "$argon2id$") || strings.HasPrefix(secret, "$2") ||
		strings.HasPrefix(secret, randomPrefix)
}

// randomPrefix marks the hash of a randomly generated secret, for which SHA-256 is
// sufficient.
const randomPrefix = "$sha256$"

func secretHash(secret string) string { return randomPrefix + hashed(secret) }

// clients are the clients of the config and of the store. The config takes precedence.
type clients struct {
	provider   *Provider
	configured map[string]*Client
	origins    map[string]bool // of their redirect URIs
	stored     storedOrigins
	documents  *clientDocuments // nil without
	// proved remembers the secrets that had a hash, since to hash is slow on
	// purpose: by the hash, the SHA-256 of the secret.
	proved  sync.Map
	invalid sync.Map // IDs of clients in the store of which the log has said that they are not valid
}

func newClients(p *Provider) (*clients, error) {
	all := &clients{provider: p, configured: make(map[string]*Client), origins: make(map[string]bool)}
	var err error
	if all.documents, err = newClientDocuments(p); err != nil {
		return nil, err
	}
	for _, client := range p.Clients {
		if client == nil {
			return nil, errors.New("clients is a list of objects, but one entry is null")
		}
		if err := client.resolve(p); err != nil {
			return nil, fmt.Errorf("client %s: %w", client.ID, err)
		}
		if all.configured[client.ID] != nil {
			return nil, fmt.Errorf("client %s is specified twice", client.ID)
		}
		all.configured[client.ID] = client
		addOrigins(all.origins, client)
		if uri := client.asksAllTheSame(); uri != "" {
			p.log.Warn(
				"client has `consent never`, but users are still asked for consent, "+
					"because any program on their machine can intercept this redirect_uri; "+
					"write `consent once`, or give the client an https redirect_uri",
				help.See("consent-never"),
				zap.String("client_id", client.ID), zap.String("redirect_uri", uri),
			)
		}
	}
	return all, nil
}

// sayUnused logs clients in the store that are hidden by the config, or not valid with it.
func (c *clients) sayUnused(ctx context.Context) {
	records, err := c.provider.accounts.Store().Records(ctx, kindClient, "", c.provider.accounts.Now())
	if err != nil {
		return // the accounts log that the store fails
	}
	for _, record := range records {
		if c.configured[record.ID] != nil {
			c.provider.log.Warn(
				"client in the user store is not used, because the config has a client with the same ID; "+
					"delete one of them",
				help.See("client-id-twice"),
				zap.String("client_id", record.ID),
			)
			continue
		}
		_, _ = c.registered(ctx, record.ID)
	}
}

// sayInvalid logs once that a client in the store is not valid with this config, so that nobody can log
// in to it.
func (c *clients) sayInvalid(id string, err error) {
	if _, said := c.invalid.LoadOrStore(id, true); !said {
		c.provider.log.Warn(
			"client in the user store is not valid, so it is refused; change it with caddy jwt client update",
			help.See("client-not-valid"), zap.String("client_id", id), zap.Error(err),
		)
	}
}

// find returns a client by its ID, or errNotFound. For an ID that is a URL it may return an
// *oauthError.
func (c *clients) find(ctx context.Context, id string) (*Client, error) {
	client, err := c.registered(ctx, id)
	if errors.Is(err, errNotFound) {
		return c.documents.find(ctx, id)
	}
	return client, err
}

// registered returns a client of the config or of the store, or errNotFound.
func (c *clients) registered(ctx context.Context, id string) (*Client, error) {
	if client := c.configured[id]; client != nil {
		return client, nil
	}
	if len(id) > 256 {
		return nil, errNotFound
	}
	client, err := load[Client](ctx, c.provider.state, kindClient, id)
	if err != nil {
		return nil, err
	}
	if err := client.resolve(c.provider); err != nil {
		c.sayInvalid(id, err)
		return nil, errNotFound
	}
	return &client, nil
}

// hasSecret reports whether a secret is the client's.
func (c *clients) hasSecret(r *http.Request, client *Client, secret string) (bool, error) {
	sum := sha256.Sum256([]byte(secret))
	if hash, random := strings.CutPrefix(client.Secret, randomPrefix); random {
		return subtle.ConstantTimeCompare([]byte(hashed(secret)), []byte(hash)) == 1, nil
	}
	if !isHash(client.Secret) {
		return subtle.ConstantTimeCompare(sum[:], client.secretHash[:]) == 1, nil
	}
	if proved, ok := c.proved.Load(client.Secret); ok {
		known := proved.([sha256.Size]byte)
		if subtle.ConstantTimeCompare(sum[:], known[:]) == 1 {
			return true, nil
		}
	}
	forgive, allowed := c.provider.secretGuesses.Try(r.Context(), web.ClientKey(r), c.provider.accounts.Now())
	if !allowed { // hashing is slow and shared with the users' passwords
		return false, &oauthError{
			status: http.StatusTooManyRequests, code: "temporarily_unavailable",
			description: "too many wrong secrets; wait a minute", retryAfter: time.Minute,
		}
	}
	right, err := c.provider.accounts.HasPassword(r, client.Secret, secret)
	if right || err != nil {
		forgive()
	}
	if right {
		c.proved.Store(client.Secret, sum)
	}
	return right, err
}
