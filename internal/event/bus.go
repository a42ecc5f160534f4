package event

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// The errors of subscriptions.
var (
	// ErrGone says that events after Want.Since are no longer kept, or that the number is of no event
	// of this bus: look at how everything stands now, and subscribe anew.
	ErrGone = errors.New("the events after that number are no longer kept; read the present state and subscribe anew")
	// ErrSlow says that a subscriber left too many events unread; it may resume by the last number it saw.
	ErrSlow = errors.New("too many events were waiting for this subscriber; resume after the last one seen")
	// ErrClosed says that the subscription was closed.
	ErrClosed = errors.New("the subscription is closed")
)

const defaultKeep = 10_000

// A Bus passes events from those who tell to all who subscribed. It is safe for concurrent use, has no
// goroutine, and keeps the newest events for those who resume.
type Bus struct {
	mu          sync.Mutex
	seq         uint64 // of the newest event
	keep        int
	kept        []Event // a ring: the oldest is at first once it is full
	first       int
	gone        uint64 // resuming needs everything after this number
	subscribers map[*Subscription]struct{}
}

// New makes a bus that keeps the last events, other than progress, for those who resume: keep of them,
// or 10,000 when keep is 0 or less.
//
// Numbers begin with the time in microseconds, not with 1: so they go on growing after a restart, and
// who resumes with a number of the bus before is told ErrGone rather than left with a hole.
func New(keep int) *Bus {
	if keep <= 0 {
		keep = defaultKeep
	}
	begin := uint64(max(0, time.Now().UnixMicro()))
	return &Bus{seq: begin, keep: keep, gone: begin, subscribers: map[*Subscription]struct{}{}}
}

// Tell gives e to all subscribers that want it. It sets Seq and At, and never waits for a listener.
func (b *Bus) Tell(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seq++
	e.Seq, e.At = b.seq, time.Now().UTC()
	if _, fleeting := e.fleeting(); !fleeting {
		b.remember(e)
	}
	for s := range b.subscribers {
		s.offer(e)
	}
}

// Seq is the number of the newest event; before the first one it is the number that begins the bus. It is a
// Want.Since for all that is told from now on.
func (b *Bus) Seq() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seq
}

func (b *Bus) remember(e Event) {
	if len(b.kept) < b.keep {
		b.kept = append(b.kept, e)
		return
	}
	b.gone = b.kept[b.first].Seq
	b.kept[b.first] = e
	b.first = (b.first + 1) % b.keep
}

// Want is what a subscriber asks for. The zero Want is everything from now on.
type Want struct {
	// Since asks for the events after this number first; 0 begins with now. Progress is not repeated.
	Since uint64
	// Filter picks events; nil picks all. It is called while the bus is locked: it must be quick, and
	// must not call the bus.
	Filter func(Event) bool
	// Queue is how many events may wait to be read; default 10,000. Those asked for by Since do not count.
	Queue int
}

// Subscribe begins to collect events for a subscriber, who must Close it. It returns an error that is
// ErrGone when events after w.Since are no longer kept.
func (b *Bus) Subscribe(w Want) (*Subscription, error) {
	if w.Queue <= 0 {
		w.Queue = defaultKeep
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &Subscription{bus: b, filter: w.Filter, progress: map[string]Event{}, ready: make(chan struct{}, 1)}
	if w.Since != 0 {
		if w.Since < b.gone || w.Since > b.seq {
			return nil, fmt.Errorf("resume after event %d: %w", w.Since, ErrGone)
		}
		for i := range b.kept {
			if e := b.kept[(b.first+i)%len(b.kept)]; e.Seq > w.Since && s.wants(e) {
				s.queue = append(s.queue, e)
			}
		}
	}
	s.room = w.Queue + len(s.queue)
	b.subscribers[s] = struct{}{}
	return s, nil
}
