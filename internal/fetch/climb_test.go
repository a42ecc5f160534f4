package fetch

import (
	"math/rand/v2"
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

// A host delivers per bytes per second to each connection, up to link, and breaks down to low when there
// are more than k of them. Its rates waver.
type host struct {
	k              int
	per, link, low float64
	noise          float64 // standard deviation, as a part of the rate
	rand           *rand.Rand
}

func (h *host) honest(n int) float64 {
	if n > h.k {
		return h.low
	}
	return min(float64(n)*h.per, h.link)
}

func (h *host) rate(n int) float64 {
	return h.honest(n) * max(0.1, 1+h.noise*h.rand.NormFloat64())
}

func (h *host) best(most int) (rate float64) {
	for n := 1; n <= most; n++ {
		rate = max(rate, h.honest(n))
	}
	return rate
}

// visit lets a climber work at h for so many seconds, in samples as (*run).climb takes them, and returns
// the mean rate that was delivered and how many connections it had for the most part.
func visit(c *climber, h *host, seconds float64) (mean float64, usual int) {
	times := map[int]float64{}
	for at := 0.0; at < seconds; {
		took := map[phase]float64{ramping: 0.05, trying: 0.3, holding: 0.5}[c.phase]
		n := c.n
		c.sample(h.rate(n), true, false)
		mean += h.honest(n) * took / seconds
		times[n] += took
		at += took
	}
	for n, t := range times {
		if t > times[usual] {
			usual = n
		}
	}
	return mean, usual
}

// Within 30 s the climber has settled where the origin does not break down, and delivers at least nine
// tenths of what the best fixed number would; also after the origin has become worse, or better again.
// Noise may hide for a while what one connection more would bring: of a thousand origins that happens to
// a few.
func TestAnOriginThatBreaksDownAboveSomeConnectionsIsNotOverrun(t *testing.T) {
	const origins = 1000
	missed := 0
	for seed := range uint64(origins) {
		draw := rand.New(rand.NewPCG(2, seed))
		most := []int{8, 12, 16, 24}[draw.IntN(4)]
		h := &host{k: 1 + draw.IntN(most), per: 10e6, link: 1e12, noise: 0.05 * draw.Float64(), rand: draw}
		worse := 0.05 + 0.45*draw.Float64()
		h.low = worse * h.best(h.k)
		c := newClimber(most, []int{min(few, most), most}[draw.IntN(2)])
		settled := func(when string) {
			visit(c, h, 30)
			mean, usual := visit(c, h, 60)
			best := h.best(most)
			if usual > h.k {
				t.Errorf("%d, %s: mostly %d connections, although more than %d are too many", seed, when, usual, h.k)
			}
			if mean < 0.9*best {
				missed++
				t.Logf("%d, %s: mostly %d connections at %.1f MB/s; up to %d are fine, and bring %.1f", seed, when, usual, mean/1e6, h.k, best/1e6)
			}
		}
		settled("at first")
		h.k = 1 + draw.IntN(h.k)
		h.low = min(h.low, worse*h.best(h.k))
		settled("worse")
		h.k += draw.IntN(most - h.k + 1)
		settled("better")
	}
	if missed > origins/200 {
		t.Errorf("%d of %d origins got less than nine tenths", missed, origins)
	}
}

// Where each connection is capped and nothing breaks down, all are used, and trials cost next to nothing.
// On a busy machine, or a link that others use too, rates waver widely. It takes longer then, but the
// origin is left alone all the same for most of the time.
func TestAnOriginThatBreaksDownIsFoundThroughNoise(t *testing.T) {
	bad := 0
	for seed := range uint64(200) {
		h := &host{k: 1 + int(seed%8), per: 10e6, link: 1e12, noise: 0.25, rand: rand.New(rand.NewPCG(5, seed))}
		h.low = 0.2 * h.best(h.k)
		c := newClimber(16, []int{4, 16}[seed%2])
		visit(c, h, 60)
		if mean, _ := visit(c, h, 120); mean < 0.6*h.best(16) {
			bad++
		}
	}
	if bad > 10 {
		t.Errorf("%d of 200 got less than 60 %% of the best rate", bad)
	}
}

func TestTrialsCostLittleWhereAllConnectionsAreOfUse(t *testing.T) {
	for seed := range uint64(50) {
		for _, start := range []int{4, 8} {
			h := &host{k: 1000, per: 20e6, link: 1e12, noise: 0.05, rand: rand.New(rand.NewPCG(2, seed))}
			if mean, _ := visit(newClimber(8, start), h, 12); mean < 0.94*h.best(8) {
				t.Errorf("seed %d, start %d: %.1f MB/s of %.1f", seed, start, mean/1e6, h.best(8)/1e6)
			}
		}
	}
}

// A link that is full with some connections is kept full.
func TestAFullLinkStaysFull(t *testing.T) {
	for seed := range uint64(50) {
		for full := range 16 {
			h := &host{k: 1000, per: 20e6, link: float64(full+1) * 20e6, noise: 0.05, rand: rand.New(rand.NewPCG(3, seed))}
			c := newClimber(16, 4)
			visit(c, h, 10)
			if mean, _ := visit(c, h, 60); mean < 0.88*h.link {
				t.Errorf("seed %d: %.1f MB/s of %.1f", seed, mean/1e6, h.link/1e6)
			}
		}
	}
}

func TestACapThatIsRaisedIsUsedAndOneThatIsLoweredHolds(t *testing.T) {
	h := &host{k: 1000, per: 20e6, link: 1e12, rand: rand.New(rand.NewPCG(4, 4))}
	c := newClimber(8, 8)
	visit(c, h, 20)
	c.limit(2)
	if c.n != 2 {
		t.Fatalf("%d connections although the cap is 2", c.n)
	}
	visit(c, h, 10)
	c.limit(16)
	visit(c, h, 10)
	if c.n != 16 {
		t.Fatalf("%d connections ten seconds after the cap was raised to 16", c.n)
	}
}

func TestTooManyRequestsHalvesAndHolds(t *testing.T) {
	c := newClimber(16, 16)
	c.sample(100, true, false)
	if n := c.sample(100, true, true); n != 8 {
		t.Fatalf("after 429: %d connections, want 8", n)
	}
	for range longCalm - 1 {
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
