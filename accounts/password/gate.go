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

// ErrQueueFull means that more passwords wait to be hashed than may.
var ErrQueueFull = errors.New("too many passwords are being checked")

// shareOfClient is the part of the queue that one client may fill: an eighth.
const shareOfClient = 8

// familiarInARow is how many familiar clients may have a turn before a stranger who
// waits has one.
const familiarInARow = 3

// Turn says whose turn to hash it is.
type Turn struct {
	Queue    int         // how many may wait
	What     string      // is hashed: the password of a log-in or of a sign-up
	Client   string      // its address
	Familiar func() bool // tells whether it goes before strangers, asked if it has to wait; nil is for no
}

// gate lets few hashes run at a time, so that a flood of log-ins takes neither
// the memory nor the cores that verify tokens. It is one for the process.
//
// Whoever waits is taken in turns: by what is hashed, so that sign-ups never hold up
// log-ins; then by network, since whoever has one of its addresses may have many;
// then by client. If the queue is full, the last of those who wait most leaves it.
//
// The familiar go before strangers, who have one of four turns and half of the queue
// for sure: an attacker may be familiar too, with accounts of his own. Among the
// familiar the network that has had the fewest turns goes first and leaves last, so
// that whoever logs in now and then is not held up by those who press.
type gate struct {
	mu                  sync.Mutex
	free                int
	running             int
	familiar, strangers queue
	inARow              int // turns of the familiar since the last one of a stranger
}

var hashing = newGate(max(1, runtime.GOMAXPROCS(0)-1))

func newGate(atOnce int) *gate {
	return &gate{free: atOnce, familiar: queue{had: make(map[string]int)}}
}

// queue is a queue of queues, and at the leaves of those who wait.
type queue struct {
	name    string
	inner   []*queue       // in the order of their turns; each has somebody
	had     map[string]int // the turns that each of inner has had since all was empty; nil if that does not count
	waiters []*waiter
	size    int
}

type waiter struct {
	queue *queue // of the familiar or the strangers
	path  []string
	turn  chan bool // says once whether it is its turn or it has to leave
}

// do runs f when it is its turn, unless too many others wait.
func (g *gate) do(ctx context.Context, turn Turn, f func()) error {
	if err := g.enter(ctx, turn); err != nil {
		return err
	}
	defer g.leave()
	f()
	return nil
}

func (g *gate) enter(ctx context.Context, turn Turn) error {
	w := &waiter{&g.strangers, []string{turn.What, networkOf(turn.Client), network.Key(turn.Client)}, make(chan bool, 1)}
	g.mu.Lock()
	if g.free == 0 && turn.Familiar != nil {
		g.mu.Unlock() // to ask takes a while
		if turn.Familiar() {
			w.queue, w.path = &g.familiar, w.path[1:] // all of them log in
		}
		g.mu.Lock()
	}
	if g.free > 0 { // then nobody waits
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

// next takes out whose turn it is, or returns nil.
func (g *gate) next() *waiter {
	if g.familiar.size > 0 && (g.inARow < familiarInARow || g.strangers.size == 0) {
		g.inARow++
		return g.familiar.next()
	}
	g.inARow = 0
	return g.strangers.next()
}

// shed has one of a queue that is full leave: a stranger, unless the familiar have
// more than half of it.
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

// begun is how many run or wait.
func (g *gate) begun() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running + g.waiting()
}

// networkOf is what one owner of addresses mostly has: of IPv6 a /48, of IPv4 a
// /24.
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

// of is how many wait at a path.
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

// remove returns false if it does not wait any more.
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

// next takes out whose turn it is, and lets the others go before its like.
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

// heaviest is the last of those who wait most.
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

// Busy is how many passwords are being hashed or wait for it.
func Busy() int { return hashing.begun() }

// Waiting is how many wait for their turn.
func Waiting() (familiar, strangers int) {
	hashing.mu.Lock()
	defer hashing.mu.Unlock()
	return hashing.familiar.size, hashing.strangers.size
}

// Occupy takes all turns that are free, as a flood of log-ins does, until release is
// called. It is for tests.
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
