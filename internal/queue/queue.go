// Package queue says who is next, and leads each download through its life.
//
// states.go is that life as a table, order.go is who goes before whom, decide.go what is to be done
// now, control.go what people may ask for, work.go how one download runs. A change of state is stored
// before it is announced, and one that cannot be stored does not happen.
package queue

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/internal/event"
	"ema/internal/model"
)

// together is how many changes are stored at once where many are made: they share commits.
const together = 64

// Settings are how much runs, and in which order. They can be changed at any time.
type Settings struct {
	// Concurrent is how many downloads run at once; default 2.
	Concurrent int
	// Size is how many downloads may be unfinished without running; default 1000.
	Size int
	// Ageing is how long a download waits to count as one priority higher, but never as critical;
	// default 30 min.
	Ageing time.Duration
	// Retry is for downloads that failed as a whole.
	Retry RetryPolicy
}

func (s Settings) withDefaults() Settings {
	s.Concurrent = max(defaultTo(s.Concurrent, 2), 1)
	s.Size = max(defaultTo(s.Size, 1000), 1)
	s.Ageing = max(defaultTo(s.Ageing, 30*time.Minute), 0)
	s.Retry = s.Retry.withDefaults()
	return s
}

// keeper is all the queue needs of the ledger.
type keeper interface {
	Save(ctx context.Context, d model.Download) error
	Download(ctx context.Context, id string) (model.Download, error)
	Downloads(ctx context.Context, states ...model.State) ([]model.Download, error)
	LastOrder(ctx context.Context) (int64, error)
}

// teller is where events go.
type teller interface{ Tell(e event.Event) }

// A Queue holds all unfinished downloads and runs them. Its methods may be called concurrently,
// also before, during and after Run.
type Queue struct {
	keep  keeper
	run   Run
	bus   teller
	nudge chan struct{} // something changed: see what is to be done

	mu        sync.Mutex
	settings  Settings
	line      line
	byID      map[string]*entry
	byKey     map[string]*entry // by what they bring; also those that are being added
	adding    int               // of byKey, those that are not stored yet
	works     map[*work]struct{}
	acting    int // actions that are under way: nothing is decided until they are done
	lastOrder int64
	spaceBack bool // what waits for space is to be queued
}

// An entry is one download. Whoever changes it takes its turn for as long as that is stored and
// told; the queue's lock is held only to look at it and to put it in its new place.
type entry struct {
	key  string
	turn chan struct{} // holds one while somebody changes it

	d    model.Download // under the queue's lock
	work *work          // that runs it, or is about to; under the queue's lock
	gone bool           // it is final, or was never stored; under the turn
}

func newEntry(d model.Download) *entry {
	return &entry{key: keyOf(d), turn: make(chan struct{}, 1), d: d}
}

// take waits for e's turn.
func (e *entry) take(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *entry) give() { <-e.turn }

// New makes an empty queue that brings downloads with run. What was stored before is fetched by Load.
func New(s Settings, keep keeper, run Run, bus teller) *Queue {
	s = s.withDefaults()
	return &Queue{
		keep: keep, run: run, bus: bus, nudge: make(chan struct{}, 1),
		settings: s, line: line{span: s.Ageing},
		byID: map[string]*entry{}, byKey: map[string]*entry{}, works: map[*work]struct{}{},
	}
}

// Load takes up what was unfinished when the ledger was last used, in its old order. What somebody
// paused stays paused; all else is queued again: what ran, what was to be tried later, and what was
// paused by itself, since the reason may be gone. Call it once, before everything else.
func (q *Queue) Load(ctx context.Context) error {
	last, err := q.keep.LastOrder(ctx)
	if err != nil {
		return err
	}
	found, err := q.keep.Downloads(ctx, Unfinished()...)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(together)
	for i := range found {
		d := &found[i]
		if d.State == model.Queued || d.State == model.Paused && d.Pause == model.ByUser {
			continue
		}
		d.State, d.Pause, d.NextTry = model.Queued, "", time.Time{}
		g.Go(func() error { return q.keep.Save(gctx, *d) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lastOrder = max(q.lastOrder, last)
	for _, d := range found {
		e := newEntry(d)
		q.byID[d.ID] = e
		q.line.insert(e)
		if q.byKey[e.key] == nil {
			q.byKey[e.key] = e
		}
	}
	q.wake()
	return nil
}

// Configure changes the settings at once: more start, or the lowest running ones are put back.
func (q *Queue) Configure(s Settings) {
	s = s.withDefaults()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.settings = s
	q.line.age(s.Ageing)
	q.wake()
}

// SpaceBack queues what was paused for lack of space.
func (q *Queue) SpaceBack() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.spaceBack = true
	q.wake()
}

// Sized says how much a download will be, and how much of that is here, before its turn. A download that does not wait any
// more, or whose size is known, stays as it is.
func (q *Queue) Sized(ctx context.Context, id string, size, here model.Bytes) (model.Download, error) {
	return q.amend(ctx, id, func(d *model.Download) {
		if d.Size == 0 {
			d.Size, d.Done = size, here
		}
	})
}

// Short pauses a download that waits, since the space that it needs is not there: why says so. SpaceBack queues it again.
// A download that does not wait any more stays as it is.
func (q *Queue) Short(ctx context.Context, id string, why error) error {
	_, err := q.amend(ctx, id, func(d *model.Download) {
		d.State, d.Pause, d.Reason, d.Class = model.Paused, model.BySpace, why.Error(), model.DiskFull.String()
	})
	return err
}

// amend changes a download if it is queued.
func (q *Queue) amend(ctx context.Context, id string, edit func(*model.Download)) (model.Download, error) {
	q.mu.Lock()
	e := q.byID[id]
	q.mu.Unlock()
	if e == nil {
		return model.Download{}, errMoot
	}
	if err := e.take(ctx); err != nil {
		return model.Download{}, err
	}
	defer e.give()
	return q.change(ctx, e, func(d *model.Download) error {
		if e.gone || d.State != model.Queued {
			return errMoot
		}
		edit(d)
		return nil
	})
}

// List is all unfinished downloads: first those that run, then those that would run next, in that
// order, then those that wait for their next try, then those that are paused.
func (q *Queue) List() []model.Download {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := make([]model.Download, len(q.line.entries))
	for i, e := range q.line.entries {
		all[i] = e.d
	}
	return all
}

// Get is an unfinished download by its id.
func (q *Queue) Get(id string) (model.Download, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e := q.byID[id]; e != nil {
		return e.d, true
	}
	return model.Download{}, false
}

// Find is the first unfinished download of a model's revision, in the order of List. Where none was
// asked for with the revision "", that finds one of any revision.
func (q *Queue) Find(id model.ID, revision string) (model.Download, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var other *entry
	for _, e := range q.line.entries {
		if e.d.Model != id {
			continue
		}
		if e.d.Revision == revision {
			return e.d, true
		}
		if revision == "" && other == nil {
			other = e
		}
	}
	if other == nil {
		return model.Download{}, false
	}
	return other.d, true
}

// wake makes Run look at what is to be done.
func (q *Queue) wake() {
	select {
	case q.nudge <- struct{}{}:
	default: // it will look anyway
	}
}

// change is how everything happens: edit says what becomes of e, that is stored, then it holds, then
// it is told. The caller has e's turn. An error means that nothing changed.
func (q *Queue) change(ctx context.Context, e *entry, edit func(d *model.Download) error) (model.Download, error) {
	q.mu.Lock()
	was := e.d
	q.mu.Unlock()
	d := was
	if err := edit(&d); err != nil {
		return was, err
	}
	if d.State != was.State && !mayFollow(was.State, d.State) {
		return was, &StateError{ID: d.ID, Model: d.Model, Action: "become " + string(d.State), State: was.State, Allowed: Actions(was)}
	}
	if err := ctx.Err(); err != nil {
		return was, err
	}
	// A save that is given up may have happened. Once begun it goes through, so that the ledger and
	// the queue never think differently.
	if err := q.keep.Save(context.WithoutCancel(ctx), d); err != nil {
		return was, err
	}
	follow := q.settle(e, was, d)
	if d.State != was.State || d.Pause != was.Pause {
		q.tell(d, event.KindState, event.Change{From: was.State, To: d.State, Reason: d.Reason, NextTry: d.NextTry})
	}
	if follow != nil && (d.Limit != was.Limit || d.Priority != was.Priority) {
		follow(d)
	}
	return d, nil
}

// settle makes what was stored hold, and returns who follows it.
func (q *Queue) settle(e *entry, was, d model.Download) (follow func(model.Download)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.wake()
	q.line.remove(e)
	if d.Done == was.Done {
		d.Done = e.d.Done // bytes came meanwhile
	}
	e.d = d
	if d.State.Final() {
		e.gone = true
		delete(q.byID, d.ID)
		if q.byKey[e.key] == e {
			delete(q.byKey, e.key)
		}
	} else {
		q.line.insert(e)
	}
	if e.work == nil {
		return nil
	}
	e.work.keepTo(&d)
	if e.work.void {
		return nil
	}
	return e.work.follow
}

func (q *Queue) tell(d model.Download, kind event.Kind, data any) {
	q.bus.Tell(event.Event{Kind: kind, Download: d.ID, Model: d.Model, Data: data})
}

// newID is unique for ever, as far as chance goes.
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	return "dl_" + hex.EncodeToString(b[:])
}
