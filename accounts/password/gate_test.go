package password

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// waitingRoom is a gate without free turns, and the callers that come to it.
type waitingRoom struct {
	t     *testing.T
	g     *gate
	queue int
	all   sync.WaitGroup

	mu           sync.Mutex
	served, left []string
}

func newWaitingRoom(t *testing.T, queue int) *waitingRoom {
	t.Helper()
	room := &waitingRoom{t: t, g: newGate(1), queue: queue}
	if err := room.g.enter(t.Context(), Turn{}); err != nil {
		t.Fatal(err)
	}
	return room
}

func stranger() bool { return false }
func familiar() bool { return true }

// comes adds a caller, and returns when the caller waits or another one has left.
func (r *waitingRoom) comes(name, what, client string, familiar func() bool) {
	r.t.Helper()
	before, left := r.g.begun(), len(r.gone())
	r.all.Go(func() {
		err := r.g.enter(r.t.Context(), Turn{r.queue, what, client, familiar})
		r.mu.Lock()
		defer r.mu.Unlock()
		switch {
		case err == nil:
			r.served = append(r.served, name)
			r.g.leave()
		case errors.Is(err, ErrQueueFull):
			r.left = append(r.left, name)
		default:
			r.t.Error(err)
		}
	})
	sitetest.Eventually(r.t, name+" waits or somebody leaves", func() bool {
		return r.g.begun() > before || len(r.gone()) > left
	})
}

func (r *waitingRoom) gone() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.left)
}

// opens gives a turn to each waiting caller.
func (r *waitingRoom) opens() {
	r.t.Helper()
	r.g.leave()
	r.all.Wait()
	if r.g.begun() != 0 || r.g.free != 1 {
		r.t.Errorf("%d are counted, %d free", r.g.begun(), r.g.free)
	}
}

// Waiting clients take turns, independent of the order in which they came.
func TestHashGateTurns(t *testing.T) {
	room := newWaitingRoom(t, 64)
	for i := range 3 {
		room.comes(fmt.Sprint("flood", i), "sign-up", "192.0.2.1", nil)
	}
	room.comes("beside it", "sign-up", "192.0.2.2", nil)
	room.comes("elsewhere", "sign-up", "198.51.100.1", nil)
	room.comes("log-in", "log-in", "2001:db8::1", nil)
	room.opens()
	if want := []string{
		"flood0", "log-in", "elsewhere", "beside it", "flood1", "flood2",
	}; !slices.Equal(room.served, want) {
		t.Errorf("order %q, expected %q", room.served, want)
	}
}

// Familiar clients go before strangers, who get an occasional turn.
func TestHashGateFamiliarFirst(t *testing.T) {
	room := newWaitingRoom(t, 64)
	for i := range 4 {
		room.comes(fmt.Sprint("stranger", i), "log-in", fmt.Sprintf("10.%d.0.1", i), stranger)
	}
	for i := range 5 {
		room.comes(fmt.Sprint("familiar", i), "log-in", fmt.Sprintf("198.51.%d.1", i), familiar)
	}
	room.opens()
	if want := []string{
		"familiar0", "familiar1", "familiar2", "stranger0",
		"familiar3", "familiar4", "stranger1", "stranger2", "stranger3",
	}; !slices.Equal(room.served, want) {
		t.Errorf("order %q, expected %q", room.served, want)
	}
}

// A stranger never displaces a familiar client in a full queue, and half of it is for strangers.
func TestHashGateFamiliarStay(t *testing.T) {
	room := newWaitingRoom(t, 16)
	for i := range 16 {
		room.comes("stranger", "log-in", fmt.Sprintf("10.%d.0.1", i), stranger)
	}
	for i := range 8 {
		room.comes("familiar", "log-in", fmt.Sprintf("198.51.%d.1", i), familiar)
	}
	for i := range 40 {
		room.comes("stranger", "log-in", fmt.Sprintf("10.%d.0.1", 100+i), stranger)
	}
	if left := room.gone(); len(left) != 48 || slices.Contains(left, "familiar") {
		t.Errorf("%d left: %q", len(left), left)
	}
	for i := range 20 {
		room.comes("familiar", "log-in", fmt.Sprintf("198.52.%d.1", i), familiar)
	}
	if left := room.gone()[48:]; len(left) != 20 || slices.Contains(left, "stranger") {
		t.Errorf("then %d left: %q", len(left), left)
	}
	room.opens()
}

// Among familiar clients, those with many requests go after one with a single request, and leave
// the queue before it.
func TestHashGateFamiliarWhoPress(t *testing.T) {
	q := &newGate(1).familiar
	comes := func(network string) {
		w := &waiter{queue: q, path: []string{network, network + ".1"}}
		q.add(w, w.path)
	}
	mustBe := func(what string, got *waiter, network string) {
		t.Helper()
		if got.path[0] != network {
			t.Errorf("%s: %s, expected %s", what, got.path[0], network)
		}
	}
	pressing := []string{"a", "b", "c"}
	for _, network := range pressing {
		comes(network)
	}
	for _, network := range []string{"a", "b"} {
		mustBe("in turns", q.next(), network)
		comes(network)
	}
	comes("once")
	mustBe("who leaves", q.heaviest(), "b")
	for _, network := range []string{"c", "once", "a", "b"} {
		mustBe("whose turn it is", q.next(), network)
	}
	// When nobody waits, the shares start again from zero.
	comes("a")
	comes("new")
	mustBe("control: of equals the last leaves", q.heaviest(), "new")
	mustBe("control: of equals the first goes", q.next(), "a")
}

// A full queue drops the last request of the client with the most requests, and each client has
// its share.
func TestHashGateIsFull(t *testing.T) {
	g := newGate(1)
	if err := g.enter(t.Context(), Turn{}); err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 100)
	ctx, cancel := context.WithCancel(t.Context())
	enter := func(client string) {
		t.Helper()
		before, done := g.begun(), len(results)
		go func() { results <- g.enter(ctx, Turn{Queue: 16, What: "log-in", Client: client}) }()
		sitetest.Eventually(t, client+" waits or is told", func() bool {
			return g.begun() > before || len(results) > done
		})
	}
	for range 5 {
		enter("192.0.2.1")
	}
	if got := g.begun() - g.running; got != 2 || len(results) != 3 {
		t.Errorf("of one client %d wait, %d were told to go", got, len(results))
	}
	for i := range 40 {
		enter(fmt.Sprintf("2001:db8:0:%x::1", i)) // of one owner
	}
	told := len(results)
	for i := range 5 {
		enter(fmt.Sprintf("198.51.%d.1", i))
	}
	if g.strangers.size != 16 || len(results) != told+5 {
		t.Errorf("%d wait; %d left", g.strangers.size, len(results)-told)
	}
	for i := range 5 {
		if g.strangers.of([]string{"log-in", fmt.Sprintf("198.51.%d", i)}) != 1 {
			t.Errorf("the client of network %d does not wait", i)
		}
	}
	waiting := g.strangers.size
	cancel()
	for range told + 5 + waiting {
		if err := <-results; !errors.Is(err, ErrQueueFull) && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	g.leave()
	if g.begun() != 0 || g.free != 1 {
		t.Errorf("%d are counted, %d free", g.begun(), g.free)
	}
}
