package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"
)

const (
	verifierTokens = 256  // of each algorithm, in turn
	verifierRuns   = 1000 // verifications of one library in one round
)

// verifyToken verifies one token.
type verifyToken func(token string) error

// library creates a verifier of tokens with a key, an issuer and an audience; nil for an
// algorithm that it does not support.
type library struct {
	name   string
	module string // path, for its version; empty for this module
	make   func(key *issuerKey, issuer, audience string) (verifyToken, error)
}

// contender is a library with one key, and the times of its rounds.
type contender struct {
	library
	verify verifyToken
	spent  []float64 // µs of processor time per token
	allocs float64   // per token
}

// verifiers compares package jwt with other libraries. It prints a table of their times and one
// of the tokens that each refuses.
func verifiers(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench verifiers", flag.ContinueOnError)
	rounds := flags.Int("rounds", 15, "rounds, of which the median is reported")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected %q; see -help for the flags", flags.Arg(0))
	case *rounds < 1:
		return errors.New("-rounds must be 1 or more")
	}
	keys, err := usualKeys()
	if err != nil {
		return err
	}
	fmt.Printf("CPU: %s, %d cores\nGo: %s\n", cpuModel(), runtime.NumCPU(), runtime.Version())
	for _, l := range libraries {
		if l.module != "" {
			fmt.Println(l.module, moduleVersion(l.module))
		}
	}
	fmt.Printf("%d rounds, each of %d verifications by each library\n\n", *rounds, verifierRuns)
	fmt.Println("| algorithm | library | µs per token | ratio | allocations |")
	fmt.Println("| --- | --- | --- | --- | --- |")
	for _, key := range keys {
		contenders, err := measureVerifiers(ctx, key, *rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", key.algorithm, err)
		}
		for _, c := range contenders {
			middle, _, _ := median(c.spent)
			ratio, _, _ := median(ratios(c.spent, contenders[0].spent))
			fmt.Printf("| %s | %s | %.1f | %.3f | %.0f |\n", key.algorithm, c.name, middle, ratio, c.allocs)
		}
	}
	return printOddTokens(keys)
}

// measureVerifiers makes all libraries verify the same tokens, in turn, so that a slow phase of
// the machine affects all of them.
func measureVerifiers(ctx context.Context, key *issuerKey, rounds int) ([]*contender, error) {
	tokens := make([]string, verifierTokens)
	for i := range tokens {
		token, err := key.token(i, time.Now().Add(24*time.Hour))
		if err != nil {
			return nil, err
		}
		tokens[i] = string(token)
	}
	var contenders []*contender
	for _, l := range libraries {
		if err := l.check(key); err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		verify, err := l.make(key, issuer, audience)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		if verify != nil {
			contenders = append(contenders, &contender{library: l, verify: verify})
		}
	}
	for round := range rounds + 1 { // the first is a warm-up and is not counted
		for i := range contenders {
			c := contenders[(round+i)%len(contenders)]
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			spent, err := c.round(tokens)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				c.spent = append(c.spent, spent)
			}
		}
	}
	for _, c := range contenders {
		i := 0
		c.allocs = testing.AllocsPerRun(len(tokens), func() {
			_ = c.verify(tokens[i%len(tokens)])
			i++
		})
	}
	return contenders, nil
}

// round returns the processor time per token in µs, including the garbage collector, which runs on
// another core.
func (c *contender) round(tokens []string) (float64, error) {
	runtime.GC() // free the memory of the previous library
	began, err := cpuTime(os.Getpid())
	if err != nil {
		return 0, err
	}
	for i := range verifierRuns {
		if err := c.verify(tokens[i%len(tokens)]); err != nil {
			return 0, err
		}
	}
	ended, err := cpuTime(os.Getpid())
	return float64((ended - began).Nanoseconds()) / 1000 / verifierRuns, err
}

// check makes sure that a library refuses invalid tokens. Otherwise the measurement would be
// unfair.
func (l library) check(key *issuerKey) error {
	token := func(id int, after time.Duration) string {
		signed, err := key.token(id, time.Now().Add(after))
		if err != nil {
			panic(err) // it has signed other tokens
		}
		return string(signed)
	}
	good := token(1, time.Hour)
	other := token(2, time.Hour)
	for _, test := range []struct {
		what, issuer, audience, token string
		refused                       bool
	}{
		{"a good token", issuer, audience, good, false},
		{"a token of another issuer", "https://other.example/", audience, good, true},
		{"a token for another audience", issuer, "https://other.example", good, true},
		{"an expired token", issuer, audience, token(1, -time.Hour), true},
		{"a token with the signature of another", issuer, audience, good[:len(good)-40] + other[len(other)-40:], true},
	} {
		verify, err := l.make(key, test.issuer, test.audience)
		if err != nil || verify == nil {
			return err
		}
		if err := verify(test.token); (err != nil) != test.refused {
			return fmt.Errorf("%s: error %v", test.what, err)
		}
	}
	return nil
}

// moduleVersion returns the version of a module in this program.
func moduleVersion(path string) string {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return "of an unknown version"
	}
	if i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == path }); i >= 0 {
		return info.Deps[i].Version
	}
	return "of an unknown version"
}
