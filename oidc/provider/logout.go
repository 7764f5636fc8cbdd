package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// endSession logs the user out (OpenID Connect RP-Initiated Logout 1.0). Unless
// the ID token of the browser's session comes with it, the user is asked. An ID token
// without the browser's session ends what its client has, and nothing of the user or
// of other clients.
func (p *Provider) endSession(w http.ResponseWriter, r *http.Request) error {
	values, err := logoutValues(r)
	if err == nil {
		err = once(values)
	}
	if err == nil && values.Get("interaction") != "" {
		var posted interaction
		posted, err = p.openInteraction(r.Context(), values.Get("interaction"))
		values = posted.Parameters
	}
	if err != nil {
		return shown(err)
	}
	request, err := p.parseLogout(r.Context(), values)
	if err != nil {
		return shown(err)
	}
	login, err := p.accounts.Login(w, r)
	if err != nil && !nobody(err) {
		return err
	}
	if login == nil {
		if err := p.endClient(r.Context(), request.clientID, request.subject, request.sessionID); err != nil {
			return err
		}
		if r.Method != http.MethodPost {
			return p.loggedOut(w, r, request)
		}
		// A post from the client's page comes without the cookie, a redirect with it.
		id, err := p.sealInteraction(r.Context(), interaction{Parameters: values, BeganAt: p.accounts.Now()})
		if err != nil {
			return shown(err)
		}
		seeOther(w, p.basePath+"/oidc/logout?interaction="+id)
		return nil
	}
	agreed := r.Method == http.MethodPost && values.Get("decision") == "logout" && crossOrigin.Check(r) == nil
	hinted, err := p.accounts.Newest(r.Context(), request.sessionID)
	if err != nil {
		return err
	}
	if !agreed && (hinted != login.SessionID || request.subject != login.User.ID) {
		return p.pages.render(w, r, "logout", map[string]any{"Email": login.User.Email, "Action": p.basePath + "/oidc/logout", "Values": request.kept()}, http.StatusOK)
	}
	if err := p.accounts.LogOut(w, r, login.User.ID, login.SessionID); err != nil {
		return err
	}
	return p.loggedOut(w, r, request)
}

func logoutValues(r *http.Request) (url.Values, error) {
	if r.Method == http.MethodPost {
		return form(r)
	}
	return r.URL.Query(), nil
}

// endClient ends what a client has of a session: codes, and grants that end with the
// session.
func (p *Provider) endClient(ctx context.Context, clientID, userID, sessionID string) error {
	if sessionID == "" {
		return nil
	}
	if _, err := p.accounts.Session(ctx, userID, sessionID); errors.Is(err, errNotFound) { // what was of it ends already
		return nil
	} else if err != nil {
		return err
	}
	ids, codes, err := list[code](ctx, p.state, kindCode, sessionID)
	for i, known := range codes {
		if known.Grant.ClientID == clientID && !known.Grant.has("offline_access") {
			err = errors.Join(err, p.state.remove(ctx, kindCode, ids[i]))
		}
	}
	ids, grants, listErr := list[grant](ctx, p.state, kindGrant, sessionID)
	err = errors.Join(err, listErr)
	for i, known := range grants {
		if known.ClientID == clientID && !known.has("offline_access") {
			err = errors.Join(err, p.revokeGrant(ctx, ids[i]))
		}
	}
	return err
}

// logoutRequest is what a client asks for, checked.
type logoutRequest struct {
	clientID, hint, redirectURI, state string
	subject, sessionID                 string // of the hint
}

// kept are the parameters for the form that asks the user.
func (l *logoutRequest) kept() map[string]string {
	kept := make(map[string]string)
	for name, value := range map[string]string{"client_id": l.clientID, "id_token_hint": l.hint, "post_logout_redirect_uri": l.redirectURI, "state": l.state} {
		if value != "" {
			kept[name] = value
		}
	}
	return kept
}

func (p *Provider) parseLogout(ctx context.Context, values url.Values) (*logoutRequest, error) {
	l := &logoutRequest{clientID: values.Get("client_id"), hint: values.Get("id_token_hint"), state: values.Get("state")}
	if l.hint != "" {
		if err := p.readHint(ctx, l); err != nil {
			return nil, err
		}
	}
	redirect := values.Get("post_logout_redirect_uri")
	if redirect == "" {
		return l, nil
	}
	client, err := p.clients.find(ctx, l.clientID)
	if errors.Is(err, errNotFound) {
		return nil, refuse("invalid_request", "post_logout_redirect_uri requires an id_token_hint or a client_id, which identifies the client")
	}
	if err != nil {
		return nil, err
	}
	if !slices.Contains(client.PostLogoutRedirectURIs, redirect) {
		return nil, refuse("invalid_request", "post_logout_redirect_uri does not exactly match one that is registered for the client")
	}
	l.redirectURI = redirect
	return l, nil
}

const (
	// hintLifetime is how long after its end an ID token ends a session.
	hintLifetime = 30 * 24 * time.Hour
	// hintLeeway has an ID token that has expired still say who is meant.
	hintLeeway = 100 * 365 * 24 * time.Hour
)

// readHint learns whose session is to end. The key of an old ID token may be gone:
// such a token proves nothing, so that the user is asked, and says like client_id
// which client it is. So does one that has expired long ago.
func (p *Provider) readHint(ctx context.Context, l *logoutRequest) error {
	token, err := p.hints.Verify(ctx, l.hint, p.accounts.Now())
	var audience string
	switch {
	case err == nil && p.accounts.Now().After(token.Expiry().Add(hintLifetime-hintLeeway)):
		audience, _ = token.Claims["aud"].(string)
		l.hint = ""
	case err == nil:
		audience, _ = token.Claims["aud"].(string)
		l.subject = token.UserID
		l.sessionID, _ = token.Claims["sid"].(string)
	case ofGoneKey(err):
		audience, l.hint = unverifiedClaim(l.hint, "aud"), ""
	default:
		return refuse("invalid_request", "id_token_hint is not an ID token of this provider")
	}
	if l.clientID != "" && l.clientID != audience {
		return refuse("invalid_request", "id_token_hint and client_id belong to different clients")
	}
	l.clientID = audience
	return nil
}

// ofGoneKey tells whether a token names a key that is not known, or not any more.
func ofGoneKey(err error) bool {
	failure, ok := errors.AsType[*refusal.Error](err)
	return ok && failure.Reason == refusal.UnknownKey
}

func (p *Provider) loggedOut(w http.ResponseWriter, r *http.Request, l *logoutRequest) error {
	if l.redirectURI == "" {
		return p.pages.render(w, r, "logout", map[string]any{"Done": true}, http.StatusOK)
	}
	location := l.redirectURI
	if l.state != "" {
		separator := "?"
		if strings.Contains(location, "?") {
			separator = "&"
		}
		location += separator + url.Values{"state": {l.state}}.Encode()
	}
	seeOther(w, location)
	return nil
}

const (
	logoutTries    = 14 // over some 2 hours
	logoutsAtOnce  = 4  // to one client
	logoutTimeout  = 5 * time.Second
	logoutLifetime = 2 * time.Minute
	logoutMemory   = 24 * time.Hour
	// logoutPoll is how often the store is looked at for log-outs that another
	// node has left.
	logoutPoll = 5 * time.Second
	// missedPoll is how often it is looked for sessions whose end nobody has noted:
	// they expired, or ended while no node ran.
	missedPoll  = time.Hour
	missedRetry = time.Minute
)

// clientLogin says that a client has a login in a session, until that ends.
type clientLogin struct {
	ClientID  string `json:"client_id"`
	UserID    string `json:"user_id"`
	SessionID string `json:"session_id"`
	Since     string `json:"since,omitempty"` // that of the client
}

func (p *Provider) keepClient(ctx context.Context, client *Client, g *grant) error {
	kept := clientLogin{client.ID, g.UserID, g.SessionID, client.Since}
	id := hashed(g.SessionID + "\n" + client.ID)
	err := p.state.create(ctx, kindClientLogin, id, g.SessionID, kept, 366*24*time.Hour)
	if !errors.Is(err, store.ErrRecordExists) {
		return err
	}
	// It may be of a client of the same name that was deleted since.
	_, err = change(ctx, p.state, kindClientLogin, id, func(l *clientLogin) error {
		if *l == kept {
			return errUnchanged
		}
		*l = kept
		return nil
	})
	if errors.Is(err, errUnchanged) || errors.Is(err, errNotFound) { // the session has ended meanwhile
		return nil
	}
	return err
}

var errUnchanged = errors.New("it says so already")

// logout is a client that is to be told of the end of a session. It is in the
// store until that is done, so that it outlives a restart, and any node may do it.
type logout struct {
	clientLogin
	Tries     int       `json:"tries,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	Done      bool      `json:"done,omitempty"`
}

// logouts tells clients of sessions that have ended (OpenID Connect Back-Channel
// Logout 1.0).
type logouts struct {
	stopListening func()
	ctx           context.Context
	cancel        context.CancelFunc
	running       sync.WaitGroup

	mu    sync.Mutex
	ended []string        // IDs of sessions that are not noted yet
	busy  map[string]bool // clients that are being told, by ID
	wake  chan struct{}
	noted chan struct{}
}

func (p *Provider) newLogouts() {
	l := &logouts{busy: make(map[string]bool), wake: make(chan struct{}, 1), noted: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	p.logouts = l
	l.stopListening = p.accounts.OnSessionEnd(func(sessionID string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended = append(l.ended, sessionID)
		signal(l.wake)
	})
}

// startLogouts tells clients from now on.
func (p *Provider) startLogouts() {
	l := p.logouts
	l.running.Go(p.noteEnded)
	l.running.Go(p.tellDue)
	l.running.Go(p.findMissed)
}

func signal(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default: // it is signalled already
	}
}

func (l *logouts) end() {
	l.stopListening()
	l.cancel()
	l.running.Wait()
}

// noteEnded notes the clients of sessions as they end. To tell them, which may
// take long, is for tellDue.
func (p *Provider) noteEnded() {
	l := p.logouts
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.wake:
		case <-time.After(logoutPoll): // of those that could not be noted
		}
		l.mu.Lock()
		ended := l.ended
		l.ended = nil
		l.mu.Unlock()
		for _, id := range ended {
			if err := p.sessionEnded(l.ctx, id); err != nil {
				l.mu.Lock()
				l.ended = append(l.ended, id)
				l.mu.Unlock()
			}
		}
		if len(ended) > 0 {
			signal(l.noted)
		}
	}
}

// findMissed notes sessions that have ended without a word.
func (p *Provider) findMissed() {
	l := p.logouts
	var outage outage.Outage
	for {
		pause := missedPoll
		err := p.noteMissed(l.ctx)
		if l.ctx.Err() == nil {
			outage.Note(p.log, p.accounts.Now(), err, "looking for ended sessions failed; will retry", "looking for ended sessions works again")
		}
		if err != nil {
			pause = missedRetry
		}
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (p *Provider) noteMissed(ctx context.Context) error {
	_, logins, err := list[clientLogin](ctx, p.state, kindClientLogin, "")
	if err != nil {
		return err
	}
	slices.SortFunc(logins, func(a, b clientLogin) int { return strings.Compare(a.UserID, b.UserID) })
	for len(logins) > 0 {
		of := logins[0].UserID
		i := slices.IndexFunc(logins, func(l clientLogin) bool { return l.UserID != of })
		if i < 0 {
			i = len(logins)
		}
		// Expired ones that are still there included: a clock may be wrong.
		sessions, err := p.accounts.Store().Sessions(ctx, of, time.Time{})
		if err != nil {
			return err
		}
		for _, login := range logins[:i] {
			if !slices.ContainsFunc(sessions, func(s store.Session) bool { return s.ID == login.SessionID }) {
				if err := p.sessionEnded(ctx, login.SessionID); err != nil {
					return err
				}
			}
		}
		logins = logins[i:]
	}
	signal(p.logouts.noted)
	return nil
}

func (p *Provider) tellDue() {
	l := p.logouts
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.noted:
		case <-time.After(logoutPoll):
		}
		p.tellClients(l.ctx)
	}
}

// sessionEnded takes back what was granted in a session that has ended, and notes
// its clients. Several nodes may do so for one session.
func (p *Provider) sessionEnded(ctx context.Context, sessionID string) error {
	ids, logins, err := list[clientLogin](ctx, p.state, kindClientLogin, sessionID)
	for i, login := range logins {
		if err == nil {
			err = p.state.create(ctx, kindLogout, ids[i], "", logout{clientLogin: login}, logoutMemory)
		}
		if err == nil || errors.Is(err, store.ErrRecordExists) {
			err = p.state.remove(ctx, kindClientLogin, ids[i])
		}
	}
	grantIDs, grants, listErr := list[grant](ctx, p.state, kindGrant, sessionID)
	err = errors.Join(err, listErr)
	for i, g := range grants {
		if !g.has("offline_access") {
			err = errors.Join(err, p.revokeGrant(ctx, grantIDs[i]))
		}
	}
	if err != nil && ctx.Err() == nil {
		p.log.Warn("recording the clients of an ended session failed; will retry", zap.Error(err))
	}
	return err
}

// tellClients begins to tell those that are due, each by one node. A client that
// does not answer holds up no other.
func (p *Provider) tellClients(ctx context.Context) {
	ids, logouts, err := list[logout](ctx, p.state, kindLogout, "")
	if err != nil {
		return // the accounts say that the store fails
	}
	due := make(map[string][]string)
	for i, l := range logouts {
		if !l.Done && !l.NotBefore.After(p.accounts.Now()) {
			due[l.ClientID] = append(due[l.ClientID], ids[i])
		}
	}
	l := p.logouts
	l.mu.Lock()
	defer l.mu.Unlock()
	for clientID, ids := range due {
		if l.busy[clientID] {
			continue
		}
		l.busy[clientID] = true
		l.running.Go(func() {
			err := p.tellOne(ctx, ids)
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.busy, clientID)
			if err == nil {
				signal(l.noted) // what was noted meanwhile need not wait for logoutPoll
			}
		})
	}
}

// errAnswered means that a client answered, and did not like what it was told.
var errAnswered = errors.New("it answered")

// tellOne tells one client of several log-outs. If the client does not answer, that
// is an error, and the rest waits for the next time.
func (p *Provider) tellOne(ctx context.Context, ids []string) error {
	all, failed := errgroup.WithContext(ctx)
	all.SetLimit(logoutsAtOnce)
	for _, id := range ids {
		if failed.Err() != nil {
			break
		}
		all.Go(func() error {
			err := p.tellClient(ctx, id)
			if errors.Is(err, errAnswered) {
				return nil
			}
			return err
		})
	}
	return all.Wait()
}

var errNotDue = errors.New("another node does it")

func (p *Provider) tellClient(ctx context.Context, id string) error {
	now := p.accounts.Now()
	told, err := change(ctx, p.state, kindLogout, id, func(l *logout) error {
		if l.Done || l.NotBefore.After(now) {
			return errNotDue
		}
		l.Tries++
		l.NotBefore = now.Add(max(2*logoutTimeout, time.Second<<l.Tries)) // if this node dies meanwhile, too
		return nil
	})
	if errors.Is(err, errNotDue) || errors.Is(err, errNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	client, err := p.clients.find(ctx, told.ClientID)
	switch {
	case errors.Is(err, errNotFound) || err == nil && (client.BackchannelLogoutURI == "" || client.Since != told.Since):
		err = nil
	case err == nil:
		err = p.sendLogout(ctx, client, &told.clientLogin)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && told.Tries < logoutTries {
		p.log.Debug("client not notified of a log-out; will retry", zap.String("client_id", told.ClientID), zap.Int("tries", told.Tries), zap.Error(err))
		retry := now.Add(time.Second << (told.Tries - 1))
		_, _ = change(ctx, p.state, kindLogout, id, func(l *logout) error { l.NotBefore = retry; return nil })
		return err
	}
	if err != nil {
		p.log.Warn("client not notified of a log-out", zap.String("client_id", told.ClientID), zap.Int("tries", told.Tries), zap.Error(err))
	}
	// It is kept for a moment, so that a node that is late finds it done.
	_, _ = p.accounts.Store().UpdateRecord(ctx, p.state.kind(kindLogout), id, p.accounts.Now(), func(r *store.Record) error {
		r.Value, r.ExpiresAt = []byte(`{"done":true}`), p.accounts.Now().Add(logoutLifetime)
		return nil
	})
	return err
}

func (p *Provider) sendLogout(ctx context.Context, client *Client, g *clientLogin) error {
	now := p.accounts.Now()
	token, err := p.sign(ctx, p.idKeys, "logout+jwt", map[string]any{
		"iss": p.Issuer, "aud": client.ID, "sub": g.UserID, "sid": g.SessionID, "iat": now.Unix(), "exp": now.Add(logoutLifetime).Unix(), "jti": uuid.NewString(),
		"events": map[string]any{protocol.LogoutEvent: map[string]any{}},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, logoutTimeout)
	defer cancel()
	body := []byte(url.Values{"logout_token": {token}}.Encode())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, client.BackchannelLogoutURI, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := logoutClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%w %s", errAnswered, response.Status)
	}
	return nil
}

// logoutClient follows no redirect: the token is for the one address.
var logoutClient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
