package web

import (
	"net/http"

	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// invitePage asks a user who can invite others for an address.
func (h *Handler) invitePage(w http.ResponseWriter, r *http.Request) error {
	_, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return h.logInFirst(w, r, "invite", err)
	}
	if !h.service.LogIns.MayInvite(user) {
		return &refusal.Error{Reason: refusal.Role}
	}
	return h.askPage(w, r, "address", askInvite, pageData{}, http.StatusOK)
}

// invite invites somebody by mail.
func (h *Handler) invite(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	in, err := readInput(w, r, "email")
	if err != nil {
		return err
	}
	email := h.wantEmail(in)
	if err = in.err(); err == nil {
		err = h.service.LogIns.SendInvitation(r.Context(), user, SessionOf(token), email, h.asker(r))
	}
	if err != nil {
		return h.askOr(w, r, in, "address", askInvite, err)
	}
	if !in.form {
		return answer.WriteJSON(w, http.StatusAccepted, map[string]string{"status": "check_mail"})
	}
	return h.askPage(w, r, "address", askInvite, pageData{
		Notice: "The invitation is on its way. You can invite somebody else.",
	}, http.StatusOK)
}
