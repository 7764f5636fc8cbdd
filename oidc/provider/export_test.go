package provider

import (
	"context"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"time"
)

// Endpoints are the paths below the path of the issuer.
func Endpoints() []string { return slices.Sorted(maps.Keys(endpoints)) }

// SetStrangersKept sets how much is stored for all strangers together, until restore is called.
func SetStrangersKept(n int) (restore func()) {
	before := strangersKept
	strangersKept = n
	return func() { strangersKept = before }
}

// SetDocumentTimeout sets how long a client document may take, until restore is called.
func SetDocumentTimeout(d time.Duration) (restore func()) {
	before := documentTimeout
	documentTimeout = d
	return func() { documentTimeout = before }
}

// IsPublic reports whether an address is on the public Internet.
func IsPublic(address netip.Addr) bool { return isPublic(address) }

// FetchDocument loads a document as one of a public server, of one in a private network, or of one
// on this machine.
func FetchDocument(ctx context.Context, at *url.URL, from string) error {
	_, _, err := newDocumentFetcher().fetch(ctx, at, map[string]reach{
		"public": publicReach, "private": privateReach, "this machine": machineReach,
	}[from])
	return err
}

// ConsentOfDocument returns when users are asked for consent for the client of a document.
func ConsentOfDocument(text string, at *url.URL) (string, error) {
	document, err := unmarshalDocument([]byte(text))
	if err != nil {
		return "", err
	}
	client, err := document.client(new(Provider), at)
	if err != nil {
		return "", err
	}
	return client.Consent, nil
}
