package provider

import (
	"maps"
	"slices"
)

// Endpoints are the paths below the path of the issuer.
func Endpoints() []string { return slices.Sorted(maps.Keys(endpoints)) }

// SetStrangersKept sets how much is stored for all strangers together, until restore is called.
func SetStrangersKept(n int) (restore func()) {
	before := strangersKept
	strangersKept = n
	return func() { strangersKept = before }
}
