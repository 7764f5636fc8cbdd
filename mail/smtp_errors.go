package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"strings"

	"github.com/wneessen/go-mail"
)

// explain returns an error of a connection with its class and what the operator can do.
func (s *SMTP) explain(err error) error {
	if refused, ok := errors.AsType[*mail.SendError](err); ok && refused.ErrorCode() != 0 {
		return explainAnswer(refused)
	}
	return &Error{Class: Unavailable, Err: plain(err), Advice: s.advice(err)}
}

// explainAnswer is explain for an answer to a mail. Of one to the sender, the recipient and the
// content are innocent.
func explainAnswer(refused *mail.SendError) error {
	failure := &Error{Class: Deferred, Err: plain(refused)}
	code := refused.ErrorCode()
	switch {
	case code == 530 || code == 535 || code == 538:
		failure.Class, failure.Advice = Unavailable, "the server wants a user and a password; set them in the URL"
	case refused.Reason == mail.ErrSMTPMailFrom:
		failure.Class = Unavailable
		if code >= 500 {
			failure.Advice = "the server does not allow the sender; set `from` to an address that its user may use"
		}
	case code == 421:
		failure.Class = Unavailable
	case code >= 500:
		failure.Class = Refused
		if refused.Reason == mail.ErrSMTPRcptTo {
			failure.Advice = "the server does not take mails for this recipient; if that is so for all of them, does " +
				"it want a user and a password, or has it to allow this machine?"
		}
	}
	return failure
}

// plain returns the error without the address of this machine, or the recipient.
func plain(err error) error {
	if failure, ok := errors.AsType[*net.OpError](err); ok {
		return failure.Err
	}
	text, _, _ := strings.Cut(err.Error(), ", affected ") // go-mail adds the recipient
	return errors.New(oneLine(text))
}

// advice returns what the operator can do about an error of a connection.
func (s *SMTP) advice(err error) string {
	text := err.Error()
	answer, answered := errors.AsType[*textproto.Error](err)
	unknown, notFound := errors.AsType[*net.DNSError](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	late := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
	switch {
	case notFound && unknown.IsNotFound:
		return "no such host; is the name in the URL right?"
	case notFound:
		return "the name of the host cannot be resolved; does the DNS of this machine work?"
	case untrusted:
		return "the certificate of the server is not for this name, or not of a known authority; write the name that " +
			"it is for, or set trusted_ca_certs"
	case noTLS:
		return "the port does not speak TLS from the start; write smtp:// for STARTTLS, usually at port 587"
	case strings.Contains(text, "does not support STARTTLS"):
		return "without it anybody in between could read the mails; use smtps://, usually at port 465"
	case strings.Contains(text, "SMTP AUTH failed"):
		return "are the user and the password right? Many providers want a password for applications instead of the " +
			"user's own"
	case strings.Contains(text, "AUTH"):
		return "the server offers no way to log in here; remove the user from the URL, or use another port, such as 587"
	case answered:
		return fmt.Sprintf("the server does not accept this machine now (%d); what it says is the reason", answer.Code)
	case late && !s.server.tls:
		return "the server does not answer; is the port right, and open in the firewall? A port that speaks TLS from " +
			"the start, such as 465, needs smtps://"
	case late, errors.Is(err, io.EOF):
		return "the server does not answer; are host and port right, and open in the firewall?"
	}
	return "are host and port right, and does a server listen there?"
}
