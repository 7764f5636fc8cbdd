package caddyjwt

import (
	"sync"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(new(startApp))
}

// startApp is an app of each config that has something to do when it starts. Caddy
// provisions the modules of a config that it only validates, and starts none.
type startApp struct {
	mu     sync.Mutex
	starts []func() error
}

// CaddyModule returns the Caddy module information.
func (*startApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "jwt", New: func() caddy.Module { return new(startApp) }}
}

// AtStart has a function called when the config of the context starts, in the order
// of the calls; its error refuses the config. So what a module makes on a disk or in
// a database is not made by `caddy validate`. Requests may come before: what they
// need is made by whoever is first.
func AtStart(ctx caddy.Context, start func() error) {
	app := startAppOf(ctx)
	if app == nil {
		return // made when it is used
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	app.starts = append(app.starts, start)
}

// startAppOf is nil for a context without a config, such as that of a test, where
// Caddy panics.
func startAppOf(ctx caddy.Context) (app *startApp) {
	defer func() { _ = recover() }()
	loaded, _ := ctx.App("jwt")
	app, _ = loaded.(*startApp)
	return app
}

// Start implements caddy.App.
func (a *startApp) Start() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, start := range a.starts {
		if err := start(); err != nil {
			return err
		}
	}
	return nil
}

// Stop implements caddy.App. What was started ends with the modules.
func (*startApp) Stop() error { return nil }

// Interface guards
var _ caddy.App = (*startApp)(nil)
