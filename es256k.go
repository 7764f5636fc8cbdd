//go:build jwx_es256k

package caddyjwt

func init() {
	remoteAlgorithms = append(remoteAlgorithms, "ES256K") // RFC 8812 §3.2
}
