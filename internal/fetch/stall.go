package fetch

import (
	"context"
	"iter"
	"slices"
	"sync/atomic"
	"time"
)

const (
	crawlWindow = 10 // seconds over which a connection is compared with its siblings
	crawlShare  = 5  // slower than this part of the median is crawling
)

// A spell adds up times of one kind. One goroutine begins and ends, others may look. Times are given
// since the job's begin, so that a clock that is set does not matter.
type spell struct{ past, from atomic.Int64 }

func (s *spell) begin(now time.Duration) { s.from.Store(int64(now) + 1) } // never 0, which is none

func (s *spell) end(now time.Duration) {
	s.past.Add(int64(now) + 1 - s.from.Load())
	s.from.Store(0)
}

// lasting is how long the present one lasts.
func (s *spell) lasting(now time.Duration) time.Duration {
	if from := s.from.Load(); from != 0 {
		return max(now+1-time.Duration(from), 0)
	}
	return 0
}

// sum is all time up to now.
func (s *spell) sum(now time.Duration) time.Duration {
	last := s.lasting(now) // before past: what ends in between is counted twice rather than not at all
	return time.Duration(s.past.Load()) + last
}

// A moment is how a claim stood at a second.
type moment struct {
	received int64
	apart    time.Duration // spent so far on other things than waiting for the network
}

// watch looks at all open claims once a second, ends those that crawl or stand still, so that their rest
// is asked for anew over a fresh connection, and adapts the chunk to the rate. It returns when ctx ends.
func (r *run) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	received := r.job.Progress.Received.Load()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.plan.replace(r.since(), r.settings().ReadTimeout)
		now := r.job.Progress.Received.Load()
		for _, c := range r.plan.follow(now - received) {
			r.logChunk(c)
		}
		received = now
	}
}

// replace ends the claims that crawl, and those that no byte came for in patience. It counts the seconds in
// which it was called: when this process was stopped for a while, nobody was silent meanwhile.
func (p *plan) replace(now, patience time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var open []*claim
	for _, b := range p.blobs {
		for _, c := range b.claims {
			if c.answered {
				open = append(open, c)
			}
		}
	}
	for c := range crawling(open, now, p.rate) {
		c.cancel(errCrawls)
	}
	if p.rate == 0 {
		p.rate = firstRate(open) // on a slow network it takes long until the first claim is done
	}
	for _, c := range open {
		if patience > 0 && time.Duration(c.silent)*time.Second >= patience {
			c.cancel(errSilent)
		}
	}
}

// crawling yields the claims that, over the last crawlWindow seconds, were slower than a fifth of what
// their siblings do: the median of those that are open for 2 s at least, or, with too few of them,
// usual, the rate at which connections have delivered so far. One that was kept waiting by us for most of
// that time is not judged. It is to be called once a second, always with all claims.
func crawling(claims []*claim, now time.Duration, usual float64) iter.Seq[*claim] {
	return func(yield func(*claim) bool) {
		var rates []float64
		for _, c := range claims {
			c.look(now)
			if len(c.recent) > 2 {
				rates = append(rates, c.perSecond())
			}
		}
		if len(rates) >= 3 {
			slices.Sort(rates)
			usual = rates[len(rates)/2]
		}
		for _, c := range claims {
			if len(c.recent) <= crawlWindow || c.network() < 0.5 {
				continue
			}
			if c.perSecond()*crawlShare < usual && !yield(c) {
				return
			}
		}
	}
}

// firstRate is the mean rate of the claims that are open for a second at least; 0 when there are none.
func firstRate(claims []*claim) (mean float64) {
	n := 0
	for _, c := range claims {
		if last := len(c.recent) - 1; last > 0 {
			mean += float64(c.recent[last].received-c.recent[0].received) / float64(last)
			n++
		}
	}
	return mean / float64(max(n, 1))
}

// look notes how c stands now.
func (c *claim) look(now time.Duration) {
	m := moment{received: c.received.Load(), apart: c.held.sum(now) + c.away.sum(now)}
	if n := len(c.recent); n > 0 && c.recent[n-1] == m {
		c.silent++
	} else {
		c.silent = 0
	}
	if c.recent = append(c.recent, m); len(c.recent) > crawlWindow+1 {
		c.recent = c.recent[1:]
	}
}

// network is the part of the time that the watch remembers in which c waited for the network.
func (c *claim) network() float64 {
	last := len(c.recent) - 1
	return 1 - (c.recent[last].apart-c.recent[0].apart).Seconds()/float64(last)
}

// perSecond is c's rate over the time that the watch remembers, in bytes per second of waiting for the
// network. Less than half of the time says little about it, and counts as half.
func (c *claim) perSecond() float64 {
	last := len(c.recent) - 1
	return float64(c.recent[last].received-c.recent[0].received) / (float64(last) * max(c.network(), 0.5))
}
