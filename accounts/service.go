// Package accounts has the users of a site: how they sign up and log in, their sessions,
// and what was revoked. It knows nothing of HTTP; package accounts/web serves it.
package accounts

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddy-jwt/caddy-jwt/store/sqlstore"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

const (
	familyBytes  = 16 // random bytes that the refresh tokens of a family share
	RefreshBytes = 32 // random bytes of each refresh token beside them

	// revocationPoll is how often the store is asked what other processes
	// revoked, so that all know within a second.
	revocationPoll = 400 * time.Millisecond
	// listenPause is how long after a failure to hear of that it is tried again.
	listenPause = time.Second
	// revocationOverlap is asked for again, for what was written late or by a clock
	// that is behind.
	revocationOverlap = 10 * time.Second
	// heardPause is the least between two looks, however much is heard.
	heardPause = 100 * time.Millisecond
)

// Service is what the handlers of one site's accounts share: keys,
// store, throttles, and what was revoked. It outlives config reloads, and
// knows nothing of HTTP.
type Service struct {
	Config   Config
	identity string // under which it is shared
	Keys     *signing.Keys
	Verifier *jwt.Verifier
	Revoked  *jwt.Revocations
	Route    func(path string) (name, id string)

	counts                                   *tryCounts
	accountFailures, ClientFailures, signups *Throttle
	RefusedSignups                           *Throttle // by client; they say whose address is taken
	ExternalBegun                            *Throttle // log-ins at providers, by client
	ExternalKept                             *Throttle // those of all strangers, since they are kept
	// Tries that are spared for when those of an account are used up; see
	// spares. Clients that have logged in to an account are familiar.
	familiarTries, strangerTries, sparedTries *Throttle
	familiar                                  *otter.Cache[string, struct{}]

	RequestsFail outage.Outage // of the store, as requests meet it
	storeOutage  outage.Outage // the same, as watch does
	heard        chan struct{} // wakes watch
	revokedSince time.Time     // of what is asked for next
	storeDown    atomic.Bool   // for the metrics

	signingUp singleflight.Group // by EmailKey

	starting sync.Mutex
	started  atomic.Bool

	Links links

	storesMu sync.Mutex
	stores   []*store.UserStore // of the configs that are loaded, the newest last
	store    atomic.Pointer[store.UserStore]
	Now      func() time.Time

	refreshKey atomic.Pointer[[]byte]
	Log        *zap.Logger
	ctx        context.Context // ends with Destruct
	stop       context.CancelFunc
	running    sync.WaitGroup
}

// revocationSets are in use, by the issuer and the store: sites that share
// these share their sessions, whatever else differs.
var revocationSets = caddy.NewUsagePool()

type sharedRevocations struct{ *jwt.Revocations }

// Destruct implements caddy.Destructor.
func (sharedRevocations) Destruct() error { return nil }

// services are in use, by identity.
var services = caddy.NewUsagePool()

// Running are the services in use.
func Running() (all []*Service) {
	services.Range(func(_, service any) bool {
		all = append(all, service.(*Service))
		return true
	})
	return all
}

// Open resolves the config and returns the service for it, which is
// shared with all that have the same config. Each caller releases it.
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
	fixed, err := settings.fixedKey()
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	identity, err := settings.identity(fixed)
	if err != nil {
		return nil, err
	}
	shared, _, err := services.LoadOrNew(identity, func() (caddy.Destructor, error) {
		return newAccountService(ctx, *settings, identity, fixed, store)
	})
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	service := shared.(*Service)
	service.AddStore(&store)
	context.AfterFunc(ctx, func() { service.dropStore(&store) })
	config.AtStart(ctx, func() error {
		if err := sqlstore.CheckWhole(ctx, store); err != nil {
			return fmt.Errorf("accounts: store: %w", err)
		}
		if err := service.start(ctx); err != nil && !errors.Is(err, signing.ErrNoKeysYet) { // the store was said to fail
			return fmt.Errorf("accounts: %w", err)
		}
		return nil
	})
	return service, nil
}

// start makes the signing keys if there are none, learns what was revoked before a
// restart, and keeps an eye on the store from then on. It does so once.
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
	s.learnRevocations()
	s.running.Go(func() { s.watch(asked) })
	s.running.Go(func() { s.maintain(asked) })
	s.running.Go(s.listen)
	s.started.Store(true)
	return nil
}

// Ready is start for a request, which may come before the config has started.
func (s *Service) Ready(ctx context.Context) *refusal.Error {
	if s.started.Load() {
		return nil
	}
	if err := s.start(ctx); err != nil {
		return refusal.Of(StoreRefusal(err))
	}
	return nil
}

// AddStore has the store of the newest config be the one that is used. Each is
// cleaned up with its config, also with one that is refused after this.
func (s *Service) AddStore(store *store.UserStore) {
	s.storesMu.Lock()
	defer s.storesMu.Unlock()
	s.stores = append(s.stores, store)
	s.store.Store(store)
}

func (s *Service) dropStore(users *store.UserStore) {
	s.storesMu.Lock()
	defer s.storesMu.Unlock()
	s.stores = slices.DeleteFunc(s.stores, func(known *store.UserStore) bool { return known == users })
	if len(s.stores) > 0 {
		s.store.Store(s.stores[len(s.stores)-1])
	}
}

// identity tells configs apart, and the keys in them as they are now: a file or
// variable that has another key at a reload makes other accounts.
func (a *Config) identity(fixed *signing.Signer) (string, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	sum.Write(text)
	switch {
	case fixed == nil:
	case a.Secret != nil:
		sum.Write(fixed.Key.([]byte))
	default:
		print, err := signing.Thumbprint(fixed.Key)
		if err != nil {
			return "", err
		}
		sum.Write([]byte(fixed.ID + "\n" + print))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func LoadStore(ctx caddy.Context, config *Config) (store.UserStore, error) {
	raw := config.StoreRaw
	loaded, err := ctx.LoadModule(config, "StoreRaw")
	config.StoreRaw = raw // LoadModule clears it, and it tells sites apart
	if err != nil {
		return nil, err
	}
	store, ok := loaded.(store.UserStore)
	if !ok {
		return nil, fmt.Errorf("%T is no UserStore", loaded)
	}
	return store, nil
}

func newAccountService(ctx caddy.Context, config Config, identity string, fixed *signing.Signer, store store.UserStore) (*Service, error) {
	s := &Service{
		Config: config, identity: identity, Route: config.routeNames(), Now: clock.Now, heard: make(chan struct{}, 1),
		Log: caddy.Log().Named("http.handlers.jwt_accounts"),
	}
	pooled, _, err := tryCountSets.LoadOrNew(config.KeyIdentity(), func() (caddy.Destructor, error) { return new(tryCounts), nil })
	if err != nil {
		return nil, err
	}
	s.counts = pooled.(*tryCounts)
	s.accountFailures = s.NewThrottle("log-ins of an account", config.ThrottleFailures, time.Duration(config.ThrottleWindow))
	s.ClientFailures = s.NewThrottle("log-ins of a client", ClientFailuresPerMinute, time.Minute)
	s.signups = s.NewThrottle("sign-ups", config.SignupLimit, time.Hour)
	s.RefusedSignups = s.NewThrottle("refused sign-ups of a client", ClientFailuresPerMinute, time.Minute)
	s.ExternalBegun = s.NewThrottle("log-ins at providers", ClientFailuresPerMinute, time.Minute)
	s.ExternalKept = s.NewThrottle("log-ins at providers of all clients", PendingKept, PendingLifetime)
	s.familiarTries = s.NewThrottle("tries of a familiar client", config.ThrottleFailures, time.Duration(config.ThrottleWindow))
	s.strangerTries = s.NewThrottle("tries of a stranger", StrangerTries, time.Duration(config.ThrottleWindow))
	s.sparedTries = s.NewThrottle("tries of strangers", SparedFactor*config.ThrottleFailures, time.Duration(config.ThrottleWindow))
	if config.ThrottleFailures < 0 {
		s.ClientFailures, s.ExternalBegun, s.RefusedSignups = nil, nil, nil
	}
	s.familiar = otter.Must(&otter.Options[string, struct{}]{
		MaximumSize: maxThrottled, ExpiryCalculator: otter.ExpiryWriting[string, struct{}](time.Duration(config.RefreshLifetime)),
	})
	s.store.Store(&store)
	s.ctx, s.stop = context.WithCancel(context.Background())
	shared, _, err := revocationSets.LoadOrNew(config.KeyIdentity(), func() (caddy.Destructor, error) { return sharedRevocations{jwt.NewRevocations()}, nil })
	if err != nil {
		return nil, err
	}
	s.Revoked = shared.(sharedRevocations).Revocations
	if s.Keys, err = newSigningKeys(ctx, config, fixed, s); err != nil {
		return nil, err
	}
	s.Verifier, err = jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{s.AsIssuer()}, Leeway: jwt.DefaultLeeway})
	return s, err
}

// fixedKey is the key that stands in the config, or nil.
func (a *Config) fixedKey() (*signing.Signer, error) {
	switch {
	case a.Secret != nil:
		key, err := a.Secret.Key()
		if err != nil {
			return nil, fmt.Errorf("secret: %w", err)
		}
		return &signing.Signer{Key: key.Material, Algorithm: "HS256"}, nil
	case a.SigningKey != "":
		key, err := loadSigningKey(a.SigningKey)
		if err != nil {
			return nil, fmt.Errorf("signing_key: %w", err)
		}
		return &key, nil
	}
	return nil, nil
}

func newSigningKeys(ctx caddy.Context, config Config, fixed *signing.Signer, s *Service) (*signing.Keys, error) {
	if fixed != nil {
		return signing.Fixed(*fixed)
	}
	o := s.KeyOptions(ctx.Storage(), config.KeyIdentity(), "ES256", time.Duration(config.TokenLifetime))
	if files, ok := s.Users().(*filestore.Store); ok {
		files.IsUsedWhere(func(ctx context.Context) bool { return o.Storage.Exists(ctx, o.Path) })
		o.MayMake = func(ctx context.Context) error {
			_, _, err := files.Connect(ctx)
			return err
		}
	}
	return signing.New(o), nil
}

// KeyOptions are those of signing keys of the accounts.
func (s *Service) KeyOptions(storage certmagic.Storage, identity, algorithm string, lifetime time.Duration) signing.Options {
	path := signing.Path(identity)
	return signing.Options{
		Algorithm: algorithm, Storage: storage, Path: path, TokenLifetime: lifetime + jwt.MaxLeeway, Now: s.Now,
		Withdrawn: func(ctx context.Context) ([]string, error) { return store.WithdrawnKeys(ctx, s.Users(), path, s.Now()) },
		Log:       func() *zap.Logger { return caddy.Log().Named("http.handlers.jwt_accounts") },
	}
}

// KeyIdentity tells sites apart whose tokens must not serve each other: those
// with another issuer or other users.
func (a *Config) KeyIdentity() string { return a.Issuer + "\n" + string(a.StoreRaw) }

func loadSigningKey(text string) (signing.Signer, error) {
	text = strings.TrimSpace(caddy.NewReplacer().ReplaceKnown(text, ""))
	if text == "" {
		return signing.Signer{}, errors.New("it is empty; is the environment variable set, or the file there?")
	}
	content := []byte(text)
	if !strings.Contains(text, "-----BEGIN") && !strings.HasPrefix(text, "{") {
		var err error
		if content, err = os.ReadFile(text); err != nil {
			return signing.Signer{}, err
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

// AsIssuer is how a jwt handler accepts the tokens.
func (s *Service) AsIssuer() jwt.Issuer {
	return jwt.Issuer{
		Name: s.Config.Issuer, Keys: []jwt.KeySource{s.Keys}, Algorithms: s.Keys.Algorithms(),
		Audience: s.Config.Audience, TokenType: "at+jwt", Revoked: s.Revoked,
	}
}

func (s *Service) Users() store.UserStore { return *s.store.Load() }

func (s *Service) Release() error {
	_, err := services.Delete(s.identity)
	return err
}

// Destruct implements caddy.Destructor: nothing is left running after it.
func (s *Service) Destruct() error {
	s.stop()
	s.running.Wait()
	_, err := revocationSets.Delete(s.Config.KeyIdentity())
	_, countsErr := tryCountSets.Delete(s.Config.KeyIdentity())
	return errors.Join(err, countsErr)
}

// watch learns what other processes revoked. It does nothing else, so that nothing
// holds it up.
func (s *Service) watch(last time.Time) {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(revocationPoll - heardPause):
		case <-s.heard:
		}
		now := s.Now()
		if by, moved := clock.Moved(last, now); moved {
			s.Log.Warn("the clock was set to another time", zap.Duration("by", by))
			s.revokedSince = time.Time{} // what others revoked is looked for by their time
		}
		last = now
		s.learnRevocations()
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(heardPause):
		}
	}
}

// maintain learns which keys other processes sign with, and removes what has
// expired.
func (s *Service) maintain(last time.Time) {
	s.sayHowToBegin()
	cleanUps := clock.NewCleanUps(last)
	var notCleaned outage.Outage
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(revocationPoll):
		}
		_ = s.Keys.Reload(s.ctx, signing.ReloadInterval) // which logs it
		now := s.Now()
		if s.RequestsFail.Quiet(now, failsNoMore) {
			s.tryStore(now)
		}
		if !cleanUps.Due(now) {
			continue
		}
		s.Revoked.ForgetExpired(now)
		if err := s.Users().CleanUp(s.ctx, now); s.ctx.Err() == nil {
			notCleaned.Note(s.Log, now, err, "what has expired is not removed from the user store; it will be tried again", "what has expired is removed from the user store again")
		}
	}
}

// listen wakes watch when another process has revoked something, if the store
// hears of it.
func (s *Service) listen() {
	for s.ctx.Err() == nil {
		listener, ok := s.Users().(store.RevocationListener)
		if !ok {
			return
		}
		err := listener.ListenRevocations(s.ctx, func() {
			select {
			case s.heard <- struct{}{}:
			default: // it is awake
			}
		})
		if errors.Is(err, store.ErrCannotListen) {
			s.Log.Info("database does not tell of ended sessions; it is asked", zap.Duration("every", revocationPoll), zap.Error(err))
			return
		}
		select {
		case <-s.ctx.Done():
		case <-time.After(listenPause):
		}
	}
}

func (s *Service) learnRevocations() {
	now := s.Now()
	found, err := s.Users().Revocations(s.ctx, s.revokedSince, now)
	if s.ctx.Err() != nil {
		return
	}
	s.storeDown.Store(err != nil)
	s.storeOutage.Note(s.Log, now, err, "user store not readable; sessions that other processes end are good until their tokens expire", "user store readable again")
	if err != nil {
		return
	}
	for _, revocation := range found {
		s.Revoked.Add(revocation.SessionID, revocation.Until)
	}
	s.revokedSince = now.Add(-revocationOverlap)
}

// SayStoreFails logs that a request met a store that could not do its work.
func (s *Service) SayStoreFails(failure *refusal.Error) {
	if failure.Reason != refusal.StoreFull && failure.Reason != refusal.StoreUnavailable {
		return
	}
	if say, lasts := s.RequestsFail.Fails(s.Now()); say {
		s.Log.Error("user store fails; account routes answer so, and tokens are verified all the same",
			zap.Duration("for", lasts), zap.Int("status", failure.Reason.Answer().Status), zap.String("error", failure.Detail))
	}
}

// failsNoMore is how long no request must have met a store that fails until it is tried
// whether that is over.
const failsNoMore = time.Minute

// kindTry is of a record that is made to find out whether the store can be written.
const kindTry = "try"

func (s *Service) tryStore(now time.Time) {
	err := s.Users().CreateRecord(s.ctx, store.Record{Kind: kindTry, ID: store.RandomToken(familyBytes), Value: []byte("{}"), ExpiresAt: now.Add(time.Minute)})
	if s.ctx.Err() != nil {
		return
	}
	if err != nil {
		s.SayStoreFails(refusal.Of(StoreRefusal(err)))
	} else if ends, lasted := s.RequestsFail.Works(now); ends {
		s.Log.Info("user store fails no more", zap.Duration("after", lasted))
	}
}

func (s *Service) sayHowToBegin() {
	first, err := s.Users().Users(s.ctx, "", 1)
	if err != nil || len(first) > 0 {
		return
	}
	where := ""
	if path, err := filestore.Path(s.Config.StoreRaw); err == nil && path != "" { // also the default one, since another user has another
		where = " --store " + filestore.ShellWord(path)
	}
	s.Log.Info("there is no user yet; this adds the first: caddy jwt user add" + where + " <email>")
}

// Client is who talks to the service.
type Client struct {
	Address   string // Caddy's client_ip
	UserAgent string
}

// Grant is what a log-in or a refresh gives.
type Grant struct {
	User         store.User
	SessionID    string
	AccessToken  string
	RefreshToken string
	ExpiresIn    time.Duration
	SessionEnds  time.Time
	InTime       func() bool // of a refresh: nobody else can have replaced RefreshToken yet
}

// SignUp makes an account.
func (s *Service) SignUp(ctx context.Context, email, password string, profile map[string]any, client Client) (store.User, error) {
	key, err := store.EmailKey(email)
	if err != nil {
		return store.User{}, refusal.Property("email", "format", err)
	}
	if _, wait := s.signups.Begin(ctx, network.Key(client.Address), s.Now()); wait > 0 {
		return store.User{}, Throttled("sign-ups of the client", wait)
	}
	// Of many at once for one address one makes a hash, and none if it is taken. They
	// are one question.
	var user store.User
	first := false
	_, err, _ = s.signingUp.Do(key, func() (any, error) {
		first = true
		refused, wait := s.RefusedSignups.Begin(ctx, network.Key(client.Address), s.Now())
		if wait > 0 {
			return nil, Throttled("refused sign-ups of the client", wait)
		}
		defer func() {
			if !errors.Is(err, store.ErrEmailTaken) { // also where it is not the client's fault
				refused.Forgive()
			}
		}()
		user, err = s.addUser(context.WithoutCancel(ctx), key, email, password, profile, client)
		return nil, err
	})
	if err == nil && !first || errors.Is(err, store.ErrEmailTaken) {
		CountEvent("signup", "refused")
		return store.User{}, &refusal.Error{Reason: refusal.EmailTaken}
	}
	if err != nil {
		return store.User{}, StoreRefusal(err)
	}
	s.Audit("signup", user.ID, "", client)
	return user, nil
}

func (s *Service) addUser(ctx context.Context, key, email, pw string, profile map[string]any, client Client) (store.User, error) {
	if _, err := s.Users().UserByEmail(ctx, key); err == nil {
		return store.User{}, store.ErrEmailTaken
	} else if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, err // before a hash is made for nothing
	}
	hash, err := password.Hash(ctx, s.HashTurn("sign-up", client), pw)
	if err != nil {
		return store.User{}, err
	}
	now := s.Now()
	user := store.User{
		ID: uuid.NewString(), Email: email, EmailKey: key, PasswordHash: hash,
		Roles: s.Config.DefaultRoles, Profile: profile, CreatedAt: now, UpdatedAt: now,
	}
	return user, s.Users().CreateUser(ctx, user)
}

func (s *Service) HashTurn(what string, client Client) password.Turn {
	return password.Turn{Queue: s.Config.HashQueue, What: what, Client: client.Address}
}

// LogIn begins a session. An unknown user, a disabled one and a wrong password
// cannot be told apart, by the answer or its time.
func (s *Service) LogIn(ctx context.Context, email, pw string, client Client) (*Grant, error) {
	key, err := store.EmailKey(email)
	if err != nil {
		key = "" // nobody's
	}
	user, err := s.CheckCredentials(ctx, key, pw, client)
	if err != nil {
		return nil, err
	}
	if password.Weak(user.PasswordHash) {
		user = s.rehash(ctx, user, pw, client)
	}
	return s.BeginSession(ctx, user, client)
}

func (s *Service) CheckCredentials(ctx context.Context, emailKey, pw string, client Client) (store.User, error) {
	now := s.Now()
	byClient, wait := s.ClientFailures.Begin(ctx, network.Key(client.Address), now)
	if wait > 0 {
		return store.User{}, s.refuseThrottled("client", wait, client)
	}
	user, err := s.Users().UserByEmail(ctx, emailKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		byClient.Forgive()
		return store.User{}, StoreRefusal(err)
	}
	familiar := sync.OnceValue(func() bool { return s.isFamiliar(ctx, user, emailKey, client, now) })
	byAccount, wait := s.accountFailures.Begin(ctx, emailKey, now)
	used := []attempt{byClient, byAccount}
	if wait > 0 {
		spared, allowed := s.Spares(ctx, familiar(), emailKey, client, now)
		if !allowed {
			return store.User{}, s.refuseThrottled("account", wait, client)
		}
		used = append(used, spared...)
	}
	forgive := func() {
		for _, a := range used {
			a.Forgive()
		}
	}
	hash := user.PasswordHash
	if user.Disabled {
		hash = ""
	}
	turn := s.HashTurn("log-in", client)
	turn.Familiar = familiar
	right, err := password.Check(ctx, turn, hash, pw)
	if err != nil {
		forgive()
		return store.User{}, StoreRefusal(err)
	}
	switch {
	case !right && wait > 0:
		return store.User{}, s.refuseThrottled("account", wait, client)
	case !right:
		CountEvent("login", "refused")
		s.Audit("login refused", user.ID, "", client)
		return store.User{}, &refusal.Error{Reason: refusal.WrongCredentials}
	}
	forgive()
	s.familiar.Set(familiarKey(emailKey, client), struct{}{})
	return user, nil
}

const (
	StrangerTries = 3  // of a client from which nobody has logged in to the account
	SparedFactor  = 10 // of all such clients, times the failures of an account
)

// Spares tells whether a client may try the password of an account whose tries
// others have used up: if it is right, it is let in, so that whoever keeps
// guessing locks nobody out, and else the answer is the one without a try. A
// client from which somebody has logged in to the account has as many tries as
// the account; any other has few, and to use up those of all takes many clients
// that guess again and again. A right password gives back what was used. Nothing
// here depends on whether there is such a user.
func (s *Service) Spares(ctx context.Context, familiar bool, emailKey string, client Client, now time.Time) (used []attempt, allowed bool) {
	if familiar {
		its, wait := s.familiarTries.Begin(ctx, familiarKey(emailKey, client), now)
		return []attempt{its}, wait == 0
	}
	stranger, wait := s.strangerTries.Begin(ctx, emailKey+"\n"+network.Prefix(client.Address, 48), now)
	if wait > 0 {
		return nil, false
	}
	spared, wait := s.sparedTries.Begin(ctx, emailKey, now)
	return []attempt{stranger, spared}, wait == 0
}

// isFamiliar tells whether somebody has logged in to the account from the client:
// here, or at another node in a session that goes on.
func (s *Service) isFamiliar(ctx context.Context, user store.User, emailKey string, client Client, now time.Time) bool {
	_, here := s.familiar.GetIfPresent(familiarKey(emailKey, client))
	sessions, err := s.Users().Sessions(ctx, user.ID, now) // also of nobody, so that it takes as long
	return here || err == nil && slices.ContainsFunc(sessions, func(x store.Session) bool { return network.Key(x.Address) == network.Key(client.Address) })
}

func familiarKey(emailKey string, client Client) string {
	return emailKey + "\n" + network.Key(client.Address)
}

func (s *Service) refuseThrottled(what string, wait time.Duration, client Client) *refusal.Error {
	CountEvent("login", "throttled")
	s.Log.Debug("log-in throttled", zap.String("by", what), zap.String("client_ip", client.Address))
	return Throttled("failed log-ins of the "+what, wait)
}

// KindRehashed is of hashes that took the place of one of the same password: the
// ID is the mark of the new one, the value that of the one before.
const KindRehashed = "rehashed password"

// PasswordMark tells passwords apart, and is no secret.
func PasswordMark(user store.User) string { return store.HashToken(user.PasswordHash) }

// rehash replaces a hash of weaker parameters. If it cannot be done now, it is
// at the next log-in.
func (s *Service) rehash(ctx context.Context, user store.User, pw string, client Client) store.User {
	turn := s.HashTurn("log-in", client)
	turn.Familiar = func() bool { return true } // by now
	hash, err := password.Hash(ctx, turn, pw)
	var renewed store.User
	var before []byte
	if err == nil {
		before, err = json.Marshal(PasswordMark(user))
	}
	if err == nil {
		err = s.Users().CreateRecord(ctx, store.Record{Kind: KindRehashed, ID: store.HashToken(hash), Owner: user.ID, Value: before})
	}
	if err == nil {
		renewed, err = s.Users().UpdateUser(ctx, user.ID, s.Now(), func(u *store.User) error {
			if u.PasswordHash != user.PasswordHash {
				return store.ErrNotFound // it was changed meanwhile
			}
			u.PasswordHash = hash
			return nil
		})
	}
	if err != nil {
		s.Log.Warn("password hash not renewed; it will be at the next log-in", zap.String("user_id", user.ID), zap.Error(err))
		return user
	}
	return renewed
}

func (s *Service) BeginSession(ctx context.Context, user store.User, client Client) (*Grant, error) {
	now := s.Now()
	family := store.RandomToken(familyBytes)
	refresh := family + store.RandomToken(RefreshBytes)
	session := store.Session{
		ID: uuid.NewString(), UserID: user.ID, FamilyHash: s.familyHash(family), RefreshHash: store.HashToken(refresh),
		CreatedAt: now, UsedAt: now, ExpiresAt: now.Add(time.Duration(s.Config.RefreshLifetime)), LastTokenUntil: s.lastTokenUntil(now),
		Client: Cut(client.UserAgent, 256), Address: client.Address,
	}
	err := s.Users().CreateSession(ctx, session, user.PasswordHash)
	if errors.Is(err, store.ErrNotFound) { // deleted, disabled, or with another password in this moment
		return nil, &refusal.Error{Reason: refusal.WrongCredentials}
	}
	if err != nil {
		return nil, StoreRefusal(err)
	}
	CountEvent("login", "ok")
	s.Audit("login", user.ID, session.ID, client)
	if err := s.endSurplus(ctx, user); err != nil {
		return nil, err
	}
	return s.grant(user, session, refresh, now)
}

// MaxSessions is how many sessions a user may have. Of more, those end that
// were not used for the longest time.
const MaxSessions = 100

func (s *Service) endSurplus(ctx context.Context, user store.User) error {
	sessions, err := s.Users().Sessions(ctx, user.ID, s.Now())
	if err != nil {
		return StoreRefusal(err)
	}
	for _, session := range sessions[min(len(sessions), MaxSessions):] {
		if err := s.EndSessions(ctx, user.ID, session.ID, ""); err != nil {
			return err
		}
	}
	return nil
}

// familyHash is of the part that the refresh tokens of a family share, and of
// the issuer: sites may share a store, and not their sessions.
func (s *Service) familyHash(family string) string {
	return store.HashToken(s.Config.Issuer + "\n" + family)
}

// lastTokenUntil is when a token made now has expired everywhere, and one that is made
// without a change of the session, by the same refresh token within repeatWithin.
func (s *Service) lastTokenUntil(now time.Time) time.Time {
	return now.Add(time.Duration(s.Config.TokenLifetime)).Add(jwt.MaxLeeway).Add(repeatWithin)
}

func Cut(text string, length int) string {
	if len(text) > length {
		text = text[:length]
	}
	return strings.ToValidUTF8(text, "")
}

func (s *Service) grant(user store.User, session store.Session, refresh string, now time.Time) (*Grant, error) {
	lifetime := min(time.Duration(s.Config.TokenLifetime), session.ExpiresAt.Sub(now))
	roles := user.Roles
	if roles == nil {
		roles = []string{}
	}
	token, err := s.Keys.Sign("at+jwt", map[string]any{
		"iss": s.Config.Issuer, "sub": user.ID, "aud": s.Config.Audience, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(lifetime).Unix(),
		"jti": uuid.NewString(), "sid": session.ID, "email": user.Email, "roles": roles, "scope": AccountScope,
	})
	return &Grant{
		User: user, SessionID: session.ID, AccessToken: token, RefreshToken: refresh, ExpiresIn: lifetime, SessionEnds: session.ExpiresAt,
	}, err
}

// rotationTries is how often a refresh begins anew because another use of the token
// was faster.
const rotationTries = 20

// Refresh gives an access token, and the refresh token that takes the place of the
// one that is used. One whose successor was used ends its session, since either its
// owner or a thief has it too.
func (s *Service) Refresh(ctx context.Context, token string, client Client) (*Grant, error) {
	family := token[:min(len(token), base64.RawURLEncoding.EncodedLen(familyBytes))]
	use, err := s.UseRefreshToken(ctx, RefreshUse{Token: token, Family: family, HashOf: store.HashToken})
	if err != nil {
		return nil, StoreRefusal(err)
	}
	for range rotationTries {
		given, err := s.rotate(ctx, use, client)
		if !errors.Is(err, errRotatedMeanwhile) {
			return given, err
		}
	}
	return nil, StoreRefusal(errRotatedMeanwhile)
}

var errRotatedMeanwhile = errors.New("another use of the refresh token was faster")

func (s *Service) rotate(ctx context.Context, use *RefreshUse, client Client) (*Grant, error) {
	now := s.Now()
	session, err := s.Users().SessionByFamily(ctx, s.familyHash(use.Family), now)
	if errors.Is(err, store.ErrNotFound) {
		CountEvent("refresh", "refused")
		return nil, &refusal.Error{Reason: refusal.RefreshToken}
	}
	if err != nil {
		return nil, StoreRefusal(err)
	}
	user, err := s.Users().User(ctx, session.UserID)
	if err != nil {
		return nil, StoreRefusal(err)
	}
	if user.Disabled {
		return nil, &refusal.Error{Reason: refusal.RefreshToken}
	}
	line := RefreshLine{session.RefreshHash, session.PreviousHash, session.RotatedAt}
	next, fresh, err := use.Rotate(line)
	if errors.Is(err, ErrRefreshReused) {
		return nil, s.endReused(ctx, session, client)
	}
	if next != line {
		err = s.Users().RotateSession(ctx, store.Rotation{
			FamilyHash: session.FamilyHash, ValidHash: session.RefreshHash, OldHash: next.PreviousHash, NewHash: next.Hash, Now: next.RotatedAt,
			LastTokenUntil: s.lastTokenUntil(now), Client: Cut(client.UserAgent, 256), Address: client.Address,
		})
		if errors.Is(err, store.ErrNotFound) {
			return nil, errRotatedMeanwhile
		}
		if err != nil {
			return nil, StoreRefusal(err)
		}
	}
	given, err := s.grant(user, session, fresh, now)
	if err == nil {
		err = StoreRefusal(use.InTime(next))
	}
	if err != nil {
		return nil, err
	}
	given.InTime = func() bool { return use.InTime(next) == nil }
	if next.PreviousHash == line.PreviousHash {
		CountEvent("refresh", "repeated")
	} else {
		CountEvent("refresh", "ok")
	}
	return given, nil
}

// endReused ends a session one of whose refresh tokens two have had.
func (s *Service) endReused(ctx context.Context, session store.Session, client Client) error {
	if err := s.EndSessions(ctx, session.UserID, session.ID, ""); err != nil {
		return err
	}
	CountEvent("refresh", "reused")
	s.Audit("refresh token reused, session ended", session.UserID, session.ID, client)
	return refusal.New(refusal.RefreshToken, "it was used before; the session is ended")
}

// EndSessions ends the user's session with the ID only or, if that is empty,
// all but the one with the ID except. Their access tokens are refused from now
// on.
func (s *Service) EndSessions(ctx context.Context, userID, only, except string) error {
	now := s.Now()
	if only != "" { // first, since nobody can say it again once the session has ended
		if err := s.endReplaced(ctx, userID, only); err != nil {
			return err
		}
	}
	ended, err := s.Users().EndSessions(ctx, userID, only, except, now)
	if err != nil {
		return StoreRefusal(err)
	}
	for _, id := range ended {
		s.Revoked.Add(id, s.lastTokenUntil(now))
		if only != "" {
			continue
		}
		if err := s.endReplaced(ctx, userID, id); err != nil {
			return err
		}
	}
	return nil
}

// kindReplaced is of sessions whose browser has logged in again: they go on for
// clients that an OpenID Provider let in by them, and end with the one that took
// their place, which owns the record.
const kindReplaced = "replaced session"

// ReplaceSession notes that a browser which has a session has begun another; token is
// the refresh token of the one before, empty for none. That of another user ends.
func (s *Service) ReplaceSession(ctx context.Context, given *Grant, token string) error {
	if token == "" {
		return nil
	}
	old, err := s.Users().SessionByFamily(ctx, s.familyHash(token[:min(len(token), base64.RawURLEncoding.EncodedLen(familyBytes))]), s.Now())
	if errors.Is(err, store.ErrNotFound) || err == nil && old.RefreshHash != store.HashToken(token) && old.PreviousHash != store.HashToken(token) {
		return nil
	}
	if err != nil {
		return StoreRefusal(err)
	}
	if old.UserID != given.User.ID {
		return s.EndSessions(ctx, old.UserID, old.ID, "")
	}
	return s.replacedBy(ctx, old.ID, given.SessionID, old.ExpiresAt)
}

// replacedBy notes that a session ends with another. One that took its place
// before, as when a form is sent twice, ends with that too.
func (s *Service) replacedBy(ctx context.Context, oldID, newID string, until time.Time) error {
	err := s.Users().CreateRecord(ctx, store.Record{Kind: kindReplaced, ID: oldID, Owner: newID, Value: []byte("{}"), ExpiresAt: until})
	if !errors.Is(err, store.ErrRecordExists) {
		return StoreRefusal(err)
	}
	before := ""
	_, err = s.Users().UpdateRecord(ctx, kindReplaced, oldID, s.Now(), func(r *store.Record) error {
		before, r.Owner = r.Owner, newID
		return nil
	})
	if err != nil || before == newID {
		return StoreRefusal(err)
	}
	return s.replacedBy(ctx, before, newID, until)
}

// EndBrowser ends a session and all others that are one browser's: those that it
// took the place of, and those that took its.
func (s *Service) EndBrowser(ctx context.Context, userID, sessionID string) error {
	newest, err := s.Newest(ctx, sessionID)
	if err == nil && newest != sessionID {
		err = s.EndSessions(ctx, userID, newest, "")
	}
	if err != nil {
		return err
	}
	return s.EndSessions(ctx, userID, sessionID, "")
}

// Newest is the session that took the place of one in the end.
func (s *Service) Newest(ctx context.Context, sessionID string) (string, error) {
	for range 1000 { // a bound, should the records ever go round
		record, err := s.Users().Record(ctx, kindReplaced, sessionID, s.Now())
		if errors.Is(err, store.ErrNotFound) {
			break
		}
		if err != nil {
			return "", StoreRefusal(err)
		}
		sessionID = record.Owner
	}
	return sessionID, nil
}

func (s *Service) endReplaced(ctx context.Context, userID, sessionID string) error {
	replaced, err := s.Users().Records(ctx, kindReplaced, sessionID, s.Now())
	for _, record := range replaced {
		if err == nil {
			err = s.EndSessions(ctx, userID, record.ID, "")
		}
	}
	return StoreRefusal(err)
}

// ChangePassword changes the password of somebody who knows it, and ends the
// other sessions. Where the new password is the one that the user has, it was changed by
// a request whose answer was lost, and what is left is done.
func (s *Service) ChangePassword(ctx context.Context, userID, sessionID, current, fresh string, client Client) error {
	user, err := s.Users().User(ctx, userID)
	if err != nil {
		return StoreRefusal(err)
	}
	checked, err := s.CheckCredentials(ctx, user.EmailKey, current, client)
	if failure, ok := errors.AsType[*refusal.Error](err); ok && failure.Reason == refusal.WrongCredentials { // which is counted
		done, checkErr := password.Check(ctx, s.HashTurn("log-in", client), user.PasswordHash, fresh)
		if checkErr != nil || !done {
			return errors.Join(StoreRefusal(checkErr), err)
		}
	} else if err != nil {
		return err
	} else if err := s.SetPassword(ctx, userID, &checked.PasswordHash, fresh, client); err != nil {
		return err
	}
	s.Audit("password changed", userID, sessionID, client)
	return s.EndSessions(ctx, userID, "", sessionID)
}

// SetPassword sets a password, if the hash of the one before is still what was
// checked.
func (s *Service) SetPassword(ctx context.Context, userID string, checked *string, pw string, client Client) error {
	hash, err := password.Hash(ctx, s.HashTurn("new password", client), pw)
	if err != nil {
		return StoreRefusal(err)
	}
	_, err = s.Users().UpdateUser(ctx, userID, s.Now(), func(u *store.User) error {
		if checked != nil && u.PasswordHash != *checked {
			return errPasswordChanged
		}
		u.PasswordHash = hash
		return nil
	})
	if errors.Is(err, errPasswordChanged) {
		return &refusal.Error{Reason: refusal.WrongCredentials}
	}
	return StoreRefusal(err)
}

var errPasswordChanged = errors.New("the password was changed meanwhile")

// Purposes of the tokens of `caddy jwt user reset-link`.
const (
	PurposeReset     = "reset"
	PurposeResetKeep = "reset, identities stay"
)

// ResetUser is whose password a token sets, and the token as it is kept. It is not used
// up.
func (s *Service) ResetUser(ctx context.Context, token string) (store.User, store.OneTimeToken, error) {
	found, err := s.Users().OneTimeToken(ctx, store.HashToken(token), PurposeReset, s.Now())
	if errors.Is(err, store.ErrNotFound) {
		found, err = s.Users().OneTimeToken(ctx, store.HashToken(token), PurposeResetKeep, s.Now())
	}
	var user store.User
	if err == nil {
		user, err = s.Users().User(ctx, found.UserID)
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && user.Disabled {
		return store.User{}, store.OneTimeToken{}, &refusal.Error{Reason: refusal.OneTimeToken}
	}
	return user, found, StoreRefusal(err)
}

// ResetPassword sets a password by a one-time token, and ends all that somebody
// else may have set up in the account. It returns the identities that it
// disconnected. If it fails, the token may be used again, to do what is left.
func (s *Service) ResetPassword(ctx context.Context, token, password string, client Client) ([]LinkedIdentity, error) {
	_, link, err := s.ResetUser(ctx, token)
	if err != nil {
		return nil, err
	}
	var gone []LinkedIdentity
	_, err = s.Users().TakeOneTimeToken(ctx, link.Hash, link.Purpose, s.Now())
	if errors.Is(err, store.ErrNotFound) {
		return nil, &refusal.Error{Reason: refusal.OneTimeToken}
	}
	if err == nil {
		gone, err = s.recoverBy(ctx, link, password, client)
	}
	if err != nil {
		err = errors.Join(StoreRefusal(err), s.Users().CreateOneTimeToken(context.WithoutCancel(ctx), link))
	}
	return gone, err
}

// recoverBy does what a one-time token is for.
func (s *Service) recoverBy(ctx context.Context, link store.OneTimeToken, password string, client Client) ([]LinkedIdentity, error) {
	if err := s.SetPassword(ctx, link.UserID, nil, password, client); err != nil {
		return nil, err
	}
	s.Audit("password reset", link.UserID, "", client)
	ctx = context.WithoutCancel(ctx) // the password is another by now
	gone, err := RecoverAccount(ctx, s.Users(), link.UserID, link.Purpose == PurposeResetKeep, s.Now(), func() error {
		return s.EndSessions(ctx, link.UserID, "", "")
	})
	if len(gone) > 0 {
		s.Audit("external identities disconnected", link.UserID, "", client)
	}
	return gone, err
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*refusal.Error](err)
	return ok
}

// StoreRefusal is what a client is told of an error of the store or the hashes.
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
		return refusal.New(refusal.Body, "the client hung up")
	}
	return &refusal.Error{Reason: refusal.StoreUnavailable, Detail: err.Error(), RetryAfter: time.Second}
}

func Throttled(what string, wait time.Duration) *refusal.Error {
	return &refusal.Error{Reason: refusal.Throttled, Detail: "too many " + what, RetryAfter: wait}
}

// Audit logs an account event. It names users by their ID: what is typed as an
// address may be a password.
func (s *Service) Audit(event, userID, sessionID string, client Client) {
	s.Log.Named("audit").Info(event, zap.String("user_id", userID), zap.String("session_id", sessionID), zap.String("client_ip", client.Address))
}

// Interface guards
var _ caddy.Destructor = (*Service)(nil)
