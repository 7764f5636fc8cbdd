package web

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

const (
	// pendingCookie binds a log-in in progress to the browser that started it. A browser
	// has at most one; the most recent one counts.
	pendingCookie = "login"
	// offerCookie binds an identity that waits for confirmation in the same way.
	offerCookie = "connect"

	pendingBytes = 32
)

// pendingLogin is a log-in at a provider in progress, stored under the hash of the
// browser's cookie.
type pendingLogin struct {
	Login       string `json:"login"` // its name
	State       string `json:"state"`
	RedirectURL string `json:"redirect_url"`
	ReturnTo    string `json:"return_to,omitempty"`
	// MaxAge is how long ago the user may have entered the password there; nil for no
	// limit.
	MaxAge  *time.Duration `json:"max_age,omitempty"`
	Kept    []byte         `json:"kept,omitempty"` // state of the module
	BeganAt time.Time      `json:"began_at"`

	// UserID and SessionID identify the account to connect; empty for a log-in.
	UserID    string `json:"user_id,omitempty"`
	SessionID string `json:"session_id,omitempty"`
}

// externalRoute serves the paths that end in the name of a log-in.
func (h *Handler) externalRoute(route, name string) (accountRoute, []string) {
	login := accounts.FindLogin(h.logins, name)
	if login == nil {
		return func(http.ResponseWriter, *http.Request) error { return &refusal.Error{Reason: refusal.NoSuchRoute} },
			[]string{http.MethodGet, http.MethodPost}
	}
	with := func(serve func(http.ResponseWriter, *http.Request, *accounts.LoginProvider) error) accountRoute {
		return func(w http.ResponseWriter, r *http.Request) error { return serve(w, r, login) }
	}
	switch route {
	case "callback":
		return h.byMethod(with(h.finishExternal), with(h.answerByForm)), []string{http.MethodGet, http.MethodPost}
	case "backchannel":
		return with(h.backchannelLogout), []string{http.MethodPost}
	}
	return h.byMethod(with(h.beginExternal), with(h.beginConnect)), []string{http.MethodGet, http.MethodPost}
}

// beginExternal redirects the browser to the provider. A request from a page of another
// site only gets the log-in page, because only the user may start a log-in.
func (h *Handler) beginExternal(w http.ResponseWriter, r *http.Request, login *accounts.LoginProvider) error {
	returnTo := answer.SafeReturnPath(r.URL.Query().Get("return_to"), "")
	asked := r.Clone(r.Context())
	asked.Method = http.MethodPost
	if err := crossOrigin.Check(asked); err != nil {
		location := answer.MountedAt(r) + h.Path("login")
		if returnTo != "" {
			location += "?return_to=" + url.QueryEscape(returnTo)
		}
		answer.SeeOther(w, location)
		return nil
	}
	return h.redirectOut(w, r, login, returnTo)
}

// redirectOut starts a log-in at a provider.
func (h *Handler) redirectOut(
	w http.ResponseWriter, r *http.Request, login *accounts.LoginProvider, returnTo string,
) error {
	location, err := h.sendOut(w, r, login, pendingLogin{ReturnTo: returnTo})
	if err != nil {
		return h.showLogin(w, r, returnTo, err)
	}
	answer.SeeOther(w, location)
	return nil
}

// autoLogin returns the log-in to which browsers that must log in are sent; nil for the log-in page.
// The page itself is shown to those who go there, and so after log-out and after a failure.
func (h *Handler) autoLogin() *accounts.LoginProvider {
	i := slices.IndexFunc(h.logins, func(login accounts.LoginProvider) bool { return login.Auto })
	if i < 0 {
		return nil
	}
	return &h.logins[i]
}

// maxAnswerBytes is the maximum length of a response of a provider as a query.
const maxAnswerBytes = 8 << 10

// answerByForm turns a response by form (OAuth 2.0 Form Post Response Mode) into one by query: browsers
// send the cookie of the log-in with a GET that a redirect leads to, but not with a POST of another
// site. Otherwise it does nothing, so it needs no protection against such a POST.
func (h *Handler) answerByForm(w http.ResponseWriter, r *http.Request, login *accounts.LoginProvider) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxAnswerBytes)
	if err := r.ParseForm(); err != nil || !isForm(r) {
		return refusal.New(refusal.LoginRefused, "it is not a form of at most %d bytes", maxAnswerBytes)
	}
	query := r.PostForm.Encode()
	if len(query) > maxAnswerBytes {
		return refusal.New(refusal.LoginRefused, "it has more than %d bytes", maxAnswerBytes)
	}
	answer.SeeOther(w, answer.MountedAt(r)+h.Prefix+accounts.ExternalRoutes["callback"]+login.Name+"?"+query)
	return nil
}

// beginConnect sends a logged-in user to the provider, to connect an identity with the
// account. It is a POST, so that pages of other sites cannot start it. It shows a page with
// a link instead of redirecting, because some browsers apply the page's
// Content-Security-Policy to redirects of a form.
func (h *Handler) beginConnect(w http.ResponseWriter, r *http.Request, login *accounts.LoginProvider) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	location, err := h.sendOut(w, r, login, pendingLogin{UserID: user.ID, SessionID: SessionOf(token)})
	if err != nil {
		return h.showAccount(w, r, token, err)
	}
	language := h.pages.language(r)
	return h.pages.render(w, r, "message", pageData{
		Title: language.Text("Connect your account at %s", login.Label),
		Text:  "Log in there with the account that you want to use for logging in here.",
		Next:  &pageLink{language.Text("Continue to %s", login.Label), location},
	}, http.StatusOK)
}

// sendOut stores the state, binds it to the browser, and returns the URL of the provider.
func (h *Handler) sendOut(
	w http.ResponseWriter, r *http.Request, login *accounts.LoginProvider, pending pendingLogin,
) (string, error) {
	now := h.service.Now()
	byClient, wait := h.service.Attempts.External.Begin(r.Context(), network.Key(client(r).Address), now)
	if wait > 0 {
		return "", accounts.Throttled("log-ins of the client", wait)
	}
	pending.Login, pending.State, pending.BeganAt = login.Name, store.RandomToken(pendingBytes), now
	pending.RedirectURL = siteURL(r) + h.Prefix + accounts.ExternalRoutes["callback"] + login.Name
	pending.MaxAge = h.service.Links.Lead(pending.ReturnTo).MaxAge
	location, kept, err := login.Begin(r.Context(), pending.RedirectURL, pending.State, pending.MaxAge)
	if err != nil {
		return "", accounts.RefuseLogin(err)
	}
	pending.Kept = kept
	if pending.UserID == "" { // of a client without a session
		if _, wait := h.service.Attempts.ExternalKept.Begin(r.Context(), "all", now); wait > 0 {
			byClient.Forgive()
			return "", &refusal.Error{Reason: refusal.LoginsFull, Detail: "of all clients", RetryAfter: 5 * time.Second}
		}
	}
	return location, h.keepPending(w, r, accounts.KindPending, pendingCookie, pending.UserID, pending)
}

// keepPending stores a value under the hash of a new cookie of the browser.
func (h *Handler) keepPending(w http.ResponseWriter, r *http.Request, kind, cookie, owner string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	secret, until := store.RandomToken(pendingBytes), h.service.Now().Add(accounts.PendingLifetime)
	err = h.service.Users().CreateRecord(r.Context(), store.Record{
		Kind: kind, ID: store.HashToken(secret), Owner: owner, Value: text, ExpiresAt: until,
	})
	if err != nil {
		return accounts.StoreRefusal(err)
	}
	credentials.SetCookie(w, r, cookie, secret, until)
	return nil
}

// pending returns the stored value of the browser, or [store.ErrNotFound].
func (h *Handler) pending(r *http.Request, kind, cookie string) (store.Record, error) {
	cookies := r.CookiesNamed(credentials.CookieName(r, cookie))
	if len(cookies) != 1 {
		return store.Record{}, store.ErrNotFound
	}
	return h.service.Users().Record(r.Context(), kind, store.HashToken(cookies[0].Value), h.service.Now())
}

// takePending returns and removes the stored value of the browser if wanted returns nil. It
// returns [store.ErrNotFound] if there is no value.
func (h *Handler) takePending(
	w http.ResponseWriter, r *http.Request, kind, cookie string, check func(store.Record) error,
) (store.Record, error) {
	record, err := h.pending(r, kind, cookie)
	if err == nil {
		err = check(record)
	}
	if err == nil {
		record, err = h.service.Users().TakeRecord(r.Context(), kind, record.ID, h.service.Now())
	}
	if err == nil {
		credentials.SetCookie(w, r, cookie, "", time.Unix(1, 0))
	}
	return record, err
}

// siteURL returns the URL of the site as the browser sees it. Log-ins require cookies,
// which do not work on plain http except to this machine; so on plain http there must be a
// proxy in front that uses https.
func siteURL(r *http.Request) string {
	scheme := "https"
	if r.TLS == nil && credentials.PlainLoopback(r) {
		scheme = "http"
	}
	return scheme + "://" + r.Host + answer.MountedAt(r)
}

// finishExternal handles the redirect back from the provider.
func (h *Handler) finishExternal(w http.ResponseWriter, r *http.Request, login *accounts.LoginProvider) error {
	var pending pendingLogin
	_, err := h.takePending(w, r, accounts.KindPending, pendingCookie, func(kept store.Record) error {
		if err := json.Unmarshal(kept.Value, &pending); err != nil {
			return err
		}
		// A response to another request, for example of another tab, does not use up the
		// state.
		if subtle.ConstantTimeCompare([]byte(r.URL.Query().Get("state")), []byte(pending.State)) != 1 {
			return store.ErrNotFound
		}
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return h.showLogin(w, r, "", refusal.New(refusal.LoginState, "no log-in is in progress in this browser"))
	}
	if err != nil {
		return h.showLogin(w, r, "", accounts.StoreRefusal(err))
	}
	identity, err := h.answeredIdentity(r, login, &pending)
	if pending.UserID != "" {
		return h.finishConnect(w, r, login, &pending, identity, err)
	}
	var grant *accounts.Grant
	if err == nil {
		grant, err = h.service.Identities.LogIn(r.Context(), login, identity, client(r))
	}
	if taken, ok := errors.AsType[*accounts.AccountExists](err); ok {
		// The identity waits for the password of the account, and then for confirmation.
		taken.Link = accounts.Linked(login, identity)
		if keepErr := h.keepPending(
			w, r, accounts.KindOffered, offerCookie, taken.UserID, offer{LinkedIdentity: taken.Link},
		); keepErr != nil {
			err = keepErr
		}
	}
	if h.asksFactor(w, r, pending.ReturnTo, err) {
		return nil
	}
	if err != nil {
		h.service.CountEvent("login", "refused")
		return h.showLogin(w, r, pending.ReturnTo, err)
	}
	if err := h.service.Sessions.Replace(r.Context(), grant, refreshTokenOf(r)); err != nil {
		return h.showLogin(w, r, pending.ReturnTo, err)
	}
	SetSessionCookies(w, r, grant)
	answer.SeeOther(w, answer.SafeReturnPath(pending.ReturnTo, answer.MountedAt(r)+h.Path("account")))
	return nil
}

// answeredIdentity checks that the response belongs to the browser's log-in, and lets the
// module complete it.
func (h *Handler) answeredIdentity(
	r *http.Request, login *accounts.LoginProvider, pending *pendingLogin,
) (*accounts.ExternalIdentity, error) {
	answer, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refusal.New(refusal.LoginRefused, "the query is malformed")
	}
	for name, values := range answer {
		if len(values) > 1 { // RFC 6749 §3.1
			return nil, refusal.New(refusal.LoginRefused, "%s is specified twice", refusal.Quoted(name))
		}
	}
	if pending.Login != login.Name {
		return nil, refusal.New(
			refusal.LoginState, "it was started at %s, but the response came from %s", pending.Login, login.Name,
		)
	}
	if subtle.ConstantTimeCompare([]byte(answer.Get("state")), []byte(pending.State)) != 1 {
		return nil, refusal.New(refusal.LoginState, "state is not the value that this browser was sent with")
	}
	identity, err := login.Finish(r.Context(), answer, pending.RedirectURL, pending.Kept)
	if err != nil {
		return nil, accounts.RefuseLogin(err)
	}
	if identity.Issuer == "" || identity.Subject == "" {
		return nil, refusal.New(refusal.LoginRefused, "it has no issuer or no subject")
	}
	return identity, pending.checkAuthTime(identity, h.service.Now())
}

// authTimeLeeway is how far the clock of a provider may be behind.
const authTimeLeeway = time.Minute

// checkAuthTime checks the age of the log-in at the provider, if a maximum was requested.
// Resuming a session at the provider does not count as a log-in, and a missing auth_time is
// not accepted.
func (p *pendingLogin) checkAuthTime(identity *accounts.ExternalIdentity, now time.Time) error {
	if identity.AuthTime.After(now) {
		identity.AuthTime = now
	}
	if p.MaxAge == nil {
		return nil
	}
	if identity.AuthTime.IsZero() {
		return refusal.New(
			refusal.LoginNotFresh, "the provider was asked for a fresh log-in and did not return its time (auth_time)",
		)
	}
	if identity.AuthTime.Add(*p.MaxAge).Before(p.BeganAt.Add(-authTimeLeeway)) {
		return refusal.New(
			refusal.LoginNotFresh, "the provider was asked for a fresh log-in and returned an older one (auth_time)",
		)
	}
	if identity.AuthTime.Add(*p.MaxAge).Before(p.BeganAt) { // its clock is behind
		identity.AuthTime = p.BeganAt
	}
	return nil
}

// finishConnect asks the user who started it whether to connect the identity with the
// account.
func (h *Handler) finishConnect(
	w http.ResponseWriter, r *http.Request, login *accounts.LoginProvider, pending *pendingLogin,
	identity *accounts.ExternalIdentity, err error,
) error {
	token, user, callerErr := h.shared.callerUser(w, r)
	if callerErr != nil || user.ID != pending.UserID || SessionOf(token) != pending.SessionID {
		return h.showLogin(
			w, r, "",
			refusal.New(refusal.LoginState, "the session that started it is no longer the session of this browser"),
		)
	}
	link, there := accounts.LinkedIdentity{}, false
	if err == nil {
		link = accounts.Linked(login, identity)
		there, err = h.service.Identities.IsConnected(r.Context(), user.ID, link)
	}
	if err == nil && !there {
		err = h.keepPending(w, r, accounts.KindOffered, offerCookie, user.ID, offer{
			LinkedIdentity: link, SessionID: SessionOf(token),
		})
	}
	switch {
	case err != nil:
		return h.showAccount(w, r, token, err)
	case there:
		answer.SeeOther(w, answer.MountedAt(r)+h.Path("account"))
	default:
		answer.SeeOther(w, answer.MountedAt(r)+h.Path("connect"))
	}
	return nil
}

// showLogin shows a refusal on the log-in page.
func (h *Handler) showLogin(w http.ResponseWriter, r *http.Request, returnTo string, err error) error {
	refusal, ok := errors.AsType[*refusal.Error](err)
	if !ok {
		return err
	}
	h.service.LogStoreFailure(refusal)
	h.answers.Announce(w, r, refusal)
	public := refusal.Reason.Answer()
	text := formText(h.pages.language(r), refusal)
	if taken, ok := errors.AsType[*accounts.AccountExists](err); ok {
		language, link := h.pages.language(r), taken.Link
		text = both(language, language.Text("You are logged in to %s as %s.", link.Label, link.Name()), text)
	}
	return h.pages.render(w, r, "login", pageData{ReturnTo: returnTo, Error: text}, public.Status)
}

// showAccount shows a refusal on the account page.
func (h *Handler) showAccount(w http.ResponseWriter, r *http.Request, token *jwt.Token, err error) error {
	refusal, ok := errors.AsType[*refusal.Error](err)
	if !ok {
		return err
	}
	h.service.LogStoreFailure(refusal)
	h.answers.Announce(w, r, refusal)
	public := refusal.Reason.Answer()
	return h.renderAccount(w, r, token, pageData{Error: formText(h.pages.language(r), refusal)}, public.Status)
}

// backchannelLogout handles a provider's notification that a user has logged out there
// (OpenID Connect Back-Channel Logout 1.0 §2.5).
func (h *Handler) backchannelLogout(w http.ResponseWriter, r *http.Request, login *accounts.LoginProvider) error {
	r.Body = http.MaxBytesReader(w, r.Body, MaxBodyBytes)
	if err := r.ParseForm(); err != nil || !isForm(r) || len(r.PostForm["logout_token"]) != 1 {
		return refusal.New(refusal.LogoutToken, "it is not a form with exactly one logout_token")
	}
	logout, err := login.VerifyLogout(r.Context(), r.PostForm.Get("logout_token"))
	if refusal, ok := errors.AsType[*refusal.Error](err); ok {
		return refusal
	}
	if err != nil {
		return refusal.New(refusal.LogoutToken, "%v", err)
	}
	if err := h.service.Identities.LogOut(r.Context(), logout, client(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
