package postgres

import (
	"context"
	"time"
)

// A key's tries are one number: until when it would be full if each try took its
// share of the window, one after the other (the generic cell rate algorithm, ITU-T
// I.371). So one statement counts, and refuses, for all nodes.
//
// A number further ahead than a full count comes of a clock that was wrong, and
// counts as full: $5 is until when that is.
const (
	countTry = `INSERT INTO tries (key, full_until) VALUES ($1, CAST($2 AS BIGINT) + $3)
		ON CONFLICT (key) DO UPDATE SET full_until = GREATEST(LEAST(tries.full_until, $5), $2) + $3
		WHERE GREATEST(LEAST(tries.full_until, CAST($5 AS BIGINT)), $2) <= $2 + $3 * CAST($4 AS BIGINT)`
	whenFree = `SELECT LEAST(full_until, CAST($4 AS BIGINT)) - CAST($2 AS BIGINT) - CAST($3 AS BIGINT) FROM tries WHERE key = $1`
	// A full count of a clock that was wrong is brought back, and goes on from there.
	rightTry   = `UPDATE tries SET full_until = $2 WHERE key = $1 AND full_until > $2`
	forgiveTry = `UPDATE tries SET full_until = full_until - $2 WHERE key = $1`
)

// CountTry implements caddyjwt.TryCounter.
func (s *Store) CountTry(ctx context.Context, key string, burst int, every time.Duration, now time.Time) (time.Duration, error) {
	before := int64(burst - 1) // tries that may have been counted
	full := now.Add(time.Duration(burst) * every).UnixMilli()
	counted, err := s.Exec(ctx, countTry, key, now.UnixMilli(), every.Milliseconds(), before, full)
	if err != nil || counted == 1 {
		return 0, err
	}
	if _, err := s.Exec(ctx, rightTry, key, full); err != nil {
		return 0, err
	}
	var wait int64
	err = s.pool.db.QueryRowContext(ctx, whenFree, key, now.UnixMilli(), every.Milliseconds()*before, full).Scan(&wait)
	return max(time.Duration(wait)*time.Millisecond, time.Millisecond), err
}

// ForgiveTry implements caddyjwt.TryCounter.
func (s *Store) ForgiveTry(ctx context.Context, key string, every time.Duration) error {
	_, err := s.Exec(ctx, forgiveTry, key, every.Milliseconds())
	return err
}
