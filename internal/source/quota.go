package source

import (
	"net/http"
	"strings"
	"time"
)

// A quota is how many more requests of one kind a host takes before it begins to refuse, as the
// RateLimit header of its answers says. Whoever heeds it is never refused.
type quota struct {
	left  int64     // beyond those that it has counted
	until time.Time // when it begins anew; past: nothing is known
	asked int64     // requests that are on their way, which left does not count yet
}

// spent is how long no further request should go; 0 = one may.
func (q *quota) spent(now time.Time) time.Duration {
	if wait := q.until.Sub(now); q.left <= q.asked && wait > 0 && wait <= maxHold {
		return wait
	}
	return 0
}

// heard takes what an answer says. Answers overtake each other: within one window the smallest figure
// is the newest.
func (q *quota) heard(h http.Header, now time.Time) {
	left, reset, ok := rateLimit(strings.Join(h.Values("RateLimit"), ","))
	if !ok {
		return
	}
	until := now.Add(reset)
	if gap := until.Sub(q.until); gap > 2*time.Second || left < q.left {
		q.left = left
	}
	q.until = until
}

// rateLimit is the tightest quota of a RateLimit header.
func rateLimit(h string) (least int64, reset time.Duration, ok bool) {
	eachQuota(h, func(left int64, r time.Duration) {
		if !ok || left < least {
			least, reset, ok = left, r, true
		}
	})
	return least, reset, ok
}
