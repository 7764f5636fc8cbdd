package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
)

// keyStores returns the two stores, if they store API keys.
func (s suite) keyStores() (one, other store.KeyStore) {
	one, ok := s.store.(store.KeyStore)
	if !ok {
		s.Skip("the store does not store API keys")
	}
	return one, s.other.(store.KeyStore)
}

func newKey(id, owner, subject string) store.APIKey {
	return store.APIKey{
		ID: id, Owner: owner, Subject: subject, Value: []byte(`{"hash":"…"}`), ChangedAt: start,
	}
}

func idsOf(keys []store.APIKey) (ids []string) {
	for _, key := range keys {
		ids = append(ids, key.ID)
	}
	return ids
}

func (s suite) keys() {
	ctx := s.Context()
	keys, other := s.keyStores()
	full := newKey("b", "", "billing")
	full.ExpiresAt, full.KeptUntil = start.Add(time.Hour), start.Add(2*time.Hour)
	s.ok(keys.CreateKeys(ctx, []store.APIKey{newKey("c", "", "other"), full, newKey("a", "", "billing")}))
	if err := keys.CreateKeys(ctx, []store.APIKey{newKey("d", "", "x"), newKey("a", "", "x")}); err == nil {
		s.Error("two keys have the same ID")
	}
	got, err := other.Key(ctx, "b")
	s.ok(err)
	if got.Subject != full.Subject || string(got.Value) != string(full.Value) || !got.ExpiresAt.Equal(full.ExpiresAt) ||
		!got.KeptUntil.Equal(full.KeptUntil) || !got.ChangedAt.Equal(start) || !got.UsedAt.IsZero() {
		s.Errorf("got %+v, expected %+v", got, full)
	}
	if none, err := keys.Key(ctx, "a"); err != nil || !none.ExpiresAt.IsZero() || !none.KeptUntil.IsZero() {
		s.Errorf("a key that never expires is %+v, %v", none, err)
	}
	for _, id := range []string{"d", "", "\x00", "\xff"} {
		_, err := keys.Key(ctx, id)
		s.mustBe(err, store.ErrNotFound)
	}
	for _, c := range []struct {
		subject, after string
		limit          int
		want           []string
	}{{"", "", 9, []string{"a", "b", "c"}}, {"", "a", 1, []string{"b"}}, {"billing", "", 9, []string{"a", "b"}}} {
		found, err := keys.Keys(ctx, c.subject, c.after, c.limit)
		s.ok(err)
		if !slices.Equal(idsOf(found), c.want) {
			s.Errorf("keys of %q after %q: %v, expected %v", c.subject, c.after, idsOf(found), c.want)
		}
	}
	later := start.Add(time.Minute)
	changed, err := keys.UpdateKey(ctx, "c", later, func(k *store.APIKey) error {
		k.RevokedAt, k.KeptUntil, k.Value = later, later.Add(time.Hour), []byte("{}")
		return nil
	})
	s.ok(err)
	if !changed.ChangedAt.Equal(later) {
		s.Errorf("changed at %v", changed.ChangedAt)
	}
	_, err = other.UpdateKey(ctx, "c", later, func(*store.APIKey) error { return nil })
	s.mustBe(err, store.ErrNotFound)
	s.followed(other, time.Time{}, "a", "b")
	s.followed(other, start, "a", "b", "c")
	s.followed(other, later, "c")
	s.ok(keys.NoteKeysUsed(ctx, map[string]time.Time{"a": later, "gone": later}))
	s.ok(other.NoteKeysUsed(ctx, map[string]time.Time{"a": start}))
	if used, err := keys.Key(ctx, "a"); err != nil || !used.UsedAt.Equal(later) {
		s.Errorf("used at %v, %v; expected %v", used.UsedAt, err, later)
	}
	s.followed(other, later, "c") // a use is not a change
	s.ok(s.store.CleanUp(ctx, start.Add(90*time.Minute)))
	s.followed(other, start, "a", "b")
	s.ok(s.store.CleanUp(ctx, start.Add(3*time.Hour)))
	s.followed(other, start, "a")
}

// followed checks which keys another process finds that knows everything before since.
func (s suite) followed(keys store.KeyStore, since time.Time, want ...string) {
	s.Helper()
	var got []string
	for after := ""; ; {
		page, err := keys.ChangedKeys(s.Context(), since, after, 2)
		s.ok(err)
		if len(page) == 0 {
			break
		}
		got = append(got, idsOf(page)...)
		after = got[len(got)-1]
	}
	if !slices.Equal(got, want) {
		s.Errorf("keys changed since %v: %v, expected %v", since, got, want)
	}
}

func (s suite) ownedKeys() {
	ctx := s.Context()
	keys, other := s.keyStores()
	alice, bob, carol := s.added("alice@example.com"), s.added("bob@example.com"), s.added("carol@example.com")
	s.ok(keys.CreateKeys(ctx, []store.APIKey{
		newKey("a1", alice.ID, alice.ID), newKey("a2", alice.ID, alice.ID), newKey("b", bob.ID, bob.ID),
		newKey("service", "", "billing"),
	}))
	later := start.Add(time.Minute)
	disable := func(u *store.User) error { u.Disabled = true; return nil }
	_, err := s.store.UpdateUser(ctx, bob.ID, later, disable)
	s.ok(err)
	_, err = s.store.UpdateUser(ctx, carol.ID, later, disable)
	s.ok(err)
	owners, err := other.ChangedOwners(ctx, later)
	s.ok(err)
	if len(owners) != 1 || owners[0].ID != bob.ID || !owners[0].Disabled || !slices.Equal(owners[0].Roles, bob.Roles) {
		s.Errorf("changed owners: %+v", owners)
	}
	if all, err := other.ChangedOwners(ctx, time.Time{}); err != nil || len(all) != 2 {
		s.Errorf("owners: %+v, %v", all, err)
	}
	for name, owner := range map[string]string{"disabled": bob.ID, "absent": "nobody"} {
		if err := keys.CreateKeys(
			ctx, []store.APIKey{newKey("first", "", "x"), newKey("second", owner, owner)},
		); !errors.Is(err, store.ErrNotFound) {
			s.Errorf("a key of a user who is %s: %v", name, err)
		}
	}
	s.ok(s.store.DeleteUser(ctx, alice.ID, later))
	s.followed(other, time.Time{}, "b", "service")
	s.followed(other, later, "a1", "a2")
	_, err = other.Key(ctx, "a1")
	s.mustBe(err, store.ErrNotFound)
}

// keyChanges changes a key by many at once: no change is lost, and none follows a revocation.
func (s suite) keyChanges() {
	ctx := s.Context()
	keys, other := s.keyStores()
	s.ok(keys.CreateKeys(ctx, []store.APIKey{newKey("a", "", "0")}))
	var changes, refused atomic.Int64
	s.atOnce(20, func(i int, of store.UserStore) {
		_, err := of.(store.KeyStore).UpdateKey(ctx, "a", start, func(k *store.APIKey) error {
			if i == 10 {
				k.RevokedAt = start
			}
			k.Subject += "+"
			return nil
		})
		switch {
		case err == nil:
			changes.Add(1)
		case errors.Is(err, store.ErrNotFound):
			refused.Add(1)
		default:
			s.Error(err)
		}
	})
	if changes.Load()+refused.Load() != 20 {
		s.Errorf("%d changes and %d refusals", changes.Load(), refused.Load())
	}
	found, err := other.ChangedKeys(ctx, start, "", 9)
	s.ok(err)
	if want := fmt.Sprintf("%d", changes.Load()); len(found) != 1 || fmt.Sprint(len(found[0].Subject)-1) != want {
		s.Errorf("after %s changes: %+v", want, found)
	}
}
