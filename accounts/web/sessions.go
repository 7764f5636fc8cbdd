package web

import (
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/mileusna/useragent"
)

// sessionsRoute lists the sessions of the caller, or ends all others.
func (h *Handler) sessionsRoute(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost || r.Method == http.MethodDelete {
		return h.endOtherSessions(w, r)
	}
	return h.sessions(w, r)
}

// endOtherSessions ends all sessions of the caller but this one (DELETE, or the page's form).
func (h *Handler) endOtherSessions(w http.ResponseWriter, r *http.Request) error {
	token, err := h.shared.caller(w, r)
	if err == nil {
		err = h.service.Sessions.End(r.Context(), token.UserID, "", SessionOf(token))
	}
	if err != nil {
		return err
	}
	h.service.Audit("other sessions ended", token.UserID, SessionOf(token), client(r))
	if r.Method == http.MethodPost {
		return h.renderAccount(w, r, token, pageData{Notice: "Your other sessions were ended."}, http.StatusOK)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// sessions lists the sessions of the caller.
func (h *Handler) sessions(w http.ResponseWriter, r *http.Request) error {
	token, err := h.shared.caller(w, r)
	if err != nil {
		return err
	}
	sessions, err := h.service.Users().Sessions(r.Context(), token.UserID, h.service.Now())
	if err != nil {
		return accounts.StoreRefusal(err)
	}
	return answer.WriteJSON(w, http.StatusOK, h.sessionAnswers(sessions, SessionOf(token)))
}

// sessionAnswers returns sessions as clients see them.
func (h *Handler) sessionAnswers(sessions []store.Session, own string) []map[string]any {
	all, english := make([]map[string]any, len(sessions)), h.pages.texts.English()
	for i, s := range h.ownView(sessions, own) {
		all[i] = map[string]any{
			"id": s.ID, "device": device(english, s.UserAgent), "client": s.UserAgent, "address": s.Address,
			"createdAt": s.CreatedAt.UTC(), "usedAt": s.UsedAt.UTC(), "expiresAt": s.ExpiresAt.UTC(),
			"current": s.ID == own,
		}
	}
	return all
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

// endSession ends a session of the caller.
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
	if err := h.service.Sessions.End(r.Context(), token.UserID, id, ""); err != nil {
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

// device returns what a User-Agent says in words that its user knows, such as "Chrome on Linux". It is
// empty if it says nothing that is known.
func device(language *texts.Language, userAgent string) string {
	client := useragent.Parse(userAgent)
	switch {
	case !strings.ContainsFunc(client.Name, unicode.IsLetter):
		return ""
	case client.OS == "":
		return client.Name
	}
	return language.Text("%s on %s", client.Name, client.OS)
}
