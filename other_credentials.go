package caddyjwt

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
)

// verifyAny returns the user of a credential of any kind.
func (t *tokenIdentifier) verifyAny(
	w http.ResponseWriter, r *http.Request, credential credentials.Credential,
) (*jwt.Token, *refusal.Error) {
	only := credential.Source.Only
	for _, verifier := range t.others {
		if only != nil && only != verifier || credential.Source.OfAccounts { // that has only the accounts' JWTs
			continue
		}
		token, err := verifier.Verify(w, r, credential)
		if err == nil && token == nil {
			err = errors.New("the verifier returned no user")
		}
		if !errors.Is(err, credentials.ErrOtherKind) {
			return stillGood(token, err)
		}
	}
	if t.verifier == nil || only != nil {
		return nil, refusal.New(refusal.Credential, "it is of a kind that %s does not accept", credential.Source)
	}
	token, failure := t.verify(r.Context(), credential.Token)
	if failure == nil && t.always != nil {
		failure = t.confirm(r, credential.Token, token)
	}
	if failure != nil {
		return nil, failure
	}
	return token, nil
}

// stillGood is the result of a verifier, which may be somebody else's.
func stillGood(token *jwt.Token, err error) (*jwt.Token, *refusal.Error) {
	if err != nil {
		if failure, ok := errors.AsType[*refusal.Error](err); ok {
			return nil, failure
		}
		return nil, refusal.New(refusal.Credential, "%v", err)
	}
	if expiry := token.Expiry(); !expiry.IsZero() && !clock.Now().Before(expiry) {
		return nil, refusal.New(refusal.Expired, "the credential expired at %s", expiry.UTC().Format(time.RFC3339))
	}
	return token, nil
}

// storesCredentials is implemented by verifiers that store credentials. It is called after
// they are provisioned, with the store of the accounts and its name, or with neither.
type storesCredentials interface {
	UseStore(ctx caddy.Context, users store.UserStore, name string) error
}

// openCredentials opens the stores of the verifiers.
func (h *Handler) openCredentials(ctx caddy.Context) error {
	var users store.UserStore
	var name string
	if h.accounts != nil {
		users, name = h.accounts.Store(), string(h.Accounts.StoreRaw)
	}
	for _, verifier := range h.others {
		if stores, ok := verifier.(storesCredentials); ok {
			if err := stores.UseStore(ctx, users, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadCredentials loads the verifiers of other credentials, and adds the places where these
// are.
func (h *Handler) loadCredentials(ctx caddy.Context) error {
	if h.CredentialsRaw == nil {
		return nil
	}
	if err := config.CheckModules("jwt.credentials", h.CredentialsRaw...); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	modules, err := ctx.LoadModule(h, "CredentialsRaw")
	if err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	var own credentials.Sources
	for _, module := range modules.([]any) {
		verifier, ok := module.(credentials.Verifier)
		if !ok {
			return fmt.Errorf("credentials: %T does not verify credentials", module)
		}
		h.others = append(h.others, verifier)
		if lister, ok := module.(credentials.Lister); ok {
			for _, source := range lister.Sources() {
				placed := *source
				placed.Only = verifier
				own = append(own, &placed)
			}
		}
	}
	anywhere := slices.ContainsFunc(h.others, func(verifier credentials.Verifier) bool {
		lister, ok := verifier.(credentials.Lister)
		return !ok || len(lister.Sources()) == 0
	})
	if len(h.From) == 0 && len(h.Issuers) == 0 && h.Accounts == nil && !anywhere {
		h.sources = nil // another header, such as Authorization, is for the upstream
	}
	h.sources = slices.Concat(h.sources, own)
	return nil
}
