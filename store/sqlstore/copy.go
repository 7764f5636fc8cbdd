package sqlstore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
)

// table is a table for copying.
type table struct {
	name  string
	key   []string // columns of the primary key, all text
	texts []string // the other columns, by type
	ints  []string
	bools []string
}

// tables are all tables with lasting data, ordered so that rows come after the rows that
// they refer to. Attempts are not copied, because their windows are short.
var tables = []table{
	{
		"users", []string{"id"}, []string{"email", "email_key", "password_hash", "roles", "profile"},
		[]string{"created_at", "updated_at", "version"}, []string{"disabled", "email_verified"},
	},
	{
		"sessions", []string{"id"},
		[]string{"user_id", "family_hash", "refresh_hash", "previous_hash", "client", "address", "methods"},
		[]string{"rotated_at", "created_at", "used_at", "expires_at", "last_token_until", "authenticated_at"}, nil,
	},
	{"revocations", []string{"session_id"}, nil, []string{"revoked_at", "until"}, nil},
	{"one_time_tokens", []string{"hash"}, []string{"purpose", "user_id"}, []string{"expires_at"}, nil},
	{"records", []string{"kind", "id"}, []string{"owner", "value"}, []string{"expires_at", "version"}, nil},
	{
		"api_keys", []string{"id"}, []string{"owner", "subject", "value"},
		[]string{"expires_at", "revoked_at", "kept_until", "changed_at", "used_at", "version"}, nil,
	},
}

const (
	copiedAtOnce = 500 // rows; with 14 columns well below the maximum number of parameters
	kindCopy     = "store copy"
	copyID       = "progress"
)

// copyMark is the progress of a copy, stored in the destination.
type copyMark struct {
	From  string   `json:"from"`            // hash of the name of the source
	Table int      `json:"table"`           // index in tables
	After []string `json:"after,omitempty"` // key of the last row
}

// TableSum is equal for equal tables: the number of rows, and the sum of their hashes,
// which does not depend on their order.
type TableSum struct {
	Table string    // name
	Rows  int64     // without the mark of the copy
	Sum   [4]uint64 // of the SHA-256 of the rows
}

// Copy copies a store into an empty one.
type Copy struct {
	// From is read, and To written.
	From, To *Store
	// Source is the hash of the name of the source.
	Source string
	// Progress is called with the current activity: "copied" or "compared".
	Progress func(doing, table string, rows, all int64)
}

// ErrCopyDiffers means that the stores differ after a copy.
var ErrCopyDiffers = errors.New("the two stores differ")

// NotEmptyError means that nothing was copied, because the destination is not empty.
type NotEmptyError struct {
	table string
	rows  int64
}

// Error returns the table that is not empty, and its number of rows.
func (e *NotEmptyError) Error() string {
	return fmt.Sprintf("it already has %s in the table %s; copy into an empty store", Rows(e.rows), e.table)
}

// Rows returns a number of rows in words: 1 row, 2 rows.
func Rows(n int64) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}

// errOtherCopy means that the destination has an unfinished copy of another store.
var errOtherCopy = errors.New("it is the unfinished copy of another store, or of this store under another name; " +
	"use the name that the copy was started with, or copy to an empty store")

// errHalfCopy means that a store is an unfinished copy.
var errHalfCopy = errors.New(
	"it is the unfinished copy of another store; finish it with `caddy jwt store copy`, or use an empty store",
)

// CheckWhole returns an error for a store that is an unfinished copy: addresses of missing
// users would appear to be free, and changes would be lost when the copy continues.
func CheckWhole(ctx context.Context, store store.UserStore) error {
	_, err := store.Record(ctx, kindCopy, copyID, time.Now())
	if err == nil || errors.Is(err, errHalfCopy) {
		return errHalfCopy
	}
	return nil // missing or unavailable; refuseHalfCopy checks it later
}

// copying is the context key of ForCopy.
type copying struct{}

// ForCopy returns a context that allows opening an unfinished copy.
func ForCopy(ctx context.Context) context.Context {
	return context.WithValue(ctx, copying{}, true)
}

// Resumes reports whether a copy that failed with this error can be resumed.
func Resumes(err error) bool {
	_, notEmpty := errors.AsType[*NotEmptyError](err)
	return !notEmpty && !errors.Is(err, errHalfCopy) && !errors.Is(err, errOtherCopy)
}

// refuseHalfCopy is CheckWhole for a newly connected database.
func refuseHalfCopy(ctx context.Context, db *sql.DB) error {
	if ctx.Value(copying{}) != nil {
		return nil
	}
	var found int
	err := db.QueryRowContext(ctx, `SELECT 1 FROM records WHERE kind = $1 AND id = $2`, kindCopy, copyID).Scan(&found)
	switch {
	case err == nil:
		return errHalfCopy
	case errors.Is(err, sql.ErrNoRows):
		return nil
	}
	return err
}

// Run copies the missing rows and compares the stores. It resumes an interrupted copy.
func (c *Copy) Run(ctx context.Context) (sums []TableSum, err error) {
	mark, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	for mark.Table < len(tables) {
		if err := c.copyTable(ctx, &mark); err != nil {
			name := tables[mark.Table].name
			// the row belongs to a user who was added or deleted during the copy
			if text := strings.ToLower(err.Error()); strings.Contains(text, "foreign key") ||
				strings.Contains(text, "unique") {
				err = errors.Join(fmt.Errorf("%w: %w", ErrCopyDiffers, err), c.keep(ctx, copyMark{}))
			}
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		mark = copyMark{Table: mark.Table + 1}
	}
	if sums, err = c.compare(ctx); errors.Is(err, ErrCopyDiffers) {
		// The next attempt copies all rows again.
		return nil, errors.Join(err, c.keep(ctx, copyMark{}))
	}
	if err != nil {
		return nil, err
	}
	_, err = c.To.TakeRecord(ctx, kindCopy, copyID, time.Now())
	return sums, err
}

// begin returns the progress of an interrupted copy. It returns an error if the destination
// has other data.
func (c *Copy) begin(ctx context.Context) (mark copyMark, err error) {
	if err := CheckWhole(ctx, c.From); err != nil {
		return mark, fmt.Errorf("the store to copy from: %w", err)
	}
	record, err := c.To.Record(ctx, kindCopy, copyID, time.Now())
	if err == nil {
		if err = json.Unmarshal(record.Value, &mark); err == nil && mark.From != c.Source {
			err = errOtherCopy
		}
		return mark, err
	}
	if !errors.Is(err, store.ErrNotFound) {
		return mark, err
	}
	for _, table := range tables {
		rows, err := c.To.count(ctx, table.name)
		if err != nil {
			return mark, err
		}
		if rows > 0 {
			return mark, &NotEmptyError{table.name, rows}
		}
	}
	text, err := c.marshal(mark)
	if err != nil {
		return mark, err
	}
	return mark, c.To.CreateRecord(ctx, store.Record{Kind: kindCopy, ID: copyID, Value: text})
}

func (c *Copy) marshal(mark copyMark) ([]byte, error) {
	mark.From = c.Source
	return json.Marshal(mark)
}

func (c *Copy) keep(ctx context.Context, mark copyMark) error {
	_, err := c.To.UpdateRecord(ctx, kindCopy, copyID, time.Now(), func(r *store.Record) (err error) {
		r.Value, err = c.marshal(mark)
		return err
	})
	return err
}

func (c *Copy) copyTable(ctx context.Context, mark *copyMark) error {
	table := tables[mark.Table]
	all, err := c.From.count(ctx, table.name)
	if err != nil {
		return err
	}
	copied := int64(0)
	if mark.After != nil { // part of it was copied earlier
		if copied, err = c.To.count(ctx, table.name); err != nil {
			return err
		}
	}
	for {
		rows, err := c.From.page(ctx, table, mark.After)
		if err != nil || len(rows) == 0 {
			return err
		}
		mark.After = table.keyOf(rows[len(rows)-1])
		if err := c.put(ctx, table, rows, *mark); err != nil {
			return err
		}
		copied += int64(len(rows))
		c.Progress("copied", table.name, copied, all)
	}
}

// put writes rows and the progress in one transaction.
func (c *Copy) put(ctx context.Context, table table, rows [][]any, mark copyMark) error {
	text, err := c.marshal(mark)
	if err != nil {
		return err
	}
	columns := table.columns()
	var places, updates []string
	var args []any
	for _, row := range rows {
		var marks []string
		for _, value := range row {
			args = append(args, value)
			marks = append(marks, fmt.Sprintf("$%d", len(args)))
		}
		places = append(places, "("+strings.Join(marks, ", ")+")")
	}
	for _, column := range columns[len(table.key):] {
		updates = append(updates, column+" = excluded."+column)
	}
	statement := `INSERT INTO ` + table.name + ` (` + strings.Join(columns, ", ") + `) VALUES ` +
		strings.Join(places, ", ") +
		` ON CONFLICT (` + strings.Join(table.key, ", ") + `) DO UPDATE SET ` + strings.Join(updates, ", ")
	return c.To.transaction(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
			return err
		}
		_, err := tx.ExecContext(
			ctx, `UPDATE records SET value = $1 WHERE kind = $2 AND id = $3`, string(text), kindCopy, copyID,
		)
		return err
	})
}

// compare reads both stores completely and compares them.
func (c *Copy) compare(ctx context.Context) (sums []TableSum, err error) {
	for _, table := range tables {
		var of [2]TableSum
		for i, store := range []*Store{c.From, c.To} {
			if of[i], err = store.sum(ctx, table, c.Progress); err != nil {
				return nil, fmt.Errorf("table %s: %w", table.name, err)
			}
		}
		if of[0] != of[1] {
			return nil, fmt.Errorf(
				"%w: the table %s has %s in the source and %d in the copy, or some rows differ",
				ErrCopyDiffers, table.name, Rows(of[0].Rows), of[1].Rows,
			)
		}
		sums = append(sums, of[0])
	}
	return sums, nil
}

// Table is a table with lasting data.
type Table struct {
	Name    string
	Columns []string
}

// Tables returns the tables with lasting data, ordered so that rows come after the rows that they
// refer to.
func Tables() []Table {
	all := make([]Table, len(tables))
	for i, t := range tables {
		all[i] = Table{t.name, t.columns()}
	}
	return all
}

func (t table) columns() []string {
	var all []string
	for _, some := range [][]string{t.key, t.texts, t.ints, t.bools} {
		all = append(all, some...)
	}
	return all
}

// values returns variables for a row.
func (t table) values() []any {
	var all []any
	for range len(t.key) + len(t.texts) {
		all = append(all, new(string))
	}
	for range t.ints {
		all = append(all, new(int64))
	}
	for range t.bools {
		all = append(all, new(bool))
	}
	return all
}

func (t table) keyOf(row []any) (key []string) {
	for _, value := range row[:len(t.key)] {
		key = append(key, *value.(*string))
	}
	return key
}

// page returns the next rows, sorted by key.
func (s *Store) page(ctx context.Context, t table, after []string) ([][]any, error) {
	key := strings.Join(t.key, ", ")
	where, args := "", []any{}
	if after != nil {
		var marks []string
		for _, part := range after {
			args = append(args, part)
			marks = append(marks, fmt.Sprintf("$%d", len(args)))
		}
		where = ` WHERE (` + key + `) > (` + strings.Join(marks, ", ") + `)`
	}
	rows, err := query(ctx, s, func(row interface{ Scan(...any) error }) ([]any, error) {
		values := t.values()
		return values, row.Scan(values...)
	}, `SELECT `+strings.Join(t.columns(), ", ")+` FROM `+t.name+where+` ORDER BY `+key+
		fmt.Sprintf(` LIMIT %d`, copiedAtOnce), args...)
	return rows, err
}

func (s *Store) count(ctx context.Context, table string) (int64, error) {
	return one(query(ctx, s, func(row interface{ Scan(...any) error }) (rows int64, err error) {
		return rows, row.Scan(&rows)
	}, `SELECT COUNT(*) FROM `+table))
}

// sum returns the sum of a table, without the mark of a copy.
func (s *Store) sum(
	ctx context.Context, t table, progress func(doing, table string, rows, all int64),
) (sum TableSum, err error) {
	sum.Table = t.name
	all, err := s.count(ctx, t.name)
	if err != nil {
		return sum, err
	}
	var after []string
	for {
		rows, err := s.page(ctx, t, after)
		if err != nil || len(rows) == 0 {
			return sum, err
		}
		for _, row := range rows {
			if t.name == "records" && *row[0].(*string) == kindCopy {
				continue
			}
			text, err := json.Marshal(row)
			if err != nil {
				return sum, err
			}
			hash := sha256.Sum256(text)
			sum.Rows++
			for i := range sum.Sum {
				sum.Sum[i] += binary.BigEndian.Uint64(hash[8*i:])
			}
		}
		after = t.keyOf(rows[len(rows)-1])
		progress("compared", t.name, sum.Rows, all)
	}
}

// SQL returns the store itself, for modules that embed it.
func (s *Store) SQL() *Store { return s }
