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

	algorithms map[string]*algorithmKeys
}

// algorithmKeys are the keys of a set that verify an algorithm, in its order.
type algorithmKeys struct {
	all, noID                            []*Key
	byID, byThumbprint256, byThumbprint1 map[string][]*Key
}

// NewKeySet returns a set of the keys. Keys can share a key ID (RFC 7517 §4.5). Of equal keys
// only the first is used.
func NewKeySet(keys ...*Key) *KeySet { return new(KeySet).Replace(keys...) }

// Replace returns a set of the keys, as [NewKeySet] does. For a key that equals one of s, it has
// the object of s, so that remembered tokens of that key stay valid.
func (s *KeySet) Replace(keys ...*Key) *KeySet {
	next := &KeySet{algorithms: make(map[string]*algorithmKeys)}
	for _, key := range keys {
		used := next.Same(key)
		if used == nil {
			if used = s.Same(key); used == nil {
				used = key
			}
			next.Keys = append(next.Keys, used)
			for algorithm := range used.verifiers {
				next.of(algorithm).add(used)
			}
		}
		for algorithm := range used.verifiers {
			next.of(algorithm).name(used, key.thumbprint256, key.thumbprint1)
		}
	}
	return next
}

func (s *KeySet) of(algorithm string) *algorithmKeys {
	if s.algorithms[algorithm] == nil {
		s.algorithms[algorithm] = &algorithmKeys{
			byID: make(map[string][]*Key), byThumbprint256: make(map[string][]*Key),
			byThumbprint1: make(map[string][]*Key),
		}
	}
	return s.algorithms[algorithm]
}

func (a *algorithmKeys) add(key *Key) {
	a.all = append(a.all, key)
	if key.id == "" {
		a.noID = append(a.noID, key)
	} else {
		a.byID[key.id] = append(a.byID[key.id], key)
	}
}

// name adds the thumbprints of a certificate of the key.
func (a *algorithmKeys) name(key *Key, thumbprint256, thumbprint1 string) {
	if thumbprint256 != "" && !slices.Contains(a.byThumbprint256[thumbprint256], key) {
		a.byThumbprint256[thumbprint256] = append(a.byThumbprint256[thumbprint256], key)
	}
	if thumbprint1 != "" && !slices.Contains(a.byThumbprint1[thumbprint1], key) {
		a.byThumbprint1[thumbprint1] = append(a.byThumbprint1[thumbprint1], key)
	}
}

// Match returns the keys that may have signed a token, at most 64. They are the keys of its
// algorithm that have its key ID. If none has it, they are the keys without any, such as PEM
// keys and secrets. If the token has no key ID, they are the keys whose certificate it names
// or, if it names none of the set, all keys of its algorithm.
func (s *KeySet) Match(hint KeyHint) []*Key {
	of := s.algorithms[hint.Algorithm]
	if of == nil {
		return nil
	}
	keys := of.match(hint)
	return keys[:min(len(keys), maxTried)]
}

func (a *algorithmKeys) match(hint KeyHint) []*Key {
	if hint.ID != "" {
		if keys := a.byID[hint.ID]; keys != nil {
			return keys
		}
		return a.noID
	}
	if hint.Thumbprint256 != "" {
		if keys := a.byThumbprint256[hint.Thumbprint256]; keys != nil {
			return keys
		}
	}
	if hint.Thumbprint1 != "" {
		if keys := a.byThumbprint1[hint.Thumbprint1]; keys != nil {
			return keys
		}
	}
	return a.all
}

// Same returns the key of the set that equals the given one, nil if none does.
func (s *KeySet) Same(key *Key) *Key {
	for algorithm := range key.verifiers { // which an equal key has, too
		of := s.algorithms[algorithm]
		if of == nil {
			return nil
		}
		similar := of.noID
		if key.id != "" {
			similar = of.byID[key.id]
		}
		// Beyond those that are tried, equal keys only cost memory.
		if i := slices.IndexFunc(similar[:min(len(similar), maxTried)], key.equal); i >= 0 {
			return similar[i]
		}
	}
	return nil
}

// Algorithms returns all algorithms that the keys of the set verify, sorted.
func (s *KeySet) Algorithms() []string { return slices.Sorted(maps.Keys(s.algorithms)) }

// Find implements KeySource.
func (s *KeySet) Find(_ context.Context, hint KeyHint) ([]*Key, error) { return s.Match(hint), nil }
