package jwks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/discovery"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/go-json-experiment/json"
)

const (
	MaxDocumentBytes = 1 << 20 // of a key set or discovery document
)

// withoutSecrets returns a URL without the parts that may contain a password or an API key.
func withoutSecrets(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "(invalid URL)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// download fetches the text of the key set, and returns the URL that it was at.
func (c *KeySet) download(ctx context.Context) (document []byte, from string, err error) {
	if c.URL != "" {
		document, err = c.get(ctx, c.URL)
		return document, c.URL, err
	}
	keysURL, isHere := "", func() bool { return false }
	err = discovery.Find(c.Issuer, func(from string) (err error) {
		var traced context.Context
		traced, isHere = thismachine.Reached(ctx)
		text, err := c.get(traced, from)
		if err == nil {
			keysURL, err = ParseDiscovery(text, c.Issuer)
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if !isHere() { // otherwise a remote issuer could make Caddy send requests to its own machine
		ctx = thismachine.Forbid(ctx)
	}
	if err := checkDiscovered(keysURL, c.Issuer, c.AllowHTTP); err != nil {
		return nil, "", fmt.Errorf("discovery document: its jwks_uri %w", err)
	}
	document, err = c.get(ctx, keysURL)
	return document, keysURL, err
}

// parse returns the keys of a document. The error names its URL if only a discovery document did.
func (c *KeySet) parse(document []byte, from string) (keys []*jwt.Key, unused []error, err error) {
	keys, unused, err = jwt.ParseKeySet(document)
	switch {
	case err == nil:
	case c.URL != "":
		err = c.explain(document, err)
	default:
		err = fmt.Errorf("%s: %w", refusal.Visible(withoutSecrets(from)), err)
	}
	return keys, unused, err
}

// checkDiscovered also rejects plain http if the issuer has https. Only the config can
// allow that.
func checkDiscovered(keysURL, issuer string, allowHTTP bool) error {
	if strings.HasPrefix(keysURL, "http:") && strings.HasPrefix(issuer, "https:") && !allowHTTP {
		return fmt.Errorf(
			"%q is plain http, but the issuer is https; if the document is wrong, set jwks <url>",
			withoutSecrets(keysURL),
		)
	}
	return checkKeyURL(keysURL, allowHTTP)
}

// ParseDiscovery returns the jwks_uri of a discovery document (OpenID Connect Discovery 1.0
// §3, RFC 8414 §2). The issuer in the document must equal issuer (§4.3, §3.3).
func ParseDiscovery(text []byte, issuer string) (keysURL string, err error) {
	var document struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return "", fmt.Errorf("discovery document: %w", jwt.JSONError(err))
	}
	if err := discovery.CheckIssuer(document.Issuer, issuer, document.JWKSURI); err != nil {
		return "", fmt.Errorf("discovery document: %w", err)
	}
	if document.JWKSURI == "" {
		return "", discovery.LackError("discovery document: jwks_uri is missing")
	}
	return document.JWKSURI, nil
}

func (c *KeySet) get(ctx context.Context, from string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	own := sameOrigin(request.URL, c.source())
	if own { // a document must not send the headers elsewhere
		if err := c.Headers.Set(request.Header, c.expand); err != nil {
			return nil, err
		}
	}
	response, err := c.client.Do(request)
	if failure, ok := errors.AsType[*url.Error](err); ok { // the error contains the whole URL
		err = fmt.Errorf("%s: %w", withoutSecrets(from), failure.Err)
	}
	if err != nil && !errors.Is(err, errRedirect) {
		err = &unreachable{err}
	}
	if err != nil {
		return nil, err
	}
	from = withoutSecrets(from)
	defer response.Body.Close()
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		c.ahead.Store(int64(date.Sub(clock.Now())))
	}
	if response.StatusCode != http.StatusOK {
		return nil, c.explainStatus(&discovery.StatusError{
			From: from, Code: response.StatusCode, Status: response.Status,
		}, own)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, MaxDocumentBytes+1))
	if err != nil {
		return nil, &unreachable{fmt.Errorf("reading %s: %w", from, err)}
	}
	if len(text) > MaxDocumentBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", from, MaxDocumentBytes)
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // RFC 8259 §8.1
	if start := bytes.TrimSpace(text); !bytes.HasPrefix(start, []byte("{")) && !bytes.HasPrefix(start, []byte("[")) {
		kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
		if err != nil {
			kind = "no media type"
		}
		return nil, discovery.LackError(
			fmt.Sprintf("%s returned %s, %d bytes, not JSON; check the URL", from, kind, len(text)),
		)
	}
	return text, nil
}

// Check fetches the key set, but does not use or store it. It returns the number of its keys, and
// by how much the clock of the server is ahead of the one here, to the second; 0 if it sent no
// date.
func (c *KeySet) Check(ctx context.Context) (keys int, ahead time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	document, from, err := c.download(ctx)
	if err != nil {
		return 0, 0, err
	}
	usable, _, err := c.parse(document, from)
	if err != nil {
		return 0, 0, err
	}
	return len(usable), time.Duration(c.ahead.Load()), nil
}

// unreachable is an error of the transport: no answer was received.
type unreachable struct{ error }

// Unwrap returns the error of the transport.
func (u *unreachable) Unwrap() error { return u.error }

// IsOutage reports whether an error of a fetch can pass by itself: there was no answer, or one that
// says that the server is down or busy. Any other lasts until somebody changes something.
func IsOutage(err error) bool {
	if _, failed := errors.AsType[*unreachable](err); failed {
		return true
	}
	answered, ok := errors.AsType[*discovery.StatusError](err)
	return ok && (answered.Code >= http.StatusInternalServerError || answered.Code == http.StatusTooManyRequests)
}

var errRedirect = errors.New("redirected")

// explain returns the error about a document that is not a key set. A discovery document in
// its place is named as such.
func (c *KeySet) explain(document []byte, err error) error {
	var discovery struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if json.Unmarshal(document, &discovery) != nil || discovery.JWKSURI == "" {
		return err
	}
	return fmt.Errorf("%s is a discovery document, not a key set; write the URL of the key set: jwks %s",
		withoutSecrets(c.URL), refusal.Visible(withoutSecrets(discovery.JWKSURI)))
}

func sameHost(request *http.Request, via []*http.Request) error {
	if first := via[0].URL; request.URL.Host != first.Host || request.URL.Scheme != first.Scheme {
		return fmt.Errorf(
			"%w to another host, %s://%s; if that host is right, use its URL",
			errRedirect, request.URL.Scheme, request.URL.Host,
		)
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("%w more than %d times", errRedirect, maxRedirects)
	}
	return nil
}

// checkKeyURL accepts https, plain http to this machine and, if allowHTTP is set, plain
// http to other machines: anybody who can change a key set in transit can sign tokens.
func checkKeyURL(text string, allowHTTP bool) error {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || strings.ContainsAny(text, " \t") {
		return errors.New(
			"the value is not a URL such as https://id.example.com/jwks.json; for keys in a file use `public_key`",
		)
	}
	text = withoutSecrets(text)
	host := u.Hostname()
	ip := net.ParseIP(host)
	switch {
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && (allowHTTP || strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()):
		return nil
	case u.Scheme == "http":
		return fmt.Errorf("%q: keys over plain http are only accepted from this machine; "+
			"use https, or `allow_http` if you trust the network in between", text)
	}
	return fmt.Errorf("%q: the scheme must be https", text)
}
