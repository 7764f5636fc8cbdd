package provider

import "testing"

// An address is a string, or an object of strings.
func TestAddressClaim(t *testing.T) {
	for value, isOne := range map[any]bool{"a text": true, 1: false} {
		if isAddress(value) != isOne || isAddress(map[string]any{"locality": value}) != isOne {
			t.Errorf("address %v", value)
		}
	}
}
