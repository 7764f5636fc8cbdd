package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/caddyserver/caddy/v2"
)

// Resolve replaces the placeholders in the values of an option.
func Resolve(option string, values ...*string) error {
	replacer := caddy.NewReplacer()
	for _, value := range values {
		if err := CheckVariable(*value); err != nil {
			return fmt.Errorf("%s: %w", option, err)
		}
		resolved, err := replacer.ReplaceOrErr(*value, true, true)
		if err != nil {
			return fmt.Errorf("%s %q: it has a placeholder without a value when the config is loaded; "+
				"use {env.NAME} of a variable that is set, or {file./path} of a file that is not empty", option, *value)
		}
		*value = resolved
	}
	return nil
}

// valued matches the placeholders that Caddy fills in from outside of the config.
var valued = regexp.MustCompile(`{(env|file)\.([^{}\n]{1,200})}`)

// WhyEmpty returns the question that ends the error about a value that is empty once its placeholders are
// replaced. It names the variables and files that have nothing, as the text of the config does, and shows no
// value.
func WhyEmpty(written string) string {
	var questions []string
	for _, found := range valued.FindAllStringSubmatch(written, -1) {
		question := "does the file " + found[2] + " exist, with a text in it"
		if found[1] == "env" {
			question = "is the environment variable " + found[2] + " set"
		}
		if caddy.NewReplacer().ReplaceKnown(found[0], "") == "" && !slices.Contains(questions, question) {
			questions = append(questions, question)
		}
	}
	if len(questions) == 0 {
		return "is the environment variable set, and does the file exist?"
	}
	return List(questions) + "?"
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

// shellVariable matches a variable as shells and .env files have them: $NAME, ${NAME}, %NAME% or
// $env:NAME.
var shellVariable = regexp.MustCompile(`^(\$[A-Z_][A-Z0-9_]{2,}|\$\{\w+\}|\$env:\w+|%[A-Z_][A-Z0-9_]{2,}%)$`)

// CheckVariable returns an error for a value of the config that is the name of a variable, written
// as in a shell. Caddy does not replace it, so the name would be the secret. The error does not
// contain the value.
func CheckVariable(value string) error {
	if shellVariable.MatchString(value) {
		return errors.New("it is written like a variable of a shell, which Caddy does not replace; write {env.NAME} " +
			"for the environment variable NAME. If it is the value itself, put it into a variable or a file, as " +
			"{file./path}")
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
