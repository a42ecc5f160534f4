package fetch

import (
	"testing"
	"time"
)

// settle lets a climber run against an origin that delivers rate(n) to n connections.
func settle(most, start, samples int, rate func(n int) float64) (c *climber, trace []int) {
	c = newClimber(most, start)
	for range samples {
		n := c.sample(rate(c.n), true, false)
		trace = append(trace, n)
	}
	return c, trace
}

func TestClimbingReachesTheCapWhereEachConnectionIsCapped(t *testing.T) {
	_, trace := settle(16, 2, 4, func(n int) float64 { return float64(n) * 20e6 })
	if trace[3] != 16 {
		t.Fatalf("after 4 samples %v, want 16", trace)
	}
}

func TestMoreConnectionsThatBringNothingAreGivenBack(t *testing.T) {
	_, trace := settle(16, 2, 300, func(int) float64 { return 1e9 })
	if trace[1] > 2 {
		t.Fatalf("began %v, want the first doubling taken back", trace[:3])
	}
	if last := trace[len(trace)-1]; last > 2 {
		t.Fatalf("ended at %d connections although 1 is as fast", last)
	}
}

// An origin that collapses above K connections: most of the time is spent at K or below, at nearly
// the best rate.
func TestAnOriginThatCollapsesIsNotOverrun(t *testing.T) {
	const k = 6
	rate := func(n int) float64 {
		if n > k {
			return 1e6
		}
		return float64(n) * 50e6
	}
	c := newClimber(16, 16)
	var sum float64
	for i := range 300 {
		n := c.sample(rate(c.n), true, false)
		if i >= 60 { // 30 s of half-second samples
			sum += rate(n) / 240
		}
	}
	if best := rate(k); sum < 0.8*best {
		t.Fatalf("mean %.0f MB/s, the best setting gives %.0f", sum/1e6, best/1e6)
	}
}

func TestTooManyRequestsHalvesAndHolds(t *testing.T) {
	c := newClimber(16, 16)
	c.sample(100, true, false)
	if n := c.sample(100, true, true); n != 8 {
		t.Fatalf("after 429: %d connections, want 8", n)
	}
	for range longHold - 1 {
		if n := c.sample(100, true, false); n > 8 {
			t.Fatalf("rose to %d at once after 429", n)
		}
	}
}

func TestASampleWithoutEnoughWorkSaysNothing(t *testing.T) {
	c := newClimber(16, 4)
	for range 100 {
		if n := c.sample(1, false, false); n != 4 {
			t.Fatalf("changed to %d for lack of work", n)
		}
	}
}

func TestFarOriginsBeginAtTheCap(t *testing.T) {
	for answer, want := range map[time.Duration]int{0: 4, time.Millisecond: 4, 60 * time.Millisecond: 16} {
		if n := startWith(16, answer); n != want {
			t.Errorf("answer after %v: begin with %d, want %d", answer, n, want)
		}
	}
}
