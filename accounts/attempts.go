package accounts

import (
	"fmt"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"
)

// Attempts counts the attempts of clients: per account, per client and in total.
type Attempts struct {
	counts *attemptCounts
	pooled string // the key under which counts are shared
	issuer string
	users  func() store.UserStore

	logIns *Throttle // by account
	// Clients counts the failed log-ins of clients.
	Clients *Throttle
	signUps *Throttle // by client
	// codes and codesADay count the wrong mailed codes of an address.
	codes, codesADay *Throttle
	// RefusedSignUps counts, by client, sign-ups that reveal that an address is taken.
	RefusedSignUps *Throttle
	// External counts log-ins at providers by client. ExternalKept counts those of all
	// clients without a session, because their state is stored.
	External, ExternalKept *Throttle
	// These attempts are reserved for when those of an account are used up; see
	// [LogIns.Spares]. Clients that have logged in to an account before are familiar.
	familiars, strangers, allStrangers *Throttle

	// factorCodes counts wrong codes of second factors by user, and familiarCodes those of a client that has
	// passed one before. challenges counts log-ins that ask for one, by user and client.
	factorCodes, familiarCodes, challenges *Throttle

	familiar *otter.Cache[string, struct{}]
}

func newAttempts(config Config, users func() store.UserStore) (*Attempts, error) {
	a := &Attempts{issuer: config.Issuer, users: users, pooled: config.KeyScope()}
	pooled, _, err := attemptCountSets.LoadOrNew(a.pooled, func() (caddy.Destructor, error) {
		return new(attemptCounts), nil
	})
	if err != nil {
		return nil, err
	}
	a.counts = pooled.(*attemptCounts)
	failures, window := config.ThrottleFailures, time.Duration(config.ThrottleWindow)
	byName, byStranger := failures, StrangerAttempts
	if config.Identifier == IdentifierAny && failures > 0 { // an account may have two: a name and an address
		byName, byStranger = (failures+1)/2, (StrangerAttempts+1)/2
	}
	a.logIns = a.NewThrottle("log-ins of an account", byName, window)
	a.Clients = a.NewThrottle("log-ins of a client", ClientFailuresPerMinute, time.Minute)
	a.codes = a.NewThrottle("mailed codes of an address", failures, window)
	a.codesADay = a.NewThrottle("mailed codes of an address in a day", wrongCodesPerDay, 24*time.Hour)
	a.signUps = a.NewThrottle("sign-ups", config.SignupLimit, time.Hour)
	a.RefusedSignUps = a.NewThrottle("refused sign-ups of a client", ClientFailuresPerMinute, time.Minute)
	a.External = a.NewThrottle("log-ins at providers", ClientFailuresPerMinute, time.Minute)
	a.ExternalKept = a.NewThrottle("log-ins at providers of all clients", PendingKept, PendingLifetime)
	a.familiars = a.NewThrottle("tries of a familiar client", byName, window)
	a.strangers = a.NewThrottle("tries of a stranger", byStranger, window)
	a.allStrangers = a.NewThrottle("tries of strangers", SparedFactor*byName, window)
	a.factorCodes = a.NewThrottle("codes of a user", CodeFailures, codeWindow)
	a.familiarCodes = a.NewThrottle("codes of a familiar client", CodeFailures, codeWindow)
	a.challenges = a.NewThrottle("challenges of a client", maxChallenges, challengeLifetime)
	if failures < 0 {
		a.Clients, a.External, a.RefusedSignUps = nil, nil, nil
	}
	a.familiar = otter.Must(&otter.Options[string, struct{}]{
		MaximumSize:      maxThrottled,
		ExpiryCalculator: otter.ExpiryWriting[string, struct{}](time.Duration(config.RefreshLifetime)),
	})
	return a, nil
}

func (a *Attempts) release() error {
	_, err := attemptCountSets.Delete(a.pooled)
	return err
}

// NewThrottle returns a throttle whose counts are shared by all sites with the same issuer
// and store and, if the store supports it, by all nodes.
func (a *Attempts) NewThrottle(name string, failures int, window time.Duration) *Throttle {
	t := newThrottle(a.issuer+"\n"+name, failures, window)
	if t != nil {
		kept, _ := a.counts.LoadOrStore(fmt.Sprint(name, failures, window), t.Counts)
		t.Counts = kept.(*otter.Cache[string, *rate.Limiter])
		t.shared = func() store.AttemptCounter {
			counter, _ := a.users().(store.AttemptCounter)
			return counter
		}
	}
	return t
}
