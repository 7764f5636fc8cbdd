package caddyjwt

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
	refreshBytes = 32 // random bytes of each refresh token beside them

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

// accountService is what the handlers of one site's accounts share: keys,
// store, throttles, and what was revoked. It outlives config reloads, and
// knows nothing of HTTP.
type accountService struct {
	config   Accounts
	identity string // under which it is shared
	keys     *signing.Keys
	verifier *jwt.Verifier
	revoked  *jwt.Revocations
	route    func(path string) (name, id string)

	counts                                   *tryCounts
	accountFailures, clientFailures, signups *throttle
	refusedSignups                           *throttle // by client; they say whose address is taken
	externalBegun                            *throttle // log-ins at providers, by client
	externalKept                             *throttle // those of all strangers, since they are kept
	// Tries that are spared for when those of an account are used up; see
	// spares. Clients that have logged in to an account are familiar.
	familiarTries, strangerTries, sparedTries *throttle
	familiar                                  *otter.Cache[string, struct{}]

	requestsFail outage.Outage // of the store, as requests meet it
	storeOutage  outage.Outage // the same, as watch does
	heard        chan struct{} // wakes watch
	revokedSince time.Time     // of what is asked for next
	storeDown    atomic.Bool   // for the metrics

	signingUp singleflight.Group // by EmailKey

	starting sync.Mutex
	started  atomic.Bool

	links links

	storesMu sync.Mutex
	stores   []*store.UserStore // of the configs that are loaded, the newest last
	store    atomic.Pointer[store.UserStore]
	now      func() time.Time

	refreshKey atomic.Pointer[[]byte]
	log        *zap.Logger
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

// accountServices are in use, by identity.
var accountServices = caddy.NewUsagePool()

// openAccounts resolves the config and returns the service for it, which is
// shared with all that have the same config. Each caller releases it.
func openAccounts(ctx caddy.Context, settings *Accounts) (*accountService, error) {
	if err := settings.resolve(); err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	if err := claimAccounts(ctx, settings); err != nil {
		return nil, err
	}
	store, err := loadStore(ctx, settings)
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
	shared, _, err := accountServices.LoadOrNew(identity, func() (caddy.Destructor, error) {
		return newAccountService(ctx, *settings, identity, fixed, store)
	})
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	service := shared.(*accountService)
	service.addStore(&store)
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
func (s *accountService) start(ctx context.Context) error {
	if s.started.Load() {
		return nil
	}
	s.starting.Lock()
	defer s.starting.Unlock()
	if s.started.Load() {
		return nil
	}
	if err := s.keys.Ensure(ctx); err != nil {
		return err
	}
	asked := s.now()
	s.learnRevocations()
	s.running.Go(func() { s.watch(asked) })
	s.running.Go(func() { s.maintain(asked) })
	s.running.Go(s.listen)
	s.started.Store(true)
	return nil
}

// ready is start for a request, which may come before the config has started.
func (s *accountService) ready(ctx context.Context) *refusal.Error {
	if s.started.Load() {
		return nil
	}
	if err := s.start(ctx); err != nil {
		return refusal.Of(storeRefusal(err))
	}
	return nil
}

// addStore has the store of the newest config be the one that is used. Each is
// cleaned up with its config, also with one that is refused after this.
func (s *accountService) addStore(store *store.UserStore) {
	s.storesMu.Lock()
	defer s.storesMu.Unlock()
	s.stores = append(s.stores, store)
	s.store.Store(store)
}

func (s *accountService) dropStore(users *store.UserStore) {
	s.storesMu.Lock()
	defer s.storesMu.Unlock()
	s.stores = slices.DeleteFunc(s.stores, func(known *store.UserStore) bool { return known == users })
	if len(s.stores) > 0 {
		s.store.Store(s.stores[len(s.stores)-1])
	}
}

// identity tells configs apart, and the keys in them as they are now: a file or
// variable that has another key at a reload makes other accounts.
func (a *Accounts) identity(fixed *signing.Signer) (string, error) {
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

func loadStore(ctx caddy.Context, config *Accounts) (store.UserStore, error) {
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

func newAccountService(ctx caddy.Context, config Accounts, identity string, fixed *signing.Signer, store store.UserStore) (*accountService, error) {
	s := &accountService{
		config: config, identity: identity, route: config.routeNames(), now: clock.Now, heard: make(chan struct{}, 1),
		log: caddy.Log().Named("http.handlers.jwt_accounts"),
	}
	pooled, _, err := tryCountSets.LoadOrNew(config.keyIdentity(), func() (caddy.Destructor, error) { return new(tryCounts), nil })
	if err != nil {
		return nil, err
	}
	s.counts = pooled.(*tryCounts)
	s.accountFailures = s.newThrottle("log-ins of an account", config.ThrottleFailures, time.Duration(config.ThrottleWindow))
	s.clientFailures = s.newThrottle("log-ins of a client", clientFailuresPerMinute, time.Minute)
	s.signups = s.newThrottle("sign-ups", config.SignupLimit, time.Hour)
	s.refusedSignups = s.newThrottle("refused sign-ups of a client", clientFailuresPerMinute, time.Minute)
	s.externalBegun = s.newThrottle("log-ins at providers", clientFailuresPerMinute, time.Minute)
	s.externalKept = s.newThrottle("log-ins at providers of all clients", pendingKept, pendingLifetime)
	s.familiarTries = s.newThrottle("tries of a familiar client", config.ThrottleFailures, time.Duration(config.ThrottleWindow))
	s.strangerTries = s.newThrottle("tries of a stranger", strangerTries, time.Duration(config.ThrottleWindow))
	s.sparedTries = s.newThrottle("tries of strangers", sparedFactor*config.ThrottleFailures, time.Duration(config.ThrottleWindow))
	if config.ThrottleFailures < 0 {
		s.clientFailures, s.externalBegun, s.refusedSignups = nil, nil, nil
	}
	s.familiar = otter.Must(&otter.Options[string, struct{}]{
		MaximumSize: maxThrottled, ExpiryCalculator: otter.ExpiryWriting[string, struct{}](time.Duration(config.RefreshLifetime)),
	})
	s.store.Store(&store)
	s.ctx, s.stop = context.WithCancel(context.Background())
	shared, _, err := revocationSets.LoadOrNew(config.keyIdentity(), func() (caddy.Destructor, error) { return sharedRevocations{jwt.NewRevocations()}, nil })
	if err != nil {
		return nil, err
	}
	s.revoked = shared.(sharedRevocations).Revocations
	if s.keys, err = newSigningKeys(ctx, config, fixed, s); err != nil {
		return nil, err
	}
	s.verifier, err = jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{s.asIssuer()}, Leeway: jwt.DefaultLeeway})
	return s, err
}

// fixedKey is the key that stands in the config, or nil.
func (a *Accounts) fixedKey() (*signing.Signer, error) {
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

func newSigningKeys(ctx caddy.Context, config Accounts, fixed *signing.Signer, s *accountService) (*signing.Keys, error) {
	if fixed != nil {
		return signing.Fixed(*fixed)
	}
	o := s.keyOptions(ctx.Storage(), config.keyIdentity(), "ES256", time.Duration(config.TokenLifetime))
	if files, ok := s.users().(*filestore.Store); ok {
		files.IsUsedWhere(func(ctx context.Context) bool { return o.Storage.Exists(ctx, o.Path) })
		o.MayMake = func(ctx context.Context) error {
			_, _, err := files.Connect(ctx)
			return err
		}
	}
	return signing.New(o), nil
}

// keyOptions are those of signing keys of the accounts.
func (s *accountService) keyOptions(storage certmagic.Storage, identity, algorithm string, lifetime time.Duration) signing.Options {
	path := signing.Path(identity)
	return signing.Options{
		Algorithm: algorithm, Storage: storage, Path: path, TokenLifetime: lifetime + jwt.MaxLeeway, Now: s.now,
		Withdrawn: func(ctx context.Context) ([]string, error) { return store.WithdrawnKeys(ctx, s.users(), path, s.now()) },
		Log:       func() *zap.Logger { return caddy.Log().Named("http.handlers.jwt_accounts") },
	}
}

// keyIdentity tells sites apart whose tokens must not serve each other: those
// with another issuer or other users.
func (a *Accounts) keyIdentity() string { return a.Issuer + "\n" + string(a.StoreRaw) }

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

// asIssuer is how a jwt handler accepts the tokens.
func (s *accountService) asIssuer() jwt.Issuer {
	return jwt.Issuer{
		Name: s.config.Issuer, Keys: []jwt.KeySource{s.keys}, Algorithms: s.keys.Algorithms(),
		Audience: s.config.Audience, TokenType: "at+jwt", Revoked: s.revoked,
	}
}

func (s *accountService) users() store.UserStore { return *s.store.Load() }

func (s *accountService) release() error {
	_, err := accountServices.Delete(s.identity)
	return err
}

// Destruct implements caddy.Destructor: nothing is left running after it.
func (s *accountService) Destruct() error {
	s.stop()
	s.running.Wait()
	_, err := revocationSets.Delete(s.config.keyIdentity())
	_, countsErr := tryCountSets.Delete(s.config.keyIdentity())
	return errors.Join(err, countsErr)
}

// watch learns what other processes revoked. It does nothing else, so that nothing
// holds it up.
func (s *accountService) watch(last time.Time) {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(revocationPoll - heardPause):
		case <-s.heard:
		}
		now := s.now()
		if by, moved := clock.Moved(last, now); moved {
			s.log.Warn("the clock was set to another time", zap.Duration("by", by))
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
func (s *accountService) maintain(last time.Time) {
	s.sayHowToBegin()
	cleanUps := clock.NewCleanUps(last)
	var notCleaned outage.Outage
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(revocationPoll):
		}
		_ = s.keys.Reload(s.ctx, signing.ReloadInterval) // which logs it
		now := s.now()
		if s.requestsFail.Quiet(now, failsNoMore) {
			s.tryStore(now)
		}
		if !cleanUps.Due(now) {
			continue
		}
		s.revoked.ForgetExpired(now)
		if err := s.users().CleanUp(s.ctx, now); s.ctx.Err() == nil {
			notCleaned.Note(s.log, now, err, "what has expired is not removed from the user store; it will be tried again", "what has expired is removed from the user store again")
		}
	}
}

// listen wakes watch when another process has revoked something, if the store
// hears of it.
func (s *accountService) listen() {
	for s.ctx.Err() == nil {
		listener, ok := s.users().(store.RevocationListener)
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
			s.log.Info("database does not tell of ended sessions; it is asked", zap.Duration("every", revocationPoll), zap.Error(err))
			return
		}
		select {
		case <-s.ctx.Done():
		case <-time.After(listenPause):
		}
	}
}

func (s *accountService) learnRevocations() {
	now := s.now()
	found, err := s.users().Revocations(s.ctx, s.revokedSince, now)
	if s.ctx.Err() != nil {
		return
	}
	s.storeDown.Store(err != nil)
	s.storeOutage.Note(s.log, now, err, "user store not readable; sessions that other processes end are good until their tokens expire", "user store readable again")
	if err != nil {
		return
	}
	for _, revocation := range found {
		s.revoked.Add(revocation.SessionID, revocation.Until)
	}
	s.revokedSince = now.Add(-revocationOverlap)
}

// sayStoreFails logs that a request met a store that could not do its work.
func (s *accountService) sayStoreFails(failure *refusal.Error) {
	if failure.Reason != refusal.StoreFull && failure.Reason != refusal.StoreUnavailable {
		return
	}
	if say, lasts := s.requestsFail.Fails(s.now()); say {
		s.log.Error("user store fails; account routes answer so, and tokens are verified all the same",
			zap.Duration("for", lasts), zap.Int("status", failure.Reason.Answer().Status), zap.String("error", failure.Detail))
	}
}

// failsNoMore is how long no request must have met a store that fails until it is tried
// whether that is over.
const failsNoMore = time.Minute

// kindTry is of a record that is made to find out whether the store can be written.
const kindTry = "try"

func (s *accountService) tryStore(now time.Time) {
	err := s.users().CreateRecord(s.ctx, store.Record{Kind: kindTry, ID: store.RandomToken(familyBytes), Value: []byte("{}"), ExpiresAt: now.Add(time.Minute)})
	if s.ctx.Err() != nil {
		return
	}
	if err != nil {
		s.sayStoreFails(refusal.Of(storeRefusal(err)))
	} else if ends, lasted := s.requestsFail.Works(now); ends {
		s.log.Info("user store fails no more", zap.Duration("after", lasted))
	}
}

func (s *accountService) sayHowToBegin() {
	first, err := s.users().Users(s.ctx, "", 1)
	if err != nil || len(first) > 0 {
		return
	}
	where := ""
	if path, err := filestore.Path(s.config.StoreRaw); err == nil && path != "" { // also the default one, since another user has another
		where = " --store " + filestore.ShellWord(path)
	}
	s.log.Info("there is no user yet; this adds the first: caddy jwt user add" + where + " <email>")
}

// clientInfo is who talks to the service.
type clientInfo struct {
	address   string // Caddy's client_ip
	userAgent string
}

// grant is what a log-in or a refresh gives.
type grant struct {
	user         store.User
	sessionID    string
	accessToken  string
	refreshToken string
	expiresIn    time.Duration
	sessionEnds  time.Time
	inTime       func() bool // of a refresh: nobody else can have replaced refreshToken yet
}

// signUp makes an account.
func (s *accountService) signUp(ctx context.Context, email, password string, profile map[string]any, client clientInfo) (store.User, error) {
	key, err := store.EmailKey(email)
	if err != nil {
		return store.User{}, refusal.Property("email", "format", err)
	}
	if _, wait := s.signups.begin(ctx, network.Key(client.address), s.now()); wait > 0 {
		return store.User{}, throttled("sign-ups of the client", wait)
	}
	// Of many at once for one address one makes a hash, and none if it is taken. They
	// are one question.
	var user store.User
	first := false
	_, err, _ = s.signingUp.Do(key, func() (any, error) {
		first = true
		refused, wait := s.refusedSignups.begin(ctx, network.Key(client.address), s.now())
		if wait > 0 {
			return nil, throttled("refused sign-ups of the client", wait)
		}
		defer func() {
			if !errors.Is(err, store.ErrEmailTaken) { // also where it is not the client's fault
				refused.forgive()
			}
		}()
		user, err = s.addUser(context.WithoutCancel(ctx), key, email, password, profile, client)
		return nil, err
	})
	if err == nil && !first || errors.Is(err, store.ErrEmailTaken) {
		countEvent("signup", "refused")
		return store.User{}, &refusal.Error{Reason: refusal.EmailTaken}
	}
	if err != nil {
		return store.User{}, storeRefusal(err)
	}
	s.audit("signup", user.ID, "", client)
	return user, nil
}

func (s *accountService) addUser(ctx context.Context, key, email, pw string, profile map[string]any, client clientInfo) (store.User, error) {
	if _, err := s.users().UserByEmail(ctx, key); err == nil {
		return store.User{}, store.ErrEmailTaken
	} else if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, err // before a hash is made for nothing
	}
	hash, err := password.Hash(ctx, s.hashTurn("sign-up", client), pw)
	if err != nil {
		return store.User{}, err
	}
	now := s.now()
	user := store.User{
		ID: uuid.NewString(), Email: email, EmailKey: key, PasswordHash: hash,
		Roles: s.config.DefaultRoles, Profile: profile, CreatedAt: now, UpdatedAt: now,
	}
	return user, s.users().CreateUser(ctx, user)
}

func (s *accountService) hashTurn(what string, client clientInfo) password.Turn {
	return password.Turn{Queue: s.config.HashQueue, What: what, Client: client.address}
}

// logIn begins a session. An unknown user, a disabled one and a wrong password
// cannot be told apart, by the answer or its time.
func (s *accountService) logIn(ctx context.Context, email, pw string, client clientInfo) (*grant, error) {
	key, err := store.EmailKey(email)
	if err != nil {
		key = "" // nobody's
	}
	user, err := s.checkCredentials(ctx, key, pw, client)
	if err != nil {
		return nil, err
	}
	if password.Weak(user.PasswordHash) {
		user = s.rehash(ctx, user, pw, client)
	}
	return s.beginSession(ctx, user, client)
}

func (s *accountService) checkCredentials(ctx context.Context, emailKey, pw string, client clientInfo) (store.User, error) {
	now := s.now()
	byClient, wait := s.clientFailures.begin(ctx, network.Key(client.address), now)
	if wait > 0 {
		return store.User{}, s.refuseThrottled("client", wait, client)
	}
	user, err := s.users().UserByEmail(ctx, emailKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		byClient.forgive()
		return store.User{}, storeRefusal(err)
	}
	familiar := sync.OnceValue(func() bool { return s.isFamiliar(ctx, user, emailKey, client, now) })
	byAccount, wait := s.accountFailures.begin(ctx, emailKey, now)
	used := []attempt{byClient, byAccount}
	if wait > 0 {
		spared, allowed := s.spares(ctx, familiar(), emailKey, client, now)
		if !allowed {
			return store.User{}, s.refuseThrottled("account", wait, client)
		}
		used = append(used, spared...)
	}
	forgive := func() {
		for _, a := range used {
			a.forgive()
		}
	}
	hash := user.PasswordHash
	if user.Disabled {
		hash = ""
	}
	turn := s.hashTurn("log-in", client)
	turn.Familiar = familiar
	right, err := password.Check(ctx, turn, hash, pw)
	if err != nil {
		forgive()
		return store.User{}, storeRefusal(err)
	}
	switch {
	case !right && wait > 0:
		return store.User{}, s.refuseThrottled("account", wait, client)
	case !right:
		countEvent("login", "refused")
		s.audit("login refused", user.ID, "", client)
		return store.User{}, &refusal.Error{Reason: refusal.WrongCredentials}
	}
	forgive()
	s.familiar.Set(familiarKey(emailKey, client), struct{}{})
	return user, nil
}

const (
	strangerTries = 3  // of a client from which nobody has logged in to the account
	sparedFactor  = 10 // of all such clients, times the failures of an account
)

// spares tells whether a client may try the password of an account whose tries
// others have used up: if it is right, it is let in, so that whoever keeps
// guessing locks nobody out, and else the answer is the one without a try. A
// client from which somebody has logged in to the account has as many tries as
// the account; any other has few, and to use up those of all takes many clients
// that guess again and again. A right password gives back what was used. Nothing
// here depends on whether there is such a user.
func (s *accountService) spares(ctx context.Context, familiar bool, emailKey string, client clientInfo, now time.Time) (used []attempt, allowed bool) {
	if familiar {
		its, wait := s.familiarTries.begin(ctx, familiarKey(emailKey, client), now)
		return []attempt{its}, wait == 0
	}
	stranger, wait := s.strangerTries.begin(ctx, emailKey+"\n"+network.Prefix(client.address, 48), now)
	if wait > 0 {
		return nil, false
	}
	spared, wait := s.sparedTries.begin(ctx, emailKey, now)
	return []attempt{stranger, spared}, wait == 0
}

// isFamiliar tells whether somebody has logged in to the account from the client:
// here, or at another node in a session that goes on.
func (s *accountService) isFamiliar(ctx context.Context, user store.User, emailKey string, client clientInfo, now time.Time) bool {
	_, here := s.familiar.GetIfPresent(familiarKey(emailKey, client))
	sessions, err := s.users().Sessions(ctx, user.ID, now) // also of nobody, so that it takes as long
	return here || err == nil && slices.ContainsFunc(sessions, func(x store.Session) bool { return network.Key(x.Address) == network.Key(client.address) })
}

func familiarKey(emailKey string, client clientInfo) string {
	return emailKey + "\n" + network.Key(client.address)
}

func (s *accountService) refuseThrottled(what string, wait time.Duration, client clientInfo) *refusal.Error {
	countEvent("login", "throttled")
	s.log.Debug("log-in throttled", zap.String("by", what), zap.String("client_ip", client.address))
	return throttled("failed log-ins of the "+what, wait)
}

// kindRehashed is of hashes that took the place of one of the same password: the
// ID is the mark of the new one, the value that of the one before.
const kindRehashed = "rehashed password"

// passwordMark tells passwords apart, and is no secret.
func passwordMark(user store.User) string { return store.HashToken(user.PasswordHash) }

// rehash replaces a hash of weaker parameters. If it cannot be done now, it is
// at the next log-in.
func (s *accountService) rehash(ctx context.Context, user store.User, pw string, client clientInfo) store.User {
	turn := s.hashTurn("log-in", client)
	turn.Familiar = func() bool { return true } // by now
	hash, err := password.Hash(ctx, turn, pw)
	var renewed store.User
	var before []byte
	if err == nil {
		before, err = json.Marshal(passwordMark(user))
	}
	if err == nil {
		err = s.users().CreateRecord(ctx, store.Record{Kind: kindRehashed, ID: store.HashToken(hash), Owner: user.ID, Value: before})
	}
	if err == nil {
		renewed, err = s.users().UpdateUser(ctx, user.ID, s.now(), func(u *store.User) error {
			if u.PasswordHash != user.PasswordHash {
				return store.ErrNotFound // it was changed meanwhile
			}
			u.PasswordHash = hash
			return nil
		})
	}
	if err != nil {
		s.log.Warn("password hash not renewed; it will be at the next log-in", zap.String("user_id", user.ID), zap.Error(err))
		return user
	}
	return renewed
}

func (s *accountService) beginSession(ctx context.Context, user store.User, client clientInfo) (*grant, error) {
	now := s.now()
	family := store.RandomToken(familyBytes)
	refresh := family + store.RandomToken(refreshBytes)
	session := store.Session{
		ID: uuid.NewString(), UserID: user.ID, FamilyHash: s.familyHash(family), RefreshHash: store.HashToken(refresh),
		CreatedAt: now, UsedAt: now, ExpiresAt: now.Add(time.Duration(s.config.RefreshLifetime)), LastTokenUntil: s.lastTokenUntil(now),
		Client: cut(client.userAgent, 256), Address: client.address,
	}
	err := s.users().CreateSession(ctx, session, user.PasswordHash)
	if errors.Is(err, store.ErrNotFound) { // deleted, disabled, or with another password in this moment
		return nil, &refusal.Error{Reason: refusal.WrongCredentials}
	}
	if err != nil {
		return nil, storeRefusal(err)
	}
	countEvent("login", "ok")
	s.audit("login", user.ID, session.ID, client)
	if err := s.endSurplus(ctx, user); err != nil {
		return nil, err
	}
	return s.grant(user, session, refresh, now)
}

// maxSessions is how many sessions a user may have. Of more, those end that
// were not used for the longest time.
const maxSessions = 100

func (s *accountService) endSurplus(ctx context.Context, user store.User) error {
	sessions, err := s.users().Sessions(ctx, user.ID, s.now())
	if err != nil {
		return storeRefusal(err)
	}
	for _, session := range sessions[min(len(sessions), maxSessions):] {
		if err := s.endSessions(ctx, user.ID, session.ID, ""); err != nil {
			return err
		}
	}
	return nil
}

// familyHash is of the part that the refresh tokens of a family share, and of
// the issuer: sites may share a store, and not their sessions.
func (s *accountService) familyHash(family string) string {
	return store.HashToken(s.config.Issuer + "\n" + family)
}

// lastTokenUntil is when a token made now has expired everywhere, and one that is made
// without a change of the session, by the same refresh token within repeatWithin.
func (s *accountService) lastTokenUntil(now time.Time) time.Time {
	return now.Add(time.Duration(s.config.TokenLifetime)).Add(jwt.MaxLeeway).Add(repeatWithin)
}

func cut(text string, length int) string {
	if len(text) > length {
		text = text[:length]
	}
	return strings.ToValidUTF8(text, "")
}

func (s *accountService) grant(user store.User, session store.Session, refresh string, now time.Time) (*grant, error) {
	lifetime := min(time.Duration(s.config.TokenLifetime), session.ExpiresAt.Sub(now))
	roles := user.Roles
	if roles == nil {
		roles = []string{}
	}
	token, err := s.keys.Sign("at+jwt", map[string]any{
		"iss": s.config.Issuer, "sub": user.ID, "aud": s.config.Audience, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(lifetime).Unix(),
		"jti": uuid.NewString(), "sid": session.ID, "email": user.Email, "roles": roles, "scope": accountScope,
	})
	return &grant{
		user: user, sessionID: session.ID, accessToken: token, refreshToken: refresh, expiresIn: lifetime, sessionEnds: session.ExpiresAt,
	}, err
}

// rotationTries is how often a refresh begins anew because another use of the token
// was faster.
const rotationTries = 20

// refresh gives an access token, and the refresh token that takes the place of the
// one that is used. One whose successor was used ends its session, since either its
// owner or a thief has it too.
func (s *accountService) refresh(ctx context.Context, token string, client clientInfo) (*grant, error) {
	family := token[:min(len(token), base64.RawURLEncoding.EncodedLen(familyBytes))]
	use, err := s.useRefreshToken(ctx, RefreshUse{Token: token, Family: family, HashOf: store.HashToken})
	if err != nil {
		return nil, storeRefusal(err)
	}
	for range rotationTries {
		given, err := s.rotate(ctx, use, client)
		if !errors.Is(err, errRotatedMeanwhile) {
			return given, err
		}
	}
	return nil, storeRefusal(errRotatedMeanwhile)
}

var errRotatedMeanwhile = errors.New("another use of the refresh token was faster")

func (s *accountService) rotate(ctx context.Context, use *RefreshUse, client clientInfo) (*grant, error) {
	now := s.now()
	session, err := s.users().SessionByFamily(ctx, s.familyHash(use.Family), now)
	if errors.Is(err, store.ErrNotFound) {
		countEvent("refresh", "refused")
		return nil, &refusal.Error{Reason: refusal.RefreshToken}
	}
	if err != nil {
		return nil, storeRefusal(err)
	}
	user, err := s.users().User(ctx, session.UserID)
	if err != nil {
		return nil, storeRefusal(err)
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
		err = s.users().RotateSession(ctx, store.Rotation{
			FamilyHash: session.FamilyHash, ValidHash: session.RefreshHash, OldHash: next.PreviousHash, NewHash: next.Hash, Now: next.RotatedAt,
			LastTokenUntil: s.lastTokenUntil(now), Client: cut(client.userAgent, 256), Address: client.address,
		})
		if errors.Is(err, store.ErrNotFound) {
			return nil, errRotatedMeanwhile
		}
		if err != nil {
			return nil, storeRefusal(err)
		}
	}
	given, err := s.grant(user, session, fresh, now)
	if err == nil {
		err = storeRefusal(use.InTime(next))
	}
	if err != nil {
		return nil, err
	}
	given.inTime = func() bool { return use.InTime(next) == nil }
	if next.PreviousHash == line.PreviousHash {
		countEvent("refresh", "repeated")
	} else {
		countEvent("refresh", "ok")
	}
	return given, nil
}

// endReused ends a session one of whose refresh tokens two have had.
func (s *accountService) endReused(ctx context.Context, session store.Session, client clientInfo) error {
	if err := s.endSessions(ctx, session.UserID, session.ID, ""); err != nil {
		return err
	}
	countEvent("refresh", "reused")
	s.audit("refresh token reused, session ended", session.UserID, session.ID, client)
	return refusal.New(refusal.RefreshToken, "it was used before; the session is ended")
}

// endSessions ends the user's session with the ID only or, if that is empty,
// all but the one with the ID except. Their access tokens are refused from now
// on.
func (s *accountService) endSessions(ctx context.Context, userID, only, except string) error {
	now := s.now()
	if only != "" { // first, since nobody can say it again once the session has ended
		if err := s.endReplaced(ctx, userID, only); err != nil {
			return err
		}
	}
	ended, err := s.users().EndSessions(ctx, userID, only, except, now)
	if err != nil {
		return storeRefusal(err)
	}
	for _, id := range ended {
		s.revoked.Add(id, s.lastTokenUntil(now))
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

// replaceSession notes that a browser which has a session has begun another; token is
// the refresh token of the one before, empty for none. That of another user ends.
func (s *accountService) replaceSession(ctx context.Context, given *grant, token string) error {
	if token == "" {
		return nil
	}
	old, err := s.users().SessionByFamily(ctx, s.familyHash(token[:min(len(token), base64.RawURLEncoding.EncodedLen(familyBytes))]), s.now())
	if errors.Is(err, store.ErrNotFound) || err == nil && old.RefreshHash != store.HashToken(token) && old.PreviousHash != store.HashToken(token) {
		return nil
	}
	if err != nil {
		return storeRefusal(err)
	}
	if old.UserID != given.user.ID {
		return s.endSessions(ctx, old.UserID, old.ID, "")
	}
	return s.replacedBy(ctx, old.ID, given.sessionID, old.ExpiresAt)
}

// replacedBy notes that a session ends with another. One that took its place
// before, as when a form is sent twice, ends with that too.
func (s *accountService) replacedBy(ctx context.Context, oldID, newID string, until time.Time) error {
	err := s.users().CreateRecord(ctx, store.Record{Kind: kindReplaced, ID: oldID, Owner: newID, Value: []byte("{}"), ExpiresAt: until})
	if !errors.Is(err, store.ErrRecordExists) {
		return storeRefusal(err)
	}
	before := ""
	_, err = s.users().UpdateRecord(ctx, kindReplaced, oldID, s.now(), func(r *store.Record) error {
		before, r.Owner = r.Owner, newID
		return nil
	})
	if err != nil || before == newID {
		return storeRefusal(err)
	}
	return s.replacedBy(ctx, before, newID, until)
}

// endBrowser ends a session and all others that are one browser's: those that it
// took the place of, and those that took its.
func (s *accountService) endBrowser(ctx context.Context, userID, sessionID string) error {
	newest, err := s.newest(ctx, sessionID)
	if err == nil && newest != sessionID {
		err = s.endSessions(ctx, userID, newest, "")
	}
	if err != nil {
		return err
	}
	return s.endSessions(ctx, userID, sessionID, "")
}

// newest is the session that took the place of one in the end.
func (s *accountService) newest(ctx context.Context, sessionID string) (string, error) {
	for range 1000 { // a bound, should the records ever go round
		record, err := s.users().Record(ctx, kindReplaced, sessionID, s.now())
		if errors.Is(err, store.ErrNotFound) {
			break
		}
		if err != nil {
			return "", storeRefusal(err)
		}
		sessionID = record.Owner
	}
	return sessionID, nil
}

func (s *accountService) endReplaced(ctx context.Context, userID, sessionID string) error {
	replaced, err := s.users().Records(ctx, kindReplaced, sessionID, s.now())
	for _, record := range replaced {
		if err == nil {
			err = s.endSessions(ctx, userID, record.ID, "")
		}
	}
	return storeRefusal(err)
}

// changePassword changes the password of somebody who knows it, and ends the
// other sessions. Where the new password is the one that the user has, it was changed by
// a request whose answer was lost, and what is left is done.
func (s *accountService) changePassword(ctx context.Context, userID, sessionID, current, fresh string, client clientInfo) error {
	user, err := s.users().User(ctx, userID)
	if err != nil {
		return storeRefusal(err)
	}
	checked, err := s.checkCredentials(ctx, user.EmailKey, current, client)
	if failure, ok := errors.AsType[*refusal.Error](err); ok && failure.Reason == refusal.WrongCredentials { // which is counted
		done, checkErr := password.Check(ctx, s.hashTurn("log-in", client), user.PasswordHash, fresh)
		if checkErr != nil || !done {
			return errors.Join(storeRefusal(checkErr), err)
		}
	} else if err != nil {
		return err
	} else if err := s.setPassword(ctx, userID, &checked.PasswordHash, fresh, client); err != nil {
		return err
	}
	s.audit("password changed", userID, sessionID, client)
	return s.endSessions(ctx, userID, "", sessionID)
}

// setPassword sets a password, if the hash of the one before is still what was
// checked.
func (s *accountService) setPassword(ctx context.Context, userID string, checked *string, pw string, client clientInfo) error {
	hash, err := password.Hash(ctx, s.hashTurn("new password", client), pw)
	if err != nil {
		return storeRefusal(err)
	}
	_, err = s.users().UpdateUser(ctx, userID, s.now(), func(u *store.User) error {
		if checked != nil && u.PasswordHash != *checked {
			return errPasswordChanged
		}
		u.PasswordHash = hash
		return nil
	})
	if errors.Is(err, errPasswordChanged) {
		return &refusal.Error{Reason: refusal.WrongCredentials}
	}
	return storeRefusal(err)
}

var errPasswordChanged = errors.New("the password was changed meanwhile")

// Purposes of the tokens of `caddy jwt user reset-link`.
const (
	purposeReset     = "reset"
	purposeResetKeep = "reset, identities stay"
)

// resetUser is whose password a token sets, and the token as it is kept. It is not used
// up.
func (s *accountService) resetUser(ctx context.Context, token string) (store.User, store.OneTimeToken, error) {
	found, err := s.users().OneTimeToken(ctx, store.HashToken(token), purposeReset, s.now())
	if errors.Is(err, store.ErrNotFound) {
		found, err = s.users().OneTimeToken(ctx, store.HashToken(token), purposeResetKeep, s.now())
	}
	var user store.User
	if err == nil {
		user, err = s.users().User(ctx, found.UserID)
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && user.Disabled {
		return store.User{}, store.OneTimeToken{}, &refusal.Error{Reason: refusal.OneTimeToken}
	}
	return user, found, storeRefusal(err)
}

// resetPassword sets a password by a one-time token, and ends all that somebody
// else may have set up in the account. It returns the identities that it
// disconnected. If it fails, the token may be used again, to do what is left.
func (s *accountService) resetPassword(ctx context.Context, token, password string, client clientInfo) ([]linkedIdentity, error) {
	_, link, err := s.resetUser(ctx, token)
	if err != nil {
		return nil, err
	}
	var gone []linkedIdentity
	_, err = s.users().TakeOneTimeToken(ctx, link.Hash, link.Purpose, s.now())
	if errors.Is(err, store.ErrNotFound) {
		return nil, &refusal.Error{Reason: refusal.OneTimeToken}
	}
	if err == nil {
		gone, err = s.recoverBy(ctx, link, password, client)
	}
	if err != nil {
		err = errors.Join(storeRefusal(err), s.users().CreateOneTimeToken(context.WithoutCancel(ctx), link))
	}
	return gone, err
}

// recoverBy does what a one-time token is for.
func (s *accountService) recoverBy(ctx context.Context, link store.OneTimeToken, password string, client clientInfo) ([]linkedIdentity, error) {
	if err := s.setPassword(ctx, link.UserID, nil, password, client); err != nil {
		return nil, err
	}
	s.audit("password reset", link.UserID, "", client)
	ctx = context.WithoutCancel(ctx) // the password is another by now
	gone, err := recoverAccount(ctx, s.users(), link.UserID, link.Purpose == purposeResetKeep, s.now(), func() error {
		return s.endSessions(ctx, link.UserID, "", "")
	})
	if len(gone) > 0 {
		s.audit("external identities disconnected", link.UserID, "", client)
	}
	return gone, err
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*refusal.Error](err)
	return ok
}

// storeRefusal is what a client is told of an error of the store or the hashes.
func storeRefusal(err error) error {
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

func throttled(what string, wait time.Duration) *refusal.Error {
	return &refusal.Error{Reason: refusal.Throttled, Detail: "too many " + what, RetryAfter: wait}
}

// audit logs an account event. It names users by their ID: what is typed as an
// address may be a password.
func (s *accountService) audit(event, userID, sessionID string, client clientInfo) {
	s.log.Named("audit").Info(event, zap.String("user_id", userID), zap.String("session_id", sessionID), zap.String("client_ip", client.address))
}

// Interface guards
var _ caddy.Destructor = (*accountService)(nil)
