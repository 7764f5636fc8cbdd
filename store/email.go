package store

import (
	"fmt"
	"net/mail"
	"strings"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"golang.org/x/net/idna"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// MaxEmailBytes is the maximum length of an e-mail address, in bytes.
const MaxEmailBytes = 254 // RFC 5321 §4.5.3.1.3

// emailLocalPart normalizes the part before the @: it ignores compatibility forms, width
// and case, and refuses invisible characters and characters that change the text direction
// (RFC 8264 §4.2, IdentifierClass).
var emailLocalPart = precis.NewIdentifier(precis.FoldWidth, precis.FoldCase(), precis.Norm(norm.NFKC), precis.BidiRule)

// emailDomain is like idna.Lookup, but requires labels of 1 to 63 bytes: "xn--" would
// decode to an empty label.
var emailDomain = idna.New(
	idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true),
)

// EmailKey returns the normalized form of an e-mail address: two addresses with the same
// key belong to the same user. The error describes the problem without the address.
func EmailKey(email string) (string, error) {
	if len(email) > MaxEmailBytes {
		return "", texts.Errorf("is too long for an e-mail address")
	}
	parsed, err := mail.ParseAddress(email)
	if err != nil || parsed.Name != "" || parsed.Address != email {
		return "", texts.Errorf("must look like name@example.com")
	}
	at := strings.LastIndexByte(email, '@')
	// Case folding keeps compatibility forms such as ℑ, which only NFKC converts to a
	// letter.
	local, err := emailLocalPart.String(norm.NFKC.String(email[:at]))
	if err != nil {
		return "", texts.Errorf("contains a character before the @ that is not allowed in e-mail addresses")
	}
	// Characters that idna ignores, such as a zero-width space, would still be displayed;
	// and idna keeps an ideographic full stop at the end.
	domain, err := emailDomain.ToASCII(email[at+1:])
	if err != nil || strings.ContainsFunc(email[at+1:], invisible) || strings.HasSuffix(domain, ".") {
		return "", texts.Errorf("has an invalid domain name")
	}
	return local + "@" + domain, nil
}

// maxLocalPartBytes is the maximum length of what is before the @ (RFC 5321 §4.5.3.1.1).
const maxLocalPartBytes = 64

// CheckNewEmail returns an error if an address cannot be that of a new account.
func CheckNewEmail(email string) error {
	if _, err := EmailKey(email); err != nil {
		return err
	}
	if strings.LastIndexByte(email, '@') > maxLocalPartBytes {
		return fmt.Errorf("has more than %d bytes before the @", maxLocalPartBytes)
	}
	return nil
}

// invisible reports whether a character is invisible (Unicode TR44,
// Default_Ignorable_Code_Point).
func invisible(r rune) bool {
	return unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}
