package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddyserver/caddy/v2"
)

// looksLikePath is strict, because a text that is not a path may be a secret.
var looksLikePath = regexp.MustCompile(
	`^(/|\.{1,2}/|~/|[A-Za-z]:\\)([\w. -]{1,32}[/\\]?)+$|` +
		`^([\w. -]{1,32}/)*[\w.-]{1,64}\.(pem|crt|cer|der|key|pub|json|jwk|jwks|txt)$`,
)

// LoadPublicKeys parses a public key, or reads it from the file with that path.
func LoadPublicKeys(text string) ([]*jwt.Key, error) {
	written := text
	text = strings.TrimSpace(caddy.NewReplacer().ReplaceKnown(text, ""))
	if text == "" {
		return nil, errors.New("it is empty; " + WhyEmpty(written))
	}
	if Placeholder.FindString(text) == text {
		return nil, fmt.Errorf(
			"the placeholder %s has no value when the config is loaded; use {env.NAME} or {file./path}", text,
		)
	}
	if strings.ContainsAny(text, "{\n") || strings.Contains(text, "-----BEGIN") {
		return jwt.ParsePublicKeys(text)
	}
	content, err := os.ReadFile(text)
	if err == nil && len(strings.TrimSpace(string(content))) == 0 {
		return nil, fmt.Errorf("file %s is empty", text)
	}
	if err == nil {
		keys, err := jwt.ParsePublicKeys(string(content))
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", text, err)
		}
		return keys, nil
	}
	keys, parseErr := jwt.ParsePublicKeys(text)
	switch {
	case parseErr == nil:
		return keys, nil
	case strings.Contains(text, "://"):
		return nil, errors.New("it is a URL; set it with `jwks` instead")
	// it may be a secret, which no log may have
	case errors.Is(err, fs.ErrNotExist) && !looksLikePath.MatchString(text):
		return nil, fmt.Errorf("it is neither a public key nor the path of a readable file: %w", parseErr)
	}
	return nil, fmt.Errorf("it is neither a key nor the path of a readable file: %w", err)
}
