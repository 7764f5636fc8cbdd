package web

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

//go:embed pages/*.html pages/style.css pages/*.js
var embeddedPages embed.FS

// policyFor returns the strictest Content-Security-Policy that allows the pages' styles, images and
// forms; render adds their script.
func policyFor(config *accounts.Config) string {
	images := "'self'"
	if origin, _ := config.LogoOrigin(); origin != "" { // a valid one, by Resolve
		images += " " + origin
	}
	return "default-src 'none'; style-src 'self'; img-src " + images + "; form-action 'self'; " +
		"frame-ancestors 'none'; base-uri 'none'"
}

var pageNames = []string{
	"login", "signup", "account", "keys", "confirm", "address", "code", "factor", "factors", "reset", "message",
	"refused", "passkeys", "explorer",
}

// pages are the HTML pages of the accounts.
type pages struct {
	texts     *texts.Catalogue
	templates map[string]*pageTemplate
	files     map[string]*pageFile // by route
	defaults  pageData
	policy    string // the Content-Security-Policy
	lead      func(returnTo string) accounts.Lead

	// notePlain logs that somebody is about to log in over plain http, which cannot work.
	notePlain func(r *http.Request)

	// offerPasskey returns what the log-in page needs to offer passkeys; nil if the site has none.
	offerPasskey func(w http.ResponseWriter, r *http.Request) *pagePasskey
}

// pageData is the data for a template.
type pageData struct {
	Paths             pagePaths
	Site              pageSite
	ReturnTo          string
	Onward            string // ReturnTo for links, unless the page would be too long
	Error             string
	Errors            map[string]string
	Email             string // or the user name, where that was typed
	Identifier        string // what users log in by; see accounts.Config
	PasswordMinLength int
	Notice            string
	User              pageUser
	Sessions          []pageSession
	MoreSessions      int
	Token             string
	Title, Text, Wait string
	Providers         []pageLink
	Identities        []accounts.LinkedIdentity
	Links             []accounts.AccountLink
	Next              *pageLink
	Keys              []apikeys.View
	NewKey            *apikeys.View
	Scopes            []string
	Confirm           *pageConfirm
	Fields            []pageField
	Factor            *pageFactor
	Factors           *pageFactors
	Passkey           *pagePasskey // to log in with one; nil if that is not possible
	Passkeys          *pagePasskeys
	Ask               *pageAsk
	Data              any    // for a page of another module
	Client            string // the name of the site that requested the log-in
	Cancel            string // path back to the site that requested the log-in

	language *texts.Language // nil for what the client accepts
	leadsOn  bool            // its form may redirect to another site, as a page of an OpenID Provider does
}

// pageSite tells whose page it is.
type pageSite struct{ Name, Logo string }

// pagePart is the data for a part of a page that occurs several times.
type pagePart struct {
	Data *pageData
	For  string // unique on the page
}

// For returns the data for a part of the page.
func (d *pageData) For(name string) pagePart { return pagePart{d, name} }

// pageConfirm is the question on the page confirm.
type pageConfirm struct {
	Question, Yes, No string
	Action, Offer     string
	Password          bool // the user must enter it
	Always            bool // however recent the log-in was
}

// pageLink is a link on a page, such as the button of a provider.
type pageLink struct{ Name, Path string }

// pagePaths are the paths of links and forms. If sign-up is closed, Signup is empty.
type pagePaths struct {
	Login, Signup, Logout, Account, Password, Sessions, Identities, Keys, Reset, Style string
	Script                                                                             string
	Export, Delete, Factor, Factors, Passkey, Passkeys                                 string
	OpenAPI, ExplorerScript                                                            string
	Home                                                                               string // of the site

	Forgot, Code, Email string // empty without `mail` or `email_login`
}

func (p pagePaths) below(prefix string) pagePaths {
	for _, path := range []*string{
		&p.Login, &p.Signup, &p.Logout, &p.Account, &p.Password, &p.Sessions, &p.Identities, &p.Keys,
		&p.Reset, &p.Style, &p.Script, &p.Export, &p.Delete, &p.Factor, &p.Factors, &p.Forgot, &p.Code, &p.Email,
		&p.Passkey, &p.Passkeys, &p.OpenAPI, &p.ExplorerScript,
	} {
		if *path != "" {
			*path = prefix + *path
		}
	}
	return p
}

// pageUser and pageSession have only what a page may show: no hashes.
type pageUser struct {
	ID, Email string // Email is the user name of a user without an address, but for the account page
	Username  string // on the account page
	Password  bool   // the user has one
	Roles     []string
	Profile   map[string]string
}

type pageSession struct {
	ID, Device, Client, Address string
	CreatedAt, UsedAt           time.Time
	Used                        string // how long ago, in words
	Current                     bool
}

func newPages(service *accounts.Service, config *accounts.Config) (*pages, error) {
	p := &pages{
		texts: config.Texts(), templates: make(map[string]*pageTemplate), lead: service.Links.Lead,
		defaults: standardData(*config), policy: policyFor(config),
	}
	embedded, err := fs.Sub(embeddedPages, "pages")
	if err != nil {
		return nil, err
	}
	frame, err := readFrame(config.Templates, embedded)
	if err != nil {
		return nil, err
	}
	for _, name := range pageNames {
		text, err := readPage(config.Templates, embedded, name+".html")
		if err != nil {
			return nil, err
		}
		if p.templates[name], err = parsePage(p.texts, name, append(frame, text)...); err != nil {
			return nil, err
		}
	}
	if config.Templates != "" {
		if err := p.check(); err != nil {
			return nil, err
		}
	}
	p.files, err = newPageFiles(config, embedded)
	return p, err
}

// check returns an error if a page cannot be shown: a template of the site's own may lack a part, or name a
// field that there is not.
func (p *pages) check() error {
	data := p.defaults
	fields := reflect.ValueOf(&data).Elem()
	for i := range fields.NumField() { // what only some pages have
		if field := fields.Field(i); field.CanSet() && field.Kind() == reflect.Pointer {
			field.Set(reflect.New(field.Type().Elem()))
		}
	}
	for _, name := range pageNames {
		if _, err := p.execute(name, p.texts.English(), &data); err != nil {
			return fmt.Errorf("templates: %s.html cannot be shown: %w", name, err)
		}
	}
	return nil
}

// standardData returns the data that all pages of the accounts need.
func standardData(config accounts.Config) (data pageData) {
	at := &data.Paths
	at.Login, at.Logout, at.Account, at.Password = config.Path("login"), config.Path("logout"), config.Path("account"),
		config.Path("password")
	at.Sessions, at.Identities, at.Reset, at.Style = config.Path("sessions"), config.Path("identities"),
		config.Path("reset"), config.Path("style")
	at.Script = config.Path("script")
	at.Keys, at.Export, at.Delete = config.Path("keys"), config.Path("export"), config.Path("delete")
	at.Factor, at.Factors = config.Path("factor"), config.Path("factors")
	at.OpenAPI, at.ExplorerScript = config.Path("openapi"), config.Path("explorer script")
	at.Passkey, at.Passkeys = config.Path("passkey login"), config.Path("passkeys")
	for route, path := range map[string]*string{"forgot": &at.Forgot, "code": &at.Code, "email": &at.Email} {
		if config.HasRoute(route) {
			*path = config.Path(route)
		}
	}
	if config.Signup == "open" {
		at.Signup = config.Path("signup")
	}
	data.PasswordMinLength = config.PasswordMinLength
	data.Site, data.Identifier = pageSite{config.Name, config.Logo}, config.Identifier
	return data
}

// readFrame returns what all pages share.
func readFrame(dir string, embedded fs.FS) (frame [][]byte, err error) {
	for _, name := range []string{"parts.html", "layout.html"} {
		text, err := readPage(dir, embedded, name)
		if err != nil {
			return nil, err
		}
		frame = append(frame, text)
	}
	return slices.Clip(frame), nil
}

// readPage returns the operator's file if it exists, otherwise the embedded one.
func readPage(dir string, embedded fs.FS, name string) ([]byte, error) {
	if dir != "" {
		text, err := fs.ReadFile(os.DirFS(dir), name)
		if !errors.Is(err, fs.ErrNotExist) {
			return text, err
		}
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf(
				"templates: there is no folder %s; create it, or remove the option to use the standard pages", dir,
			)
		} else if err != nil {
			return nil, fmt.Errorf("templates: %w", err)
		}
	}
	return fs.ReadFile(embedded, name)
}

// ownPages are the pages of somebody who is logged in, which lead back to the site.
var ownPages = []string{"account", "keys", "factors", "passkeys"}

// render writes a page. If the template fails, it writes nothing.
func (p *pages) render(w http.ResponseWriter, r *http.Request, name string, data pageData, status int) error {
	lead := p.lead(data.ReturnTo)
	data.Client, data.Cancel, data.Onward = lead.Client, lead.Cancel, data.ReturnTo
	data.Paths, data.PasswordMinLength = p.defaults.Paths.below(answer.MountedAt(r)), p.defaults.PasswordMinLength
	data.Identifier = p.defaults.Identifier
	if slices.Contains(ownPages, name) {
		data.Paths.Home = answer.MountedAt(r) + "/"
	}
	policy := p.policyOf(data) + "; script-src " + sourceOf(r, data.Paths.Script)
	if name == "explorer" {
		policy += " " + sourceOf(r, data.Paths.ExplorerScript) + "; connect-src 'self'"
	}
	for route, path := range map[string]*string{
		"style": &data.Paths.Style, "script": &data.Paths.Script, "explorer script": &data.Paths.ExplorerScript,
	} {
		*path += p.files[route].version
	}
	if data.Site = p.defaults.Site; data.Site.Name == "" {
		data.Site.Name = hostOf(r)
	}
	for _, provider := range p.defaults.Providers {
		data.Providers = append(data.Providers, pageLink{provider.Name, answer.MountedAt(r) + provider.Path})
	}
	if (name == "login" || name == "signup") && data.Error == "" && credentials.PlainElsewhere(r) {
		data.Error = "This page did not come by https, so your browser will not keep you logged in. Open it by " +
			"https, or ask whoever runs this site for its https address."
		p.notePlain(r)
	}
	if name == "login" && p.offerPasskey != nil {
		data.Passkey = p.offerPasskey(w, r)
	}
	language := data.language
	if language == nil {
		language = p.languageOf(r, lead.Languages)
	}
	data.translate(language)
	page, err := p.execute(name, language, &data)
	if err == nil && status >= 400 && page.Len() > maxRefusedPage {
		data.Onward = "" // the form still has ReturnTo
		page, err = p.execute(name, language, &data)
	}
	if err == nil && status >= 400 && page.Len() > maxRefusedPage {
		data.ReturnTo, data.Email, data.Providers, data.Links = "", "", nil, nil
		for i := range data.Fields {
			data.Fields[i].Value = ""
		}
		page, err = p.execute(name, language, &data)
	}
	if err != nil {
		return fmt.Errorf("page %s: %w", name, err)
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(page.Len()))
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	if header.Get("Referrer-Policy") == "" {
		header.Set("Referrer-Policy", "same-origin")
	}
	header.Set("Cache-Control", "no-store")
	in(w, language)
	w.WriteHeader(status)
	_, err = w.Write(page.Bytes())
	return err
}

func (p *pages) execute(name string, language *texts.Language, data *pageData) (page bytes.Buffer, err error) {
	translated, err := p.templates[name].in(language)
	if err != nil {
		return page, err
	}
	return page, translated.ExecuteTemplate(&page, "layout", data)
}

// language returns the language of the answer to a request: that which the site wants to which a log-in
// leads, or else what the client accepts.
func (p *pages) language(r *http.Request) *texts.Language {
	returnTo := r.PostForm.Get("return_to") // if the body is a form that was read
	if returnTo == "" && r.URL.RawQuery != "" {
		returnTo = r.URL.Query().Get("return_to")
	}
	return p.languageOf(r, p.lead(answer.SafeReturnPath(returnTo, "")).Languages)
}

func (p *pages) languageOf(r *http.Request, wanted string) *texts.Language {
	if language := p.texts.Preferring(wanted); language != nil {
		return language
	}
	return p.texts.Accepting(strings.Join(r.Header.Values("Accept-Language"), ","))
}

// in says that an answer is in a language, and depends on what the client accepts.
func in(w http.ResponseWriter, language *texts.Language) {
	w.Header().Set("Content-Language", language.Tag())
	w.Header().Add("Vary", "Accept-Language")
}

// maxRefusedPage is the maximum size, in bytes, of a page that shows an error.
const maxRefusedPage = 8<<10 - 1

// hostOf returns the host of a request without the port.
func hostOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return r.Host
}

// policyOf returns the page's Content-Security-Policy. The response to a form may redirect to any
// site: to an OpenID client, and from there to others. Some browsers check form-action for each
// of these redirects, and stop silently. So such a page has no form-action.
func (p *pages) policyOf(data pageData) string {
	if data.ReturnTo == "" && !data.leadsOn {
		return p.policy
	}
	return strings.Replace(p.policy, " form-action 'self';", "", 1)
}

func (h *Handler) loginPage(w http.ResponseWriter, r *http.Request) error {
	h.dropOffer(w, r) // the user came here without it, so the offer does not apply
	query := r.URL.Query()
	returnTo := answer.SafeReturnPath(query.Get("return_to"), "")
	if login := h.autoLogin(); login != nil && returnTo != "" && r.Method == http.MethodGet {
		return h.redirectOut(w, r, login, returnTo)
	}
	return h.pages.render(w, r, "login", pageData{ReturnTo: returnTo, Email: query.Get("email")}, http.StatusOK)
}

func (h *Handler) signupPage(w http.ResponseWriter, r *http.Request) error {
	return h.pages.render(w, r, "signup", pageData{
		ReturnTo: answer.SafeReturnPath(r.URL.Query().Get("return_to"), ""),
		Fields:   h.signupFields(func(string) string { return "" }),
	}, http.StatusOK)
}

// resetPage shows the form if the link is valid. It first moves the token from the URL into a
// cookie, so that a page that the browser opens from here cannot learn it from the Referer.
func (h *Handler) resetPage(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Referrer-Policy", "no-referrer")
	token := r.URL.Query().Get("token")
	if r.URL.RawQuery == "" {
		if cookies := r.CookiesNamed(resetCookieName(r)); len(cookies) == 1 {
			token = cookies[0].Value
		}
	}
	user, link, err := h.service.LogIns.ResetUser(r.Context(), token, h.asker(r).Browser)
	if failure, ok := errors.AsType[*refusal.Error](err); ok && failure.Reason == refusal.OneTimeToken {
		return h.showBrokenLink(w, r)
	}
	if err != nil {
		return err
	}
	if r.URL.RawQuery != "" {
		h.setResetCookie(w, r, token)
		answer.SeeOther(w, answer.MountedAt(r)+h.Path("reset"))
		return nil
	}
	return h.pages.render(w, r, "reset", pageData{Email: user.Email, ReturnTo: link.ReturnTo}, http.StatusOK)
}

// showBrokenLink shows a page that says that the link is not valid, and how to get another one.
func (h *Handler) showBrokenLink(w http.ResponseWriter, r *http.Request) error {
	refusal := &refusal.Error{Reason: refusal.OneTimeToken}
	h.answers.Announce(w, r, refusal)
	w.Header().Set("Referrer-Policy", "no-referrer")
	h.setResetCookie(w, r, "")
	data := pageData{
		Title: "This link does not work",
		Text: "It has expired, was already used or is incomplete, or your browser blocks cookies. " +
			"If you have just used it to set a password, log in with that password. Otherwise, open the link again " +
			"exactly as you received it. If that does not help, ask the operators of this site for a new one.",
	}
	if h.HasRoute("forgot") {
		data.Text = "It has expired, was already used or is incomplete, or your browser blocks cookies. " +
			"If you have just used it to set a password, log in with that password. Otherwise, open the link again " +
			"exactly as you received it. If that does not help, let us send you another one."
		data.Next = &pageLink{askForgot.Button, answer.MountedAt(r) + h.Path("forgot")}
	}
	return h.pages.render(w, r, "message", data, refusal.Reason.Answer().Status)
}

// maxLinkToken is the maximum length of the token of a link, as a page repeats it.
const maxLinkToken = 128

const (
	// resetCookie holds the token of a link while the user fills in the form.
	resetCookie         = "reset"
	resetCookieLifetime = 10 * time.Minute
	securePrefix        = "__Secure-"
)

// resetCookieName returns the cookie's name. Its prefix is __Secure-, because __Host- of the
// other cookies requires the path /, and this cookie is for one path only.
func resetCookieName(r *http.Request) string {
	if credentials.PlainLoopback(r) {
		return resetCookie
	}
	return securePrefix + resetCookie
}

// setResetCookie stores a token in the browser. An empty token removes the cookie.
func (h *Handler) setResetCookie(w http.ResponseWriter, r *http.Request, token string) {
	expires := h.service.Now().Add(resetCookieLifetime)
	if token == "" {
		if len(r.CookiesNamed(resetCookieName(r))) == 0 {
			return
		}
		expires = time.Unix(1, 0)
	}
	http.SetCookie(w, &http.Cookie{
		Name: resetCookieName(r), Value: token, Path: answer.MountedAt(r) + h.Path("reset"), Expires: expires,
		Secure: !credentials.PlainLoopback(r), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

func (h *Handler) accountPage(w http.ResponseWriter, r *http.Request) error {
	token, err := h.shared.caller(w, r)
	if err != nil {
		if refusal.Of(err).Reason.Answer().Status == http.StatusUnauthorized {
			answer.SeeOther(w, answer.MountedAt(r)+h.Path("login"))
			return nil
		}
		return err
	}
	return h.renderAccount(w, r, token, pageData{}, http.StatusOK)
}

// logInFirst sends a browser without a session to the log-in page, which leads back to a route.
func (h *Handler) logInFirst(w http.ResponseWriter, r *http.Request, route string, err error) error {
	if refusal.Of(err).Reason.Answer().Status != http.StatusUnauthorized {
		return err
	}
	answer.SeeOther(w, h.shared.LoginURL(r, answer.MountedAt(r)+h.Path(route), ""))
	return nil
}

func (h *Handler) renderAccount(
	w http.ResponseWriter, r *http.Request, token *jwt.Token, data pageData, status int,
) error {
	user, err := h.service.Users().User(r.Context(), token.UserID)
	if err != nil {
		return accounts.StoreRefusal(err)
	}
	data.Fields = h.editable(user)
	if status >= 400 { // an error page shows the forms only, without sessions and identities
		data.User = pageUser{
			ID: user.ID, Email: user.Address(), Username: user.Username(), Password: user.PasswordHash != "",
		}
		return h.pages.render(w, r, "account", data, status)
	}
	sessions, err := h.service.Users().Sessions(r.Context(), token.UserID, h.service.Now())
	if err != nil {
		return accounts.StoreRefusal(err)
	}
	if data.Identities, err = h.service.Identities.Of(r.Context(), user.ID); err != nil {
		return err
	}
	data.User = pageUser{
		ID: user.ID, Email: user.Address(), Username: user.Username(), Password: user.PasswordHash != "",
		Roles: user.Roles, Profile: make(map[string]string),
	}
	for name, value := range user.Properties() {
		if !slices.ContainsFunc(data.Fields, func(field pageField) bool { return field.Name == name }) {
			data.User.Profile[name] = profileText(value)
		}
	}
	language := h.pages.language(r)
	sessions = h.ownView(sessions, SessionOf(token))
	slices.SortStableFunc(sessions, func(a, b store.Session) int { return b.UsedAt.Compare(a.UsedAt) })
	shown := sessions[:min(len(sessions), maxShownSessions)]
	data.MoreSessions = len(sessions) - len(shown)
	for _, x := range shown {
		data.Sessions = append(data.Sessions, pageSession{
			x.ID, device(language, x.UserAgent), x.UserAgent, x.Address, x.CreatedAt, x.UsedAt,
			ago(language, h.service.Now(), x.UsedAt), x.ID == SessionOf(token),
		})
	}
	if h.KeyPrefix != "" {
		data.Links = append(data.Links, accounts.AccountLink{
			Label: "Your API keys", Path: answer.MountedAt(r) + h.Path("keys"),
		})
	}
	if h.SecondFactor != "" {
		data.Links = append(data.Links, accounts.AccountLink{
			Label: "Two-step log-in", Path: answer.MountedAt(r) + h.Path("factors"),
		})
	}
	if h.Passkeys != nil {
		data.Links = append(data.Links, accounts.AccountLink{
			Label: "Your passkeys", Path: answer.MountedAt(r) + h.Path("passkeys"),
		})
	}
	if h.service.LogIns.MayInvite(user) {
		data.Links = append(data.Links, accounts.AccountLink{
			Label: askInvite.Title, Path: answer.MountedAt(r) + h.Path("invite"),
		})
	}
	data.Links = append(data.Links, h.service.Links.All()...)
	return h.pages.render(w, r, "account", data, status)
}

// maxShownSessions is how many sessions the account page shows, those that were used last.
const maxShownSessions = 20

func profileText(value any) string {
	switch v := value.(type) {
	case []any:
		return jwt.List(v).String()
	case map[string]any:
		return jwt.Claims(v).String()
	}
	return jwt.ClaimText(value)
}

// pageOr shows the refusal of a form on the form's page. For any other request it returns the
// refusal.
func (h *Handler) pageOr(w http.ResponseWriter, r *http.Request, in *input, page string, err error) error {
	failure, ok := errors.AsType[*refusal.Error](err)
	if !in.form || !ok {
		return err
	}
	h.answers.Announce(w, r, failure)
	data := h.refusedForm(r, in, failure)
	if page == "signup" {
		data.Fields = h.signupFields(func(name string) string { return accounts.Cut(in.text(name), maxShownValue) })
	}
	if page == "reset" && in.text("token") != "" && len(r.CookiesNamed(resetCookieName(r))) == 0 {
		data.Token = accounts.Cut(in.text("token"), maxLinkToken) // posted by a page that is not ours
	}
	return h.pages.render(w, r, page, data, failure.Reason.Answer().Status)
}

// maxShownValue is how much of a refused property its form shows again, in bytes.
const maxShownValue = 256

// refusedForm returns the data to show a form again, with its errors.
func (h *Handler) refusedForm(r *http.Request, in *input, failure *refusal.Error) pageData {
	language := h.pages.language(r)
	data := pageData{
		Email:    accounts.Cut(cmp.Or(in.text("email"), in.text("username")), 2*store.MaxEmailBytes),
		ReturnTo: answer.SafeReturnPath(in.text("return_to"), ""), Errors: make(map[string]string),
	}
	switch failure.Reason {
	case refusal.Properties:
	case refusal.EmailTaken:
		data.Error = "An account with this e-mail address already exists. " +
			"If you have just created it, log in with the password that you chose."
	case refusal.WrongCredentials:
		data.Error = h.pages.wrongCredentials()
	default:
		data.Error = formText(language, failure)
	}
	for _, property := range failure.Properties {
		data.Errors[property.Path[1:]] = language.ErrorText(property.Cause)
	}
	return data
}
