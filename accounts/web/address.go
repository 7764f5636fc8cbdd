package web

import (
	"net/http"

	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// emailPage asks a user for a new address, and for the password unless the log-in was recent.
func (h *Handler) emailPage(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return h.logInFirst(w, r, "email", err)
	}
	toProve, err := h.toProve(r, user, token, "email")
	if err != nil {
		return err
	}
	if toProve != "" {
		answer.SeeOther(w, toProve)
		return nil
	}
	fresh, err := h.service.Sessions.IsFresh(r.Context(), user.ID, SessionOf(token))
	if err != nil {
		return err
	}
	ask := askEmail
	ask.Password = !fresh && user.PasswordHash != ""
	if !fresh && !ask.Password {
		ask.Text = both(h.pages.language(r), ask.Text, logInAgain)
	}
	return h.askPage(w, r, "address", ask, pageData{}, http.StatusOK)
}

// email mails a code to a new address.
func (h *Handler) email(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	in, err := readInput(w, r, "email", "password")
	if err != nil {
		return err
	}
	email := h.wantEmail(in)
	if _, given := in.values["password"]; given {
		in.want("password")
	}
	if err = in.err(); err == nil {
		err = h.service.LogIns.Confirm(r.Context(), user, SessionOf(token), in.text("password"), client(r))
	}
	if err == nil {
		err = h.service.Factors.Guard(r.Context(), h.party, user, SessionOf(token))
	}
	if err == nil {
		err = h.service.LogIns.AskAddress(r.Context(), user, email, h.asker(r))
	}
	if err != nil {
		ask := askEmail
		ask.Password = in.text("password") != "" || refusal.Of(err).Reason == refusal.NotConfirmed
		return h.askOr(w, r, in, "address", ask, err)
	}
	ask := askEmailCode
	ask.Again = &pageLink{"Send another mail", h.Path("email")}
	return h.mailed(w, r, in, ask)
}

// confirmEmail changes the address with the code that was mailed to it.
func (h *Handler) confirmEmail(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	in, err := readInput(w, r, "code")
	if err != nil {
		return err
	}
	code := in.want("code")
	if err = in.err(); err == nil {
		err = h.service.Factors.Guard(r.Context(), h.party, user, SessionOf(token))
	}
	if err == nil {
		err = h.service.LogIns.ConfirmAddress(r.Context(), user, SessionOf(token), code, h.asker(r))
	}
	if err != nil {
		ask := askEmailCode
		ask.Again = &pageLink{"Send another mail", h.Path("email")}
		return h.askOr(w, r, in, "code", ask, err)
	}
	if in.form {
		return h.renderAccount(w, r, token, pageData{Notice: "Your e-mail address was changed."}, http.StatusOK)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
