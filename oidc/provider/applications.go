package provider

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
)

// application is a client that has access to a user's account, as shown to the user.
type application struct {
	ID, Name string
	Scopes   []string // in words
	// Stays reports whether it has access when the user is not present.
	Stays bool

	records map[string][]string // IDs of its records of the user, by kind
}

// applications shows a user the clients that have access, and revokes the access of one.
func (p *Provider) applications(w http.ResponseWriter, r *http.Request) error {
	values, err := pageValues(r)
	if err != nil {
		return err
	}
	login, err := p.accounts.Login(w, r)
	if nobody(err) {
		seeOther(w, p.accounts.LoginURL(r, p.basePath+"/oidc/applications", ""))
		return nil
	}
	if err != nil {
		return err
	}
	language := p.accounts.Language(r, "")
	all, err := p.applicationsOf(r.Context(), login.User.ID, language)
	if err != nil {
		return err
	}
	if r.Method == http.MethodPost {
		for _, a := range all {
			if a.ID == values.Get("client_id") {
				if err := p.takeBack(r.Context(), login.User.ID, a); err != nil {
					return err
				}
			}
		}
		seeOther(w, p.basePath+"/oidc/applications")
		return nil
	}
	return p.pages.render(w, r, language, "applications", map[string]any{
		"Action": p.basePath + "/oidc/applications", "Email": login.User.Email, "Applications": all,
	}, http.StatusOK)
}

// applicationsOf returns the clients that have access to a user's account, sorted by name.
func (p *Provider) applicationsOf(
	ctx context.Context, userID string, language *texts.Language,
) ([]*application, error) {
	byID := make(map[string]*application)
	scopes := make(map[string][]string)
	add := func(clientID, kind, record string, names []string) *application {
		a := byID[clientID]
		if a == nil {
			a = &application{ID: clientID, records: make(map[string][]string)}
			byID[clientID] = a
		}
		a.records[kind] = append(a.records[kind], record)
		scopes[clientID] = append(scopes[clientID], names...)
		return a
	}
	ids, consents, err := list[consent](ctx, p.state, kindConsent, userID)
	if err != nil {
		return nil, err
	}
	for i, known := range consents {
		add(known.ClientID, kindConsent, ids[i], known.Scopes)
	}
	sessions, err := p.sessionsOf(ctx, userID)
	if err != nil {
		return nil, err
	}
	for _, owner := range append(sessions, userID) { // the user owns grants that outlive their session
		ids, grants, err := list[grant](ctx, p.state, kindGrant, owner)
		if err != nil {
			return nil, err
		}
		for i, g := range grants {
			a := add(g.ClientID, kindGrant, ids[i], p.access(g.Scopes, g.Resources))
			a.Stays = a.Stays || g.has("offline_access")
		}
	}
	var all []*application
	for id, a := range byID {
		var err error
		if a.Name, err = p.clients.nameOf(ctx, id); err != nil {
			return nil, err
		}
		slices.Sort(scopes[id])
		a.Scopes = p.describe(language, slices.Compact(scopes[id]))
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *application) int { return strings.Compare(a.Name+"\n"+a.ID, b.Name+"\n"+b.ID) })
	return all, nil
}

// exportApplications returns the clients that have access to a user's account, for the export of
// the account.
func (p *Provider) exportApplications(ctx context.Context, userID string) (any, error) {
	all, err := p.applicationsOf(ctx, userID, p.accounts.English())
	exported := make([]map[string]any, len(all))
	for i, a := range all {
		exported[i] = map[string]any{"clientId": a.ID, "name": a.Name, "access": a.Scopes, "staysWhenAway": a.Stays}
	}
	return exported, err
}

// takeBack revokes the access of a client, so that the user is asked for consent again.
func (p *Provider) takeBack(ctx context.Context, userID string, a *application) error {
	if err := p.takeBackCodes(ctx, userID, a.ID); err != nil { // before the grants, because codes create grants
		return err
	}
	for _, kind := range []string{kindConsent, kindGrant} {
		for _, id := range a.records[kind] {
			if err := p.state.remove(ctx, kind, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeBackCodes revokes what a client has not fetched yet: codes, and devices that the user
// allowed.
func (p *Provider) takeBackCodes(ctx context.Context, userID, clientID string) error {
	ids, codes, err := list[code](ctx, p.state, kindCode, userID)
	if err != nil {
		return err
	}
	for i, known := range codes {
		if known.Grant.ClientID == clientID {
			if err := errors.Join(
				p.state.remove(ctx, kindCode, ids[i]), p.revokeGrant(ctx, known.Grant.ID),
			); err != nil {
				return err
			}
		}
	}
	ids, devices, err := list[deviceCode](ctx, p.state, kindDevice, "") // few, each for 10 minutes
	if err != nil {
		return err
	}
	for i, known := range devices {
		if known.ClientID == clientID && known.Grant != nil && known.Grant.UserID == userID {
			if err := p.state.remove(ctx, kindDevice, ids[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// sessionsOf returns the IDs of a user's sessions.
func (p *Provider) sessionsOf(ctx context.Context, userID string) (ids []string, err error) {
	sessions, err := p.accounts.Store().Sessions(ctx, userID, p.accounts.Now())
	for _, session := range sessions {
		ids = append(ids, session.ID)
	}
	return ids, err
}

// applicationsLink returns the link on the account page.
func (p *Provider) applicationsLink() accounts.AccountLink {
	return accounts.AccountLink{
		Label: "Applications with access to your account", Path: p.basePath + "/oidc/applications",
	}
}
