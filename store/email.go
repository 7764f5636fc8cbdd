package store

import (
	"errors"
	"net/mail"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

const MaxEmailBytes = 254 // RFC 5321 §4.5.3.1.3

// emailLocalPart compares the part before the @: compatible forms, width and
// case are alike, and what looks like nothing or turns text around is refused
// (RFC 8264 §4.2, IdentifierClass).
var emailLocalPart = precis.NewIdentifier(precis.FoldWidth, precis.FoldCase(), precis.Norm(norm.NFKC), precis.BidiRule)

// emailDomain takes what idna.Lookup takes, with labels of 1 to 63 bytes only:
// "xn--" stands for nothing, and would leave an empty one.
var emailDomain = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// EmailKey is an e-mail address as it is compared: two addresses with the same
// key are one user's. The error says what is wrong with the address, without
// it.
func EmailKey(email string) (string, error) {
	if len(email) > MaxEmailBytes {
		return "", errors.New("is too long for an e-mail address")
	}
	parsed, err := mail.ParseAddress(email)
	if err != nil || parsed.Name != "" || parsed.Address != email {
		return "", errors.New("must look like name@example.com")
	}
	at := strings.LastIndexByte(email, '@')
	// Folding leaves a compatible form such as ℑ, which only NFKC makes a letter.
	local, err := emailLocalPart.String(norm.NFKC.String(email[:at]))
	if err != nil {
		return "", errors.New("contains a character before the @ that is not allowed in e-mail addresses")
	}
	// What idna leaves out, such as a zero-width blank, would still be shown, and an
	// ideographic full stop at the end is one more that it leaves in.
	domain, err := emailDomain.ToASCII(email[at+1:])
	if err != nil || strings.ContainsFunc(email[at+1:], invisible) || strings.HasSuffix(domain, ".") {
		return "", errors.New("has an invalid domain name")
	}
	return local + "@" + domain, nil
}

// invisible tells of a character that shows nothing by itself (Unicode TR44,
// Default_Ignorable_Code_Point).
func invisible(r rune) bool {
	return unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}
