package mail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() {
	caddy.RegisterModule(new(Command))
}

// recipientWord is the argument that is replaced by the recipient.
const recipientWord = "{mail.to}"

// Command sends mails by a program, such as `/usr/sbin/sendmail -i -t`, which gets the message on
// its standard input. It runs without a shell, as the user who runs Caddy, once for each mail. It
// reports success by the exit code 0; 65, 67 and 68 refuse the mail, 75 defers it (sysexits), and
// any other means that it can send nothing now. What it writes to its standard error is in the log.
type Command struct {
	Settings

	// Command is the program and its arguments. An argument `{mail.to}` is replaced by the
	// address of the recipient, which is also in the header of the message. Required.
	Command []string `json:"command,omitempty"`

	// Timeout is how long the program may run, from 1s to 1m. Default: `30s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Command) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "jwt.mailers.command", New: func() caddy.Module { return new(Command) }}
}

// Provision resolves placeholders, and checks the config. It runs nothing.
func (c *Command) Provision(caddy.Context) error {
	if err := c.Resolve(); err != nil {
		return err
	}
	for i := range c.Command {
		if i > 0 && c.Command[i] == recipientWord {
			continue
		}
		if err := config.Resolve("command", &c.Command[i]); err != nil {
			return err
		}
	}
	if len(c.Command) == 0 || c.Command[0] == "" {
		return errors.New("command is missing; set the program and its arguments")
	}
	config.SetDefault(&c.Timeout, caddy.Duration(2*defaultTimeout))
	if timeout := time.Duration(c.Timeout); timeout < time.Second || timeout > time.Minute {
		return fmt.Errorf("timeout is %s; it must be from 1s to 1m", timeout)
	}
	if _, err := exec.LookPath(c.Command[0]); err != nil {
		return fmt.Errorf("command: %w; write the path of the program, as in: /usr/sbin/sendmail -i -t", err)
	}
	return nil
}

// Where implements [Mailer].
func (c *Command) Where() string { return filepath.Base(c.Command[0]) }

// exitClass maps exit codes to their meaning (sysexits.h).
var exitClass = map[int]Class{65: Refused, 67: Refused, 68: Refused, 75: Deferred}

// Send implements [Mailer].
func (c *Command) Send(ctx context.Context, m *Message) (string, error) {
	msg, err := c.compose(m)
	if err != nil {
		return "", err
	}
	to, err := Address(m.To)
	if err == nil && strings.HasPrefix(to, "-") {
		err = errors.New("begins with -, which a program may read as an option")
	}
	if err != nil {
		return "", &Error{Class: Refused, Err: fmt.Errorf("the address of the recipient %w", err)}
	}
	var text bytes.Buffer
	if _, err := msg.WriteTo(&text); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout))
	defer cancel()
	args := slices.Clone(c.Command[1:])
	for i := range args {
		if args[i] == recipientWord {
			args[i] = to
		}
	}
	said := new(beginning)
	program := exec.CommandContext(ctx, c.Command[0], args...)
	// programs read the line ends of the system, not those of SMTP
	program.Stdin = bytes.NewReader(bytes.ReplaceAll(text.Bytes(), []byte("\r\n"), []byte("\n")))
	program.Stderr = said
	program.WaitDelay = time.Second // of what it has started, and holds its output
	err = program.Run()
	if err == nil {
		return fmt.Sprintf("%s has taken it", c.Where()), nil
	}
	failure := &Error{Err: fmt.Errorf("%s: %w", c.Where(), err), Advice: oneLine(said.String())}
	if ctx.Err() != nil {
		failure.Err = fmt.Errorf("%s did not end within %s", c.Where(), time.Duration(c.Timeout))
	} else if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		failure.Class = exitClass[exit.ExitCode()]
	}
	return "", failure
}

// beginning keeps the beginning of what is written.
type beginning struct{ bytes.Buffer }

const maxBeginning = 2048

// Write implements io.Writer.
func (b *beginning) Write(text []byte) (int, error) {
	b.Buffer.Write(text[:min(len(text), maxBeginning-b.Len())])
	return len(text), nil
}

// UnmarshalCaddyfile sets the module up from Caddyfile tokens. Syntax:
//
//	mail command <program> [<args...>] {
//	    timeout <duration>
//	}
//
// In the block it also has `from`, `reply_to`, `retry_for`, `per_address` and `per_client`.
func (c *Command) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if c.Command = d.RemainingArgs(); len(c.Command) == 0 {
		return d.Errf("mail command takes a program and its arguments, as in: mail command /usr/sbin/sendmail -i -t")
	}
	return config.ReadBlock(d, "mail command", append(c.Options(), config.Option{
		Name: "timeout", Read: config.Duration(&c.Timeout),
	}))
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Command)(nil)
	_ caddyfile.Unmarshaler = (*Command)(nil)
	_ Mailer                = (*Command)(nil)
)
