package provider

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// An authorization code, and a device code that the user has allowed, can be exchanged for
// tokens once. GivenBy in its record is written last before the response, and marks the
// code as used. If a code arrives again, there are two cases:
//
//   - Its record has no GivenBy: no response contained tokens, because the store failed
//     or the client closed the connection. The same client, with the same redirect_uri
//     and code_verifier, gets tokens as long as the code is valid. The refresh token is
//     the successor of the code by the rules of refresh tokens, so tokens of an earlier
//     attempt that were never sent are either issued again or invalid.
//   - It has one: an authorization code is refused and its grant is revoked (RFC 6749
//     §4.1.2), because a lost response cannot be distinguished from a theft. A device
//     code is refused.
//
// If the store returns an error, it is unknown whether GivenBy was written. It is then
// removed again, so that the client can retry. If that fails too, or if a response is lost
// after it was sent, the code counts as used: the client has no tokens and must start the
// log-in again.
//
// An authorization code alone is useless to a thief, who also needs the code_verifier and,
// for a confidential client, its secret; or only the secret if such a client does not use
// PKCE. Public clients must use PKCE. If a thief who has these is first, the owner's use of
// the code, up to codeMemory later, revokes the grant. If the owner is first, the thief
// gets nothing, and the attempt revokes the grant. If both arrive at once, one gets tokens
// and the other revokes them. So a thief only keeps access if the owner never uses the
// code. That a code can be retried after a failure does not help a thief: being first was
// possible before the failure too, and the retry of the owner ends the access.

// errGiven means that the code was already exchanged.
var errGiven = errors.New("the code was exchanged for tokens")

// undoTime is how long to try to remove GivenBy again.
const undoTime = 5 * time.Second

// oneUse is the use of a code by an authorized client.
type oneUse struct {
	client *Client
	grant  *grant
	target []string // the resources of the access token
	// code is the code that the client sent, and family comes from the record.
	code, family string
	// kept reports whether tokens were issued together with the code, so that the grant is
	// already stored.
	kept bool
	// mark changes GivenBy of the record atomically.
	mark func(ctx context.Context, f func(givenBy *string) error) error
}

// giveOnce stores the grant of a code and issues its first tokens. It returns errGiven if
// the code was already exchanged.
func (p *Provider) giveOnce(ctx context.Context, u oneUse) (*tokens, error) {
	client, g := u.client, u.grant
	user, err := p.userFor(ctx, client, g)
	if errors.Is(err, errNotFound) {
		return nil, refuse("invalid_grant", "the user is no longer logged in, or may not use the client")
	}
	if err != nil {
		return nil, err
	}
	if _, err := p.accounts.Session(ctx, g.UserID, g.SessionID); errors.Is(err, errNotFound) ||
		err == nil && g.Since != client.Since {
		return nil, refuse("invalid_grant", "the session in which the user gave consent has ended")
	} else if err != nil {
		return nil, err
	}
	// The config may have changed since the user gave consent.
	p.limit(&g.Claims, client)
	if g.Scopes, err = narrowed(g, stillAllowed(client, g.Scopes), ""); err != nil {
		return nil, err
	}
	refresh, inTime, err := p.firstRefreshToken(ctx, u)
	if err != nil {
		return nil, err
	}
	granted, err := p.give(ctx, client, g, user, u.target, refresh)
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
		return granted, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if errors.Is(u.mark(undo, set("")), errGiven) { // by another request at the same time
		return nil, errGiven
	}
	return nil, err
}

// firstRefreshToken stores the grant and returns its first refresh token, which is the
// successor of the code; empty if the client must not have one.
func (p *Provider) firstRefreshToken(ctx context.Context, u oneUse) (refresh string, inTime func() error, err error) {
	g := u.grant
	inTime = func() error { return nil }
	if !slices.Contains(u.client.GrantTypes, grantRefresh) {
		if !u.kept {
			err = p.keepGrant(ctx, u.client, g)
		}
		if errors.Is(err, store.ErrRecordExists) { // by an earlier attempt that failed
			err = nil
		}
		return "", inTime, err
	}
	use, err := p.accounts.UseRefreshToken(ctx, accounts.RefreshUse{
		Token: u.code, Family: g.ID + "~" + u.family + "~", HashOf: hashed,
	})
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
