package postgres_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/postgres"
	"github.com/caddyserver/caddy/v2"
)

// certificate writes a self-signed certificate for 127.0.0.1 and its key, both for the user who
// runs the server.
func (s *server) certificate(name string) (certFile, keyFile string) {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	for kind, content := range map[string][]byte{"CERTIFICATE": cert, "PRIVATE KEY": der} {
		file := filepath.Join(s.dir, name+"."+strings.ToLower(strings.Fields(kind)[0]))
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			s.t.Fatal(err)
		}
		if s.attr != nil {
			if err := os.Chown(file, int(s.attr.Credential.Uid), int(s.attr.Credential.Gid)); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return filepath.Join(s.dir, name+".certificate"), filepath.Join(s.dir, name+".private")
}

// The DSN configures TLS: the server's certificate is verified, and another server's is refused.
func TestTLS(t *testing.T) {
	s := start(t)
	cert, key := s.certificate("server")
	other, _ := s.certificate("other")
	_, port, _ := net.SplitHostPort(sitetest.FreeAddress(t))
	s.run("pg_ctl", "-D", s.dir+"/data", "-m", "immediate", "stop")
	s.listen, s.more = "127.0.0.1", "-c port="+port+" -c ssl=on -c ssl_cert_file="+cert+" -c ssl_key_file="+key
	s.begin()
	dsn := "host=127.0.0.1 port=" + port + " user=test dbname=postgres sslmode=verify-full sslrootcert="

	store := open(t, dsn+cert).(*postgres.Store)
	var encrypted bool
	if err := databaseOf(t, store).QueryRow(
		`SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()`,
	).Scan(&encrypted); err != nil || !encrypted {
		t.Errorf("the connection is encrypted: %v, %v", encrypted, err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	stranger := &postgres.Store{DSN: dsn + other}
	if err := stranger.Provision(ctx); err != nil { // so that tokens are verified meanwhile
		t.Fatal(err)
	}
	defer func() { _ = stranger.Cleanup() }()
	if _, err := stranger.Users(t.Context(), "", 1); err == nil ||
		!strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("a server with another certificate: %v", err)
	}
}
