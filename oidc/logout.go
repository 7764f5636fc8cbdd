package oidc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
)

// endSession logs the user out (OpenID Connect RP-Initiated Logout 1.0). Unless
// the ID token of the session comes with it, the user is asked.
func (p *Provider) endSession(w http.ResponseWriter, r *http.Request) error {
	values := r.URL.Query()
	if r.Method == http.MethodPost {
		var err error
		if values, err = form(r); err != nil {
			return shown(err)
		}
	}
	if err := once(values); err != nil {
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
		return p.loggedOut(w, r, request)
	}
	agreed := r.Method == http.MethodPost && values.Get("decision") == "logout" && crossOrigin.Check(r) == nil
	if !agreed && (request.sessionID != login.SessionID || request.subject != login.User.ID) {
		return p.pages.render(w, r, "logout", map[string]any{"Email": login.User.Email, "Action": p.basePath + "/oidc/logout", "Values": request.kept()}, http.StatusOK, originOf(request.redirectURI))
	}
	if err := p.accounts.LogOut(w, r, login.User.ID, login.SessionID); err != nil {
		return err
	}
	return p.loggedOut(w, r, request)
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
		token, err := p.hints.Verify(ctx, l.hint, p.accounts.Now())
		if err != nil {
			return nil, refuse("invalid_request", "id_token_hint is no ID token of this provider")
		}
		audience, _ := token.Claims["aud"].(string)
		if l.clientID != "" && l.clientID != audience {
			return nil, refuse("invalid_request", "id_token_hint is of another client than client_id")
		}
		l.clientID, l.subject = audience, token.UserID
		l.sessionID, _ = token.Claims["sid"].(string)
	}
	redirect := values.Get("post_logout_redirect_uri")
	if redirect == "" {
		return l, nil
	}
	client, err := p.clients.find(ctx, l.clientID)
	if errors.Is(err, errNotFound) {
		return nil, refuse("invalid_request", "post_logout_redirect_uri needs an id_token_hint or a client_id, so that it is known whose it is")
	}
	if err != nil {
		return nil, err
	}
	if !slices.Contains(client.PostLogoutRedirectURIs, redirect) {
		return nil, refuse("invalid_request", "post_logout_redirect_uri is not one of the client's, to the letter")
	}
	l.redirectURI = redirect
	return l, nil
}

func (p *Provider) loggedOut(w http.ResponseWriter, r *http.Request, l *logoutRequest) error {
	if l.redirectURI == "" {
		return p.pages.render(w, r, "logout", map[string]any{"Done": true}, http.StatusOK, "")
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
	logoutTries     = 4
	logoutTimeout   = 5 * time.Second
	logoutLifetime  = 2 * time.Minute
	logoutEvent     = "http://schemas.openid.net/event/backchannel-logout"
	firstLogoutWait = time.Second
)

// sessionEnded takes back what was granted in a session that has ended, and
// tells its clients. It may be called by several nodes for one session: one
// tells each client.
func (p *Provider) sessionEnded(sessionID string) {
	p.ending.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), logoutLifetime)
		defer cancel()
		records, err := p.accounts.Store().Records(ctx, kindGrant, sessionID, p.accounts.Now())
		if err != nil {
			p.log.Warn("grants of an ended session not readable; their clients are not told", zap.Error(err))
			return
		}
		told := make(map[string]bool)
		for _, record := range records {
			g, err := load[grant](ctx, p.state, kindGrant, record.ID)
			if err != nil {
				continue
			}
			if !told[g.ClientID] {
				told[g.ClientID] = true
				p.ending.Go(func() { p.tellClient(&g) })
			}
			if g.has("offline_access") {
				continue
			}
			if err := p.revokeGrant(ctx, g.ID); err != nil {
				p.log.Warn("grant of an ended session not removed; it is refused all the same", zap.Error(err))
			}
		}
	})
}

// tellClient sends a log-out token (OpenID Connect Back-Channel Logout 1.0
// §2.5), again if that fails.
func (p *Provider) tellClient(g *grant) {
	ctx, cancel := context.WithTimeout(context.Background(), logoutLifetime)
	defer cancel()
	client, err := p.clients.find(ctx, g.ClientID)
	if err != nil || client.BackchannelLogoutURI == "" {
		return
	}
	err = p.state.create(ctx, kindLogout, hashed(g.SessionID+"\n"+client.ID), "", struct{}{}, time.Hour)
	if err != nil { // another node tells it, or the store fails
		return
	}
	wait := firstLogoutWait
	for try := range logoutTries {
		if err = p.sendLogout(ctx, client, g); err == nil {
			return
		}
		if try == logoutTries-1 {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait *= 3
		}
	}
	p.log.Warn("client not told of a log-out", zap.String("client_id", client.ID), zap.Int("tries", logoutTries), zap.Error(err))
}

func (p *Provider) sendLogout(ctx context.Context, client *Client, g *grant) error {
	now := p.accounts.Now()
	token, err := p.sign(ctx, p.idKeys, "logout+jwt", map[string]any{
		"iss": p.Issuer, "aud": client.ID, "sub": g.UserID, "sid": g.SessionID, "iat": now.Unix(), "exp": now.Add(logoutLifetime).Unix(), "jti": uuid.NewString(),
		"events": map[string]any{logoutEvent: map[string]any{}},
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
		return fmt.Errorf("it answered %s", response.Status)
	}
	return nil
}

// logoutClient follows no redirect: the token is for the one address.
var logoutClient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
