package accounts

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/mail"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
	"golang.org/x/text/language"
)

// Asker is who asks for a mailed code, and where.
type Asker struct {
	Client
	// Browser is the secret in a cookie of the browser, to which the code is bound; empty for none.
	Browser string
	// Base is the URL of the site for links in mails, without a slash at the end. It comes from the
	// config, never from the request alone. If it is empty, mails have no links.
	Base string
	// ReturnTo is where the browser that asks goes on after the log-in, a path of the site; may be empty.
	ReturnTo string
	// Language of the client, as a tag (RFC 5646).
	Language string
}

// speaks returns the asker with the language of a user, if the profile has one in `locale` (OpenID
// Connect Core 1.0 §5.1): mails are in it.
func (a Asker) speaks(profile map[string]any) Asker {
	a.Language = localeOf(profile, a.Language)
	return a
}

func localeOf(profile map[string]any, otherwise string) string {
	locale, _ := profile["locale"].(string)
	if tag, err := language.Parse(locale); err == nil && tag != language.Und {
		return tag.String()
	}
	return otherwise
}

// Kinds of mails about accounts, which are the names of their templates.
const (
	letterVerify       = "verify"         // a code and a link to confirm an address
	letterExists       = "account-exists" // somebody wants an account with an address that has one
	letterReset        = "reset"          // a code and a link for a new password
	letterLogIn        = "login"          // a code and a link instead of a password
	letterEmail        = "email"          // a code for a new address
	letterEmailChanged = "email-changed"  // a notice to the address before
	letterInvite       = "invite"         // a link to set the first password

	letterPasskeyAdded   = "passkey-added"    // a notice
	letterPasskeyRemoved = "passkey-removed"  // a notice
	letterFactorAdded    = "factor-added"     // a notice
	letterFactorRemoved  = "factor-removed"   // a notice
	letterRecoveryCodes  = "recovery-codes"   // a notice that there are new ones
	letterPassword       = "password-changed" // a notice
)

// letters are all kinds.
var letters = []string{
	letterVerify, letterExists, letterReset, letterLogIn, letterEmail, letterEmailChanged, letterInvite,
	letterPasskeyAdded, letterPasskeyRemoved, letterFactorAdded, letterFactorRemoved, letterRecoveryCodes,
	letterPassword,
}

// checkLetters returns an error if a mail cannot be written by the templates of the config: with all
// that it can contain, or with nothing that may be empty.
func (a *Config) checkLetters(mailer mail.Mailer) error {
	if mailer == nil || a.Templates == "" {
		return nil
	}
	templates, site := a.MailTemplates(), a.Site(mailer, "")
	for _, kind := range letters {
		const at = "https://example.com/auth/"
		for _, letter := range []Letter{
			{
				Code: "123456", Link: at + "reset?token=0", LogIn: at + "login", Forgot: at + "forgot",
				Lifetime: "15 minutes",
			},
			{},
		} {
			if err := templates.Check(kind, site, letter); err != nil {
				return fmt.Errorf("mail: %w", err)
			}
		}
	}
	return templates.Check("test", site, nil)
}

// Letter is the data of a mail about accounts.
type Letter struct {
	// Code is the code, and Link the URL of a page; both may be empty.
	Code, Link string
	// LogIn and Forgot are the URLs of those pages; empty if the site does not know its own URL.
	LogIn, Forgot string
	// Lifetime of the code and the link in words, such as `15 minutes`.
	Lifetime string
}

// mailCode mails a new code to the address of c and stores it in the place of the one before. A
// decoy is not sent.
func (l *LogIns) mailCode(ctx context.Context, kind string, c mailedCode, decoy bool, asker Asker) error {
	code, token := c.draw()
	c.ClientHash = clientHash(asker.Client)
	if asker.Browser != "" {
		c.BrowserHash, c.ReturnTo = store.HashToken(asker.Browser), asker.ReturnTo
	}
	words, _ := l.Texts().Named(asker.Language)
	letter := Letter{Lifetime: words.Text("%d minutes", int(CodeLifetime/time.Minute))}
	if c.Purpose == purposeInvite {
		letter.Lifetime = words.Text("%d hours", int(inviteLifetime/time.Hour))
	}
	if !c.Void || decoy {
		letter.Code = code
	}
	letter.address(&l.Config, asker.Base, c.Purpose, token)
	if c.Purpose == purposeLogIn && asker.Browser == "" {
		letter.Link = "" // it logs in only the browser that asked
	}
	message, unwritten := l.mails.write(kind, c.Email, c.UserID, asker, l.Now().Add(c.lifetime()), letter)
	message.Decoy = decoy
	// First, as the limits are checked there.
	if err := l.mails.Queue(ctx, message, unwritten, asker.Client); err != nil {
		return err
	}
	return StoreRefusal(l.codes.put(context.WithoutCancel(ctx), c, c.lifetime()))
}

// address sets the links.
func (l *Letter) address(config *Config, base, purpose, token string) {
	if base == "" {
		return
	}
	base = strings.TrimSuffix(base, "/")
	l.LogIn, l.Forgot = base+config.Path("login"), base+config.Path("forgot")
	query := "?" + url.Values{"token": {token}}.Encode()
	switch purpose {
	case purposeVerify:
		l.Link = base + config.Path("verify") + query
	case purposeLogIn:
		l.Link = base + config.Path("code") + query
	case purposeReset, purposeInvite:
		l.Link = base + config.Path("reset") + query
	}
}

// tell mails a notice to a user who has an address, about what has happened. If that fails, it is
// logged.
func (l *LogIns) tell(ctx context.Context, kind string, user store.User, asker Asker) {
	if l.mails == nil || user.Address() == "" {
		return
	}
	asker = asker.speaks(user.Profile)
	ctx = context.WithoutCancel(ctx)
	var letter Letter
	letter.address(&l.Config, asker.Base, "", "")
	message, err := l.mails.write(kind, user.Address(), user.ID, asker, time.Time{}, letter)
	if err == nil {
		err = l.mails.Tell(ctx, message, asker.Client)
	}
	if err != nil {
		l.Log.Warn(
			"a notice to a user was not queued, about what has happened in the account", help.See("notice-not-queued"),
			zap.String("user_id", user.ID), zap.String("kind", kind), zap.Error(err),
		)
	}
}
