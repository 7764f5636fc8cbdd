package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// kindTrusted is the kind of records of browsers that are not asked for a second factor. The ID is
// the hash of the token in the browser's cookie; the user is the owner.
const kindTrusted = "trusted browser"

const (
	trustBytes = 32
	maxTrusted = 50 // of a user; beyond it, the oldest is no longer trusted
)

// TrustedBrowser is a browser that is not asked for a second factor.
type TrustedBrowser struct {
	ID        string    `json:"-"`
	ExpiresAt time.Time `json:"-"`
	UserAgent string    `json:"user_agent"`
	Address   string    `json:"address"`
	At        time.Time `json:"at"`       // when the user chose it
	Password  string    `json:"password"` // its mark: a new password ends the trust
}

// Trust trusts the browser of a user who has just proved a second factor, and returns the token for
// its cookie. The token is empty if the site trusts no browsers.
func (f *Factors) Trust(
	ctx context.Context, user store.User, client Client,
) (token string, until time.Time, err error) {
	if f.Config.TrustBrowsers < 0 {
		return "", until, nil
	}
	now := f.Now()
	text, err := json.Marshal(TrustedBrowser{
		UserAgent: Cut(client.UserAgent, 256), Address: client.Address, At: now, Password: PasswordMark(user),
	})
	if err != nil {
		return "", until, err
	}
	token, until = store.RandomToken(trustBytes), now.Add(time.Duration(f.Config.TrustBrowsers))
	err = f.Users().CreateRecord(ctx, store.Record{
		Kind: kindTrusted, ID: f.ownHash(token), Owner: user.ID, Value: text, ExpiresAt: until,
	})
	var all []TrustedBrowser
	if err == nil {
		all, err = trustedBrowsers(ctx, f.Users(), user.ID, now)
	}
	for _, browser := range all[min(len(all), maxTrusted):] {
		if _, err := f.Users().TakeRecord(ctx, kindTrusted, browser.ID, now); err != nil &&
			!errors.Is(err, store.ErrNotFound) {
			return "", until, StoreRefusal(err)
		}
	}
	return token, until, StoreRefusal(err)
}

// trusts reports whether a client is a browser that the user trusts.
func (f *Factors) trusts(ctx context.Context, user store.User, client Client) (bool, error) {
	if client.Trusted == "" || f.Config.TrustBrowsers < 0 {
		return false, nil
	}
	record, err := f.Users().Record(ctx, kindTrusted, f.ownHash(client.Trusted), f.Now())
	if errors.Is(err, store.ErrNotFound) || err == nil && record.Owner != user.ID {
		return false, nil
	}
	var browser TrustedBrowser
	if err == nil {
		err = json.Unmarshal(record.Value, &browser)
	}
	if err != nil {
		return false, err
	}
	return SamePassword(ctx, f.Users(), user, browser.Password, f.Now())
}

// IsTrusted reports whether a client is this browser of a user.
func (f *Factors) IsTrusted(browser TrustedBrowser, client Client) bool {
	return client.Trusted != "" && browser.ID == f.ownHash(client.Trusted)
}

// trustedBrowsers returns the browsers that a user trusts, the newest first.
func trustedBrowsers(
	ctx context.Context, users store.UserStore, userID string, now time.Time,
) (all []TrustedBrowser, err error) {
	records, err := users.Records(ctx, kindTrusted, userID, now)
	if err != nil {
		return nil, err
	}
	for _, record := range records {
		var browser TrustedBrowser
		if err := json.Unmarshal(record.Value, &browser); err != nil {
			return nil, err
		}
		browser.ID, browser.ExpiresAt = record.ID, record.ExpiresAt
		all = append(all, browser)
	}
	slices.SortFunc(all, func(a, b TrustedBrowser) int { return b.At.Compare(a.At) })
	return all, nil
}

// Distrust ends the trust in a browser of a user. It returns [refusal.NoSuchRoute] if there is none
// with the ID.
func (f *Factors) Distrust(ctx context.Context, userID, id, sessionID string, client Client) error {
	record, err := f.Users().Record(ctx, kindTrusted, id, f.Now())
	if err == nil && record.Owner == userID {
		_, err = f.Users().TakeRecord(ctx, kindTrusted, id, f.Now())
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && record.Owner != userID {
		return &refusal.Error{Reason: refusal.NoSuchRoute}
	}
	if err != nil {
		return StoreRefusal(err)
	}
	f.Audit("browser no longer trusted", userID, sessionID, client)
	return nil
}

// EndTrust ends the trust in all browsers of a user.
func EndTrust(ctx context.Context, users store.UserStore, userID string, now time.Time) error {
	return takeAll(ctx, users, userID, now, kindTrusted)
}
