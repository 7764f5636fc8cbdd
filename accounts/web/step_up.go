package web

import (
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/passkey"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// stepUpFor returns the URL of the page where the user of a browser proves what a rule requires, and
// which leads back. It is empty if no page can do that.
func (a *Shared) stepUpFor(r *http.Request, failure *refusal.Error) string {
	to := ""
	switch {
	case slices.Contains(failure.ACR, accounts.ClassMultiple) && a.HasSecondFactor():
		to = a.service.Config.Path("step up")
	case slices.Contains(failure.ACR, accounts.ClassPassword):
		to = a.service.Config.Path("login")
	default:
		return ""
	}
	return answer.MountedAt(r) + to + "?return_to=" + url.QueryEscape(originalURL(r).RequestURI())
}

// stepUpPage asks a logged-in user for the second factor. A user without one is led to setting one up.
func (h *Handler) stepUpPage(w http.ResponseWriter, r *http.Request) error {
	returnTo := answer.SafeReturnPath(r.URL.Query().Get("return_to"), "")
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		if refusal.Of(err).Reason.Answer().Status != http.StatusUnauthorized {
			return err
		}
		answer.SeeOther(w, h.shared.LoginURL(r, answer.MountedAt(r)+r.URL.RequestURI(), ""))
		return nil
	}
	return h.askStepUp(w, r, token, user, pageData{ReturnTo: returnTo}, http.StatusOK)
}

func (h *Handler) askStepUp(
	w http.ResponseWriter, r *http.Request, token *jwt.Token, user store.User, data pageData, status int,
) error {
	found, err := h.service.Factors.Of(r.Context(), user.ID)
	if err != nil {
		return err
	}
	code := found.TOTP != nil && h.SecondFactor != ""
	var offer *pagePasskey
	if h.canUse(r, found.Passkeys) {
		options, err := h.service.Keyring.StepUpOptions(r.Context(), h.party, user.ID, SessionOf(token))
		if err == nil {
			offer, err = newPagePasskey(options)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case code || offer != nil:
	case h.SecondFactor != "":
		if data.Error == "" {
			data.Notice = "The page that you opened requires two-step log-in. Set it up first."
		}
		return h.renderFactors(w, r, token, user, data, pageFactors{}, status)
	default:
		if data.Error == "" {
			data.Notice = "The page that you opened requires a passkey. Add one first."
		}
		return h.renderPasskeys(w, r, token, user, data, false, status)
	}
	data.User = pageUser{ID: user.ID, Email: user.Email, Password: user.PasswordHash != ""}
	data.Factor = &pageFactor{StepUp: true, Code: code, Passkey: offer}
	return h.pages.render(w, r, "factor", data, status)
}

// toProve returns the URL of the page on which the user must prove a factor before the page of a route
// can change anything, and which leads back to it; see [accounts.Factors.Guard]. It is empty if that is not
// needed.
func (h *Handler) toProve(r *http.Request, user store.User, token *jwt.Token, route string) (string, error) {
	err := h.service.Factors.Guard(r.Context(), h.party, user, SessionOf(token))
	if !isReason(err, refusal.FactorCodeNeeded) && !isReason(err, refusal.PasskeyNeeded) {
		return "", err
	}
	at := answer.MountedAt(r)
	return at + h.Path("step up") + "?" + url.Values{"return_to": {at + h.Path(route)}}.Encode(), nil
}

// canUse reports whether a page can ask for one of these passkeys.
func (h *Handler) canUse(r *http.Request, all []passkey.Passkey) bool {
	return h.party != nil && h.party.Covers(hostOf(r)) &&
		slices.ContainsFunc(all, func(k passkey.Passkey) bool { return k.Party == h.party.ID })
}

// orPasskey returns the known properties of a body that may have a passkey instead of a code.
func (h *Handler) orPasskey(known ...string) []string {
	if h.party != nil {
		known = append(known, "credential")
	}
	return known
}

// stepUp proves the second factor of the session: a program then refreshes its token, and a browser
// gets a new one and goes back.
func (h *Handler) stepUp(w http.ResponseWriter, r *http.Request) error {
	token, user, err := h.shared.callerUser(w, r)
	if err != nil {
		return err
	}
	in, err := readInput(w, r, h.orPasskey("code")...)
	if err != nil {
		return err
	}
	if _, byPasskey := in.values["credential"]; byPasskey && h.party != nil {
		credential := in.credential()
		if err = in.err(); err == nil {
			err = h.service.Keyring.StepUp(r.Context(), h.party, user, SessionOf(token), credential, client(r))
		}
	} else {
		code := in.want("code")
		if err = in.err(); err == nil {
			_, err = h.service.Factors.StepUp(r.Context(), user, SessionOf(token), code, client(r))
		}
	}
	if err == nil && in.form {
		err = h.renew(w, r)
	}
	if failure, ok := errors.AsType[*refusal.Error](err); ok && in.form {
		h.service.LogStoreFailure(failure)
		h.answers.Announce(w, r, failure)
		return h.askStepUp(w, r, token, user, h.refusedForm(r, in, failure), failure.Reason.Answer().Status)
	}
	if err != nil {
		return err
	}
	if in.form {
		answer.SeeOther(w, h.afterLogIn(r, in))
		return nil
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// renew gives a browser a token that says how the user has authenticated by now.
func (h *Handler) renew(w http.ResponseWriter, r *http.Request) error {
	_, err := h.shared.Renew(w, r)
	return err
}
