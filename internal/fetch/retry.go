package fetch

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/url"
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
	Adaptive                        Adaptive
}

// Adaptive follows how many of the last attempts at a host succeeded (adaptive_retries).
type Adaptive struct {
	Enabled   bool
	Threshold float64 // part of the attempts that succeed; default 0.8
	Increase  bool    // below the threshold: twice as many retries
	Decrease  bool    // where nearly all succeed: half as many, one at least
}

// nearlyAll is the success rate from which a failure is not expected to pass by waiting long.
const nearlyAll = 0.98

// judge is what an opener may know besides: how many of the last attempts succeeded at the host of err.
// known is false when it has no host or too few attempts were made.
type judge interface {
	SuccessRate(err error) (rate float64, known bool)
}

// at is r for a host where this part of the attempts succeeds.
func (r Retry) at(rate float64) Retry {
	switch a := r.Adaptive; {
	case !a.Enabled || r.Max <= 0:
	case rate < a.Threshold && a.Increase:
		r.Max *= 2
	case rate >= max(nearlyAll, a.Threshold) && a.Decrease:
		r.Max = (r.Max + 1) / 2
	}
	return r
}

// retry is how err is to be answered now.
func (r *run) retry(err error) Retry {
	policy := r.settings().Retry
	if j, ok := r.source.(judge); ok && policy.Adaptive.Enabled {
		if rate, known := j.SuccessRate(err); known {
			return policy.at(rate)
		}
	}
	return policy
}

// hostOf is the host that err is about; empty when it names none.
func hostOf(err error) string {
	e, ok := errors.AsType[*model.Error](err)
	if !ok {
		return ""
	}
	u, perr := url.Parse(e.URL)
	if perr != nil {
		return ""
	}
	return u.Host
}

func (r Retry) withDefaults() Retry {
	r.Max = def(r.Max, 5)
	r.Base = def(r.Base, time.Second)
	r.Factor = def(r.Factor, 2)
	r.MaxDelay = def(r.MaxDelay, 300*time.Second)
	r.Timeout = def(r.Timeout, 30*time.Second)
	r.ServerError = def(r.ServerError, 60*time.Second)
	r.RateLimit = def(r.RateLimit, 120*time.Second)
	r.Adaptive.Threshold = def(r.Adaptive.Threshold, 0.8)
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
	tell := func(err error, _ time.Duration) {
		if note != nil {
			note(err)
		}
	}
	return again(ctx, func(error) Retry { return r }, tell, attempt)
}

// again is Again with a policy that may depend on the failure. tell learns how long is waited.
func again(ctx context.Context, policy func(error) Retry, tell func(error, time.Duration), attempt func(context.Context) error) error {
	var failing attempts
	for {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		wait, final := failing.next(policy(err), nil, 0, err)
		if final != nil {
			return final
		}
		tell(err, wait)
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
