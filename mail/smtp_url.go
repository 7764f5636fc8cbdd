package mail

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/idna"
)

// server is a mail server, and the user there.
type server struct {
	tls                bool // from the start
	host               string
	port               int
	username, password string
}

// String returns the URL without the user.
func (s server) String() string {
	scheme := "smtp"
	if s.tls {
		scheme = "smtps"
	}
	return scheme + "://" + net.JoinHostPort(s.host, strconv.Itoa(s.port))
}

// parseServer parses the URL of a mail server. It is split before its placeholders are replaced,
// so that a password from one may have any character. Errors never contain the password.
func parseServer(text string) (s server, err error) {
	if config.Placeholder.FindString(text) == text && text != "" { // the whole URL
		if text, err = value("the URL", text); err != nil {
			return s, err
		}
	}
	scheme, rest, found := strings.Cut(text, "://")
	if s.tls = scheme == "smtps"; !found || scheme != "smtp" && !s.tls {
		return s, errors.New("it must be an smtp or smtps URL, as in: smtp://user:{env.SMTP_PASSWORD}@mail.example.com")
	}
	at := strings.LastIndexByte(rest, '@')
	if at >= 0 {
		username, password, _ := strings.Cut(rest[:at], ":")
		if s.username, err = userinfo("the user", username); err != nil {
			return s, err
		}
		if password != "" {
			if s.password, err = userinfo("the password", password); err != nil {
				return s, err
			}
		}
	}
	if s.host, err = value("the host", strings.TrimSuffix(rest[at+1:], "/")); err != nil {
		return s, err
	}
	return s, s.splitPort()
}

func (s *server) splitPort() (err error) {
	text, port := s.host, ""
	if host, after, err := net.SplitHostPort(text); err == nil {
		text, port = host, after
	}
	address, notIP := netip.ParseAddr(strings.Trim(text, "[]"))
	if s.host = address.String(); notIP != nil {
		if s.host, err = idna.Lookup.ToASCII(text); err != nil || text == "" {
			return errors.New("its host is not valid; write the URL as in: smtp://mail.example.com:587. If a " +
				"password contains @, / or #, set it with the option password")
		}
	}
	switch {
	case port != "":
		if s.port, err = strconv.Atoi(port); err != nil || s.port < 1 || s.port > 65535 {
			return fmt.Errorf("its port is %q; it must be a number from 1 to 65535", port)
		}
	case s.tls:
		s.port = 465
	case thismachine.Is(s.host):
		s.port = 25
	default:
		s.port = 587
	}
	return nil
}

// userinfo returns a part of a URL before its @. What comes from a placeholder is not decoded.
func userinfo(what, text string) (string, error) {
	if config.Placeholder.MatchString(text) {
		return value(what, text)
	}
	decoded, err := url.PathUnescape(text)
	if err != nil {
		return "", fmt.Errorf("%s in the URL has a %% that is not followed by two hex digits; write %% as %%25, or "+
			"set it with the options username and password", what)
	}
	return value(what, strings.NewReplacer("{", `\{`).Replace(decoded))
}

// value replaces the placeholders of a value that may be secret, which errors do not contain.
func value(what, text string) (string, error) {
	if err := config.CheckVariable(text); err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	resolved, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	resolved = strings.TrimRight(resolved, "\r\n")
	if err != nil || resolved == "" {
		return "", fmt.Errorf("%s is empty, or a placeholder in it is; %s {env.NAME} and {file./path} are read when "+
			"the config is loaded", what, config.WhyEmpty(text))
	}
	if strings.ContainsAny(resolved, "\r\n\x00") {
		return "", fmt.Errorf("%s has several lines; write it on one line", what)
	}
	return resolved, nil
}
