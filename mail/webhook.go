package mail

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/outgoing"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"golang.org/x/net/http/httpguts"
)

func init() {
	caddy.RegisterModule(new(Webhook))
}

// Webhook sends mails by an HTTP service, which gets each as JSON by POST: `id`, `kind`, `from`,
// `to`, `subject`, `text`, and where known `html`, `reply_to`, `language`, `user_id` and
// `expires_at`. It takes a mail by a status of 2xx, and refuses it by 400, 410, 413 or 422. Any
// other status means that it can send nothing now. The header `Idempotency-Key` is the `id`, by
// which the service recognizes a mail that it gets twice. Redirects are not followed.
type Webhook struct {
	Settings

	// URL of the service: https, http to this machine or, with `allow_http`, any http.
	// Required.
	URL string `json:"url,omitempty"`

	// Headers are sent with each request, such as `Authorization: Bearer {env.MAIL_TOKEN}`.
	Headers map[string]string `json:"headers,omitempty"`

	// Timeout is how long to wait for the answer, from 100ms to 1m. Default: `15s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// AllowHTTP accepts plain http to other machines. Anybody who can read the traffic then
	// reads the mails, with codes that let them in. Default: false.
	AllowHTTP bool `json:"allow_http,omitempty"`

	client *http.Client
	header http.Header
}

// CaddyModule returns the Caddy module information.
func (*Webhook) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "jwt.mailers.webhook", New: func() caddy.Module { return new(Webhook) }}
}

// Provision resolves placeholders, and checks the config.
func (w *Webhook) Provision(caddy.Context) error {
	if err := errors.Join(w.Resolve(), config.Resolve("webhook", &w.URL)); err != nil {
		return err
	}
	u, err := url.Parse(w.URL)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" &&
		(u.Scheme != "http" || !w.AllowHTTP && !thismachine.Is(u.Hostname())) {
		return errors.New("webhook: it must be the https URL of the service, or http to this machine; " +
			"use `allow_http` if you trust the network in between; a password belongs into a `header`")
	}
	w.header = make(http.Header)
	for name, text := range w.Headers {
		resolved, err := value("header "+name, text)
		if err != nil {
			return err
		}
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(resolved) {
			return fmt.Errorf("header %q: its name or value is not valid in HTTP", name)
		}
		w.header.Set(name, resolved)
	}
	config.SetDefault(&w.Timeout, caddy.Duration(defaultTimeout))
	if timeout := time.Duration(w.Timeout); timeout < 100*time.Millisecond || timeout > time.Minute {
		return fmt.Errorf("timeout is %s; it must be from 100ms to 1m", timeout)
	}
	w.client = &http.Client{
		Timeout: time.Duration(w.Timeout), Transport: outgoing.Wrap(http.DefaultTransport.(*http.Transport).Clone()),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// Cleanup closes the connections.
func (w *Webhook) Cleanup() error {
	if w.client != nil {
		w.client.CloseIdleConnections()
	}
	return nil
}

// Where implements [Mailer].
func (w *Webhook) Where() string {
	u, err := url.Parse(w.URL)
	if err != nil {
		return "webhook"
	}
	return u.Scheme + "://" + u.Host // the rest may be secret
}

// posted is the body of a request.
type posted struct {
	ID        string `json:"id"`
	Kind      string `json:"kind"`
	From      string `json:"from"`
	ReplyTo   string `json:"reply_to,omitempty"`
	To        string `json:"to"`
	Subject   string `json:"subject"`
	Text      string `json:"text"`
	HTML      string `json:"html,omitempty"`
	Language  string `json:"language,omitempty"`
	UserID    string `json:"user_id,omitempty"`
	ExpiresAt string `json:"expires_at,omitempty"`
}

// Send implements [Mailer].
func (w *Webhook) Send(ctx context.Context, m *Message) (string, error) {
	if _, err := w.compose(m); err != nil { // the same mails as by SMTP
		return "", err
	}
	to, err := Address(m.To)
	if err != nil {
		return "", &Error{Class: Refused, Err: err}
	}
	body := posted{
		ID: m.ID, Kind: m.Kind, From: w.from.String(), To: to, Subject: oneLine(m.Subject), Text: m.Text, HTML: m.HTML,
		Language: m.Language, UserID: m.UserID,
	}
	if w.replyTo != nil {
		body.ReplyTo = w.replyTo.String()
	}
	if !m.ExpiresAt.IsZero() {
		body.ExpiresAt = m.ExpiresAt.UTC().Format(time.RFC3339)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", m.ID)
	for name, values := range w.header {
		request.Header[name] = values
	}
	response, err := w.client.Do(request)
	if failure, ok := errors.AsType[*url.Error](err); ok { // its URL may contain a key
		err = failure.Err
	}
	if err != nil {
		return "", &Error{Err: fmt.Errorf("%s: %w", w.Where(), err), Advice: "is the URL right, and the service up?"}
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection is used again
	if response.StatusCode/100 == 2 {
		return w.Where() + " answered " + response.Status, nil
	}
	failure := &Error{Err: fmt.Errorf("%s answered %s; expected 2xx", w.Where(), response.Status)}
	switch response.StatusCode {
	case http.StatusBadRequest, http.StatusGone, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		failure.Class = Refused
	case http.StatusUnauthorized, http.StatusForbidden:
		failure.Advice = "does it want a token? Set it with: header Authorization \"Bearer {env.MAIL_TOKEN}\""
	}
	return "", failure
}

// UnmarshalCaddyfile sets the module up from Caddyfile tokens. Syntax:
//
//	mail webhook <url> {
//	    header  <name> <value>
//	    timeout <duration>
//	    allow_http
//	}
//
// In the block it also has `from`, `reply_to`, `retry_for`, `per_address` and `per_client`. `header`
// may be repeated.
func (w *Webhook) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	args := d.RemainingArgs()
	if len(args) != 1 {
		return d.Errf("mail webhook takes the URL of a service, as in: mail webhook https://mailer.example.com/send")
	}
	w.URL = args[0]
	return config.ReadBlock(d, "mail webhook", append(w.Options(), []config.Option{
		{Name: "header", Read: w.readHeader, Repeatable: true},
		{Name: "timeout", Read: config.Duration(&w.Timeout)},
		{Name: "allow_http", Read: config.Flag(&w.AllowHTTP)},
	}...))
}

func (w *Webhook) readHeader(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) != 2 {
		return b.Errf(`header takes a name and a value, as in: header Authorization "Bearer {env.MAIL_TOKEN}"`)
	}
	name := http.CanonicalHeaderKey(args[0])
	if w.Headers == nil {
		w.Headers = make(map[string]string)
	}
	if _, twice := w.Headers[name]; twice {
		return b.Errf("header %s is specified twice", name)
	}
	w.Headers[name] = args[1]
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Webhook)(nil)
	_ caddy.CleanerUpper    = (*Webhook)(nil)
	_ caddyfile.Unmarshaler = (*Webhook)(nil)
	_ Mailer                = (*Webhook)(nil)
)
