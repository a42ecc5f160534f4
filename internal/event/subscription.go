package event

import (
	"cmp"
	"context"
	"slices"
)

// A Subscription collects events for one reader. Close may be called from any goroutine, Next from one
// at a time.
type Subscription struct {
	bus    *Bus
	filter func(Event) bool
	room   int           // most events that may wait
	ready  chan struct{} // holds an element when Next has something to look at

	// All below is the bus's to lock.

	queue    []Event          // what may not be dropped, in order
	progress map[string]Event // the newest progress of each download, of each move and of a benchmark
	err      error            // why no more comes
}

// Next waits until there is at least one event and returns all that wait, in order of their numbers.
// When the reader was too slow it returns what had been collected until then, and ErrSlow the next
// time. It returns ErrClosed after Close, and ctx's cause when ctx ends while it waits.
func (s *Subscription) Next(ctx context.Context) ([]Event, error) {
	for {
		if events, err := s.collect(); len(events) > 0 || err != nil {
			return events, err
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Close ends the subscription, and a Next that waits. Closing twice does no harm.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	s.queue, s.progress = nil, nil
	s.end(ErrClosed)
}

// collect takes all that waits; the error only once nothing does.
func (s *Subscription) collect() ([]Event, error) {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	events := s.queue
	s.queue = nil
	if len(s.progress) > 0 {
		for _, e := range s.progress {
			events = append(events, e)
		}
		clear(s.progress)
		slices.SortFunc(events, func(a, b Event) int { return cmp.Compare(a.Seq, b.Seq) })
	}
	if len(events) > 0 {
		return events, nil
	}
	return nil, s.err
}

// offer puts e where Next finds it. Progress replaces what it makes out of date; anything else that
// finds no room ends the subscription, since it may not be lost and nobody waits for readers.
func (s *Subscription) offer(e Event) {
	if !s.wants(e) {
		return
	}
	if subject, fleeting := e.fleeting(); fleeting {
		if _, waits := s.progress[subject]; waits || len(s.progress) < s.room {
			s.progress[subject] = e
		}
	} else {
		if len(s.queue) >= s.room {
			s.end(ErrSlow)
			return
		}
		s.queue = append(s.queue, e)
	}
	s.wake()
}

func (s *Subscription) wants(e Event) bool { return s.filter == nil || s.filter(e) }

// end lets no more events in. What waits stays to be read: resuming must begin after the last event
// that was, or the bus may no longer keep what is asked for.
func (s *Subscription) end(err error) {
	delete(s.bus.subscribers, s)
	s.err = err
	s.wake()
}

func (s *Subscription) wake() {
	select {
	case s.ready <- struct{}{}:
	default: // it is awake
	}
}
