package provider

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// notPublic are the IPv4 networks that are not on the public Internet (IANA's registry of special
// addresses, RFC 6890).
var notPublic = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"224.0.0.0/4", "240.0.0.0/4",
)

// public6 is what IANA has assigned of IPv6; it has neither link-local, unique local, multicast nor
// NAT64 addresses. notPublic6 are special networks within it: those of protocols such as Teredo,
// documentation, and 6to4, which contains IPv4 addresses.
var (
	public6    = netip.MustParsePrefix("2000::/3")
	notPublic6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// isPublic reports whether an address is on the public Internet, and not one of this machine, its
// network or its cloud.
func isPublic(address netip.Addr) bool {
	special := notPublic
	if address = address.Unmap(); address.Is6() {
		if !public6.Contains(address) || address.Zone() != "" {
			return false
		}
		special = notPublic6
	}
	for _, prefix := range special {
		if prefix.Contains(address) {
			return false
		}
	}
	return address.IsValid()
}

// isUnicast reports whether an address may belong to a server of a private network. Link-local
// addresses do not: clouds have credentials there.
func isUnicast(address netip.Addr) bool {
	address = address.Unmap()
	return address.IsPrivate() || isPublic(address)
}

func isLoopback(address netip.Addr) bool { return address.Unmap().IsLoopback() }

// dialer returns a dialer that connects to allowed addresses only. It checks the address of each
// connection after the name was resolved, so that a name that is resolved again cannot lead
// elsewhere (DNS rebinding).
func dialer(allowed func(netip.Addr) bool) *net.Dialer {
	return &net.Dialer{
		Timeout: documentTimeout,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if !allowed(to.Addr()) {
				return fmt.Errorf("%s is not an allowed address", to.Addr())
			}
			return nil
		},
	}
}
