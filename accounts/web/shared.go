package web

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// Shared gives other modules access to the accounts of a site, such as an OpenID Provider
// for their users.
type Shared struct {
	service        *accounts.Service
	pages          *pages
	decisions      *answer.Decisions
	sayLoginHidden sync.Once
}

// Login is the log-in of a browser's session.
type Login struct {
	// User is the user as currently stored.
	User store.User
	// SessionID is the `sid` of the session.
	SessionID string
	// At is when the user entered the password or a code of a second factor, here, or else the
	// password at another provider; zero if that provider does not return it.
	At time.Time
	// External reports whether the user logged in through another provider.
	External bool
	// Methods are how the user has proved to be the user here (RFC 8176); none if only the other
	// provider knows.
	Methods []string
}

// Open returns the accounts of this config, which a `jwt_accounts` handler with the same
// config serves. The caller must call Close.
func Open(ctx caddy.Context, config *accounts.Config) (*Shared, error) {
	service, err := accounts.Open(ctx, config)
	if err != nil {
		return nil, err
	}
	pages, err := newPages(service, config)
	if err != nil {
		return nil, errors.Join(err, service.Release())
	}
	return &Shared{service: service, pages: pages, decisions: answer.DecisionsOf(place.Of(ctx).Site())}, nil
}

// Close releases the accounts.
func (a *Shared) Close() error { return a.service.Release() }

// Store returns the store of the users, which the module can also use for its own records.
func (a *Shared) Store() store.UserStore { return a.service.Users() }

// Now returns the time of the accounts' clock.
func (a *Shared) Now() time.Time { return a.service.Now() }

// StoreFailed reports an error of the store, so that the accounts log an outage.
func (a *Shared) StoreFailed(err error) {
	failure, refused := errors.AsType[*refusal.Error](err)
	if !refused {
		failure = refusal.Of(accounts.StoreRefusal(err))
	}
	if failure.Reason == refusal.StoreUnavailable || failure.Reason == refusal.StoreFull {
		a.decisions.Refused(failure.Reason)
	}
	a.service.LogStoreFailure(failure)
}

// UseRefreshToken starts the use of another module's refresh token, by the same rules as
// for the accounts. Refreshed counts its result.
func (a *Shared) UseRefreshToken(ctx context.Context, use accounts.RefreshUse) (*accounts.RefreshUse, error) {
	return a.service.Sessions.UseRefreshToken(ctx, use)
}

// Refreshed counts the use of a refresh token. Its result is ok, refused, repeated (sent
// again before its successor was used) or reused (after its successor was used).
func (a *Shared) Refreshed(result string) { a.service.CountEvent("refresh", result) }

// Logger returns the logger of the accounts.
func (a *Shared) Logger() *zap.Logger { return a.service.Log }

// OpenKeys returns additional keys for the algorithm RS256 or ES256. They are created once,
// when the config starts or when they are first used. lifetime is the maximum lifetime of a
// token signed with them.
func (a *Shared) OpenKeys(ctx caddy.Context, algorithm string, lifetime time.Duration) (*signing.Keys, error) {
	keys := signing.New(a.service.KeyOptions(
		ctx.Storage(), a.service.Config.FurtherKeys(algorithm), algorithm, lifetime,
	))
	config.AtStart(ctx, func() error { return keys.Ensure(ctx) })
	return keys, nil
}

// Ready prepares the accounts for a request that arrives before the config has started.
func (a *Shared) Ready(ctx context.Context) *refusal.Error { return a.service.Ready(ctx) }

// AsIssuer returns the issuer for a jwt handler that accepts the accounts' tokens.
func (a *Shared) AsIssuer() jwt.Issuer { return a.service.AsIssuer() }

// LearnRevocations loads revocations, for checking a token outside of a server.
func (a *Shared) LearnRevocations(ctx context.Context, now time.Time) error {
	revoked, err := a.Store().Revocations(ctx, time.Time{}, now)
	for _, revocation := range revoked {
		a.service.Sessions.Revoked.Add(revocation.SessionID, revocation.Until)
	}
	return err
}

// Login returns the log-in of the browser, and renews its session if the access token has
// expired. The error is a *[refusal.Error] if nobody is logged in.
func (a *Shared) Login(w http.ResponseWriter, r *http.Request) (*Login, error) {
	if err := a.service.Ready(r.Context()); err != nil {
		return nil, err
	}
	token, user, err := a.callerUser(w, r)
	if err != nil {
		return nil, err
	}
	session, err := a.Session(r.Context(), user.ID, SessionOf(token))
	if err != nil {
		return nil, accounts.StoreRefusal(err)
	}
	proved, err := a.HasProved(r.Context(), user, session.ID, session.Methods)
	if err != nil {
		return nil, accounts.StoreRefusal(err)
	}
	if !proved { // as at its next refresh
		return nil, refusal.New(refusal.Revoked, "a second factor is required by now")
	}
	login := &Login{User: user, SessionID: session.ID, At: session.AuthenticatedAt, Methods: session.Methods}
	record, err := a.Store().Record(r.Context(), accounts.KindBySubject, session.ID, a.Now())
	if errors.Is(err, store.ErrNotFound) {
		return login, nil
	}
	var external accounts.ExternalSession
	if err == nil {
		err = json.Unmarshal(record.Value, &external)
	}
	if login.External = true; len(session.Methods) == 0 {
		login.At = external.AuthTime
	}
	return login, accounts.StoreRefusal(err)
}

// RequiresFactor reports whether the site requires a second factor of a user.
func (a *Shared) RequiresFactor(user store.User) bool { return a.service.Factors.Required(user) }

// HasProved reports whether the user of a session has proved a second factor by these methods, or has
// used a trusted browser, as far as the site requires a second factor of the user.
func (a *Shared) HasProved(ctx context.Context, user store.User, sessionID string, methods []string) (bool, error) {
	return a.service.Factors.HasProved(ctx, user, sessionID, methods)
}

// ByTrustedBrowser reports whether a log-in was not asked for the second factor that the site requires,
// because the user trusts the browser.
func (a *Shared) ByTrustedBrowser(ctx context.Context, login *Login) (bool, error) {
	if !a.service.Factors.Required(login.User) || slices.Contains(login.Methods, accounts.MethodMultiple) {
		return false, nil
	}
	return a.HasProved(ctx, login.User, login.SessionID, nil)
}

// Session returns an active session of a user, or [store.ErrNotFound].
func (a *Shared) Session(ctx context.Context, userID, sessionID string) (store.Session, error) {
	return a.service.Sessions.Session(ctx, userID, sessionID)
}

// LoginURL returns the URL of the log-in page that leads back to a path of the site.
func (a *Shared) LoginURL(r *http.Request, returnTo, email string) string {
	query := url.Values{"return_to": {returnTo}}
	if email != "" {
		query.Set("email", email)
	}
	return answer.MountedAt(r) + a.service.Config.Path("login") + "?" + query.Encode()
}

// HasSecondFactor reports whether users can prove a second factor, or two by a passkey.
func (a *Shared) HasSecondFactor() bool {
	return a.service.Config.SecondFactor != "" || a.service.Config.Passkeys != nil
}

// StepUpURL returns the URL of the page that asks a logged-in user for the second factor, and leads
// back to a path of the site.
func (a *Shared) StepUpURL(r *http.Request, returnTo string) string {
	return answer.MountedAt(r) + a.service.Config.Path("step up") + "?" + url.Values{"return_to": {returnTo}}.Encode()
}

// LogOut ends a session and the other sessions of the same browser, and removes the
// cookies.
func (a *Shared) LogOut(w http.ResponseWriter, r *http.Request, userID, sessionID string) error {
	clearSessionCookies(w, r)
	if err := a.service.Sessions.EndBrowser(r.Context(), userID, sessionID); err != nil {
		return err
	}
	a.service.CountEvent("logout", "ok")
	a.service.Audit("logout", userID, sessionID, client(r))
	return nil
}

// PasswordMark returns a value that identifies the user's current password and is not
// secret.
func (a *Shared) PasswordMark(user store.User) string { return accounts.PasswordMark(user) }

// SamePassword reports whether a user still has the password of the mark, even if its hash
// was upgraded.
func (a *Shared) SamePassword(ctx context.Context, user store.User, mark string) (bool, error) {
	return accounts.SamePassword(ctx, a.Store(), user, mark, a.Now())
}

// HasPassword reports whether a secret in a request matches a hash (argon2id or bcrypt). It
// uses the same queue as the users' passwords.
func (a *Shared) HasPassword(r *http.Request, hash, secret string) (bool, error) {
	return password.CheckSecret(r.Context(), a.service.HashTurn("client secret", client(r)), hash, secret)
}

// Page is a page of another module in the style of the accounts' pages.
type Page struct {
	pages *pages
	name  string
}

// NewPage loads a page, which defines "title" and "content" of the layout: from the folder
// if it contains the file, otherwise the embedded one.
func (a *Shared) NewPage(embedded fs.FS, file, dir string) (*Page, error) {
	own, err := fs.Sub(embeddedPages, "pages")
	if err != nil {
		return nil, err
	}
	from, err := fs.Sub(embedded, path.Dir(file))
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = a.service.Config.Templates
	}
	frame, err := readFrame(dir, own)
	if err != nil {
		return nil, err
	}
	text, err := readPage(dir, from, path.Base(file))
	if err != nil {
		return nil, err
	}
	parsed, err := parsePage(a.pages.texts, path.Base(file), append(frame, text)...)
	if err != nil {
		return nil, err
	}
	page := &pages{
		texts: a.pages.texts, templates: map[string]*pageTemplate{file: parsed},
		defaults: standardData(a.service.Config), lead: a.service.Links.Lead,
		policy: policyFor(&a.service.Config), files: a.pages.files,
	}
	return &Page{page, file}, nil
}

// Render shows the page in a language with data as `.Data`. Its form may redirect to other sites.
func (p *Page) Render(
	w http.ResponseWriter, r *http.Request, language *texts.Language, data any, status int,
) error {
	return p.pages.render(w, r, p.name, pageData{Data: data, language: language, leadsOn: true}, status)
}

// Language returns the language of the answer to a request: the first that exists of those wanted,
// which are tags separated by spaces, or else what the client accepts.
func (a *Shared) Language(r *http.Request, wanted string) *texts.Language {
	return a.pages.languageOf(r, wanted)
}

// Languages returns the tags of the languages that there are.
func (a *Shared) Languages() (tags []string) {
	for _, language := range a.pages.texts.Languages() {
		tags = append(tags, language.Tag())
	}
	return tags
}

// English returns English, for answers to programs.
func (a *Shared) English() *texts.Language { return a.pages.texts.English() }

// Throttle limits attempts by a key, such as a user.
type Throttle struct{ throttle *accounts.Throttle }

// NewThrottle returns a throttle for a number of attempts within the window, for all nodes
// together if the store supports it. The name must be unique.
func (a *Shared) NewThrottle(name string, tries int, window time.Duration) *Throttle {
	return &Throttle{a.service.Attempts.NewThrottle(name, tries, window)}
}

// Try counts an attempt and reports whether it is allowed. forgive removes it from the
// count.
func (t *Throttle) Try(ctx context.Context, key string, now time.Time) (forgive func(), allowed bool) {
	attempt, wait := t.throttle.Begin(ctx, key, now)
	return attempt.Forgive, wait == 0
}

// ClientKey returns the throttle key of a client: its IP address, or its /64 for IPv6.
// [Throttle.Try] also counts for the /48.
func ClientKey(r *http.Request) string { return network.Key(client(r).Address) }

// Newest returns the session that replaced a session, for example because the user logged
// in again; otherwise the session itself.
func (a *Shared) Newest(ctx context.Context, sessionID string) (string, error) {
	return a.service.Sessions.Newest(ctx, sessionID)
}

// LeadsTo registers a function that returns the purpose of a log-in with a return path, or
// the zero Lead if it does not know the path. Call stop to unregister it.
func (a *Shared) LeadsTo(f func(returnTo string) accounts.Lead) (stop func()) {
	return a.service.Links.LeadsTo(f)
}

// AddAccountLink adds a link to the account page until remove is called.
func (a *Shared) AddAccountLink(link accounts.AccountLink) (remove func()) {
	return a.service.Links.Add(link)
}

// AddExporter adds data of another module to the exports of accounts, until remove is called.
func (a *Shared) AddExporter(exporter accounts.Exporter) (remove func()) {
	return a.service.Links.AddExporter(exporter)
}

// AddPaths adds operations to the OpenAPI document of the accounts, until remove is called.
func (a *Shared) AddPaths(paths func() map[string]any) (remove func()) {
	return a.service.Links.AddPaths(paths)
}

// OnSessionEnd registers a function that is called with the ID of each session that ends
// from now on, here or in another process. It must not block. Call stop to unregister it.
func (a *Shared) OnSessionEnd(f func(sessionID string)) (stop func()) {
	return a.service.Sessions.Revoked.Listen(f)
}
