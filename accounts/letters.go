package accounts

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
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
	letterLogIn        = "login"          // a code instead of a password
	letterEmail        = "email"          // a code for a new address
	letterEmailChanged = "email-changed"  // a notice to the address before
	letterInvite       = "invite"         // a link to set the first password

	letterPasskeyAdded   = "passkey-added"   // a notice
	letterPasskeyRemoved = "passkey-removed" // a notice
)

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
		c.BrowserHash = store.HashToken(asker.Browser)
	}
	words, _ := l.Texts().Named(asker.Language)
	letter := Letter{Lifetime: words.Text("%d minutes", int(CodeLifetime/time.Minute))}
	if !c.Void || decoy {
		letter.Code = code
	}
	letter.address(&l.Config, asker.Base, c.Purpose, token)
	message, err := l.mails.write(kind, c.Email, c.UserID, asker.Language, l.Now().Add(CodeLifetime), letter)
	if err != nil {
		return err
	}
	message.Decoy = decoy
	if err := l.mails.Queue(ctx, message, asker.Client); err != nil { // first, as the limits are checked there
		return err
	}
	return StoreRefusal(l.codes.put(context.WithoutCancel(ctx), c, CodeLifetime))
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
	case purposeReset, purposeInvite:
		l.Link = base + config.Path("reset") + query
	}
}

// tell mails a notice to a user, which no limit holds up.
func (l *LogIns) tell(ctx context.Context, kind, to, userID string, asker Asker) error {
	var letter Letter
	letter.address(&l.Config, asker.Base, "", "")
	message, err := l.mails.write(kind, to, userID, asker.Language, time.Time{}, letter)
	if err != nil {
		return err
	}
	return l.mails.Tell(ctx, message, asker.Client)
}
