package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/wneessen/go-mail"
)

func init() {
	caddy.RegisterModule(new(SMTP))
	config.RegisterBlock("mail", new(SMTP).options())
}

const (
	defaultTimeout = 15 * time.Second
	// maxAnswers is how many bytes a server may send in a connection.
	maxAnswers = 1 << 20
)

// SMTP sends mails to a mail server. The connection is encrypted, and the certificate of the
// server is verified: with `smtps` from the start, with `smtp` by STARTTLS, without which nothing
// is sent. Only a server on this machine is used without encryption, unless TrustedCACerts is set.
type SMTP struct {
	Settings

	// URL of the server, `smtp://` or `smtps://`, with the user and the password, if the
	// server wants them: `smtp://user:{env.SMTP_PASSWORD}@mail.example.com:587`. The port is
	// by default 587, of smtps 465, of smtp on this machine 25. A character that ends a part
	// of a URL is written as %40, unless it comes from a placeholder. Required.
	URL string `json:"url,omitempty"`

	// Username is the user at the server, instead of in the URL.
	Username string `json:"username,omitempty"`

	// Password of the user, instead of in the URL, such as `{env.SMTP_PASSWORD}` or
	// `{file./run/secrets/smtp}`. It is used as it is, whatever characters it has.
	Password string `json:"password,omitempty"`

	// Timeout is how long to wait for the server, once for the connection and once for the
	// mail, from 1s to 30s. Default: `15s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// TrustedCACerts are PEM files of the authorities that may have signed the server's
	// certificate. Default: those of the system.
	TrustedCACerts []string `json:"trusted_ca_certs,omitempty"`

	server server
	tls    *tls.Config // nil for a server on this machine that is used without encryption
}

// CaddyModule returns the Caddy module information.
func (*SMTP) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "jwt.mailers.smtp", New: func() caddy.Module { return new(SMTP) }}
}

// Provision resolves placeholders, and checks the config. It does not connect.
func (s *SMTP) Provision(ctx caddy.Context) (err error) {
	if err := s.Resolve(); err != nil {
		return err
	}
	if s.server, err = parseServer(s.URL); err != nil {
		return err
	}
	if err := s.credentials(); err != nil {
		return err
	}
	config.SetDefault(&s.Timeout, caddy.Duration(defaultTimeout))
	if timeout := time.Duration(s.Timeout); timeout < time.Second || timeout > 30*time.Second {
		return fmt.Errorf("timeout is %s; it must be from 1s to 30s", timeout)
	}
	if s.server.tls || !thismachine.Is(s.server.host) || len(s.TrustedCACerts) > 0 {
		s.tls = &tls.Config{ServerName: s.server.host, MinVersion: tls.VersionTLS12}
	}
	if len(s.TrustedCACerts) > 0 {
		s.tls.RootCAs = x509.NewCertPool()
	}
	for _, path := range s.TrustedCACerts {
		if err := config.Resolve("trusted_ca_certs", &path); err != nil {
			return err
		}
		pem, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("trusted_ca_certs: %w", err)
		}
		if !s.tls.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("trusted_ca_certs: %s contains no PEM certificate", path)
		}
	}
	config.OnCheck(ctx, config.Check{What: "mail server " + s.Where(), Run: s.check})
	return nil
}

// check logs in to the server, and sends nothing.
func (s *SMTP) check(ctx context.Context) (found string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.Timeout))
	defer cancel()
	client, err := s.client(false, func(dialing context.Context, network, _ string) (net.Conn, error) {
		return s.dial(ctx, dialing, network)
	})
	if err != nil {
		return "", err
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return "", s.explain(err)
	}
	found = "it answers, and its certificate is valid"
	if s.tls == nil {
		found = "it answers, without encryption, on this machine"
	}
	if s.server.username != "" {
		found += "; it accepts the user and the password"
	}
	return found, session.Quit()
}

// credentials resolves the user and the password, which are in the URL or in options.
func (s *SMTP) credentials() (err error) {
	if s.Username != "" || s.Password != "" {
		if s.server.username != "" {
			return errors.New("the user is in the URL and in username or password; keep one of them")
		}
		if s.server.username, err = value("username", s.Username); err != nil {
			return err
		}
		if s.server.password, err = value("password", s.Password); err != nil {
			return err
		}
	}
	if (s.server.username == "") != (s.server.password == "") {
		return errors.New("the user or the password is missing; set both, as in: " +
			"smtp://user:{env.SMTP_PASSWORD}@mail.example.com, or none")
	}
	return nil
}

// Where implements [Mailer].
func (s *SMTP) Where() string { return s.server.String() }

// Send implements [Mailer].
func (s *SMTP) Send(ctx context.Context, m *Message) (answer string, err error) {
	msg, err := s.compose(m)
	if err != nil {
		return "", err
	}
	var conn net.Conn // go-mail does not close it after each error
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	utf8 := !isASCII(s.from.Address) || !isASCII(localPart(m.To))
	client, err := s.client(utf8, func(dialing context.Context, network, _ string) (net.Conn, error) {
		var err error
		conn, err = s.dial(ctx, dialing, network)
		return conn, err
	})
	if err != nil {
		return "", err
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return "", s.explain(err)
	}
	if known, _ := session.Extension("SMTPUTF8"); utf8 && !known {
		return "", &Error{Class: Refused, Err: errors.New(
			"the address has letters beyond ASCII before the @, which the server does not support (SMTPUTF8)",
		)}
	}
	err = client.SendWithSMTPClient(session, msg)
	if err != nil && !msg.IsDelivered() {
		return "", s.explain(err)
	}
	_ = session.Quit()
	return oneLine(msg.ServerResponse()), nil
}

func (s *SMTP) client(utf8 bool, dial mail.DialContextFunc) (*mail.Client, error) {
	options := []mail.Option{
		mail.WithPort(s.server.port), mail.WithTimeout(time.Duration(s.Timeout)), mail.WithDialContextFunc(dial),
		mail.WithoutNoop(), mail.WithoutRset(), mail.WithTLSPolicy(mail.TLSMandatory),
	}
	switch {
	case s.tls == nil:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	case s.server.tls:
		options = append(options, mail.WithSSL(), mail.WithTLSConfig(s.tls))
	default:
		options = append(options, mail.WithTLSConfig(s.tls))
	}
	if !utf8 { // or a server would refuse to pass the mail on to one that does not support it
		options = append(options, mail.WithoutSMTPUTF8())
	}
	if s.server.username != "" {
		plain, login := mail.SMTPAuthPlain, mail.SMTPAuthLogin
		if s.tls == nil {
			plain, login = mail.SMTPAuthPlainNoEnc, mail.SMTPAuthLoginNoEnc
		}
		options = append(
			options, mail.WithUsername(s.server.username), mail.WithPassword(s.server.password),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, plain, login, mail.SMTPAuthCramMD5),
		)
	}
	return mail.NewClient(s.server.host, options...)
}

// dial connects, and closes the connection when the mail is given up.
func (s *SMTP) dial(sending, dialing context.Context, network string) (net.Conn, error) {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if s.tls == nil && err == nil && !to.Addr().Unmap().IsLoopback() && !to.Addr().IsUnspecified() {
			return fmt.Errorf("%s is not on this machine, so mails to it must be encrypted", address)
		}
		return nil
	}}
	plain, err := dialer.DialContext(dialing, network, net.JoinHostPort(s.server.host, strconv.Itoa(s.server.port)))
	if err != nil {
		return nil, err
	}
	conn := net.Conn(&boundedConn{Conn: plain, left: maxAnswers})
	context.AfterFunc(sending, func() { _ = conn.Close() })
	if !s.server.tls {
		return conn, nil
	}
	encrypted := tls.Client(conn, s.tls)
	if err := encrypted.HandshakeContext(dialing); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return encrypted, nil
}

// boundedConn is a connection on which a server cannot send without end.
type boundedConn struct {
	net.Conn
	left int
}

// Read implements net.Conn.
func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("the server has sent more than %d bytes", maxAnswers)
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// UnmarshalCaddyfile sets the module up from Caddyfile tokens. Syntax:
//
//	mail smtp[s]://[<user>:<password>@]<host>[:<port>] {
//	    from             <address>
//	    reply_to         <address>
//	    username         <user>
//	    password         <password>
//	    timeout          <duration>
//	    trusted_ca_certs <pem_file...>
//	    retry_for        <duration>
//	    per_address      <mails>
//	    per_client       <mails>
//	}
func (s *SMTP) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.Val() == "smtp" && !d.NextArg() {
		return d.Errf("%s", takesURL)
	}
	s.URL = d.Val()
	if d.NextArg() {
		return d.Errf("%s; options are in a block after it", takesURL)
	}
	return config.ReadBlock(d, "mail", s.options())
}

const takesURL = "mail takes the URL of a mail server, as in: mail smtp://user:{env.SMTP_PASSWORD}@mail.example.com"

func (s *SMTP) options() []config.Option {
	return append(s.Options(), []config.Option{
		{Name: "username", Read: config.Word("the user at the mail server", &s.Username)},
		{Name: "password", Read: config.Word(
			"the password at the mail server, as in: password {env.SMTP_PASSWORD}", &s.Password,
		)},
		{Name: "timeout", Read: config.Duration(&s.Timeout)},
		{Name: "trusted_ca_certs", Read: config.Words("PEM files", &s.TrustedCACerts)},
	}...)
}

// Interface guards
var (
	_ caddy.Provisioner     = (*SMTP)(nil)
	_ caddyfile.Unmarshaler = (*SMTP)(nil)
	_ Mailer                = (*SMTP)(nil)
)
