package password

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/caddy-jwt/caddy-jwt/internal/network"
)

// ErrQueueFull means that the queue for hashing is full.
var ErrQueueFull = errors.New("too many passwords are being checked")

// shareOfClient is the part of the queue that one client can fill: an eighth.
const shareOfClient = 8

// familiarInARow is how many familiar clients can have a turn before a waiting stranger.
const familiarInARow = 3

// Turn describes a request for hashing, which determines its place in the queue.
type Turn struct {
	Queue    int         // maximum number of waiting requests
	What     string      // kind of request: log-in or sign-up
	Client   string      // IP address of the client
	Familiar func() bool // reports whether it has priority; called only if it must wait; nil means no
}

// gate limits concurrent hashes, so that a flood of log-ins takes neither the memory nor
// the CPU cores needed for verifying tokens. There is one gate per process.
//
// The queue is fair: first between kinds of requests, so that sign-ups never delay log-ins;
// then between networks, because an attacker often has many addresses of one network; then
// between clients. If the queue is full, the last request of the one with the most waiting
// requests is dropped.
//
// Familiar clients have priority over strangers. Strangers are guaranteed one of four turns
// and half of the queue, because an attacker can be familiar too, with accounts of their
// own. Among familiar clients, the network with the fewest turns so far goes first and is
// dropped last, so that frequent clients do not delay occasional ones.
type gate struct {
	mu                  sync.Mutex
	free                int
	running             int
	familiar, strangers queue
	inARow              int // consecutive turns of familiar clients
}

var hashing = newGate(max(1, runtime.GOMAXPROCS(0)-1))

func newGate(atOnce int) *gate {
	return &gate{free: atOnce, familiar: queue{had: make(map[string]int)}}
}

// queue is a tree of queues, whose leaves are the waiting requests.
type queue struct {
	name    string
	inner   []*queue       // in the order of their turns; none is empty
	had     map[string]int // turns of each inner queue since all were empty; nil if not counted
	waiters []*waiter
	size    int
}

type waiter struct {
	queue *queue // of familiar clients or of strangers
	path  []string
	turn  chan bool // receives once whether it may run or must leave
}

// do waits for its turn and runs f. It returns ErrQueueFull if it must leave the queue.
func (g *gate) do(ctx context.Context, turn Turn, f func()) error {
	if err := g.enter(ctx, turn); err != nil {
		return err
	}
	defer g.leave()
	f()
	return nil
}

func (g *gate) enter(ctx context.Context, turn Turn) error {
	w := &waiter{
		&g.strangers, []string{turn.What, networkOf(turn.Client), network.Key(turn.Client)}, make(chan bool, 1),
	}
	g.mu.Lock()
	if g.free == 0 && turn.Familiar != nil {
		g.mu.Unlock() // the call may take a while
		if turn.Familiar() {
			w.queue, w.path = &g.familiar, w.path[1:] // all of them log in
		}
		g.mu.Lock()
	}
	if g.free > 0 { // then nobody is waiting
		g.free--
		g.running++
		g.mu.Unlock()
		return nil
	}
	if w.queue.of(w.path) >= max(1, turn.Queue/shareOfClient) {
		g.mu.Unlock()
		return ErrQueueFull
	}
	w.queue.add(w, w.path)
	if g.waiting() > turn.Queue {
		g.shed(turn.Queue)
	}
	g.mu.Unlock()
	select {
	case mine := <-w.turn:
		if !mine {
			return ErrQueueFull
		}
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	waits := w.queue.remove(w, w.path)
	g.mu.Unlock()
	if !waits && <-w.turn { // it was just its turn
		g.leave()
	}
	return ctx.Err()
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if next := g.next(); next != nil {
		next.turn <- true
		return
	}
	g.running--
	g.free++
}

// next removes and returns the next request, or nil.
func (g *gate) next() *waiter {
	if g.familiar.size > 0 && (g.inARow < familiarInARow || g.strangers.size == 0) {
		g.inARow++
		return g.familiar.next()
	}
	g.inARow = 0
	return g.strangers.next()
}

// shed drops a request from a full queue: a stranger, unless familiar clients have more
// than half of the queue.
func (g *gate) shed(full int) {
	from := &g.strangers
	if from.size == 0 || g.familiar.size > (full+1)/2 {
		from = &g.familiar
	}
	last := from.heaviest()
	from.remove(last, last.path)
	last.turn <- false
}

func (g *gate) waiting() int { return g.familiar.size + g.strangers.size }

// begun returns how many requests run or wait.
func (g *gate) begun() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running + g.waiting()
}

// networkOf returns the network that usually has one owner: a /48 of IPv6, a /24 of IPv4.
func networkOf(address string) string {
	network := network.Prefix(address, 48)
	if i := strings.LastIndexByte(network, '.'); i > 0 {
		return network[:i]
	}
	return network
}

func (q *queue) find(name string) int {
	return slices.IndexFunc(q.inner, func(inner *queue) bool { return inner.name == name })
}

// of returns how many requests wait at a path.
func (q *queue) of(path []string) int {
	if len(path) == 0 {
		return q.size
	}
	i := q.find(path[0])
	if i < 0 {
		return 0
	}
	return q.inner[i].of(path[1:])
}

func (q *queue) add(w *waiter, path []string) {
	if q.size == 0 {
		clear(q.had)
	}
	q.size++
	if len(path) == 0 {
		q.waiters = append(q.waiters, w)
		return
	}
	i := q.find(path[0])
	if i < 0 {
		q.inner, i = append(q.inner, &queue{name: path[0]}), len(q.inner)
	}
	q.inner[i].add(w, path[1:])
}

// remove removes a request. It returns false if the request no longer waits.
func (q *queue) remove(w *waiter, path []string) (removed bool) {
	if len(path) == 0 {
		i := slices.Index(q.waiters, w)
		if i < 0 {
			return false
		}
		q.waiters = slices.Delete(q.waiters, i, i+1)
		q.size--
		return true
	}
	i := q.find(path[0])
	if i < 0 || !q.inner[i].remove(w, path[1:]) {
		return false
	}
	q.size--
	if q.inner[i].size == 0 {
		q.inner = slices.Delete(q.inner, i, i+1)
	}
	return true
}

// next removes and returns the next request, and moves its queue to the end.
func (q *queue) next() *waiter {
	if q.size == 0 {
		return nil
	}
	q.size--
	if len(q.waiters) > 0 {
		first := q.waiters[0]
		q.waiters = slices.Delete(q.waiters, 0, 1)
		return first
	}
	turn := slices.MinFunc(q.inner, func(a, b *queue) int { return q.had[a.name] - q.had[b.name] })
	q.inner = slices.DeleteFunc(q.inner, func(inner *queue) bool { return inner == turn })
	if q.had != nil {
		q.had[turn.name]++
	}
	first := turn.next()
	if turn.size > 0 {
		q.inner = append(q.inner, turn)
	}
	return first
}

// heaviest returns the last request of the queue with the most requests.
func (q *queue) heaviest() *waiter {
	if len(q.waiters) > 0 {
		return q.waiters[len(q.waiters)-1]
	}
	most := q.inner[0]
	for _, inner := range q.inner {
		if cmp.Or(inner.size-most.size, q.had[inner.name]-q.had[most.name]) >= 0 { // of equals the last to come
			most = inner
		}
	}
	return most.heaviest()
}

// Busy returns how many passwords are being hashed or are waiting.
func Busy() int { return hashing.begun() }

// Waiting returns how many requests are waiting.
func Waiting() (familiar, strangers int) {
	hashing.mu.Lock()
	defer hashing.mu.Unlock()
	return hashing.familiar.size, hashing.strangers.size
}

// Occupy takes all free turns, like a flood of log-ins, until release is called. It is for
// tests.
func Occupy() (release func()) {
	hashing.mu.Lock()
	defer hashing.mu.Unlock()
	slots := hashing.free
	hashing.free, hashing.running = 0, hashing.running+slots
	return func() {
		for range slots {
			hashing.leave()
		}
	}
}
