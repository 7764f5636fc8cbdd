package postgres

import (
	"context"
	"time"
)

// The attempts of a key are stored as a single number: the time until which it would be
// full if each attempt took its share of the window, one after the other (the generic cell
// rate algorithm, ITU-T I.371). So a single statement counts and refuses for all nodes.
//
// A time further in the future than a full count comes from a wrong clock, and is treated
// as full: $5 is that limit.
const (
	countTry = `INSERT INTO tries (key, full_until) VALUES ($1, CAST($2 AS BIGINT) + $3)
		ON CONFLICT (key) DO UPDATE SET full_until = GREATEST(LEAST(tries.full_until, $5), $2) + $3
		WHERE GREATEST(LEAST(tries.full_until, CAST($5 AS BIGINT)), $2) <= $2 + $3 * CAST($4 AS BIGINT)`
	whenFree = `SELECT LEAST(full_until, CAST($4 AS BIGINT)) - CAST($2 AS BIGINT) - CAST($3 AS BIGINT)
		FROM tries WHERE key = $1`
	// Corrects a count from a wrong clock to a full count.
	rightTry   = `UPDATE tries SET full_until = $2 WHERE key = $1 AND full_until > $2`
	forgiveTry = `UPDATE tries SET full_until = full_until - $2 WHERE key = $1`
)

// CountAttempt implements caddyjwt.AttemptCounter.
func (s *Store) CountAttempt(
	ctx context.Context, key string, burst int, every time.Duration, now time.Time,
) (time.Duration, error) {
	before := int64(burst - 1) // attempts that may already have been counted
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

// ForgiveAttempt implements caddyjwt.AttemptCounter.
func (s *Store) ForgiveAttempt(ctx context.Context, key string, every time.Duration) error {
	_, err := s.Exec(ctx, forgiveTry, key, every.Milliseconds())
	return err
}
