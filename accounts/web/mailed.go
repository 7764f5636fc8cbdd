package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// askerCookie binds a mailed code to the browser that asked for it.
const askerCookie = "mailed"

// pageAsk is what the pages address and code ask for.
type pageAsk struct {
	Title, Text, Action, Button string
	Email                       bool   // the address that a code was mailed to
	Code                        bool   // the code of a mail
	Given                       string // the code as it was typed before
	Token                       string // of a link; then neither address nor code is asked for
	Password, NewPassword       bool
	Again                       *pageLink // where to ask for another mail
}

// The pages of mailed codes. The action is the name of a route.
var (
	askVerify = pageAsk{
		Title: "Look into your mail", Action: "verify", Button: "Confirm", Email: true, Code: true,
		Text: "Enter the code from the mail that we have sent you, or open the link in it.",
	}
	askVerifyLink = pageAsk{
		Title: "Confirm your e-mail address", Action: "verify", Button: "Confirm",
		Text: "Confirm only if it was you who wanted an account here.",
	}
	askForgot = pageAsk{
		Title: "Forgot your password?", Action: "forgot", Button: "Send me a mail",
		Text: "We send you a mail with which you can choose a new one.",
	}
	askReset = pageAsk{
		Title: "Look into your mail", Action: "reset", Button: "Save new password",
		Email: true, Code: true, NewPassword: true,
		Text: "If there is an account with this address, you get a mail with a code. Enter it here, " +
			"or open the link in the mail.",
	}
	askLogIn = pageAsk{
		Title: "Log in with a code", Action: "code", Button: "Send me a code",
		Text: "We send you a mail with a code, with which you can log in without your password.",
	}
	askLogInLink = pageAsk{
		Title: "Log in", Action: "login", Button: "Log in", Text: "Log in only if it was you who asked for this mail.",
	}
	askLogInCode = pageAsk{
		Title: "Look into your mail", Action: "login", Button: "Log in", Email: true, Code: true,
		Text: "If there is an account with this address, you get a mail with a code. Enter it here, " +
			"or open the link in the mail in this browser.",
	}
	askEmail = pageAsk{
		Title: "Change your e-mail address", Action: "email", Button: "Send me a code",
		Text: "We send a code to your new address. Your address is changed when you have entered it.",
	}
	askInvite = pageAsk{
		Title: "Invite somebody", Action: "invite", Button: "Send the invitation",
		Text: "We send a mail with a link that is valid for 24 hours. With it, whoever you invite chooses a password.",
	}
	askEmailCode = pageAsk{
		Title: "Look into the mail at your new address", Action: "email_confirm", Button: "Change address", Code: true,
		Text: "Enter the code from the mail that we have sent to your new address.",
	}
)

// baseURL returns the URL of the site for links in mails: from the issuer if it is a URL, or else
// from the hosts of the site in the config. It never comes from a request, which can name any host.
func (h *Handler) baseURL(at place.Place) string {
	issuer, err := url.Parse(h.Issuer)
	if err == nil && issuer.Host != "" && (issuer.Scheme == "https" || issuer.Scheme == "http") {
		return issuer.Scheme + "://" + issuer.Host
	}
	return at.URL()
}

// asker returns who asks for a code, or uses one.
func (h *Handler) asker(r *http.Request) accounts.Asker {
	asker := accounts.Asker{Client: client(r), Language: h.pages.language(r).Tag()}
	if cookies := r.CookiesNamed(credentials.CookieName(r, askerCookie)); len(cookies) == 1 {
		asker.Browser = cookies[0].Value
	}
	if h.base != "" {
		asker.Base = h.base + answer.MountedAt(r)
	}
	return asker
}

// newAsker is asker with a new secret for the browser, which goes on as the form says; see bind.
func (h *Handler) newAsker(r *http.Request, in *input) accounts.Asker {
	asker := h.asker(r)
	asker.Browser = store.RandomToken(pendingBytes)
	asker.ReturnTo = answer.SafeReturnPath(in.text("return_to"), "")
	return asker
}

// bind stores the secret in the browser.
func (h *Handler) bind(w http.ResponseWriter, r *http.Request, asker accounts.Asker) {
	credentials.SetCookie(w, r, askerCookie, asker.Browser, h.service.Now().Add(accounts.CodeLifetime))
}

func (h *Handler) unbind(w http.ResponseWriter, r *http.Request) {
	if len(r.CookiesNamed(credentials.CookieName(r, askerCookie))) > 0 {
		credentials.SetCookie(w, r, askerCookie, "", time.Unix(1, 0))
	}
}

// mailed answers that a mail is on its way, or is not: it is the same. A browser gets the page that
// asks for the code.
func (h *Handler) mailed(w http.ResponseWriter, r *http.Request, in *input, ask pageAsk) error {
	if in.form {
		return h.askPage(w, r, "code", ask, h.again(r, in, nil), http.StatusOK)
	}
	return answer.WriteJSON(w, http.StatusAccepted, map[string]string{"status": "check_mail"})
}

// again returns the data to show a page again, with the errors of a refusal if there is one.
func (h *Handler) again(r *http.Request, in *input, failure *refusal.Error) pageData {
	if failure == nil {
		return pageData{
			Email:    accounts.Cut(in.text("email"), 2*store.MaxEmailBytes),
			ReturnTo: answer.SafeReturnPath(in.text("return_to"), ""),
		}
	}
	return h.refusedForm(r, in, failure)
}

// mailing mails a code to an address.
type mailing func(ctx context.Context, email string, asker accounts.Asker) error

// askPage shows the page address or code.
func (h *Handler) askPage(
	w http.ResponseWriter, r *http.Request, page string, ask pageAsk, data pageData, status int,
) error {
	ask.Action = answer.MountedAt(r) + h.Path(ask.Action)
	if ask.Again != nil {
		ask.Again = &pageLink{ask.Again.Name, answer.MountedAt(r) + ask.Again.Path}
	}
	data.Ask = &ask
	return h.pages.render(w, r, page, data, status)
}

// askOr shows the refusal of a form on a page that asks for something. For any other request it
// returns the refusal.
func (h *Handler) askOr(
	w http.ResponseWriter, r *http.Request, in *input, page string, ask pageAsk, err error,
) error {
	failure, ok := errors.AsType[*refusal.Error](err)
	if !in.form || !ok {
		return err
	}
	h.service.LogStoreFailure(failure)
	h.answers.Announce(w, r, failure)
	ask.Given, ask.Token = accounts.Cut(in.text("code"), 16), accounts.Cut(in.text("token"), maxLinkToken)
	return h.askPage(w, r, page, ask, h.again(r, in, failure), failure.Reason.Answer().Status)
}

// signUpByMail begins a sign-up that a mail completes.
func (h *Handler) signUpByMail(
	w http.ResponseWriter, r *http.Request, in *input, as accounts.NewUser,
) error {
	asker := h.newAsker(r, in)
	if err := h.service.LogIns.SignUpByMail(r.Context(), as, asker); err != nil {
		return h.pageOr(w, r, in, "signup", err)
	}
	h.bind(w, r, asker)
	ask := askVerify
	ask.Again = &pageLink{"Sign up again", h.Path("signup")}
	return h.mailed(w, r, in, ask)
}

// verifyPage shows the button of a link, or asks for the code. It never acts.
func (h *Handler) verifyPage(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Referrer-Policy", "no-referrer")
	query := r.URL.Query()
	if !query.Has("token") {
		return h.askPage(w, r, "code", askVerify, pageData{}, http.StatusOK)
	}
	ask := askVerifyLink
	ask.Token = query.Get("token")
	link, err := h.service.LogIns.VerifyLink(r.Context(), ask.Token, h.asker(r).Browser)
	if isReason(err, refusal.MailedCode) {
		return h.showBrokenVerifyLink(w, r)
	}
	if err != nil {
		return err
	}
	ask.Password = !link.Bound
	return h.askPage(w, r, "code", ask, pageData{Email: link.Email, ReturnTo: link.ReturnTo}, http.StatusOK)
}

// logInCodePage asks for the address to which a code is mailed, or shows the button of the link in the
// mail. It never acts.
func (h *Handler) logInCodePage(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	if !query.Has("token") {
		return h.asksFor(askLogIn)(w, r)
	}
	w.Header().Set("Referrer-Policy", "no-referrer")
	ask := askLogInLink
	ask.Token = query.Get("token")
	link, err := h.service.LogIns.LogInLink(r.Context(), ask.Token, h.asker(r).Browser)
	if err == nil && !link.Bound {
		err = &refusal.Error{Reason: refusal.OtherBrowser}
	}
	if err != nil {
		return h.showBrokenLogInLink(w, r, err)
	}
	return h.askPage(w, r, "code", ask, pageData{Email: link.Email, ReturnTo: link.ReturnTo}, http.StatusOK)
}

// showBrokenLogInLink shows why a link does not log in. Any other error it returns.
func (h *Handler) showBrokenLogInLink(w http.ResponseWriter, r *http.Request, err error) error {
	data := pageData{
		Title: "This link does not work",
		Text:  "It has expired, was already used or is incomplete, or a later mail has replaced it.",
		Next:  &pageLink{askLogIn.Button, answer.MountedAt(r) + h.Path("code")},
	}
	switch {
	case isReason(err, refusal.OtherBrowser):
		data.Text = "It works only in the browser in which you asked for it. Open it there, or enter the code of the " +
			"mail there. If it was not you who asked, do nothing."
		data.Next = nil
	case !isReason(err, refusal.MailedCode):
		return err
	}
	failure := refusal.Of(err)
	h.answers.Announce(w, r, failure)
	return h.pages.render(w, r, "message", data, failure.Reason.Answer().Status)
}

func (h *Handler) showBrokenVerifyLink(w http.ResponseWriter, r *http.Request) error {
	failure := &refusal.Error{Reason: refusal.MailedCode}
	h.answers.Announce(w, r, failure)
	return h.pages.render(w, r, "message", pageData{
		Title: "This link does not work",
		Text: "It has expired, was already used or is incomplete, or a later mail has replaced it. " +
			"If you have confirmed your address, log in. Otherwise, sign up again to get another mail.",
	}, failure.Reason.Answer().Status)
}

// verify confirms an address by a code, or by the button of a link, and logs in.
func (h *Handler) verify(w http.ResponseWriter, r *http.Request) error {
	in, err := readInput(w, r, "email", "code", "password")
	if err != nil {
		return err
	}
	w.Header().Set("Referrer-Policy", "no-referrer")
	proof, ask := accounts.AddressProof{Password: in.text("password"), Bound: in.form}, askVerify
	if token := in.text("token"); in.form && token != "" {
		proof.Token, ask = token, askVerifyLink
		ask.Password = true
	} else {
		proof.Email, proof.Code = in.want("email"), in.want("code")
		ask.Password = proof.Password != ""
	}
	if _, given := in.values["password"]; given && !in.form {
		in.want("password")
	}
	var grant *accounts.Grant
	if err = in.err(); err == nil {
		grant, err = h.service.LogIns.Verify(r.Context(), proof, h.asker(r))
	}
	failure, _ := errors.AsType[*refusal.Error](err)
	switch {
	case failure != nil && in.form && proof.Token != "" && failure.Reason == refusal.MailedCode:
		return h.showBrokenVerifyLink(w, r)
	case failure != nil && failure.Reason == refusal.OtherBrowser:
		ask.Password = true
	}
	if err == nil && in.form {
		err = h.enter(w, r, in, grant)
	}
	if in.form && h.asksFactor(w, r, in.text("return_to"), err) {
		h.unbind(w, r)
		return nil
	}
	if err != nil {
		return h.askOr(w, r, in, "code", ask, err)
	}
	h.unbind(w, r)
	return h.answerGrant(w, r, in, grant)
}

// showUnverified asks a user who knows the password for the code that was mailed again.
func (h *Handler) showUnverified(
	w http.ResponseWriter, r *http.Request, in *input, asker accounts.Asker, err error,
) error {
	h.bind(w, r, asker)
	delete(in.values, "username") // the page asks for the address, which the mail went to
	ask := askVerify
	ask.Title = "Confirm your e-mail address first"
	return h.askOr(w, r, in, "code", ask, err)
}

// asksFor returns the page on which a visitor asks for a mail.
func (h *Handler) asksFor(ask pageAsk) accountRoute {
	return func(w http.ResponseWriter, r *http.Request) error {
		return h.askPage(w, r, "address", ask, pageData{
			ReturnTo: answer.SafeReturnPath(r.URL.Query().Get("return_to"), ""),
		}, http.StatusOK)
	}
}

// forgot mails a code and a link for a new password.
func (h *Handler) forgot(w http.ResponseWriter, r *http.Request) error {
	return h.mailTo(w, r, askForgot, askReset, h.service.LogIns.Forgot)
}

// logInCode mails a code to log in with.
func (h *Handler) logInCode(w http.ResponseWriter, r *http.Request) error {
	return h.mailTo(w, r, askLogIn, askLogInCode, h.service.LogIns.AskLogInCode)
}

func (h *Handler) mailTo(
	w http.ResponseWriter, r *http.Request, before, after pageAsk, mail mailing,
) error {
	in, err := readInput(w, r, "email")
	if err != nil {
		return err
	}
	email, asker := h.wantEmail(in), h.asker(r)
	if in.form {
		browser := asker.Browser // of a sign-up that may wait for its mail
		if asker = h.newAsker(r, in); browser != "" {
			asker.Browser = browser
		}
	}
	if err = in.err(); err == nil {
		err = mail(r.Context(), email, asker)
	}
	if err != nil {
		return h.askOr(w, r, in, "address", before, err)
	}
	if in.form {
		h.bind(w, r, asker)
	}
	after.Again = &pageLink{"Send another mail", h.Path(before.Action)}
	return h.mailed(w, r, in, after)
}
