package config

import (
	"fmt"
	"regexp"

	"github.com/caddyserver/caddy/v2"
)

// Resolve replaces the placeholders in the values of an option.
func Resolve(option string, values ...*string) error {
	replacer := caddy.NewReplacer()
	for _, value := range values {
		resolved, err := replacer.ReplaceOrErr(*value, true, true)
		if err != nil {
			return fmt.Errorf("%s %q: it has a placeholder without a value when the config is loaded; "+
				"use {env.NAME} of a variable that is set, or {file./path} of a file that is not empty", option, *value)
		}
		*value = resolved
	}
	return nil
}

// ResolveList replaces the placeholders in a list of values of an option.
func ResolveList(option string, values []string) error {
	for i := range values {
		if err := Resolve(option, &values[i]); err != nil {
			return err
		}
	}
	return nil
}

// Placeholder matches a placeholder that is not escaped.
var Placeholder = regexp.MustCompile(`([^\\]|^){([a-zA-Z][\w.-]*)}`)

// SetDefault sets a value that is not set.
func SetDefault[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}
