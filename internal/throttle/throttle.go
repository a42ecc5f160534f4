// Package throttle shares one bandwidth budget among all running downloads.
//
// It is the only place where bytes are made to wait. A Limiter is the budget of this machine, a Share
// the part of one download; both may have a limit, and bytes pass when they are within both. What one
// download does not use, the others get. The limit itself follows a Schedule (schedule.go: times of
// the day) and steps back while the machine is busy (adaptive.go); a Keeper (keeper.go) applies both.
package throttle

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ema/internal/model"
)

const (
	// burst is how much unused budget is kept: what a timer that fires late, or a connection that
	// hesitates, may catch up with.
	burst = 50 * time.Millisecond
	// lag is how far a download may fall behind its fair share and still catch up. It makes the
	// shares of one and of sixteen connections equal: a single connection is not always in the queue.
	lag = 100 * time.Millisecond
	// ration is the part of a second that all pieces of a download together may be worth.
	ration = 20 * time.Millisecond
	// transition is how long after a limit fell pieces still come that were read before.
	transition = time.Second

	leastPiece, mostPiece = 4 << 10, 256 << 10
)

// ErrClosed says that a Share was used after its Close.
var ErrClosed = errors.New("the download's share of the bandwidth is closed")

// A Limiter is the budget of all downloads together. It is safe for concurrent use. It has no
// goroutine: one timer is armed while somebody waits.
//
// Budgets are token buckets that may go into debt: whoever comes when there is no debt passes at once,
// however much he brings, and those behind him wait until it is paid. So no bucket has to be as large
// as the largest piece, and none saves up more than the burst. Among the downloads that may pass, the
// one goes first that has had least for its weight.
type Limiter struct {
	mu     sync.Mutex
	node   bucket
	shares []*Share
	weight int         // of all shares
	turn   float64     // the service that shares at the head of the line have had, in bytes per weight
	timer  *time.Timer // nil until somebody has to wait

	rate    atomic.Int64  // as node.rate, to be read without the lock
	stirred chan struct{} // holds an element when the first share came or the last one went
}

// New makes a Limiter without a limit.
func New() *Limiter { return &Limiter{stirred: make(chan struct{}, 1)} }

// Set changes the limit of all downloads together, in bytes per second; 0 or less is unlimited. It
// acts at once, also on those that wait.
func (l *Limiter) Set(perSecond model.Bytes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.shares) == 0 {
		l.node = newBucket(perSecond)
	} else {
		l.node.set(time.Now(), perSecond)
	}
	l.rate.Store(int64(max(0, perSecond)))
	for _, s := range l.shares {
		s.adjust()
	}
	l.serve()
}

// Rate is the limit that holds now, in bytes per second; 0 is unlimited.
func (l *Limiter) Rate() model.Bytes { return model.Bytes(l.rate.Load()) }

// A Share is one download's part of the budget. It is safe for concurrent use by the connections of
// the download.
type Share struct {
	limiter *Limiter
	// limited is false while Take has nothing to look at.
	limited atomic.Bool

	// All below is the limiter's to lock.

	own     bucket
	weight  int
	had     float64 // service so far, in bytes per weight
	passed  int     // how many pieces
	waiting []*waiter
	closed  bool
}

// A waiter is a Take that waits.
type waiter struct {
	bytes  int
	passed bool
	wake   chan struct{} // closed when it passed, or its share was closed; nil when it need not wait
}

// Share adds a download with a limit of its own, in bytes per second; 0 or less is none. Downloads
// that want more than there is get it in proportion to their weights, which are at least 1. The caller
// must Close it.
func (l *Limiter) Share(weight int, perSecond model.Bytes) *Share {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &Share{limiter: l, weight: max(1, weight), had: l.turn, own: newBucket(perSecond)}
	s.adjust()
	l.shares = append(l.shares, s)
	l.weight += s.weight
	if len(l.shares) == 1 {
		l.stir()
	}
	return s
}

// Set changes the download's own limit as Limiter.Set does.
func (s *Share) Set(perSecond model.Bytes) {
	l := s.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	s.own.set(time.Now(), perSecond)
	s.adjust()
	l.serve()
}

// Weigh changes the download's weight, at least 1, for all bytes to come.
func (s *Share) Weigh(weight int) {
	l := s.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	weight = max(1, weight)
	if !s.closed {
		l.weight += weight - s.weight
	}
	s.weight = weight
}

// Close ends the download's part. Those that still wait in Take return ErrClosed. Closing twice does
// no harm.
func (s *Share) Close() {
	l := s.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.limited.Store(true) // so that Take looks
	for _, w := range s.waiting {
		close(w.wake)
	}
	s.waiting = nil
	l.shares = slices.DeleteFunc(l.shares, func(other *Share) bool { return other == s })
	l.weight -= s.weight
	if len(l.shares) == 0 {
		l.stir()
	}
	l.serve()
}

// Take says that n bytes have come, and waits until they are within the budgets of the download and
// the machine. It returns nil at once while there is no limit, ErrClosed after Close, and ctx's cause
// when ctx ends while it waits; bytes that did not pass take nothing from the budgets.
func (s *Share) Take(ctx context.Context, n int) error {
	if !s.limited.Load() || n <= 0 {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w := &waiter{bytes: n}
	if err := s.join(w); w.wake == nil {
		return err
	}
	select {
	case <-w.wake:
		return s.leave(w, ErrClosed)
	case <-ctx.Done():
		return s.leave(w, context.Cause(ctx))
	}
}

// join puts w behind the other connections of its download. It leaves w.wake nil when there is nothing
// to wait for.
func (s *Share) join(w *waiter) error {
	l := s.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	w.bytes = s.fair(w.bytes)
	s.waiting = append(s.waiting, w)
	l.serve()
	if !w.passed {
		w.wake = make(chan struct{})
	}
	return nil
}

// leave takes w out of the queue unless it passed, and otherwise returns why.
func (s *Share) leave(w *waiter, why error) error {
	l := s.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.passed {
		return nil
	}
	if i := slices.Index(s.waiting, w); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		l.serve() // perhaps nobody is left to wait for
	}
	return why
}

// Piece is how many bytes a connection should read at once, at most `most`, for the limit to hold
// smoothly: a part of what the download gets in 20 ms, between 4 and 256 KiB. It is most while there is
// no limit.
func (s *Share) Piece(most int) int {
	if !s.limited.Load() {
		return most
	}
	s.limiter.mu.Lock()
	defer s.limiter.mu.Unlock()
	return min(s.piece(), most)
}

func (s *Share) piece() int {
	rate := math.Inf(1)
	if s.own.rate > 0 {
		rate = s.own.rate
	}
	if node := s.limiter.node.rate; node > 0 {
		rate = min(rate, node*float64(s.weight)/float64(s.contested()))
	}
	piece := rate * ration.Seconds() / float64(len(s.waiting)+1)
	// How many connections there are shows when they wait: the first pieces are small.
	piece = min(piece, float64(leastPiece)*float64(s.passed+1))
	return int(min(max(piece, leastPiece), mostPiece)) &^ (leastPiece - 1)
}

// contested is the weight of s and of all other downloads that wait for bytes.
func (s *Share) contested() int {
	sum := s.weight
	for _, other := range s.limiter.shares {
		if other != s && len(other.waiting) > 0 {
			sum += other.weight
		}
	}
	return sum
}

// fair is what n bytes that have come cost. Shortly after a limit fell, pieces still come that were
// read under the one before; at their full price, connections would stand still for seconds to pay for
// what was allowed when they began.
func (s *Share) fair(n int) int {
	if l := s.limiter; time.Since(l.node.fell) < transition || time.Since(s.own.fell) < transition {
		return min(n, s.piece())
	}
	return n
}

// adjust follows a change of limits.
func (s *Share) adjust() {
	s.limited.Store(s.closed || s.own.rate > 0 || s.limiter.node.rate > 0)
	for _, w := range s.waiting {
		w.bytes = s.fair(w.bytes)
	}
	// The last piece, too, may have been large: the others need not get as much before the next one.
	s.had = min(s.had, s.limiter.turn+float64(s.piece())/float64(s.weight))
}

// serve lets all pass that may, and arms the timer for the next one. It is called with the lock held,
// whenever a budget, a queue or the time has changed.
func (l *Limiter) serve() {
	now := time.Now()
	l.node.refill(now)
	for {
		s, wait := l.next(now)
		if s == nil || wait > 0 {
			l.arm(s, wait)
			return
		}
		l.pass(s)
	}
}

// next is the download whose first connection is to pass next, and how long until then; nil when
// nobody waits. Of those that may pass now it is the one that has had least for its weight.
func (l *Limiter) next(now time.Time) (next *Share, wait time.Duration) {
	for _, s := range l.shares {
		if len(s.waiting) == 0 {
			continue
		}
		// Service that a download did not want, or that its own limit forbade, is not saved up.
		s.had = max(s.had, l.turn-l.tolerated())
		s.own.refill(now)
		w := s.own.wait()
		if next == nil || w < wait || w == wait && s.had < next.had {
			next, wait = s, w
		}
	}
	return next, max(wait, l.node.wait())
}

// tolerated is how far behind a download may be, in bytes per weight.
func (l *Limiter) tolerated() float64 { return l.node.rate * lag.Seconds() / float64(l.weight) }

// pass lets the first connection of s go on.
func (l *Limiter) pass(s *Share) {
	w := s.waiting[0]
	s.waiting = slices.Delete(s.waiting, 0, 1)
	l.node.take(w.bytes)
	s.own.take(w.bytes)
	l.turn = max(l.turn, s.had)
	s.had += float64(w.bytes) / float64(s.weight)
	s.passed++
	w.passed = true
	if w.wake != nil {
		close(w.wake)
	}
}

// arm sees to it that serve is called after wait, and not at all when nobody waits.
func (l *Limiter) arm(next *Share, wait time.Duration) {
	switch {
	case next == nil && l.timer != nil:
		l.timer.Stop()
	case next != nil && l.timer == nil:
		l.timer = time.AfterFunc(wait, l.ring)
	case next != nil:
		l.timer.Reset(wait)
	}
}

// ring is what the timer calls.
func (l *Limiter) ring() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve()
}

// stir tells the Keeper that downloads begin or that none is left.
func (l *Limiter) stir() {
	select {
	case l.stirred <- struct{}{}:
	default:
	}
}

// busy reports whether there are downloads.
func (l *Limiter) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.shares) > 0
}
