package jwt

import (
	"context"
	"maps"
	"slices"
)

// maxTried is how many keys may be tried for a token, so that a forged one does not cost more
// time than that.
const maxTried = 64

// KeyHint is what the header of a token says about its key (RFC 7515 §6).
type KeyHint struct {
	// Algorithm is the `alg` of the token.
	Algorithm string
	// ID is its key ID, `kid`; empty if it has none.
	ID string
	// Thumbprint256 and Thumbprint1 are the thumbprints of the key's certificate, `x5t#S256`
	// and `x5t`. They are empty if the token has none, or a key ID.
	Thumbprint256, Thumbprint1 string
}

// KeySet is a set of keys that does not change. It is the [KeySource] of keys that the
// program has.
type KeySet struct {
	// Keys of the set, not to be changed.
	Keys []*Key

	matching map[KeyHint][]*Key // by algorithm and one other property, or the algorithm alone
	noID     map[string][]*Key  // the ones without a key ID, by algorithm
}

// NewKeySet returns a set of the keys. Keys can share a key ID (RFC 7517 §4.5). Of equal keys
// only the first is used.
func NewKeySet(keys ...*Key) *KeySet {
	s := &KeySet{matching: make(map[KeyHint][]*Key), noID: make(map[string][]*Key)}
	for _, key := range keys {
		if s.Same(key) != nil {
			continue
		}
		s.Keys = append(s.Keys, key)
		for algorithm := range key.verifiers {
			hints := []KeyHint{{Algorithm: algorithm}}
			if key.id != "" {
				hints = append(hints, KeyHint{Algorithm: algorithm, ID: key.id})
			} else {
				s.noID[algorithm] = append(s.noID[algorithm], key)
			}
			if key.thumbprint256 != "" {
				hints = append(hints, KeyHint{Algorithm: algorithm, Thumbprint256: key.thumbprint256})
			}
			if key.thumbprint1 != "" {
				hints = append(hints, KeyHint{Algorithm: algorithm, Thumbprint1: key.thumbprint1})
			}
			for _, hint := range hints {
				s.matching[hint] = append(s.matching[hint], key)
			}
		}
	}
	return s
}

// Match returns the keys that may have signed a token, at most 64. They are the keys of its
// algorithm that have its key ID. If none has it, they are the keys without any, such as PEM
// keys and secrets. If the token has no key ID, they are the keys whose certificate it names
// or, if it names none of the set, all keys of its algorithm.
func (s *KeySet) Match(hint KeyHint) []*Key {
	keys := s.match(hint)
	return keys[:min(len(keys), maxTried)]
}

func (s *KeySet) match(hint KeyHint) []*Key {
	if hint.ID != "" {
		if keys := s.matching[KeyHint{Algorithm: hint.Algorithm, ID: hint.ID}]; keys != nil {
			return keys
		}
		return s.noID[hint.Algorithm]
	}
	if hint.Thumbprint256 != "" {
		if keys := s.matching[KeyHint{Algorithm: hint.Algorithm, Thumbprint256: hint.Thumbprint256}]; keys != nil {
			return keys
		}
	}
	if hint.Thumbprint1 != "" {
		if keys := s.matching[KeyHint{Algorithm: hint.Algorithm, Thumbprint1: hint.Thumbprint1}]; keys != nil {
			return keys
		}
	}
	return s.matching[KeyHint{Algorithm: hint.Algorithm}]
}

// Same returns the key of the set that equals the given one, nil if none does.
func (s *KeySet) Same(key *Key) *Key {
	for algorithm := range key.verifiers { // an equal key has the same ones
		similar := s.noID[algorithm]
		if key.id != "" {
			similar = s.matching[KeyHint{Algorithm: algorithm, ID: key.id}]
		}
		for _, known := range similar {
			if known.equal(key) {
				return known
			}
		}
		return nil
	}
	return nil
}

// Algorithms returns all algorithms that the keys of the set verify, sorted.
func (s *KeySet) Algorithms() []string {
	algorithms := make(map[string]bool)
	for _, key := range s.Keys {
		for algorithm := range key.verifiers {
			algorithms[algorithm] = true
		}
	}
	return slices.Sorted(maps.Keys(algorithms))
}

// Find implements KeySource.
func (s *KeySet) Find(_ context.Context, hint KeyHint) ([]*Key, error) { return s.Match(hint), nil }
