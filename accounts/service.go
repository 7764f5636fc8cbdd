// Package accounts manages the users of a site: sign-up, log-in, sessions and revocations.
// It is independent of HTTP; package accounts/web serves it.
package accounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/owner"
	"github.com/caddy-jwt/caddy-jwt/internal/sealing"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/mail"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddy-jwt/caddy-jwt/store/sqlstore"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

const (
	RefreshBytes = 32 // random bytes of each refresh token beside them
)

// Service is shared by the handlers of a site's accounts. It outlives config reloads and is
// independent of HTTP. Its parts have their own state and locks.
type Service struct {
	*site
	// Sessions, LogIns, Identities and Factors are what the accounts do.
	Sessions   *Sessions
	LogIns     *LogIns
	Identities *Identities
	Factors    *Factors
	// Keyring is for passkeys; only with the option `passkeys`.
	Keyring *Keyring

	// Keys sign the tokens, and Verifier verifies them.
	Keys     *signing.Keys
	Verifier *jwt.Verifier
	// Route returns the route of a path, and the ID or name in the path.
	Route func(path string) (name, id string)
	// Mails are sent to users; nil without `mail`.
	Mails *Mails
	// Attempts are counted, to limit guessing.
	Attempts *Attempts
	// Links are registered by other modules.
	Links links

	background  *background
	fingerprint string // the key under which it is shared

	starting sync.Mutex
	started  atomic.Bool
}

// revocationSets are the sets in use, by issuer and store: sites with the same issuer and
// store share their sessions.
var revocationSets = caddy.NewUsagePool()

type sharedRevocations struct{ *jwt.Revocations }

// Destruct implements caddy.Destructor.
func (sharedRevocations) Destruct() error { return nil }

// services are the services in use, by fingerprint.
var services = caddy.NewUsagePool()

// Running returns the services in use.
func Running() (all []*Service) {
	services.Range(func(_, service any) bool {
		all = append(all, service.(*Service))
		return true
	})
	return all
}

// Open resolves the config and returns its service, which is shared by all callers with the
// same config. Each caller must release it.
func Open(ctx caddy.Context, settings *Config) (*Service, error) {
	if err := settings.Resolve(); err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	if err := claimAccounts(ctx, settings); err != nil {
		return nil, err
	}
	store, err := LoadStore(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("accounts: store: %w", err)
	}
	mailer, err := LoadMailer(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	if err := settings.checkLetters(mailer); err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	fixed, err := settings.fixedKey()
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	fingerprint, err := settings.fingerprint(fixed)
	if err != nil {
		return nil, err
	}
	shared, _, err := services.LoadOrNew(fingerprint, func() (caddy.Destructor, error) {
		return newService(ctx, *settings, fingerprint, fixed, &store, &mailer)
	})
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	service := shared.(*Service)
	service.AddStore(&store)
	service.texts.Store(settings.Texts()) // the files of `languages` may have changed
	context.AfterFunc(ctx, func() { service.DropStore(&store) })
	if mailer != nil { // its password may be another than in the last config, which had the same text
		service.Mails.mailers.Add(&mailer)
		context.AfterFunc(ctx, func() { service.Mails.mailers.Drop(&mailer) })
	}
	config.AtStart(ctx, func() error {
		if err := sqlstore.CheckWhole(ctx, store); err != nil {
			return fmt.Errorf("accounts: store: %w", err)
		}
		// a failing store is already logged
		if err := service.start(ctx); err != nil && !errors.Is(err, signing.ErrNoKeysYet) {
			return fmt.Errorf("accounts: %w", owner.OfStorage(ctx.Storage(), err))
		}
		return nil
	})
	return service, nil
}

// start creates the signing keys if there are none, loads revocations from before a
// restart, and starts the background tasks. It does so once.
func (s *Service) start(ctx context.Context) error {
	if s.started.Load() {
		return nil
	}
	s.starting.Lock()
	defer s.starting.Unlock()
	if s.started.Load() {
		return nil
	}
	if err := s.Keys.Ensure(ctx); err != nil {
		return err
	}
	asked := s.Now()
	s.background.learnRevocations()
	s.background.begin(asked)
	s.started.Store(true)
	return nil
}

// Ready calls start for a request, which may arrive before the config has started.
func (s *Service) Ready(ctx context.Context) *refusal.Error {
	if s.started.Load() {
		return nil
	}
	if err := s.start(ctx); err != nil {
		return refusal.Of(StoreRefusal(err))
	}
	return nil
}

// LoadStore loads the store module of a config.
func LoadStore(ctx caddy.Context, settings *Config) (store.UserStore, error) {
	if err := config.CheckModules("jwt.stores", settings.StoreRaw); err != nil {
		return nil, err
	}
	raw := settings.StoreRaw
	loaded, err := ctx.LoadModule(settings, "StoreRaw")
	settings.StoreRaw = raw // LoadModule clears it, but it is part of what tells sites apart
	if err != nil {
		return nil, err
	}
	store, ok := loaded.(store.UserStore)
	if !ok {
		return nil, fmt.Errorf("%T is not a UserStore", loaded)
	}
	return store, nil
}

func newService(
	ctx caddy.Context, config Config, fingerprint string, fixed *signing.Signer, users *store.UserStore,
	mailer *mail.Mailer,
) (*Service, error) {
	shared := &site{Config: config, Now: clock.Now, Log: caddy.Log().Named("http.handlers.jwt_accounts")}
	shared.AddStore(users)
	if located, ok := (*users).(store.Located); ok {
		shared.where = located.Where()
	}
	shared.countFromZero()
	s := &Service{site: shared, fingerprint: fingerprint, Route: config.routeNames()}
	revoked, _, err := revocationSets.LoadOrNew(config.KeyScope(), func() (caddy.Destructor, error) {
		return sharedRevocations{jwt.NewRevocations()}, nil
	})
	if err != nil {
		return nil, err
	}
	if s.Keys, err = newSigningKeys(ctx, config, fixed, s); err != nil {
		return nil, err
	}
	if s.Attempts, err = newAttempts(config, s.Users); err != nil {
		return nil, err
	}
	s.Sessions = &Sessions{site: shared, keys: s.Keys, Revoked: revoked.(sharedRevocations).Revocations}
	s.Factors = &Factors{
		site: shared, sessions: s.Sessions, attempts: s.Attempts, box: sealing.New(ctx.Storage()),
	}
	s.Sessions.mayContinue = s.Factors.mayContinue
	s.LogIns = &LogIns{site: shared, sessions: s.Sessions, factors: s.Factors, attempts: s.Attempts}
	s.Identities = &Identities{site: shared, sessions: s.Sessions, factors: s.Factors, attempts: s.Attempts}
	s.Factors.logIns, s.Factors.identities = s.LogIns, s.Identities
	s.Mails = newMails(shared, s.Attempts, mailer)
	s.LogIns.mails, s.LogIns.codes = s.Mails, mailedCodes{shared}
	s.Keyring = newKeyring(s)
	s.background = newBackground(s)
	s.Verifier, err = jwt.NewVerifier(jwt.VerifierConfig{
		Issuers: []jwt.Issuer{s.AsIssuer()}, Leeway: jwt.DefaultLeeway,
	})
	return s, err
}

func newSigningKeys(ctx caddy.Context, config Config, fixed *signing.Signer, s *Service) (*signing.Keys, error) {
	if fixed != nil {
		return signing.Fixed(*fixed)
	}
	name, algorithm := config.ownKeys()
	o := s.KeyOptions(ctx.Storage(), name, algorithm, time.Duration(config.TokenLifetime))
	if files, ok := s.Users().(*filestore.Store); ok {
		files.IsUsedWhere(func(ctx context.Context) (bool, error) {
			_, err := o.Storage.Stat(ctx, o.Path)
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			return err == nil, err
		})
		o.MayMake = func(ctx context.Context) error {
			_, _, err := files.Connect(ctx)
			return err
		}
	}
	return signing.New(o), nil
}

// KeyOptions returns the options for signing keys of the accounts.
func (s *Service) KeyOptions(
	storage certmagic.Storage, of, algorithm string, lifetime time.Duration,
) signing.Options {
	path := signing.Path(of)
	return signing.Options{
		Algorithm: algorithm, Storage: storage, Path: path, TokenLifetime: lifetime + jwt.MaxLeeway, Now: s.Now,
		Withdrawn: func(ctx context.Context) ([]string, error) {
			return store.WithdrawnKeys(ctx, s.Users(), path, s.Now())
		},
		Log: func() *zap.Logger { return caddy.Log().Named("http.handlers.jwt_accounts") },
	}
}

func loadSigningKey(text string) (signing.Signer, error) {
	written := text
	text = strings.TrimSpace(caddy.NewReplacer().ReplaceKnown(text, ""))
	if text == "" {
		return signing.Signer{}, errors.New("it is empty; " + config.WhyEmpty(written))
	}
	content := []byte(text)
	if !strings.Contains(text, "-----BEGIN") && !strings.HasPrefix(text, "{") {
		var err error
		if content, err = os.ReadFile(text); err != nil {
			return signing.Signer{}, err
		}
		if len(strings.TrimSpace(string(content))) == 0 {
			return signing.Signer{}, fmt.Errorf("file %s is empty", text)
		}
	}
	s, algorithms, err := signing.ParsePrivateKey(content)
	if err != nil {
		return s, err
	}
	s.Algorithm = algorithms[0]
	if s.ID == "" {
		s.ID, err = signing.Thumbprint(s.Key)
	}
	return s, err
}

// AsIssuer returns the issuer for a jwt handler that accepts the tokens.
func (s *Service) AsIssuer() jwt.Issuer {
	return jwt.Issuer{
		Name: s.Config.Issuer, Keys: []jwt.KeySource{s.Keys}, Algorithms: s.Keys.Algorithms(),
		Audience: s.Config.Audience, TokenTypes: []string{"at+jwt"}, Revoked: s.Sessions.Revoked,
	}
}

// Release releases a service that was returned by Open.
func (s *Service) Release() error {
	_, err := services.Delete(s.fingerprint)
	return err
}

// Destruct implements caddy.Destructor. It stops everything.
func (s *Service) Destruct() error {
	s.background.end()
	_, err := revocationSets.Delete(s.Config.KeyScope())
	return errors.Join(err, s.Attempts.release())
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*refusal.Error](err)
	return ok
}

// StoreRefusal converts an error of the store or of hashing to a refusal.
func StoreRefusal(err error) error {
	switch {
	case err == nil:
		return nil
	case isRefusal(err):
		return err
	case errors.Is(err, password.ErrQueueFull):
		return &refusal.Error{Reason: refusal.HashQueueFull, RetryAfter: time.Second}
	case errors.Is(err, store.ErrStoreFull):
		return refusal.New(refusal.StoreFull, "%v", err)
	case errors.Is(err, store.ErrNotFound):
		return &refusal.Error{Reason: refusal.Revoked}
	case errors.Is(err, context.Canceled):
		return refusal.New(refusal.Body, "the client closed the connection")
	}
	return &refusal.Error{Reason: refusal.StoreUnavailable, Detail: err.Error(), RetryAfter: time.Second}
}

// Throttled returns the refusal of too many attempts.
func Throttled(what string, wait time.Duration) *refusal.Error {
	return &refusal.Error{Reason: refusal.Throttled, Detail: "too many " + what, RetryAfter: wait}
}

// Interface guards
var _ caddy.Destructor = (*Service)(nil)
