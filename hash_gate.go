package caddyjwt

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// errHashQueueFull means that more passwords wait to be hashed than may.
var errHashQueueFull = errors.New("too many passwords are being checked")

// shareOfClient is the part of the queue that one client may fill: an eighth.
const shareOfClient = 8

// familiarInARow is how many familiar clients may have a turn before a stranger who
// waits has one.
const familiarInARow = 3

// hashTurn says whose turn to hash it is.
type hashTurn struct {
	queue    int         // how many may wait
	what     string      // is hashed: the password of a log-in or of a sign-up
	client   string      // its address
	familiar func() bool // tells whether it goes before strangers, asked if it has to wait; nil is for no
}

// hashGate lets few hashes run at a time, so that a flood of log-ins takes neither
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
type hashGate struct {
	mu                  sync.Mutex
	free                int
	running             int
	familiar, strangers hashQueue
	inARow              int // turns of the familiar since the last one of a stranger
}

var hashing = newHashGate(max(1, runtime.GOMAXPROCS(0)-1))

func newHashGate(atOnce int) *hashGate {
	return &hashGate{free: atOnce, familiar: hashQueue{had: make(map[string]int)}}
}

// hashQueue is a queue of queues, and at the leaves of those who wait.
type hashQueue struct {
	name    string
	inner   []*hashQueue   // in the order of their turns; each has somebody
	had     map[string]int // the turns that each of inner has had since all was empty; nil if that does not count
	waiters []*hashWaiter
	size    int
}

type hashWaiter struct {
	queue *hashQueue // of the familiar or the strangers
	path  []string
	turn  chan bool // says once whether it is its turn or it has to leave
}

// do runs f when it is its turn, unless too many others wait.
func (g *hashGate) do(ctx context.Context, turn hashTurn, f func()) error {
	if err := g.enter(ctx, turn); err != nil {
		return err
	}
	defer g.leave()
	f()
	return nil
}

func (g *hashGate) enter(ctx context.Context, turn hashTurn) error {
	w := &hashWaiter{&g.strangers, []string{turn.what, networkOf(turn.client), clientKey(turn.client)}, make(chan bool, 1)}
	g.mu.Lock()
	if g.free == 0 && turn.familiar != nil {
		g.mu.Unlock() // to ask takes a while
		if turn.familiar() {
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
	if w.queue.of(w.path) >= max(1, turn.queue/shareOfClient) {
		g.mu.Unlock()
		return errHashQueueFull
	}
	w.queue.add(w, w.path)
	if g.waiting() > turn.queue {
		g.shed(turn.queue)
	}
	g.mu.Unlock()
	select {
	case mine := <-w.turn:
		if !mine {
			return errHashQueueFull
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

func (g *hashGate) leave() {
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
func (g *hashGate) next() *hashWaiter {
	if g.familiar.size > 0 && (g.inARow < familiarInARow || g.strangers.size == 0) {
		g.inARow++
		return g.familiar.next()
	}
	g.inARow = 0
	return g.strangers.next()
}

// shed has one of a queue that is full leave: a stranger, unless the familiar have
// more than half of it.
func (g *hashGate) shed(full int) {
	from := &g.strangers
	if from.size == 0 || g.familiar.size > (full+1)/2 {
		from = &g.familiar
	}
	last := from.heaviest()
	from.remove(last, last.path)
	last.turn <- false
}

func (g *hashGate) waiting() int { return g.familiar.size + g.strangers.size }

// begun is how many run or wait.
func (g *hashGate) begun() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running + g.waiting()
}

// networkOf is what one owner of addresses mostly has: of IPv6 a /48, of IPv4 a
// /24.
func networkOf(address string) string {
	network := networkKey(address, 48)
	if i := strings.LastIndexByte(network, '.'); i > 0 {
		return network[:i]
	}
	return network
}

func (q *hashQueue) find(name string) int {
	return slices.IndexFunc(q.inner, func(inner *hashQueue) bool { return inner.name == name })
}

// of is how many wait at a path.
func (q *hashQueue) of(path []string) int {
	if len(path) == 0 {
		return q.size
	}
	i := q.find(path[0])
	if i < 0 {
		return 0
	}
	return q.inner[i].of(path[1:])
}

func (q *hashQueue) add(w *hashWaiter, path []string) {
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
		q.inner, i = append(q.inner, &hashQueue{name: path[0]}), len(q.inner)
	}
	q.inner[i].add(w, path[1:])
}

// remove returns false if it does not wait any more.
func (q *hashQueue) remove(w *hashWaiter, path []string) (removed bool) {
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
func (q *hashQueue) next() *hashWaiter {
	if q.size == 0 {
		return nil
	}
	q.size--
	if len(q.waiters) > 0 {
		first := q.waiters[0]
		q.waiters = slices.Delete(q.waiters, 0, 1)
		return first
	}
	turn := slices.MinFunc(q.inner, func(a, b *hashQueue) int { return q.had[a.name] - q.had[b.name] })
	q.inner = slices.DeleteFunc(q.inner, func(inner *hashQueue) bool { return inner == turn })
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
func (q *hashQueue) heaviest() *hashWaiter {
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
