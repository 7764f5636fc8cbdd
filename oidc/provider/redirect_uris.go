package provider

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
)

// checkRedirectURI refuses URIs that a browser could execute or that others could read in
// transit.
func (c *Client) checkRedirectURI(text string) error {
	u, err := url.Parse(text)
	switch {
	case strings.ContainsAny(text, " \\*"):
		return errors.New("it must not contain *, a space or a backslash; list each URL in full")
	case err != nil || u.Scheme == "":
		return errors.New("it is not an absolute URL")
	case strings.Contains(text, "#"):
		return errors.New("it has a fragment, which a redirect cannot keep")
	case protocol.SecureURL(u) && u.Host != "" && u.User == nil:
		return nil
	case strings.Contains(u.Scheme, "."): // an app's own (RFC 8252 §7.1)
		return nil
	}
	if c.UndottedScheme && slices.Contains(executed, u.Scheme) {
		return errors.New("its scheme is one of browsers, not of an app")
	}
	if c.UndottedScheme {
		return nil
	}
	return errors.New("it must be https, http on this machine, or an app's own scheme with a dot in it, " +
		"as in com.example.app:/callback; an app whose scheme has no dot needs undotted_scheme")
}

// executed are the schemes that a browser handles itself, or that lead to other programs than an app.
var executed = []string{
	"http", "https", "ws", "wss", "ftp", "ftps", "sftp", "file", "filesystem", "blob", "data", "about", "javascript",
	"vbscript", "livescript", "mocha", "view-source", "chrome", "chrome-extension", "moz-extension", "resource", "jar",
	"ms-browser-extension", "edge", "opera", "brave", "feed", "intent", "content", "mailto", "tel", "sms", "sip",
	"urn", "ssh", "telnet", "ldap", "smb", "nfs", "gopher", "magnet", "cid", "mid", "mhtml", "res", "shell",
	"search-ms",
	"ms-settings", "ms-msdt", "ms-word", "ms-excel", "ms-powerpoint", "ms-officecmd",
}

// allowsRedirect reports whether a redirect URI is registered. One of the user's machine that is
// registered without a port matches any port.
func (c *Client) allowsRedirect(presented string) bool {
	return slices.Contains(c.RedirectURIs, presented) ||
		isLoopbackURI(presented) && slices.Contains(c.RedirectURIs, withoutPort(presented))
}

// loopbacks are the hosts of redirect URIs at which programs listen on any port (RFC 8252 §7.3).
// The RFC advises against localhost, but many programs use it.
var loopbacks = []string{"127.0.0.1", "::1", "localhost"}

// isLoopbackURI reports whether a redirect URI leads by http to a program that listens on the
// user's machine.
func isLoopbackURI(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && u.Scheme == "http" && u.User == nil && slices.Contains(loopbacks, u.Hostname())
}

// withoutPort returns a loopback URI without its port, and unchanged otherwise.
func withoutPort(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Port() == "" {
		return uri
	}
	rest, found := strings.CutPrefix(uri, u.Scheme+"://"+u.Host)
	if !found {
		return uri
	}
	return u.Scheme + "://" + strings.TrimSuffix(u.Host, ":"+u.Port()) + rest
}

// onThisMachine reports whether a redirect URI leads to a program on the user's machine:
// through a loopback address or through the program's own scheme.
func onThisMachine(redirectURI string) bool {
	u, err := url.Parse(redirectURI)
	return err != nil || u.Scheme != "https" || protocol.SecureURL(&url.URL{Scheme: "http", Host: u.Host})
}
