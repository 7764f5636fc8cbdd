package accounts

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Lead is the purpose of a log-in, as known by another module.
type Lead struct {
	// Client is the name of the site or program that asked for the log-in, as users know it; empty
	// for none.
	Client string
	// Cancel is the path to go back to without logging in; empty for none.
	Cancel string
	// MaxAge is how long ago the user may have entered the password at most; 0 requires it
	// now, nil means no limit.
	MaxAge *time.Duration
	// Languages are the tags of the languages that the site wants, the best first, separated by
	// spaces (OpenID Connect Core 1.0 §3.1.2.1, ui_locales); empty for those of the browser.
	Languages string
}

// AccountLink is a link on the account page to a page of another module.
type AccountLink struct {
	Label, Path string // the text of the link, and the path below the site
}

// links are the registrations of other modules.
type links struct {
	links sync.Map // of AccountLink
	leads sync.Map // of func(returnTo string) Lead

	exports sync.Map // of Exporter
	paths   sync.Map // of func() map[string]any
}

// LeadsTo registers a function that returns the purpose of a log-in with a return path, or
// the zero Lead if it does not know the path. Call stop to unregister it.
func (l *links) LeadsTo(f func(returnTo string) Lead) (stop func()) { return hold(&l.leads, f) }

// Add adds a link to the account page until remove is called.
func (l *links) Add(link AccountLink) (remove func()) { return hold(&l.links, link) }

// AddPaths adds operations of another module to the OpenAPI document of the accounts, by their paths
// below the mount, until remove is called.
func (l *links) AddPaths(paths func() map[string]any) (remove func()) { return hold(&l.paths, paths) }

// Paths returns the operations that were added.
func (l *links) Paths() map[string]any {
	all := make(map[string]any)
	l.paths.Range(func(_, value any) bool {
		maps.Copy(all, value.(func() map[string]any)())
		return true
	})
	return all
}

func hold(in *sync.Map, value any) (remove func()) {
	key := new(int)
	in.Store(key, value)
	return func() { in.Delete(key) }
}

// All returns the links on the account page without duplicates, which exist during a config
// reload.
func (l *links) All() (all []AccountLink) {
	l.links.Range(func(_, link any) bool {
		if !slices.Contains(all, link.(AccountLink)) {
			all = append(all, link.(AccountLink))
		}
		return true
	})
	slices.SortFunc(all, func(a, b AccountLink) int { return strings.Compare(a.Path, b.Path) })
	return all
}

// Lead returns the purpose of a log-in with this return path.
func (l *links) Lead(returnTo string) (lead Lead) {
	if returnTo == "" {
		return Lead{}
	}
	l.leads.Range(func(_, f any) bool {
		lead = f.(func(string) Lead)(returnTo)
		return lead == Lead{}
	})
	return lead
}
