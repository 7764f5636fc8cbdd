// Command bench measures the cost of a JWT check: the CPU time per request of Caddy with the jwt
// handler, of the same Caddy without it, and of HAProxy if it is installed. Run it as
//
//	go run ./bench
//
// It builds and starts real servers on the loopback interface, sends each of them the same number
// of requests in turn, and prints a table. It compares CPU time instead of throughput, because
// the load comes from the same machine.
//
// There are four subcommands. verifiers compares package jwt with other libraries. scale
// measures how performance grows with cores, users and nodes (docs/scaling.md). provider compares
// the OpenID Provider with oidc-provider, for which it needs Node.js and npm. faults runs the
// tests named TestScenario… at full length, and prints what they promise and what was seen:
//
//	go run ./bench verifiers
//	go run ./bench scale
//	go run ./bench provider
//	go run ./bench faults
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
)

// commands are the subcommands; the default is compare.
var commands = map[string]func(ctx context.Context, args []string) error{
	"compare": compare, "verifiers": verifiers, "scale": scale, "provider": provider, "faults": faults,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	run, args := compare, os.Args[1:]
	if len(args) > 0 {
		if named := commands[args[0]]; named != nil {
			run, args = named, args[1:]
		}
	}
	err := run(ctx, args)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// compare runs the comparison and prints it.
func compare(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	requests := flags.Int("requests", 8000, "requests to each server in one round")
	connections := flags.Int("connections", 16, "keep-alive connections, each with one request at a time")
	rounds := flags.Int("rounds", 15, "rounds, of which the median is reported")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf(
			"unexpected %q; the words are compare, the default, verifiers, scale, provider and faults; "+
				"see -help for the flags",
			flags.Arg(0),
		)
	case *requests < 1 || *connections < 1:
		return errors.New("-requests and -connections must be 1 or more")
	case *rounds < minRounds:
		return fmt.Errorf("-rounds must be %d or more; fewer do not show how sure the median is", minRounds)
	}
	if _, err := cpuTime(os.Getpid()); err != nil {
		return err // before the build, which takes long
	}

	dir, err := os.MkdirTemp("", "caddy-jwt-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "Building Caddy, signing tokens, starting servers ...")
	caddy, err := buildCaddy(ctx, dir)
	if err != nil {
		return err
	}
	keys, err := newIssuerKeys(dir)
	if err != nil {
		return err
	}
	servers, err := caddyServers(ctx, caddy, dir, keys)
	if err != nil {
		return err
	}
	haproxy, _ := exec.LookPath("haproxy")
	if haproxy != "" {
		servers = append(servers, haproxyServers(haproxy, keys[0])...) // RS256
	}

	ctx, cancel := context.WithCancel(ctx)
	for _, s := range servers {
		defer s.wait()
	}
	defer cancel() // ends the servers, and runs before the waits
	for _, s := range servers {
		if err := s.start(ctx, dir); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := s.check(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if err := run(servers, *rounds, *requests, *connections); err != nil {
		return err
	}

	if err := printMachine(ctx, caddy, haproxy); err != nil {
		return err
	}
	fmt.Printf("%d rounds, each of %d requests to each server, on %d connections\n\n", *rounds, *requests, *connections)
	if err := printTable(os.Stdout, servers); err != nil {
		return err
	}
	if haproxy == "" {
		fmt.Println("\nHAProxy is not on PATH, so it is not compared. On Debian and Ubuntu: apt-get install haproxy")
	}
	return nil
}

// run loads the servers in turn and records their CPU time. So if the machine is slow for a
// while, this affects all servers of a round, not all rounds of one server. The first round is a
// warm-up and is not counted.
func run(servers []*server, rounds, requests, connections int) error {
	for round := range rounds + 1 {
		fmt.Fprintf(os.Stderr, "\rRound %d of %d ", round, rounds)
		for i := range servers {
			s := servers[(round+i)%len(servers)] // a different one is first after the pause
			n := requests
			if round == 0 {
				n = max(requests, len(s.requests)) // each token once
			}
			spent, err := s.load(n, connections)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if round > 0 {
				s.spent = append(s.spent, spent)
			}
		}
	}
	fmt.Fprint(os.Stderr, "\n\n")
	return nil
}

// printMachine prints the conditions of the measurement. haproxy is empty if it is not installed.
func printMachine(ctx context.Context, caddy, haproxy string) error {
	fmt.Printf("CPU: %s, %d cores\nGo: %s\n", cpuModel(), runtime.NumCPU(), runtime.Version())
	version, err := exec.CommandContext(ctx, caddy, "version").Output()
	if err != nil {
		return fmt.Errorf("caddy version: %w", err)
	}
	fmt.Printf("Caddy: %s", version)
	if haproxy == "" {
		return nil
	}
	version, err = exec.CommandContext(ctx, haproxy, "-v").Output()
	if err != nil {
		return fmt.Errorf("haproxy -v: %w", err)
	}
	line, _, _ := strings.Cut(string(version), "\n")
	fmt.Println(line)
	return nil
}
