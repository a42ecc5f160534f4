package fetch

import (
	"slices"
	"sync"
)

// A budget is what the jobs of one Fetcher share: a number of connections. Each job takes what it can
// use while nobody else wants it; when there is not enough for all, whoever has fewest is next, and
// those with more than their part end a connection's work after its next block.
//
// Its lock is the lock of all plans, so that a free connection goes to the right one of them in one
// step. It is held for moments only.
type budget struct {
	mu     sync.Mutex
	total  int // most connections busy at once; 0: no limit
	busy   int // connections busy, all jobs together
	turns  uint64
	denied bool // a connection with work was turned away since the last wake
	plans  []*plan
}

func (b *budget) join(p *plan) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plans = append(b.plans, p)
}

func (b *budget) leave(p *plan) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plans = slices.DeleteFunc(b.plans, func(x *plan) bool { return x == p })
	b.wakeDenied()
}

// configure makes new settings hold for the jobs that run.
func (b *budget) configure(s *Settings) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total = s.Total
	for _, p := range b.plans {
		p.configure(s)
	}
	b.trimAll()
	b.denied = true // whoever was turned away may ask again
	b.wakeDenied()
}

// trimAll ends what is too much after the total was lowered.
func (b *budget) trimAll() {
	if b.total == 0 || b.busy <= b.total {
		return
	}
	part := b.part()
	for _, p := range b.plans {
		p.cut(p.busy-part, BlockSize)
	}
}

// permits says whether p, which is below its own target, may have one more connection.
func (b *budget) permits(p *plan) bool {
	if b.total == 0 || b.busy < b.total && len(b.plans) == 1 {
		return true
	}
	if !p.work() {
		return false
	}
	if b.busy >= b.total {
		b.denied = true
		b.makeRoom(p)
		return false
	}
	for _, q := range b.plans {
		if q != p && q.before(p) && q.wants() {
			b.denied = true
			q.changed.Broadcast()
			return false
		}
	}
	return true
}

// started and ended count connections.
func (b *budget) started(p *plan) {
	b.turns++
	b.busy++
	p.busy++
	p.turn = b.turns
	b.wakeDenied()
}

func (b *budget) ended(p *plan) {
	b.busy--
	p.busy--
	b.wakeDenied()
}

// wakeDenied lets those who were turned away ask again.
func (b *budget) wakeDenied() {
	if !b.denied {
		return
	}
	b.denied = false
	for _, p := range b.plans {
		p.changed.Broadcast()
	}
}

// part is what each job that has or wants connections gets of the total at least.
func (b *budget) part() int {
	active := 0
	for _, p := range b.plans {
		if p.busy > 0 || p.wants() {
			active++
		}
	}
	return max(1, b.total/max(1, active))
}

// makeRoom lets others end some work soon, if p has less than its part.
func (b *budget) makeRoom(p *plan) {
	part := b.part()
	if p.busy >= part {
		return
	}
	var longest *plan // of those with one connection, while p has none, the one that had its turn first
	for _, q := range b.plans {
		q.cut(q.busy-part, BlockSize)
		if q.busy == 1 && (longest == nil || q.turn < longest.turn) {
			longest = q
		}
	}
	if p.busy == 0 && part == 1 && longest != nil {
		longest.cut(1, longest.turnLength()) // more jobs than connections: they take turns
	}
}

// before reports whether p is to have a free connection rather than q.
func (p *plan) before(q *plan) bool {
	return p.busy < q.busy || p.busy == q.busy && p.turn < q.turn
}

// wants reports whether p would use another connection at once.
func (p *plan) wants() bool { return p.waiting > 0 && p.busy < p.target && p.work() }
