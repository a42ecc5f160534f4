package trust

import (
	"math"
	"net/http"
	"strconv"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// calls counts how often each caller calls.
type calls struct {
	perMinute, burst int
	of               *lru.Cache[string, *rate.Limiter]
}

func newCalls(perMinute, burst int) (*calls, error) {
	of, err := lru.New[string, *rate.Limiter](mostKnown)
	return &calls{perMinute: perMinute, burst: max(burst, 1), of: of}, err
}

// perSecond is how many calls a caller gets back each second.
func (c *calls) perSecond() float64 { return float64(c.perMinute) / 60 }

// count counts a call, and refuses it when there were too many. The headers say how the caller stands:
// X-RateLimit-Limit calls a minute, -Remaining at once from now on, and -Reset seconds until he has all of them again.
func (c *calls) count(caller string, now time.Time, h http.Header) *Denied {
	l, ok := c.of.Get(caller)
	if !ok {
		l = rate.NewLimiter(rate.Limit(c.perSecond()), c.burst)
		if first, ok, _ := c.of.PeekOrAdd(caller, l); ok {
			l = first
		}
	}
	allowed := l.AllowN(now, 1)
	left := l.TokensAt(now)
	h.Set("X-RateLimit-Limit", strconv.Itoa(c.perMinute))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(max(0, int(left))))
	h.Set("X-RateLimit-Reset", strconv.Itoa(int(math.Ceil((float64(c.burst)-left)/c.perSecond()))))
	if allowed {
		return nil
	}
	return &Denied{
		Status: http.StatusTooManyRequests, Message: "that are more calls than rate_limit.requests_per_minute (" + strconv.Itoa(c.perMinute) + ") allows",
		Hint: "wait as Retry-After says", After: time.Duration((1 - left) / c.perSecond() * float64(time.Second)),
	}
}
