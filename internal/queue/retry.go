package queue

import (
	"errors"
	"math/rand/v2"
	"time"

	"ema/internal/model"
)

// RetryPolicy says how long a download that failed as a whole waits until it is tried again. Retries
// count attempts without progress: one that brought new bytes starts the count again.
type RetryPolicy struct {
	Max      int           // retries without progress; default 5, negative: none
	Base     time.Duration // default 1 s
	Factor   float64       // default 2
	MaxDelay time.Duration // default 300 s
	NoJitter bool
}

func (r RetryPolicy) withDefaults() RetryPolicy {
	r.Max = defaultTo(r.Max, 5)
	r.Base = defaultTo(r.Base, time.Second)
	r.Factor = defaultTo(r.Factor, 2)
	r.MaxDelay = defaultTo(r.MaxDelay, 300*time.Second)
	return r
}

func defaultTo[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// wait is how long to wait before retry n (0 = the first): full jitter of min(Base*Factor^n,
// MaxDelay). What the server asked for wins.
func (r RetryPolicy) wait(n int, err error) time.Duration {
	if e, ok := errors.AsType[*model.Error](err); ok && e.After > 0 {
		return e.After
	}
	d, most := float64(r.Base), float64(r.MaxDelay)
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

// passing reports whether a failure of this class may be over after a while. The fetcher has retried
// each piece by then: this is about a host that is down, or a network.
func passing(c model.Class) bool {
	switch c {
	case model.Timeout, model.Reset, model.Truncated, model.ServerError, model.RateLimited, model.Other:
		return true
	}
	return false
}
