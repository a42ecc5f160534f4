package source

import (
	"net/http"
	"strings"
	"time"
)

// maxAfter bounds what a server may wish for. Hubs count in windows of minutes.
const maxAfter = 24 * time.Hour

// retryAfter is how long a server wants us to wait: the reset of an exhausted RateLimit (IETF draft,
// as hubs send it: `"resolvers";r=0;t=214`), else Retry-After in seconds or as a date. 0 = no wish.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if d := rateLimitReset(strings.Join(h.Values("RateLimit"), ",")); d > 0 {
		return d
	}
	v := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := decimal(v); err == nil && v != "" {
		return clampAfter(n)
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(t.Sub(now), 0), maxAfter)
	}
	return 0
}

// rateLimitReset is the longest reset among the exhausted quotas of a RateLimit header.
func rateLimitReset(h string) (longest time.Duration) {
	eachQuota(h, func(left int64, reset time.Duration) {
		if left == 0 {
			longest = max(longest, reset)
		}
	})
	return longest
}

// eachQuota reads a RateLimit header: how many requests are left, and for how long. One second is added,
// as the hub's own client does: it is given in whole seconds.
func eachQuota(h string, visit func(left int64, reset time.Duration)) {
	for quota := range strings.SplitSeq(h, ",") {
		left, reset := int64(-1), int64(-1)
		for param := range strings.SplitSeq(quota, ";") {
			key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
			n, err := decimal(value)
			if err != nil || value == "" {
				continue
			}
			switch key {
			case "r":
				left = n
			case "t":
				reset = n
			}
		}
		if left >= 0 && reset >= 0 {
			visit(left, min(clampAfter(reset)+time.Second, maxAfter))
		}
	}
}

func clampAfter(seconds int64) time.Duration {
	return time.Duration(min(seconds, int64(maxAfter/time.Second))) * time.Second
}
