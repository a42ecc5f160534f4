package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Observe counts the answer to a request: the operation by its id, of which there are a few dozen and which is empty where
// there is none, the status and the time that it took. What cannot be the id of an operation, such as a path, counts as
// "other". It does not wait for anybody, and allocates nothing but for what it has never seen.
func (m *Metrics) Observe(operation string, status int, took time.Duration) {
	m.operations.get(series{operation, classOf(status)}).Observe(max(0, took.Seconds()))
}

// ObserveDatabase counts an operation of the database, such as "save", of which there are a few, and the time it took. It
// costs as little as Observe.
func (m *Metrics) ObserveDatabase(operation string, took time.Duration) {
	m.database.get(series{operation: operation}).Observe(max(0, took.Seconds()))
}

// What labels say where there is nothing to say, or nothing that may be said.
const (
	none  = "none"
	other = "other"
)

// A series is what the labels of a histogram say.
type series struct{ operation, status string }

// observers find the histogram of a series without a lock, since all requests pass here. New series are rare, and there
// are few, so the map is copied for each. The vectors of client_golang would do, for an allocation and a hash each time.
type observers struct {
	known atomic.Pointer[map[series]prometheus.Observer]
	most  int // operations

	adding     sync.Mutex
	operations map[string]bool
	create     func(series) prometheus.Observer
}

func newObservers(most int, create func(series) prometheus.Observer) *observers {
	o := &observers{most: most, operations: map[string]bool{}, create: create}
	o.known.Store(&map[series]prometheus.Observer{})
	return o
}

func (o *observers) get(s series) prometheus.Observer {
	if s.operation == "" {
		s.operation = none
	}
	if found, ok := (*o.known.Load())[s]; ok {
		return found
	}
	return o.add(s)
}

// add makes the histogram of a series, or finds that of "other" when the operation is none.
func (o *observers) add(s series) prometheus.Observer {
	o.adding.Lock()
	defer o.adding.Unlock()
	if !o.operations[s.operation] {
		if len(o.operations) < o.most && isOperation(s.operation) {
			o.operations[s.operation] = true
		} else {
			s.operation = other
		}
	}
	known := *o.known.Load()
	if found, ok := known[s]; ok {
		return found
	}
	known = maps.Clone(known)
	known[s] = o.create(s)
	o.known.Store(&known)
	return known[s]
}

// isOperation reports whether s has the form of an id: a few lower-case words with "-" or "_" in between.
func isOperation(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 64
}

func classOf(status int) string {
	switch status / 100 {
	case 1:
		return "1xx"
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	case 5:
		return "5xx"
	}
	return other
}
