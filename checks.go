package caddyjwt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddyserver/caddy/v2"
)

// checkKeys registers checks of a key set, and of the clock by that of its server.
func checkKeys(ctx caddy.Context, set *jwks.KeySet, name string, leeway time.Duration) {
	type answer struct {
		keys  int
		ahead time.Duration
		err   error
	}
	var once sync.Once
	var got answer
	fetch := func(ctx context.Context) answer {
		once.Do(func() { got.keys, got.ahead, got.err = set.Check(ctx) })
		return got
	}
	usable := func(ctx context.Context) (string, error) {
		got := fetch(ctx)
		return fmt.Sprintf("usable: %d", got.keys), got.err
	}
	config.OnCheck(ctx, config.Check{What: "keys of " + name, Server: name, Run: usable})
	config.OnCheck(ctx, config.Check{What: "clock, by that of " + name, Run: func(ctx context.Context) (string, error) {
		got := fetch(ctx)
		difference := got.ahead.Abs().Round(time.Second)
		switch {
		case got.err != nil:
			return "", config.Doubtful(errors.New("cannot be compared, because the keys cannot be fetched"))
		case difference > leeway+time.Second: // a date has whole seconds
			return "", fmt.Errorf("the clock of this machine differs by %s, but leeway is %s, so tokens are "+
				"refused as expired or not yet valid; set the clock, for example with: timedatectl set-ntp true",
				difference, leeway)
		}
		return fmt.Sprintf("differs by %s", difference), nil
	}})
}

// checkPublished fetches the key set of the issuer of upstream_token, as the services behind do.
func checkPublished(ctx context.Context, issuer string) (string, error) {
	set, err := jwks.Open(jwks.Settings{Issuer: issuer}, jwks.Options{})
	if err != nil {
		return "", config.Doubtful(err)
	}
	defer set.Close()
	keys, _, err := set.Check(ctx)
	if err != nil {
		return "", config.Doubtful(fmt.Errorf("services that verify its tokens cannot find the keys from here: %w; "+
			"does Caddy run with this config?", err))
	}
	return fmt.Sprintf("published keys: %d", keys), nil
}
