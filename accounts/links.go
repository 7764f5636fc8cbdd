package accounts

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Lead is what a log-in is for, as another module knows it.
type Lead struct {
	// Cancel is the path by which a user goes back without logging in; empty for
	// none.
	Cancel string
	// MaxAge is how long ago the user may have typed the password at most, 0 for
	// not before now. Nil if that does not matter.
	MaxAge *time.Duration
}

// AccountLink is a link on the account page to a page of another module.
type AccountLink struct {
	Label, Path string
}

// links are what other modules tell the accounts of themselves.
type links struct {
	links sync.Map // of AccountLink
	leads sync.Map // of func(returnTo string) Lead
}

// LeadsTo has log-ins ask what a return path leads to. The zero Lead means that
// f does not know it. The function that is returned stops that.
func (l *links) LeadsTo(f func(returnTo string) Lead) (stop func()) { return hold(&l.leads, f) }

// Add puts a link on the account page, until the function that is returned is called.
func (l *links) Add(link AccountLink) (remove func()) { return hold(&l.links, link) }

func hold(in *sync.Map, value any) (remove func()) {
	key := new(int)
	in.Store(key, value)
	return func() { in.Delete(key) }
}

// All are the links on the account page; two of a kind, as during a config reload, are
// one.
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

// Lead is what a log-in with this return path is for.
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
