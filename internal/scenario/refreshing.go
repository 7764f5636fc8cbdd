package scenario

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Answered is the response to a refresh.
type Answered struct {
	Status       int // 0 if the connection broke
	AccessToken  string
	RefreshToken string
}

// Refreshing is a set of clients that each refresh a session constantly. If a client's response
// is lost, because of a 503 or a broken connection, it sends the same refresh token again.
type Refreshing struct {
	use  func(client int, token string) Answered
	stop chan struct{}
	all  sync.WaitGroup

	mu      sync.Mutex
	last    []Answered // the last response of each client
	given   []int
	lost    int            // responses that clients did not get
	refused map[string]int // number of responses without tokens, by client and status
}

// Refresh starts a client for each of the first responses, which come from its log-in.
func Refresh(first []Answered, pause time.Duration, use func(client int, token string) Answered) *Refreshing {
	r := &Refreshing{
		use: use, stop: make(chan struct{}), last: first, given: make([]int, len(first)), refused: make(map[string]int),
	}
	for i := range first {
		r.all.Go(func() {
			for {
				select {
				case <-r.stop:
					return
				case <-time.After(pause):
				}
				if !r.once(i) {
					return
				}
			}
		})
	}
	return r
}

// once refreshes once, and reports whether the client's session may still be valid.
func (r *Refreshing) once(i int) bool {
	got := r.use(i, r.last[i].RefreshToken)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch got.Status {
	case http.StatusOK:
		r.last[i] = got
		r.given[i]++
	case 0, http.StatusServiceUnavailable, http.StatusInsufficientStorage, http.StatusBadGateway:
		r.lost++
	default:
		r.refused[fmt.Sprintf("client %d: %d", i, got.Status)]++
		return false
	}
	return true
}

// GoOn returns how often each client has received tokens. all reports whether each client has
// received some since an earlier call, which returned the counts since; since may be nil.
func (r *Refreshing) GoOn(since []int) (given []int, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all = true
	for i, n := range r.given {
		given = append(given, n)
		all = all && (since == nil || n > since[i])
	}
	return given, all
}

// Counts returns the number of refreshes with a response, and of lost responses.
func (r *Refreshing) Counts() (given, lost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.given {
		given += n
	}
	return given, r.lost
}

// Finish ends the clients. The last tokens of each must work once more.
func (r *Refreshing) Finish(t *testing.T, accepts func(client int, accessToken string) bool) (told string) {
	t.Helper()
	close(r.stop)
	r.all.Wait()
	refused, given := 0, 0
	for i := range r.last {
		if !accepts(i, r.last[i].AccessToken) {
			t.Errorf("client %d: the access token that it was given last is refused", i)
			refused++
		}
		r.once(i)
		given += r.given[i]
	}
	var how []string
	for what := range r.refused {
		how = append(how, what)
	}
	if len(how) > 0 {
		t.Errorf("sessions were ended: %s", strings.Join(how, ", "))
	}
	return fmt.Sprintf(
		"%d clients: %d refreshes answered, %d answers lost; %d sessions ended, %d tokens of an answer refused",
		len(r.last), given, r.lost, len(how), refused,
	)
}
