package sitetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// SMTPServer is a mail server that keeps the mails that it gets, and fails on demand.
type SMTPServer struct {
	T       testing.TB
	Address string // host and port
	CAFile  string // PEM of the authority of its certificate, which is for localhost and 127.0.0.1

	// Set these before it is used, or by Change.
	FromStart  bool              // it speaks TLS from the start
	NoSTARTTLS bool              // it does not offer STARTTLS
	User       string            // and Password: it wants a log-in by AUTH PLAIN
	Password   string            // of User
	SMTPUTF8   bool              // it offers SMTPUTF8
	Answers    map[string]string // by verb, as "RCPT", or "DATA END": instead of the usual answer, if not empty
	Once       map[string]string // the same, for the next time only
	Hang       string            // the verb, or "CONNECT", that it never answers
	Drop       string            // the verb, or "CONNECT", at which it closes the connection
	Gate       chan struct{}     // it takes no mail until this is closed, if not nil

	mu       sync.Mutex
	received []ReceivedMail
	connects int
	listener net.Listener
	tls      *tls.Config
	open     map[net.Conn]bool
}

// ReceivedMail is a mail as it came.
type ReceivedMail struct {
	From, To  string // the envelope, with the parameters
	Raw       string
	Encrypted bool   // it came by TLS
	User      string // who had logged in
}

// Message returns the parsed mail.
func (m ReceivedMail) Message(t testing.TB) *mail.Message {
	t.Helper()
	message, err := mail.ReadMessage(strings.NewReader(m.Raw))
	if err != nil {
		t.Fatalf("%v in %q", err, m.Raw)
	}
	return message
}

// NewSMTPServer returns a mail server at a free port. Call Start after its fields are set.
func NewSMTPServer(t testing.TB) *SMTPServer {
	t.Helper()
	s := &SMTPServer{
		T: t, Address: FreeAddress(t), CAFile: filepath.Join(TempDir(t), "ca.pem"),
		Answers: make(map[string]string), Once: make(map[string]string), open: make(map[net.Conn]bool),
	}
	key := Keys().P256
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "a mail server"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public().(*ecdsa.PublicKey), key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(s.CAFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	t.Cleanup(s.Stop)
	return s
}

// Start listens, also after Stop.
func (s *SMTPServer) Start() *SMTPServer {
	s.T.Helper()
	listener, err := net.Listen("tcp", s.Address)
	if err != nil {
		s.T.Fatal(err)
	}
	s.mu.Lock()
	s.listener = listener
	s.mu.Unlock()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

// Stop closes all connections, and listens no more.
func (s *SMTPServer) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		_ = s.listener.Close()
	}
	for conn := range s.open {
		_ = conn.Close()
	}
}

// Change changes the server while it runs.
func (s *SMTPServer) Change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// Received returns the mails so far.
func (s *SMTPServer) Received() []ReceivedMail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]ReceivedMail(nil), s.received...)
}

// Connects returns how many connections there were.
func (s *SMTPServer) Connects() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connects
}

// MustGet waits for a number of mails, and returns them.
func (s *SMTPServer) MustGet(number int) []ReceivedMail {
	s.T.Helper()
	Eventually(s.T, fmt.Sprintf("%d mails arrive", number), func() bool { return len(s.Received()) >= number })
	return s.Received()
}

// smtpSession is a connection.
type smtpSession struct {
	*SMTPServer
	conn net.Conn
	text *textproto.Conn
	mail ReceivedMail
	gone bool // it hangs or has dropped the connection
}

func (s *SMTPServer) serve(conn net.Conn) {
	s.mu.Lock()
	s.connects++
	s.open[conn] = true
	fromStart := s.FromStart
	s.mu.Unlock()
	defer func() {
		_ = conn.Close()
		s.mu.Lock()
		delete(s.open, conn)
		s.mu.Unlock()
	}()
	c := &smtpSession{SMTPServer: s, conn: conn}
	if fromStart {
		c.conn, c.mail.Encrypted = tls.Server(conn, s.tls), true
	}
	c.text = textproto.NewConn(c.conn)
	if !c.answer("CONNECT", "220 sink ESMTP") {
		return
	}
	for {
		line, err := c.text.ReadLine()
		if err != nil || !c.obey(line) || c.gone {
			return
		}
	}
}

// answer answers a verb, unless the test wants something else. It returns whether the answer was the
// usual one.
func (c *smtpSession) answer(verb, usual string) bool {
	c.mu.Lock()
	text := usual
	if given := c.Answers[verb]; given != "" {
		text = given
	}
	if given := c.Once[verb]; given != "" {
		text = given
		delete(c.Once, verb)
	}
	hang, drop := c.Hang == verb, c.Drop == verb
	c.mu.Unlock()
	if hang {
		_, _ = io.Copy(io.Discard, c.conn) // until the client gives up
	}
	c.gone = hang || drop
	return !c.gone && c.text.PrintfLine("%s", text) == nil && strings.HasPrefix(text, usual[:1])
}

func (c *smtpSession) obey(line string) bool {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb = strings.ToUpper(verb); verb {
	case "EHLO":
		c.mu.Lock()
		offers := []string{"sink", "8BITMIME", "ENHANCEDSTATUSCODES"}
		if !c.NoSTARTTLS && !c.mail.Encrypted {
			offers = append(offers, "STARTTLS")
		}
		if c.User != "" {
			offers = append(offers, "AUTH PLAIN LOGIN")
		}
		if c.SMTPUTF8 {
			offers = append(offers, "SMTPUTF8")
		}
		c.mu.Unlock()
		text := "250-" + strings.Join(offers[:len(offers)-1], "\r\n250-") + "\r\n250 " + offers[len(offers)-1]
		return c.answer(verb, text)
	case "STARTTLS":
		if !c.answer(verb, "220 go on") {
			return true
		}
		c.conn, c.mail.Encrypted = tls.Server(c.conn, c.tls), true
		c.text = textproto.NewConn(c.conn)
		return true
	case "AUTH":
		return c.logIn(strings.TrimPrefix(rest, "PLAIN "))
	case "MAIL":
		if c.User != "" && c.mail.User == "" {
			return c.text.PrintfLine("530 5.7.0 Authentication required") == nil
		}
		c.mail.From = rest
		_ = c.answer(verb, "250 2.1.0 ok")
	case "RCPT":
		c.mail.To = rest
		_ = c.answer(verb, "250 2.1.5 ok")
	case "DATA":
		return c.data()
	case "QUIT":
		_ = c.answer(verb, "221 bye")
		return false
	case "RSET", "NOOP":
		return c.answer(verb, "250 ok")
	default:
		return c.text.PrintfLine("500 unknown") == nil
	}
	return true
}

func (c *smtpSession) logIn(response string) bool {
	plain, err := base64.StdEncoding.DecodeString(response)
	parts := bytes.Split(plain, []byte{0})
	if err != nil || len(parts) != 3 || string(parts[1]) != c.User || string(parts[2]) != c.Password {
		return c.text.PrintfLine("535 5.7.8 Authentication credentials invalid") == nil
	}
	c.mail.User = c.User
	return c.answer("AUTH", "235 2.7.0 welcome")
}

func (c *smtpSession) data() bool {
	if !c.answer("DATA", "354 go on") {
		return true
	}
	if c.Gate != nil {
		<-c.Gate
	}
	raw := new(strings.Builder)
	for {
		line, err := c.text.R.ReadString('\n') // DotReader would make LF of CRLF
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		raw.WriteString(strings.TrimPrefix(line, "."))
	}
	if c.answer("DATA END", "250 2.0.0 taken") {
		c.mu.Lock()
		defer c.mu.Unlock()
		got := c.mail
		got.Raw = raw.String()
		c.received = append(c.received, got)
	}
	return true
}
