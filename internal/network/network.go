// Package network has IP addresses as they are throttled: who has one often has many.
package network

import "net/netip"

// Key is an IP address as it is throttled: of IPv6 the /64, since
// whoever has one address there has them all. [throttle.begin] counts for the /48
// beside.
func Key(address string) string { return Prefix(address, 64) }

// Prefix is an IPv4 address, or the network of an IPv6 one.
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
