package provider

import (
	"maps"
	"slices"
)

// Endpoints are the paths below the issuer's.
func Endpoints() []string { return slices.Sorted(maps.Keys(endpoints)) }

// SetStrangersKept sets how much is kept for all strangers together, until restore.
func SetStrangersKept(n int) (restore func()) {
	before := strangersKept
	strangersKept = n
	return func() { strangersKept = before }
}
