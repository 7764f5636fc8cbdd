// Package mail sends mails: how a message is built, by what it is sent (modules in the namespace
// `jwt.mailers`), and the outbox in which it waits until it is sent.
package mail

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
)

// Message is a mail to one recipient.
type Message struct {
	// ID is unique; [Outbox.Queue] sets it. It is the left part of the Message-ID, so that a
	// receiver can recognize a mail that is sent twice.
	ID string `json:"id"`
	// Kind is what the mail is for, such as `test`. It is a label of metrics, so it is never
	// taken from a request.
	Kind string `json:"kind"`
	// To is the address of the recipient, without a name.
	To string `json:"to"`
	// Subject is one line of text.
	Subject string `json:"subject"`
	// Text is the body as plain text. HTML is the same as HTML; may be empty.
	Text string `json:"text"`
	HTML string `json:"html,omitempty"`
	// Language of the texts (RFC 5646), such as `de`; may be empty.
	Language string `json:"language,omitempty"`
	// UserID is the user whom the mail is about; may be empty. If the user is deleted, a
	// mail that waits is deleted too.
	UserID string `json:"user_id,omitempty"`
	// CreatedAt is when the mail was queued, and its date.
	CreatedAt time.Time `json:"created_at"`
	// ExpiresAt is when the mail is of no use any more, such as when a code in it expires.
	// Zero means never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// Decoy means that the mail waits as any other, but is not sent: so an answer takes the same
	// time whether there is somebody to send to.
	Decoy bool `json:"decoy,omitempty"`
}

// Mailer sends mails. It is a Caddy module in the namespace `jwt.mailers`, which has its
// [Settings]. Its methods are safe for concurrent use.
type Mailer interface {
	// Send sends a mail, and returns what the receiver answered. The error is an *[Error], or
	// any other for [Unavailable]. Its text contains neither a password nor the content of
	// the mail. It is sent at least once: after a crash, the same mail may be sent again.
	Send(ctx context.Context, message *Message) (answer string, err error)
	// Common returns the settings that all mailers have.
	Common() *Settings
	// Where says where the mails go, such as the address of a server, without secrets.
	Where() string
}

// Class says what a failure means for other mails, and for another attempt.
type Class int

const (
	// Unavailable means that no mail can be sent now: the server is not reachable, or does
	// not accept this site.
	Unavailable Class = iota
	// Deferred means that this mail is not accepted now, and may be later.
	Deferred
	// Refused means that this mail will never be accepted.
	Refused
)

// Error is why a mail was not sent.
type Error struct {
	// Class says whether to send it again.
	Class Class
	// Err is what happened.
	Err error
	// Advice says what the operator can do; may be empty.
	Advice string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Advice == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + "; " + e.Advice
}

// Unwrap returns what happened.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of an error of a [Mailer].
func ClassOf(err error) Class {
	if failure, ok := errors.AsType[*Error](err); ok {
		return failure.Class
	}
	return Unavailable
}

// Address returns an e-mail address as it is used in SMTP, with its domain in ASCII (RFC 5891).
// The error describes the problem without the address.
func Address(email string) (string, error) {
	key, err := store.EmailKey(email)
	if err != nil {
		return "", err
	}
	return email[:strings.LastIndexByte(email, '@')] + key[strings.LastIndexByte(key, '@'):], nil
}

// withoutAddress removes the recipient from a text for logs, since servers repeat it.
func withoutAddress(text, to string) string {
	inASCII, _ := Address(to)
	for _, form := range []string{inASCII, to} {
		if form != "" {
			text = regexp.MustCompile("(?i)"+regexp.QuoteMeta(form)).ReplaceAllLiteralString(text, "(recipient)")
		}
	}
	return text
}
