package fetch

import (
	"context"
	"iter"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ema/internal/model"
	"ema/internal/source"
)

const (
	// stealable is how much must be left of a claim before another connection takes half of it: less
	// is faster read to its end than asked for anew.
	stealable = 4 * BlockSize
	// longest bounds one request, so that the in-order hash is never far behind the last byte.
	longest = 128 * BlockSize
	// hashRate is about what one core hashes in a second, where it has instructions for it.
	hashRate = 1.4e9
	// latencyShare is how small the wait for an answer is to be, as a part of the answer's duration.
	latencyShare = 100
	// windowLength is how long the shortest answer counts before those since then replace it: routes change.
	windowLength = 10 * time.Second
	// firstAnswers is how many answers it takes to believe that an origin is neither near nor far.
	firstAnswers = 8
	// leisurely is the rate of a connection, in bytes per second, below which nobody waits for its bytes: it
	// is capped, by the origin or by a limit of ours.
	leisurely = 16 << 20
	// nearBefore is the time to first byte below which requests may be short.
	nearBefore = 5 * time.Millisecond
)

// A blob is a large file on its way: what nobody fetches yet, and who fetches the rest.
// Its fields are guarded by the plan's lock.
type blob struct {
	file     model.File
	sink     Sink
	order    *order
	why      string          // the chunk is as it is
	free     []model.Segment // ascending, disjoint
	claims   []*claim
	left     int64         // bytes not yet written
	written  *atomic.Int64 // the others, for who follows file by file
	chunk    int64
	progress uint64 // grows with every byte: failures are counted since it last moved
	ranged   bool   // a range was honoured once
	refused  int    // answers that ignored the range, while none was honoured
	whole    bool   // the server knows no ranges: one connection at a time, from the start

	writing sync.WaitGroup // claims in hand
	filled  chan struct{}  // closed when left is 0
	syncNow chan struct{}  // capacity 1
}

func newBlob(f model.File, s Sink) *blob {
	b := &blob{file: f, sink: s, free: slices.Clone(s.Missing()), filled: make(chan struct{}), syncNow: make(chan struct{}, 1)}
	for _, seg := range b.free {
		b.left += seg.Len()
	}
	if b.left == 0 {
		close(b.filled)
	}
	return b
}

// A claim is a span of a blob that one connection fetches. Its end moves down when another
// connection steals the rest.
type claim struct {
	lane     *source.Lane // of the connection that works on it
	blob     *blob
	pos, end int64                   // guarded by the plan's lock
	cancel   context.CancelCauseFunc // set when the request is sent; guarded by the plan's lock
	answered bool                    // the source has opened it; guarded by the plan's lock
	received atomic.Int64            // bytes that came for this claim
	held     spell                   // our own limit made it wait
	away     spell                   // it was busy elsewhere: with the disk, or waiting for the hash
	recent   []moment                // how it stood, second by second; the watch's own
	silent   int                     // seconds without a byte; the watch's own
}

// A task is what a connection does next: a claim of a large file, or a small file.
type task struct {
	claim *claim
	small model.File
}

// plan knows which bytes are whose. Everything in it is guarded by the budget's lock; none of its
// methods waits, except next.
type plan struct {
	*budget
	settings *Settings
	own      int           // the job's own cap of connections; 0: none
	grown    chan struct{} // capacity 1: most has changed

	changed  sync.Cond
	small    []model.File
	blobs    []*blob // those with bytes missing, in the order they were opened
	most     int     // the cap of connections
	target   int     // connections that may be busy
	busy     int
	waiting  int    // connections in next
	turn     uint64 // grows with each connection that any job starts: when this one last did
	pace     pace   // of the network, for the chunk size
	closed   bool   // no further blob will be added
	pending  int    // small files taken and not yet done: they may come back
	held     bool   // a claim was refused because its file's hash is behind
	retreats int    // 429 and 5xx answers so far; the climb reads it

	answer  time.Duration // shortest time to first byte of the newest windows; 0 = unknown
	answers int           // how many answers came
	recent  time.Duration // the same, of this window; 0 = unknown
	window  time.Time     // when this window began
	rate    float64       // smoothed bytes per second of one connection, 0 = unknown
}

// newPlan makes a plan for a job with a cap of its own, unless own is 0.
func newPlan(b *budget, s *Settings, own int, answer time.Duration) *plan {
	if answer < 2*farAfter {
		answer = 0 // that may have been the work of a first request, and says little about the distance
	}
	p := &plan{budget: b, settings: s, own: own, answer: answer, window: time.Now(), grown: make(chan struct{}, 1)}
	p.most = p.cap()
	p.target = p.most
	if !s.FixedParallel {
		p.target = startWith(p.most, answer)
	}
	p.changed.L = &b.mu
	return p
}

// cap is how many connections the job may have at most.
func (p *plan) cap() int {
	if p.own > 0 {
		return min(p.own, p.settings.Connections)
	}
	return p.settings.Connections
}

// configure makes new settings hold. Connections above a lowered cap end after their block.
func (p *plan) configure(s *Settings) {
	p.settings = s
	if p.most = p.cap(); s.FixedParallel {
		p.target = p.most
	}
	p.target = min(p.target, p.most)
	p.cut(p.busy-p.target, BlockSize)
	for _, b := range p.blobs {
		b.chunk, b.why = s.Chunk.size(b.file.Size, p.pace.speed)
	}
	select {
	case p.grown <- struct{}{}:
	default:
	}
	p.changed.Broadcast()
}

func (p *plan) wake() {
	p.mu.Lock()
	p.changed.Broadcast()
	p.mu.Unlock()
}

// hashed wakes connections that waited for a hash.
func (p *plan) hashed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held {
		p.held = false
		p.changed.Broadcast()
	}
}

// add begins to hand out b, and tells its chunk for the log.
func (p *plan) add(b *blob) chunked {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.chunk, b.why = p.settings.Chunk.size(b.file.Size, p.pace.speed)
	if b.left > 0 {
		p.blobs = append(p.blobs, b)
	}
	p.changed.Broadcast()
	return p.chunked(b)
}

// abandon hands out nothing of b any more.
func (p *plan) abandon(b *blob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blobs = slices.DeleteFunc(p.blobs, func(x *blob) bool { return x == b })
}

func (p *plan) noMoreFiles() {
	p.mu.Lock()
	p.closed = true
	p.changed.Broadcast()
	p.mu.Unlock()
}

// next waits until there is work for a connection and room for it under the target. It returns false
// when all work is done, and ctx's error when ctx ends.
func (p *plan) next(ctx context.Context, worker int) (task, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting++
	defer func() { p.waiting-- }()
	for {
		if ctx.Err() != nil {
			return task{}, false, context.Cause(ctx)
		}
		if p.closed && len(p.blobs) == 0 && len(p.small) == 0 && p.pending == 0 {
			return task{}, false, nil
		}
		if p.busy < p.target && p.permits(p) {
			if t, ok := p.take(worker); ok {
				p.started(p)
				if t.claim != nil {
					t.claim.blob.writing.Add(1)
				}
				return t, true, nil
			}
			p.wakeDenied()
		}
		p.changed.Wait()
	}
}

// take picks work. Large files fill the link and small ones fill the waiting times, so even
// connections look for large work first and odd ones for small; each takes the other when its own
// has run out.
func (p *plan) take(worker int) (task, bool) {
	if worker%2 == 1 {
		if t, ok := p.takeSmall(); ok {
			return t, true
		}
	}
	if c := p.takeLarge(); c != nil {
		return task{claim: c}, true
	}
	return p.takeSmall()
}

func (p *plan) takeSmall() (task, bool) {
	if len(p.small) == 0 {
		return task{}, false
	}
	f := p.small[0]
	p.small = p.small[1:]
	p.pending++
	return task{small: f}, true
}

// takeLarge claims the first free span of the blob that the fewest connections work on, or else
// half of the largest claim.
func (p *plan) takeLarge() *claim {
	best, victim := p.largest()
	if best != nil {
		return p.claim(best)
	}
	if victim == nil {
		return nil
	}
	// The victim reads at most one buffer past pos before it looks at end again, and a buffer never
	// crosses a block, so a cut at the next-but-one block or later cannot fall into what it reads.
	middle := alignUp(victim.pos + (victim.end-victim.pos)/2)
	stolen := &claim{blob: victim.blob, pos: middle, end: victim.end}
	victim.end = middle
	victim.blob.claims = append(victim.blob.claims, stolen)
	return stolen
}

// work reports whether take would find something.
func (p *plan) work() bool {
	best, victim := p.largest()
	return best != nil || victim != nil || len(p.small) > 0
}

// largest finds where large work is to be taken: the front of a blob's free spans, or a claim of which
// half may be stolen; at most one of them.
func (p *plan) largest() (best *blob, victim *claim) {
	waits := false
	for _, b := range p.blobs {
		if len(b.free) == 0 || b.whole && len(b.claims) > 0 {
			continue
		}
		if b.order != nil && b.order.behind(b.free[0].Start, p.near()) {
			p.held, waits = true, true
			continue
		}
		if best == nil || len(b.claims) < len(best.claims) {
			best = b
		}
	}
	if best != nil || waits { // where bytes wait for the hash, stealing would not help it
		return best, nil
	}
	for _, b := range p.blobs {
		for _, c := range b.claims {
			if !b.whole && (victim == nil || c.end-c.pos > victim.end-victim.pos) {
				victim = c
			}
		}
	}
	if victim == nil || victim.end-victim.pos < victim.blob.stealable() {
		return nil, nil
	}
	return nil, victim
}

// claim takes the front of b's first free span, as long as the origin's distance asks for and as
// short as keeps all connections busy to the end.
func (p *plan) claim(b *blob) *claim {
	span := b.free[0]
	n := span.Len()
	if !b.whole {
		n = alignUp(min(p.length(b), longest))
	}
	end := min(alignUp(span.Start)+n, span.End)
	if span.End-end < b.stealable() {
		end = span.End // a remainder too small to be worth a request of its own
	}
	c := &claim{blob: b, pos: span.Start, end: end}
	if b.free[0].Start = end; end == span.End {
		b.free = b.free[1:]
	}
	b.claims = append(b.claims, c)
	return c
}

// stealable is how much of b must be left before it is worth a request of its own.
func (b *blob) stealable() int64 { return min(stealable, max(b.chunk, 2*BlockSize)) }

// near reports whether a request costs next to nothing and a block comes in a moment, as far as is known:
// the first answers come while all connections are dialled at once, and say little about one that is not
// far.
func (p *plan) near() bool {
	if p.rate > 0 && p.rate < leisurely {
		return false
	}
	return p.answer < nearBefore || p.answer < farAfter && p.answers < firstAnswers
}

// nearby is near, for those who do not hold the lock.
func (p *plan) nearby() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.near()
}

// length is how many bytes the next request for b should ask for.
func (p *plan) length(b *blob) int64 {
	far := p.answer >= farAfter
	if p.near() || b.order != nil && b.order.bound() {
		// A request costs next to nothing, or the hash is slower than the network anyway. As long as all
		// connections together stay within what may wait for the hash, no byte is read twice.
		return min(b.chunk, max(ahead/int64(p.target+1)/BlockSize*BlockSize, 2*BlockSize))
	}
	n := max(b.chunk, int64(p.answer.Seconds()*latencyShare*p.rate))
	if far && p.rate == 0 {
		n = longest
	}
	if far && b.left <= 4*longest {
		// The last rounds: each costs a round trip, and leaves the hash the share of one round to do when all
		// has come; stealing evens out what was cut unevenly.
		rounds := max(1, int64(math.Sqrt(float64(b.left)/hashRate/p.answer.Seconds())+0.5))
		return min(n, max(b.left/int64(p.target)/rounds, stealable))
	}
	// Each round takes two thirds of the time that is left, so the last ones are short: all connections
	// end together, with the hash close behind.
	return min(n, max(b.left*2/int64(3*p.target), b.stealable()))
}

// room is how many bytes c's connection may read next: at most most, never past the claim's end or
// over a block's border. 0 means that the claim is done.
func (p *plan) room(c *claim, most int64) (off, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.pos, min(most, c.end-c.pos, BlockSize-c.pos%BlockSize)
}

// span is what c's connection is to ask for.
func (p *plan) span(c *claim) model.Segment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return model.Segment{Start: c.pos, End: c.end}
}

// wrote moves c forward by n written bytes.
func (p *plan) wrote(c *claim, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := c.blob
	c.pos += n
	b.left -= n
	b.progress++
	if b.left == 0 {
		p.blobs = slices.DeleteFunc(p.blobs, func(x *blob) bool { return x == b })
		close(b.filled)
		p.changed.Broadcast()
	}
}

// release ends a claim; what it did not write is free again.
func (p *plan) release(c *claim) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended(p)
	b := c.blob
	b.writing.Done()
	b.claims = slices.DeleteFunc(b.claims, func(x *claim) bool { return x == c })
	if c.pos < c.end {
		b.free = insert(b.free, model.Segment{Start: c.pos, End: c.end})
	}
	p.changed.Broadcast()
}

// smallDone ends a small file's turn; a failed one goes back to the end of the line.
func (p *plan) smallDone(f model.File, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended(p)
	p.pending--
	if !ok {
		p.small = append(p.small, f)
	}
	p.changed.Broadcast()
}

// observe learns how far the origin is: the time to its first byte, and the rate of one connection
// (0 when the answer was too short to tell).
func (p *plan) observe(answer time.Duration, rate float64) {
	const weight = 0.3
	p.mu.Lock()
	defer p.mu.Unlock()
	if answer > 0 {
		p.answers++
		p.recent = shorter(p.recent, answer)
		p.answer = shorter(p.answer, answer) // the shortest says how far it is, the others how busy
		if time.Since(p.window) > windowLength {
			p.answer, p.recent, p.window = p.recent, 0, time.Now()
		}
	}
	if rate > 0 {
		if p.rate == 0 {
			p.rate = rate
		}
		p.rate += weight * (rate - p.rate)
	}
}

// shorter is the shorter of two durations of which 0 is unknown.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b < a {
		return b
	}
	return a
}

// setTarget changes how many connections may be busy. Above a lowered target they end after their next
// block; at once when drop says that they are too slow even for that.
func (p *plan) setTarget(n int, drop bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = min(n, p.most)
	if over := p.busy - p.target; drop {
		p.drop(over)
	} else {
		p.cut(over, BlockSize)
	}
	p.wakeDenied()
	p.changed.Broadcast()
}

// cut shortens the newest claims, as many as over, so that they end at the next block but after bytes
// more. Those that end soon are left as they are. What is cut off is free again.
func (p *plan) cut(over int, after int64) {
	const soon = 2 // seconds
	for c := range p.newest(over) {
		b := c.blob
		if cut := alignUp(c.pos) + after; !b.whole && c.end > cut && float64(c.end-cut) > soon*p.rate {
			b.free = insert(b.free, model.Segment{Start: cut, End: c.end})
			c.end = cut
		}
	}
}

// drop ends the newest claims at once, as many as over.
func (p *plan) drop(over int) {
	for c := range p.newest(over) {
		if c.cancel != nil && !c.blob.whole {
			c.cancel(errTooMany)
		}
	}
}

// newest yields the newest claims, n at most.
func (p *plan) newest(n int) iter.Seq[*claim] {
	return func(yield func(*claim) bool) {
		for _, b := range slices.Backward(p.blobs) {
			for _, c := range slices.Backward(b.claims) {
				if n--; n < 0 || !yield(c) {
					return
				}
			}
		}
	}
}

// turnLength is how much a connection fetches before it lets another job have its turn.
func (p *plan) turnLength() int64 {
	if len(p.blobs) == 0 {
		return BlockSize
	}
	return max(alignUp(p.blobs[0].chunk), BlockSize)
}

// insert puts seg into ascending disjoint spans and merges it with its neighbours.
func insert(spans []model.Segment, seg model.Segment) []model.Segment {
	at, _ := slices.BinarySearchFunc(spans, seg, func(a, b model.Segment) int {
		return int(min(max(a.Start-b.Start, -1), 1))
	})
	spans = slices.Insert(spans, at, seg)
	if at+1 < len(spans) && spans[at].End == spans[at+1].Start {
		spans[at].End = spans[at+1].End
		spans = slices.Delete(spans, at+1, at+2)
	}
	if at > 0 && spans[at-1].End == spans[at].Start {
		spans[at-1].End = spans[at].End
		spans = slices.Delete(spans, at, at+1)
	}
	return spans
}

// alignUp rounds up to the next border of a block.
func alignUp(n int64) int64 { return (n + BlockSize - 1) / BlockSize * BlockSize }

// begin makes c known to those who may end it.
func (p *plan) begin(c *claim, cancel context.CancelCauseFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.cancel = cancel
}

// opened notes that the source has answered for c. Until then it may have waited for its turn at the
// host, or for the network to come back: that is no slowness of c.
func (p *plan) opened(c *claim) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.answered = true
}

// overdue waits while more than limit bytes of b are not durable, so that a power loss never costs
// more. It asks for a durability point when three quarters of the limit are reached.
func (p *plan) overdue(ctx context.Context, b *blob, limit int64) error {
	waiting := b.sink.Unsynced()
	if waiting < limit/4*3 {
		return nil
	}
	select {
	case b.syncNow <- struct{}{}:
	default:
	}
	if waiting < limit {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for b.sink.Unsynced() >= limit && ctx.Err() == nil {
		p.changed.Wait()
	}
	return ctx.Err()
}

func (p *plan) progressOf(b *blob) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return b.progress
}

// honoured notes that a range of b was answered as asked.
func (p *plan) honoured(b *blob, ranged bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ranged {
		b.ranged, b.refused, b.whole = true, 0, false
	}
}

// refusedRange notes that the server ignored c's range, and reports whether c is to skip to its place
// in the whole file. That is so once it is clear that this server honours none, and for one
// connection only.
func (p *plan) refusedRange(c *claim) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := c.blob
	if b.ranged {
		return false
	}
	b.refused++
	if b.refused < 2 {
		return false
	}
	b.whole = true
	return len(b.claims) == 1
}

// retreat halves the connections after a 429 or 5xx: the origin says that they are too many.
func (p *plan) retreat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retreats++
}

// load is what the climb needs to know.
type load struct {
	busy, target, most, retreats int
	answer                       time.Duration
	holding                      time.Duration // what connections have waited so far in the limit that they wait in now
}

func (p *plan) load(now time.Duration) load {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := load{busy: p.busy, target: p.target, most: p.most, retreats: p.retreats, answer: p.answer}
	for _, b := range p.blobs {
		for _, c := range b.claims {
			l.holding += c.held.lasting(now)
		}
	}
	return l
}
