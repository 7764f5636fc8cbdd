package web

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// MaxBodyBytes is the maximum size of a request body, in bytes.
const MaxBodyBytes = 64 << 10

// login handles a log-in: it answers JSON with tokens, and the page's form with cookies.
func (h *Handler) login(w http.ResponseWriter, r *http.Request) error {
	in, err := readInput(w, r, "email", "password")
	if err != nil {
		return err
	}
	in.want("email")
	in.want("password")
	if err := in.err(); err != nil {
		return h.pageOr(w, r, in, "login", err)
	}
	given, err := h.service.LogIn(r.Context(), in.text("email"), in.text("password"), client(r))
	if err != nil {
		return h.pageOr(w, r, in, "login", err)
	}
	if in.form && h.offersTo(w, r, in, given) {
		in.values["return_to"] = answer.MountedAt(r) + h.Path("connect")
	}
	return h.answerGrant(w, r, in, given)
}

// answerGrant returns the tokens. A browser gets them as cookies of a new session, so that
// nobody can have set them before.
func (h *Handler) answerGrant(w http.ResponseWriter, r *http.Request, in *input, given *accounts.Grant) error {
	if !in.form {
		return answer.WriteJSON(w, http.StatusOK, tokenAnswer(given))
	}
	if err := h.service.ReplaceSession(r.Context(), given, refreshTokenOf(r)); err != nil {
		return err
	}
	SetSessionCookies(w, r, given)
	answer.SeeOther(w, answer.SafeReturnPath(in.text("return_to"), answer.MountedAt(r)+h.Path("account")))
	return nil
}

func tokenAnswer(given *accounts.Grant) map[string]any {
	return map[string]any{
		"token": given.AccessToken, "tokenType": "Bearer", "expiresIn": int64(given.ExpiresIn / time.Second), "refreshToken": given.RefreshToken,
	}
}

func (h *Handler) signup(w http.ResponseWriter, r *http.Request) error {
	in, err := readInput(w, r, append([]string{"email", "password"}, h.Profile...)...)
	if err != nil {
		return err
	}
	email, password := in.want("email"), in.want("password")
	if email != "" {
		if _, err := store.EmailKey(email); err != nil {
			in.wrong("email", "format", err, map[string]any{"format": "email"})
		}
	}
	h.checkPasswordInput(in, "password", password)
	profile := make(map[string]any)
	for _, name := range h.Profile {
		value, given := in.values[name]
		if store.OutOfRange(value) {
			in.wrong(name, "type", errors.New("contains a number that is out of range"), map[string]any{})
		}
		if store.DeeperThan(value, store.MaxProfileDepth) {
			in.wrong(name, "maxDepth", fmt.Errorf("is nested deeper than %d levels", store.MaxProfileDepth), map[string]any{"limit": store.MaxProfileDepth})
		}
		if !store.DeeperThan(value, store.MaxProfileDepth) && store.ValueSize(value) > store.MaxProfileBytes {
			in.wrong(name, "maxLength", fmt.Errorf("has more than %d bytes", store.MaxProfileBytes), map[string]any{"limit": store.MaxProfileBytes})
		}
		if given {
			profile[name] = store.PlainValue(value)
		}
	}
	if err := in.err(); err != nil {
		return h.pageOr(w, r, in, "signup", err)
	}
	user, err := h.service.SignUp(r.Context(), email, password, profile, client(r))
	if err != nil {
		return h.pageOr(w, r, in, "signup", err)
	}
	accounts.CountEvent("signup", "ok")
	if !in.form {
		return answer.WriteJSON(w, http.StatusCreated, userAnswer(user))
	}
	given, err := h.service.BeginSession(r.Context(), user, client(r))
	if err != nil {
		return h.pageOr(w, r, in, "login", err)
	}
	return h.answerGrant(w, r, in, given)
}

func (h *Handler) checkPasswordInput(in *input, name, pw string) {
	if pw == "" {
		return // missing, already reported
	}
	if err := password.CheckNew(pw, h.PasswordMinLength); err != nil {
		code, info := "password", map[string]any{}
		switch {
		case password.Length(pw) < h.PasswordMinLength:
			code, info = "minLength", map[string]any{"limit": h.PasswordMinLength}
		case len(pw) > password.MaxBytes:
			code, info = "maxLength", map[string]any{"limit": password.MaxBytes}
		}
		in.wrong(name, code, err, info)
	}
}

// userAnswer returns a user as clients see it, without the password.
func userAnswer(user store.User) map[string]any {
	answer := make(map[string]any)
	for name, value := range user.Profile {
		answer[name] = value
	}
	answer["id"], answer["email"], answer["roles"] = user.ID, user.Email, user.Roles
	if user.Roles == nil {
		answer["roles"] = []string{}
	}
	return answer
}

func (h *Handler) refresh(w http.ResponseWriter, r *http.Request) error {
	in, err := readInput(w, r, "refreshToken")
	if err != nil {
		return err
	}
	if in.form { // browsers are renewed automatically
		return refusal.New(refusal.MediaType, "it is a form, not JSON")
	}
	token := in.want("refreshToken")
	if err := in.err(); err != nil {
		return err
	}
	given, err := h.service.Refresh(r.Context(), token, client(r))
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, tokenAnswer(given))
}

// logout ends the session of the token. A browser without a session is already logged out.
func (h *Handler) logout(w http.ResponseWriter, r *http.Request) error {
	form := isForm(r)
	token, err := h.shared.caller(w, r)
	if err == nil {
		err = h.service.EndBrowser(r.Context(), token.UserID, SessionOf(token))
	}
	if refusal, ok := errors.AsType[*refusal.Error](err); ok && form && refusal.Reason.Answer().Status == http.StatusUnauthorized {
		err = nil
	}
	if err != nil {
		return err
	}
	if token != nil {
		accounts.CountEvent("logout", "ok")
		h.service.Audit("logout", token.UserID, SessionOf(token), client(r))
	}
	clearSessionCookies(w, r)
	if form {
		answer.SeeOther(w, answer.MountedAt(r)+h.Path("login"))
		return nil
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) whoami(w http.ResponseWriter, r *http.Request) error {
	_, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	if answer.Prefers(r, "text/plain", "application/json") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, err := io.WriteString(w, user.ID)
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, userAnswer(user))
}

func (h *Handler) password(w http.ResponseWriter, r *http.Request) error {
	token, err := h.shared.caller(w, r)
	if err != nil {
		return err
	}
	in, err := readInput(w, r, "currentPassword", "newPassword")
	if err != nil {
		return err
	}
	current, fresh := in.want("currentPassword"), in.want("newPassword")
	h.checkPasswordInput(in, "newPassword", fresh)
	if err := in.err(); err != nil {
		return h.pageOr(w, r, in, "account", err)
	}
	if err := h.service.ChangePassword(r.Context(), token.UserID, SessionOf(token), current, fresh, client(r)); err != nil {
		return h.pageOr(w, r, in, "account", err)
	}
	if in.form {
		notice := "Your password was changed, and your other sessions were ended."
		links, err := h.service.Identities(r.Context(), token.UserID)
		if err != nil {
			return err
		}
		if len(links) > 0 {
			notice += " You can still log in through " + accounts.Listed(links) + "."
		}
		return h.renderAccount(w, r, token, pageData{Notice: notice}, http.StatusOK)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// reset sets a password with the token of a link.
func (h *Handler) reset(w http.ResponseWriter, r *http.Request) error {
	in, err := readInput(w, r, "token", "newPassword")
	if err != nil {
		return err
	}
	if in.form {
		w.Header().Set("Referrer-Policy", "no-referrer")
		if cookies := r.CookiesNamed(resetCookieName(r)); in.text("token") == "" && len(cookies) == 1 {
			in.values["token"] = cookies[0].Value
		}
		if in.text("token") == "" {
			return h.showBrokenLink(w, r)
		}
	}
	token, fresh := in.want("token"), in.want("newPassword")
	h.checkPasswordInput(in, "newPassword", fresh)
	if err := in.err(); err != nil {
		return h.pageOr(w, r, in, "reset", err)
	}
	gone, err := h.service.ResetPassword(r.Context(), token, fresh, client(r))
	if failure, ok := errors.AsType[*refusal.Error](err); ok && in.form && failure.Reason == refusal.OneTimeToken {
		return h.showBrokenLink(w, r)
	}
	if err != nil {
		return h.pageOr(w, r, in, "reset", err)
	}
	if in.form {
		clearSessionCookies(w, r)
		h.setResetCookie(w, r, "")
		text := "You can log in with it now. All sessions were ended."
		if len(gone) > 0 {
			text += " " + accounts.Listed(gone) + " can no longer log in to your account. You can connect your own identities again on your account page."
		}
		return h.pages.render(w, r, "message", pageData{Title: "Your password was changed", Text: text}, http.StatusOK)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) sessions(w http.ResponseWriter, r *http.Request) error {
	token, err := h.shared.caller(w, r)
	if err != nil {
		return err
	}
	sessions, err := h.service.Users().Sessions(r.Context(), token.UserID, h.service.Now())
	if err != nil {
		return accounts.StoreRefusal(err)
	}
	body := make([]map[string]any, len(sessions))
	for i, s := range h.ownView(sessions, SessionOf(token)) {
		body[i] = map[string]any{
			"id": s.ID, "client": s.Client, "address": s.Address, "createdAt": s.CreatedAt.UTC(), "usedAt": s.UsedAt.UTC(), "expiresAt": s.ExpiresAt.UTC(),
			"current": s.ID == SessionOf(token),
		}
	}
	return answer.WriteJSON(w, http.StatusOK, body)
}

// ownView shows the requesting session as used just now. The time of its last refresh would
// tell a thief with the access token when to use a refresh token; see repeatWithin.
func (h *Handler) ownView(sessions []store.Session, own string) []store.Session {
	for i := range sessions {
		if sessions[i].ID == own {
			sessions[i].UsedAt = h.service.Now()
		}
	}
	return sessions
}

func (h *Handler) endSession(w http.ResponseWriter, r *http.Request, id string) error {
	token, err := h.shared.caller(w, r)
	if err != nil {
		return err
	}
	sessions, err := h.service.Users().Sessions(r.Context(), token.UserID, h.service.Now())
	if err != nil {
		return accounts.StoreRefusal(err)
	}
	if !slices.ContainsFunc(sessions, func(s store.Session) bool { return s.ID == id }) {
		return &refusal.Error{Reason: refusal.NoSuchRoute}
	}
	if err := h.service.EndSessions(r.Context(), token.UserID, id, ""); err != nil {
		return err
	}
	h.service.Audit("session ended", token.UserID, id, client(r))
	if r.Method == http.MethodPost {
		if id == SessionOf(token) {
			clearSessionCookies(w, r)
		}
		answer.SeeOther(w, answer.MountedAt(r)+h.Path("account"))
		return nil
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) jwks(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=10") // signing.DefaultLead is longer
	w.Header().Set("Access-Control-Allow-Origin", "*")    // public keys are for everybody
	_, err := w.Write(h.service.Keys.JWKS())
	return err
}

// SessionOf returns the session ID of a token, or the empty string.
func SessionOf(token *jwt.Token) string {
	id, _ := token.Claims["sid"].(string)
	return id
}

func client(r *http.Request) accounts.Client {
	address, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return accounts.Client{Address: address, UserAgent: r.UserAgent()}
}

// MaxPropertyErrors is the maximum number of listed errors of a body. If there are more,
// one additional entry says so.
const MaxPropertyErrors = 16

// input is the body of a request: a JSON object or a form.
type input struct {
	values     map[string]any
	form       bool
	properties []refusal.PropertyError
	unknown    int // properties
}

func isForm(r *http.Request) bool {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return kind == "application/x-www-form-urlencoded"
}

// readInput reads a body. Unknown properties are an error.
func readInput(w http.ResponseWriter, r *http.Request, known ...string) (*input, error) {
	in := &input{form: isForm(r)}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/json" && !in.form {
		return nil, refusal.New(refusal.MediaType, "it is %s", refusal.Quoted(kind))
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxBodyBytes)
	if in.form {
		return in, in.readForm(r)
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, bodyRefusal(err)
	}
	object, err := jwt.ParseClaims(text)
	if err != nil {
		return nil, refusal.New(refusal.Body, "%v", err)
	}
	in.values = object
	for name := range object {
		if slices.Contains(known, name) {
			continue
		}
		if in.unknown++; in.unknown <= MaxPropertyErrors {
			in.wrong(name, "additionalProperties", errors.New("is not a known property"), map[string]any{"additionalProperty": shownName(name)})
		}
	}
	return in, nil
}

func (in *input) readForm(r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return bodyRefusal(err)
	}
	in.values = make(map[string]any)
	for name, values := range r.PostForm {
		if len(values) > 1 {
			return refusal.New(refusal.Body, "a field of the form is specified twice")
		}
		if name == "email" {
			values[0] = strings.TrimSpace(values[0]) // phones add a blank
		}
		if values[0] != "" {
			in.values[name] = values[0]
		}
	}
	return nil
}

func bodyRefusal(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return refusal.New(refusal.BodyTooLarge, "more than %d bytes", MaxBodyBytes)
	}
	return refusal.New(refusal.Body, "it was not received completely")
}

// text returns a property that is a string, otherwise the empty string.
func (in *input) text(name string) string {
	text, _ := in.values[name].(string)
	return text
}

// want returns a required string.
func (in *input) want(name string) string {
	value, present := in.values[name]
	text, isText := value.(string)
	switch {
	case !present:
		in.wrong(name, "required", errors.New("is required"), map[string]any{"missingProperty": name})
	case !isText:
		in.wrong(name, "type", errors.New("must be a string"), map[string]any{"type": "string"})
	case text == "":
		in.wrong(name, "minLength", errors.New("must not be empty"), map[string]any{"limit": 1})
	}
	return text
}

func (in *input) wrong(name, code string, err error, info map[string]any) {
	path := "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(shownName(name))
	in.properties = append(in.properties, refusal.PropertyError{Path: path, Code: code, Message: err.Error(), Info: info})
}

func (in *input) err() error {
	if len(in.properties) == 0 {
		return nil
	}
	all := len(in.properties) + max(0, in.unknown-MaxPropertyErrors)
	if all > MaxPropertyErrors { // those of properties that are known go before the others
		slices.SortStableFunc(in.properties, func(a, b refusal.PropertyError) int {
			return cmp.Compare(btoi(a.Code == "additionalProperties"), btoi(b.Code == "additionalProperties"))
		})
		in.properties = in.properties[:MaxPropertyErrors]
	}
	slices.SortFunc(in.properties, func(a, b refusal.PropertyError) int { return strings.Compare(a.Path, b.Path) })
	if more := all - len(in.properties); more > 0 {
		in.properties = append(in.properties, refusal.PropertyError{Path: "", Code: "more", Message: fmt.Sprintf("has errors that are not listed: %d", more), Info: map[string]any{"more": more}})
	}
	return &refusal.Error{Reason: refusal.Properties, Properties: in.properties}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// shownName returns a property's name for a response, shortened because JSON needs six
// characters for a control character.
func shownName(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' {
			return '\ufffd'
		}
		return r
	}, accounts.Cut(name, 64))
}
