package storetest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
)

// namedUser returns a user with a name, and with an address unless that is empty.
func (s suite) namedUser(email, name string) store.User {
	s.Helper()
	user := store.User{ID: uuid.NewString(), CreatedAt: start, UpdatedAt: start}
	if email != "" {
		s.ok(user.SetEmail(email))
	}
	s.ok(user.SetUsername(name))
	return user
}

// names tests what packages above do with records: names are unique for users with and without an
// address, and are free again when their user has another one or is deleted.
func (s suite) names() {
	ctx := s.Context()
	bob, carol := s.namedUser("", "Bob"), s.namedUser("carol@example.com", "Carol")
	for _, user := range []store.User{bob, carol} {
		s.ok(store.AddUser(ctx, s.store, user, start))
	}
	found := func(name, id string) {
		s.Helper()
		user, err := store.FindUser(ctx, s.other, name)
		if id == "" {
			s.mustBe(err, store.ErrNotFound)
		} else if err != nil || user.ID != id {
			s.Errorf("%s is %+v, %v", name, user, err)
		}
	}
	found("BOB", bob.ID)
	found("carol", carol.ID)
	found("Carol@Example.com", carol.ID)
	for _, taken := range []store.User{
		s.namedUser("", "bob"), s.namedUser("bob@example.com", "ＢＯＢ"), s.namedUser("", "CAROL"),
		s.namedUser("carol2@example.com", "carol"),
	} {
		s.mustBe(store.AddUser(ctx, s.other, taken, start), store.ErrUsernameTaken)
		_, err := s.store.User(ctx, taken.ID)
		s.mustBe(err, store.ErrNotFound)
	}
	s.mustBe(store.AddUser(ctx, s.store, s.namedUser("carol@example.com", "erin"), start), store.ErrEmailTaken)
	s.ok(store.AddUser(ctx, s.store, s.namedUser("", "erin"), start)) // a refused user keeps no name

	later := start.Add(time.Hour)
	_, err := store.Rename(ctx, s.store, bob.ID, "carol", later)
	s.mustBe(err, store.ErrUsernameTaken)
	_, err = store.Rename(ctx, s.store, carol.ID, "bob", later)
	s.mustBe(err, store.ErrUsernameTaken)
	bobby, err := store.Rename(ctx, s.store, bob.ID, "Bobby", later)
	s.ok(err)
	if bobby.Username() != "Bobby" || bobby.Address() != "" {
		s.Errorf("renamed to %+v", bobby)
	}
	found("bobby", bob.ID)
	found("bob", "")
	same, err := store.Rename(ctx, s.store, carol.ID, "CAROL", later)
	s.ok(err)
	if same.Username() != "CAROL" || same.Address() != "carol@example.com" {
		s.Errorf("renamed to %+v", same)
	}
	found("carol", carol.ID)

	// A user with a name gets an address, and keeps the name.
	both, err := s.store.UpdateUser(ctx, bob.ID, later, func(u *store.User) error {
		return u.SetEmail("bob@example.com")
	})
	s.ok(err)
	if both.Username() != "Bobby" || both.Address() != "bob@example.com" {
		s.Errorf("with an address: %+v", both)
	}
	found("bobby", bob.ID)
	found("bob@example.com", bob.ID)
	s.mustBe(store.AddUser(ctx, s.store, s.namedUser("", "bobby"), later), store.ErrUsernameTaken)

	s.ok(s.store.DeleteUser(ctx, bob.ID, later))
	found("bobby", "")
	s.ok(store.AddUser(ctx, s.store, s.namedUser("", "bobby"), later))
}

func (s suite) sameName() {
	var created atomic.Int64
	s.atOnce(50, func(i int, users store.UserStore) {
		email := "" // half of them have an address as well
		if i%2 == 0 {
			email = fmt.Sprintf("racer%d@example.com", i)
		}
		err := store.AddUser(s.Context(), users, s.namedUser(email, "racer"), start)
		if err == nil {
			created.Add(1)
		} else if !errors.Is(err, store.ErrUsernameTaken) {
			s.Error(err)
		}
	})
	if created.Load() != 1 {
		s.Errorf("%d users with one name", created.Load())
	}
}

// abandonedNames tests that a name whose user was not added, because the process has crashed in
// between, can be taken after a while, once.
func (s suite) abandonedNames() {
	lost := s.namedUser("lost@example.com", "ghost")
	s.ok(store.AddUser(s.Context(), s.store, lost, start))
	record, err := s.store.Records(s.Context(), "username", lost.ID, start)
	if err != nil || len(record) != 1 {
		s.Fatalf("the name has %d records, %v", len(record), err)
	}
	s.ok(s.store.DeleteUser(s.Context(), lost.ID, start))
	s.ok(s.store.CreateRecord(s.Context(), record[0])) // as if only this had been done

	_, err = store.FindUser(s.Context(), s.store, "ghost")
	s.mustBe(err, store.ErrNotFound)
	soon := start.Add(30 * time.Second) // its user may be about to be added
	s.mustBe(store.AddUser(s.Context(), s.store, s.namedUser("", "ghost"), soon), store.ErrUsernameTaken)
	var created atomic.Int64
	s.atOnce(20, func(i int, users store.UserStore) {
		ghost := s.namedUser(fmt.Sprint(i, "@example.com"), "ghost")
		err := store.AddUser(s.Context(), users, ghost, start.Add(time.Hour))
		if err == nil {
			created.Add(1)
		} else if !errors.Is(err, store.ErrUsernameTaken) {
			s.Error(err)
		}
	})
	if created.Load() != 1 {
		s.Errorf("%d users have taken the name", created.Load())
	}
}
