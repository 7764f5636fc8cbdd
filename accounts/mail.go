package accounts

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/mail"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// Mails sends mails to the users of a site, and limits them.
type Mails struct {
	*site
	mailers   store.Latest[mail.Mailer]
	outbox    *mail.Outbox
	addresses *Throttle
	notices   *Throttle // to an address
	clients   *Throttle
	full      outage.Outage
	unwritten outage.Outage // never ends, so that it is logged now and then
}

// LoadMailer loads the module of `mail`, or returns nil if there is none.
func LoadMailer(ctx caddy.Context, settings *Config) (mail.Mailer, error) {
	if len(settings.MailRaw) == 0 {
		return nil, nil
	}
	if err := config.CheckModules("jwt.mailers", settings.MailRaw); err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	raw := settings.MailRaw
	loaded, err := ctx.LoadModule(settings, "MailRaw")
	settings.MailRaw = raw // LoadModule clears it, but it is part of what tells sites apart
	if err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	mailer, ok := loaded.(mail.Mailer)
	if !ok {
		return nil, fmt.Errorf("mail: %T is not a Mailer", loaded)
	}
	return mailer, nil
}

// newMails returns nil without a mailer.
func newMails(shared *site, attempts *Attempts, mailer *mail.Mailer) *Mails {
	if *mailer == nil {
		return nil
	}
	limits := (*mailer).Common()
	m := &Mails{
		site:      shared,
		addresses: attempts.NewThrottle("mails to an address", limits.PerAddress, time.Hour),
		notices:   attempts.NewThrottle("notices to an address", noticesPerMail*limits.PerAddress, time.Hour),
		clients:   attempts.NewThrottle("mails of a client", limits.PerClient, time.Hour),
	}
	m.mailers.Add(mailer)
	m.outbox = mail.NewOutbox(mail.Options{
		Issuer: shared.Config.Issuer, Store: shared.where, Now: shared.Now, Log: shared.Log, Mailer: m.mailers.Current,
		Records: func() store.RecordStore { return shared.Users() },
	})
	return m
}

// Queue queues a mail that a client has caused, and returns without waiting for the mail server.
// The error is a *[refusal.Error]. What it takes depends neither on the mail server nor on whether
// the address has an account. Nor does the result: a mail that cannot be written or composed, which
// may be that for one of the two only, is dropped, and logged. unwritten is the error of writing it.
func (m *Mails) Queue(ctx context.Context, message mail.Message, unwritten error, client Client) error {
	key, err := store.EmailKey(message.To)
	if err != nil {
		return refusal.Property("email", "format", err)
	}
	byClient, wait := m.clients.Begin(ctx, network.Key(client.Address), m.Now())
	if wait > 0 {
		mail.Count(message.Kind, "limited")
		return Throttled("mails of the client", wait)
	}
	byAddress, wait := m.addresses.Begin(ctx, key, m.Now())
	if wait > 0 {
		mail.Count(message.Kind, "limited")
		return Throttled("mails to the address", wait)
	}
	if err = unwritten; err == nil {
		err = m.queue(ctx, message, client)
	}
	if err == nil || m.isDropped(message, err) {
		return nil
	}
	byClient.Forgive()
	byAddress.Forgive()
	return StoreRefusal(err)
}

// errUnwritten means that a mail cannot be written by its templates.
var errUnwritten = errors.New("the mail cannot be written")

// isDropped reports whether an error means that a mail can never be sent, and logs it then.
func (m *Mails) isDropped(message mail.Message, err error) bool {
	if _, refused := errors.AsType[*mail.Error](err); !refused && !errors.Is(err, errUnwritten) {
		return false
	}
	mail.Count(message.Kind, "dropped")
	if say, _ := m.unwritten.Fails(m.Now()); say {
		m.Log.Warn(
			"a mail cannot be written, so it is not sent; nobody is told", help.See("mail-not-written"),
			zap.String("kind", message.Kind), zap.Error(err),
		)
	}
	return true
}

// noticesPerMail is how many notices an address gets for each other mail that it may get.
const noticesPerMail = 4

// Tell queues a notice as Queue queues a mail. Notices have a limit of their own, so that nobody can
// suppress them by using up the other mails of the address, nor flood it. What is beyond is dropped.
func (m *Mails) Tell(ctx context.Context, message mail.Message, client Client) error {
	key, err := store.EmailKey(message.To)
	if err != nil {
		return refusal.Property("email", "format", err)
	}
	if _, wait := m.notices.Begin(ctx, key, m.Now()); wait > 0 {
		mail.Count(message.Kind, "limited")
		return nil
	}
	return StoreRefusal(m.queue(ctx, message, client))
}

func (m *Mails) queue(ctx context.Context, message mail.Message, client Client) error {
	id, err := m.outbox.Queue(ctx, message)
	if errors.Is(err, mail.ErrQueueFull) {
		if say, _ := m.full.Fails(m.Now()); say {
			m.Log.Warn("too many mails wait to be sent, so no more are queued", help.See("mail-queue-full"))
		}
		err = &refusal.Error{Reason: refusal.StoreUnavailable, Detail: err.Error(), RetryAfter: time.Minute}
	}
	if err != nil {
		return err
	}
	m.full.Works(m.Now())
	m.Audit("mail queued", message.UserID, "", client, zap.String("mail_id", id), zap.String("kind", message.Kind))
	return nil
}

// write returns a mail with the texts of its kind, in the language of the asker.
func (m *Mails) write(kind, to, userID string, asker Asker, expires time.Time, data any) (mail.Message, error) {
	message := mail.Message{Kind: kind, To: to, UserID: userID, Language: asker.Language, ExpiresAt: expires}
	err := m.templates().Write(&message, m.Config.Site(m.mailers.Current(), asker.Base), data)
	if err != nil {
		err = fmt.Errorf("%w: %w", errUnwritten, err)
	}
	return message, err
}

func (m *Mails) templates() *mail.Templates { return m.Config.mailTemplates(m.Texts()) }

// Site returns the name of the site in mails: `name`, or else the host of its URL or of the issuer, or
// else, if no host is known, the domain of the sender. base is the URL of the site; empty if unknown.
func (a *Config) Site(mailer mail.Mailer, base string) string {
	if a.Name != "" {
		return a.Name
	}
	for _, text := range []string{base, a.Issuer} {
		if at, err := url.Parse(text); err == nil && at.Hostname() != "" {
			return at.Hostname()
		}
	}
	return mailer.Common().Domain()
}

// MailTemplates returns the texts of the mails.
func (a *Config) MailTemplates() *mail.Templates { return a.mailTemplates(a.Texts()) }

func (a *Config) mailTemplates(catalogue *texts.Catalogue) *mail.Templates {
	if a.Templates == "" {
		return mail.NewTemplates("", catalogue)
	}
	return mail.NewTemplates(filepath.Join(a.Templates, "mail"), catalogue)
}

func (a *Config) readMail(b *config.Block, _ string) (err error) {
	const takes = "mail takes the URL of a mail server, as in: mail smtp://user:{env.SMTP_PASSWORD}@mail.example.com" +
		", or command or webhook with what they take"
	if !b.NextArg() {
		return b.Errf("%s", takes)
	}
	word := b.Val()
	scheme, _, isURL := strings.Cut(word, "://")
	switch {
	case strings.HasPrefix(word, "{") || isURL && (scheme == "smtp" || scheme == "smtps"):
		a.MailRaw, err = config.ReadModuleNamed(b, "jwt.mailers", "smtp")
	case isURL && strings.HasPrefix(scheme, "http"):
		return b.Errf("mail sends by SMTP; for a service write: mail webhook <url>")
	case strings.ContainsAny(word, ":/@."): // it may contain a password
		return b.Errf("%s", takes)
	default:
		a.MailRaw, err = config.ReadNamedModule(b, "jwt.mailers")
	}
	return err
}
