package web

import (
	"errors"
	"net/http"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// whoamiRoute shows the user of a token, and lets a program change its profile or delete it.
func (h *Handler) whoamiRoute(w http.ResponseWriter, r *http.Request) error {
	switch r.Method {
	case http.MethodPatch:
		return h.changeProfile(w, r)
	case http.MethodDelete:
		return h.deleteAccount(w, r)
	}
	return h.whoami(w, r)
}

// changeProfile sets properties of the profile. null removes one.
func (h *Handler) changeProfile(w http.ResponseWriter, r *http.Request) error {
	token, err := h.shared.caller(w, r)
	if err != nil {
		return err
	}
	in, err := readInput(w, r, h.Profile...)
	if err != nil {
		return err
	}
	if in.form {
		return refusal.New(refusal.MediaType, "it is a form, not JSON")
	}
	var user store.User
	properties := h.profile(in)
	if err = in.err(); err == nil {
		user, err = h.service.LogIns.ChangeProfile(
			r.Context(), token.UserID, SessionOf(token), properties, client(r),
		)
	}
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, h.userAnswer(user))
}

// profileForm handles the form of the account page: an empty field removes its property.
func (h *Handler) profileForm(w http.ResponseWriter, r *http.Request) error {
	token, err := h.shared.caller(w, r)
	if err != nil {
		return err
	}
	in, err := readInput(w, r)
	if err != nil {
		return err
	}
	if !in.form {
		return refusal.New(refusal.MediaType, "it is not a form")
	}
	properties := h.profile(in)
	for _, name := range h.Profile {
		if _, posted := r.PostForm[name]; posted && in.text(name) == "" {
			properties[name] = nil
		}
	}
	if err = in.err(); err == nil {
		_, err = h.service.LogIns.ChangeProfile(r.Context(), token.UserID, SessionOf(token), properties, client(r))
	}
	if failure, ok := errors.AsType[*refusal.Error](err); ok {
		h.answers.Announce(w, r, failure)
		data := h.refusedForm(r, in, failure)
		data.Error = "Your profile was not changed:"
		return h.renderAccount(w, r, token, data, failure.Reason.Answer().Status)
	}
	if err != nil {
		return err
	}
	return h.renderAccount(w, r, token, pageData{Notice: "Your profile was changed."}, http.StatusOK)
}

// export returns all that is kept about the user, but for secrets and their hashes.
func (h *Handler) export(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	sessions, err := h.service.Users().Sessions(r.Context(), user.ID, h.service.Now())
	if err != nil {
		return accounts.StoreRefusal(err)
	}
	identities, err := h.service.Identities.Of(r.Context(), user.ID)
	if err != nil {
		return err
	}
	all, err := h.service.Links.Exports(r.Context(), user.ID)
	if err != nil {
		return err
	}
	if h.KeyPrefix != "" {
		keys, err := apikeys.In(h.service.Users(), h.KeyPrefix, h.service.Now)
		if err != nil {
			return accounts.StoreRefusal(err)
		}
		if all["keys"], err = keysOf(r.Context(), keys, user.ID); err != nil {
			return err
		}
	}
	if h.SecondFactor != "" {
		if all["factors"], err = h.factorAnswers(r, user); err != nil {
			return err
		}
	}
	if h.Passkeys != nil {
		passkeys, err := h.service.Keyring.Of(r.Context(), user.ID)
		if err != nil {
			return err
		}
		all["passkeys"] = h.passkeyAnswers(passkeys)
	}
	about := h.userAnswer(user)
	about["hasPassword"] = user.PasswordHash != ""
	if user.Address() != "" {
		about["emailVerified"] = user.EmailVerified
	}
	about["createdAt"], about["updatedAt"] = user.CreatedAt.UTC(), user.UpdatedAt.UTC()
	all["exportedAt"], all["user"] = h.service.Now().UTC(), about
	all["sessions"], all["identities"] = h.sessionAnswers(sessions, SessionOf(token)), identityAnswers(identities)
	w.Header().Set("Content-Disposition", `attachment; filename="account.json"`)
	return answer.WriteJSON(w, http.StatusOK, all)
}

// deleteAccount deletes the account of a program's user.
func (h *Handler) deleteAccount(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	in := new(input)
	if user.PasswordHash != "" || r.ContentLength != 0 {
		if in, err = readInput(w, r, "password"); err != nil {
			return err
		}
	}
	if in.form {
		return refusal.New(refusal.MediaType, "it is a form, not JSON")
	}
	if user.PasswordHash != "" {
		in.want("password")
	}
	if err = in.err(); err == nil {
		err = h.service.LogIns.Delete(r.Context(), user, SessionOf(token), in.text("password"), client(r))
	}
	if err != nil {
		return err
	}
	h.deleted(w, r)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) deleted(w http.ResponseWriter, r *http.Request) {
	clearSessionCookies(w, r)
	if h.KeyPrefix != "" {
		apikeys.LearnAll(r.Context())
	}
}

func (h *Handler) deletePage(w http.ResponseWriter, r *http.Request) error {
	return h.askToDelete(w, r, pageData{}, http.StatusOK)
}

// askToDelete asks whether to delete the account.
func (h *Handler) askToDelete(w http.ResponseWriter, r *http.Request, data pageData, status int) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return h.logInFirst(w, r, "delete", err)
	}
	data.Text = "All that this site's accounts keep about you is deleted at once and cannot be brought back: your " +
		"profile, your sessions, your ways to log in and your API keys."
	data.Confirm = &pageConfirm{
		Question: h.pages.language(r).Text("Delete your account %s?", user.Email),
		Yes:      "Delete my account", No: "Cancel", Action: answer.MountedAt(r) + h.Path("delete"), Always: true,
	}
	return h.ask(w, r, token, user, data, status)
}

func (h *Handler) deleteForm(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	in, err := readInput(w, r)
	if err != nil {
		return err
	}
	if !in.form {
		return refusal.New(refusal.MediaType, "it is not a form")
	}
	if in.text("decision") != "yes" {
		answer.SeeOther(w, answer.MountedAt(r)+h.Path("account"))
		return nil
	}
	err = h.service.LogIns.Delete(r.Context(), user, SessionOf(token), in.text("currentPassword"), client(r))
	if failure, ok := errors.AsType[*refusal.Error](err); ok {
		h.answers.Announce(w, r, failure)
		data := pageData{Error: confirmError(h.pages.language(r), failure)}
		return h.askToDelete(w, r, data, failure.Reason.Answer().Status)
	}
	if err != nil {
		return err
	}
	h.deleted(w, r)
	return h.pages.render(w, r, "message", pageData{
		Title: "Your account was deleted",
		Text:  "With it, all that the accounts of this site kept about you was deleted.",
	}, http.StatusOK)
}
