package tier

import (
	"slices"
	"sort"
	"sync"
	"time"

	"ema/internal/model"
)

const (
	// fresh is how long uses are told apart by the minute; later ones of one hour become one figure.
	fresh = 2 * time.Hour
	// crowd is how many figures a model may gather before old ones are put together.
	crowd = 64
)

// Uses counts how often models were used lately, in memory. It is safe for concurrent use.
//
// The uses of a minute are one figure, dated by the last of them, and so are those of an hour once they are two hours old:
// at the edge of a window a use counts at most so much too long, and never too short. What a model takes is bounded by the
// hours that are kept, not by how often it is used.
type Uses struct {
	mu     sync.RWMutex
	models map[model.ID]*history
	keep   time.Duration
}

// A history is the uses of one model.
type history struct {
	last    int64    // the newest use, in nanoseconds since 1970
	figures []figure // by time
	compact int      // how many figures there may be until old ones are put together
}

// A figure is the uses of a minute or an hour.
type figure struct {
	last  int64 // the newest of them
	total int   // uses until then, from the first figure on: a window is one subtraction
}

// NewUses makes an empty count that remembers uses for so long.
func NewUses(keep time.Duration) *Uses { return &Uses{models: map[model.ID]*history{}, keep: keep} }

// Keep changes how long uses are remembered: the longest of all windows that are asked for. What is forgotten already
// does not come back.
func (u *Uses) Keep(keep time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.keep = keep
}

// Record adds n uses of a model at a time, in any order of times. With n = 0 it notes only that the model was used then:
// so Last knows of uses that are too old to count.
func (u *Uses) Record(id model.ID, at time.Time, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	h := u.models[id]
	if h == nil {
		h = &history{last: at.UnixNano(), compact: crowd}
		u.models[id] = h
	}
	h.last = max(h.last, at.UnixNano())
	if n <= 0 {
		return
	}
	h.add(at.UnixNano(), n)
	if len(h.figures) > h.compact {
		h.shrink(u.keep)
		h.compact = 2*len(h.figures) + crowd
	}
}

// Count is how often a model was used since a time.
func (u *Uses) Count(id model.ID, since time.Time) int {
	u.mu.RLock()
	defer u.mu.RUnlock()
	h := u.models[id]
	if h == nil {
		return 0
	}
	return h.since(since.UnixNano())
}

// Last is when a model was last used; the zero time when nothing is known.
func (u *Uses) Last(id model.ID) time.Time {
	u.mu.RLock()
	defer u.mu.RUnlock()
	h := u.models[id]
	if h == nil {
		return time.Time{}
	}
	return time.Unix(0, h.last).UTC()
}

// Frequency is how often a model was used per day, in a window until now.
func (u *Uses) Frequency(id model.ID, now time.Time, window time.Duration) float64 {
	if window <= 0 {
		return 0
	}
	return float64(u.Count(id, now.Add(-window))) / (window.Hours() / 24)
}

// Forget drops what is too old to be asked for, of models too that are no longer used. When a model was last used stays
// known.
func (u *Uses) Forget(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, h := range u.models {
		h.drop(now.Add(-u.keep).UnixNano())
	}
}

// add puts uses where their time belongs. They nearly always are the newest.
func (h *history) add(at int64, n int) {
	i := len(h.figures)
	for i > 0 && h.figures[i-1].last > at {
		i--
	}
	before := 0
	if i > 0 {
		before = h.figures[i-1].total
	}
	switch {
	case i > 0 && sameSpan(h.figures[i-1].last, at, time.Minute):
		i-- // it is the newest of these
		h.figures[i].last = at
	case i < len(h.figures) && sameSpan(h.figures[i].last, at, time.Minute):
		// the figure is dated by a later one already
	default:
		h.figures = slices.Insert(h.figures, i, figure{at, before})
	}
	for ; i < len(h.figures); i++ {
		h.figures[i].total += n
	}
}

// since is the number of uses from a time on.
func (h *history) since(at int64) int {
	i := sort.Search(len(h.figures), func(i int) bool { return h.figures[i].last >= at })
	if i == len(h.figures) {
		return 0
	}
	all := h.figures[len(h.figures)-1].total
	if i == 0 {
		return all
	}
	return all - h.figures[i-1].total
}

// shrink drops what is too old, and puts the older uses of one hour together.
func (h *history) shrink(keep time.Duration) {
	h.drop(h.last - int64(keep))
	young := h.last - int64(fresh)
	kept := h.figures[:0]
	for _, f := range h.figures {
		if n := len(kept); n > 0 && f.last < young && sameSpan(kept[n-1].last, f.last, time.Hour) {
			kept[n-1] = f // its total includes them
			continue
		}
		kept = append(kept, f)
	}
	h.figures = kept
}

// drop forgets the uses before a time.
func (h *history) drop(before int64) {
	gone := sort.Search(len(h.figures), func(i int) bool { return h.figures[i].last >= before })
	if gone == 0 {
		return
	}
	off := h.figures[gone-1].total
	h.figures = append([]figure(nil), h.figures[gone:]...) // a new array: the old one may be much larger
	for i := range h.figures {
		h.figures[i].total -= off
	}
}

// sameSpan reports whether two times lie in the same minute or hour.
func sameSpan(a, b int64, span time.Duration) bool { return a/int64(span) == b/int64(span) }
