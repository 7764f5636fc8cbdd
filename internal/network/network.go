// Package network normalizes IP addresses for throttling, because one client often has many
// addresses.
package network

import "net/netip"

// Key returns the throttle key of an IP address: for IPv6 its /64, because one client
// usually has all of it. accounts.Throttle.Begin also counts for the /48.
func Key(address string) string { return Prefix(address, 64) }

// Prefix returns an IPv4 address itself, or the network of an IPv6 address.
func Prefix(address string, bits int) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, _ := ip.Prefix(bits)
	return prefix.String()
}
