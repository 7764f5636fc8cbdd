package sealing_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sealing"
	"github.com/caddyserver/certmagic"
)

// A sealed secret is only opened for its use, with its key, and unchanged.
func TestSeal(t *testing.T) {
	dir := t.TempDir()
	storage := &certmagic.FileStorage{Path: dir}
	box := sealing.New(storage)
	sealed, err := box.Seal(t.Context(), []byte("the secret"), "totp alice", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := box.Seal(t.Context(), []byte("the secret"), "totp alice", time.Now()); again == sealed {
		t.Error("two sealed secrets are equal")
	}
	if info, err := os.Stat(filepath.Join(dir, sealing.Path)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v %v", info, err)
	}
	replaced := sealing.New(&certmagic.FileStorage{Path: t.TempDir()})
	if _, err := replaced.Seal(t.Context(), []byte("x"), "x", time.Now()); err != nil {
		t.Fatal(err)
	}
	for what, of := range map[string]struct {
		box         *sealing.Box
		sealed, use string
		opens       bool
	}{
		"control":              {box, sealed, "totp alice", true},
		"another node":         {sealing.New(storage), sealed, "totp alice", true},
		"another user":         {box, sealed, "totp bob", false},
		"changed":              {box, sealed + "AAAA", "totp alice", false},
		"cut":                  {box, sealed[:len(sealed)-20], "totp alice", false},
		"of an unknown key":    {box, "x" + sealed, "totp alice", false},
		"empty":                {box, "", "totp alice", false},
		"another storage":      {replaced, sealed, "totp alice", false},
		"a storage without it": {sealing.New(&certmagic.FileStorage{Path: t.TempDir()}), sealed, "totp alice", false},
	} {
		secret, err := of.box.Open(t.Context(), of.sealed, of.use)
		if of.opens && (err != nil || string(secret) != "the secret") ||
			!of.opens && !errors.Is(err, sealing.ErrOtherKey) {
			t.Errorf("%s: %q, %v", what, secret, err)
		}
	}
}

// Nodes that start together share one key.
func TestOneKey(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := sealing.New(storage).Seal(t.Context(), []byte("x"), "x", time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	text, err := storage.Load(t.Context(), sealing.Path)
	var found struct{ Keys []json.RawMessage }
	if err == nil {
		err = json.Unmarshal(text, &found)
	}
	if err != nil || len(found.Keys) != 1 {
		t.Errorf("%d keys, %v", len(found.Keys), err)
	}
}

// An error about a corrupt file does not quote it, and no other key is created in its place.
func TestCorruptKeys(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	if err := storage.Store(t.Context(), sealing.Path, []byte(`{"keys":[{"key":"SECRET`)); err != nil {
		t.Fatal(err)
	}
	_, err := sealing.New(storage).Seal(t.Context(), []byte("x"), "x", time.Now())
	if err == nil || errors.Is(err, sealing.ErrOtherKey) || strings.Contains(err.Error(), "SECRET") {
		t.Error(err)
	}
}
