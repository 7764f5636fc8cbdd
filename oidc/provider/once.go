package provider

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// An authorization code, and a device code whose user agreed, give tokens once. It is
// given when its record has GivenBy, which is the last that is written before the
// answer. So a code that comes again is one of two:
//
//   - Its record has no GivenBy: no answer had tokens, since the store failed or the
//     client hung up. The same client, with the same redirect_uri and the code_verifier,
//     gets tokens for as long as the code is good. The refresh token is the successor of
//     the code by the rules of refresh tokens, so what an attempt made that nobody was
//     told is made again or is dead.
//   - It has one: an authorization code is refused, and its grant is taken back (RFC
//     6749 §4.1.2), as an answer on its way cannot be told from a thief's. A device
//     code is refused.
//
// Whether GivenBy was written is not known where the store says that it failed. Then it
// is taken away again, so that the client can repeat itself. Where that fails too, and
// where an answer is lost after it was sent, the code counts as given: the client,
// which has none of the tokens, begins the log-in anew.
//
// An authorization code alone is of no use to a thief. He needs the code_verifier too,
// and of a confidential client its secret; where such a client uses no PKCE, the secret
// alone. Public clients must use PKCE. If a thief who has them comes first, the owner's
// use of the code, up to codeMemory later, takes the grant back; if the owner comes
// first, the thief gets nothing, and his use takes the grant back. If both come at once, one gets tokens, and
// the other takes them back. So a thief stays only where the owner never uses the code.
// That a code may be repeated after a fault gives him nothing more: he can be the first
// then, as he could before the fault, and the owner, who repeats himself, ends it.

// errGiven is of a code for which tokens were given.
var errGiven = errors.New("the code was exchanged for tokens")

// undoTime is how long it is tried to take GivenBy away again.
const undoTime = 5 * time.Second

// oneUse is the use of a code by a client that may use it.
type oneUse struct {
	client *Client
	grant  *grant
	// code as the client sent it, and family of the record.
	code, family string
	// kept tells that tokens were given beside the code, so that the grant is kept.
	kept bool
	// mark changes GivenBy of the record, in one step.
	mark func(ctx context.Context, f func(givenBy *string) error) error
}

// giveOnce keeps the grant of a code and gives its first tokens. errGiven.
func (p *Provider) giveOnce(ctx context.Context, u oneUse) (*tokens, error) {
	client, g := u.client, u.grant
	user, err := p.userOf(ctx, g)
	if errors.Is(err, errNotFound) {
		return nil, refuse("invalid_grant", "the user is no longer logged in")
	}
	if err != nil {
		return nil, err
	}
	if _, err := p.accounts.Session(ctx, g.UserID, g.SessionID); errors.Is(err, errNotFound) || err == nil && g.Since != client.Since {
		return nil, refuse("invalid_grant", "the session in which the user gave consent has ended")
	} else if err != nil {
		return nil, err
	}
	// The config may have changed since the user agreed.
	p.limit(&g.Claims, client)
	if g.Scopes, err = narrowed(stillAllowed(client, g.Scopes), ""); err != nil {
		return nil, err
	}
	refresh, inTime, err := p.firstRefreshToken(ctx, u)
	if err != nil {
		return nil, err
	}
	given, err := p.give(ctx, client, g, user, refresh)
	if err != nil {
		return nil, err
	}
	request := store.RandomToken(32)
	set := func(by string) func(*string) error {
		return func(givenBy *string) error {
			if *givenBy != "" && *givenBy != request {
				return errGiven
			}
			*givenBy = by
			return nil
		}
	}
	err = u.mark(ctx, set(request))
	switch {
	case errors.Is(err, errGiven):
		return nil, err
	case errors.Is(err, errNotFound): // the user took it back meanwhile
		return nil, errors.Join(p.revokeGrant(ctx, g.ID), errTakenBack)
	case err == nil:
		err = errors.Join(inTime(), ctx.Err())
	}
	if err == nil {
		return given, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if errors.Is(u.mark(undo, set("")), errGiven) { // by another request at the same time
		return nil, errGiven
	}
	return nil, err
}

// firstRefreshToken keeps the grant and returns its first refresh token, which is the
// successor of the code; empty if the client may have none.
func (p *Provider) firstRefreshToken(ctx context.Context, u oneUse) (refresh string, inTime func() error, err error) {
	g := u.grant
	inTime = func() error { return nil }
	if !slices.Contains(u.client.GrantTypes, grantRefresh) {
		if !u.kept {
			err = p.keepGrant(ctx, u.client, g)
		}
		if errors.Is(err, store.ErrRecordExists) { // by an attempt that failed
			err = nil
		}
		return "", inTime, err
	}
	use, err := p.accounts.UseRefreshToken(ctx, accounts.RefreshUse{Token: u.code, Family: g.ID + "~" + u.family + "~", HashOf: hashed})
	if err != nil {
		return "", nil, err
	}
	if !u.kept {
		var line accounts.RefreshLine
		if line, refresh, err = use.Rotate(g.line()); err != nil {
			return "", nil, err
		}
		g.setLine(line)
		if err = p.keepGrant(ctx, u.client, g); err == nil {
			return refresh, func() error { return use.InTime(line) }, nil
		}
	}
	if err != nil && !errors.Is(err, store.ErrRecordExists) {
		return "", nil, err
	}
	kept, refresh, _, err := p.rotate(ctx, g.ID, use)
	switch {
	case errors.Is(err, errNotFound):
		return "", nil, errTakenBack
	case errors.Is(err, accounts.ErrRefreshReused): // somebody has used what the code gave
		return "", nil, errGiven
	}
	return refresh, func() error { return use.InTime(kept.line()) }, err
}
