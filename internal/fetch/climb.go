package fetch

import (
	"context"
	"fmt"
	"math"
	"time"
)

// A climber finds how many connections an origin is worth, by trying and looking at the delivered rate.
// It doubles the connections while that brings clearly more. Then it tries more or fewer, with larger
// steps as long as they help, and halves the distance to a number that did not help. So it ends beside
// the number from which an origin breaks down, and looks now and then whether that still holds. It
// decides purely; (*run).climb measures and acts.
type climber struct {
	most   int // the cap
	n      int // connections now
	phase  phase
	base   float64 // rate before the trial, bytes per second; while holding, the smoothed rate
	before int     // connections before the trial
	sum    float64 // of the trial's samples
	looks  int     // how many these are
	hold   int     // samples until the next trial
	calm   int     // hold when there is nothing left to try; grows while nothing changes
	down   bool    // the next trial is downwards
	step   int     // its size; 0: as large as is needed to see an effect
	over   int     // so many connections are not worth it, as far as is known; most+1: unknown
	under  int     // so few are too few; 0: unknown
	low    int     // samples in a row that were a collapse
	noise  float64 // smoothed deviation of samples from base, as a part of it
	fell   bool    // a collapse is not yet understood: what is dropped still burdens the origin when a trial begins
}

type phase uint8

const (
	ramping phase = iota // doubling
	holding
	trying // some more or fewer, to be judged by the next samples
)

const (
	doubled    = 1.3  // twice the connections are kept when the rate grows at least by this
	worthwhile = 0.5  // more are kept when each brings at least this part of what those before bring
	harmless   = 0.3  // fewer are kept when each that went costs at most this part of what those before bring
	unclear    = 0.3  // nearer than this to either, a trial is looked at again,
	mostLooks  = 3    // but not more often,
	noisyLooks = 6    // or not more often than this where rates waver
	noisy      = 0.08 // by so much
	share      = 0.8  // fewer cost their whole share: each connection is capped, and the number that is tried does not matter
	better     = 1.12 // fewer connections that bring so much more: there were too many
	hidden     = 0.3  // a part of connections that is tried is hidden by noise of more than this part of it
	collapse   = 0.7  // below this part of the rate before, lowSamples times: something broke
	lowSamples = 3
	nextTrial  = 2 // samples between two trials while they teach something
	firstHold  = 4 // samples before the first trial: many downloads are over by then
	firstCalm  = 12
	longCalm   = 40
)

// startWith says how many connections to begin with. An origin that takes long to answer is far away,
// where a connection's rate is bounded by its window per round trip: all of them. One that answers at
// once is on this machine or beside it: a few, enough to receive, write and wait at the same time.
func startWith(most int, answer time.Duration) int {
	if answer >= farAfter {
		return most
	}
	return min(few, most)
}

const (
	few      = 4
	farAfter = 15 * time.Millisecond
)

func newClimber(most, start int) *climber {
	return &climber{most: most, n: start, calm: firstCalm, over: most + 1}
}

// limit changes the cap.
func (c *climber) limit(most int) {
	if most == c.most {
		return
	}
	if c.over > min(most, c.most) { // nothing but a cap is in the way
		c.over, c.down, c.step, c.hold = most+1, false, 0, min(c.hold, nextTrial)
	}
	c.most = most
	if c.n > most {
		c.n = most
		c.rest(nextTrial)
	}
}

// sample takes the rate that n connections delivered and returns how many there should be now. full
// tells that there was work for all of them; a sample without it says nothing about the origin.
// retreat tells that the origin asked for less (429, 503).
func (c *climber) sample(rate float64, full, retreat bool) int {
	switch {
	case retreat:
		c.over, c.under = max(c.n, 2), 0
		c.n = max(1, c.n/2)
		c.rest(longCalm)
	case !full:
	case c.phase == ramping:
		c.ramp(rate)
	case c.phase == trying:
		c.judge(rate)
	default:
		c.wait(rate)
	}
	return c.n
}

// rest holds for some samples.
func (c *climber) rest(samples int) { c.phase, c.hold, c.step = holding, samples, 0 }

func (c *climber) ramp(rate float64) {
	switch {
	case c.base > 0 && rate < c.base*doubled:
		c.over, c.n = c.n, c.before
		c.rest(firstHold)
	case c.n == c.most:
		c.base = rate
		c.rest(firstHold)
	default:
		c.before, c.base = c.n, rate
		c.n = min(c.most, 2*c.n)
	}
}

// wait holds still, follows the rate, and begins a trial when its time has come.
func (c *climber) wait(rate float64) {
	if c.low++; rate >= c.base*collapse {
		c.low = 0
	}
	if c.low == lowSamples {
		// The origin or the link broke down under us: what was learnt is void, and fewer may help.
		c.low, c.base, c.hold = 0, rate, 0
		c.over, c.under, c.calm = c.most+1, 0, firstCalm
		c.down, c.step, c.fell = true, max(1, c.n/2), true
	}
	if c.low == 0 && c.base > 0 {
		c.noise += 0.2 * (min(math.Abs(rate/c.base-1), 1) - c.noise)
	}
	if c.low == 0 {
		c.base += 0.3 * (rate - c.base)
	}
	if c.hold--; c.hold <= 0 {
		c.try()
	}
}

// try begins a trial in the direction that is due, or else in the other. When neither can teach anything
// it holds for long, and then doubts both bounds: origins change.
func (c *climber) try() {
	for range 2 {
		if n := c.next(); n != c.n {
			c.before, c.n, c.phase = c.n, n, trying
			c.sum, c.looks = 0, 0
			return
		}
		c.down, c.step = !c.down, 0
	}
	c.rest(c.calm)
	c.calm = min(2*c.calm, longCalm)
	c.over, c.under = c.most+1, 0
	c.down, c.step = false, 1 // beside where the origin broke down a large step would cost much
}

// next is how many connections the next trial in this direction is with; n when there is none.
func (c *climber) next() int {
	step := c.step
	switch {
	case step > 0:
	case c.down && c.noise > noisy:
		step = max(1, c.n/2)
	default:
		step = max(1, c.n/4)
	}
	if !c.down {
		if c.over <= c.most {
			step = (c.over - c.n) / 2
		}
		return min(c.n+step, c.most)
	}
	if c.under > 0 {
		step = (c.n - c.under) / 2
		if c.n-c.under <= c.n/8 {
			step = 0 // a few too many do no harm
		}
	}
	return max(c.n-step, 1)
}

// judge keeps the trial or takes it back, or looks again.
func (c *climber) judge(rate float64) {
	c.sum += rate
	c.looks++
	mean, was := c.sum/float64(c.looks), c.before
	// 0: the rate is as before; 1: it has changed as the number of connections has.
	follows := (mean/c.base - 1) / (float64(c.n)/float64(was) - 1)
	limit, looks := worthwhile, mostLooks
	if c.down {
		limit = harmless
	}
	// A change that hardly stands out of the noise needs more looks, and proves nothing for long.
	wavers := c.noise > noisy || c.noise > hidden*math.Abs(float64(c.n)/float64(was)-1)
	if wavers {
		looks = noisyLooks
	}
	if c.looks < looks && (math.Abs(follows-limit) < unclear || c.fell && c.down) {
		return
	}
	fell := c.fell
	c.fell = false
	c.phase, c.hold = holding, nextTrial
	switch {
	case !c.down && follows < limit:
		c.over, c.n, c.step = c.n, was, 0
		return
	case c.down && follows > limit:
		c.under, c.n, c.step = c.n, was, 0
		if follows > share && !wavers && !fell {
			c.under, c.calm = was-1, longCalm // no trial of fewer would tell more, and each costs what it takes away
		}
		return
	case !c.down:
		c.under, c.step = was, 2*(c.n-was)
	case mean >= c.base*better: // there were too many: the best is between
		c.over, c.down, c.step = was, false, 0
	default:
		c.step = 2 * (was - c.n)
	}
	c.base, c.calm = mean, firstCalm
}

// climb measures the delivered rate and sets how many connections may be busy, until ctx ends.
func (r *run) climb(ctx context.Context) {
	var c *climber
	var retreats int
	sampleEvery := 50 * time.Millisecond
	timer := time.NewTimer(sampleEvery)
	defer timer.Stop()
	received, held, at := r.job.Progress.Received.Load(), time.Duration(0), time.Now()
	dialling := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if r.settings().FixedParallel {
			c, sampleEvery = nil, time.Second
			timer.Reset(sampleEvery)
			continue
		}
		state := r.plan.load(r.since())
		now, bytes := time.Now(), r.job.Progress.Received.Load()
		if c == nil {
			c = newClimber(state.most, state.target)
		}
		c.limit(state.most)
		took := now.Sub(at).Seconds()
		rate := float64(bytes-received) / took
		before := c.n
		// What our own limit holds back says nothing about the origin.
		limited := (r.heldFor(state) - held).Seconds() > 0.1*took*float64(state.busy)
		full := state.busy == min(c.n, state.target) && bytes > received && !dialling && !limited
		dialling = received == 0 // the first bytes' sample has a part in which there were no connections yet
		if n := c.sample(rate, full, state.retreats > retreats); n != before || n != state.target {
			tooSlow := rate < float64(state.busy)*float64(BlockSize) // to end the block that they are in soon
			r.plan.setTarget(n, tooSlow && n < before)
			r.job.Progress.note(fmt.Sprintf("%d connections instead of %d, at %.1f MiB/s", n, before, rate/(1<<20)))
			// New connections take a round trip or two until they deliver: they are not judged before.
			if n > before {
				if err := pause(ctx, min(2*state.answer, time.Second)+5*time.Millisecond); err != nil {
					return
				}
			}
		}
		retreats = state.retreats
		trips := min(2*state.answer, time.Second) // the first answer may have been more work than distance
		switch c.phase {
		case ramping:
			sampleEvery = trips + 50*time.Millisecond
		case trying:
			sampleEvery = trips + 300*time.Millisecond
		case holding:
			sampleEvery = 500 * time.Millisecond
		}
		received, at = r.job.Progress.Received.Load(), time.Now()
		held = r.heldFor(r.plan.load(r.since()))
		timer.Reset(sampleEvery)
	}
}

// heldFor is how long connections have waited in the job's limit, all together.
func (r *run) heldFor(l load) time.Duration { return time.Duration(r.held.Load()) + l.holding }
