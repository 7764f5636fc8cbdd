package accounts

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"golang.org/x/image/colornames"
)

const maxName = 60 // characters

// checkLooks returns an error if the name, the logo or the colour of the pages is not valid.
func (a *Config) checkLooks() error {
	if utf8.RuneCountInString(a.Name) > maxName || strings.ContainsFunc(a.Name, unicode.IsControl) {
		return fmt.Errorf("name must be a text of one line with at most %d characters", maxName)
	}
	if _, err := a.LogoOrigin(); err != nil {
		return err
	}
	if _, err := ParseColor(a.Accent); a.Accent != "" && err != nil {
		return fmt.Errorf("accent: %w", err)
	}
	return nil
}

// LogoOrigin returns the origin of the logo, or the empty string if it is of this site.
func (a *Config) LogoOrigin() (string, error) {
	if a.Logo == "" || strings.HasPrefix(a.Logo, "/") && !strings.HasPrefix(a.Logo, "//") {
		return "", nil
	}
	logo, err := url.Parse(a.Logo)
	if err != nil || logo.Scheme != "https" || logo.Host == "" || logo.User != nil ||
		strings.ContainsAny(logo.Host, "*;, ") {
		return "", fmt.Errorf("logo %s: it must be a path of the site or an https URL, as in /logo.svg "+
			"or https://cdn.example.com/logo.svg", refusal.Quoted(a.Logo))
	}
	return "https://" + logo.Host, nil
}

// Color is a colour as red, green and blue, each from 0 to 255.
type Color [3]uint8

// ParseColor parses a colour by its name, such as teal, or its digits, such as #2457c5 or #25c (CSS
// Color 4 §5.2 and §6.1, without transparency). The # can be left out, because in a Caddyfile it
// begins a comment.
func ParseColor(text string) (c Color, err error) {
	if named, ok := colornames.Map[strings.ToLower(text)]; ok {
		return Color{named.R, named.G, named.B}, nil
	}
	digits := strings.TrimPrefix(text, "#")
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	if n, err := fmt.Sscanf(digits, "%02x%02x%02x", &c[0], &c[1], &c[2]); len(digits) != 6 || n != 3 || err != nil {
		return c, fmt.Errorf("%s is not a colour; write it as in 2457c5 or teal", refusal.Quoted(text))
	}
	return c, nil
}
