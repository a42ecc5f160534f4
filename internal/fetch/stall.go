package fetch

import (
	"context"
	"iter"
	"slices"
	"time"
)

const (
	crawlWindow = 10 // seconds over which a connection is compared with its siblings
	crawlShare  = 5  // slower than this part of the median is crawling
)

// watch looks at all open claims once a second and ends those that crawl, so that their rest is asked
// for anew over a fresh connection. (One that stands still is ended by the source, after ReadTimeout.)
// It returns when ctx ends.
func (r *run) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.plan.replaceCrawling()
		}
	}
}

func (p *plan) replaceCrawling() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*claim
	for _, b := range p.blobs {
		all = append(all, b.claims...)
	}
	for c := range crawling(all, p.rate) {
		c.cancel(errCrawls)
	}
}

// crawling yields the claims that, over the last crawlWindow seconds, were slower than a fifth of what
// their siblings do: the median of those that are open for 2 s at least, or, with too few of them,
// usual, the rate at which connections have delivered so far. It is to be called once a second, always
// with all claims.
func crawling(claims []*claim, usual float64) iter.Seq[*claim] {
	return func(yield func(*claim) bool) {
		var rates []float64
		for _, c := range claims {
			if c.cancel == nil {
				continue // its request has not been sent yet
			}
			if c.recent = append(c.recent, c.received.Load()); len(c.recent) > crawlWindow+1 {
				c.recent = c.recent[1:]
			}
			if len(c.recent) > 2 {
				rates = append(rates, c.perSecond())
			}
		}
		if len(rates) >= 3 {
			slices.Sort(rates)
			usual = rates[len(rates)/2]
		}
		for _, c := range claims {
			if c.cancel == nil || len(c.recent) <= crawlWindow {
				continue
			}
			if c.perSecond()*crawlShare < usual && !yield(c) {
				return
			}
		}
	}
}

// perSecond is c's rate over the time that the watch remembers, in bytes per second.
func (c *claim) perSecond() float64 {
	last := len(c.recent) - 1
	return float64(c.recent[last]-c.recent[0]) / float64(last)
}
