package mail

import (
	"errors"
	"fmt"
	netmail "net/mail"
	"strings"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/wneessen/go-mail"
)

const (
	maxSubject = 200     // characters of a subject or name; a line has at most 998 bytes (RFC 5322 §2.1.1)
	maxBody    = 1 << 20 // bytes of text and HTML
)

// compose builds a message (RFC 5322). Text of users cannot add a header or a recipient to it.
func (s *Settings) compose(m *Message) (*mail.Msg, error) {
	to, err := Address(m.To)
	if err != nil {
		return nil, &Error{Class: Refused, Err: fmt.Errorf("the address of the recipient %w", err)}
	}
	if len(m.Text)+len(m.HTML) > maxBody {
		return nil, &Error{Class: Refused, Err: fmt.Errorf("the mail has more than %d bytes", maxBody)}
	}
	if strings.ContainsFunc(m.ID+m.Language, func(r rune) bool { return r <= ' ' || r > '~' || r == '<' || r == '>' }) {
		return nil, &Error{Class: Refused, Err: errors.New("the ID or the language is not valid")}
	}
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent(), mail.WithEncoding(mail.EncodingQP))
	msg.FromMailAddress(s.from)
	msg.ToMailAddress(&netmail.Address{Address: to})
	if s.replyTo != nil {
		msg.ReplyToMailAddress(s.replyTo)
	}
	msg.Subject(oneLine(m.Subject))
	msg.SetDateWithValue(m.CreatedAt)
	msg.SetMessageIDWithValue(m.ID + "@" + s.Domain())
	// No out-of-office reply answers it (RFC 3834 §5).
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetGenHeader("X-Auto-Response-Suppress", "All")
	if m.Language != "" {
		msg.SetGenHeader("Content-Language", m.Language)
	}
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	}
	return msg, nil
}

// oneLine returns a text for a header: without control characters and those that change the
// direction of the text, and not too long.
func oneLine(text string) string {
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "\uFFFD"), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
	}), " ")
	if runes := []rune(text); len(runes) > maxSubject {
		return string(runes[:maxSubject-1]) + "…"
	}
	return text
}

// isASCII reports whether an address needs no SMTPUTF8 (RFC 6531).
func isASCII(address string) bool {
	return !strings.ContainsFunc(address, func(r rune) bool { return r > unicode.MaxASCII })
}

// localPart returns what is before the @ of an address.
func localPart(address string) string { return address[:max(0, strings.LastIndexByte(address, '@'))] }

// newID returns the ID of a new message.
func newID() string { return store.RandomToken(16) }
