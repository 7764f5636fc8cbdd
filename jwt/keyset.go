package jwt

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

const (
	// MaxKeysWithoutID is how many keys of a set may have no key ID: each costs a
	// token without one, and a refresh, a comparison.
	MaxKeysWithoutID = 64
)

// KeySet is a set of keys that does not change.
type KeySet struct {
	Keys  []*Key
	ByID  map[string]*Key
	byAlg map[string][]*Key // Keys that verify an algorithm
	noID  map[string][]*Key // of these, the ones without a key ID
}

// NewKeySet returns a set of the keys. A key ID may stand only once.
func NewKeySet(keys ...*Key) (*KeySet, error) {
	s := &KeySet{Keys: keys, ByID: make(map[string]*Key), byAlg: make(map[string][]*Key), noID: make(map[string][]*Key)}
	for _, key := range keys {
		if key.id != "" {
			if s.ByID[key.id] != nil {
				return nil, fmt.Errorf("two keys have the key ID %q", key.id)
			}
			s.ByID[key.id] = key
		}
		for algorithm := range key.verifiers {
			s.byAlg[algorithm] = append(s.byAlg[algorithm], key)
			if key.id == "" {
				s.noID[algorithm] = append(s.noID[algorithm], key)
			}
		}
	}
	return s, nil
}

// Match returns the keys that may have signed a token with this algorithm and
// key ID: the one of that ID or, since PEM keys and secrets have none, those
// without one; for a token without key ID, every key of that algorithm.
func (s *KeySet) Match(algorithm, id string) []*Key {
	if id == "" {
		return s.byAlg[algorithm]
	}
	if key := s.ByID[id]; key != nil {
		if key.verifiers[algorithm] == nil {
			return nil
		}
		return []*Key{key}
	}
	return s.noID[algorithm]
}

// Same returns the key of the set that equals the given one.
func (s *KeySet) Same(key *Key) *Key {
	if known := s.ByID[key.id]; known != nil && known.equal(key) {
		return known
	}
	if key.id == "" {
		for _, known := range s.Keys {
			if known.equal(key) {
				return known
			}
		}
	}
	return nil
}

// Algorithms are all that the keys of the set verify.
func (s *KeySet) Algorithms() []string { return slices.Sorted(maps.Keys(s.byAlg)) }

// Find implements KeySource.
func (s *KeySet) Find(_ context.Context, algorithm, id string) ([]*Key, error) {
	return s.Match(algorithm, id), nil
}
