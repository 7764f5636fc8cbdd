package config

import (
	"errors"
	"fmt"
	"sync"

	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
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

// StoreAtStart judges an error of opening a store when a config starts. At the start of
// Caddy, and where a config before it uses the store too, it is logged, and the store is
// tried again when it is needed, so that tokens are verified meanwhile. At a reload to
// another store it refuses the config, and the one before goes on. So does a store of
// a newer program.
func StoreAtStart(ctx caddy.Context, err error, known bool) error {
	if err == nil || errors.Is(err, store.ErrNewerSchema) {
		return err
	}
	if reloads() && !known {
		return fmt.Errorf("the new config has a user store that cannot be opened, so it is refused: %w", err)
	}
	ctx.Logger().Error("user store cannot be opened; accounts answer 503 until it can be opened", zap.Error(err))
	return nil
}

// reloads tells whether a config runs already, while another one starts.
func reloads() bool { return caddy.ActiveContext().Context != nil }
