package throttle

import (
	"context"
	"sync"
	"time"

	"ema/internal/model"
)

const (
	// look is how often facts are asked for while downloads run and adaptive limiting is on.
	look = time.Second
	// longest is how long a Keeper with windows sleeps: timers do not notice that the clock was set or
	// that the machine was suspended.
	longest = time.Minute
)

// Adapt says whether and when the limit steps back.
type Adapt struct {
	Enabled     bool    // look at round trips, and at the load if the next two say so
	MonitorLoad bool    // look at the load of this machine
	Reduce      bool    // act on it
	Threshold   float64 // load from which to act, above 0, at most 1; 0 is 0.8
}

// A Keeper gives a Limiter the limit of a Schedule and of Adaptive: the lower of the two. There may be
// one for a Limiter. It is safe for concurrent use.
type Keeper struct {
	limiter *Limiter
	tell    func(limit model.Bytes, why string)
	changed chan struct{} // holds an element when Run has to look again

	mu       sync.Mutex
	schedule Schedule
	adapt    Adapt
	adaptive Adaptive
	lowered  model.Bytes // by adaptive; 0 when it does not restrict
	because  string
	limit    model.Bytes // that holds
	why      string
}

// NewKeeper makes a Keeper for l, whose limit it alone sets from then on. tell learns of every change;
// it may be nil, must be quick, and must not call the Keeper.
func NewKeeper(l *Limiter, tell func(limit model.Bytes, why string)) *Keeper {
	if tell == nil {
		tell = func(model.Bytes, string) {}
	}
	return &Keeper{limiter: l, tell: tell, changed: make(chan struct{}, 1)}
}

// Configure changes the rules. It acts at once, whether Run runs or not.
func (k *Keeper) Configure(s Schedule, a Adapt) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a != k.adapt {
		k.adapt, k.adaptive = a, Adaptive{Threshold: a.Threshold}
		k.lowered, k.because = 0, ""
	}
	k.schedule = s
	k.apply(time.Now())
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Run keeps the limit until ctx ends, and returns ctx's error. It asks facts, which need not fill in
// Base, once a second while adaptive limiting is on and there are downloads. Otherwise it sleeps until
// the limit changes next, though never for more than a minute while the schedule has windows.
func (k *Keeper) Run(ctx context.Context, facts func() Facts) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-k.changed:
		case <-k.limiter.stirred:
		}
		if wait := k.check(facts); wait > 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
	}
}

// check looks at everything and says when to look again; 0 is when something changes.
func (k *Keeper) check(facts func() Facts) time.Duration {
	adapting := k.adapting()
	var f Facts
	if adapting {
		f = facts() // without the lock: it may take a moment
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	k.lowered, k.because = 0, ""
	if adapting {
		f.Base, _, _ = k.schedule.At(now)
		if !k.adapt.MonitorLoad || !k.adapt.Reduce {
			f.Load = 0
		}
		k.lowered, k.because = k.adaptive.Step(now, f)
	}
	until := k.apply(now)
	switch {
	case adapting:
		return look
	case len(k.schedule.Windows) == 0:
		return 0
	case until.IsZero():
		return longest
	}
	return min(longest, max(1, until.Sub(now)))
}

// adapting reports whether there is something to adapt.
func (k *Keeper) adapting() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.adapt.Enabled && k.limiter.busy()
}

// apply sets the limit that holds now, and returns when the schedule changes it. It is called with the
// lock held.
func (k *Keeper) apply(now time.Time) (until time.Time) {
	limit, why, until := k.schedule.At(now)
	if k.lowered > 0 && (limit == 0 || k.lowered < limit) {
		limit, why = k.lowered, k.because
	}
	if limit != k.limit || why != k.why {
		k.limit, k.why = limit, why
		k.limiter.Set(limit)
		k.tell(limit, why)
	}
	return until
}
