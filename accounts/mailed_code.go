package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// Purposes of mailed codes. A code for one purpose is of no use for another.
const (
	purposeVerify = "verify" // to confirm an address, and with it a sign-up
	purposeReset  = "reset"  // to set a new password
	purposeLogIn  = "login"  // instead of a password
	purposeEmail  = "email"  // to change the address of an account
	purposeInvite = "invite" // to set the first password; only as a link
)

const (
	// CodeLifetime is how long a mailed code and its link can be used.
	CodeLifetime   = 15 * time.Minute
	inviteLifetime = 24 * time.Hour
	codeDigits     = 6
	// maxWrongCodes is how many wrong codes end a code.
	maxWrongCodes = 5
	// wrongCodesPerDay is how many wrong codes an address may have in a day, for all its codes: six
	// digits can be guessed by somebody who asks for many codes.
	wrongCodesPerDay = 50
	linkBytes        = 32 // random bytes of the token in a link
)

// kindMailedCode is the kind of the records of mailed codes. The ID is [codeID].
const kindMailedCode = "mailed code"

// mailedCode is a code of 6 digits and a link that were mailed to an address, as a record keeps
// them. There is at most one for each purpose and address.
type mailedCode struct {
	Purpose string `json:"purpose"`
	// Of is what it is for: the key of the address or, for another address of a user, the user's ID.
	Of string `json:"of"`
	// Email is the address that it was mailed to, and EmailKey its key.
	Email    string `json:"email"`
	EmailKey string `json:"email_key"`
	// UserID is the account; empty for a sign-up, and if there is none.
	UserID string `json:"user_id,omitempty"`
	// Void means that nobody has got it: it is there so that an answer does not tell whether there
	// is an account.
	Void bool `json:"void,omitempty"`
	// CodeHash is the hash of the code, bound to the other values, and LinkHash that of the token in
	// the link.
	CodeHash string `json:"code_hash"`
	LinkHash string `json:"link_hash"`
	// BrowserHash is the hash of the cookie of the browser that asked, and ClientHash that of the
	// network.
	BrowserHash string `json:"browser_hash,omitempty"`
	ClientHash  string `json:"client_hash"`
	// ReturnTo is where this browser goes on after the log-in.
	ReturnTo string `json:"return_to,omitempty"`
	// Wrong counts wrong codes of the client that asked, and WrongOfOthers those of all others, so
	// that a stranger cannot use up the attempts of whoever has asked.
	Wrong         int `json:"wrong,omitempty"`
	WrongOfOthers int `json:"wrong_of_others,omitempty"`
	// Used means that it was used, and is of no use any more.
	Used bool `json:"used,omitempty"`
	// PasswordHash and Profile are of a sign-up; of a void one, only the hash.
	PasswordHash string          `json:"password_hash,omitempty"`
	Profile      json.RawMessage `json:"profile,omitempty"`
}

// codeID returns the ID of the record of a code.
func codeID(purpose, of string) string {
	sum := sha256.Sum256([]byte(purpose + "\n" + of))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// lifetime returns how long it can be used.
func (c *mailedCode) lifetime() time.Duration {
	if c.Purpose == purposeInvite {
		return inviteLifetime
	}
	return CodeLifetime
}

func (c *mailedCode) id() string { return codeID(c.Purpose, c.Of) }

// hash returns the hash of a code for this purpose, address and user. The random link is its salt.
func (c *mailedCode) hash(code string) string {
	return store.HashToken(strings.Join([]string{c.Purpose, c.Of, c.EmailKey, c.UserID, c.LinkHash, code}, "\n"))
}

// draw gives it a new code and a new token for a link, and returns both.
func (c *mailedCode) draw() (code, link string) {
	number, _ := rand.Int(rand.Reader, big.NewInt(1_000_000)) // never fails
	code = fmt.Sprintf("%0*d", codeDigits, number)
	link = c.id() + store.RandomToken(linkBytes)
	c.LinkHash = store.HashToken(link)
	c.CodeHash = c.hash(code)
	return code, link
}

// isCode reports whether it is the code, in a time that does not depend on it.
func (c *mailedCode) isCode(code string) bool {
	code = normalCode(code)
	return subtle.ConstantTimeCompare([]byte(c.CodeHash), []byte(c.hash(code))) == 1 && !c.Void
}

func (c *mailedCode) isLink(token string) bool {
	return subtle.ConstantTimeCompare([]byte(c.LinkHash), []byte(store.HashToken(token))) == 1 && !c.Void
}

// isDead reports whether there were too many wrong codes for the client to use it.
func (c *mailedCode) isDead(client Client) bool {
	return c.Wrong >= maxWrongCodes || !c.askedBy(client) && c.WrongOfOthers >= maxWrongCodes
}

func (c *mailedCode) askedBy(client Client) bool { return c.ClientHash == clientHash(client) }

func (c *mailedCode) countWrong(client Client) {
	if c.askedBy(client) {
		c.Wrong++
	} else {
		c.WrongOfOthers++
	}
}

// isBrowser reports whether it was asked for by the browser with this secret.
func (c *mailedCode) isBrowser(secret string) bool {
	return secret != "" && subtle.ConstantTimeCompare([]byte(c.BrowserHash), []byte(store.HashToken(secret))) == 1
}

func clientHash(client Client) string { return store.HashToken(network.Key(client.Address)) }

// mailedCodes keeps the codes that were mailed, in the user store.
type mailedCodes struct{ *site }

// put stores a code in the place of the one before.
func (m mailedCodes) put(ctx context.Context, c mailedCode, lifetime time.Duration) error {
	value, err := json.Marshal(c)
	if err != nil {
		return err
	}
	expires := m.Now().Add(lifetime)
	for {
		// As of the beginning of time, because an expired record is still in the way.
		_, err := m.Users().UpdateRecord(ctx, kindMailedCode, c.id(), time.Time{}, func(r *store.Record) error {
			r.Owner, r.Value, r.ExpiresAt = c.UserID, value, expires
			return nil
		})
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		err = m.Users().CreateRecord(ctx, store.Record{
			Kind: kindMailedCode, ID: c.id(), Owner: c.UserID, Value: value, ExpiresAt: expires,
		})
		if !errors.Is(err, store.ErrRecordExists) { // else another node was first
			return err
		}
	}
}

// errWrongCode means that there is no such code, or no more.
var errWrongCode = errors.New("the mailed code is wrong")

// dropAll ends all codes of a user: those to its address, and the one to a new address.
func (m mailedCodes) dropAll(ctx context.Context, userID, emailKey string) error {
	return errors.Join(
		m.drop(ctx, emailKey, purposeVerify, purposeReset, purposeLogIn, purposeInvite),
		m.drop(ctx, userID, purposeEmail),
	)
}

// find returns a code that can still be used, or errWrongCode.
func (m mailedCodes) find(ctx context.Context, purpose, of string) (c mailedCode, err error) {
	record, err := m.Users().Record(ctx, kindMailedCode, codeID(purpose, of), m.Now())
	if errors.Is(err, store.ErrNotFound) {
		return c, errWrongCode
	}
	if err == nil {
		err = json.Unmarshal(record.Value, &c)
	}
	if err == nil && (c.Used || c.Purpose != purpose || c.Of != of) {
		err = errWrongCode
	}
	return c, err
}

// findLink returns the code whose link has a token, or errWrongCode. It changes nothing.
func (m mailedCodes) findLink(ctx context.Context, token string, purposes ...string) (c mailedCode, err error) {
	record, err := m.Users().Record(ctx, kindMailedCode, linkID(token), m.Now())
	if errors.Is(err, store.ErrNotFound) {
		return c, errWrongCode
	}
	if err == nil {
		err = json.Unmarshal(record.Value, &c)
	}
	if err != nil {
		return c, err
	}
	for _, purpose := range purposes {
		if c.Purpose == purpose && !c.Used && c.isLink(token) {
			return c, nil
		}
	}
	return c, errWrongCode
}

// linkID returns the ID of the record that the token of a link belongs to.
func linkID(token string) string {
	return token[:min(len(token), base64.RawURLEncoding.EncodedLen(16))]
}

// take uses up a code if accept returns nil: of several callers, one succeeds. A code that is not
// right is counted.
func (m mailedCodes) take(
	ctx context.Context, purpose, of, code string, client Client, accept func(*mailedCode) error,
) (mailedCode, error) {
	wrong := false
	taken, err := m.change(ctx, codeID(purpose, of), func(c *mailedCode) error {
		wrong = c.Purpose != purpose || c.Of != of || c.isDead(client) || !c.isCode(code)
		if wrong {
			c.countWrong(client)
			return nil
		}
		return c.take(accept)
	})
	if err == nil && wrong {
		err = errWrongCode
	}
	return taken, err
}

// takeLink uses up a code by the token of its link if accept returns nil: of several callers, one
// succeeds.
func (m mailedCodes) takeLink(
	ctx context.Context, token string, accept func(*mailedCode) error, purposes ...string,
) (mailedCode, error) {
	if _, err := m.findLink(ctx, token, purposes...); err != nil {
		return mailedCode{}, err
	}
	return m.change(ctx, linkID(token), func(c *mailedCode) error {
		if !c.isLink(token) {
			return errWrongCode // another one has replaced it
		}
		return c.take(accept)
	})
}

func (c *mailedCode) take(accept func(*mailedCode) error) error {
	if accept != nil {
		if err := accept(c); err != nil {
			return err
		}
	}
	c.Used = true
	return nil
}

// giveBack makes a code usable again whose use has failed, unless there is another by now.
func (m mailedCodes) giveBack(ctx context.Context, taken mailedCode, wrong bool, client Client) error {
	_, err := store.ChangeValue(
		context.WithoutCancel(ctx), m.Users(), kindMailedCode, taken.id(), m.Now(), func(c *mailedCode) error {
			if c.LinkHash != taken.LinkHash {
				return errWrongCode
			}
			c.Used = false
			if wrong {
				c.countWrong(client)
			}
			return nil
		},
	)
	if errors.Is(err, errWrongCode) || errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return StoreRefusal(err)
}

// change changes a code that was not used; else it returns errWrongCode.
func (m mailedCodes) change(ctx context.Context, id string, change func(*mailedCode) error) (mailedCode, error) {
	c, err := store.ChangeValue(ctx, m.Users(), kindMailedCode, id, m.Now(), func(c *mailedCode) error {
		if c.Used {
			return errWrongCode
		}
		return change(c)
	})
	if errors.Is(err, store.ErrNotFound) {
		err = errWrongCode
	}
	return c, err
}

// drop ends codes.
func (m mailedCodes) drop(ctx context.Context, of string, purposes ...string) error {
	for _, purpose := range purposes {
		_, err := m.Users().TakeRecord(ctx, kindMailedCode, codeID(purpose, of), m.Now())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return StoreRefusal(err)
		}
	}
	return nil
}

// codeRefusal converts an error of mailedCodes to a refusal.
func codeRefusal(err error) error {
	if errors.Is(err, errWrongCode) {
		return &refusal.Error{Reason: refusal.MailedCode}
	}
	return StoreRefusal(err)
}
