package web

import (
	"errors"
	"html/template"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"rsc.io/qr"
)

// challengeCookie has the challenge of a browser's log-in that waits for a second factor.
const challengeCookie = "challenge"

// pageFactor is for the page factor.
type pageFactor struct {
	Enrol bool   // a factor must be set up first
	Trust string // how long the browser can be trusted, such as "30 days"; empty for not

	StepUp bool // the user is logged in

	Code    bool         // a code can be entered
	Passkey *pagePasskey // a passkey can be used instead; nil if not
}

// pageFactors is for the page factors.
type pageFactors struct {
	AddedAt       *time.Time // when the app was set up; nil for none
	Left          int        // recovery codes
	Few           bool       // so few that the user is warned
	Required      bool
	Password      bool   // the user has one
	Ask           bool   // the password must be entered to set up an app
	Prove         string // before an app can be set up; see [Handler.toProve]
	Browsers      []pageBrowser
	Enrolment     *pageEnrolment
	RecoveryCodes []string // new ones
	LogIn         bool     // the page is part of a log-in
}

type pageBrowser struct {
	ID, Client, Address string
	At, ExpiresAt       time.Time
	Current             bool
}

// pageEnrolment is an authenticator app that is being set up. If the page shows an error, it has no
// secret.
type pageEnrolment struct {
	Secret string
	URI    template.URL
	QR     string // the dark modules, as path data of SVG
	Size   int    // modules of a side, quiet zone included
}

// factorRoute serves the routes of second factors.
func (h *Handler) factorRoute(name, id string) (serve accountRoute, methods []string) {
	get, post := []string{http.MethodGet, http.MethodHead}, http.MethodPost
	switch name {
	case "factor":
		return h.byMethod(h.factorPage, h.answerFactor), append(get, post)
	case "factors":
		return h.listFactors, get
	case "totp":
		return h.totp, []string{post, http.MethodDelete}
	case "totp confirm":
		return h.confirmTOTP, []string{post}
	case "recovery":
		return h.newRecoveryCodes, []string{post}
	case "step up":
		return h.byMethod(h.stepUpPage, h.stepUp), append(get, post)
	}
	return func(w http.ResponseWriter, r *http.Request) error { return h.distrust(w, r, id) },
		[]string{post, http.MethodDelete}
}

// trustedTokenOf returns the token of a trusted browser; empty if there is none or several.
func trustedTokenOf(r *http.Request) string { return onlyCookie(r, credentials.TrustedCookie) }

func onlyCookie(r *http.Request, name string) string {
	cookies := r.CookiesNamed(credentials.CookieName(r, name))
	if len(cookies) != 1 {
		return ""
	}
	return cookies[0].Value
}

// asksFactor sends a browser whose log-in needs a second factor to the page for it. It reports whether
// the error says so.
func (h *Handler) asksFactor(w http.ResponseWriter, r *http.Request, returnTo string, err error) bool {
	failure, ok := errors.AsType[*refusal.Error](err)
	if !ok || failure.Challenge == "" {
		return false
	}
	h.answers.Decisions.Refused(failure.Reason)
	credentials.SetCookie(w, r, challengeCookie, failure.Challenge, h.service.Now().Add(time.Hour)) // the store knows
	location := answer.MountedAt(r) + h.Path("factor")
	if returnTo = answer.SafeReturnPath(returnTo, ""); returnTo != "" {
		location += "?" + url.Values{"return_to": {returnTo}}.Encode()
	}
	answer.SeeOther(w, location)
	return true
}

func forgetChallenge(w http.ResponseWriter, r *http.Request) {
	credentials.SetCookie(w, r, challengeCookie, "", time.Unix(1, 0))
}

// factorPage asks for the second factor of a log-in, or to set one up.
func (h *Handler) factorPage(w http.ResponseWriter, r *http.Request) error {
	returnTo := answer.SafeReturnPath(r.URL.Query().Get("return_to"), "")
	waiting, err := h.service.Factors.Challenged(r.Context(), onlyCookie(r, challengeCookie), client(r))
	if err != nil {
		return h.showLogin(w, r, returnTo, err)
	}
	return h.renderFactor(w, r, pageData{ReturnTo: returnTo}, waiting.Enrol, http.StatusOK)
}

func (h *Handler) renderFactor(w http.ResponseWriter, r *http.Request, data pageData, enrol bool, status int) error {
	trust := daysText(h.pages.language(r), time.Duration(h.TrustBrowsers))
	data.Factor = &pageFactor{Enrol: enrol, Code: true, Trust: trust}
	if h.party != nil && !enrol {
		if err := h.offerInstead(r, data.Factor); err != nil {
			return err
		}
	}
	return h.pages.render(w, r, "factor", data, status)
}

// offerInstead lets the page ask for a passkey if the user of the log-in has one.
func (h *Handler) offerInstead(r *http.Request, shown *pageFactor) error {
	waiting, err := h.service.Factors.Challenged(r.Context(), onlyCookie(r, challengeCookie), client(r))
	if isReason(err, refusal.ChallengeExpired) {
		return nil
	}
	var found accounts.FactorsOf
	if err == nil {
		found, err = h.service.Factors.Of(r.Context(), waiting.User.ID)
	}
	if shown.Code = found.TOTP != nil; err != nil || !h.canUse(r, found.Passkeys) {
		return err
	}
	options, err := h.service.Keyring.CompletionOptions(r.Context(), h.party, waiting)
	if err == nil {
		shown.Passkey, err = newPagePasskey(options)
	}
	return err
}

// isReason reports whether an error is a refusal for a reason.
func isReason(err error, reason refusal.Reason) bool {
	failure, ok := errors.AsType[*refusal.Error](err)
	return ok && failure.Reason == reason
}

// answerFactor completes a log-in with a second factor: it answers JSON with tokens, and the page's
// form with cookies.
func (h *Handler) answerFactor(w http.ResponseWriter, r *http.Request) error {
	in, err := readInput(w, r, h.orPasskey("challenge", "code")...)
	if err != nil {
		return err
	}
	if in.form {
		in.values["challenge"] = onlyCookie(r, challengeCookie)
	}
	var grant *accounts.Grant
	var proof accounts.Proof
	secret := in.want("challenge")
	if in.form && secret == "" {
		return h.factorFailed(w, r, in, false, &refusal.Error{Reason: refusal.ChallengeExpired})
	}
	if _, byPasskey := in.values["credential"]; byPasskey && h.party != nil {
		credential := in.credential()
		if err = in.err(); err == nil {
			grant, err = h.service.Keyring.Complete(r.Context(), h.party, secret, credential, client(r))
		}
	} else {
		code := in.want("code")
		if err = in.err(); err == nil {
			grant, proof, err = h.service.Factors.Answer(r.Context(), secret, code, client(r))
		}
	}
	if err == nil && in.form {
		err = h.enter(w, r, in, grant)
	}
	if err != nil {
		return h.factorFailed(w, r, in, false, err)
	}
	if !in.form {
		body := tokenAnswer(grant)
		if proof.Recovery {
			body["recoveryCodesLeft"] = proof.Left
		}
		return answer.WriteJSON(w, http.StatusOK, body)
	}
	forgetChallenge(w, r)
	h.trust(w, r, in, grant)
	if !proof.Recovery || proof.Left > accounts.FewRecoveryCodes {
		return h.answerGrant(w, r, in, grant)
	}
	SetSessionCookies(w, r, grant)
	return h.pages.render(w, r, "message", pageData{
		Title: h.pages.language(r).Text("Recovery codes left: %d.", proof.Left),
		Text: "You are logged in, and the code that you used is no longer valid. Make new recovery codes soon: " +
			"open your account, then Two-step log-in.",
		Next: &pageLink{"Continue", h.afterLogIn(r, in)},
	}, http.StatusOK)
}

// afterLogIn returns where a browser goes on after a log-in.
func (h *Handler) afterLogIn(r *http.Request, in *input) string {
	return answer.SafeReturnPath(in.text("return_to"), answer.MountedAt(r)+h.Path("account"))
}

// trust trusts the browser if the user has chosen so. If that fails, the user is asked again at the
// next log-in.
func (h *Handler) trust(w http.ResponseWriter, r *http.Request, in *input, grant *accounts.Grant) {
	if in.text("trust") == "" {
		return
	}
	token, until, err := h.service.Factors.Trust(r.Context(), grant.User, client(r))
	if err != nil {
		h.service.LogStoreFailure(refusal.Of(err))
	} else if token != "" {
		credentials.SetCookie(w, r, credentials.TrustedCookie, token, until)
	}
}

// factorFailed shows a refusal of a second factor on its page, which asks for the factor or to set one
// up, or on the log-in page if the user must start again. To a program it returns the refusal.
func (h *Handler) factorFailed(w http.ResponseWriter, r *http.Request, in *input, enrol bool, err error) error {
	failure, ok := errors.AsType[*refusal.Error](err)
	if !in.form || !ok {
		return err
	}
	switch failure.Reason {
	case refusal.ChallengeExpired, refusal.WrongCredentials, refusal.LoginState, refusal.FactorExists:
		forgetChallenge(w, r)
		return h.showLogin(w, r, answer.SafeReturnPath(in.text("return_to"), ""), err)
	}
	h.service.LogStoreFailure(failure)
	h.answers.Announce(w, r, failure)
	enrol = enrol || failure.Reason == refusal.EnrolmentRequired
	return h.renderFactor(w, r, h.refusedForm(r, in, failure), enrol, failure.Reason.Answer().Status)
}

// enrolling is who sets up an authenticator app.
type enrolling struct {
	*accounts.Enrolment
	token *jwt.Token // of the session; nil in a log-in
}

// enrolling returns who sets up an app: the user of a log-in whose challenge is sent, or of a session.
func (h *Handler) enrolling(w http.ResponseWriter, r *http.Request, in *input) (e enrolling, err error) {
	secret, inLogIn := in.text("challenge"), in.values["challenge"] != nil
	if in.form {
		secret, inLogIn = onlyCookie(r, challengeCookie), in.text("login") != ""
	}
	if inLogIn {
		var waiting *accounts.Waiting
		if waiting, err = h.service.Factors.Challenged(r.Context(), secret, client(r)); err == nil {
			e.Enrolment, err = h.service.Factors.InLogIn(r.Context(), waiting)
		}
		return e, err
	}
	var user store.User
	if e.token, user, err = h.shared.callerUser(w, r); err == nil {
		e.Enrolment, err = h.service.Factors.InSession(r.Context(), h.party, user, SessionOf(e.token))
	}
	return e, err
}

// totp begins to set up an authenticator app (POST), or removes it (DELETE, or the page's form).
func (h *Handler) totp(w http.ResponseWriter, r *http.Request) error {
	in, err := new(input), error(nil)
	if r.Method != http.MethodDelete || r.ContentLength != 0 {
		if in, err = readInput(w, r, "password", "challenge", "code"); err != nil {
			return err
		}
	}
	if r.Method == http.MethodDelete || in.form && in.text("action") == "remove" {
		return h.removeTOTP(w, r, in)
	}
	e, err := h.enrolling(w, r, in)
	var made accounts.TOTPSecret
	if err == nil {
		made, err = h.beginTOTP(r, e, in)
	}
	if err != nil {
		return h.enrolmentFailed(w, r, e, in, pageFactors{}, err)
	}
	if !in.form {
		return answer.WriteJSON(w, http.StatusOK, map[string]any{"secret": made.Secret, "uri": made.URI})
	}
	picture, size, err := qrPath(made.URI)
	if err != nil {
		return err
	}
	return h.pages.render(w, r, "factors", pageData{
		ReturnTo: answer.SafeReturnPath(in.text("return_to"), ""),
		User:     pageUser{ID: e.User.ID, Email: e.User.Email},
		Factors: &pageFactors{LogIn: e.token == nil, Enrolment: &pageEnrolment{
			Secret: spaced(made.Secret), URI: template.URL(made.URI), QR: picture, Size: size,
		}},
	}, http.StatusOK)
}

func (h *Handler) beginTOTP(r *http.Request, e enrolling, in *input) (made accounts.TOTPSecret, err error) {
	if _, given := in.values["password"]; given {
		in.want("password")
	}
	if err = in.err(); err == nil && e.token != nil {
		err = h.service.LogIns.Confirm(r.Context(), e.User, SessionOf(e.token), in.text("password"), client(r))
	}
	if err != nil {
		return made, err
	}
	return h.service.Factors.BeginTOTP(r.Context(), e.Enrolment, h.siteName(r))
}

// siteName returns the name of the site that an authenticator app shows: `name`, or else the host of
// the issuer, or else of the request.
func (h *Handler) siteName(r *http.Request) string {
	if h.Name != "" {
		return h.Name
	}
	if issuer, err := url.Parse(h.Issuer); err == nil && issuer.Hostname() != "" {
		return issuer.Hostname()
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host
}

// spaced returns a secret in groups of four letters, to be typed.
func spaced(secret string) string {
	var text strings.Builder
	for i, letter := range secret {
		if i > 0 && i%4 == 0 {
			text.WriteByte(' ')
		}
		text.WriteRune(letter)
	}
	return text.String()
}

// qrPath returns a QR code as path data of SVG, which the strictest Content-Security-Policy allows
// within the page.
func qrPath(text string) (path string, size int, err error) {
	const quiet = 4 // modules around it (ISO/IEC 18004)
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", 0, err
	}
	var drawn strings.Builder
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			from := x
			for x < code.Size && code.Black(x, y) {
				x++
			}
			if x > from {
				length := strconv.Itoa(x - from)
				drawn.WriteString(
					"M" + strconv.Itoa(from+quiet) + " " + strconv.Itoa(y+quiet) + "h" + length + "v1h-" + length + "z",
				)
			}
		}
	}
	return drawn.String(), code.Size + 2*quiet, nil
}

// confirmTOTP sets up the authenticator app with its first code.
func (h *Handler) confirmTOTP(w http.ResponseWriter, r *http.Request) error {
	in, err := readInput(w, r, "code", "challenge")
	if err != nil {
		return err
	}
	e, err := h.enrolling(w, r, in)
	var codes []string
	var grant *accounts.Grant
	if err == nil {
		code := in.want("code")
		if err = in.err(); err == nil {
			codes, grant, err = h.service.Factors.ConfirmTOTP(r.Context(), e.Enrolment, code, h.asker(r))
		}
	}
	if err == nil && grant != nil && in.form {
		err = h.enter(w, r, in, grant)
	}
	if err != nil {
		return h.enrolmentFailed(w, r, e, in, pageFactors{Enrolment: new(pageEnrolment)}, err)
	}
	if !in.form {
		body := map[string]any{"recoveryCodes": codes}
		if grant != nil {
			maps.Copy(body, tokenAnswer(grant))
		}
		return answer.WriteJSON(w, http.StatusOK, body)
	}
	if grant != nil {
		forgetChallenge(w, r)
		SetSessionCookies(w, r, grant)
	} else if err := h.renew(w, r); err != nil {
		return err
	}
	return h.showRecoveryCodes(w, r, in, codes)
}

// showRecoveryCodes shows new recovery codes, which nothing shows again.
func (h *Handler) showRecoveryCodes(w http.ResponseWriter, r *http.Request, in *input, codes []string) error {
	next := answer.SafeReturnPath(in.text("return_to"), answer.MountedAt(r)+h.Path("factors"))
	return h.pages.render(w, r, "factors", pageData{
		Factors: &pageFactors{RecoveryCodes: codes}, Next: &pageLink{"I have saved these codes", next},
	}, http.StatusOK)
}

// enrolmentFailed shows a refusal on the page on which the form was. To a program it returns the
// refusal.
func (h *Handler) enrolmentFailed(
	w http.ResponseWriter, r *http.Request, e enrolling, in *input, shown pageFactors, err error,
) error {
	failure, ok := errors.AsType[*refusal.Error](err)
	if !in.form || !ok || e.Enrolment == nil && in.text("login") == "" {
		return err
	}
	again := failure.Reason == refusal.NoEnrolment || failure.Reason == refusal.FactorExists
	if e.token == nil && (again || e.Enrolment == nil || shown.Enrolment == nil) {
		return h.factorFailed(w, r, in, true, err)
	}
	h.service.LogStoreFailure(failure)
	h.answers.Announce(w, r, failure)
	data := h.refusedForm(r, in, failure)
	if shown.LogIn = e.token == nil; again {
		shown.Enrolment = nil
	}
	if e.token == nil {
		data.Factors = &shown
		return h.pages.render(w, r, "factors", data, failure.Reason.Answer().Status)
	}
	return h.renderFactors(w, r, e.token, e.User, data, shown, failure.Reason.Answer().Status)
}

// listFactors lists the second factors of the caller, for a browser as a page.
func (h *Handler) listFactors(w http.ResponseWriter, r *http.Request) error {
	page := answer.Prefers(r, "text/html", "application/json")
	token, user, err := h.shared.callerUser(w, r)
	if page && h.sentToLogin(w, r, "factors", err) {
		return nil
	}
	if err != nil {
		return err
	}
	if page {
		return h.renderFactors(w, r, token, user, pageData{}, pageFactors{}, http.StatusOK)
	}
	body, err := h.factorAnswers(r, user)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, body)
}

// factorAnswers returns the second factors of a user as clients see them.
func (h *Handler) factorAnswers(r *http.Request, user store.User) (map[string]any, error) {
	found, err := h.service.Factors.Of(r.Context(), user.ID)
	if err != nil {
		return nil, err
	}
	body := map[string]any{
		"totp": nil, "recoveryCodesLeft": found.RecoveryCodesLeft, "required": h.service.Factors.Required(user),
	}
	if found.TOTP != nil {
		body["totp"] = map[string]any{"addedAt": found.TOTP.UTC()}
	}
	browsers := make([]map[string]any, len(found.Trusted))
	for i, browser := range found.Trusted {
		browsers[i] = map[string]any{
			"id": browser.ID, "client": browser.UserAgent, "address": browser.Address, "trustedAt": browser.At.UTC(),
			"expiresAt": browser.ExpiresAt.UTC(), "current": h.service.Factors.IsTrusted(browser, client(r)),
		}
	}
	body["trustedBrowsers"] = browsers
	return body, nil
}

func (h *Handler) renderFactors(
	w http.ResponseWriter, r *http.Request, token *jwt.Token, user store.User, data pageData, shown pageFactors,
	status int,
) error {
	fresh, err := h.service.Sessions.IsFresh(r.Context(), user.ID, SessionOf(token))
	if err != nil {
		return err
	}
	found, err := h.service.Factors.Of(r.Context(), user.ID)
	if err != nil {
		return err
	}
	shown.AddedAt, shown.Left = found.TOTP, found.RecoveryCodesLeft
	shown.Few, shown.Required = found.RecoveryCodesLeft <= accounts.FewRecoveryCodes, h.service.Factors.Required(user)
	shown.Password = user.PasswordHash != ""
	shown.Ask = !fresh
	if found.TOTP == nil {
		if shown.Prove, err = h.toProve(r, user, token, "factors"); err != nil {
			return err
		}
	}
	if status < 400 { // an error page shows the forms only
		for _, x := range found.Trusted {
			shown.Browsers = append(shown.Browsers, pageBrowser{
				x.ID, device(h.pages.language(r), x.UserAgent), x.Address, x.At, x.ExpiresAt,
				h.service.Factors.IsTrusted(x, client(r)),
			})
		}
	}
	data.User = pageUser{ID: user.ID, Email: user.Email, Password: user.PasswordHash != ""}
	data.Factors = &shown
	return h.pages.render(w, r, "factors", data, status)
}

// removeTOTP removes the authenticator app of the caller.
func (h *Handler) removeTOTP(w http.ResponseWriter, r *http.Request, in *input) error {
	return h.proved(w, r, in, func(token *jwt.Token, user store.User) error {
		err := h.service.Factors.Remove(r.Context(), user, SessionOf(token), h.asker(r))
		if err != nil {
			return err
		}
		if in.form {
			return h.renderFactors(w, r, token, user, pageData{
				Notice: "Your authenticator app and your recovery codes were removed.",
			}, pageFactors{}, http.StatusOK)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// newRecoveryCodes replaces the recovery codes of the caller.
func (h *Handler) newRecoveryCodes(w http.ResponseWriter, r *http.Request) error {
	in, err := readInput(w, r, "password", "code")
	if err != nil {
		return err
	}
	return h.proved(w, r, in, func(token *jwt.Token, user store.User) error {
		codes, err := h.service.Factors.NewRecoveryCodes(r.Context(), user, SessionOf(token), h.asker(r))
		if err != nil {
			return err
		}
		if in.form {
			return h.showRecoveryCodes(w, r, in, codes)
		}
		return answer.WriteJSON(w, http.StatusOK, map[string]any{"recoveryCodes": codes})
	})
}

// proved does something for a caller who sends the password or a code with the request.
func (h *Handler) proved(
	w http.ResponseWriter, r *http.Request, in *input, do func(token *jwt.Token, user store.User) error,
) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	for _, name := range []string{"password", "code"} {
		if _, given := in.values[name]; given {
			in.want(name)
		}
	}
	if err = in.err(); err == nil {
		err = h.service.Factors.Prove(
			r.Context(), user, SessionOf(token), in.text("password"), in.text("code"), client(r),
		)
	}
	if err == nil {
		err = do(token, user)
	}
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
	return h.renderFactors(w, r, token, user, data, pageFactors{}, failure.Reason.Answer().Status)
}

// distrust ends the trust in a browser of the caller.
func (h *Handler) distrust(w http.ResponseWriter, r *http.Request, id string) error {
	token, err := h.shared.caller(w, r)
	if err == nil {
		err = h.service.Factors.Distrust(r.Context(), token.UserID, id, SessionOf(token), client(r))
	}
	if err != nil {
		return err
	}
	if r.Method == http.MethodPost {
		answer.SeeOther(w, answer.MountedAt(r)+h.Path("factors"))
		return nil
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
