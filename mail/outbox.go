package mail

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

const (
	// poll is how often the store is asked for mails that another node has left.
	poll = time.Second
	// sendTimeout is how long sending a mail may take, whatever the mailer.
	sendTimeout = 80 * time.Second
	// lease is how long a node that sends a mail has it for itself.
	lease = sendTimeout + 20*time.Second
	// atOnce is how many mails a node sends at once.
	atOnce = 4
	// parting is how long mails that are being sent may take when the outbox ends.
	parting = 2 * time.Second
	// shortestPause and longestPause are between two attempts while no mail can be sent.
	shortestPause, longestPause = time.Second, time.Minute
	// firstDelay and longestDelay are between two attempts to send a mail that is deferred.
	firstDelay, longestDelay = 15 * time.Second, 30 * time.Minute
	// expiredKept is how long an expired mail is kept, so that it is noticed.
	expiredKept = time.Hour
)

// maxWaiting is how many mails may wait to be sent. A test sets another.
var maxWaiting int64 = 1000

// ErrQueueFull means that too many mails wait to be sent.
var ErrQueueFull = errors.New("too many mails wait to be sent")

// Outbox keeps mails in a store until they are sent, so that no request waits for a mail server,
// and no mail is lost by a restart. Each node with the store sends the mails of all.
type Outbox struct {
	Options

	wake chan struct{}
	// how many mails wait: those that the last poll has seen, and others, of which some are stored
	counted, others, stored atomic.Int64

	// of the goroutine of Run
	pause time.Duration // after the last failure; 0 if there was none
	until time.Time     // when the pause ends

	mu   sync.Mutex
	sent map[string]bool // IDs of mails whose fate is known but that could not be removed

	down, refusing outage.Outage
}

// Options are what an [Outbox] works with.
type Options struct {
	// Issuer identifies the accounts whose mails these are, together with Store, which is where they wait.
	Issuer, Store string
	// Records returns the store, and Mailer what sends the mails.
	Records func() store.RecordStore
	Mailer  func() Mailer
	// Now is the clock, and Log the logger. Its child `audit` has what happens to each mail.
	Now func() time.Time
	Log *zap.Logger
}

// NewOutbox returns an outbox. Call [Outbox.Run] to send what is in it.
func NewOutbox(options Options) *Outbox {
	return &Outbox{Options: options, wake: make(chan struct{}, 1), sent: make(map[string]bool)}
}

// queued is the record of a mail.
type queued struct {
	Message
	Tries     int       `json:"tries,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"` // of the next attempt
}

func (o *Outbox) kind() string { return "mail of " + o.Issuer }

// Queue stores a mail, which is sent later, and returns its ID. Errors: [ErrQueueFull], an *[Error]
// if the mail can never be sent, or that of the store.
func (o *Outbox) Queue(ctx context.Context, m Message) (id string, err error) {
	settings, now := o.Mailer().Common(), o.Now()
	m.ID, m.CreatedAt = newID(), now
	if end := now.Add(time.Duration(settings.RetryFor)); m.ExpiresAt.IsZero() || m.ExpiresAt.After(end) {
		m.ExpiresAt = end
	}
	if _, err := settings.compose(&m); err != nil {
		return "", err
	}
	if o.counted.Load()+o.others.Add(1) > maxWaiting {
		o.others.Add(-1)
		Count(m.Kind, "dropped")
		return "", ErrQueueFull
	}
	value, err := json.Marshal(queued{Message: m})
	if err == nil {
		err = o.Records().CreateRecord(ctx, store.Record{
			Kind: o.kind(), ID: m.ID, Owner: m.UserID, Value: value, ExpiresAt: m.ExpiresAt.Add(expiredKept),
		})
	}
	if err != nil {
		o.others.Add(-1)
		return "", err
	}
	o.stored.Add(1)
	Count(m.Kind, "queued")
	o.awake()
	return m.ID, nil
}

// Run sends mails until ctx ends.
func (o *Outbox) Run(ctx context.Context) {
	defer waiting.DeleteLabelValues(o.Issuer, o.Store)
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		case <-time.After(poll):
		}
		o.sendDue(ctx)
	}
}

// sendDue sends the mails that are due, a few at once. While none can be sent, it tries one now
// and then.
func (o *Outbox) sendDue(ctx context.Context) {
	now := o.Now()
	if left := o.until.Sub(now); left > 0 && left <= 2*longestPause { // more is left if the clock was set back
		return
	}
	before := o.stored.Load()
	_, all, err := store.Values[queued](ctx, o.Records(), o.kind(), "", now)
	if err != nil {
		return // the accounts log that the store fails
	}
	o.counted.Store(int64(len(all)))
	o.others.Add(-before)
	o.stored.Add(-before)
	waiting.WithLabelValues(o.Issuer, o.Store).Set(float64(len(all)))
	due := slices.DeleteFunc(all, func(q queued) bool { return !q.isDue(now) })
	slices.SortFunc(due, func(a, b queued) int {
		return cmp.Or(a.NotBefore.Compare(b.NotBefore), a.CreatedAt.Compare(b.CreatedAt))
	})
	if o.pause > 0 { // a decoy says nothing about the mailer, so it waits as long as there is a mail to try
		first := slices.IndexFunc(due, func(q queued) bool { return !q.Decoy })
		if first >= 0 {
			due = due[first : first+1]
		}
	}
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(parting, cancel) })()
	var round errgroup.Group
	round.SetLimit(atOnce)
	var failed, worked atomic.Bool
	for _, q := range due {
		if failed.Load() || ctx.Err() != nil {
			break
		}
		round.Go(func() error {
			answered, err := o.sendOne(sending, q.ID)
			if err != nil {
				failed.Store(true)
			}
			if answered {
				worked.Store(true)
			}
			return nil
		})
	}
	_ = round.Wait()
	switch {
	case failed.Load():
		o.pause = min(max(2*o.pause, shortestPause), longestPause)
		o.until = o.Now().Add(jitter(o.pause))
	case worked.Load() && o.pause > 0: // it works again: the others need not wait
		o.pause = 0
		o.awake()
	}
}

// isDue reports whether it is time for an attempt, also if the clock was set back.
func (q *queued) isDue(now time.Time) bool {
	left := q.NotBefore.Sub(now)
	return left <= 0 || left > 2*longestDelay
}

func (o *Outbox) awake() {
	select {
	case o.wake <- struct{}{}:
	default: // it is awake
	}
}

// jitter returns a duration that differs by up to a fifth, so that nodes do not act together.
func jitter(d time.Duration) time.Duration { return d - d/5 + rand.N(2*d/5+1) }

var errNotDue = errors.New("another node sends it")

// sendOne sends a mail, unless another node does. It returns whether the mailer has decided about it,
// and an error if none can be sent now.
func (o *Outbox) sendOne(ctx context.Context, id string) (answered bool, err error) {
	if o.wasSent(id) {
		return false, o.remove(ctx, id)
	}
	now := o.Now()
	q, err := store.ChangeValue(ctx, o.Records(), o.kind(), id, now, func(q *queued) error {
		if !q.isDue(now) {
			return errNotDue
		}
		q.Tries++
		q.NotBefore = now.Add(lease) // also if this node ends in the meantime
		return nil
	})
	if errors.Is(err, errNotDue) || errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	m := &q.Message
	if !now.Before(m.ExpiresAt) {
		return false, o.end(ctx, m, "expired", zap.Int("tries", q.Tries-1))
	}
	if m.Decoy {
		return false, o.end(ctx, m, "withheld")
	}
	timed, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	mailer := o.Mailer()
	answer, failure := mailer.Send(timed, m)
	if failure == nil {
		if ends, lasted := o.down.Works(o.Now()); ends {
			o.Log.Info("mails are sent again", zap.Duration("after", lasted))
		}
		return true, o.end(ctx, m, "sent", zap.String("answer", withoutAddress(answer, m.To)))
	}
	reason := errors.New(withoutAddress(failure.Error(), m.To))
	switch ClassOf(failure) {
	case Refused:
		if say, _ := o.refusing.Fails(o.Now()); say {
			o.Log.Warn(
				"a mail was refused, and is not sent again; others are in the log `audit`", help.See("mail-refused"),
				zap.String("mailer", mailer.Where()), zap.String("mail_id", id), zap.String("kind", m.Kind),
				zap.Error(reason),
			)
		}
		return true, o.end(ctx, m, "refused", zap.Error(reason))
	case Deferred:
		Count(m.Kind, "deferred")
		delay := min(firstDelay<<min(q.Tries-1, 10), longestDelay)
		o.putOff(ctx, id, o.Now().Add(jitter(delay)))
		o.audit("mail deferred", m, zap.Int("tries", q.Tries), zap.Error(reason))
		return true, nil
	}
	o.putOff(ctx, id, o.Now())
	if ctx.Err() != nil {
		return false, ctx.Err() // this node ends, which is not the fault of the server
	}
	Count(m.Kind, "deferred")
	o.down.Note(
		o.Log.With(zap.String("mailer", mailer.Where())), o.Now(), reason, help.See("mails-not-sent"),
		"mails cannot be sent; will retry until they expire", "mails are sent again",
	)
	return false, reason
}

// end removes a mail whose fate is known.
func (o *Outbox) end(ctx context.Context, m *Message, result string, more ...zap.Field) error {
	Count(m.Kind, result)
	o.audit("mail "+result, m, more...)
	o.mu.Lock()
	o.sent[m.ID] = true
	o.mu.Unlock()
	return o.remove(ctx, m.ID)
}

func (o *Outbox) wasSent(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent[id]
}

// remove removes a mail from the store. If that fails, this node does not send it again.
func (o *Outbox) remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), parting)
	defer cancel()
	_, err := o.Records().TakeRecord(ctx, o.kind(), id, o.Now())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	o.counted.Add(-1)
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.sent, id)
	return nil
}

// putOff says when a mail is due again. If that fails, it is when its lease ends.
func (o *Outbox) putOff(ctx context.Context, id string, until time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), parting)
	defer cancel()
	_, _ = store.ChangeValue(ctx, o.Records(), o.kind(), id, o.Now(), func(q *queued) error {
		q.NotBefore = until
		return nil
	})
}

// audit logs what happened to a mail, with neither its address nor its content.
func (o *Outbox) audit(event string, m *Message, more ...zap.Field) {
	o.Log.Named("audit").Info(event, append([]zap.Field{
		zap.String("user_id", m.UserID), zap.String("mail_id", m.ID), zap.String("kind", m.Kind),
	}, more...)...)
}
