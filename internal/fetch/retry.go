package fetch

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"ema/internal/model"
)

// Retry is how failures are answered (retry_optimization). Retries count attempts without progress:
// an attempt that brought new bytes starts the count again.
type Retry struct {
	Max      int           // attempts without progress after the first; default 5, negative: none
	Base     time.Duration // default 1 s
	Factor   float64       // default 2
	MaxDelay time.Duration // default 300 s
	NoJitter bool
	// Ceilings of the backoff for classes of failure; defaults 30, 60, 120 s.
	Timeout, ServerError, RateLimit time.Duration
}

func (r Retry) withDefaults() Retry {
	r.Max = def(r.Max, 5)
	r.Base = def(r.Base, time.Second)
	r.Factor = def(r.Factor, 2)
	r.MaxDelay = def(r.MaxDelay, 300*time.Second)
	r.Timeout = def(r.Timeout, 30*time.Second)
	r.ServerError = def(r.ServerError, 60*time.Second)
	r.RateLimit = def(r.RateLimit, 120*time.Second)
	return r
}

// policy is what is done about one class of failure.
type policy struct {
	retry   bool
	ceiling time.Duration // of the delay
	first   time.Duration // the delay of the first retry before jitter; 0: Base
}

// of is the one table of error classes.
func (r Retry) of(c model.Class) policy {
	switch c {
	case model.Timeout:
		return policy{retry: true, ceiling: r.Timeout}
	case model.Reset, model.Truncated, model.Other:
		return policy{retry: true, ceiling: r.Timeout}
	case model.ServerError:
		return policy{retry: true, ceiling: r.ServerError}
	case model.RateLimited:
		return policy{retry: true, ceiling: r.RateLimit, first: r.RateLimit / 8}
	case model.RangeRefused, model.Integrity:
		return policy{retry: true, ceiling: r.Base}
	case model.Expired:
		return policy{retry: true, ceiling: r.Base / 10} // the source renews its link at the next attempt
	case model.Auth, model.NotFound, model.Usage, model.Busy, model.Offline:
		return policy{} // asking again gives the same answer
	case model.DiskFull, model.DiskError, model.Cancelled:
		return policy{} // not the network's fault
	}
	return policy{}
}

// delay is how long to wait before retry n (0 = the first): full jitter of min(first*factor^n,
// ceiling, MaxDelay). What the server asked for wins over all of it.
func (r Retry) delay(c model.Class, n int, asked time.Duration) time.Duration {
	if asked > 0 {
		return asked
	}
	p := r.of(c)
	d := float64(def(p.first, r.Base))
	most := float64(min(p.ceiling, r.MaxDelay))
	for range n {
		if d *= r.Factor; d >= most {
			break
		}
	}
	d = min(d, most)
	if !r.NoJitter {
		d *= rand.Float64()
	}
	return time.Duration(d)
}

// Again calls attempt until it succeeds, fails for good, or has failed Max times after the first.
// It serves calls that bring a whole answer or nothing, such as resolving a revision.
func (r Retry) Again(ctx context.Context, note func(error), attempt func(context.Context) error) error {
	r = r.withDefaults()
	var failing attempts
	for {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		wait, final := failing.next(r, nil, 0, err)
		if final != nil {
			return final
		}
		if note != nil {
			note(err)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// attempts counts one connection's failures in a row. The zero value is ready for use.
type attempts struct {
	n        int
	on       any    // the file that failed
	progress uint64 // that file's progress at the last failure: others' progress counts too
}

// progressed notes that n bytes came: whatever failed before, this works now.
func (a *attempts) progressed(n int64) {
	if n > 0 {
		a.n = 0
	}
}

// next says how long to wait before the next attempt, or returns err as final.
func (a *attempts) next(r Retry, on any, progress uint64, err error) (time.Duration, error) {
	if a.on != on || a.progress != progress {
		a.n = 0
	}
	a.on, a.progress = on, progress
	class := model.ClassOf(err)
	if !r.of(class).retry || a.n >= r.Max {
		return 0, err
	}
	var asked time.Duration
	if e, ok := errors.AsType[*model.Error](err); ok {
		asked = e.After
	}
	d := r.delay(class, a.n, asked)
	a.n++
	return d, nil
}
