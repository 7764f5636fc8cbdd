package config

import "encoding/json"

// OneOrMore are the values of an option that once had a single one. In JSON a single value is a
// string, and several are a list; both are read.
type OneOrMore []string

// MarshalJSON implements json.Marshaler.
func (o OneOrMore) MarshalJSON() ([]byte, error) {
	if len(o) == 1 {
		return json.Marshal(o[0])
	}
	return json.Marshal([]string(o))
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *OneOrMore) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*o = nil
		if one != "" { // which was none
			*o = OneOrMore{one}
		}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(o))
}

// Interface guards
var (
	_ json.Marshaler   = OneOrMore(nil)
	_ json.Unmarshaler = (*OneOrMore)(nil)
)
