package caddyjwt

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(ExclusiveListener{})
}

// ExclusiveListener is a listener wrapper that prevents Caddy from starting if another
// program listens on a port of the server. Without it, two Caddy processes of the same user
// share the port, and either of them answers.
type ExclusiveListener struct{}

// CaddyModule returns the Caddy module information.
func (ExclusiveListener) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.listeners.exclusive",
		New: func() caddy.Module { return new(ExclusiveListener) },
	}
}

// UnmarshalCaddyfile takes no options. Syntax:
//
//	exclusive
func (*ExclusiveListener) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// Provision briefly listens on each address without sharing it. It does nothing at a
// reload, because the addresses are in use by this process, and in a command that only looks at a
// config.
func (*ExclusiveListener) Provision(ctx caddy.Context) error {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || caddy.ActiveContext().Context != nil || onlyLooks(os.Args) {
		return nil
	}
	for _, listen := range server.Listen {
		address, err := caddy.ParseNetworkAddress(listen)
		if err != nil {
			return err
		}
		for i := uint(0); i < address.PortRangeSize() && !address.IsUnixNetwork(); i++ {
			at := address.JoinHostPort(i)
			listener, err := net.Listen("tcp", at)
			if err != nil {
				return fmt.Errorf(
					"another program is already listening on %s; stop it, or give this site another port: %w",
					at, errors.Unwrap(err),
				)
			}
			if err := listener.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// onlyLooks reports whether these are the arguments of a command that does not start a config. Caddy
// does not tell modules: for them `caddy validate` is the same as `caddy run`, and when apps start, in
// no particular order, this process itself may listen already.
func onlyLooks(args []string) bool {
	return len(args) > 1 && slices.Contains([]string{"validate", "adapt", "jwt"}, args[1])
}

// WrapListener implements caddy.ListenerWrapper.
func (*ExclusiveListener) WrapListener(listener net.Listener) net.Listener { return listener }

// Interface guards
var (
	_ caddy.Provisioner     = (*ExclusiveListener)(nil)
	_ caddy.ListenerWrapper = (*ExclusiveListener)(nil)
	_ caddyfile.Unmarshaler = (*ExclusiveListener)(nil)
)
