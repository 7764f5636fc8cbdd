package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
)

// clientDocument is the metadata document of a client, whose URL is the client's ID
// (draft-ietf-oauth-client-id-metadata-document §4, with the names of RFC 7591 §2).
type clientDocument struct {
	ClientID     string   `json:"client_id"`
	Name         string   `json:"client_name"`
	RedirectURIs []string `json:"redirect_uris"`
	AuthMethod   string   `json:"token_endpoint_auth_method"`
	GrantTypes   []string `json:"grant_types"`
	Scope        string   `json:"scope"`
	Secret       any      `json:"client_secret"`
}

const maxClientIDBytes = 1024 // of a URL

// parseClientURL returns the URL of a client's document, or an error that says what is wrong
// (§3 of the draft).
func parseClientURL(id string) (*url.URL, error) {
	u, err := url.Parse(id)
	switch {
	case err != nil || u.Host == "" || len(id) > maxClientIDBytes || !isPlainText(id):
		return nil, errors.New("it is not a URL in ASCII")
	case u.Scheme != "https" && !thismachine.Is(u.Hostname()):
		return nil, errors.New("it must be https")
	case u.User != nil || strings.Contains(u.Host, "@"):
		return nil, errors.New("it has a user name")
	case strings.Contains(id, "#"):
		return nil, errors.New("it has a fragment")
	case u.Path == "" || u.Path == "/":
		return nil, errors.New("it has no path")
	}
	for segment := range strings.SplitSeq(u.Path, "/") { // decoded
		if segment == "." || segment == ".." {
			return nil, errors.New("its path has dot segments")
		}
	}
	return u, nil
}

// isPlainText reports whether a text is visible ASCII without a backslash, so that a host cannot
// look like another.
func isPlainText(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' })
}

// client returns the client of a document that was loaded from its URL. The document is
// somebody else's: it cannot have placeholders, secrets or redirect URIs of another site, and
// users are always asked for consent.
func (d *clientDocument) client(p *Provider, at *url.URL) (*Client, error) {
	switch {
	case d.ClientID != at.String():
		return nil, errors.New("its client_id is not its URL, character by character")
	case d.AuthMethod != "" && d.AuthMethod != "none" || d.Secret != nil:
		return nil, errors.New("its token_endpoint_auth_method must be none, without a client_secret")
	}
	client := &Client{
		ID: d.ClientID, Name: d.label(at), Public: true, Consent: "always", host: at.Host,
		GrantTypes: []string{grantCode}, // RFC 7591 §2
	}
	for _, uri := range d.RedirectURIs {
		switch {
		case isLoopbackURI(uri):
			client.RedirectURIs = append(client.RedirectURIs, withoutPort(uri))
		case originOf(uri) == originOf(d.ClientID):
			client.RedirectURIs = append(client.RedirectURIs, uri)
		}
	}
	if len(client.RedirectURIs) == 0 {
		return nil, errors.New("it has no redirect_uris of its own origin or on the user's machine")
	}
	if len(d.GrantTypes) > 0 {
		client.GrantTypes = slices.DeleteFunc(slices.Clone(d.GrantTypes), func(grantType string) bool {
			return grantType != grantCode && grantType != grantRefresh
		})
	}
	if !slices.Contains(client.GrantTypes, grantCode) {
		return nil, errors.New("its grant_types lack authorization_code")
	}
	known := p.scopes()
	for scope := range known {
		if d.Scope == "" || slices.Contains(strings.Fields(d.Scope), scope) {
			client.Scopes = append(client.Scopes, scope)
		}
	}
	if len(client.Scopes) == 0 {
		return nil, errors.New("its scope has none that this provider knows")
	}
	slices.Sort(client.Scopes)
	client.setDefaults()
	return client, client.check(p)
}

const maxLabelRunes = 60

// label returns the name for users, in which the host cannot be hidden or imitated by
// invisible characters or line breaks.
func (d *clientDocument) label(at *url.URL) string {
	name := strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsGraphic(r) || r == '(' || r == ')':
			return -1
		}
		return r
	}, d.Name)), " ")
	if runes := []rune(name); len(runes) > maxLabelRunes {
		name = string(runes[:maxLabelRunes]) + "…"
	}
	if name == "" {
		return at.Host
	}
	return fmt.Sprintf("%s (%s)", name, at.Host)
}

// unmarshalDocument parses a document.
func unmarshalDocument(text []byte) (d *clientDocument, err error) {
	if err := json.Unmarshal(text, &d); err != nil || d == nil {
		return nil, errors.New("it is not a JSON object as in RFC 7591")
	}
	return d, nil
}
