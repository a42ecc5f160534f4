package bench

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// A turn is one request that is to be made.
type turn struct {
	call     call
	due      time.Time // when it should leave: from here its latency counts
	measured bool      // false while warming up
}

// A schedule hands out turns. It never runs ahead of need, so it takes no memory however long a test is: with a constant
// rate a turn that nobody has taken yet keeps the time at which it was due.
type schedule struct {
	start, warm, end time.Time // end is zero when only the number of requests bounds the test
	rate             float64   // turns per second; 0 = whenever somebody asks
	requests         int64     // measured turns in all; 0 = no bound

	mu       sync.Mutex
	warmup   *deck // apart, so that what is measured begins with a whole round
	measured *deck
	slots    int64 // handed out
	counted  int64 // of them measured
}

func newSchedule(s LoadSettings, m Mix, now time.Time) *schedule {
	sch := &schedule{
		start: now, warm: now.Add(s.Warmup), rate: s.Rate, requests: s.Requests,
		warmup:   newDeck(m, rand.New(rand.NewPCG(s.Seed, 1))),
		measured: newDeck(m, rand.New(rand.NewPCG(s.Seed, 2))),
	}
	if s.Duration > 0 {
		sch.end = sch.warm.Add(s.Duration)
	}
	return sch
}

// next is the next turn; false when the test is over. What is due at or after the end, or was not taken before it, is
// never handed out.
func (s *schedule) next(now time.Time) (turn, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := now
	if s.rate > 0 {
		due = s.dueAt(s.slots)
	}
	if !s.end.IsZero() && (!now.Before(s.end) || !due.Before(s.end)) || s.requests > 0 && s.counted == s.requests {
		return turn{}, false
	}
	s.slots++
	if due.Before(s.warm) {
		return turn{s.warmup.deal(), due, false}, true
	}
	s.counted++
	return turn{s.measured.deal(), due, true}, true
}

// dueAt is when a slot of a constant rate is due. It counts from the start, so that rounding never adds up.
func (s *schedule) dueAt(slot int64) time.Time {
	return s.start.Add(time.Duration(math.Round(float64(slot) / s.rate * float64(time.Second))))
}

// missed is how many measured turns were due before now and were never handed out. It asks after the test.
func (s *schedule) missed(now time.Time) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rate == 0 {
		return 0
	}
	if !s.end.IsZero() && now.After(s.end) {
		now = s.end
	}
	first := s.slotsBefore(s.warm)
	due := s.slotsBefore(now) - first
	if s.requests > 0 {
		due = min(due, s.requests)
	}
	return max(due-s.counted, 0)
}

// slotsBefore is how many slots are due before t.
func (s *schedule) slotsBefore(t time.Time) int64 {
	n := int64(math.Ceil(t.Sub(s.start).Seconds() * s.rate))
	for n > 0 && !s.dueAt(n-1).Before(t) { // a slot is due at a whole nanosecond, n is not
		n--
	}
	for s.dueAt(n).Before(t) {
		n++
	}
	return max(n, 0)
}

// planned is how long the measured part was meant to be at least; 0 when nobody can say.
func (s *schedule) planned() time.Duration {
	switch {
	case s.requests > 0 && s.counted == s.requests && s.rate > 0:
		return time.Duration(float64(s.requests) / s.rate * float64(time.Second))
	case s.requests > 0 && s.counted == s.requests || s.end.IsZero():
		return 0
	}
	return s.end.Sub(s.warm)
}
