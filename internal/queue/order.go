package queue

import (
	"cmp"
	"slices"
	"time"

	"ema/internal/model"
)

// rank groups downloads: those that run, those that would as soon as there is room, those that wait
// for a time, those that wait for somebody.
func rank(d *model.Download) int {
	switch {
	case running(d.State):
		return 0
	case d.State == model.Queued, d.State == model.Paused && d.Pause == model.ByPreemption:
		return 1
	case d.State == model.Retrying:
		return 2
	}
	return 3
}

// compare orders downloads as they would run.
//
// Ageing raises a download by one priority for each span it has waited. All age alike, so which of
// two is ahead never changes while they wait: it is as if each had arrived that many spans earlier as
// it has priority. Hence the line stays sorted as time passes, and nobody can be overtaken for ever.
// Critical ones are ahead of all others, of whatever age.
func compare(a, b *model.Download, span time.Duration) int {
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	if a.State == model.Retrying {
		if c := a.NextTry.Compare(b.NextTry); c != 0 {
			return c
		}
	}
	critical := func(d *model.Download) int {
		if d.Priority >= model.CriticalPriority {
			return 0
		}
		return 1
	}
	arrival := func(d *model.Download) time.Time { return d.Created.Add(-time.Duration(d.Priority) * span) }
	return cmp.Or(
		cmp.Compare(critical(a), critical(b)),
		arrival(a).Compare(arrival(b)),
		cmp.Compare(a.Order, b.Order),
		cmp.Compare(a.ID, b.ID),
	)
}

// A line is all unfinished downloads in the order in which they would run.
type line struct {
	span    time.Duration // of ageing
	entries []*entry
}

func (l *line) compare(a, b *entry) int { return compare(&a.d, &b.d, l.span) }

func (l *line) insert(e *entry) {
	at, _ := slices.BinarySearchFunc(l.entries, e, l.compare)
	l.entries = slices.Insert(l.entries, at, e)
}

// remove takes e out; its record must be as it was when it was inserted, but for what has no part in
// the order.
func (l *line) remove(e *entry) {
	if at, found := slices.BinarySearchFunc(l.entries, e, l.compare); found {
		l.entries = slices.Delete(l.entries, at, at+1)
	}
}

// age sorts anew for another span of ageing.
func (l *line) age(span time.Duration) {
	if l.span != span {
		l.span = span
		slices.SortFunc(l.entries, l.compare)
	}
}

// ranked are the entries of a rank, in order. The slice is the line's own.
func (l *line) ranked(r int) []*entry {
	begin := func(r int) int {
		at, _ := slices.BinarySearchFunc(l.entries, r, func(e *entry, r int) int { return cmp.Compare(rank(&e.d), r) })
		return at
	}
	return l.entries[begin(r):begin(r+1)]
}
