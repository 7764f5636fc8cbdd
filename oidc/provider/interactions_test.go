package provider

import (
	"testing"
	"time"
)

// For a minute, a repeated request of the same user gets the response again.
func TestInteractionAnswers(t *testing.T) {
	now := time.Now()
	var i interaction
	for _, test := range []struct {
		who   string
		after time.Duration
		good  bool
	}{{"alice", 0, true}, {"alice", answeredTwice, true}, {"bob", 0, false}, {"alice", answeredTwice + 1, false}} {
		if err := i.answer(test.who, now.Add(test.after)); (err == nil) != test.good {
			t.Errorf("%s after %s: %v", test.who, test.after, err)
		}
	}
}
