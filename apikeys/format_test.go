package apikeys

import (
	"errors"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// The form of a key is judged before anything else, and a key that was made has it.
func TestForm(t *testing.T) {
	id, secret := random(idLength), random(secretLength)
	for _, prefix := range []string{"key", "acme_live", "A1"} {
		key := Text(prefix, id, secret)
		if gotID, gotSecret, err := split(prefix, key); gotID != id || gotSecret != secret || err != nil {
			t.Errorf("%s: %q, %q, %v", key, gotID, gotSecret, err)
		}
		if IDIn(key) != id || IDIn(id) != id {
			t.Errorf("%s: the ID is %q", key, IDIn(key))
		}
		if found := regexp.MustCompile(Pattern(prefix)).FindString(`token = "` + key + `";`); found != key {
			t.Errorf("%s: a scanner finds %q", key, found)
		}
	}
	key := Text("key", id, secret)
	for name, c := range map[string]struct {
		key  string
		want error
	}{
		"another prefix":       {"kex" + key[3:], errOtherPrefix},
		"no underscore":        {"keyx" + key[4:], errOtherPrefix},
		"a longer prefix":      {Text("key_live", id, secret), errForm},
		"cut off":              {key[:len(key)-1], errForm},
		"longer":               {key + "0", errForm},
		"another ID":           {strings.Replace(key, id, random(idLength), 1), errChecksum},
		"another secret":       {strings.Replace(key, secret, random(secretLength), 1), errChecksum},
		"a dash in the secret": {strings.Replace(key, secret, "-"+secret[1:], 1), errChecksum},
		"nothing":              {"", errOtherPrefix},
		"only the prefix":      {"key_", errForm},
	} {
		if _, _, err := split("key", c.key); err != c.want {
			t.Errorf("%s: %v, expected %v", name, err, c.want)
		}
	}
	for _, wrong := range []string{"", "_", "a_", "_a", "a__b", "a-b", "a b", "ä", strings.Repeat("a", 33)} {
		if CheckPrefix(wrong) == nil {
			t.Errorf("prefix %q is accepted", wrong)
		}
	}
}

// Each text parses to a rate that is written as it was, or is refused.
func TestRate(t *testing.T) {
	for text, want := range map[string]string{
		"100/1m": "100/1m", "100/m": "100/1m", "1/1s": "1/1s", "5/90s": "5/1m30s", "1000/24h": "1000/24h", "7/1h": "7/1h",
		"10/h": "10/1h", "20/20s": "20/20s", "20/10m": "20/10m",
	} {
		if rate, err := ParseRate(text); err != nil || rate.String() != want {
			t.Errorf("%s: %s, %v", text, rate, err)
		}
	}
	for requests, want := range map[int]int{1: 1, 10: 1, 20: 2, 97: 1, 100: 10, 1000: 100, 1001: 91} {
		rate := Rate{Requests: requests}
		if got := rate.lease(); got != want || requests%got != 0 {
			t.Errorf("%d requests: %d at once", requests, got)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("key", Text("key", random(idLength), random(secretLength)))
	f.Add("acme_live", "acme_live_")
	f.Add("key", "key_"+strings.Repeat("0", idLength)+"_"+strings.Repeat("é", secretLength/2)+"_000000")
	f.Fuzz(func(t *testing.T, prefix, key string) {
		id, secret, err := split(prefix, key)
		if err == nil && Text(prefix, id, secret) != key {
			t.Errorf("%q is read as %q and %q, whose key is %q", key, id, secret, Text(prefix, id, secret))
		}
	})
}

// A flood of wrong or unknown keys asks the store nothing: any use of this one would panic.
func TestFloodAsksNoStore(t *testing.T) {
	ring, err := OpenRing(t.Name(), 10, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ring.Release() })
	many := newManyKeys(t, 1)
	var users store.UserStore = many
	ring.AddStore(&users)
	if err := ring.Learn(t.Context()); err != nil {
		t.Fatal(err)
	}
	var none store.UserStore = struct{ store.UserStore }{}
	ring.AddStore(&none)
	keys := &APIKeys{Prefix: DefaultPrefix, ring: ring}
	verify := func(key string) error {
		_, err := keys.Verify(
			httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil),
			credentials.Credential{Token: key, Source: &credentials.Source{}},
		)
		return err
	}
	for range 10_000 {
		unknown := Text(DefaultPrefix, random(idLength), random(secretLength))
		for _, key := range []string{unknown, unknown[:len(unknown)-1] + "-", unknown[:30]} {
			if err := verify(key); !errors.Is(err, refusal.APIKey) {
				t.Fatalf("%s: %v", key, err)
			}
		}
	}
	if err := verify(many.texts[0]); err != nil {
		t.Errorf("the good key: %v", err)
	}
}
