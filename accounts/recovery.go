package accounts

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// kindRecoveryCodes is the kind of records of the recovery codes of users. The ID is that of the user.
const kindRecoveryCodes = "recovery codes"

const (
	recoveryCodesMade = 10
	// FewRecoveryCodes is how many recovery codes are so few that their user is warned.
	FewRecoveryCodes = 3
)

// recoveryCodes are the unused recovery codes of a user. They are random (80 bits), so a fast hash is
// sufficient.
type recoveryCodes struct {
	Hashes []string  `json:"hashes"`
	MadeAt time.Time `json:"made_at"`
}

// makeRecoveryCodes replaces the recovery codes of a user.
func (f *Factors) makeRecoveryCodes(ctx context.Context, userID string) (codes []string, err error) {
	made := recoveryCodes{MadeAt: f.Now()}
	for range recoveryCodesMade {
		code := rand.Text()[:recoveryCodeLength] // base32
		made.Hashes = append(made.Hashes, recoveryHash(userID, code))
		codes = append(codes, code[:4]+"-"+code[4:8]+"-"+code[8:12]+"-"+code[12:])
	}
	text, err := json.Marshal(made)
	if err != nil {
		return nil, err
	}
	err = f.Users().CreateRecord(ctx, store.Record{Kind: kindRecoveryCodes, ID: userID, Owner: userID, Value: text})
	if errors.Is(err, store.ErrRecordExists) {
		_, err = f.Users().UpdateRecord(ctx, kindRecoveryCodes, userID, f.Now(), func(r *store.Record) error {
			r.Value = text
			return nil
		})
	}
	return codes, err
}

// recoveryHash returns the hash of a recovery code as [normalCode] returns it.
func recoveryHash(userID, code string) string { return store.HashToken(userID + "\n" + code) }

// useRecoveryCode uses up a recovery code, and returns how many are left. Of several uses of one code,
// only one succeeds.
func (f *Factors) useRecoveryCode(ctx context.Context, userID, code string) (left int, err error) {
	hash := recoveryHash(userID, code)
	kept, err := store.ChangeValue(ctx, f.Users(), kindRecoveryCodes, userID, f.Now(), func(kept *recoveryCodes) error {
		i := slices.Index(kept.Hashes, hash)
		if i < 0 {
			return store.ErrNotFound
		}
		kept.Hashes = slices.Delete(kept.Hashes, i, i+1)
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return 0, &refusal.Error{Reason: refusal.WrongCode}
	}
	return len(kept.Hashes), err
}

// NewRecoveryCodes replaces the recovery codes of a user, who has proved to be the user, and
// is told by mail.
func (f *Factors) NewRecoveryCodes(
	ctx context.Context, user store.User, sessionID string, asker Asker,
) ([]string, error) {
	has, err := f.has(ctx, user.ID)
	if err == nil && !has {
		return nil, &refusal.Error{Reason: refusal.NoFactor}
	}
	var codes []string
	if err == nil {
		codes, err = f.makeRecoveryCodes(ctx, user.ID)
	}
	if err != nil {
		return nil, StoreRefusal(err)
	}
	f.Audit("recovery codes replaced", user.ID, sessionID, asker.Client)
	f.logIns.tell(ctx, letterRecoveryCodes, user, asker)
	return codes, nil
}
