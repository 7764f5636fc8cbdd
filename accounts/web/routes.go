package web

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/metadata"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// login handles a log-in: it answers JSON with tokens, and the page's form with cookies.
func (h *Handler) login(w http.ResponseWriter, r *http.Request) error {
	known := append(h.identifierFields(), "password")
	if h.EmailLogin {
		known = append(known, "code")
	}
	in, err := readInput(w, r, known...)
	if err != nil {
		return err
	}
	h.sortIdentifier(in)
	if _, byCode := in.values["code"]; h.EmailLogin && byCode {
		return h.logInByCode(w, r, in)
	}
	if h.EmailLogin && in.form && in.text("token") != "" {
		return h.logInByLink(w, r, in)
	}
	var grant *accounts.Grant
	asker := h.newAsker(r, in)
	identifier, password := h.wantIdentifier(in), in.want("password")
	if err = in.err(); err == nil {
		grant, err = h.service.LogIns.LogIn(r.Context(), identifier, password, asker)
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

// logInByCode is login with a mailed code instead of a password.
func (h *Handler) logInByCode(w http.ResponseWriter, r *http.Request, in *input) error {
	var grant *accounts.Grant
	email, code := in.want("email"), in.want("code")
	if _, both := in.values["password"]; both {
		in.wrong("password", "not", texts.Errorf("cannot be sent together with a code"), map[string]any{})
	}
	err := in.err()
	if err == nil {
		grant, err = h.service.LogIns.LogInByCode(r.Context(), email, code, client(r))
		if h.KeyPrefix != "" { // the first proof of an address ends what others may have set up
			apikeys.LearnAll(r.Context())
		}
	}
	if err == nil && in.form {
		err = h.enter(w, r, in, grant)
	}
	if in.form && h.asksFactor(w, r, in.text("return_to"), err) {
		return nil
	}
	if err != nil {
		ask := askLogInCode
		ask.Again = &pageLink{"Send another mail", h.Path("code")}
		return h.askOr(w, r, in, "code", ask, err)
	}
	return h.answerGrant(w, r, in, grant)
}

// logInByLink is login by the button of a mailed link.
func (h *Handler) logInByLink(w http.ResponseWriter, r *http.Request, in *input) error {
	w.Header().Set("Referrer-Policy", "no-referrer")
	grant, err := h.service.LogIns.LogInByLink(r.Context(), in.text("token"), h.asker(r))
	if h.KeyPrefix != "" { // as by a code
		apikeys.LearnAll(r.Context())
	}
	if err == nil {
		err = h.enter(w, r, in, grant)
	}
	if h.asksFactor(w, r, in.text("return_to"), err) {
		return nil
	}
	if err != nil {
		return h.showBrokenLogInLink(w, r, err)
	}
	h.unbind(w, r)
	return h.answerGrant(w, r, in, grant)
}

// enter replaces the session of a browser that has logged in, so that nobody can have set
// the new one before. If an external identity waits for the user there, the browser goes on
// to the question whether to connect it.
func (h *Handler) enter(w http.ResponseWriter, r *http.Request, in *input, grant *accounts.Grant) error {
	if h.offersTo(w, r, in, grant) {
		in.values["return_to"] = answer.MountedAt(r) + h.Path("connect")
	}
	return h.service.Sessions.Replace(r.Context(), grant, refreshTokenOf(r))
}

// answerGrant returns the tokens, to a browser as cookies.
func (h *Handler) answerGrant(w http.ResponseWriter, r *http.Request, in *input, grant *accounts.Grant) error {
	if !in.form {
		return answer.WriteJSON(w, http.StatusOK, tokenAnswer(grant))
	}
	SetSessionCookies(w, r, grant)
	answer.SeeOther(w, answer.SafeReturnPath(in.text("return_to"), answer.MountedAt(r)+h.Path("account")))
	return nil
}

func tokenAnswer(grant *accounts.Grant) map[string]any {
	return map[string]any{
		"token": grant.AccessToken, "tokenType": "Bearer",
		"expiresIn": int64(grant.ExpiresIn / time.Second), "refreshToken": grant.RefreshToken,
	}
}

// signup creates an account. A browser is logged in, too.
func (h *Handler) signup(w http.ResponseWriter, r *http.Request) error {
	in, err := readInput(w, r, slices.Concat(h.identifierFields(), []string{"password"}, h.Profile)...)
	if err != nil {
		return err
	}
	if in.form { // whose one field can be either
		h.sortIdentifier(in)
	}
	var user store.User
	as := h.wantNewUser(in)
	if err = in.err(); err == nil && h.VerifyEmail && as.Email != "" {
		return h.signUpByMail(w, r, in, as)
	}
	if err == nil {
		user, err = h.service.LogIns.SignUp(r.Context(), as, client(r))
	}
	if err != nil {
		return h.pageOr(w, r, in, "signup", err)
	}
	h.service.CountEvent("signup", "ok")
	if !in.form {
		return answer.WriteJSON(w, http.StatusCreated, h.userAnswer(user))
	}
	grant, err := h.service.Factors.Enter(
		r.Context(), accounts.Entry{User: user, Methods: []string{accounts.MethodPassword}}, client(r),
	)
	if err == nil {
		err = h.service.Sessions.Replace(r.Context(), grant, refreshTokenOf(r))
	}
	if h.asksFactor(w, r, in.text("return_to"), err) {
		return nil
	}
	if err != nil {
		return h.pageOr(w, r, in, "login", err)
	}
	return h.answerGrant(w, r, in, grant)
}

// userAnswer returns a user as clients see it, without the password.
func (h *Handler) userAnswer(user store.User) map[string]any {
	answer := make(map[string]any)
	for name, value := range user.Properties() {
		answer[name] = value
	}
	answer["id"], answer["roles"] = user.ID, user.Roles
	if name := user.Username(); name != "" {
		answer["username"] = name
	}
	if user.Roles == nil {
		answer["roles"] = []string{}
	}
	if address := user.Address(); address != "" {
		answer["email"] = address
		if h.VerifyEmail || user.EmailVerified {
			answer["emailVerified"] = user.EmailVerified
		}
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
	grant, err := h.service.Sessions.Refresh(r.Context(), token, client(r))
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, tokenAnswer(grant))
}

// home leads to the account page, which leads to the log-in page if nobody is logged in.
func (h *Handler) home(w http.ResponseWriter, r *http.Request) error {
	answer.SeeOther(w, answer.MountedAt(r)+h.Path("account"))
	return nil
}

// logoutPage asks a user in a browser whether to log out. A program must send POST.
func (h *Handler) logoutPage(w http.ResponseWriter, r *http.Request) error {
	if !answer.Prefers(r, "text/html", "application/json") {
		w.Header().Set("Allow", http.MethodPost)
		return &refusal.Error{Reason: refusal.Method}
	}
	_, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return h.accountPage(w, r) // it redirects to the log-in page
	}
	return h.pages.render(w, r, "confirm", pageData{
		User: pageUser{ID: user.ID, Email: user.Email},
		Text: h.pages.language(r).Text("You are logged in as %s.", user.Email),
		Confirm: &pageConfirm{
			Question: "Log out?", Yes: "Log out", No: "Cancel", Action: answer.MountedAt(r) + h.Path("logout"),
		},
	}, http.StatusOK)
}

// logout ends the session of the token. A browser without a session is already logged out.
func (h *Handler) logout(w http.ResponseWriter, r *http.Request) error {
	form, returnTo := isForm(r), ""
	if form {
		in, err := readInput(w, r)
		if err != nil {
			return err
		}
		if in.text("decision") == "no" {
			return h.home(w, r)
		}
		returnTo = answer.SafeReturnPath(in.text("return_to"), "")
	}
	token, err := h.shared.caller(w, r)
	if err == nil {
		err = h.service.Sessions.EndBrowser(r.Context(), token.UserID, SessionOf(token))
	}
	if refusal, ok := errors.AsType[*refusal.Error](err); ok && form &&
		refusal.Reason.Answer().Status == http.StatusUnauthorized {
		err = nil
	}
	if err != nil {
		return err
	}
	if token != nil {
		h.service.CountEvent("logout", "ok")
		h.service.Audit("logout", token.UserID, SessionOf(token), client(r))
	}
	clearSessionCookies(w, r)
	if form {
		location := answer.MountedAt(r) + h.Path("login")
		if returnTo != "" {
			location += "?" + url.Values{"return_to": {returnTo}}.Encode()
		}
		answer.SeeOther(w, location)
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
	return answer.WriteJSON(w, http.StatusOK, h.userAnswer(user))
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
	current, replacement := in.want("currentPassword"), h.wantPassword(in, "newPassword")
	if err = in.err(); err == nil {
		err = h.service.LogIns.ChangePassword(
			r.Context(), token.UserID, SessionOf(token), current, replacement, h.asker(r),
		)
	}
	if failure, ok := errors.AsType[*refusal.Error](err); ok && in.form {
		h.answers.Announce(w, r, failure)
		return h.renderAccount(w, r, token, h.refusedForm(r, in, failure), failure.Reason.Answer().Status)
	}
	if err != nil {
		return err
	}
	if in.form {
		notice := "Your password was changed, and your other sessions were ended."
		links, err := h.service.Identities.Of(r.Context(), token.UserID)
		if err != nil {
			return err
		}
		if len(links) > 0 {
			language := h.pages.language(r)
			notice = both(language, notice, language.Text("You can still log in through %s.", accounts.Listed(links)))
		}
		return h.renderAccount(w, r, token, pageData{Notice: notice}, http.StatusOK)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// reset sets a password with the token of a link, or with a mailed code.
func (h *Handler) reset(w http.ResponseWriter, r *http.Request) error {
	known := []string{"token", "newPassword"}
	if h.HasRoute("forgot") {
		known = append(known, "email", "code")
	}
	in, err := readInput(w, r, known...)
	if err != nil {
		return err
	}
	if _, byCode := in.values["code"]; h.HasRoute("forgot") && (byCode || in.text("email") != "") {
		return h.resetByCode(w, r, in)
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
	var gone []accounts.LinkedIdentity
	token, replacement := in.want("token"), h.wantPassword(in, "newPassword")
	if err = in.err(); err == nil {
		gone, err = h.service.LogIns.ResetPassword(r.Context(), token, replacement, h.asker(r))
	}
	if failure, ok := errors.AsType[*refusal.Error](err); ok && in.form && failure.Reason == refusal.OneTimeToken {
		return h.showBrokenLink(w, r)
	}
	if err != nil {
		return h.pageOr(w, r, in, "reset", err)
	}
	return h.answerReset(w, r, in, gone)
}

// resetByCode is reset with a mailed code.
func (h *Handler) resetByCode(w http.ResponseWriter, r *http.Request, in *input) error {
	var gone []accounts.LinkedIdentity
	email, code, replacement := in.want("email"), in.want("code"), h.wantPassword(in, "newPassword")
	if _, both := in.values["token"]; both {
		in.wrong("token", "not", texts.Errorf("cannot be sent together with a code"), map[string]any{})
	}
	err := in.err()
	if err == nil {
		gone, err = h.service.LogIns.ResetByCode(r.Context(), email, code, replacement, h.asker(r))
	}
	if err != nil {
		ask := askReset
		ask.Again = &pageLink{"Send another mail", h.Path("forgot")}
		return h.askOr(w, r, in, "code", ask, err)
	}
	return h.answerReset(w, r, in, gone)
}

// answerReset answers that a password was set, and names the identities that were disconnected.
func (h *Handler) answerReset(
	w http.ResponseWriter, r *http.Request, in *input, gone []accounts.LinkedIdentity,
) error {
	if h.KeyPrefix != "" {
		apikeys.LearnAll(r.Context())
	}
	if in.form {
		clearSessionCookies(w, r)
		h.setResetCookie(w, r, "")
		language := h.pages.language(r)
		text := "You can log in with it now. All sessions were ended."
		if h.KeyPrefix != "" {
			text = both(language, text, "API keys of your account were revoked.")
		}
		if len(gone) > 0 {
			text = both(language, text, language.Text("%s can no longer log in to your account. "+
				"You can connect your own identities again on your account page.", accounts.Listed(gone)))
		}
		return h.pages.render(w, r, "message", pageData{
			Title: "Your password was changed", Text: text,
			ReturnTo: answer.SafeReturnPath(in.text("return_to"), ""),
		}, http.StatusOK)
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

// documents serves the key set and the discovery document.
func (h *Handler) documents(w http.ResponseWriter, r *http.Request) error {
	return metadata.Serve(w, r, issuerAt{h.service, h.jwksURI(r)})
}

// jwksURI returns the URL of the key set: below the issuer if that is a URL of this site,
// otherwise below the prefix.
func (h *Handler) jwksURI(r *http.Request) string {
	if _, ours := metadata.PathOf(h.Issuer, r.Host); ours {
		return strings.TrimSuffix(h.Issuer, "/") + metadata.JWKSPath
	}
	return siteURL(r) + h.Prefix + metadata.JWKSPath
}

// issuerAt is the issuer of the accounts' tokens for its documents.
type issuerAt struct {
	service *accounts.Service
	jwksURI string
}

func (i issuerAt) Name() string         { return i.service.Config.Issuer }
func (i issuerAt) JWKS() []byte         { return i.service.Keys.JWKS() }
func (i issuerAt) Algorithms() []string { return i.service.Keys.SigningAlgorithms() }
func (i issuerAt) JWKSURI() string      { return i.jwksURI }

// SessionOf returns the session ID of a token, or the empty string.
func SessionOf(token *jwt.Token) string {
	id, _ := token.Claims["sid"].(string)
	return id
}

func client(r *http.Request) accounts.Client {
	address, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	c := accounts.Client{Address: address, UserAgent: r.UserAgent()}
	if c.Browser = isForm(r) || r.Method == http.MethodGet || r.Method == http.MethodHead; c.Browser {
		c.Trusted = trustedTokenOf(r)
	}
	return c
}
