package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/maypok86/otter/v2"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

const (
	maxDocuments    = 256 // in memory
	documentTries   = 30  // loaded for one client address per minute
	documentsAtOnce = 16  // being loaded

	// How long a document is remembered: without a Cache-Control, at least, at most, after an
	// error, and beyond that while its server fails.
	usualDocumentAge    = 10 * time.Minute
	shortestDocumentAge = time.Minute
	longestDocumentAge  = time.Hour
	wrongDocumentAge    = 15 * time.Second
	staleDocumentAge    = 24 * time.Hour
)

// clientDocuments are clients whose ID is the URL of a document about them
// (draft-ietf-oauth-client-id-metadata-document). Anybody can make the provider load such a
// document, so it loads only those of the hosts in the config, and from public addresses.
type clientDocuments struct {
	provider *Provider
	any      bool            // public host
	hosts    map[string]bool // each with its port, if it is a trusted one
	fetcher  *documentFetcher
	tries    *web.Throttle
	known    *otter.Cache[string, knownDocument]
	loading  singleflight.Group
	turns    chan struct{}
}

// knownDocument is the outcome of loading a document.
type knownDocument struct {
	client    *Client
	err       error
	at, until time.Time
	stale     time.Time // until when the client is used if its document cannot be loaded
}

// newClientDocuments returns nil if the config has no hosts.
func newClientDocuments(p *Provider) (*clientDocuments, error) {
	if len(p.ClientDocuments) == 0 {
		return nil, nil
	}
	d := &clientDocuments{
		provider: p, hosts: make(map[string]bool), fetcher: newDocumentFetcher(),
		tries: p.accounts.NewThrottle("client documents", documentTries, time.Minute),
		known: otter.Must(&otter.Options[string, knownDocument]{MaximumSize: maxDocuments}),
		turns: make(chan struct{}, documentsAtOnce),
	}
	for _, host := range p.ClientDocuments {
		u, err := url.Parse("https://" + host)
		switch {
		case host == "*":
			d.any = true
		case err != nil || u.Host != host || u.Hostname() == "" || strings.ContainsAny(host, "*@") ||
			strings.ToLower(host) != host || strings.HasSuffix(host, ":"):
			return nil, fmt.Errorf("client_documents %s: it must be a host in lower case, as in: client_documents "+
				"claude.ai vscode.dev; a host with a port, which may be on this machine or in its network; or *", host)
		case u.Port() == "" && thismachine.Is(u.Hostname()):
			return nil, fmt.Errorf("client_documents %s: a host on this machine must have a port, as in: "+
				"client_documents %s:8443", host, host)
		default:
			d.hosts[host] = true
		}
	}
	return d, nil
}

// find returns the client with a URL as its ID, or errNotFound if it is no URL. Other errors are
// for the client.
func (d *clientDocuments) find(ctx context.Context, id string) (*Client, error) {
	if d == nil || !strings.HasPrefix(id, "https://") && !strings.HasPrefix(id, "http://") {
		return nil, errNotFound
	}
	at, err := parseClientURL(id)
	if err != nil {
		return nil, refuse("invalid_client", "client_id is not the URL of a client document: "+err.Error())
	}
	reach, ok := d.reaches(at)
	if !ok {
		return nil, refuse("invalid_client", "this provider does not load client documents from "+at.Host)
	}
	now := d.now()
	before, _ := d.known.GetIfPresent(id)
	if now.Before(before.until) && !now.Before(before.at) {
		return before.client, before.err
	}
	if _, allowed := d.tries.Try(ctx, senderOf(ctx), now); !allowed && before.client == nil {
		return nil, errDocumentsBusy
	}
	loaded, _, _ := d.loading.Do(id, func() (any, error) {
		select {
		case d.turns <- struct{}{}:
			defer func() { <-d.turns }()
		default:
			return knownDocument{err: errDocumentsBusy}, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), documentTimeout) // for all who wait
		defer cancel()
		loaded := d.load(ctx, at, reach, before)
		d.known.Set(id, loaded)
		return loaded, nil
	})
	result := loaded.(knownDocument)
	return result.client, result.err
}

// now returns the time of day, because the clock of the process may stand still while the machine
// sleeps.
func (d *clientDocuments) now() time.Time { return d.provider.accounts.Now().Round(0) }

var errDocumentsBusy = &oauthError{
	status: http.StatusServiceUnavailable, code: "temporarily_unavailable",
	description: "too many client documents are being loaded", retryAfter: time.Minute,
}

// reach is where the server of a document may be.
type reach int

const (
	publicReach  reach = iota // on the Internet
	privateReach              // also in this network, because the config names host and port
	machineReach              // on this machine, because the config names host and port
)

// reaches reports whether the config allows the host of a document.
func (d *clientDocuments) reaches(at *url.URL) (reach, bool) {
	switch {
	case at.Port() != "" && d.hosts[at.Host] && thismachine.Is(at.Hostname()):
		return machineReach, true
	case at.Port() != "" && d.hosts[at.Host]:
		return privateReach, true
	}
	return publicReach, at.Scheme == "https" && at.Port() == "" && (d.any || d.hosts[at.Host])
}

// load loads a document. If that fails, the client as it was before stays known for a while, so
// that its users are not logged out by an outage of its site.
func (d *clientDocuments) load(ctx context.Context, at *url.URL, reach reach, before knownDocument) knownDocument {
	now := d.now()
	text, age, err := d.fetcher.fetch(ctx, at, reach)
	var client *Client
	if err == nil {
		var document *clientDocument
		if document, err = unmarshalDocument(text); err == nil {
			client, err = document.client(d.provider, at)
		}
	}
	if err == nil {
		documentsLoaded.Inc()
		d.provider.log.Named("audit").Info("client document loaded", zap.String("client_id", at.String()))
		return knownDocument{client: client, at: now, until: now.Add(age), stale: now.Add(age + staleDocumentAge)}
	}
	d.provider.log.Info("client document was refused", zap.String("client_id", at.String()), zap.Error(err))
	if errors.Is(err, errUnreachable) {
		documentsUnreachable.Inc()
		if before.client != nil && now.Before(before.stale) {
			before.at, before.until = now, now.Add(wrongDocumentAge)
			return before
		}
		return knownDocument{at: now, until: now.Add(wrongDocumentAge), err: &oauthError{
			status: http.StatusServiceUnavailable, code: "temporarily_unavailable", retryAfter: wrongDocumentAge,
			// The reason would tell strangers about this network.
			description: "the client document at " + at.Host + " cannot be loaded",
		}}
	}
	documentsRefused.Inc()
	return knownDocument{
		at: now, until: now.Add(wrongDocumentAge),
		err: refuse("invalid_client", "the client document at "+at.Host+" is not usable: "+err.Error()),
	}
}

// allowsOrigin reports whether a page of this origin may use the endpoints for clients. It does not
// depend on the documents that were loaded, because a preflight does not name its client, and may
// reach another node: a redirect URI is of the document's origin or on the user's machine.
func (d *clientDocuments) allowsOrigin(origin string) bool {
	u, err := url.Parse(origin)
	if d == nil || err != nil || u.Scheme+"://"+u.Host != origin {
		return false
	}
	_, allowed := d.reaches(u)
	return allowed || isLoopbackURI(origin)
}

type senderKey struct{}

// withSender notes the address that a request came from.
func withSender(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, senderKey{}, key)
}

func senderOf(ctx context.Context) string {
	key, _ := ctx.Value(senderKey{}).(string)
	return key
}

// nameOf returns a client's name for users, or its ID if it is not known. It loads no documents.
func (c *clients) nameOf(ctx context.Context, id string) (string, error) {
	client, err := c.registered(ctx, id)
	if errors.Is(err, errNotFound) {
		client, err = c.documents.remembered(id), nil
	}
	if err != nil || client == nil {
		return id, err
	}
	return client.Name, nil
}

// remembered returns the client of a document that was loaded before, or nil.
func (d *clientDocuments) remembered(id string) *Client {
	if d == nil {
		return nil
	}
	known, _ := d.known.GetIfPresent(id)
	return known.client
}
