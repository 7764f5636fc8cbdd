package web

import (
	"context"
	"encoding/json"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// Shared are the accounts of a site as another module uses them, such
// as an OpenID Provider whose users they are.
type Shared struct {
	service        *accounts.Service
	sayLoginHidden sync.Once
}

// Login is who is logged in by a browser's session.
type Login struct {
	// User as it is in the store now.
	User store.User
	// SessionID is the `sid` of the session.
	SessionID string
	// At is when the user typed the password, here or at another provider; zero
	// if that one does not say.
	At time.Time
	// External tells that another provider let the user in.
	External bool
}

// Open returns the accounts with this config, which a `jwt_accounts`
// handler with the same config serves. The caller closes them.
func Open(ctx caddy.Context, config *accounts.Config) (*Shared, error) {
	service, err := accounts.Open(ctx, config)
	if err != nil {
		return nil, err
	}
	return &Shared{service: service}, nil
}

// Close gives the accounts back.
func (a *Shared) Close() error { return a.service.Release() }

// Store has the users, and keeps what the module has beside them.
func (a *Shared) Store() store.UserStore { return a.service.Users() }

// Now is the time by the clock of the accounts.
func (a *Shared) Now() time.Time { return a.service.Now() }

// StoreFailed counts an error of the store as the accounts count theirs, and logs an
// outage as they do.
func (a *Shared) StoreFailed(err error) {
	failure, told := errors.AsType[*refusal.Error](err)
	if !told {
		failure = refusal.Of(accounts.StoreRefusal(err))
	}
	if failure.Reason == refusal.StoreUnavailable || failure.Reason == refusal.StoreFull {
		answer.Refused(failure.Reason)
	}
	a.service.SayStoreFails(failure)
}

// UseRefreshToken begins the use of a refresh token of another module, by the same
// rules as those of the accounts. The result of a use is counted by Refreshed.
func (a *Shared) UseRefreshToken(ctx context.Context, use accounts.RefreshUse) (*accounts.RefreshUse, error) {
	return a.service.UseRefreshToken(ctx, use)
}

// Refreshed counts the use of a refresh token: its result is ok, repeated of one that
// came again before its successor was used, refused, or reused of one whose successor
// was used.
func (a *Shared) Refreshed(result string) { accounts.CountEvent("refresh", result) }

// Logger logs beside the accounts' own events.
func (a *Shared) Logger() *zap.Logger { return a.service.Log }

// OpenKeys returns further keys of the accounts, of the algorithm RS256 or
// ES256, which are made once, when the config starts or they are used. lifetime is how long a token of theirs may be
// good.
func (a *Shared) OpenKeys(ctx caddy.Context, algorithm string, lifetime time.Duration) (*signing.Keys, error) {
	keys := signing.New(a.service.KeyOptions(ctx.Storage(), a.service.Config.FurtherKeys(algorithm), algorithm, lifetime))
	config.AtStart(ctx, func() error { return keys.Ensure(ctx) })
	return keys, nil
}

// Ready makes what a request needs that comes before the config has started.
func (a *Shared) Ready(ctx context.Context) *refusal.Error { return a.service.Ready(ctx) }

// AsIssuer is how a jwt handler accepts the accounts' tokens.
func (a *Shared) AsIssuer() jwt.Issuer { return a.service.AsIssuer() }

// LearnRevocations reads what a server learns in the background, for whoever judges a
// token outside of one.
func (a *Shared) LearnRevocations(ctx context.Context, now time.Time) error {
	revoked, err := a.Store().Revocations(ctx, time.Time{}, now)
	for _, revocation := range revoked {
		a.service.Revoked.Add(revocation.SessionID, revocation.Until)
	}
	return err
}

// Login returns who is logged in, and renews the session of a browser whose
// access token has expired. The error is an *[Error] for nobody.
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
	login := &Login{User: user, SessionID: session.ID, At: session.CreatedAt}
	record, err := a.Store().Record(r.Context(), accounts.KindBySubject, session.ID, a.Now())
	if errors.Is(err, store.ErrNotFound) {
		return login, nil
	}
	var external accounts.ExternalSession
	if err == nil {
		err = json.Unmarshal(record.Value, &external)
	}
	login.At, login.External = external.AuthTime, true
	return login, accounts.StoreRefusal(err)
}

// Session returns a session of a user if it has not ended; [store.ErrNotFound].
func (a *Shared) Session(ctx context.Context, userID, sessionID string) (store.Session, error) {
	return a.service.Session(ctx, userID, sessionID)
}

// LoginURL is where a browser logs in, to come back to a path of the site.
func (a *Shared) LoginURL(r *http.Request, returnTo, email string) string {
	query := url.Values{"return_to": {returnTo}}
	if email != "" {
		query.Set("email", email)
	}
	return answer.MountedAt(r) + a.service.Config.Path("login") + "?" + query.Encode()
}

// LogOut ends a session and those of the same browser, and takes its cookies from
// there.
func (a *Shared) LogOut(w http.ResponseWriter, r *http.Request, userID, sessionID string) error {
	clearSessionCookies(w, r)
	if err := a.service.EndBrowser(r.Context(), userID, sessionID); err != nil {
		return err
	}
	accounts.CountEvent("logout", "ok")
	a.service.Audit("logout", userID, sessionID, client(r))
	return nil
}

// PasswordMark tells the password that a user has from those that they had or will
// have. It is no secret.
func (a *Shared) PasswordMark(user store.User) string { return accounts.PasswordMark(user) }

// SamePassword tells whether a user still has the password whose mark this is,
// however it is hashed now.
func (a *Shared) SamePassword(ctx context.Context, user store.User, mark string) (bool, error) {
	for now := accounts.PasswordMark(user); now != mark; {
		record, err := a.Store().Record(ctx, accounts.KindRehashed, now, a.Now())
		if errors.Is(err, store.ErrNotFound) {
			return false, nil
		}
		if err == nil {
			err = json.Unmarshal(record.Value, &now)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// HasPassword tells whether a secret that came with a request has a hash, argon2id
// or bcrypt, by the same queue as the users' passwords.
func (a *Shared) HasPassword(r *http.Request, hash, secret string) (bool, error) {
	return password.Check(r.Context(), a.service.HashTurn("client secret", client(r)), hash, secret)
}

// Page is a page of another module in the look of the accounts' pages.
type Page struct {
	pages *pages
	name  string
}

// NewPage reads a page, which defines "title" and "content" of the layout: the
// file in the folder if it has one of this name, else the embedded one.
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
	layout, err := readPage(dir, own, "layout.html")
	if err != nil {
		return nil, err
	}
	text, err := readPage(dir, from, path.Base(file))
	if err != nil {
		return nil, err
	}
	parsed, err := parsePage(path.Base(file), layout, text)
	if err != nil {
		return nil, err
	}
	page := &pages{templates: map[string]*template.Template{file: parsed}, standard: standardData(a.service.Config), lead: a.service.Links.Lead}
	return &Page{page, file}, nil
}

// Render shows the page with its data as `.Data`. Its form may lead on to other
// sites.
func (p *Page) Render(w http.ResponseWriter, r *http.Request, data any, status int) error {
	return p.pages.render(w, r, p.name, pageData{Data: data, leadsOn: true}, status)
}

// Throttle bounds tries by a key, such as a user.
type Throttle struct{ throttle *accounts.Throttle }

// NewThrottle allows so many tries within the window, at all nodes together if
// the store counts for them. No other throttle has its name.
func (a *Shared) NewThrottle(name string, tries int, window time.Duration) *Throttle {
	return &Throttle{a.service.Attempts.NewThrottle(name, tries, window)}
}

// Try counts a try, and tells whether it may be made. forgive takes the count
// back.
func (t *Throttle) Try(ctx context.Context, key string, now time.Time) (forgive func(), allowed bool) {
	attempt, wait := t.throttle.Begin(ctx, key, now)
	return attempt.Forgive, wait == 0
}

// ClientKey is a client as it is throttled: its IP address, of IPv6 the /64. [Throttle.Try] counts
// for the /48 beside.
func ClientKey(r *http.Request) string { return network.Key(client(r).Address) }

// Newest is the session that took the place of one, as when its user logged in
// once more; the session itself if none did.
func (a *Shared) Newest(ctx context.Context, sessionID string) (string, error) {
	return a.service.Newest(ctx, sessionID)
}

// LeadsTo has log-ins ask what a return path leads to. The zero Lead means that
// f does not know it. The function that is returned stops that.
func (a *Shared) LeadsTo(f func(returnTo string) accounts.Lead) (stop func()) {
	return a.service.Links.LeadsTo(f)
}

// AddAccountLink puts a link on the account page, until the function that is
// returned is called.
func (a *Shared) AddAccountLink(link accounts.AccountLink) (remove func()) {
	return a.service.Links.Add(link)
}

// OnSessionEnd has a function called with the ID of each session that ends from now
// on, here or in another process. It must not wait. The function that is returned
// stops that.
func (a *Shared) OnSessionEnd(f func(sessionID string)) (stop func()) {
	return a.service.Revoked.Listen(f)
}
