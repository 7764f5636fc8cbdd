package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// startLimit is the maximum time until a server listens.
const startLimit = 30 * time.Second

// server is a process under load.
type server struct {
	name     string
	command  []string // the path of its configuration is appended
	config   func(port string) string
	requests [][]byte // sent in turn, each answered with 200
	refuses  [][]byte // each answered with 401
	environ  []string // in addition to this process's

	address string
	process *exec.Cmd
	output  bytes.Buffer  // complete once the process has ended
	ended   chan struct{} // closed when the process has ended

	sent  int       // requests so far
	spent []float64 // CPU µs per request, by round
}

// start runs the server until ctx ends, with its files in dir.
func (s *server) start(ctx context.Context, dir string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // finds a free port
	if err != nil {
		return err
	}
	s.address = listener.Addr().String()
	listener.Close()
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, port+".conf")
	if err := os.WriteFile(path, []byte(s.config(port)), 0o600); err != nil {
		return err
	}
	s.process = exec.CommandContext(ctx, s.command[0], append(slices.Clone(s.command[1:]), path)...)
	s.process.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	s.process.Env = append(s.process.Env, s.environ...)
	s.process.Stdout, s.process.Stderr = &s.output, &s.output
	if err := s.process.Start(); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	go func() {
		s.process.Wait()
		close(s.ended)
	}()
	for deadline := time.Now().Add(startLimit); time.Now().Before(deadline); {
		if conn, err := net.Dial("tcp", s.address); err == nil {
			return conn.Close()
		}
		select {
		case <-s.ended:
			return fmt.Errorf("it ended before it listened: %s\n%s", s.process.ProcessState, &s.output)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("it does not listen on %s after %s", s.address, startLimit)
}

// wait returns once the process has ended, if it was started.
func (s *server) wait() {
	if s.ended != nil {
		<-s.ended
	}
}

// check makes sure that the server checks tokens, so that the check is measured.
func (s *server) check() error {
	for _, request := range s.refuses {
		if err := s.expect(request, http.StatusUnauthorized); err != nil {
			return err
		}
	}
	return s.expect(s.requests[0], http.StatusOK)
}

func (s *server) expect(request []byte, expected int) error {
	conn, err := dial(s.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	status, err := conn.send(request)
	if err != nil || status != expected {
		return errors.Join(
			err, fmt.Errorf("it answers %d to this request; it must be %d:\n%s", status, expected, request),
		)
	}
	return nil
}
