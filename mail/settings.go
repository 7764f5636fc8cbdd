package mail

import (
	"errors"
	"fmt"
	netmail "net/mail"
	"strings"
	"time"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddyserver/caddy/v2"
)

// Defaults and limits of [Settings].
const (
	defaultRetryFor   = 24 * time.Hour
	maxRetryFor       = 7 * 24 * time.Hour
	defaultPerAddress = 5
	defaultPerClient  = 20
)

// Settings are the settings that all mailers have.
type Settings struct {
	// From is the sender, such as `no-reply@example.com` or `"The Shop
	// <no-reply@example.com>"`. The mail server must allow it. Required.
	From string `json:"from,omitempty"`

	// ReplyTo is the address that answers go to. Default: the sender.
	ReplyTo string `json:"reply_to,omitempty"`

	// RetryFor is how long a mail is sent again if the server does not accept it, from 1m to
	// 168h. A mail with a code is dropped earlier, when the code expires. Default: `24h`.
	RetryFor caddy.Duration `json:"retry_for,omitempty"`

	// PerAddress is the maximum number of mails per hour to one address, so that nobody can
	// fill the mailbox of somebody else. Notices, as of a new password, are counted apart, up to 4
	// times as many. Default: `5`.
	PerAddress int `json:"per_address,omitempty"`

	// PerClient is the maximum number of mails per hour that one client IP address can
	// cause. For IPv6 it applies to each /64, and ten times the limit to each /48. Default:
	// `20`.
	PerClient int `json:"per_client,omitempty"`

	from, replyTo *netmail.Address
}

// Common implements part of [Mailer].
func (s *Settings) Common() *Settings { return s }

// Domain returns the domain of the sender.
func (s *Settings) Domain() string {
	return s.from.Address[strings.LastIndexByte(s.from.Address, '@')+1:]
}

// Options returns the options of a Caddyfile block, which a mailer adds to its own.
func (s *Settings) Options() []config.Option {
	return []config.Option{
		{Name: "from", Read: config.Word(
			`an address, as in: from no-reply@example.com, or: from "The Shop <no-reply@example.com>"`, &s.From,
		)},
		{Name: "reply_to", Read: config.Word("an address, as in: reply_to help@example.com", &s.ReplyTo)},
		{Name: "retry_for", Read: config.Duration(&s.RetryFor)},
		{Name: "per_address", Read: config.Count("a number of mails per hour", &s.PerAddress)},
		{Name: "per_client", Read: config.Count("a number of mails per hour", &s.PerClient)},
	}
}

// Resolve sets defaults and replaces placeholders. It returns an error if a value is not valid. A
// mailer calls it in its Provision.
func (s *Settings) Resolve() error {
	if err := errors.Join(config.Resolve("from", &s.From), config.Resolve("reply_to", &s.ReplyTo)); err != nil {
		return err
	}
	config.SetDefault(&s.RetryFor, caddy.Duration(defaultRetryFor))
	config.SetDefault(&s.PerAddress, defaultPerAddress)
	config.SetDefault(&s.PerClient, defaultPerClient)
	if s.From == "" {
		return errors.New("from is missing; set the sender, as in: from no-reply@example.com")
	}
	var err error
	if s.from, err = parseSender(s.From); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	if s.ReplyTo != "" {
		if s.replyTo, err = parseSender(s.ReplyTo); err != nil {
			return fmt.Errorf("reply_to: %w", err)
		}
	}
	retry := time.Duration(s.RetryFor)
	switch {
	case retry < time.Minute || retry > maxRetryFor:
		return fmt.Errorf("retry_for is %s; it must be from 1m to 168h", retry)
	case s.PerAddress < 1 || s.PerClient < 1:
		return errors.New("per_address and per_client must be at least 1")
	}
	return nil
}

func parseSender(text string) (*netmail.Address, error) {
	parsed, err := netmail.ParseAddress(text)
	if err != nil {
		return nil, fmt.Errorf("%q is not an address; write it as in: no-reply@example.com, or: "+
			`"The Shop <no-reply@example.com>"`, text)
	}
	if strings.ContainsFunc(parsed.Name, unicode.IsControl) || len(parsed.Name) > maxSubject {
		return nil, errors.New("the name before the address has a control character, or is too long")
	}
	if parsed.Address, err = Address(parsed.Address); err != nil {
		return nil, fmt.Errorf("the address %w", err)
	}
	return parsed, nil
}
