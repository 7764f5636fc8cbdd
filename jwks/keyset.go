// Package jwks loads a key set (RFC 7517 §5) from a URL, or from the URL in the discovery
// document of an OpenID issuer. It fetches the set ahead of need, keeps it while the URL is
// unavailable, and fetches it again for tokens that no key verifies. It is a key source for package jwt.
package jwks

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/discovery"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/internal/outgoing"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"go.uber.org/zap"
)

const (
	maxRedirects = 3
	firstRetry   = time.Second
)

// Settings configures a key set behind a URL, or behind the discovery document of an OpenID
// issuer. Settings are also the key for sharing: two handlers with the same settings share
// one set and its fetches.
type Settings struct {
	// URL of the key set: https, or http on this machine.
	URL string
	// Issuer is used if URL is empty: its discovery document contains the URL (OpenID
	// Connect Discovery 1.0 §4 or, if there is no such document, RFC 8414 §3).
	Issuer string
	// Refresh is how long a set is used before it is fetched again. Default: 10 minutes.
	Refresh time.Duration
	// MaxStale is how long the last valid set is used while no new one can be fetched.
	// Default: 24 hours, or Refresh if that is longer.
	MaxStale time.Duration
	// Cooldown is the minimum time between two fetches that tokens cause, and the maximum pause
	// between attempts after a failure. Default: 30 seconds.
	Cooldown time.Duration
	// Timeout is the maximum duration of a fetch, and of the time that a request waits for
	// one. Default: 5 seconds.
	Timeout time.Duration
	// AllowHTTP accepts keys over plain http. Anybody who can change them in transit can
	// sign tokens.
	AllowHTTP bool
	// Headers are sent with each request, but only to the origin (scheme, host and port) of URL,
	// or else of Issuer. Default: none.
	Headers Headers
	// TrustedCAs are PEM certificates of the CAs that are trusted for the server. Default:
	// the CAs of the system.
	TrustedCAs string
}

// Defaults of [Settings].
const (
	DefaultRefresh  = 10 * time.Minute
	DefaultMaxStale = 24 * time.Hour
	DefaultCooldown = 30 * time.Second
	DefaultTimeout  = 5 * time.Second
)

// withDefaults returns the settings with defaults for values that are not set.
func (c Settings) withDefaults() Settings {
	c.Refresh = cmp.Or(c.Refresh, DefaultRefresh)
	c.MaxStale = cmp.Or(c.MaxStale, max(DefaultMaxStale, c.Refresh))
	c.Cooldown = cmp.Or(c.Cooldown, DefaultCooldown)
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	return c
}

// Name returns the name of the set in logs and metrics.
func (c Settings) Name() string { return withoutSecrets(c.source()) }

// source returns the URL that is fetched first.
func (c Settings) source() string {
	if c.URL != "" {
		return c.URL
	}
	return discovery.URL(c.Issuer)
}

// KeySet holds the key set of a URL. It fetches the set ahead of need, keeps the last valid
// set while the URL is unavailable, and fetches the set again for a token that no key of it verifies.
//
// Every returned key belongs to the current set. A key that leaves the set is marked as
// withdrawn, so that remembered tokens of the key are rejected.
type KeySet struct {
	Settings
	client  *http.Client
	expand  func(value string) (string, error)
	log     func() *zap.Logger
	storage atomic.Pointer[storageRef] // of the newest config that uses the set
	ctx     context.Context            // ends with Destruct
	stop    context.CancelFunc
	running sync.WaitGroup

	starting sync.Once
	ahead    atomic.Int64 // nanoseconds by which the clock of the last server was ahead

	current atomic.Pointer[jwt.KeySet] // nil before the first set and after max_stale

	mu         sync.Mutex
	ongoing    *fetch    // the fetch in progress, which all who need one wait for
	nextExtra  time.Time // no request may cause a fetch before this time
	nextRetry  time.Time // of the background, while fetches fail
	fetchedAt  time.Time // of the last valid set; zero if there was none
	complaints string    // of the last fetch
	failure    error     // of the last fetch; nil if it did not fail
	complained string    // of the last fetch that did not fail; messages are not repeated
	outage     outage.Outage
	good, bad  uint64 // fetches, for the metrics
}

// Options are what a key set uses in addition to its settings.
type Options struct {
	// Storage keeps the last valid set. Optional.
	Storage Storage
	// Log returns the logger, which may change at a config reload. Optional.
	Log func() *zap.Logger
	// Expand returns the text of a header's value before each request, so that it can change,
	// such as that of a token in a file. Errors are logged. Optional.
	Expand func(value string) (string, error)
}

type fetch struct {
	done chan struct{}
	err  error
}

// Open returns the key set. It does not fetch anything before Start or the first Find. It
// returns an error if the settings are not valid.
func Open(config Settings, options Options) (*KeySet, error) {
	config = config.withDefaults()
	if options.Storage == nil {
		options.Storage = noStorage{}
	}
	if options.Log == nil {
		options.Log = zap.NewNop
	}
	if options.Expand == nil {
		options.Expand = func(value string) (string, error) { return value, nil }
	}
	for _, u := range []string{config.URL, config.Issuer} {
		if err := checkKeyURL(u, config.AllowHTTP); u != "" && err != nil {
			return nil, err
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // uses the proxy settings of the environment
	if config.TrustedCAs != "" {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(config.TrustedCAs)) {
			return nil, errors.New("trusted_ca_certs: the file contains no PEM certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c := &KeySet{
		Settings: config,
		log:      func() *zap.Logger { return options.Log().With(zap.String("key_set", config.Name())) },
		expand:   options.Expand,
		client: &http.Client{
			Transport: outgoing.Wrap(thismachine.NewTransport(transport)), CheckRedirect: sameHost,
		},
		ongoing: &fetch{done: make(chan struct{})}, // the first, which run finishes
	}
	c.SetStorage(options.Storage)
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// SetStorage replaces the storage of the set.
func (c *KeySet) SetStorage(storage Storage) { c.storage.Store(&storageRef{storage}) }

// Stats are the statistics of a key set.
type Stats struct {
	Good, Bad uint64    // fetches
	FetchedAt time.Time // of the set that is used; zero if there was none
	Keys      int       // in it
}

// Stats returns the statistics of the set.
func (c *KeySet) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := Stats{Good: c.good, Bad: c.bad, FetchedAt: c.fetchedAt}
	if current := c.current.Load(); current != nil {
		stats.Keys = len(current.Keys)
	}
	return stats
}

// Failure returns why the last fetch failed, for [IsOutage]; nil if it did not fail.
func (c *KeySet) Failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// Start starts fetching in the background. It does not wait, so Caddy also starts if the
// identity provider is down or is served by this Caddy.
func (c *KeySet) Start() {
	c.starting.Do(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.ctx.Err() == nil {
			c.running.Go(c.run)
		}
	})
}

// Close stops fetching, and returns when nothing is running any more.
func (c *KeySet) Close() error {
	c.mu.Lock() // from now on, join starts no fetch
	c.stop()
	c.mu.Unlock()
	c.running.Wait()
	c.client.CloseIdleConnections()
	return nil
}

// Find implements KeySource. It neither takes a lock nor waits.
func (c *KeySet) Find(_ context.Context, hint jwt.KeyHint) ([]*jwt.Key, error) {
	if set := c.current.Load(); set != nil {
		return set.Match(hint), nil
	}
	return nil, nil
}

// FindAgain implements jwt.Refetcher. It waits for the fetch in progress, or starts a fetch if
// the cooldown allows. It waits at most for Timeout. It does not ask the URL for an algorithm
// that no key there can have.
func (c *KeySet) FindAgain(ctx context.Context, hint jwt.KeyHint, tried []*jwt.Key) ([]*jwt.Key, error) {
	if !slices.Contains(Algorithms, hint.Algorithm) {
		return nil, nil
	}
	c.Start() // a request may arrive before the config has started
	limit := time.NewTimer(c.Timeout)
	defer limit.Stop()
	// The fetch in progress may have begun before the issuer published the key.
	for range 2 {
		if keys := c.others(hint, tried); len(keys) > 0 {
			return keys, nil
		}
		ongoing, own := c.join()
		if ongoing == nil {
			break
		}
		select {
		case <-ongoing.done:
		case <-ctx.Done():
			own = true
		case <-limit.C:
			own = true
		}
		if own {
			break
		}
	}
	if c.current.Load() == nil {
		return nil, c.noKeys()
	}
	return c.others(hint, tried), nil
}

// others returns the keys of the current set that were not tried.
func (c *KeySet) others(hint jwt.KeyHint, tried []*jwt.Key) []*jwt.Key {
	set := c.current.Load()
	if set == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(set.Match(hint)), func(key *jwt.Key) bool {
		return slices.Contains(tried, key)
	})
}

// join returns the fetch in progress, or starts one if the cooldown allows.
func (c *KeySet) join() (ongoing *fetch, own bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ongoing != nil {
		return c.ongoing, false
	}
	if clock.Now().Before(c.nextExtra) || c.ctx.Err() != nil {
		return nil, false
	}
	c.nextExtra = clock.Now().Add(c.Cooldown)
	f := &fetch{done: make(chan struct{})}
	c.ongoing = f
	c.running.Go(func() { c.fetch(f) })
	return f, true
}

func (c *KeySet) noKeys() *refusal.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.fetchedAt.IsZero() {
		return refusal.New(
			refusal.KeysStale, "%s was last loaded at %s, which is longer ago than max_stale",
			c.Name(), c.fetchedAt.Format(time.RFC3339),
		)
	}
	why := cmp.Or(c.complaints, "there is no answer yet")
	return &refusal.Error{Reason: refusal.KeysUnavailable, Detail: c.Name() + " was never loaded: " + why,
		RetryAfter: max(time.Second, c.nextRetry.Sub(clock.Now()))}
}

// run loads the stored set and then fetches until the set is closed: shortly before the
// refresh interval ends while fetches succeed, and with pauses that grow up to the cooldown
// while they fail.
func (c *KeySet) run() {
	pause := c.load()
	first := c.ongoing
	if pause > 0 { // the stored set is recent enough
		c.finish(first, nil)
		first = nil
	}
	for retry := firstRetry; ; {
		if first == nil && !c.wait(pause) {
			return
		}
		ongoing := first
		first = nil
		if ongoing == nil {
			ongoing = c.begin()
		}
		if ongoing == nil { // a request has started a fetch; wait for its result
			pause = firstRetry
			continue
		}
		c.fetch(ongoing)
		if ongoing.err == nil {
			pause, retry = c.beforeRefresh(), firstRetry
			continue
		}
		pause = min(retry, c.Cooldown)
		retry *= 2
		c.mu.Lock()
		c.nextRetry = clock.Now().Add(pause)
		c.mu.Unlock()
	}
}

// beforeRefresh returns a little less than the refresh interval, with jitter, so that the
// nodes of a cluster do not fetch at the same time.
func (c *KeySet) beforeRefresh() time.Duration {
	return c.Refresh - time.Duration(rand.Float64()*0.1*float64(c.Refresh))
}

// wait pauses. If max_stale passes in the meantime, it drops the current set. It returns
// false when the set is closed.
func (c *KeySet) wait(pause time.Duration) bool {
	until := clock.Now().Add(pause)
	for {
		next := until
		if c.current.Load() != nil {
			if stale := c.staleAt(); stale.Before(next) {
				next = stale
			}
		}
		select {
		case <-c.ctx.Done():
			return false
		case <-time.After(next.Sub(clock.Now())):
		}
		if c.expire() {
			c.log().Error(
				"key set not refreshed for longer than max_stale; its tokens are refused from now on",
				help.See("key-set-stale"),
				zap.Duration("max_stale", c.MaxStale),
			)
		}
		if !clock.Now().Before(until) {
			return true
		}
	}
}

// expire drops the set if it was loaded longer than max_stale ago.
func (c *KeySet) expire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.Load() == nil || clock.Now().Before(c.fetchedAt.Add(c.MaxStale)) {
		return false
	}
	c.install(nil)
	return true
}

func (c *KeySet) staleAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fetchedAt.Add(c.MaxStale)
}

func (c *KeySet) begin() *fetch {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ongoing != nil {
		return nil
	}
	c.ongoing = &fetch{done: make(chan struct{})}
	return c.ongoing
}

func (c *KeySet) finish(f *fetch, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.err = err
	c.ongoing = nil
	close(f.done)
}

// fetch downloads and installs the set. A failed fetch, or an unusable set, never replaces
// a valid one. Nothing waits for the storage.
func (c *KeySet) fetch(f *fetch) {
	ctx, cancel := context.WithTimeout(c.ctx, c.Timeout)
	defer cancel()
	document, from, err := c.download(ctx)
	var keys []*jwt.Key
	var unused []error
	if err == nil {
		keys, unused, err = c.parse(document, from)
	}
	if !errors.Is(err, context.Canceled) {
		c.report(err, unused)
	}
	fetchedAt := clock.Now()
	if err == nil {
		c.accept(keys, fetchedAt)
	}
	c.finish(f, err)
	if err == nil {
		c.save(document, fetchedAt)
	}
}

// accept makes the keys the current set. A key that was already in the set keeps its Key
// object, so that remembered tokens stay valid.
func (c *KeySet) accept(keys []*jwt.Key, fetchedAt time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.current.Load()
	if old == nil {
		old = new(jwt.KeySet)
	}
	c.fetchedAt = fetchedAt
	c.install(old.Replace(keys...))
}

func (c *KeySet) install(set *jwt.KeySet) {
	old := c.current.Swap(set)
	if old == nil {
		return
	}
	kept := make(map[*jwt.Key]bool)
	if set != nil {
		for _, key := range set.Keys {
			kept[key] = true
		}
	}
	for _, key := range old.Keys {
		if !kept[key] {
			key.Withdrawn.Store(true)
		}
	}
}

// report logs changes: fetches fail or work again, keys of the set are unusable. It does
// not repeat a message at each refresh.
func (c *KeySet) report(err error, unused []error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.bad++
	} else {
		c.good++
	}
	complaints := errors.Join(append([]error{err}, unused...)...)
	text := ""
	if complaints != nil {
		text = complaints.Error()
	}
	now, level := clock.Now(), zap.DebugLevel
	var lasts time.Duration
	if err != nil {
		var say bool
		if say, lasts = c.outage.Fails(now); say {
			level = zap.WarnLevel
		}
	} else if text != c.complained {
		level = zap.WarnLevel
	}
	if err == nil {
		c.complained = text
	}
	c.complaints, c.failure = text, err
	state, see := "usable", help.See("key-set-not-usable")
	if _, failed := errors.AsType[*unreachable](err); failed {
		state, see = "reachable", help.See("key-set-not-reachable")
	}
	switch {
	case err != nil && !c.fetchedAt.IsZero():
		c.log().Log(level, "key set not "+state+"; the last valid one is used until max_stale",
			see, zap.Error(err), zap.Duration("for", lasts),
			zap.Time("until", c.fetchedAt.Add(c.MaxStale)))
	case err != nil:
		c.log().Log(
			level, "key set not "+state+" and none is stored; requests with its tokens get 503 until it is "+state,
			see, zap.Error(err), zap.Duration("for", lasts),
		)
	case len(unused) > 0:
		c.log().Log(
			level, "some keys of the key set are not usable", help.See("keys-not-usable"), zap.Errors("keys", unused),
		)
	}
	if err == nil {
		if ends, lasted := c.outage.Works(now); ends {
			c.log().Info("key set loaded again", zap.Duration("after", lasted))
		}
	}
}

// Interface guards
var (
	_ jwt.KeySource = (*KeySet)(nil)
	_ jwt.Refetcher = (*KeySet)(nil)
)
