// Package storefault has a store fail at a chosen moment of a request, as a database does
// that is away, or that commits and cannot say so. It imports a store, which sitetest does
// not.
package storefault

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Moment is one of the two at which a store may fail.
type Moment int

const (
	// BeforeStatement is before a statement, which is not made if it fails.
	BeforeStatement Moment = iota
	// AfterCommit is after a change, which is made and not acknowledged if it fails.
	AfterCommit
)

// ErrFault is the error of a fault.
var ErrFault = errors.New("the fault of a test")

// Switch counts the statements and changes of requests, and has one fail.
type Switch struct {
	mu     sync.Mutex
	counts [2]int
	fails  func(ctx context.Context, moment Moment, n int) error
}

// Set begins to count anew. fails is asked at each moment, the first of which is 1; nil
// for no faults.
func (s *Switch) Set(fails func(ctx context.Context, moment Moment, n int) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts, s.fails = [2]int{}, fails
}

// Once fails at the n-th such moment; Down at all statements after that too. Hit tells
// whether it came to that.
func (s *Switch) Once(moment Moment, n int) (hit func() bool) { return s.set(moment, n, false) }

// Down is as Once, and the store does not come back before the next Set.
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

// Counts are the statements, reads too, and the changes since Set.
func (s *Switch) Counts() (statements, changes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[BeforeStatement], s.counts[AfterCommit]
}

func (s *Switch) at(ctx context.Context, moment Moment) error {
	if ctx.Value(caddyhttp.ServerCtxKey) == nil { // of no request
		return nil
	}
	s.mu.Lock()
	s.counts[moment]++
	n, fails := s.counts[moment], s.fails
	s.mu.Unlock()
	if fails == nil {
		return nil
	}
	return fails(ctx, moment, n) // which may ask for something meanwhile
}

// Connect is the Connect of a SQLStore with the switch in it.
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

// Committed is the Committed of a SQLStore with the switch in it.
func (s *Switch) Committed(real func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := s.at(ctx, AfterCommit); err != nil || real == nil {
			return err
		}
		return real(ctx)
	}
}
