package storefault

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
)

func init() { caddy.RegisterModule(new(faultyStore)) }

// Faults is the switch of all stores `faulty`.
var Faults Switch

// faultyStore is a file store that fails on demand: `store faulty`.
type faultyStore struct {
	filestore.Store
}

func (*faultyStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "jwt.stores.faulty", New: func() caddy.Module { return new(faultyStore) }}
}

func (f *faultyStore) Provision(ctx caddy.Context) error {
	err := f.Store.Provision(ctx)
	f.Connect, f.Store.Committed = Faults.Connect(f.Connect), Faults.Committed(f.Store.Committed)
	return err
}

// Faulty returns a Caddyfile whose file store is replaced by one that can fail.
func Faulty(caddyfile string) string {
	return strings.ReplaceAll(caddyfile, "store file ", "store faulty ")
}

// Repetition describes a request that is sent again after a fault of the store.
type Repetition struct {
	Name string
	// Begin prepares the request.
	Begin func(t *testing.T) (send func() sitetest.Reply)
	// Gets are the allowed responses to the second request. The first of them is the response
	// to a single request.
	Gets []int
	// Holds checks what must hold after the second request, for any fault.
	Holds func(t *testing.T, second sitetest.Reply)
}

// Repeat sends each request twice for each fault of the store that it can meet. The response to
// the first request is 503, or temporarily_unavailable for a client of OpenID Connect. If some
// faults have no effect, it may also be the response to a single request.
func Repeat(t *testing.T, s *sitetest.Site, someDoNotMatter bool, rows []Repetition) {
	t.Cleanup(func() { Faults.Set(nil) })
	for _, r := range rows {
		for name, moment := range map[string]Moment{"not made": BeforeStatement, "made, and not told": AfterCommit} {
			t.Run(r.Name+"/"+name, func(t *testing.T) {
				s.T = t
				var seen []int
				for n := 1; ; n++ {
					send := r.Begin(t)
					hit := Faults.Once(moment, n)
					got := send()
					wasHit := hit()
					Faults.Set(nil)
					if !wasHit && got.Status != r.Gets[0] {
						t.Fatalf("control: %d %s", got.Status, got.Body)
					}
					toClient := someDoNotMatter &&
						strings.Contains(got.Header.Get("Location"), "error=temporarily_unavailable")
					if wasHit && (got.Status != r.Gets[0] || toClient || !someDoNotMatter) {
						if !toClient &&
							(got.Status != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "") {
							t.Errorf("the %d. fails: %d %v %s", n, got.Status, got.Header, got.Body)
						}
						got = send()
						if !slices.Contains(r.Gets, got.Status) {
							t.Errorf("repeated after the %d. failed: %d %s", n, got.Status, got.Body)
						}
					}
					seen = append(seen, got.Status)
					if r.Holds != nil {
						r.Holds(t, got)
					}
					if t.Failed() {
						t.Fatalf("after the %d. failed", n)
					}
					if !wasHit {
						break
					}
				}
				t.Logf("answers to the second: %v", seen)
			})
		}
	}
}
