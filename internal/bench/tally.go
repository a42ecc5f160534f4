package bench

import (
	"cmp"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Kind is the reason why a request counts as an error.
type Kind string

// The kinds of error. Every error has exactly one.
const (
	TimedOut    Kind = "timeout"      // no whole answer in time
	Refused     Kind = "refused"      // nobody listens there
	Broken      Kind = "broken"       // the connection ended before the answer did
	Unconnected Kind = "unconnected"  // no connection for another reason, which the report's examples have
	RateLimited Kind = "rate_limited" // 429
	ClientError Kind = "client_error" // any other 4xx
	ServerError Kind = "server_error" // 5xx
	Unexpected  Kind = "unexpected"   // a redirect, or an answer without what it always has
)

// An outcome is how one request went.
type outcome struct {
	status  int   // of the answer; 0 = none came
	bytes   int64 // of its body
	kind    Kind  // empty = no error
	because string
}

// timed says whether its latency is counted. A connection that fails at once would make the server look fast.
func (o outcome) timed() bool { return o.status > 0 || o.kind == TimedOut }

// statusClass is the key of a status in a report: 429 is apart from the other 4xx, since it is no fault but a rule.
func statusClass(status int) string {
	switch {
	case status == 429:
		return "429"
	case status >= 500:
		return "5xx"
	case status >= 400:
		return "4xx"
	case status >= 300:
		return "3xx"
	case status >= 200:
		return "2xx"
	}
	return "1xx"
}

// What a histogram can tell apart: a thousandth of a latency, from a microsecond to an hour. It takes 188 KiB, however
// many latencies it has seen.
const (
	leastLatency = time.Microsecond
	mostLatency  = time.Hour
	digits       = 3
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(leastLatency), int64(mostLatency), digits)
}

// A tally is what was seen of one endpoint, in the same memory whatever that was.
type tally struct {
	mu        sync.Mutex
	requests  int64
	errors    int64
	bytes     int64
	statuses  map[string]int64
	kinds     map[Kind]int64
	examples  map[Kind]string
	latency   *hdrhistogram.Histogram
	corrected *hdrhistogram.Histogram // nil unless expected is set
	expected  time.Duration           // between two requests of a user, had the server never stalled
	last      time.Time               // when the last request was over
}

// newTally makes an empty tally; expected > 0 also keeps corrected latencies.
func newTally(expected time.Duration) *tally {
	t := &tally{
		statuses: map[string]int64{}, kinds: map[Kind]int64{}, examples: map[Kind]string{},
		latency: newHistogram(), expected: expected,
	}
	if expected > 0 {
		t.corrected = newHistogram()
	}
	return t
}

// add counts one request. It may be called from many goroutines.
func (t *tally) add(o outcome, latency time.Duration, done time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests++
	t.bytes += o.bytes
	if done.After(t.last) {
		t.last = done
	}
	if o.status > 0 {
		t.statuses[statusClass(o.status)]++
	}
	if o.kind != "" {
		t.errors++
		t.kinds[o.kind]++
		if _, known := t.examples[o.kind]; !known && o.because != "" {
			t.examples[o.kind] = o.because
		}
	}
	if !o.timed() {
		return
	}
	ns := int64(min(latency, mostLatency))
	_ = t.latency.RecordValue(ns) //nolint:errcheck // it is within the bounds
	if t.corrected != nil {
		_ = t.corrected.RecordCorrectedValue(ns, int64(t.expected)) //nolint:errcheck // it is within the bounds
	}
}

// seen is how many requests and errors there were until now.
func (t *tally) seen() (requests, errors int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requests, t.errors
}

// merge adds what another tally has seen. Nobody may add to either meanwhile.
func (t *tally) merge(from *tally) {
	t.requests += from.requests
	t.errors += from.errors
	t.bytes += from.bytes
	for class, n := range from.statuses {
		t.statuses[class] += n
	}
	for kind, n := range from.kinds {
		t.kinds[kind] += n
		t.examples[kind] = cmp.Or(t.examples[kind], from.examples[kind])
	}
	t.latency.Merge(from.latency)
	if t.corrected != nil {
		t.corrected.Merge(from.corrected)
	}
	if from.last.After(t.last) {
		t.last = from.last
	}
}
