package scenarios_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// soakBody returns a site with accounts. round changes the config. The cache is small, so that
// its growth does not look like a leak.
func soakBody(dir string, round int) string {
	return fmt.Sprintf(`
		jwt /api/* {
			leeway 0s
			cache 100
			accounts {
				signup open
				store file %s
				throttle off
				hash_queue 1000
				token_lifetime 24h
			}
		}
		metrics /metrics
		respond /round %d
		respond /api/* ok`, filepath.Join(dir, "users.db"), round)
}

// Under a mixed load with config reloads, Caddy's memory, goroutines and files do not grow.
func TestScenarioSoak(t *testing.T) {
	seen := scenario.Promise(t, "only expected answers; memory, goroutines and descriptors do not grow")
	duration := scenario.Soak()
	dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
	p := sitetest.StartProcess(t, dir, address, soakBody(dir, 0))
	token := p.SignedUp("steady@example.com").Token
	l := startLoad(
		p.Site, 200, labelled{"good", token, 200},
		labelled{"bad signature", token + "x", 401}, labelled{"no token", "x", 401},
	)

	stop := make(chan struct{})
	paced := func(pause time.Duration) bool {
		select {
		case <-stop:
			return false
		case <-time.After(pause):
			return true
		}
	}
	var all sync.WaitGroup
	var sessions atomic.Int64
	apart := &sitetest.Site{T: t, URL: p.URL, Transport: sentAgain{&http.Transport{DisableKeepAlives: true}}}
	for worker := range 2 {
		email := fmt.Sprintf("user%d@example.com", worker)
		p.MustAnswer(201, p.Post("/auth/signup", sitetest.CredentialsOf(email)), "sign-up")
		all.Go(func() {
			for paced(200 * time.Millisecond) {
				if !wholeSession(t, apart, email) {
					return
				}
				sessions.Add(1)
			}
		})
	}

	var at, resident, heap []float64 // one value per sample: minutes, and bytes
	began, reloaded, reloads := time.Now(), time.Now(), 0
	var first, last map[string]float64
	for time.Since(began) < duration {
		time.Sleep(max(duration/120, 50*time.Millisecond)) // the pace of the samples
		last = p.Metrics(t)
		if first == nil && time.Since(began) > duration/4 {
			first = last
		}
		at, resident, heap = append(at, time.Since(began).Minutes()), append(resident, float64(p.Resident(t))), append(
			heap, last["go_memstats_heap_inuse_bytes"],
		)
		if time.Since(reloaded) > min(duration/4, 10*time.Second) {
			reloads++
			p.Reload(t, soakBody(dir, reloads), func() bool { return p.Get("/round").Body == fmt.Sprint(reloads) })
			reloaded = time.Now()
		}
	}
	close(stop)
	all.Wait()
	sum := l.finish(t)
	half := len(at) / 2
	residentSlope, heapSlope := slope(at[half:], resident[half:]), slope(at[half:], heap[half:])
	about := ""
	if duration < time.Minute {
		about = " (too short a time to tell)"
	} else if heapSlope > 8<<20 {
		t.Errorf("the heap grows by %.1f MiB a minute", scenario.Mebibytes(heapSlope))
	}
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if last[name] > first[name]+50 { // connections come and go
			t.Errorf("%s grew from %.0f to %.0f", name, first[name], last[name])
		}
	}
	seen(
		"%s: %s; %d whole sessions of log-in, refresh and log-out; %d reloads", duration, sum, sessions.Load(), reloads,
	)
	seen(
		"slope over the second half, a minute: RSS %+.2f MiB, heap %+.2f MiB%s; at the end RSS %.0f MiB, heap %.0f MiB",
		scenario.Mebibytes(residentSlope), scenario.Mebibytes(heapSlope), about,
		scenario.Mebibytes(resident[len(resident)-1]), scenario.Mebibytes(heap[len(heap)-1]),
	)
	seen(
		"goroutines %.0f after a quarter, %.0f at the end; descriptors %.0f, %.0f",
		first["go_goroutines"], last["go_goroutines"], first["process_open_fds"], last["process_open_fds"],
	)
}

// wholeSession logs in, uses the session and logs out. It reports whether all responses were right.
func wholeSession(t *testing.T, s *sitetest.Site, email string) bool {
	t.Helper()
	got := s.LoggedIn(email)
	s.MustAnswer(200, s.Bearer("/api/", got.Token), "after the log-in")
	next := s.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}).Tokens(t)
	s.MustAnswer(200, s.Bearer("/api/", next.Token), "after the refresh")
	s.MustAnswer(204, s.Send("POST", "/auth/logout", "", "Authorization: Bearer "+next.Token), "log-out")
	s.MustAnswer(401, s.Bearer("/api/", next.Token), "after the log-out")
	return !t.Failed()
}

// sentAgain sends a request again if Caddy did not accept its connection: at a reload it resets
// those that it has not accepted yet, with any modules. Because each request has its own
// connection, no other breaks.
type sentAgain struct{ *http.Transport }

func (s sentAgain) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := s.Transport.RoundTrip(request)
	for tries := 0; err != nil && tries < 10; tries++ {
		if request.GetBody != nil {
			request.Body, _ = request.GetBody() // cannot fail, because the body is a string
		}
		response, err = s.Transport.RoundTrip(request)
	}
	return response, err
}

// slope returns how much y grows with x, by least squares.
func slope(x, y []float64) float64 {
	var sumX, sumY, sumXX, sumXY float64
	for i := range x {
		sumX, sumY, sumXX, sumXY = sumX+x[i], sumY+y[i], sumXX+x[i]*x[i], sumXY+x[i]*y[i]
	}
	n := float64(len(x))
	return (n*sumXY - sumX*sumY) / (n*sumXX - sumX*sumX)
}
