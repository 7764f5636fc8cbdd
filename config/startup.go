package config

import (
	"errors"
	"fmt"
	"sync"

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(startApp))
}

// startApp is an app that runs functions when its config starts. If a config is only
// validated, Caddy provisions its modules but does not start it.
type startApp struct {
	mu     sync.Mutex
	starts []func() error
	checks []Check
	shared sync.Map
}

// CaddyModule returns the Caddy module information.
func (*startApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "jwt", New: func() caddy.Module { return new(startApp) }}
}

// AtStart registers a function that is called when the config of the context starts, in the
// order of registration. If it returns an error, the config is refused. So `caddy validate`
// creates nothing on disk or in a database. Requests may arrive earlier: the first caller
// then creates what it needs.
func AtStart(ctx caddy.Context, start func() error) {
	app := startAppOf(ctx)
	if app == nil {
		return // created when it is used
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	app.starts = append(app.starts, start)
}

// Shared returns the value that all modules of a config share under a key, which the first of them
// makes. Without a config, such as in a test, each caller has its own.
func Shared(ctx caddy.Context, key, made any) any {
	app := startAppOf(ctx)
	if app == nil {
		return made
	}
	value, _ := app.shared.LoadOrStore(key, made)
	return value
}

// startAppOf returns nil for a context without a config, such as in a test, for which Caddy
// panics.
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

// Stop implements caddy.App. Modules stop what they started.
func (*startApp) Stop() error { return nil }

// Interface guards
var _ caddy.App = (*startApp)(nil)

// StoreAtStart handles an error of opening a store when a config starts. When Caddy starts,
// or if a previous config uses the same store, it logs the error; the store is opened later
// when it is needed, and tokens are verified in the meantime. When a reload changes the
// store, or if the store was created by a newer program, it returns the error, so that the
// previous config stays active.
func StoreAtStart(ctx caddy.Context, err error, known bool) error {
	if err == nil || errors.Is(err, store.ErrNewerSchema) {
		return err
	}
	if reloads() && !known {
		return fmt.Errorf("the new config has a user store that cannot be opened, so it is refused: %w", err)
	}
	ctx.Logger().Error("user store cannot be opened; accounts answer 503 until it can be opened",
		help.See("user-store-not-opened"), zap.Error(err))
	return nil
}

// reloads reports whether another config is already running.
func reloads() bool { return caddy.ActiveContext().Context != nil }
