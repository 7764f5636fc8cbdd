package provider

import (
	"context"
	"crypto/rand"
	"errors"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
)

const (
	deviceLifetime = 10 * time.Minute
	deviceInterval = 5 * time.Second
	// userCodeLetters cannot spell words and do not look alike (RFC 8628 §6.1). 8 of 20
	// letters are 34 bits, of which few can be tried in 10 minutes.
	userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"
	userCodeLength  = 8
)

// deviceCode is a log-in on a device without a browser (RFC 8628), stored under the hash of
// its device code.
type deviceCode struct {
	Since     string        `json:"since,omitempty"` // of the client
	ClientID  string        `json:"client_id"`
	Scopes    []string      `json:"scopes"`
	Resources []string      `json:"resources,omitempty"`
	UserCode  string        `json:"user_code"`
	PolledAt  time.Time     `json:"polled_at,omitzero"`
	Interval  time.Duration `json:"interval"`
	Grant     *grant        `json:"grant,omitempty"`
	Denied    bool          `json:"denied,omitempty"`
	// DecidedIn is the session in which the user allowed or refused the device.
	DecidedIn string `json:"decided_in,omitempty"`
	// Family and GivenBy are like those of an authorization code.
	Family  string `json:"family,omitempty"`
	GivenBy string `json:"given_by,omitempty"`
}

// deviceAuthorization is the endpoint that gives a device its codes.
func (p *Provider) deviceAuthorization(w http.ResponseWriter, r *http.Request) error {
	values, err := form(r)
	if err != nil {
		return err
	}
	client, err := p.authenticate(r, values)
	if err != nil {
		return err
	}
	if !slices.Contains(client.GrantTypes, grantDevice) {
		return refuse("unauthorized_client", "the client is not registered for "+grantDevice)
	}
	resources, err := p.parseResources(values["resource"])
	if err != nil {
		return err
	}
	scopes, err := p.parseScopes(client, resources, values.Get("scope"))
	if err != nil {
		return err
	}
	if err := p.limitStrangers(r, client, p.devices); err != nil {
		return err
	}
	device, user := store.RandomToken(32), newUserCode()
	kept := deviceCode{
		ClientID: client.ID, Since: client.Since, Scopes: scopes, Resources: resources,
		UserCode: user, Interval: deviceInterval,
	}
	if err := p.state.create(r.Context(), kindDevice, hashed(device), "", kept, deviceLifetime); err != nil {
		return err
	}
	if err := p.state.create(r.Context(), kindUserCode, user, "", hashed(device), deviceLifetime); err != nil {
		return err
	}
	shown := user[:4] + "-" + user[4:]
	return writeJSON(w, http.StatusOK, map[string]any{
		"device_code": device, "user_code": shown, "verification_uri": p.at("/oidc/device"),
		"verification_uri_complete": p.at("/oidc/device?user_code=" + shown),
		"expires_in":                int(deviceLifetime / time.Second), "interval": int(deviceInterval / time.Second),
	})
}

func newUserCode() string {
	var b strings.Builder
	for range userCodeLength {
		i, _ := rand.Int(rand.Reader, big.NewInt(int64(len(userCodeLetters)))) // never fails
		b.WriteByte(userCodeLetters[i.Int64()])
	}
	return b.String()
}

// plainUserCode returns a typed code without separators.
func plainUserCode(text string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(userCodeLetters, r) {
			return r
		}
		return -1
	}, strings.ToUpper(text[:min(len(text), 32)]))
}

// device is the page on which a user allows a device.
func (p *Provider) device(w http.ResponseWriter, r *http.Request) error {
	values, err := pageValues(r)
	if err != nil {
		return err
	}
	login, err := p.accounts.Login(w, r)
	if err != nil && !nobody(err) {
		return err
	}
	typed := values.Get("user_code")
	if login == nil {
		seeOther(w, p.accounts.LoginURL(r, p.basePath+"/oidc/device?"+url.Values{"user_code": {typed}}.Encode(), ""))
		return nil
	}
	language := p.accounts.Language(r, "")
	page := map[string]any{"Action": p.basePath + "/oidc/device", "Email": login.User.Email, "Typed": typed}
	if typed == "" || ofAnotherSite(r) { // pages of other sites could use up the user's guesses
		return p.pages.render(w, r, language, "device", page, http.StatusOK)
	}
	id, kept, client, err := p.findDevice(r.Context(), typed, login)
	if err != nil {
		failure, ok := errors.AsType[*oauthError](err)
		if !ok {
			return err
		}
		page["Error"] = language.Text(failure.description)
		return p.pages.render(w, r, language, "device", page, failure.status)
	}
	page["Client"], page["UserCode"] = client.Name, kept.UserCode[:4]+"-"+kept.UserCode[4:]
	page["Scopes"] = p.describe(language, p.access(kept.Scopes, kept.Resources))
	if kept.DecidedIn != "" { // the form was sent twice
		page["Done"], page["Allowed"] = true, kept.Grant != nil
		return p.pages.render(w, r, language, "device", page, http.StatusOK)
	}
	decision := values.Get("decision")
	page["Session"] = hashed(login.SessionID)
	if r.Method != http.MethodPost || decision == "" || values.Get("session") != hashed(login.SessionID) {
		return p.pages.render(w, r, language, "device", page, http.StatusOK)
	}
	if decision == "allow" && !client.mayUse(login.User) {
		return &oauthError{
			status: http.StatusForbidden, code: "access_denied", page: true,
			description: "You have none of the roles that may use " + client.shownName() + ".",
		}
	}
	if kept, err = p.decideDevice(r.Context(), id, login, decision == "allow"); err != nil {
		return err
	}
	page["Done"], page["Allowed"] = true, kept.Grant != nil
	return p.pages.render(w, r, language, "device", page, http.StatusOK)
}

const deviceTries = 20 // wrong codes per user while a code is valid

// findDevice returns the device of a code that is undecided or was decided in this session.
func (p *Provider) findDevice(
	ctx context.Context, typed string, login *web.Login,
) (id string, kept deviceCode, client *Client, err error) {
	wrong := &oauthError{
		status: http.StatusNotFound, code: "invalid_request",
		description: textWrongCode,
	}
	forgive, allowed := p.deviceGuesses.Try(ctx, login.User.ID, p.accounts.Now())
	if !allowed {
		return "", kept, nil, &oauthError{
			status: http.StatusTooManyRequests, code: "slow_down",
			description: textManyCodes,
		}
	}
	id, err = load[string](ctx, p.state, kindUserCode, plainUserCode(typed))
	if err == nil {
		forgive()
		kept, err = load[deviceCode](ctx, p.state, kindDevice, id)
	}
	if err == nil && kept.DecidedIn != "" && kept.DecidedIn != login.SessionID {
		err = errNotFound
	}
	if err == nil {
		client, err = p.clients.find(ctx, kept.ClientID)
	}
	if errors.Is(err, errNotFound) {
		err = wrong
	}
	return id, kept, client, err
}

// decideDevice records whether the user allows the device; the first decision counts.
func (p *Provider) decideDevice(ctx context.Context, id string, login *web.Login, allow bool) (deviceCode, error) {
	trusted, err := p.accounts.ByTrustedBrowser(ctx, login)
	if err != nil {
		return deviceCode{}, err
	}
	kept, err := change(ctx, p.state, kindDevice, id, func(d *deviceCode) error {
		if d.DecidedIn != "" {
			if d.DecidedIn != login.SessionID {
				return errNotFound
			}
			return nil
		}
		if d.DecidedIn, d.Denied = login.SessionID, !allow; allow {
			d.Grant = &grant{
				ID: uuid.NewString(), ClientID: d.ClientID, UserID: login.User.ID,
				SessionID: login.SessionID, Scopes: d.Scopes, Resources: d.Resources, AuthTime: authTime(login),
				External: login.External, Methods: login.Methods, Password: p.accounts.PasswordMark(login.User),
				Trusted: trusted,
			}
			d.Family = d.Grant.beginLine(id)
		}
		return nil
	})
	if errors.Is(err, errNotFound) {
		err = shown(refuse("invalid_request", textDeviceGone))
	}
	return kept, err
}

// errDecided means that a poll need not be recorded.
var errDecided = errors.New("the user has already decided")

// byDevice returns the tokens once the user has allowed the device (RFC 8628 §3.5); see
// giveOnce.
func (p *Provider) byDevice(ctx context.Context, client *Client, values url.Values) (*tokens, error) {
	if err := required(values, "device_code"); err != nil {
		return nil, err
	}
	used := refuse("expired_token", "the device_code is unknown, has expired or was already used")
	now, id := p.accounts.Now(), hashed(values.Get("device_code"))
	tooFast := false
	kept, err := change(ctx, p.state, kindDevice, id, func(d *deviceCode) error {
		if d.Denied || d.Grant != nil {
			return errDecided
		}
		if tooFast = now.Sub(d.PolledAt) < d.Interval-time.Second; tooFast {
			d.Interval += deviceInterval
		}
		d.PolledAt = now
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, errDecided) && !errors.Is(err, errNotFound):
		return nil, err
	case errors.Is(err, errNotFound) || kept.ClientID != client.ID || kept.Since != client.Since || kept.GivenBy != "":
		return nil, used
	case kept.Denied:
		return nil, refuse("access_denied", "the user did not give consent")
	case kept.Grant == nil && tooFast:
		return nil, refuse("slow_down", "wait five seconds longer between requests")
	case kept.Grant == nil:
		return nil, refuse("authorization_pending", "the user has not decided yet")
	}
	target, err := p.target(kept.Grant.Resources, values["resource"])
	if err != nil {
		return nil, err
	}
	kept.Grant.Since = client.Since
	if err := p.keepClient(ctx, client, kept.Grant); err != nil {
		return nil, err
	}
	granted, err := p.giveOnce(ctx, oneUse{
		client: client, grant: kept.Grant, target: target, code: values.Get("device_code"), family: kept.Family,
		mark: func(ctx context.Context, f func(*string) error) error {
			_, err := change(ctx, p.state, kindDevice, id, func(d *deviceCode) error { return f(&d.GivenBy) })
			return err
		},
	})
	if errors.Is(err, errGiven) {
		return nil, used
	}
	return granted, err
}
