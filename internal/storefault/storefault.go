// Package storefault makes a store fail at a chosen moment of a request, like a database that is
// unavailable, or that commits but cannot confirm it. It is apart from sitetest because it
// imports a store.
package storefault

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Moment is a moment at which a store may fail.
type Moment int

const (
	// BeforeStatement is before a statement. If it fails, the statement is not executed.
	BeforeStatement Moment = iota
	// AfterCommit is after a change. If it fails, the change is stored but not confirmed.
	AfterCommit
)

// ErrFault is the error of a fault.
var ErrFault = errors.New("the fault of a test")

// Switch counts the statements and changes of requests, and makes chosen ones fail.
type Switch struct {
	mu     sync.Mutex
	counts [2]int
	fails  func(ctx context.Context, moment Moment, n int) error
}

// Set resets the counts. fails is called at each moment, with its number from 1 on, and returns
// the fault, if any. If fails is nil, there are no faults.
func (s *Switch) Set(fails func(ctx context.Context, moment Moment, n int) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts, s.fails = [2]int{}, fails
}

// Once fails at the n-th moment of this kind. Hit reports whether it was reached.
func (s *Switch) Once(moment Moment, n int) (hit func() bool) { return s.set(moment, n, false) }

// Down is like Once, but all later statements fail too, until the next Set.
func (s *Switch) Down(moment Moment, n int) (hit func() bool) { return s.set(moment, n, true) }

func (s *Switch) set(moment Moment, n int, stays bool) func() bool {
	was := false
	s.Set(func(_ context.Context, at Moment, i int) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if at == moment && i == n {
			was = true
			return ErrFault
		}
		if stays && was && at == BeforeStatement {
			return ErrFault
		}
		return nil
	})
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return was
	}
}

// Counts returns the number of statements, including reads, and of changes since Set.
func (s *Switch) Counts() (statements, changes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[BeforeStatement], s.counts[AfterCommit]
}

func (s *Switch) at(ctx context.Context, moment Moment) error {
	if ctx.Value(caddyhttp.ServerCtxKey) == nil { // not part of a request
		return nil
	}
	s.mu.Lock()
	s.counts[moment]++
	n, fails := s.counts[moment], s.fails
	s.mu.Unlock()
	if fails == nil {
		return nil
	}
	return fails(ctx, moment, n) // without the lock, because it may send a request
}

// Connect wraps the Connect of a SQL store with the switch.
func (s *Switch) Connect(
	real func(context.Context) (read, write *sql.DB, err error),
) func(context.Context) (*sql.DB, *sql.DB, error) {
	return func(ctx context.Context) (read, write *sql.DB, err error) {
		if err := s.at(ctx, BeforeStatement); err != nil {
			return nil, nil, err
		}
		return real(ctx)
	}
}

// Committed wraps the Committed of a SQL store with the switch.
func (s *Switch) Committed(real func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := s.at(ctx, AfterCommit); err != nil || real == nil {
			return err
		}
		return real(ctx)
	}
}
