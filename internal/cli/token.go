package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token (--secret <source> | --key <source>) [flags]",
		Short: "Mints a signed token, for tests and for services that sign their own",
		Long: `
Mints a JWT and prints it. It is signed with a shared secret or a private key, which
is read from a source, never from the command line itself:

    -           standard input
    @<file>     a file
    env:<NAME>  an environment variable

A private key is a PEM (PKCS#8, PKCS#1 or SEC 1) or a JWK. A single line break at
the end of a secret is ignored.`,
		Example: `  caddy jwt token --secret env:JWT_SECRET --claim sub=alice --claim scope="read write"
  caddy jwt token --key @private.pem --claim iss=https://example.com --claim-json 'roles=["admin"]' --lifetime 5m`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().String("secret", "", "Source of the shared secret")
	cmd.Flags().String("encoding", "", "Encoding of the secret, base64 or hex; by default the bytes are used unchanged")
	cmd.Flags().String("key", "", "Source of the private key")
	cmd.Flags().StringArray("claim", nil, "A claim with a string value; may be repeated")
	cmd.Flags().StringArray("claim-json", nil, "A claim with a JSON value; may be repeated")
	cmd.Flags().String("lifetime", "1h", "Time until the token expires; 0 for a token that never expires")
	cmd.Flags().String("alg", "", "Algorithm; by default HS256 for a secret, and the algorithm of a key")
	cmd.Flags().String("kid", "", "Key ID for the header; by default the key ID of a JWK")
	cmd.Flags().String("typ", "JWT", "Type for the header, such as at+jwt")
	cmd.RunE = runs(mintToken)
	return cmd
}

func mintToken(cmd *cobra.Command, _ []string) error {
	flags := flagsOf(cmd)
	signer, err := newSigner(cmd.InOrStdin(), flags)
	if err != nil {
		return err
	}
	claims, err := claimsFromFlags(flags)
	if err != nil {
		return err
	}
	token, err := signer.Sign(flags.String("typ"), claims)
	if err == nil {
		fmt.Fprintln(cmd.OutOrStdout(), token)
	}
	return err
}

func claimsFromFlags(flags caddycmd.Flags) (map[string]any, error) {
	lifetime, err := caddy.ParseDuration(flags.String("lifetime"))
	if err != nil || lifetime < 0 {
		return nil, fmt.Errorf(
			"--lifetime %q: it must be a duration, as in 5m, 1h or 30d, or 0 for no expiry", flags.String("lifetime"),
		)
	}
	now := time.Now()
	claims := map[string]any{"iat": now.Unix()}
	if lifetime > 0 {
		claims["exp"] = now.Add(lifetime).Unix()
	}
	texts, err := flags.GetStringArray("claim")
	if err != nil {
		return nil, err
	}
	for _, text := range texts {
		name, value, found := strings.Cut(text, "=")
		if !found || name == "" {
			return nil, fmt.Errorf("--claim %q: it must be a name and a string, as in sub=alice", text)
		}
		if _, twice := claims[name].(string); twice {
			return nil, fmt.Errorf(
				"--claim %s is specified twice; for a list use --claim-json, as in %s=[\"a\",\"b\"]", name, name,
			)
		}
		if slices.Contains([]string{"exp", "nbf", "iat"}, name) {
			return nil, fmt.Errorf("--claim %s is a string, but a time must be a number; use --claim-json", name)
		}
		claims[name] = value
	}
	values, err := flags.GetStringArray("claim-json")
	if err != nil {
		return nil, err
	}
	for _, text := range values {
		name, raw, _ := strings.Cut(text, "=")
		object, err := jwt.ParseClaims([]byte(`{"value":` + raw + `}`))
		if err != nil || name == "" || len(object) != 1 {
			return nil, fmt.Errorf(`--claim-json %q: it must be a name and a JSON value, as in roles=["admin"]`, text)
		}
		claims[name] = object["value"]
	}
	return claims, nil
}

func newSigner(stdin io.Reader, flags caddycmd.Flags) (signing.Signer, error) {
	secret, key := flags.String("secret"), flags.String("key")
	var s signing.Signer
	var algorithms []string
	switch {
	case key != "" && flags.String("encoding") != "":
		return s, errors.New("--encoding only applies to --secret; remove it when using --key")
	case (secret == "") == (key == ""):
		return s, errors.New("set exactly one of --secret and --key to -, @<file> or env:<NAME>")
	case secret != "":
		text, err := readSource(stdin, "--secret", secret)
		if err != nil {
			return s, err
		}
		verifier, err := config.DecodeSecret(string(text), flags.String("encoding"))
		if errors.Is(err, config.ErrEncoding) {
			err = fmt.Errorf("%w; if it is the plain secret, remove --encoding", err)
		}
		if err != nil {
			return s, fmt.Errorf("--secret: %w", err)
		}
		s.Key, algorithms = verifier.Material, verifier.Algorithms()
	default:
		text, err := readSource(stdin, "--key", key)
		if err != nil {
			return s, err
		}
		if s, algorithms, err = signing.ParsePrivateKey(text); err != nil {
			return s, fmt.Errorf("--key: %w", err)
		}
	}
	if id := flags.String("kid"); id != "" {
		s.ID = id
	}
	s.Algorithm = algorithms[0]
	if expected := flags.String("alg"); expected != "" {
		if !slices.Contains(algorithms, expected) {
			return s, fmt.Errorf(
				"--alg %s: this key is for %s%s", expected,
				strings.Join(algorithms, ", "), config.Meant(expected, algorithms...),
			)
		}
		s.Algorithm = expected
	}
	return s, nil
}

var errEmptySource = errors.New("is empty")

// readSource reads a secret from standard input, a file or an environment variable.
func readSource(stdin io.Reader, flag, source string) (text []byte, err error) {
	from := "file " + strings.TrimPrefix(source, "@")
	switch {
	case source == "-":
		from = "standard input"
		text, err = io.ReadAll(io.LimitReader(stdin, jwks.MaxDocumentBytes))
	case strings.HasPrefix(source, "@"):
		text, err = os.ReadFile(source[1:])
	case strings.HasPrefix(source, "env:"):
		value, set := os.LookupEnv(source[len("env:"):])
		if !set {
			return nil, fmt.Errorf("%s: the environment variable %s is not set", flag, source[len("env:"):])
		}
		from = "the environment variable " + source[len("env:"):]
		text = []byte(value)
	default:
		return nil, fmt.Errorf(
			"%s takes -, @<file> or env:<NAME>, not the value itself, which other users could see in the process list",
			flag,
		)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if len(text) == 0 {
		return nil, fmt.Errorf("%s: %s %w", flag, from, errEmptySource)
	}
	return text, nil
}
