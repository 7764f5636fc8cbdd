//go:build jwx_es256k

package jwks

func init() {
	Algorithms = append(Algorithms, "ES256K") // RFC 8812 §3.2
}
