package introspection

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddyserver/caddy/v2"
)

// settings are what an endpoint depends on. They are comparable, as the key for sharing it.
type settings struct {
	url, issuer      string // issuer is for discovery, and for `iss`; empty for that of several tenants
	clientID, secret string
	privateKey       string
	cache, timeout   time.Duration
	allowHTTP        bool
	trustedCAs       string
}

// settings resolves placeholders, and checks the values. Errors never contain a secret.
func (i *Introspection) settings() (s settings, err error) {
	if err := config.Resolve("the URL", &i.URL); err != nil {
		return s, err
	}
	if err := config.Resolve("client_id", &i.ClientID); err != nil {
		return s, err
	}
	s = settings{
		url: i.URL, issuer: i.issuer.Name, clientID: i.ClientID, allowHTTP: i.AllowHTTP,
		cache: DefaultCache, timeout: cmp.Or(time.Duration(i.Timeout), DefaultTimeout),
	}
	if i.issuer.MultiTenant {
		if s.issuer = ""; s.url == "" {
			return s, fmt.Errorf("issuer %s is many issuers, so its endpoint cannot be discovered; "+
				"set the URL, as in: introspection https://id.example.com/introspect", i.issuer.Name)
		}
	}
	if s.secret, err = resolveSecret("client_secret", i.ClientSecret); err != nil {
		return s, err
	}
	if s.privateKey, err = loadPrivateKey(i.PrivateKey); err != nil {
		return s, fmt.Errorf("private_key: %w", err)
	}
	if i.Cache != nil {
		s.cache = time.Duration(*i.Cache)
	}
	for _, path := range i.TrustedCACerts {
		if err := config.Resolve("trusted_ca_certs", &path); err != nil {
			return s, err
		}
		pem, err := os.ReadFile(path)
		if err != nil {
			return s, fmt.Errorf("trusted_ca_certs: %w", err)
		}
		s.trustedCAs += string(pem) + "\n"
	}
	return s, s.check()
}

func (s *settings) check() error {
	switch {
	case s.url == "" && s.issuer == "":
		return errors.New("without a URL it requires an issuer for discovery; " +
			"set the URL, as in: introspection https://id.example.com/introspect")
	case s.url != "" && !secure(s.url, s.allowHTTP):
		return fmt.Errorf("%q: the endpoint must be an https URL, or http to this machine; "+
			"use `allow_http` if you trust the network in between", withoutSecrets(s.url))
	case s.url == "" && !secure(s.issuer, s.allowHTTP):
		return fmt.Errorf("issuer %q is not an https URL, so its endpoint cannot be discovered; "+
			"set the URL, as in: introspection https://id.example.com/introspect", s.issuer)
	case s.clientID == "" && (s.secret != "" || s.privateKey != ""):
		return errors.New("client_id is missing; set the ID of this site at the issuer")
	case s.clientID != "" && s.secret == "" && s.privateKey == "":
		return errors.New("client_secret or private_key is missing; set how this site authenticates at the issuer")
	case s.secret != "" && s.privateKey != "":
		return errors.New("client_secret and private_key are both set; keep the one that the issuer has registered")
	case s.cache < 0 || s.cache > MaxCache:
		return fmt.Errorf("cache is %s; it must be from 0s to %s", s.cache, MaxCache)
	case s.timeout < 100*time.Millisecond || s.timeout > time.Minute:
		return fmt.Errorf("timeout is %s; it must be from 100ms to 1m", s.timeout)
	}
	return nil
}

// secure reports whether a URL is https, or http to this machine, or http is allowed.
func secure(text string, allowHTTP bool) bool {
	u, err := url.Parse(text)
	return err == nil && u.Hostname() != "" && u.User == nil && u.Fragment == "" && !strings.ContainsAny(text, " \t") &&
		(u.Scheme == "https" || u.Scheme == "http" && (allowHTTP || thismachine.Is(u.Hostname())))
}

// withoutSecrets returns a URL without the parts that may contain a password or a key.
func withoutSecrets(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "(invalid URL)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

func noValue(written string) error {
	return errors.New("it is empty, or a placeholder in it is; " + config.WhyEmpty(written) +
		" {env.NAME} and {file./path} are read when the config is loaded")
}

func resolveSecret(option, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if err := config.CheckVariable(text); err != nil {
		return "", fmt.Errorf("%s: %w", option, err)
	}
	resolved, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	resolved = strings.TrimRight(resolved, "\r\n")
	if err != nil || resolved == "" { // the error may quote a part of the secret
		return "", fmt.Errorf("%s: %w", option, noValue(text))
	}
	if strings.ContainsAny(resolved, "\r\n") {
		return "", fmt.Errorf("%s has several lines; write it on one line, as the issuer shows it", option)
	}
	return resolved, nil
}

// loadPrivateKey returns the text of a private key that signs, or of the file with that path.
func loadPrivateKey(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	written := text
	text = strings.TrimSpace(caddy.NewReplacer().ReplaceKnown(text, ""))
	if text == "" {
		return "", noValue(written)
	}
	if !strings.Contains(text, "-----BEGIN") && !strings.HasPrefix(text, "{") {
		content, err := os.ReadFile(text)
		if err != nil {
			return "", err
		}
		text = string(content)
	}
	_, _, err := signing.ParsePrivateKey([]byte(text))
	return text, err
}
