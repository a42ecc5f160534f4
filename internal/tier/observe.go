package tier

import (
	"sync"
	"time"

	"ema/internal/model"
)

const (
	// quiet is how long nothing of a model must be opened until the next open is another use: a loader opens many files, many
	// times.
	quiet = time.Minute
	// again is after how long a model that is opened all the time is used once more.
	again = time.Hour
	// slight is the size up to which a file does not stand for its model: tools that only list models read their configuration.
	slight = model.MiB
)

// An Observer makes uses of opened files: all opens of a model's files of which none comes more than a minute after the one
// before are one use, and one more for each hour that they last. Files of at most 1 MiB count only in models that have no larger
// ones. It is safe for concurrent use.
type Observer struct {
	mu     sync.Mutex
	bursts map[model.ID]*burst
}

// A burst is opens of one model that follow each other. In a heavy one the small files do not count.
type burst struct {
	counted, last time.Time
	heavy         bool
}

// NewObserver makes an observer that has seen nothing.
func NewObserver() *Observer { return &Observer{bursts: map[model.ID]*burst{}} }

// Withdraw takes back the last use of a model: it was none.
func (o *Observer) Withdraw(id model.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.bursts, id)
}

// Opened tells of a file of a model that was opened. It reports whether that is a use. Whether the model has files of more than
// 1 MiB it asks larger, unless it knows.
func (o *Observer) Opened(id model.ID, size model.Bytes, larger func() bool, at time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := o.bursts[id]
	going := b != nil && at.Sub(b.last) <= quiet && at.Sub(b.counted) < again
	if size <= slight && (going && b.heavy || !going && larger()) {
		return false
	}
	if going {
		b.last = at
		return false
	}
	for other, b := range o.bursts { // those that are over need no place
		if at.Sub(b.last) > quiet {
			delete(o.bursts, other)
		}
	}
	o.bursts[id] = &burst{at, at, size > slight}
	return true
}
