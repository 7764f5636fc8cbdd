// Package backchannel keeps the log-outs that the issuers of tokens have reported (OpenID
// Connect Back-Channel Logout 1.0), in Caddy's storage, which the nodes of a cluster share.
package backchannel

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"github.com/go-json-experiment/json"
	"go.uber.org/zap"
)

const (
	// Poll is how often the log-outs that other nodes have stored are looked for.
	Poll = 500 * time.Millisecond
	// MaxLogouts is how many log-outs of an issuer are kept at the same time.
	MaxLogouts = 100_000
	// storageTimeout is how long the storage may take.
	storageTimeout = 5 * time.Second
	folder         = "jwt/logouts"
	// marker is the name of the file that changes with each log-out, so that a look need not
	// list the others.
	marker = "changed"
)

// Errors of [Logouts.Add].
var (
	ErrRepeated = errors.New("jti was used before")
	ErrFull     = fmt.Errorf("more than %d log-outs are kept", MaxLogouts)
)

// Logout is a log-out that an issuer has reported. It ends a session, by its ID, or all
// sessions of a subject.
type Logout struct {
	SessionID string    `json:"sid,omitempty"`
	Subject   string    `json:"sub,omitempty"`
	Issued    time.Time `json:"iat"`
	Until     time.Time `json:"until"` // when the last token of the session has expired
}

// apply revokes the tokens of the log-out. If it names a session and a subject, the subject's
// tokens that have no `sid` may be those of the session.
func (l *Logout) apply(revoked *jwt.Revocations) {
	if l.SessionID != "" {
		revoked.Add(l.SessionID, l.Until)
	}
	if l.Subject != "" {
		revoked.AddSubject(l.Subject, l.Issued, l.Until, l.SessionID != "")
	}
}

// Logouts are the log-outs of an issuer. All handlers of the process with the same issuer share
// them. It is safe for concurrent use.
type Logouts struct {
	// Revoked refuses the tokens.
	Revoked *jwt.Revocations

	issuer  string
	stop    context.CancelFunc
	running sync.WaitGroup
	reading outage.Outage
	storing outage.Outage

	mu      sync.Mutex
	storage certmagic.Storage    // of the newest config
	known   map[string]time.Time // file to when it is removed
	seen    string               // content of the marker
}

var shared = caddy.NewUsagePool()

// Open returns the log-outs of an issuer that are stored. It returns an error if the storage
// cannot be read, because tokens of ended sessions would be accepted. The caller must call
// Close.
func Open(ctx caddy.Context, issuer string) (*Logouts, error) {
	loaded, _, err := shared.LoadOrNew(issuer, func() (caddy.Destructor, error) {
		l := &Logouts{
			Revoked: jwt.NewRevocations(), issuer: issuer, storage: ctx.Storage(), known: make(map[string]time.Time),
		}
		if err := l.look(ctx); err != nil {
			return nil, fmt.Errorf("reading the log-outs in the storage: %w", err)
		}
		background, stop := context.WithCancel(context.Background())
		l.stop = stop
		l.running.Go(func() { l.poll(background) })
		return l, nil
	})
	if err != nil {
		return nil, err
	}
	l := loaded.(*Logouts)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.storage = ctx.Storage()
	return l, nil
}

// Close releases the log-outs.
func (l *Logouts) Close() error {
	_, err := shared.Delete(l.issuer)
	return err
}

// Destruct implements caddy.Destructor.
func (l *Logouts) Destruct() error {
	l.stop()
	l.running.Wait()
	return nil
}

// Add ends sessions at once on this node, and stores that for the others. id is the `jti` of the
// logout token, which is accepted once.
func (l *Logouts) Add(ctx context.Context, id string, logout Logout) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	name := hashed(id) + ".json"
	_, repeated := l.known[name]
	if _, err := l.storage.Load(ctx, l.path(name)); repeated || err == nil {
		return ErrRepeated
	}
	logout.apply(l.Revoked) // first, in case the storage fails
	err := l.store(ctx, name, logout)
	l.storing.Note(
		l.log(), clock.Now(), err, help.See("logouts-not-stored"),
		"log-outs are not stored, so they only have an effect on this node, until its restart",
		"log-outs are stored again",
	)
	return err
}

func (l *Logouts) store(ctx context.Context, name string, logout Logout) error {
	if len(l.known) >= MaxLogouts {
		return ErrFull
	}
	text, err := json.Marshal(logout)
	if err == nil {
		err = l.storage.Store(ctx, l.path(name), text)
	}
	if err == nil {
		err = l.storage.Store(ctx, l.path(marker), []byte(rand.Text())) // after the file, see look
	}
	if err != nil {
		_ = l.storage.Delete(ctx, l.path(name)) // so that the issuer can repeat it
		return err
	}
	l.known[name] = logout.Until
	return nil
}

func (l *Logouts) log() *zap.Logger {
	return caddy.Log().Named("http.handlers.jwt").With(zap.String("issuer", l.issuer))
}

func (l *Logouts) path(name string) string { return path.Join(folder, hashed(l.issuer), name) }

func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func (l *Logouts) poll(ctx context.Context) {
	cleanUps := clock.NewCleanUps(clock.Now())
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(Poll):
		}
		err := l.look(ctx)
		if ctx.Err() != nil {
			return
		}
		l.reading.Note(
			l.log(), clock.Now(), err, help.See("logouts-not-readable"),
			"log-outs in the storage are not readable; those of other nodes have no effect here until they are",
			"log-outs in the storage are readable again",
		)
		if now := clock.Now(); cleanUps.Due(now) {
			l.clean(ctx, now)
		}
	}
}

// look applies the log-outs that were stored since the last look. A node changes the marker after
// it has stored a file, so what is listed after the marker was read is complete.
func (l *Logouts) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	changed, err := l.storage.Load(ctx, l.path(marker))
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(changed) == l.seen {
		return nil
	}
	if err != nil {
		return err
	}
	files, err := l.storage.List(ctx, l.path(""), false)
	if err != nil {
		return err
	}
	now := clock.Now()
	for _, file := range files {
		name := path.Base(file)
		if _, known := l.known[name]; known || name == marker || path.Ext(name) != ".json" {
			continue
		}
		text, err := l.storage.Load(ctx, file)
		if errors.Is(err, fs.ErrNotExist) { // another node has removed it
			continue
		}
		if err != nil {
			return err
		}
		var logout Logout
		if err := json.Unmarshal(text, &logout); err != nil {
			return fmt.Errorf("%s: %w", file, jwt.JSONError(err))
		}
		l.known[name] = logout.Until
		if now.Before(logout.Until) {
			logout.apply(l.Revoked)
		}
	}
	l.seen = string(changed)
	return nil
}

// clean removes the log-outs whose tokens have expired.
func (l *Logouts) clean(ctx context.Context, now time.Time) {
	l.Revoked.ForgetExpired(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, until := range l.known {
		if now.Before(until) || ctx.Err() != nil {
			continue
		}
		err := l.storage.Delete(ctx, l.path(name)) // another node may have removed it
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			delete(l.known, name)
		}
	}
}
