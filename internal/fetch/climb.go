package fetch

import (
	"context"
	"fmt"
	"time"
)

// A climber finds how many connections an origin is worth, by hill climbing on the delivered rate:
// it doubles the connections while that brings clearly more, steps back when it does not, and looks
// again now and then in both directions. It decides purely; (*run).climb measures and acts.
type climber struct {
	most   int // the cap
	n      int // connections now
	phase  phase
	base   float64 // rate before the trial, bytes per second
	before int     // connections before the trial
	hold   int     // samples until the next trial
	calm   int     // hold after the next quiet trial; grows while nothing changes
	down   bool    // the next trial is downwards
	low    int     // samples in a row that were a collapse
}

type phase uint8

const (
	ramping phase = iota // doubling
	holding
	trying // one step up or down, to be judged by the next sample
)

const (
	worthwhile = 1.12 // a step up is kept when the rate grows at least by this
	doubled    = 1.3  // twice the connections are kept when the rate grows at least by this
	harmless   = 0.97 // a step down is kept when the rate stays at least at this
	collapse   = 0.5  // below this part of the rate before, lowSamples times: far too many connections
	lowSamples = 3
	firstHold  = 30 // samples: a trial costs something, and most downloads are over by then
	longHold   = 80
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
	return &climber{most: most, n: start, calm: firstHold}
}

// sample takes the rate that n connections delivered and returns how many there should be now. full
// tells that there was work for all of them; a sample without it says nothing about the origin.
// retreat tells that the origin asked for less (429, 503).
func (c *climber) sample(rate float64, full, retreat bool) int {
	switch {
	case retreat:
		c.n = max(1, c.n/2)
		c.phase, c.hold, c.calm = holding, longHold, longHold
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

func (c *climber) ramp(rate float64) {
	switch {
	case c.base > 0 && rate < c.base*doubled:
		c.n = c.before
		c.phase, c.hold = holding, c.calm
	case c.n == c.most:
		c.base = rate
		c.phase, c.hold = holding, c.calm
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
	if c.low >= lowSamples && c.n > 1 {
		// The origin or the link broke down under us: find out whether fewer help.
		c.low = 0
		c.before, c.n = c.n, max(1, c.n/2)
		c.base, c.phase = rate, trying
		c.down = true
		return
	}
	if c.low == 0 {
		c.base += 0.3 * (rate - c.base)
	}
	if c.hold--; c.hold > 0 {
		return
	}
	c.before = c.n
	if c.down && c.n > 1 {
		c.n -= max(1, c.n/8) // small: where each connection is capped, a trial costs as much as it takes away
	} else {
		c.n = min(c.most, c.n+max(1, c.n/4))
	}
	if c.n == c.before {
		c.down = !c.down
		c.hold = c.calm
		return
	}
	c.down = c.n < c.before
	c.phase = trying
}

// judge keeps the trial or takes it back.
func (c *climber) judge(rate float64) {
	keep := rate >= c.base*worthwhile
	if c.n < c.before {
		keep = rate >= c.base*harmless
	}
	c.phase = holding
	if keep {
		c.base, c.hold, c.calm = rate, 2, firstHold // go on in this direction soon
		return
	}
	c.n, c.down = c.before, !c.down
	c.calm = min(2*c.calm, longHold)
	c.hold = c.calm
}

// climb measures the delivered rate and sets how many connections may be busy, until ctx ends.
func (r *run) climb(ctx context.Context) {
	most := r.settings.Connections
	var c *climber
	var retreats int
	sampleEvery := 50 * time.Millisecond
	timer := time.NewTimer(sampleEvery)
	defer timer.Stop()
	received, at := r.job.Progress.Received.Load(), time.Now()
	dialling := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		state := r.plan.load()
		now, bytes := time.Now(), r.job.Progress.Received.Load()
		if c == nil {
			c = newClimber(most, state.target)
		}
		rate := float64(bytes-received) / now.Sub(at).Seconds()
		before := c.n
		full := state.busy >= min(c.n, state.target) && bytes > received && !dialling
		dialling = received == 0 // the first bytes' sample has a part in which there were no connections yet
		if n := c.sample(rate, full, state.retreats > retreats); n != before {
			r.plan.setTarget(n)
			r.job.Progress.note(fmt.Sprintf("%d connections instead of %d, at %.1f MiB/s", n, before, rate/(1<<20)))
			// New connections take a round trip or two until they deliver: they are not judged before.
			if n > before {
				sampleEvery = 2*state.answer + 50*time.Millisecond
				if err := pause(ctx, 2*state.answer+5*time.Millisecond); err != nil {
					return
				}
			}
		}
		retreats = state.retreats
		if c.phase == holding {
			sampleEvery = 500 * time.Millisecond
		}
		received, at = r.job.Progress.Received.Load(), time.Now()
		timer.Reset(sampleEvery)
	}
}
