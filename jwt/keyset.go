package jwt

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// maxKeysWithoutID is how many keys of a set may have no key ID: each costs a
// token without one, and a refresh, a comparison.
const maxKeysWithoutID = 64

// KeySet is a set of keys that does not change. It is the [KeySource] of keys that the
// program has.
type KeySet struct {
	// Keys of the set, not to be changed.
	Keys []*Key

	byID  map[string]*Key
	byAlg map[string][]*Key // Keys that verify an algorithm
	noID  map[string][]*Key // of these, the ones without a key ID
}

// NewKeySet returns a set of the keys. It returns an error if two keys have the same key
// ID.
func NewKeySet(keys ...*Key) (*KeySet, error) {
	s := &KeySet{Keys: keys, byID: make(map[string]*Key), byAlg: make(map[string][]*Key), noID: make(map[string][]*Key)}
	for _, key := range keys {
		if key.id != "" {
			if s.byID[key.id] != nil {
				return nil, fmt.Errorf("two keys have the key ID %q", key.id)
			}
			s.byID[key.id] = key
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

// Match returns the keys that may have signed a token with this algorithm and key ID. If
// the token has a key ID, these are the key with that ID or, because PEM keys and secrets
// have no ID, the keys without one. Otherwise these are all keys of the algorithm.
func (s *KeySet) Match(algorithm, id string) []*Key {
	if id == "" {
		return s.byAlg[algorithm]
	}
	if key := s.byID[id]; key != nil {
		if key.verifiers[algorithm] == nil {
			return nil
		}
		return []*Key{key}
	}
	return s.noID[algorithm]
}

// Has reports whether a key of the set has this key ID.
func (s *KeySet) Has(id string) bool { return s.byID[id] != nil }

// Same returns the key of the set that equals the given one, nil if none does.
func (s *KeySet) Same(key *Key) *Key {
	if known := s.byID[key.id]; known != nil && known.equal(key) {
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

// Algorithms returns all algorithms that the keys of the set verify, sorted.
func (s *KeySet) Algorithms() []string { return slices.Sorted(maps.Keys(s.byAlg)) }

// Find implements KeySource.
func (s *KeySet) Find(_ context.Context, algorithm, id string) ([]*Key, error) {
	return s.Match(algorithm, id), nil
}
