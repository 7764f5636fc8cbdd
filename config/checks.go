package config

import (
	"context"
	"slices"

	"github.com/caddyserver/caddy/v2"
)

// Check is something about a config that can be examined without changing anything, such as
// whether a server answers.
type Check struct {
	// What is examined, such as `keys of https://issuer.example`. Of several checks with the same
	// name, one is run.
	What string
	// Server is a URL that the check fetches; empty for none.
	Server string
	// Run returns what was found, or what is wrong and what to do. A [Doubt] is an error that does
	// not keep the site from working.
	Run func(context.Context) (found string, err error)
}

// Doubt is an error that does not keep a site from working.
type Doubt struct{ error }

// Doubtful makes an error a [Doubt].
func Doubtful(err error) error { return Doubt{err} }

// OnCheck registers a check of a module that is provisioned, for `caddy jwt doctor`.
func OnCheck(ctx caddy.Context, check Check) {
	app := startAppOf(ctx)
	if app == nil {
		return
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	if !slices.ContainsFunc(app.checks, func(known Check) bool { return known.What == check.What }) {
		app.checks = append(app.checks, check)
	}
}

// Checks returns the checks of the modules of a config.
func Checks(ctx caddy.Context) []Check {
	app := startAppOf(ctx)
	if app == nil {
		return nil
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	return slices.Clone(app.checks)
}
