// Package storetest tests that a user store keeps the promises of [store.UserStore]. A store's
// own tests call [Run].
package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
)

// start is a time that every store can keep: to the millisecond.
var start = time.UnixMilli(1_800_000_000_123)

// Run runs the tests. open returns a store that is empty; its second call for
// the same name returns another one on the same data, as a second process has.
func Run(t *testing.T, open func(t *testing.T, name string) store.UserStore) {
	for _, c := range []struct {
		name string
		test func(s suite)
	}{
		{"users", suite.users}, {"one of many sign-ups of an address", suite.sameAddress},
		{"changes at once", suite.changesAtOnce}, {"pages of users", suite.pages},
		{"names", suite.names}, {"one of many users with a name", suite.sameName},
		{"names of users who were not added", suite.abandonedNames},
		{"delete", suite.delete}, {"delete at once", suite.deleteAtOnce}, {"sessions", suite.sessions},
		{"one of many rotations", suite.rotations}, {"end of sessions", suite.endSessions},
		{"disabled users begin no session", suite.disabled}, {"one-time tokens", suite.oneTimeTokens},
		{"records", suite.records}, {"clean-up", suite.cleanUp},
		{"API keys", suite.keys}, {"keys of a user who is gone", suite.ownedKeys},
		{"one of many changes of a key", suite.keyChanges},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(suite{t, open(t, c.name), open(t, c.name)}) })
	}
}

// suite has two stores on the same data.
type suite struct {
	*testing.T
	store, other store.UserStore
}

func (s suite) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s suite) mustBe(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("got the error %v, expected %v", err, want)
	}
}

func newUser(email string) store.User {
	return store.User{
		ID: uuid.NewString(), Email: email, EmailKey: email, PasswordHash: "$argon2id$…", Roles: []string{"author"},
		Profile: map[string]any{
			"name": "Ålice \"A\"", "height": 1.75, "id": int64(9007199254740993), "tags": []any{"a", nil, true},
		},
		EmailVerified: true, CreatedAt: start, UpdatedAt: start,
	}
}

func (s suite) added(email string) store.User {
	s.Helper()
	user := newUser(email)
	s.ok(s.store.CreateUser(s.Context(), user))
	return user
}

func (s suite) begun(user store.User) store.Session {
	s.Helper()
	session := store.Session{
		ID: uuid.NewString(), UserID: user.ID, FamilyHash: uuid.NewString(),
		RefreshHash: uuid.NewString(), CreatedAt: start, UsedAt: start,
		ExpiresAt: start.Add(time.Hour), LastTokenUntil: start.Add(10 * time.Minute),
		UserAgent: "a client", Address: "2001:db8::1", Methods: []string{"pwd"}, AuthenticatedAt: start,
	}
	s.ok(s.store.CreateSession(s.Context(), session, user.PasswordHash))
	return session
}

func same(a, b any) bool { return reflect.DeepEqual(plain(a), plain(b)) }

// plain makes times comparable.
func plain(value any) any {
	switch v := value.(type) {
	case store.User:
		v.CreatedAt, v.UpdatedAt = v.CreatedAt.UTC(), v.UpdatedAt.UTC()
		return v
	case store.Session:
		for _, at := range []*time.Time{
			&v.RotatedAt, &v.CreatedAt, &v.UsedAt, &v.ExpiresAt, &v.LastTokenUntil, &v.AuthenticatedAt,
		} {
			*at = at.UTC()
		}
		return v
	case store.Record:
		v.ExpiresAt = v.ExpiresAt.UTC()
		return v
	}
	return value
}

func (s suite) users() {
	ctx := s.Context()
	alice := s.added("alice@example.com")
	for _, find := range []func() (store.User, error){
		func() (store.User, error) { return s.other.User(ctx, alice.ID) },
		func() (store.User, error) { return s.other.UserByEmail(ctx, "alice@example.com") },
	} {
		found, err := find()
		s.ok(err)
		if !same(found, alice) {
			s.Errorf("found %+v, expected %+v", found, alice)
		}
	}
	_, err := s.store.User(ctx, "nobody")
	s.mustBe(err, store.ErrNotFound)
	_, err = s.store.UserByEmail(ctx, "ALICE@example.com")
	s.mustBe(err, store.ErrNotFound)
	again := newUser("alice@example.com")
	s.mustBe(s.store.CreateUser(ctx, again), store.ErrEmailTaken)

	later := start.Add(time.Minute)
	changed, err := s.store.UpdateUser(ctx, alice.ID, later, func(u *store.User) error {
		u.ID, u.CreatedAt = "another", later // these stay
		u.Email, u.EmailKey, u.Roles, u.Profile, u.Disabled, u.PasswordHash = "Alice@new.example", "alice@new.example",
			nil, nil, true, ""
		u.EmailVerified = false
		return nil
	})
	s.ok(err)
	found, err := s.other.UserByEmail(ctx, "alice@new.example")
	s.ok(err)
	if !same(found, changed) || found.ID != alice.ID || !found.CreatedAt.Equal(start) ||
		!found.UpdatedAt.Equal(later) || !found.Disabled {
		s.Errorf("changed to %+v, found %+v", changed, found)
	}
	bob := s.added("bob@example.com")
	_, err = s.store.UpdateUser(
		ctx, bob.ID, later, func(u *store.User) error { u.EmailKey = "alice@new.example"; return nil },
	)
	s.mustBe(err, store.ErrEmailTaken)
	refused := errors.New("refused")
	_, err = s.store.UpdateUser(ctx, bob.ID, later, func(u *store.User) error { u.Email = "x"; return refused })
	s.mustBe(err, refused)
	if found, err := s.store.User(ctx, bob.ID); err != nil || !same(found, bob) {
		s.Errorf("a change that was refused left %+v, %v", found, err)
	}
	_, err = s.store.UpdateUser(ctx, "nobody", later, func(*store.User) error { return nil })
	s.mustBe(err, store.ErrNotFound)
}

func (s suite) sameAddress() {
	var created atomic.Int64
	s.atOnce(50, func(i int, users store.UserStore) {
		err := users.CreateUser(s.Context(), newUser("racer@example.com"))
		if err == nil {
			created.Add(1)
		} else if !errors.Is(err, store.ErrEmailTaken) {
			s.Error(err)
		}
	})
	if created.Load() != 1 {
		s.Errorf("%d users with one address", created.Load())
	}
}

func (s suite) changesAtOnce() {
	alice := s.added("alice@example.com")
	const times = 40
	s.atOnce(times, func(i int, users store.UserStore) {
		_, err := users.UpdateUser(s.Context(), alice.ID, start, func(u *store.User) error {
			u.Roles = append(u.Roles, fmt.Sprint(i))
			return nil
		})
		if err != nil {
			s.Error(err)
		}
	})
	found, err := s.store.User(s.Context(), alice.ID)
	s.ok(err)
	if len(found.Roles) != 1+times {
		s.Errorf("%d changes at once left %d", times, len(found.Roles)-1)
	}
}

func (s suite) pages() {
	var emails []string
	for i := range 25 {
		email := fmt.Sprintf("user%02d@example.com", (i*7)%25)
		s.added(email)
		emails = append(emails, email)
	}
	slices.Sort(emails)
	var found []string
	for after := ""; ; {
		page, err := s.other.Users(s.Context(), after, 10)
		s.ok(err)
		if len(page) == 0 {
			break
		}
		if len(page) > 10 {
			s.Fatalf("a page of %d", len(page))
		}
		for _, user := range page {
			found = append(found, user.EmailKey)
		}
		after = found[len(found)-1]
	}
	if !slices.Equal(found, emails) {
		s.Errorf("the pages have %q", found)
	}
}

func (s suite) delete() {
	ctx := s.Context()
	alice := s.added("alice@example.com")
	session := s.begun(alice)
	s.ok(s.store.CreateOneTimeToken(ctx, store.OneTimeToken{
		Hash: "h", Purpose: "p", UserID: alice.ID, ExpiresAt: start.Add(time.Hour),
	}))
	owners := map[string]string{
		"of the user": alice.ID, "of a session": session.ID, "of nobody": "", "of another": "bob",
	}
	for id, owner := range owners {
		s.ok(s.store.CreateRecord(ctx, store.Record{Kind: "k", ID: id, Owner: owner, Value: []byte("{}")}))
	}
	s.ok(s.store.DeleteUser(ctx, alice.ID, start))
	for id, owner := range owners {
		_, err := s.other.Record(ctx, "k", id, start)
		if gone := owner == alice.ID || owner == session.ID; gone != errors.Is(err, store.ErrNotFound) {
			s.Errorf("the record %s: %v", id, err)
		}
	}
	_, err := s.other.User(ctx, alice.ID)
	s.mustBe(err, store.ErrNotFound)
	_, err = s.other.SessionByFamily(ctx, session.FamilyHash, start)
	s.mustBe(err, store.ErrNotFound)
	_, err = s.other.TakeOneTimeToken(ctx, "h", "p", start)
	s.mustBe(err, store.ErrNotFound)
	s.revoked(session.ID)
	s.mustBe(s.store.DeleteUser(ctx, alice.ID, start), store.ErrNotFound)
	s.added("alice@example.com") // the address is free again
}

// deleteAtOnce deletes users while another process looks: it sees all of a user, or nothing.
func (s suite) deleteAtOnce() {
	ctx := s.Context()
	for i := range 30 {
		user := s.added(fmt.Sprintf("user%d@example.com", i))
		session := s.begun(user)
		for _, owner := range []string{user.ID, session.ID} {
			s.ok(s.store.CreateRecord(ctx, store.Record{Kind: "k", ID: owner, Owner: owner, Value: []byte("{}")}))
		}
		looking := make(chan struct{})
		var watch sync.WaitGroup
		watch.Go(func() {
			for round := 0; ; round++ {
				_, noRecord := s.other.Record(ctx, "k", user.ID, start)
				_, noSession := s.other.SessionByFamily(ctx, session.FamilyHash, start)
				_, noRecordOfSession := s.other.Record(ctx, "k", session.ID, start)
				found, noUser := s.other.User(ctx, user.ID) // after the others
				if round == 0 {
					close(looking)
				}
				half := errors.Is(errors.Join(noRecord, noSession, noRecordOfSession), store.ErrNotFound)
				if noUser == nil && (half || found.Disabled) {
					s.Errorf("half of a user: %v, %v, %v, %t", noRecord, noSession, noRecordOfSession, found.Disabled)
				}
				if noUser != nil {
					return
				}
			}
		})
		<-looking
		s.ok(s.store.DeleteUser(ctx, user.ID, start))
		watch.Wait()
	}
}

func (s suite) revoked(ids ...string) {
	s.Helper()
	found, err := s.other.Revocations(s.Context(), start, start)
	s.ok(err)
	var there []string
	for _, revocation := range found {
		there = append(there, revocation.SessionID)
		if !revocation.RevokedAt.Equal(start) || !revocation.Until.Equal(start.Add(10*time.Minute)) {
			s.Errorf("revocation %+v", revocation)
		}
	}
	slices.Sort(there)
	slices.Sort(ids)
	if !slices.Equal(there, ids) {
		s.Errorf("revoked are %q, expected %q", there, ids)
	}
}

func (s suite) sessions() {
	ctx := s.Context()
	alice, bob := s.added("alice@example.com"), s.added("bob@example.com")
	first, second := s.begun(alice), s.begun(alice)
	s.begun(bob)
	found, err := s.other.SessionByFamily(ctx, first.FamilyHash, start)
	s.ok(err)
	if !same(found, first) {
		s.Errorf("found %+v, expected %+v", found, first)
	}
	later := start.Add(time.Minute)
	s.ok(s.store.RotateSession(ctx, store.Rotation{
		FamilyHash: second.FamilyHash, ValidHash: second.RefreshHash, OldHash: second.RefreshHash,
		NewHash: "new", Now: later, LastTokenUntil: later.Add(10 * time.Minute), UserAgent: "c", Address: "a",
	}))
	listed, err := s.other.Sessions(ctx, alice.ID, later)
	s.ok(err)
	if len(listed) != 2 || listed[0].ID != second.ID || listed[1].ID != first.ID {
		s.Fatalf("sessions %+v", listed)
	}
	if got := listed[0]; got.RefreshHash != "new" || got.PreviousHash != second.RefreshHash ||
		!got.RotatedAt.Equal(later) || !got.UsedAt.Equal(later) ||
		!got.LastTokenUntil.Equal(later.Add(10*time.Minute)) || got.UserAgent != "c" || got.Address != "a" ||
		!got.ExpiresAt.Equal(second.ExpiresAt) {
		s.Errorf("rotated to %+v", got)
	}
	again := first
	again.Methods, again.AuthenticatedAt = []string{"pwd", "otp", "mfa"}, later
	s.mustBe(s.store.AuthenticateSession(ctx, again, "the hash before"), store.ErrNotFound)
	s.ok(s.store.AuthenticateSession(ctx, again, alice.PasswordHash))
	if got, err := s.other.SessionByFamily(ctx, first.FamilyHash, later); err != nil || !same(got, again) {
		s.Errorf("authenticated again: %+v, %v, expected %+v", got, err, again)
	}
	ended := again
	ended.ID = uuid.NewString()
	s.mustBe(s.store.AuthenticateSession(ctx, ended, alice.PasswordHash), store.ErrNotFound)
	// By a clock that was set back: the token from before is still out there.
	s.ok(s.store.RotateSession(ctx, store.Rotation{
		FamilyHash: second.FamilyHash, ValidHash: "new", OldHash: "new",
		NewHash: "newer", Now: start, LastTokenUntil: start,
	}))
	if got, err := s.other.SessionByFamily(ctx, second.FamilyHash, start); err != nil || got.RefreshHash != "newer" ||
		!got.LastTokenUntil.Equal(later.Add(10*time.Minute)) {
		s.Errorf("rotated by an earlier clock to %+v, %v", got, err)
	}
	expired := start.Add(time.Hour)
	_, err = s.store.SessionByFamily(ctx, first.FamilyHash, expired)
	s.mustBe(err, store.ErrNotFound)
	s.mustBe(s.store.RotateSession(ctx, store.Rotation{
		FamilyHash: first.FamilyHash, ValidHash: first.RefreshHash,
		OldHash: first.RefreshHash, NewHash: "x", Now: expired,
	}), store.ErrNotFound)
	if listed, err := s.store.Sessions(ctx, alice.ID, expired); err != nil || len(listed) != 0 {
		s.Errorf("expired sessions %+v, %v", listed, err)
	}
	s.mustBe(
		s.store.CreateSession(ctx, store.Session{ID: "x", UserID: "nobody", FamilyHash: "x", ExpiresAt: expired}, ""),
		store.ErrNotFound,
	)
	s.mustBe(s.store.CreateSession(
		ctx, store.Session{ID: "x", UserID: alice.ID, FamilyHash: "x", ExpiresAt: expired}, "the hash before",
	), store.ErrNotFound)
}

func (s suite) rotations() {
	session := s.begun(s.added("alice@example.com"))
	var succeeded atomic.Int64
	s.atOnce(100, func(i int, users store.UserStore) {
		err := users.RotateSession(s.Context(), store.Rotation{
			FamilyHash: session.FamilyHash, ValidHash: session.RefreshHash,
			OldHash: session.RefreshHash, NewHash: fmt.Sprint(i), Now: start, LastTokenUntil: start,
		})
		if err == nil {
			succeeded.Add(1)
		} else if !errors.Is(err, store.ErrNotFound) {
			s.Error(err)
		}
	})
	if succeeded.Load() != 1 {
		s.Errorf("%d of 100 rotations of one token succeeded", succeeded.Load())
	}
	// Nobody has used the successor: the same token is replaced once more.
	unused, err := s.other.SessionByFamily(s.Context(), session.FamilyHash, start)
	s.ok(err)
	again := store.Rotation{
		FamilyHash: session.FamilyHash, ValidHash: unused.RefreshHash, OldHash: session.RefreshHash,
		NewHash: "again", Now: start.Add(time.Minute), LastTokenUntil: start,
	}
	s.ok(s.store.RotateSession(s.Context(), again))
	s.mustBe(s.other.RotateSession(s.Context(), again), store.ErrNotFound)
	found, err := s.other.SessionByFamily(s.Context(), session.FamilyHash, start)
	s.ok(err)
	if found.RefreshHash != "again" || found.PreviousHash != session.RefreshHash ||
		!found.RotatedAt.Equal(start.Add(time.Minute)) {
		s.Errorf("rotated once more to %+v", found)
	}
}

func (s suite) endSessions() {
	ctx := s.Context()
	alice, bob := s.added("alice@example.com"), s.added("bob@example.com")
	one, two, three, bobs := s.begun(alice), s.begun(alice), s.begun(alice), s.begun(bob)
	for _, c := range []struct {
		userID, only, except string
		ended                []string
	}{
		{bob.ID, one.ID, "", nil}, // is not bob's
		{alice.ID, one.ID, "", []string{one.ID}},
		{alice.ID, one.ID, "", nil},
		{alice.ID, "", two.ID, []string{three.ID}},
		{alice.ID, "", "", []string{two.ID}},
	} {
		ended, err := s.store.EndSessions(ctx, c.userID, c.only, c.except, start)
		s.ok(err)
		if !slices.Equal(ended, c.ended) {
			s.Errorf("EndSessions(%q, %q) ended %q, expected %q", c.only, c.except, ended, c.ended)
		}
	}
	s.revoked(one.ID, two.ID, three.ID)
	if listed, err := s.other.Sessions(ctx, bob.ID, start); err != nil || len(listed) != 1 || listed[0].ID != bobs.ID {
		s.Errorf("bob's sessions are %+v, %v", listed, err)
	}
	if found, err := s.other.Revocations(ctx, start.Add(time.Millisecond), start); err != nil || len(found) != 0 {
		s.Errorf("revocations of later: %+v, %v", found, err)
	}
	if found, err := s.other.Revocations(ctx, start, start.Add(10*time.Minute)); err != nil || len(found) != 0 {
		s.Errorf("revocations that no longer matter: %+v, %v", found, err)
	}
}

func (s suite) disabled() {
	ctx := s.Context()
	alice := s.added("alice@example.com")
	_, err := s.store.UpdateUser(ctx, alice.ID, start, func(u *store.User) error { u.Disabled = true; return nil })
	s.ok(err)
	session := store.Session{
		ID: "x", UserID: alice.ID, FamilyHash: "x", RefreshHash: "x", ExpiresAt: start.Add(time.Hour),
	}
	s.mustBe(s.other.CreateSession(ctx, session, alice.PasswordHash), store.ErrNotFound)
}

func (s suite) oneTimeTokens() {
	ctx := s.Context()
	alice := s.added("alice@example.com")
	token := store.OneTimeToken{Hash: "h", Purpose: "reset", UserID: alice.ID, ExpiresAt: start.Add(time.Hour)}
	s.ok(s.store.CreateOneTimeToken(ctx, token))
	_, err := s.other.TakeOneTimeToken(ctx, "h", "another purpose", start)
	s.mustBe(err, store.ErrNotFound)
	_, err = s.other.TakeOneTimeToken(ctx, "h", "reset", start.Add(time.Hour))
	s.mustBe(err, store.ErrNotFound)
	var taken atomic.Int64
	s.atOnce(50, func(_ int, users store.UserStore) {
		got, err := users.TakeOneTimeToken(ctx, "h", "reset", start)
		if err == nil {
			taken.Add(1)
			if got.UserID != alice.ID {
				s.Errorf("taken %+v", got)
			}
		} else if !errors.Is(err, store.ErrNotFound) {
			s.Error(err)
		}
	})
	if taken.Load() != 1 {
		s.Errorf("%d of 50 took one token", taken.Load())
	}
	for _, token := range []store.OneTimeToken{
		{Hash: "1", Purpose: "reset"}, {Hash: "2", Purpose: "reset"}, {Hash: "3", Purpose: "another"},
	} {
		token.UserID, token.ExpiresAt = alice.ID, start.Add(time.Hour)
		s.ok(s.store.CreateOneTimeToken(ctx, token))
	}
	_, err = s.store.TakeOneTimeToken(ctx, "1", "reset", start)
	s.ok(err)
	_, err = s.other.TakeOneTimeToken(ctx, "2", "reset", start)
	s.mustBe(err, store.ErrNotFound)
	_, err = s.other.TakeOneTimeToken(ctx, "3", "another", start)
	s.ok(err)
	token = store.OneTimeToken{Hash: "4", Purpose: "reset", UserID: alice.ID, ExpiresAt: start.Add(time.Hour)}
	s.ok(s.store.CreateOneTimeToken(ctx, token))
	_, err = s.store.UpdateUser(
		ctx, alice.ID, start, func(u *store.User) error { u.PasswordHash = "another"; return nil },
	)
	s.ok(err)
	_, err = s.other.TakeOneTimeToken(ctx, "4", "reset", start)
	s.mustBe(err, store.ErrNotFound)
	token.UserID = "nobody"
	s.mustBe(s.store.CreateOneTimeToken(ctx, token), store.ErrNotFound)
}

func (s suite) records() {
	for _, id := range []string{"a\x00b", "a\xffb"} { // what clients send need not be text
		_, err := s.store.Record(s.Context(), "kind", id, start)
		s.mustBe(err, store.ErrNotFound)
		_, err = s.store.TakeRecord(s.Context(), "kind", id, start)
		s.mustBe(err, store.ErrNotFound)
		_, err = s.store.UpdateRecord(s.Context(), "kind", id, start, func(*store.Record) error { return nil })
		s.mustBe(err, store.ErrNotFound)
		_, err = s.store.User(s.Context(), id)
		s.mustBe(err, store.ErrNotFound)
	}
	ctx := s.Context()
	alice := s.added("alice@example.com")
	client := store.Record{Kind: "client", ID: "app", Value: []byte(`{"n":1}`)}
	code := store.Record{
		Kind: "code", ID: "app", Owner: alice.ID, Value: []byte(`{"n":0}`), ExpiresAt: start.Add(time.Minute),
	}
	s.ok(s.store.CreateRecord(ctx, client))
	s.mustBe(s.other.CreateRecord(ctx, client), store.ErrRecordExists)
	s.ok(s.other.CreateRecord(ctx, code))
	if got, err := s.other.Record(ctx, "client", "app", start.AddDate(100, 0, 0)); err != nil || !same(got, client) {
		s.Errorf("kept was %+v, found %+v, %v", client, got, err)
	}
	if got, err := s.store.Record(ctx, "code", "app", start); err != nil || !same(got, code) {
		s.Errorf("kept was %+v, found %+v, %v", code, got, err)
	}
	_, err := s.store.Record(ctx, "code", "app", start.Add(time.Minute))
	s.mustBe(err, store.ErrNotFound)
	_, err = s.store.Record(ctx, "code", "nothing", start)
	s.mustBe(err, store.ErrNotFound)
	for owner, want := range map[string]int{"": 1, alice.ID: 1, "nobody": 0} {
		if found, err := s.store.Records(ctx, "code", owner, start); err != nil || len(found) != want {
			s.Errorf("records of %q: %v, %v", owner, found, err)
		}
	}

	s.atOnce(50, func(_ int, users store.UserStore) {
		_, err := users.UpdateRecord(ctx, "code", "app", start, func(r *store.Record) error {
			var value struct{ N int }
			if err := json.Unmarshal(r.Value, &value); err != nil {
				return err
			}
			r.Value = fmt.Appendf(nil, `{"n":%d}`, value.N+1)
			return nil
		})
		if err != nil {
			s.Error(err)
		}
	})
	if got, err := s.store.Record(ctx, "code", "app", start); err != nil || string(got.Value) != `{"n":50}` {
		s.Errorf("after 50 changes at once: %s, %v", got.Value, err)
	}
	refused := errors.New("refused")
	_, err = s.store.UpdateRecord(
		ctx, "code", "app", start, func(r *store.Record) error { r.Value = nil; return refused },
	)
	s.mustBe(err, refused)
	_, err = s.store.UpdateRecord(ctx, "code", "nothing", start, func(*store.Record) error { return nil })
	s.mustBe(err, store.ErrNotFound)

	var taken atomic.Int64
	s.atOnce(50, func(_ int, users store.UserStore) {
		got, err := users.TakeRecord(ctx, "code", "app", start)
		if err == nil {
			taken.Add(1)
			if string(got.Value) != `{"n":50}` || got.Owner != alice.ID {
				s.Errorf("taken %+v", got)
			}
		} else if !errors.Is(err, store.ErrNotFound) {
			s.Error(err)
		}
	})
	if taken.Load() != 1 {
		s.Errorf("%d of 50 took one record", taken.Load())
	}

	s.ok(s.store.CreateRecord(ctx, code))
	_, err = s.store.TakeRecord(ctx, "code", "app", start.Add(time.Minute))
	s.mustBe(err, store.ErrNotFound)
	s.ok(s.store.CleanUp(ctx, start.Add(time.Minute)))
	s.ok(s.store.CreateRecord(ctx, code)) // it is gone
	s.ok(s.store.DeleteUser(ctx, alice.ID, start))
	_, err = s.store.Record(ctx, "code", "app", start)
	s.mustBe(err, store.ErrNotFound)
	_, err = s.store.Record(ctx, "client", "app", start)
	s.ok(err)
}

func (s suite) cleanUp() {
	ctx := s.Context()
	alice := s.added("alice@example.com")
	ended, kept := s.begun(alice), s.begun(alice)
	_, err := s.store.EndSessions(ctx, alice.ID, ended.ID, "", start)
	s.ok(err)
	s.ok(s.store.CleanUp(ctx, start.Add(time.Minute)))
	if _, err := s.store.SessionByFamily(ctx, kept.FamilyHash, start); err != nil {
		s.Errorf("a session that has not expired is gone: %v", err)
	}
	s.revoked(ended.ID)
	s.ok(s.store.CleanUp(ctx, start.Add(2*time.Hour)))
	if _, err := s.store.SessionByFamily(ctx, kept.FamilyHash, start); !errors.Is(err, store.ErrNotFound) {
		s.Errorf("a session that has expired is still there: %v", err)
	}
	s.revoked()
	if _, err := s.store.User(ctx, alice.ID); err != nil {
		s.Errorf("the user is gone: %v", err)
	}
}

// atOnce calls f so many times at once, with the two stores in turn.
func (s suite) atOnce(times int, f func(i int, store store.UserStore)) {
	var all sync.WaitGroup
	for i := range times {
		all.Go(func() { f(i, []store.UserStore{s.store, s.other}[i%2]) })
	}
	all.Wait()
}
