package provider

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
)

const (
	interactionLifetime = 30 * time.Minute
	// maxInteractionBytes limits the size of a request in a URL.
	maxInteractionBytes = 16 << 10
)

// interaction is an authorization request that waits for its user. It is not stored: it is
// encrypted in the URLs of the pages, so that requests from anybody use neither storage nor
// a limit that others need.
type interaction struct {
	Parameters url.Values `json:"parameters"`
	BeganAt    time.Time  `json:"began_at"`
	outcome
}

// outcome is what a logged-in user has done with an interaction, stored under the hash of
// the interaction.
type outcome struct {
	// Consented is the question that the user has confirmed.
	Consented string `json:"consented,omitempty"`
	// AnsweredTo is the user who was redirected to the client, at AnsweredAt.
	AnsweredTo string    `json:"answered_to,omitempty"`
	AnsweredAt time.Time `json:"answered_at,omitzero"`
	// Refused reports whether the user canceled or refused.
	Refused bool `json:"refused,omitempty"`
}

var errFinished = refuse("invalid_request", textFinished)

// answeredTwice is how long a user can be redirected a second time, for a double click: the
// browser then drops the first response.
const answeredTwice = time.Minute

// answer records that a request is answered, once, or again for the same user.
func (o *outcome) answer(userID string, now time.Time) error {
	switch {
	case o.AnsweredTo == "":
		o.AnsweredTo, o.AnsweredAt = userID, now
	case o.AnsweredTo != userID || now.Sub(o.AnsweredAt) > answeredTwice:
		return errFinished
	}
	return nil
}

// note updates the outcome of an interaction.
func (p *Provider) note(ctx context.Context, id string, f func(*outcome) error) error {
	err := p.state.create(ctx, kindInteraction, hashed(id), "", outcome{}, interactionLifetime)
	if err != nil && !errors.Is(err, store.ErrRecordExists) {
		return err
	}
	_, err = change(ctx, p.state, kindInteraction, hashed(id), f)
	return err
}

// refuseInteraction records that a user has refused. It can be repeated.
func (p *Provider) refuseInteraction(ctx context.Context, id string) error {
	return p.note(ctx, id, func(o *outcome) error { o.Refused = true; return nil })
}

// openInteraction decrypts an interaction. It returns errFinished if it has expired or is
// not valid.
func (p *Provider) openInteraction(ctx context.Context, id string) (waiting interaction, err error) {
	box, err := p.box(ctx)
	if err != nil {
		return waiting, err
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil || len(id) > maxInteractionBytes {
		return waiting, errFinished
	}
	text, err := box.Open(nil, nil, sealed, []byte(p.Issuer))
	if err != nil || json.Unmarshal(text, &waiting) != nil ||
		!p.accounts.Now().Before(waiting.BeganAt.Add(interactionLifetime)) {
		return interaction{}, errFinished
	}
	waiting.outcome, err = load[outcome](ctx, p.state, kindInteraction, hashed(id))
	if errors.Is(err, errNotFound) {
		err = nil
	}
	return waiting, err
}

// sealInteraction encrypts an interaction.
func (p *Provider) sealInteraction(ctx context.Context, waiting interaction) (id string, err error) {
	box, err := p.box(ctx)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(interaction{Parameters: waiting.Parameters, BeganAt: waiting.BeganAt})
	if err != nil {
		return "", err
	}
	id = base64.RawURLEncoding.EncodeToString(box.Seal(nil, nil, text, []byte(p.Issuer)))
	if len(id) > maxInteractionBytes {
		return "", errRequestTooLong
	}
	return id, nil
}

// box returns the cipher for interactions, with a key that all nodes share through the
// store. It is not a signing key, so that its output can never pass for a token.
func (p *Provider) box(ctx context.Context) (cipher.AEAD, error) {
	if known := p.sealing.Load(); known != nil {
		return *known, nil
	}
	key, err := store.SharedKey(
		ctx, p.accounts.Store(), p.state.kind(kindSealingKey), "of interactions", p.accounts.Now(),
	)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	box, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	p.sealing.Store(&box)
	return box, nil
}
