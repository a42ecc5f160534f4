package throttle

import (
	"fmt"
	"time"

	"ema/internal/model"
)

// Facts are what Adaptive looks at.
type Facts struct {
	Load   float64       // 0 to 1: the worst of CPU, I/O and memory pressure
	RTT    time.Duration // round trip of the connections now; 0 is unknown
	MinRTT time.Duration // the least of them, when no buffer was full; 0 is unknown
	Rate   model.Bytes   // bytes per second that come now
	Base   model.Bytes   // the limit that would hold otherwise, per second; 0 is none
}

const (
	defaultThreshold = 0.8
	// below is how far under the threshold the load must be for the limit to rise: between the two it
	// stays as it is, or it would swing.
	below = 0.1
	// patience is how long the load must stay on one side before each step; impatience, how long round
	// trips must be long: somebody may be talking over this link.
	patience   = 8 * time.Second
	impatience = 3 * time.Second
	// forgetful is after how long without looking nothing is assumed any more.
	forgetful = time.Minute

	whole      = 100 // parts of the base
	stepUp     = 10
	leastPart  = 10
	leastLimit = model.MiB

	fullRTT  = 2.0 // times the least round trip: some buffer on the way is filled
	fullWait = 30 * time.Millisecond
	freeRTT  = 1.5
	smooth   = 5 * time.Second // over which the rate is averaged
)

// Adaptive lowers the limit in steps while this machine or its link has too much to do, and raises it
// slowly afterwards. It is a pure controller: it reads no clock and is not safe for concurrent use. The
// zero Adaptive has the default threshold.
type Adaptive struct {
	Threshold float64 // load from which it acts, above 0, at most 1; 0 is 0.8

	part   int     // of the base that is allowed, in hundredths, while restricting
	why    string  // of the last step; "" when not restricting
	rate   float64 // bytes per second lately, as it was before restricting
	last   time.Time
	trend  trend
	trends time.Time // since when trend has been what it is
}

// trend is where the facts push.
type trend int

const (
	steady trend = iota
	tooMuch
	free
)

// Step looks at the facts at a time and returns the limit, in bytes per second, and the reason in
// words; 0 and "" when it restricts nothing. It expects to be called about once a second while bytes
// flow; after a longer pause it waits anew for a trend, and after a minute it begins anew.
func (a *Adaptive) Step(now time.Time, f Facts) (limit model.Bytes, why string) {
	passed := now.Sub(a.last)
	if passed < 0 || passed > forgetful {
		*a = Adaptive{Threshold: a.Threshold, rate: float64(f.Rate)}
		passed = 0
	}
	a.last = now
	if a.why == "" && f.Rate > 0 { // what comes while restricted, or waiting, says nothing about what could
		a.rate += (float64(f.Rate) - a.rate) * min(1, passed.Seconds()/smooth.Seconds())
	}

	t, reason := a.judge(f)
	if t != a.trend || passed > patience/2 {
		a.trend, a.trends = t, now
	}
	lasted := now.Sub(a.trends)
	switch {
	case t == tooMuch && (lasted >= patience || lasted >= impatience && full(f)):
		a.down(f, reason)
		a.trends = now
	case t == free && a.why != "" && lasted >= patience:
		a.up()
		a.trends = now
	}
	return a.limit(f)
}

// judge says where the facts push, and why.
func (a *Adaptive) judge(f Facts) (trend, string) {
	threshold := a.Threshold
	if threshold <= 0 || threshold > 1 {
		threshold = defaultThreshold
	}
	switch {
	case f.Load > threshold:
		return tooMuch, fmt.Sprintf("reduced: the load of this machine is %.2f, over %.2f", f.Load, threshold)
	case full(f):
		return tooMuch, fmt.Sprintf("reduced: round trips take %v instead of %v", f.RTT.Round(time.Millisecond), f.MinRTT.Round(time.Millisecond))
	case f.Load < threshold-min(below, threshold/2) && float64(f.RTT) <= max(freeRTT*float64(f.MinRTT), float64(f.MinRTT+fullWait/2)):
		return free, ""
	}
	return steady, ""
}

// full reports whether round trips are so long that some buffer on the way must be full.
func full(f Facts) bool {
	return f.MinRTT > 0 && float64(f.RTT) > fullRTT*float64(f.MinRTT) && f.RTT-f.MinRTT > fullWait
}

func (a *Adaptive) down(f Facts, why string) {
	if a.base(f) == 0 {
		return // nothing comes, so nothing can be reduced
	}
	if a.why == "" {
		a.part = whole
	}
	a.part, a.why = max(a.part*3/4, leastPart), why
}

func (a *Adaptive) up() {
	a.part, a.why = a.part+stepUp, "recovering: this machine and its link have room again"
	if a.part >= whole {
		a.why = ""
	}
}

// base is what steps are parts of: what comes, or the limit when that is less.
func (a *Adaptive) base(f Facts) float64 {
	if base := float64(f.Base); base > 0 && (base < a.rate || a.rate < 1) {
		return base
	}
	return a.rate
}

func (a *Adaptive) limit(f Facts) (model.Bytes, string) {
	if a.why == "" {
		return 0, ""
	}
	limit := max(model.Bytes(a.base(f))*model.Bytes(a.part)/whole, leastLimit)
	if f.Base > 0 && limit >= f.Base {
		return 0, ""
	}
	return limit, a.why
}
