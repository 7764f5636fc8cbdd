package accounts

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"go.uber.org/zap"
)

const (
	// revocationPoll is how often the store is polled for revocations by other processes,
	// so that all of them know within a second.
	revocationPoll = 400 * time.Millisecond
	// listenPause is the pause after listening failed.
	listenPause = time.Second
	// revocationOverlap is queried again, for revocations that were written late or with a
	// slow clock.
	revocationOverlap = 10 * time.Second
	// heardPause is the minimum time between two polls, regardless of notifications.
	heardPause = 100 * time.Millisecond
)

// background runs the tasks of a service: it loads revocations and signing keys of other
// processes, removes expired data, and checks whether a failed store works again.
type background struct {
	*site
	mails   *Mails
	keys    *signing.Keys
	revoked *jwt.Revocations
	ctx     context.Context // ends with the service
	stop    context.CancelFunc
	running sync.WaitGroup

	heard        chan struct{} // wakes watch
	since        time.Time     // for the next poll of revocations
	notReadable  outage.Outage // failures in watch
	storeDown    atomic.Bool   // the same, for the metrics
	requestsFail outage.Outage // failures in requests
}

func newBackground(s *Service) *background {
	b := &background{
		site: s.site, mails: s.Mails, keys: s.Keys, revoked: s.Sessions.Revoked, heard: make(chan struct{}, 1),
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

func (b *background) begin(asked time.Time) {
	b.running.Go(func() { b.watch(asked) })
	b.running.Go(func() { b.maintain(asked) })
	b.running.Go(b.listen)
	if b.mails != nil {
		b.running.Go(func() { b.mails.outbox.Run(b.ctx) })
	}
}

// end stops all tasks and waits for them.
func (b *background) end() {
	b.stop()
	b.running.Wait()
}

// StoreTriedAt returns when a failing store was last used, by a request or in the
// background.
func (s *Service) StoreTriedAt() time.Time { return s.background.requestsFail.LastNoted() }

// LogStoreFailure logs that a request failed because of the store.
func (s *Service) LogStoreFailure(failure *refusal.Error) { s.background.logStoreFailure(failure) }

func (b *background) logStoreFailure(failure *refusal.Error) {
	if failure.Reason != refusal.StoreFull && failure.Reason != refusal.StoreUnavailable {
		return
	}
	if say, lasts := b.requestsFail.Fails(b.Now()); say {
		b.Log.Error("user store is not working; account routes answer with an error, tokens are still verified",
			help.See("user-store-fails"), zap.Duration("for", lasts), zap.Int("status", failure.Reason.Answer().Status),
			zap.String("error", failure.Detail))
	}
}

// watch loads revocations of other processes. It does nothing else, so that nothing delays
// it.
func (b *background) watch(last time.Time) {
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-time.After(revocationPoll - heardPause):
		case <-b.heard:
		}
		now := b.Now()
		if by, moved := clock.Moved(last, now); moved {
			b.Log.Warn("the system clock was changed", help.See("clock-changed"), zap.Duration("by", by))
			b.since = time.Time{} // poll all, because revocations are selected by time
		}
		last = now
		b.learnRevocations()
		select {
		case <-b.ctx.Done():
			return
		case <-time.After(heardPause):
		}
	}
}

// maintain reloads signing keys and removes expired data.
func (b *background) maintain(last time.Time) {
	b.logFirstSteps()
	cleanUps := clock.NewCleanUps(last)
	var notCleaned outage.Outage
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-time.After(revocationPoll):
		}
		_ = b.keys.Reload(b.ctx, signing.ReloadInterval) // Reload logs its errors
		now := b.Now()
		if b.requestsFail.Quiet(now, failsNoMore) {
			b.tryStore(now)
		}
		if !cleanUps.Due(now) {
			continue
		}
		b.revoked.ForgetExpired(now)
		if err := b.Users().CleanUp(b.ctx, now); b.ctx.Err() == nil {
			notCleaned.Note(
				b.Log, now, err, help.See("store-not-cleaned"),
				"expired entries not removed from the user store; will retry",
				"expired entries removed from the user store again",
			)
		}
	}
}

// listen wakes watch when another process has revoked something, if the store supports
// notifications.
func (b *background) listen() {
	for b.ctx.Err() == nil {
		listener, ok := b.Users().(store.RevocationListener)
		if !ok {
			return
		}
		err := listener.ListenRevocations(b.ctx, func() {
			select {
			case b.heard <- struct{}{}:
			default: // it is awake
			}
		})
		if errors.Is(err, store.ErrCannotListen) {
			b.Log.Info(
				"database cannot notify of ended sessions; polling it instead",
				zap.Duration("every", revocationPoll), zap.Error(err),
			)
			return
		}
		select {
		case <-b.ctx.Done():
		case <-time.After(listenPause):
		}
	}
}

func (b *background) learnRevocations() {
	now := b.Now()
	found, err := b.Users().Revocations(b.ctx, b.since, now)
	if b.ctx.Err() != nil {
		return
	}
	b.storeDown.Store(err != nil)
	b.notReadable.Note(
		b.Log, now, err, help.See("user-store-not-readable"),
		"user store not readable; sessions that other processes end stay valid until their tokens expire",
		"user store readable again",
	)
	if err != nil {
		return
	}
	for _, revocation := range found {
		b.revoked.Add(revocation.SessionID, revocation.Until)
	}
	b.since = now.Add(-revocationOverlap)
}

// failsNoMore is how long requests must not have met a store failure before the store is
// tested.
const failsNoMore = time.Minute

// kindTry is the kind of the record that tests whether the store can be written.
const kindTry = "try"

func (b *background) tryStore(now time.Time) {
	err := b.Users().CreateRecord(b.ctx, store.Record{
		Kind: kindTry, ID: store.RandomToken(familyBytes), Value: []byte("{}"), ExpiresAt: now.Add(time.Minute),
	})
	if b.ctx.Err() != nil {
		return
	}
	if err != nil {
		b.logStoreFailure(refusal.Of(StoreRefusal(err)))
	} else if ends, lasted := b.requestsFail.Works(now); ends {
		b.Log.Info("user store is working again", zap.Duration("after", lasted))
	}
}

func (b *background) logFirstSteps() {
	first, err := b.Users().Users(b.ctx, "", 1)
	if err != nil || len(first) > 0 {
		return
	}
	if b.Config.Signup == SignupLoginWith {
		b.Log.Info("there are no users yet; whoever logs in by login_with becomes one")
		return
	}
	where := ""
	// also the default one, since another user has another
	if path, err := filestore.Path(b.Config.StoreRaw); err == nil && path != "" {
		where = " --store " + filestore.ShellWord(path)
	}
	b.Log.Info("there are no users yet; add the first one with: caddy jwt user add" + where + " <email>")
}
