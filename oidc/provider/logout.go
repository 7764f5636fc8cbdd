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

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/internal/outgoing"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// endSession logs the user out (OpenID Connect RP-Initiated Logout 1.0). It asks the user
// first, unless the request has the ID token of the browser's session. An ID token without
// the browser's session only ends the access of its client; the user and other clients are
// not affected.
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
		// A POST from the client's page does not send the cookie, a redirect does.
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
		return p.pages.render(w, r, p.accounts.Language(r, ""), "logout", map[string]any{
			"Email": login.User.Email, "Action": p.basePath + "/oidc/logout", "Values": request.kept(),
		}, http.StatusOK)
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

// endClient ends a client's access from a session: codes, and grants that end with the
// session.
func (p *Provider) endClient(ctx context.Context, clientID, userID, sessionID string) error {
	if sessionID == "" {
		return nil
	}
	// a session that has ended is handled already
	if _, err := p.accounts.Session(ctx, userID, sessionID); errors.Is(err, errNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	ids, codes, err := list[code](ctx, p.state, kindCode, userID)
	for i, known := range codes {
		g := known.Grant
		if g.SessionID == sessionID && g.ClientID == clientID && !g.has("offline_access") {
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

// logoutRequest is a validated request of a client.
type logoutRequest struct {
	clientID, hint, redirectURI, state string
	subject, sessionID                 string // from the hint
}

// kept returns the parameters for the confirmation form.
func (l *logoutRequest) kept() map[string]string {
	kept := make(map[string]string)
	for name, value := range map[string]string{
		"client_id": l.clientID, "id_token_hint": l.hint, "post_logout_redirect_uri": l.redirectURI, "state": l.state,
	} {
		if value != "" {
			kept[name] = value
		}
	}
	return kept
}

func (p *Provider) parseLogout(ctx context.Context, values url.Values) (*logoutRequest, error) {
	l := &logoutRequest{
		clientID: values.Get("client_id"), hint: values.Get("id_token_hint"), state: values.Get("state"),
	}
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
		return nil, refuse(
			"invalid_request",
			"post_logout_redirect_uri requires an id_token_hint or a client_id, which identifies the client",
		)
	}
	if err != nil {
		return nil, err
	}
	if !slices.Contains(client.PostLogoutRedirectURIs, redirect) {
		p.noteRedirect(client, "post_logout_redirect_uri", redirect, client.PostLogoutRedirectURIs)
		return nil, refuse(
			"invalid_request", "post_logout_redirect_uri does not exactly match one that is registered for the client",
		)
	}
	l.redirectURI = redirect
	return l, nil
}

const (
	// hintLifetime is how long after its expiry an ID token can end a session.
	hintLifetime = 30 * 24 * time.Hour
	// hintLeeway accepts expired ID tokens as hints.
	hintLeeway = 100 * 365 * 24 * time.Hour
)

// readHint finds the session to end. The key of an old ID token may no longer exist. Such a
// token proves nothing, so the user is asked; like client_id, it only names the client. The
// same applies to a token that expired long ago.
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

// ofGoneKey reports whether a token has an unknown or removed key.
func ofGoneKey(err error) bool {
	failure, ok := errors.AsType[*refusal.Error](err)
	return ok && failure.Reason == refusal.UnknownKey
}

func (p *Provider) loggedOut(w http.ResponseWriter, r *http.Request, l *logoutRequest) error {
	if l.redirectURI == "" {
		return p.pages.render(w, r, p.accounts.Language(r, ""), "logout", map[string]any{"Done": true}, http.StatusOK)
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
	logoutTries    = 14 // over about 2 hours
	logoutsAtOnce  = 4  // to one client
	logoutTimeout  = 5 * time.Second
	logoutLifetime = 2 * time.Minute
	logoutMemory   = 24 * time.Hour
	// logoutPoll is how often the store is polled for notifications that another node has
	// left.
	logoutPoll = 5 * time.Second
	// missedPoll is how often to look for sessions whose end was not noticed: they expired,
	// or ended while no node was running.
	missedPoll  = time.Hour
	missedRetry = time.Minute
)

// clientLogin records that a client has a log-in in a session, until the session ends.
type clientLogin struct {
	ClientID  string `json:"client_id"`
	UserID    string `json:"user_id"`
	SessionID string `json:"session_id"`
	Since     string `json:"since,omitempty"` // the Since of the client
}

// loginsIn returns the owner of the log-ins of clients in a session. It is not the session itself, since
// they must be known after the user, and with it all that belongs to the sessions, was deleted.
func loginsIn(sessionID string) string { return "log-ins in " + sessionID }

func (p *Provider) keepClient(ctx context.Context, client *Client, g *grant) error {
	kept := clientLogin{client.ID, g.UserID, g.SessionID, client.Since}
	id := hashed(g.SessionID + "\n" + client.ID)
	err := p.state.create(ctx, kindClientLogin, id, loginsIn(g.SessionID), kept, 366*24*time.Hour)
	if !errors.Is(err, store.ErrRecordExists) {
		return err
	}
	// It may belong to a deleted client with the same ID.
	_, err = change(ctx, p.state, kindClientLogin, id, func(l *clientLogin) error {
		if *l == kept {
			return errUnchanged
		}
		*l = kept
		return nil
	})
	if errors.Is(err, errUnchanged) || errors.Is(err, errNotFound) { // the session has ended in the meantime
		return nil
	}
	return err
}

var errUnchanged = errors.New("it says so already")

// logout is a pending notification of a client. It is stored until it is delivered, so that
// it survives a restart and any node can send it.
type logout struct {
	clientLogin
	Tries     int       `json:"tries,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	Done      bool      `json:"done,omitempty"`
}

// logouts notifies clients of ended sessions (OpenID Connect Back-Channel Logout 1.0).
type logouts struct {
	stopListening func()
	ctx           context.Context
	cancel        context.CancelFunc
	running       sync.WaitGroup

	mu    sync.Mutex
	ended []string        // IDs of sessions that are not recorded yet
	busy  map[string]bool // IDs of clients that are being notified
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

// startLogouts starts to notify clients.
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

// noteEnded records the clients of sessions as they end. tellDue notifies them, which may
// take long.
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

// findMissed records sessions whose end was not noticed.
func (p *Provider) findMissed() {
	l := p.logouts
	var outage outage.Outage
	for {
		pause := missedPoll
		err := p.noteMissed(l.ctx)
		if l.ctx.Err() == nil {
			outage.Note(
				p.log, p.accounts.Now(), err, help.See("ended-sessions-not-found"),
				"looking for ended sessions failed; will retry",
				"looking for ended sessions works again",
			)
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
		// This includes expired sessions that are still stored, because a clock may be
		// wrong.
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

// sessionEnded revokes what was granted in an ended session, and records its clients.
// Several nodes may do so for the same session.
func (p *Provider) sessionEnded(ctx context.Context, sessionID string) error {
	ids, logins, err := list[clientLogin](ctx, p.state, kindClientLogin, loginsIn(sessionID))
	oldIDs, old, listErr := list[clientLogin](ctx, p.state, kindClientLogin, sessionID) // as they were kept before
	ids, logins, err = append(ids, oldIDs...), append(logins, old...), errors.Join(err, listErr)
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
		p.log.Warn(
			"recording the clients of an ended session failed; will retry", help.See("ended-session-not-recorded"),
			zap.Error(err),
		)
	}
	return err
}

// tellClients starts to send the notifications that are due, each from one node. A client
// that does not respond does not delay others.
func (p *Provider) tellClients(ctx context.Context) {
	ids, logouts, err := list[logout](ctx, p.state, kindLogout, "")
	if err != nil {
		return // the accounts log that the store fails
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
				signal(l.noted) // newly recorded notifications need not wait for logoutPoll
			}
		})
	}
}

// errAnswered means that a client responded with an error.
var errAnswered = errors.New("it answered")

// tellOne sends several notifications to one client. If the client does not respond, it
// returns an error, and the rest is sent later.
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
	event, err := change(ctx, p.state, kindLogout, id, func(l *logout) error {
		if l.Done || l.NotBefore.After(now) {
			return errNotDue
		}
		l.Tries++
		l.NotBefore = now.Add(max(2*logoutTimeout, time.Second<<l.Tries)) // also if this node stops in the meantime
		return nil
	})
	if errors.Is(err, errNotDue) || errors.Is(err, errNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	client, err := p.clients.find(ctx, event.ClientID)
	switch {
	case errors.Is(err, errNotFound) ||
		err == nil && (client.BackchannelLogoutURI == "" || client.Since != event.Since):
		err = nil
	case err == nil:
		err = p.sendLogout(ctx, client, &event.clientLogin)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && event.Tries < logoutTries {
		p.log.Debug(
			"client not notified of a log-out; will retry",
			zap.String("client_id", event.ClientID), zap.Int("tries", event.Tries), zap.Error(err),
		)
		retry := now.Add(time.Second << (event.Tries - 1))
		_, _ = change(ctx, p.state, kindLogout, id, func(l *logout) error { l.NotBefore = retry; return nil })
		return err
	}
	if err != nil {
		p.log.Warn(
			"client not notified of a log-out", help.See("client-not-notified"),
			zap.String("client_id", event.ClientID),
			zap.Int("tries", event.Tries), zap.Error(err),
		)
	}
	// Keep it for a while, so that a slow node sees that it is done.
	_, _ = p.accounts.Store().UpdateRecord(
		ctx, p.state.kind(kindLogout), id, p.accounts.Now(), func(r *store.Record) error {
			r.Value, r.ExpiresAt = []byte(`{"done":true}`), p.accounts.Now().Add(logoutLifetime)
			return nil
		},
	)
	return err
}

func (p *Provider) sendLogout(ctx context.Context, client *Client, g *clientLogin) error {
	now := p.accounts.Now()
	token, err := p.sign(ctx, p.idKeys, "logout+jwt", map[string]any{
		"iss": p.Issuer, "aud": client.ID, "sub": g.UserID, "sid": g.SessionID,
		"iat": now.Unix(), "exp": now.Add(logoutLifetime).Unix(), "jti": uuid.NewString(),
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

// logoutClient does not follow redirects: the token is only for this URL.
var logoutClient = &http.Client{
	Transport:     outgoing.Wrap(http.DefaultTransport),
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}
