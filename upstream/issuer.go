package upstream

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/metadata"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// Lead is how long a new key is published before it signs: services cache a key set for ten
// minutes or less, and nodes and clocks take another minute.
const Lead = 15 * time.Minute

// Algorithms are the algorithms of the keys that Caddy creates.
var Algorithms = []string{"RS256", "ES256", "EdDSA"}

// Path returns the storage path of an issuer's keys.
func Path(issuer, algorithm string) string {
	return signing.Path("upstream\n" + issuer + "\n" + algorithm)
}

// Issuer has the keys of an issuer of tokens for services. All handlers of the process with
// the same issuer share it.
type Issuer struct {
	name    string
	stop    context.CancelFunc
	running sync.WaitGroup

	mu   sync.Mutex
	keys map[string]*signing.Keys // by algorithm
}

var issuers = caddy.NewUsagePool()

// Open returns the issuer with a name, and its keys for an algorithm, which are created when
// the config starts. The caller must call Close.
func Open(ctx caddy.Context, name, algorithm string) (*Issuer, *signing.Keys, error) {
	shared, _, err := issuers.LoadOrNew(name, func() (caddy.Destructor, error) {
		i := &Issuer{name: name, keys: make(map[string]*signing.Keys)}
		background, stop := context.WithCancel(context.Background())
		i.stop = stop
		i.running.Go(func() { i.reload(background) })
		return i, nil
	})
	if err != nil {
		return nil, nil, err
	}
	i := shared.(*Issuer)
	keys := i.with(ctx, algorithm)
	config.AtStart(ctx, func() error { return keys.Ensure(ctx) })
	return i, keys, nil
}

// with returns the keys for an algorithm.
func (i *Issuer) with(ctx caddy.Context, algorithm string) *signing.Keys {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.keys[algorithm] == nil {
		i.keys[algorithm] = signing.New(signing.Options{
			Algorithm: algorithm, Issuer: i.name, Storage: ctx.Storage(), Path: Path(i.name, algorithm),
			TokenLifetime: MaxLifetime + jwt.MaxLeeway, Now: clock.Now,
			Log: func() *zap.Logger { return caddy.Log().Named("http.handlers.jwt") },
		})
	}
	return i.keys[algorithm]
}

// all returns the keys of all algorithms.
func (i *Issuer) all() (all []*signing.Keys) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, algorithm := range Algorithms {
		if keys := i.keys[algorithm]; keys != nil {
			all = append(all, keys)
		}
	}
	return all
}

// reloadPoll is how often keys that a command or another node has changed are looked for; a
// look goes to the storage at most every [signing.ReloadInterval].
const reloadPoll = 400 * time.Millisecond

func (i *Issuer) reload(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(reloadPoll):
		}
		for _, keys := range i.all() {
			_ = keys.Reload(ctx, signing.ReloadInterval) // it logs its errors
		}
	}
}

// JWKS returns the JWK set of the issuer (RFC 7517 §5).
func (i *Issuer) JWKS() []byte {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	for _, keys := range i.all() {
		more := set
		more.Keys = nil
		if json.Unmarshal(keys.JWKS(), &more) == nil {
			set.Keys = append(set.Keys, more.Keys...)
		}
	}
	text, _ := json.Marshal(set) // of raw JSON
	return text
}

// Algorithms returns the algorithms of the issuer's keys.
func (i *Issuer) Algorithms() (all []string) {
	for _, keys := range i.all() {
		all = append(all, keys.SigningAlgorithms()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Name returns the `iss` of the tokens.
func (i *Issuer) Name() string { return i.name }

// JWKSURI returns the URL of the JWK set.
func (i *Issuer) JWKSURI() string { return strings.TrimSuffix(i.name, "/") + metadata.JWKSPath }

// Close releases the issuer.
func (i *Issuer) Close() error {
	_, err := issuers.Delete(i.name)
	return err
}

// Destruct implements caddy.Destructor.
func (i *Issuer) Destruct() error {
	i.stop()
	i.running.Wait()
	return nil
}

// Interface guards
var _ caddy.Destructor = (*Issuer)(nil)
