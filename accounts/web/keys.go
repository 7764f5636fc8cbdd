package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

const (
	maxUserKeys    = 50  // that a user can have
	maxListed      = 500 // keys: an administrator may have made more
	maxKeyName     = 100 // characters
	pageGrace      = 24 * time.Hour
	longestUserKey = 10 * 365 * 24 * time.Hour
)

// keyCaller is a user on the routes of API keys.
type keyCaller struct {
	token *jwt.Token
	user  store.User
	keys  apikeys.Keys
}

// scopes are those that the user's keys may have: those of the session, without the scope of
// the account routes.
func (c keyCaller) scopes() []string {
	return slices.DeleteFunc(slices.Clone(jwt.Scopes(c.token.Claims)), func(scope string) bool {
		return scope == accounts.AccountScope
	})
}

func (h *Handler) keyCaller(w http.ResponseWriter, r *http.Request) (c keyCaller, err error) {
	if c.token, c.user, err = h.shared.callerUser(w, r); err != nil {
		return c, err
	}
	c.keys, err = apikeys.In(h.service.Users(), h.KeyPrefix, h.service.Now)
	return c, err
}

// keyRoute returns the handler and the methods of a route of API keys; none if users cannot
// make any.
func (h *Handler) keyRoute(name, id string) (serve accountRoute, methods []string) {
	switch {
	case h.KeyPrefix == "":
		return nil, nil
	case name == "keys":
		return h.byMethod(h.listKeys, h.makeKey), []string{http.MethodGet, http.MethodHead, http.MethodPost}
	}
	return func(w http.ResponseWriter, r *http.Request) error { return h.changeKey(w, r, id) },
		[]string{http.MethodPost, http.MethodDelete}
}

// listKeys lists the keys of the caller, for a browser as a page.
func (h *Handler) listKeys(w http.ResponseWriter, r *http.Request) error {
	page := answer.Prefers(r, "text/html", "application/json")
	c, err := h.keyCaller(w, r)
	if page && h.sentToLogin(w, r, "keys", err) {
		return nil
	}
	if err != nil {
		return err
	}
	if page {
		return h.renderKeys(w, r, c, pageData{}, http.StatusOK)
	}
	found, err := keysOf(r.Context(), c.keys, c.user.ID)
	if err != nil {
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, found)
}

// keysOf returns the keys of a user as they are shown.
func keysOf(ctx context.Context, keys apikeys.Keys, userID string) ([]apikeys.View, error) {
	found, err := keys.List(ctx, userID, "", maxListed)
	if errors.Is(err, apikeys.ErrCorrupt) { // it can still be revoked
		err = nil
	}
	views := make([]apikeys.View, len(found))
	for i := range found {
		views[i] = found[i].View("")
	}
	slices.SortFunc(views, func(a, b apikeys.View) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return views, accounts.StoreRefusal(err)
}

// makeKey makes a key of the caller.
func (h *Handler) makeKey(w http.ResponseWriter, r *http.Request) error {
	c, err := h.keyCaller(w, r)
	if err != nil {
		return err
	}
	in, err := readInput(w, r, "name", "roles", "scope", "expires", "currentPassword")
	if err != nil {
		return err
	}
	key := h.newKey(in, c)
	if err = in.err(); err == nil {
		err = h.confirmKey(r, c, in)
	}
	var texts []string
	if err == nil {
		texts, err = c.keys.Make(r.Context(), key)
		if errors.Is(err, apikeys.ErrInvalid) {
			err = refusal.New(refusal.Body, "%v", err)
		}
		err = accounts.StoreRefusal(err)
	}
	if err != nil {
		return h.keysPageOr(w, r, c, in, err)
	}
	return h.showKey(w, r, c, in, key.View(texts[0]), http.StatusCreated, "made")
}

// confirmKey ensures that the user is present and has room for another key.
func (h *Handler) confirmKey(r *http.Request, c keyCaller, in *input) error {
	err := h.service.LogIns.Confirm(r.Context(), c.user, SessionOf(c.token), in.text("currentPassword"), client(r))
	if err != nil {
		return err
	}
	found, err := keysOf(r.Context(), c.keys, c.user.ID)
	if err == nil && len(found) >= maxUserKeys {
		return refusal.New(refusal.TooManyKeys, "the user has %d", len(found))
	}
	return err
}

// newKey returns the key that the input describes.
func (h *Handler) newKey(in *input, c keyCaller) *apikeys.Key {
	key := &apikeys.Key{Owner: c.user.ID, Subject: c.user.ID, OwnRoles: true, Name: in.want("name")}
	if len([]rune(key.Name)) > maxKeyName {
		in.wrong(
			"name", "maxLength", texts.Errorf("has more than %d characters", maxKeyName), object{"limit": maxKeyName},
		)
	}
	if strings.ContainsFunc(key.Name, apikeys.IsHidden) {
		in.wrong("name", "pattern", texts.Errorf("must not contain invisible characters"), object{})
	}
	key.Roles, key.Scope = in.choices("roles", c.user.Roles), in.choices("scope", c.scopes())
	if _, given := in.values["expires"]; given && in.text("expires") != "never" {
		after, err := caddy.ParseDuration(in.text("expires"))
		if err != nil || after <= 0 || after > longestUserKey {
			in.wrong(
				"expires", "format", texts.Errorf("must be a time from now of at most 10 years, such as 90d, or never"),
				object{"format": "duration"},
			)
		}
		key.ExpiresAt = h.service.Now().Add(after).Truncate(time.Second)
	}
	return key
}

// choices returns the chosen ones of the allowed values: a list in JSON, in a form a field for
// each, named as in roles.admin.
func (in *input) choices(name string, allowed []string) (chosen []string) {
	if in.form {
		for _, value := range allowed {
			if in.text(name+"."+value) != "" {
				chosen = append(chosen, value)
			}
		}
		return chosen
	}
	value, given := in.values[name]
	list, isList := value.(jwt.List)
	for _, element := range list {
		text, isText := element.(string)
		if !isText || !slices.Contains(allowed, text) {
			in.wrong(name, "enum", texts.Errorf("must be some of your own"), object{"allowedValues": allowed})
			return nil
		}
		chosen = append(chosen, text)
	}
	if given && !isList {
		in.wrong(name, "type", texts.Errorf("must be a list"), object{"type": "array"})
	}
	return chosen
}

// changeKey revokes a key of the caller (DELETE) or gives it a new secret (POST); the page's
// form does either.
func (h *Handler) changeKey(w http.ResponseWriter, r *http.Request, id string) error {
	c, err := h.keyCaller(w, r)
	if err != nil {
		return err
	}
	key, err := c.keys.Get(r.Context(), id)
	if errors.Is(err, apikeys.ErrCorrupt) { // it can still be revoked
		err = nil
	}
	if err == nil && key.Owner != c.user.ID {
		err = store.ErrNotFound
	}
	if errors.Is(err, store.ErrNotFound) {
		return &refusal.Error{Reason: refusal.NoSuchRoute}
	}
	if err != nil {
		return accounts.StoreRefusal(err)
	}
	if r.Method == http.MethodDelete {
		if err := h.revokeKey(r, c, id); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	in, err := readInput(w, r, "grace", "currentPassword")
	if err != nil {
		return err
	}
	if in.form && in.text("action") == "revoke" {
		if err := h.revokeKey(r, c, id); err != nil {
			return err
		}
		answer.SeeOther(w, answer.MountedAt(r)+h.Path("keys"))
		return nil
	}
	if !key.OwnRoles {
		return h.keysPageOr(w, r, c, in, refusal.New(refusal.KeyNotOwn, "an administrator made it"))
	}
	return h.rollKey(w, r, c, in, id)
}

func (h *Handler) rollKey(w http.ResponseWriter, r *http.Request, c keyCaller, in *input, id string) error {
	grace := time.Duration(0)
	if in.form {
		grace = pageGrace
	} else if text, given := in.values["grace"]; given {
		var err error
		if grace, err = caddy.ParseDuration(fmt.Sprint(text)); err != nil || grace < 0 || grace > apikeys.MaxGrace {
			in.wrong("grace", "format", texts.Errorf("must be a time of at most 90d, such as 24h"),
				object{"format": "duration"})
		}
	}
	err := in.err()
	if err == nil {
		err = h.service.LogIns.Confirm(r.Context(), c.user, SessionOf(c.token), in.text("currentPassword"), client(r))
	}
	var text string
	var key apikeys.Key
	if err == nil {
		text, key, err = c.keys.Roll(r.Context(), id, grace)
		if errors.Is(err, store.ErrNotFound) {
			return &refusal.Error{Reason: refusal.NoSuchRoute}
		}
		if errors.Is(err, apikeys.ErrRolled) || errors.Is(err, apikeys.ErrExpired) {
			err = refusal.New(refusal.KeyChanged, "%v", err)
		}
		err = accounts.StoreRefusal(err)
	}
	if err != nil {
		return h.keysPageOr(w, r, c, in, err)
	}
	return h.showKey(w, r, c, in, key.View(text), http.StatusOK, "rolled")
}

func (h *Handler) revokeKey(r *http.Request, c keyCaller, id string) error {
	err := c.keys.Revoke(r.Context(), id)
	if errors.Is(err, store.ErrNotFound) {
		return &refusal.Error{Reason: refusal.NoSuchRoute}
	}
	if err == nil {
		h.keyChanged(r, c, id, "revoked")
	}
	return accounts.StoreRefusal(err)
}

// keyChanged makes this process notice a change at once, and records it.
func (h *Handler) keyChanged(r *http.Request, c keyCaller, id, result string) {
	apikeys.LearnAll(r.Context())
	h.service.CountEvent("api_key", result)
	h.service.Audit("API key "+result, c.user.ID, SessionOf(c.token), client(r), zap.String("key_id", id))
}

// showKey answers with a key that is new or has a new secret, which is shown only here.
func (h *Handler) showKey(
	w http.ResponseWriter, r *http.Request, c keyCaller, in *input, key apikeys.View, status int, result string,
) error {
	h.keyChanged(r, c, key.ID, result)
	if !in.form {
		return answer.WriteJSON(w, status, key)
	}
	return h.renderKeys(w, r, c, pageData{NewKey: &key}, http.StatusOK)
}

// keysPageOr shows the refusal of a form on the page of the keys. For any other request it
// returns the refusal.
func (h *Handler) keysPageOr(w http.ResponseWriter, r *http.Request, c keyCaller, in *input, err error) error {
	failure, ok := errors.AsType[*refusal.Error](err)
	if !in.form || !ok {
		return err
	}
	h.answers.Announce(w, r, failure)
	data := h.refusedForm(r, in, failure)
	data.Error = confirmError(h.pages.language(r), failure)
	return h.renderKeys(w, r, c, data, failure.Reason.Answer().Status)
}

func (h *Handler) renderKeys(w http.ResponseWriter, r *http.Request, c keyCaller, data pageData, status int) error {
	fresh, err := h.service.Sessions.IsFresh(r.Context(), c.user.ID, SessionOf(c.token))
	if err == nil {
		data.Keys, err = keysOf(r.Context(), c.keys, c.user.ID)
	}
	if err != nil {
		return err
	}
	data.User = pageUser{
		ID: c.user.ID, Email: c.user.Email, Roles: c.user.Roles, Password: !fresh && c.user.PasswordHash != "",
	}
	data.Scopes = c.scopes()
	return h.pages.render(w, r, "keys", data, status)
}
