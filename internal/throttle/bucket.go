package throttle

import (
	"math"
	"time"

	"ema/internal/model"
)

// A bucket is a budget of bytes that fills at a rate. The zero bucket has no limit.
type bucket struct {
	rate  float64   // bytes per second; 0 is unlimited
	level float64   // bytes that may pass; negative is debt
	at    time.Time // when level was right
	fell  time.Time // when rate became less
}

func newBucket(perSecond model.Bytes) bucket {
	return bucket{rate: float64(max(0, perSecond)), at: time.Now()}
}

// set changes the rate. What was saved under the old rate is lost, and a debt shrinks with the rate:
// else somebody would wait for minutes at a low rate for what took a moment at a high one.
func (b *bucket) set(now time.Time, perSecond model.Bytes) {
	rate := float64(max(0, perSecond))
	if rate == b.rate {
		return
	}
	b.refill(now)
	if b.rate == 0 || rate == 0 {
		b.level = 0
	} else {
		b.level = min(0, b.level*min(1, rate/b.rate))
	}
	if rate > 0 && (b.rate == 0 || rate < b.rate) {
		b.fell = now
	}
	b.rate, b.at = rate, now
}

// refill adds what time has brought, up to the burst.
func (b *bucket) refill(now time.Time) {
	if b.rate == 0 {
		return
	}
	if passed := now.Sub(b.at); passed > 0 {
		b.level = min(b.level+b.rate*passed.Seconds(), b.rate*burst.Seconds())
		b.at = now
	}
}

// wait is how long until somebody may pass.
func (b *bucket) wait() time.Duration {
	if b.rate == 0 || b.level >= 0 {
		return 0
	}
	return time.Duration(min(math.Ceil(-b.level/b.rate*1e9)+1, float64(math.MaxInt64/2)))
}

func (b *bucket) take(n int) {
	if b.rate > 0 {
		b.level -= float64(n)
	}
}
