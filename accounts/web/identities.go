package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
)

// offer is an identity that waits for a user's confirmation, stored under the hash of the
// browser's cookie. The user owns the record.
type offer struct {
	accounts.LinkedIdentity
	// SessionID is the session that must confirm. It is empty before the log-in to the
	// account.
	SessionID string `json:"session_id,omitempty"`
	ReturnTo  string `json:"return_to,omitempty"`
}

// offersTo reports whether an identity waits for the user who has just logged in. An
// identity that waits for another user is removed.
func (h *Handler) offersTo(w http.ResponseWriter, r *http.Request, in *input, grant *accounts.Grant) bool {
	record, err := h.pending(r, accounts.KindOffered, offerCookie)
	if errors.Is(err, store.ErrNotFound) {
		return false
	}
	if err == nil && record.Owner != grant.User.ID {
		h.dropOffer(w, r)
		return false
	}
	if err == nil {
		_, err = h.service.Users().UpdateRecord(
			r.Context(), accounts.KindOffered, record.ID, h.service.Now(), func(kept *store.Record) error {
				var waiting offer
				if err := json.Unmarshal(kept.Value, &waiting); err != nil {
					return err
				}
				waiting.SessionID, waiting.ReturnTo = grant.SessionID, answer.SafeReturnPath(in.text("return_to"), "")
				kept.Value, err = json.Marshal(waiting)
				return err
			},
		)
	}
	if err != nil {
		h.service.Log.Warn(
			"user not asked about an external identity; it can be connected on the account page",
			help.See("identity-not-offered"),
			zap.String("user_id", grant.User.ID), zap.Error(err),
		)
	}
	return err == nil
}

// dropOffer removes the identity that waits in the browser, if any.
func (h *Handler) dropOffer(w http.ResponseWriter, r *http.Request) {
	name := credentials.CookieName(r, offerCookie)
	for _, cookie := range r.CookiesNamed(name) {
		_, err := h.service.Users().TakeRecord(
			r.Context(), accounts.KindOffered, store.HashToken(cookie.Value), h.service.Now(),
		)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			h.service.Log.Warn(
				"pending external identity not removed; it expires by itself", help.See("pending-identity-not-removed"),
				zap.Error(err),
			)
		}
		credentials.SetCookie(w, r, offerCookie, "", time.Unix(1, 0))
	}
}

// waiting returns the identity that waits in the browser for the caller.
func (h *Handler) waiting(
	r *http.Request, token *jwt.Token, user store.User,
) (record store.Record, waiting offer, err error) {
	record, err = h.pending(r, accounts.KindOffered, offerCookie)
	if err == nil {
		err = json.Unmarshal(record.Value, &waiting)
	}
	if errors.Is(err, store.ErrNotFound) ||
		err == nil && (record.Owner != user.ID || waiting.SessionID != SessionOf(token)) {
		return record, waiting, refusal.New(
			refusal.LoginState, "no external identity is pending in this browser for this session",
		)
	}
	return record, waiting, accounts.StoreRefusal(err)
}

// connectPage asks whether an identity is to be connected.
func (h *Handler) connectPage(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return h.accountPage(w, r) // it redirects to the log-in page
	}
	record, waiting, err := h.waiting(r, token, user)
	if err != nil {
		return h.showAccount(w, r, token, err)
	}
	return h.askToConnect(w, r, token, user, record, waiting, pageData{}, http.StatusOK)
}

func (h *Handler) askToConnect(
	w http.ResponseWriter, r *http.Request, token *jwt.Token, user store.User, record store.Record,
	waiting offer, data pageData, status int,
) error {
	language := h.pages.language(r)
	data.Text = language.Text("Anyone who logs in there as %s will then be logged in to your account here. "+
		"Connect only an account of your own.", waiting.Name())
	data.Confirm = &pageConfirm{
		Question: language.Text("Connect %s (%s) to your account %s?", waiting.Label, waiting.Name(), user.Email),
		Yes:      "Connect", No: "Cancel", Action: answer.MountedAt(r) + h.Path("connect"), Offer: record.ID,
	}
	data.leadsOn = waiting.ReturnTo != ""
	return h.ask(w, r, token, user, data, status)
}

// logInAgain is for users who must be present and have no password.
const logInAgain = "You logged in more than 5 minutes ago, and your account has no password. " +
	"Log out, log in again and repeat this step."

// both returns two texts in a language.
func both(language *texts.Language, one, other string) string {
	return language.Text(one) + " " + language.Text(other)
}

// ask shows a question. It also asks for the password unless the log-in was recent.
func (h *Handler) ask(
	w http.ResponseWriter, r *http.Request, token *jwt.Token, user store.User, data pageData, status int,
) error {
	fresh, err := h.service.Sessions.IsFresh(r.Context(), user.ID, SessionOf(token))
	if err != nil {
		return err
	}
	data.Confirm.Password = user.PasswordHash != "" && (!fresh || data.Confirm.Always)
	data.User = pageUser{ID: user.ID, Email: user.Email, Password: user.PasswordHash != ""}
	if !fresh && user.PasswordHash == "" {
		data.Text = both(h.pages.language(r), data.Text, logInAgain)
	}
	return h.pages.render(w, r, "confirm", data, status)
}

// connect handles the answer to the question.
func (h *Handler) connect(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	in, err := readInput(w, r, "offer", "decision", "currentPassword")
	if err != nil {
		return err
	}
	if !in.form { // a program has not seen the question
		return refusal.New(refusal.MediaType, "it is not a form")
	}
	record, waiting, err := h.waiting(r, token, user)
	if err == nil && in.text("offer") != record.ID {
		err = refusal.New(refusal.LoginState, "the page was about another external identity")
	}
	if err != nil {
		return h.showAccount(w, r, token, err)
	}
	next := answer.SafeReturnPath(waiting.ReturnTo, answer.MountedAt(r)+h.Path("account"))
	if in.text("decision") != "yes" {
		h.dropOffer(w, r)
		answer.SeeOther(w, next)
		return nil
	}
	if err := h.service.LogIns.Confirm(
		r.Context(), user, SessionOf(token), in.text("currentPassword"), client(r),
	); err != nil {
		refusal, ok := errors.AsType[*refusal.Error](err)
		if !ok {
			return err
		}
		h.answers.Announce(w, r, refusal)
		public := refusal.Reason.Answer()
		data := pageData{Error: confirmError(h.pages.language(r), refusal)}
		return h.askToConnect(w, r, token, user, record, waiting, data, public.Status)
	}
	_, err = h.takePending(w, r, accounts.KindOffered, offerCookie, func(store.Record) error { return nil })
	if errors.Is(err, store.ErrNotFound) {
		err = refusal.New(refusal.LoginState, "the question was already answered")
	}
	if err == nil {
		err = h.service.Identities.Connect(r.Context(), user.ID, SessionOf(token), waiting.LinkedIdentity, client(r))
	}
	if err != nil {
		return h.showAccount(w, r, token, accounts.StoreRefusal(err))
	}
	answer.SeeOther(w, next)
	return nil
}

// confirmError returns the error text for a page that asks for the password.
func confirmError(language *texts.Language, failure *refusal.Error) string {
	if failure.Reason == refusal.WrongCredentials {
		return "The current password is wrong."
	}
	return formText(language, failure)
}

// identities lists the identities of the caller.
func (h *Handler) identities(w http.ResponseWriter, r *http.Request) error {
	token, err := h.shared.caller(w, r)
	if err != nil {
		return err
	}
	links, err := h.service.Identities.Of(r.Context(), token.UserID)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, identityAnswers(links))
}

// identityAnswers returns identities as clients see them.
func identityAnswers(links []accounts.LinkedIdentity) []map[string]any {
	all := make([]map[string]any, len(links))
	for i, link := range links {
		all[i] = map[string]any{
			"id": link.ID(), "provider": link.Label, "issuer": link.Issuer,
			"subject": link.Subject, "email": link.Email, "connectedAt": link.At.UTC(),
		}
	}
	return all
}

// identity asks whether to disconnect an identity (GET), or disconnects it (POST of the
// page's form, or DELETE).
func (h *Handler) identity(w http.ResponseWriter, r *http.Request, id string) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	links, err := h.service.Identities.Of(r.Context(), user.ID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(links, func(link accounts.LinkedIdentity) bool { return link.ID() == id })
	if i < 0 {
		return &refusal.Error{Reason: refusal.NoSuchRoute}
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return h.askToDisconnect(w, r, token, user, links, i, pageData{}, http.StatusOK)
	}
	in := new(input)
	if r.Method == http.MethodPost || r.ContentLength != 0 {
		if in, err = readInput(w, r, "currentPassword"); err != nil {
			return err
		}
	}
	if !in.form && r.Method == http.MethodPost {
		return refusal.New(refusal.MediaType, "it is not a form")
	}
	if in.form && in.text("decision") != "yes" {
		answer.SeeOther(w, answer.MountedAt(r)+h.Path("account"))
		return nil
	}
	if _, given := in.values["currentPassword"]; given {
		in.want("currentPassword")
	}
	if err = in.err(); err == nil {
		err = h.service.LogIns.Confirm(r.Context(), user, SessionOf(token), in.text("currentPassword"), client(r))
	}
	if err == nil {
		err = h.service.Identities.Disconnect(r.Context(), user, id, client(r))
	}
	if refusal, ok := errors.AsType[*refusal.Error](err); ok && in.form {
		h.answers.Announce(w, r, refusal)
		data := pageData{Error: confirmError(h.pages.language(r), refusal)}
		return h.askToDisconnect(w, r, token, user, links, i, data, refusal.Reason.Answer().Status)
	}
	if err != nil {
		return err
	}
	if in.form {
		answer.SeeOther(w, answer.MountedAt(r)+h.Path("account"))
		return nil
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) askToDisconnect(
	w http.ResponseWriter, r *http.Request, token *jwt.Token, user store.User,
	links []accounts.LinkedIdentity, i int, data pageData, status int,
) error {
	link := links[i]
	language := h.pages.language(r)
	data.Text = language.Text(
		"You will no longer be able to log in to your account through %s as %s.", link.Label, link.Name(),
	)
	switch {
	case len(links) == 1 && user.PasswordHash == "":
		data.Text = "You have no password, so this is your only way to log in and cannot be disconnected. " +
			"Ask the operators of this site for a link to set a password."
	case user.PasswordHash == "":
		data.Text = both(language, data.Text, "You have no password. You can still log in through the other "+
			"providers that you connected.")
	}
	data.Confirm = &pageConfirm{
		Question: language.Text("Disconnect %s (%s) from your account %s?", link.Label, link.Name(), user.Email),
		Yes:      "Disconnect", No: "Cancel", Action: answer.MountedAt(r) + h.Path("identities") + "/" + link.ID(),
	}
	return h.ask(w, r, token, user, data, status)
}
