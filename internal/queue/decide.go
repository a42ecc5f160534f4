package queue

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/internal/model"
)

// Waits between attempts to store a change, when the ledger fails.
const (
	firstWait = time.Second
	lastWait  = 30 * time.Second
)

// Run runs downloads until ctx ends. Then it starts no more, cancels those that run, waits until
// they have ended, stores them as queued, and returns ctx's error. It does nothing while there is
// nothing to do. Call it once at a time.
func (q *Queue) Run(ctx context.Context) error {
	var works sync.WaitGroup
	defer works.Wait()
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	again := firstWait
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.nudge:
		case <-alarm.C:
		}
		alarm.Stop()
		at, err := q.step(ctx, &works)
		if err != nil && ctx.Err() == nil {
			// Only the ledger refuses. What was to be done still is, as soon as it can.
			alarm.Reset(again)
			again = min(2*again, lastWait)
			continue
		}
		again = firstWait
		if !at.IsZero() {
			alarm.Reset(time.Until(at))
		}
	}
}

// step does all that is to be done now, and says when to look again; zero: when something changes.
func (q *Queue) step(ctx context.Context, works *sync.WaitGroup) (time.Time, error) {
	for ctx.Err() == nil {
		q.mu.Lock()
		todo := q.decide(time.Now())
		if e := todo.start; e != nil {
			w := newWork(ctx, q, e)
			e.work = w
			q.works[w] = struct{}{}
			works.Go(func() { q.work(ctx, w) })
		}
		q.mu.Unlock()
		var err error
		switch {
		case todo.start != nil:
		case todo.putBack != nil:
			err = q.move(ctx, todo.putBack, model.Queued, "", "put back, since fewer downloads may run at once")
		case todo.preempt != nil:
			err = q.move(ctx, todo.preempt, model.Paused, model.ByPreemption, "makes room for a download of critical priority")
		case len(todo.queue) > 0:
			err = q.queueAgain(ctx, todo.queue)
		default:
			return todo.at, nil
		}
		if err != nil {
			return time.Time{}, err
		}
	}
	return time.Time{}, ctx.Err()
}

// A decision is one thing to do; none when all is as it should be.
type decision struct {
	start   *entry    // has the next free place
	putBack *entry    // runs and is one too many
	preempt *entry    // runs where a critical one should
	queue   []*entry  // have waited long enough
	at      time.Time // when to decide again though nothing changes; zero: never
}

// decide looks and changes nothing, but for the note that space is back. The queue's lock is held.
func (q *Queue) decide(now time.Time) decision {
	if q.acting > 0 {
		return decision{}
	}
	if waiting := q.due(now); len(waiting) > 0 {
		return decision{queue: waiting}
	}
	staying, busy := 0, map[string]bool{}
	for w := range q.works {
		busy[w.e.key] = true
		if !w.void {
			staying++
		}
	}
	if staying > q.settings.Concurrent {
		if e := q.lowest(model.CriticalPriority); e != nil {
			return decision{putBack: e}
		}
	}
	var first *entry
	critical := 0
	for _, e := range q.line.ranked(1) {
		if busy[e.key] {
			continue // it is about to run, or what ran it before has not ended yet
		}
		if first == nil {
			first = e
		}
		if e.d.Priority < model.CriticalPriority || critical > q.settings.Concurrent {
			break
		}
		critical++
	}
	if first != nil && len(q.works) < q.settings.Concurrent {
		return decision{start: first}
	}
	// Places that those who were told to stop will leave need not be made again.
	if critical > max(0, q.settings.Concurrent-staying) {
		if e := q.lowest(model.HighPriority); e != nil {
			return decision{preempt: e}
		}
	}
	if later := q.line.ranked(2); len(later) > 0 {
		return decision{at: later[0].d.NextTry}
	}
	return decision{}
}

// lowest is the running one of the lowest priority, up to most, and of these the youngest.
func (q *Queue) lowest(most model.Priority) *entry {
	var low *entry
	for w := range q.works {
		e := w.e
		if w.void || !w.started || e.d.Priority > most {
			continue
		}
		if low == nil || e.d.Priority < low.d.Priority || e.d.Priority == low.d.Priority && e.d.Order > low.d.Order {
			low = e
		}
	}
	return low
}

// due are those whose next try has come, and those who waited for space when that is back.
func (q *Queue) due(now time.Time) (due []*entry) {
	for _, e := range q.line.ranked(2) {
		if e.d.NextTry.After(now) {
			break
		}
		due = append(due, e)
	}
	if !q.spaceBack {
		return due
	}
	before := len(due)
	for _, e := range q.line.ranked(3) {
		if e.d.Pause == model.BySpace {
			due = append(due, e)
		}
	}
	q.spaceBack = len(due) > before // until all of them are queued
	return due
}

// errMoot says that a change is no longer wanted: somebody was faster.
var errMoot = errors.New("moot")

// move takes a running download from its work.
func (q *Queue) move(ctx context.Context, e *entry, to model.State, why model.Pause, reason string) error {
	if err := e.take(ctx); err != nil {
		return err
	}
	defer e.give()
	_, err := q.change(ctx, e, func(d *model.Download) error {
		if e.gone || !running(d.State) {
			return errMoot
		}
		d.State, d.Pause, d.Reason, d.Class = to, why, reason, ""
		return nil
	})
	if errors.Is(err, errMoot) {
		return nil
	}
	return err
}

// queueAgain queues those who waited for a time or for space.
func (q *Queue) queueAgain(ctx context.Context, entries []*entry) error {
	var g errgroup.Group
	g.SetLimit(together)
	for _, e := range entries {
		g.Go(func() error {
			if err := e.take(ctx); err != nil {
				return err
			}
			defer e.give()
			_, err := q.change(ctx, e, func(d *model.Download) error {
				waits := d.State == model.Retrying && !d.NextTry.After(time.Now()) || d.State == model.Paused && d.Pause == model.BySpace
				if e.gone || !waits {
					return errMoot
				}
				d.State, d.Pause, d.NextTry = model.Queued, "", time.Time{}
				return nil
			})
			if errors.Is(err, errMoot) {
				return nil
			}
			return err
		})
	}
	return g.Wait()
}
