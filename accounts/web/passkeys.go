package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/passkey"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
)

// passkeyCookie has the secret to which the challenges of the log-in page are bound.
const passkeyCookie = "passkey"

// pagePasskey is what the script of a page needs to make or use a passkey.
type pagePasskey struct {
	Options string // JSON
}

func newPagePasskey(options any) (*pagePasskey, error) {
	text, err := json.Marshal(options)
	return &pagePasskey{string(text)}, err
}

// pagePasskeys is for the page passkeys.
type pagePasskeys struct {
	List      []pageListed
	Password  bool         // the user has one
	Ask       bool         // the password must be entered to add or remove one
	Create    *pagePasskey // if one can be added now
	Prove     string       // see [Handler.toProve]
	Suggested string       // its name
}

type pageListed struct {
	passkey.Passkey
	Used     string // how long ago, in words; empty for never
	OtherFor string // the domain that it is for, if that is another one
}

// passkeyRoute serves the routes of passkeys.
func (h *Handler) passkeyRoute(name, id string) (serve accountRoute, methods []string) {
	get, post := []string{http.MethodGet, http.MethodHead}, http.MethodPost
	switch name {
	case "passkeys":
		return h.byMethod(h.listPasskeys, h.addPasskey), append(get, post)
	case "passkey options":
		return h.byMethod(h.toPasskeys, h.passkeyOptions), append(get, post)
	case "passkey login":
		return h.byMethod(h.toLogin, h.logInByPasskey), append(get, post)
	case "passkey login options":
		return h.passkeyLogInOptions, []string{post}
	case "step up options":
		return h.stepUpOptions, []string{post}
	}
	return func(w http.ResponseWriter, r *http.Request) error { return h.changePasskey(w, r, id) },
		[]string{post, http.MethodPatch, http.MethodDelete}
}

func (h *Handler) toPasskeys(w http.ResponseWriter, r *http.Request) error {
	answer.SeeOther(w, answer.MountedAt(r)+h.Path("passkeys"))
	return nil
}

func (h *Handler) toLogin(w http.ResponseWriter, r *http.Request) error {
	answer.SeeOther(w, answer.MountedAt(r)+h.Path("login"))
	return nil
}

// offerPasskey returns what the log-in page needs to offer passkeys; nil if it cannot.
func (h *Handler) offerPasskey(w http.ResponseWriter, r *http.Request) *pagePasskey {
	if h.party == nil || !h.party.Covers(hostOf(r)) {
		return nil
	}
	secret := onlyCookie(r, passkeyCookie) // of another tab
	if secret == "" {
		secret = store.RandomToken(pendingBytes)
	}
	options, err := h.service.Keyring.LogInOptions(r.Context(), h.party, secret)
	var offer *pagePasskey
	if err == nil {
		offer, err = newPagePasskey(options)
	}
	if err != nil { // the user can still log in another way
		h.service.LogStoreFailure(refusal.Of(err))
		return nil
	}
	credentials.SetCookie(w, r, passkeyCookie, secret, h.service.Now().Add(time.Hour))
	return offer
}

// noBodyOr reads a body if there is one.
func noBodyOr(w http.ResponseWriter, r *http.Request, known ...string) (*input, error) {
	if r.ContentLength == 0 && r.Header.Get("Content-Type") == "" {
		return new(input), nil
	}
	return readInput(w, r, known...)
}

// passkeyLogInOptions returns options to a program: to log in with a passkey, or to complete a log-in
// that waits for a second factor.
func (h *Handler) passkeyLogInOptions(w http.ResponseWriter, r *http.Request) error {
	in, err := noBodyOr(w, r, "challenge")
	if err != nil {
		return err
	}
	if in.form { // pages have them already
		return refusal.New(refusal.MediaType, "it is a form, not JSON")
	}
	secret, options := store.RandomToken(pendingBytes), any(nil)
	if _, waits := in.values["challenge"]; waits {
		if secret = in.want("challenge"); in.err() != nil {
			return in.err()
		}
		var waiting *accounts.Waiting
		if waiting, err = h.service.Factors.Challenged(r.Context(), secret, client(r)); err == nil {
			options, err = h.service.Keyring.CompletionOptions(r.Context(), h.party, waiting)
		}
	} else if err = in.err(); err == nil {
		options, err = h.service.Keyring.LogInOptions(r.Context(), h.party, secret)
	}
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, map[string]any{"challenge": secret, "publicKey": options})
}

// credential returns the answer of the browser about a passkey, a required property: an object, or its
// text in a form.
func (in *input) credential() []byte {
	value := in.values["credential"]
	if text, isText := value.(string); in.form && isText {
		return []byte(text)
	}
	if text, err := json.Marshal(value); err == nil && text[0] == '{' {
		return text
	}
	if value == nil {
		in.wrong("credential", "required", texts.Errorf("is required"), map[string]any{"missingProperty": "credential"})
	} else {
		in.wrong("credential", "type", texts.Errorf("must be an object"), map[string]any{"type": "object"})
	}
	return nil
}

// logInByPasskey is a log-in with a passkey alone: it answers JSON with tokens, and the page's form
// with cookies.
func (h *Handler) logInByPasskey(w http.ResponseWriter, r *http.Request) error {
	in, err := readInput(w, r, "challenge", "credential")
	if err != nil {
		return err
	}
	var secret string
	if in.form {
		if secret = onlyCookie(r, passkeyCookie); secret == "" {
			return h.pageOr(w, r, in, "login", refusal.New(refusal.PasskeyExpired, "the cookie is missing"))
		}
	} else {
		secret = in.want("challenge")
	}
	var grant *accounts.Grant
	asker, credential := h.newAsker(r, in), in.credential()
	if err = in.err(); err == nil {
		grant, err = h.service.Keyring.LogIn(r.Context(), h.party, secret, credential, asker)
	}
	if failure, ok := errors.AsType[*refusal.Error](err); ok && failure.Reason == refusal.EmailNotVerified {
		return h.showUnverified(w, r, in, asker, err)
	}
	if err == nil && in.form {
		err = h.enter(w, r, in, grant)
	}
	if in.form && h.asksFactor(w, r, in.text("return_to"), err) {
		return nil
	}
	if err != nil {
		return h.pageOr(w, r, in, "login", err)
	}
	return h.answerGrant(w, r, in, grant)
}

// passkeyAnswer returns a passkey as clients see it.
func (h *Handler) passkeyAnswer(k passkey.Passkey) map[string]any {
	shown := map[string]any{
		"id": k.ID, "name": k.Name, "addedAt": k.AddedAt.UTC(), "usedAt": nil, "synced": k.Synced(),
		"domain": k.Party, "usable": h.party != nil && h.party.Usable([]passkey.Passkey{k}),
	}
	if !k.UsedAt.IsZero() {
		shown["usedAt"] = k.UsedAt.UTC()
	}
	if model, err := uuid.FromBytes(k.AAGUID); err == nil && model != uuid.Nil {
		shown["aaguid"] = model.String()
	}
	return shown
}

func (h *Handler) passkeyAnswers(all []passkey.Passkey) []map[string]any {
	shown := make([]map[string]any, len(all))
	for i, k := range all {
		shown[i] = h.passkeyAnswer(k)
	}
	return shown
}

// listPasskeys lists the passkeys of the caller, for a browser as a page.
func (h *Handler) listPasskeys(w http.ResponseWriter, r *http.Request) error {
	page := answer.Prefers(r, "text/html", "application/json")
	token, user, err := h.shared.callerUser(w, r)
	if page && h.sentToLogin(w, r, "passkeys", err) {
		return nil
	}
	if err != nil {
		return err
	}
	if page {
		return h.renderPasskeys(w, r, token, user, pageData{}, false, http.StatusOK)
	}
	all, err := h.service.Keyring.Of(r.Context(), user.ID)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, h.passkeyAnswers(all))
}

// renderPasskeys shows the page; confirmed reports whether the user has just proved to be present.
func (h *Handler) renderPasskeys(
	w http.ResponseWriter, r *http.Request, token *jwt.Token, user store.User, data pageData, confirmed bool,
	status int,
) error {
	all, err := h.service.Keyring.Of(r.Context(), user.ID)
	if err != nil {
		return err
	}
	fresh, err := h.service.Sessions.IsFresh(r.Context(), user.ID, SessionOf(token))
	if err != nil {
		return err
	}
	toProve, err := h.toProve(r, user, token, "passkeys")
	if err != nil {
		return err
	}
	language := h.pages.language(r)
	shown := &pagePasskeys{
		Password: user.PasswordHash != "", Ask: !fresh, Prove: toProve, Suggested: device(language, r.UserAgent()),
	}
	for _, k := range all {
		listed := pageListed{Passkey: k}
		if !k.UsedAt.IsZero() {
			listed.Used = ago(language, h.service.Now(), k.UsedAt)
		}
		if k.Party != h.party.ID {
			listed.OtherFor = k.Party
		}
		if status < 400 { // an error page shows the forms only
			shown.List = append(shown.List, listed)
		}
	}
	mayAdd := toProve == "" && (fresh || confirmed)
	if mayAdd && len(all) < passkey.MaxPerUser && h.party.Covers(hostOf(r)) {
		options, err := h.service.Keyring.CreationOptions(r.Context(), h.party, user, SessionOf(token))
		if err == nil {
			shown.Create, err = newPagePasskey(options)
		}
		if err != nil {
			return err
		}
	}
	data.User = pageUser{ID: user.ID, Email: user.Email, Password: user.PasswordHash != ""}
	data.Passkeys = shown
	return h.pages.render(w, r, "passkeys", data, status)
}

// passkeysFailed shows a refusal on the page. To a program it returns the refusal.
func (h *Handler) passkeysFailed(
	w http.ResponseWriter, r *http.Request, token *jwt.Token, user store.User, in *input, err error,
) error {
	failure, ok := errors.AsType[*refusal.Error](err)
	if !in.form || !ok {
		return err
	}
	h.service.LogStoreFailure(failure)
	h.answers.Announce(w, r, failure)
	data := h.refusedForm(r, in, failure)
	if failure.Reason == refusal.WrongCredentials {
		data.Error = confirmError(h.pages.language(r), failure)
	}
	return h.renderPasskeys(w, r, token, user, data, false, failure.Reason.Answer().Status)
}

// confirmed checks that the user is present; see [accounts.LogIns.Confirm].
func (h *Handler) confirmed(r *http.Request, token *jwt.Token, user store.User, in *input) error {
	if _, given := in.values["password"]; given {
		in.want("password")
	}
	if err := in.err(); err != nil {
		return err
	}
	return h.service.LogIns.Confirm(r.Context(), user, SessionOf(token), in.text("password"), client(r))
}

// passkeyOptions returns the options to make a passkey, for a browser as a page.
func (h *Handler) passkeyOptions(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	in, err := noBodyOr(w, r, "password")
	if err != nil {
		return err
	}
	if err := h.confirmed(r, token, user, in); err != nil {
		return h.passkeysFailed(w, r, token, user, in, err)
	}
	if in.form {
		data := pageData{ReturnTo: answer.SafeReturnPath(in.text("return_to"), "")}
		return h.renderPasskeys(w, r, token, user, data, true, http.StatusOK)
	}
	options, err := h.service.Keyring.CreationOptions(r.Context(), h.party, user, SessionOf(token))
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, map[string]any{"publicKey": options})
}

// wantName returns the required name of a passkey.
func (in *input) wantName() string {
	name := strings.TrimSpace(in.want("name"))
	if in.text("name") == "" { // already reported
		return ""
	}
	if err := passkey.CheckName(name); err != nil {
		in.wrong("name", "maxLength", err, map[string]any{"limit": passkey.MaxName})
	}
	return name
}

// addPasskey adds the passkey that the user's browser has made.
func (h *Handler) addPasskey(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	in, err := readInput(w, r, "name", "credential")
	if err != nil {
		return err
	}
	var made passkey.Passkey
	name, credential := in.wantName(), in.credential()
	if err = in.err(); err == nil {
		made, err = h.service.Keyring.Add(
			r.Context(), h.party, user, SessionOf(token), name, credential, h.asker(r),
		)
	}
	if err != nil {
		return h.passkeysFailed(w, r, token, user, in, err)
	}
	if !in.form {
		return answer.WriteJSON(w, http.StatusCreated, h.passkeyAnswer(made))
	}
	if to := answer.SafeReturnPath(in.text("return_to"), ""); to != "" {
		answer.SeeOther(w, to)
		return nil
	}
	return h.renderPasskeys(w, r, token, user, pageData{
		Notice: "Your passkey was added. From now on you can log in with it.",
	}, false, http.StatusOK)
}

// changePasskey renames a passkey of the caller (PATCH, or the page's form) or removes it (DELETE, or
// the form with action=remove).
func (h *Handler) changePasskey(w http.ResponseWriter, r *http.Request, id string) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	known := "name"
	if r.Method == http.MethodDelete {
		known = "password"
	}
	in, err := noBodyOr(w, r, known)
	if err != nil {
		return err
	}
	if r.Method == http.MethodPost && !in.form {
		return refusal.New(refusal.MediaType, "it is not a form")
	}
	remove := r.Method == http.MethodDelete || in.form && in.text("action") == "remove"
	notice := "Your passkey has a new name."
	var changed passkey.Passkey
	if remove {
		notice = "Your passkey was removed. Delete it in your device or password manager, too."
		if err = h.confirmed(r, token, user, in); err == nil {
			err = h.service.Keyring.Remove(r.Context(), h.party, user, id, SessionOf(token), h.asker(r))
		}
	} else {
		name := in.wantName()
		if err = in.err(); err == nil {
			changed, err = h.service.Keyring.Rename(r.Context(), user.ID, id, name, SessionOf(token), client(r))
		}
	}
	switch {
	case err != nil:
		return h.passkeysFailed(w, r, token, user, in, err)
	case in.form:
		return h.renderPasskeys(w, r, token, user, pageData{Notice: notice}, false, http.StatusOK)
	case remove:
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return answer.WriteJSON(w, http.StatusOK, h.passkeyAnswer(changed))
}

// stepUpOptions returns the options with which a program's user proves two factors again.
func (h *Handler) stepUpOptions(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	options, err := h.service.Keyring.StepUpOptions(r.Context(), h.party, user.ID, SessionOf(token))
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, map[string]any{"publicKey": options})
}
