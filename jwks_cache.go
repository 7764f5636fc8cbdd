package caddyjwt

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// keySets are the sets in use. They outlive config reloads, so a reload neither fetches a
// set again nor loses it.
var keySets = caddy.NewUsagePool()

type sharedKeySet struct{ *jwks.KeySet }

// Destruct implements caddy.Destructor.
func (s sharedKeySet) Destruct() error { return s.Close() }

// remoteKeys returns the shared key set of the issuer. It starts when the config starts.
func (c *IssuerConfig) remoteKeys(ctx caddy.Context, h *Handler) (*jwks.KeySet, error) {
	settings, err := c.remoteSettings()
	if err != nil {
		return nil, err
	}
	shared, _, err := keySets.LoadOrNew(settings, func() (caddy.Destructor, error) {
		set, err := jwks.Open(settings, jwks.Options{
			Storage: ctx.Storage(), Log: func() *zap.Logger { return caddy.Log().Named("http.handlers.jwt") },
			Expand: expandHeader,
		})
		if err != nil {
			return nil, err
		}
		return sharedKeySet{set}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	h.keySets = append(h.keySets, settings)
	set := shared.(sharedKeySet).KeySet
	set.SetStorage(ctx.Storage()) // the storage of the newest config
	if h.Leeway != nil {          // nil for backchannel_logout, whose issuer a handler has too
		checkKeys(ctx, set, settings.Name(), time.Duration(*h.Leeway))
	}
	config.AtStart(ctx, func() error {
		set.Start()
		return nil
	})
	return set, nil
}

func (c *IssuerConfig) remoteSettings() (settings jwks.Settings, err error) {
	given := JWKSConfig{}
	if c.JWKS != nil {
		given = *c.JWKS
	}
	if err := config.Resolve("jwks", &given.URL); err != nil {
		return settings, err
	}
	if c.JWKS == nil && c.Issuer == "" {
		return settings, errors.New("it has options for an issuer, but neither a key nor an issuer; " +
			"set `issuer <url>` to find the keys by discovery, or `secret`, `public_key` or `jwks`")
	}
	if given.URL == "" && c.Issuer == "" {
		return settings, errors.New("jwks: without a URL it requires an `issuer` for discovery; set jwks <url>")
	}
	if given.URL == "" && c.multiTenant() {
		return settings, errors.New("it is many issuers, so there is no single document with their keys; " +
			"set the key set that they share: jwks <url>, or `public_key` or `secret`")
	}
	if given.URL == "" && !strings.Contains(c.Issuer, "://") {
		return settings, errors.New(
			"it is not a URL, so its keys cannot be discovered; set also `jwks <url>`, `public_key` or `secret`",
		)
	}
	if given.URL == "" && strings.ContainsAny(c.Issuer, "?#") {
		return settings, errors.New("it has a query or a fragment, so its keys cannot be discovered (OpenID Connect " +
			"Discovery 1.0 §2); set also `jwks <url>`, `public_key` or `secret`")
	}
	settings = jwks.Settings{URL: given.URL, AllowHTTP: given.AllowHTTP}
	if given.URL == "" {
		settings.Issuer = c.Issuer
	}
	for _, option := range []struct {
		name     string
		given    caddy.Duration
		fallback time.Duration
		into     *time.Duration
	}{
		{"refresh", given.Refresh, jwks.DefaultRefresh, &settings.Refresh},
		{"max_stale", given.MaxStale, max(jwks.DefaultMaxStale, time.Duration(given.Refresh)), &settings.MaxStale},
		{"cooldown", given.Cooldown, jwks.DefaultCooldown, &settings.Cooldown},
		{"timeout", given.Timeout, jwks.DefaultTimeout, &settings.Timeout},
	} {
		*option.into = time.Duration(option.given)
		if option.given == 0 {
			*option.into = option.fallback
		}
		if *option.into < shortestPause {
			return settings, fmt.Errorf(
				"jwks: %s is %s; it must be at least %s", option.name, *option.into, shortestPause,
			)
		}
	}
	if settings.MaxStale < settings.Refresh {
		return settings, fmt.Errorf(
			"jwks: max_stale is %s, which is shorter than refresh, %s; "+
				"it must be longer, otherwise each key set becomes stale before it is refreshed",
			settings.MaxStale, settings.Refresh,
		)
	}
	if settings.Headers, err = given.headers(); err != nil {
		return settings, fmt.Errorf("jwks: %w", err)
	}
	for _, path := range given.TrustedCACerts {
		if err := config.Resolve("trusted_ca_certs", &path); err != nil {
			return settings, err
		}
		pem, err := os.ReadFile(path)
		if err != nil {
			return settings, fmt.Errorf("jwks: trusted_ca_certs: %w", err)
		}
		settings.TrustedCAs += string(pem) + "\n"
	}
	return settings, nil
}

// headers returns the headers of the requests, whose values must be known now.
func (c *JWKSConfig) headers() (jwks.Headers, error) {
	headers, err := jwks.NewHeaders(c.Headers)
	if err == nil {
		err = headers.Set(make(http.Header), expandHeader)
	}
	return headers, err
}

// expandHeader replaces the placeholders in the value of a header. Errors contain only their
// names.
func expandHeader(value string) (string, error) {
	replacer, all := caddy.NewEmptyReplacer(), caddy.NewReplacer()
	replacer.Map(func(key string) (any, bool) {
		if !strings.HasPrefix(key, "env.") && !strings.HasPrefix(key, "file.") {
			return nil, false
		}
		value, known := all.Get(key)
		if text, ok := value.(string); ok { // files often end in a line break, or begin with a byte order mark
			value = strings.TrimSpace(strings.TrimPrefix(text, "\ufeff"))
		}
		return value, known
	})
	expanded, err := replacer.ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf("%w; use {env.NAME} of a variable that is set, or {file./path} of a file that is not "+
			"empty", err)
	}
	return strings.TrimRight(expanded, "\r\n"), nil
}

var (
	keySetLabels = []string{"key_set"}

	fetchesDesc = prometheus.NewDesc("caddy_jwt_key_set_fetches_total",
		"Fetches of a key set by result, ok or error.", append(keySetLabels, "result"), nil)
	ageDesc = prometheus.NewDesc("caddy_jwt_key_set_age_seconds",
		"Seconds since a key set was last loaded from its URL. Absent until it is loaded once.", keySetLabels, nil)
	keysDesc = prometheus.NewDesc("caddy_jwt_key_set_keys",
		"Keys of a key set that are in use.", keySetLabels, nil)
)

func init() { answer.AddMetrics(keySetCollector{}) }

// keySetCollector reports the sets that are in use at the time of a scrape.
type keySetCollector struct{}

// Describe implements prometheus.Collector.
func (keySetCollector) Describe(out chan<- *prometheus.Desc) {
	out <- fetchesDesc
	out <- ageDesc
	out <- keysDesc
}

// Collect implements prometheus.Collector. Sets with the same URL but different settings
// are one series: their fetches are added, and the most recent one determines the age.
func (keySetCollector) Collect(out chan<- prometheus.Metric) {
	type sum struct {
		good, bad uint64
		fetchedAt time.Time
		keys      int
	}
	sums := make(map[string]*sum)
	keySets.Range(func(_, value any) bool {
		set := value.(sharedKeySet)
		stats := set.Stats()
		total := sums[set.Name()]
		if total == nil {
			total = new(sum)
			sums[set.Name()] = total
		}
		total.good, total.bad = total.good+stats.Good, total.bad+stats.Bad
		if !stats.FetchedAt.Before(total.fetchedAt) {
			total.fetchedAt, total.keys = stats.FetchedAt, stats.Keys
		}
		return true
	})
	for name, total := range sums {
		out <- prometheus.MustNewConstMetric(fetchesDesc, prometheus.CounterValue, float64(total.good), name, "ok")
		out <- prometheus.MustNewConstMetric(fetchesDesc, prometheus.CounterValue, float64(total.bad), name, "error")
		out <- prometheus.MustNewConstMetric(keysDesc, prometheus.GaugeValue, float64(total.keys), name)
		if !total.fetchedAt.IsZero() {
			out <- prometheus.MustNewConstMetric(
				ageDesc, prometheus.GaugeValue, time.Since(total.fetchedAt).Seconds(), name,
			)
		}
	}
}

// Interface guards
var (
	_ caddy.Destructor     = sharedKeySet{}
	_ prometheus.Collector = keySetCollector{}
)
