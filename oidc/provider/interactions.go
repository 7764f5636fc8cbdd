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
	// maxInteractionBytes bounds the text of a request in a URL.
	maxInteractionBytes = 16 << 10
)

// interaction is an authorization request that waits for its user. Nothing is
// kept of it: it travels in the URLs of the pages that the user sees, encrypted,
// so that requests of strangers cost no room, and no share of a bound that others
// need.
type interaction struct {
	Parameters url.Values `json:"parameters"`
	BeganAt    time.Time  `json:"began_at"`
	outcome
}

// outcome is what a user who is logged in has done with an interaction. It is
// kept under the hash of the interaction.
type outcome struct {
	// Consented is the question that the user has agreed to.
	Consented string `json:"consented,omitempty"`
	// AnsweredTo is the user who was sent back to the client, at AnsweredAt.
	AnsweredTo string    `json:"answered_to,omitempty"`
	AnsweredAt time.Time `json:"answered_at,omitzero"`
	// Refused is a request whose user went back, or did not agree.
	Refused bool `json:"refused,omitempty"`
}

var errFinished = refuse("invalid_request", "this log-in has expired or is already complete; go back to the application where you started")

// answeredTwice is how long a user may be sent back once more, who pressed a
// button twice: a browser drops the first answer then.
const answeredTwice = time.Minute

// answer notes that a request is answered, once and for its user once more.
func (o *outcome) answer(userID string, now time.Time) error {
	switch {
	case o.AnsweredTo == "":
		o.AnsweredTo, o.AnsweredAt = userID, now
	case o.AnsweredTo != userID || now.Sub(o.AnsweredAt) > answeredTwice:
		return errFinished
	}
	return nil
}

// note changes what has become of an interaction.
func (p *Provider) note(ctx context.Context, id string, f func(*outcome) error) error {
	err := p.state.create(ctx, kindInteraction, hashed(id), "", outcome{}, interactionLifetime)
	if err != nil && !errors.Is(err, store.ErrRecordExists) {
		return err
	}
	_, err = change(ctx, p.state, kindInteraction, hashed(id), f)
	return err
}

// refuseInteraction notes that a user has refused. To do so twice is the same.
func (p *Provider) refuseInteraction(ctx context.Context, id string) error {
	return p.note(ctx, id, func(o *outcome) error { o.Refused = true; return nil })
}

// openInteraction returns an interaction by its text; errFinished.
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
	if err != nil || json.Unmarshal(text, &waiting) != nil || !p.accounts.Now().Before(waiting.BeganAt.Add(interactionLifetime)) {
		return interaction{}, errFinished
	}
	waiting.outcome, err = load[outcome](ctx, p.state, kindInteraction, hashed(id))
	if errors.Is(err, errNotFound) {
		err = nil
	}
	return waiting, err
}

// sealInteraction is the text of an interaction.
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

// box encrypts interactions with a key that all nodes share by the store. Not one
// of the signing keys: what it makes must never pass for a token.
func (p *Provider) box(ctx context.Context) (cipher.AEAD, error) {
	if known := p.sealing.Load(); known != nil {
		return *known, nil
	}
	key, err := store.SharedKey(ctx, p.accounts.Store(), p.state.kind(kindSealingKey), "of interactions", p.accounts.Now())
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
