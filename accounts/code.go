package accounts

import (
	"context"
	"errors"
	"sync"

	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// useCode uses up the code that was mailed for a purpose to an address, if accept returns nil. The
// answer and the time are the same for an address without an account, as a void code is stored for
// it. Guessing is limited as it is for passwords, and does not lock the user out: see
// [LogIns.Spares]. of is the key of the address, or the user of another one.
func (l *LogIns) useCode(
	ctx context.Context, purpose, of, code string, client Client, accept func(*mailedCode) error,
) (mailedCode, error) {
	now := l.Now()
	byClient, wait := l.attempts.Clients.Begin(ctx, network.Key(client.Address), now)
	if wait > 0 {
		return mailedCode{}, l.refuseThrottled("client", wait, client)
	}
	familiar := sync.OnceValue(func() bool {
		user, _ := l.Users().UserByEmail(ctx, of) // nobody if there is none, which takes as long
		return l.isFamiliar(ctx, user, of, client, now)
	})
	used, wait, err := l.admit(ctx, l.attempts.codes, "code\n"+of, familiar, client, now)
	if err != nil {
		return mailedCode{}, err
	}
	used = append(used, byClient)
	// Guesses at nothing do not count for the day, so that they keep nobody out.
	if _, err := l.codes.find(ctx, purpose, of); err == nil {
		daily, tomorrow := l.attempts.codesADay.Begin(ctx, of, now)
		if tomorrow > 0 && !familiar() {
			return mailedCode{}, l.refuseThrottled("account", tomorrow, client)
		}
		used = append(used, daily)
	}
	c, err := l.codes.take(ctx, purpose, of, code, client, accept)
	if errors.Is(err, errWrongCode) {
		l.CountEvent("login", "refused")
		if wait > 0 {
			return c, l.refuseThrottled("account", wait, client)
		}
		return c, codeRefusal(err)
	}
	used.forgive()
	return c, codeRefusal(err)
}

// userOf returns the user of a code that was used up, if the user still has the address.
func (l *LogIns) userOf(ctx context.Context, c mailedCode) (store.User, error) {
	user, err := l.Users().User(ctx, c.UserID)
	if errors.Is(err, store.ErrNotFound) || err == nil && (user.Disabled || user.EmailKey != c.EmailKey) {
		return user, &refusal.Error{Reason: refusal.MailedCode}
	}
	return user, StoreRefusal(err)
}
