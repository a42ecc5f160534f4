package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/internal/event"
	"ema/internal/model"
)

// ErrFull is in the error of Add when as many downloads wait as may.
var ErrFull = errors.New("the queue is full")

// whenFull is how long whoever found the queue full should wait.
const whenFull = 10 * time.Second

// All stands for all downloads that an action may be done with.
const All = "*"

// Add queues a download of d's model, revision and patterns, with its priority, limit, connections
// and retries. It returns when that is stored. Where the same is unfinished already, it answers with
// that one and true, raises its priority if d's is higher, and changes nothing else: what is paused
// stays paused. A full queue is an error of Class RateLimited that is ErrFull.
func (q *Queue) Add(ctx context.Context, d model.Download) (model.Download, bool, error) {
	if err := check(d); err != nil {
		return model.Download{}, false, &model.Error{Op: "queue", Class: model.Usage, Model: d.Model, Err: err}
	}
	for {
		e, mine, err := q.reserve(d)
		switch {
		case err != nil:
			return model.Download{}, false, err
		case mine:
			d, err := q.enter(ctx, e)
			return d, false, err
		}
		if d, err := q.raise(ctx, e, d.Priority); !errors.Is(err, errMoot) {
			return d, true, err
		} // it ended just now, or could not be stored by who added it
	}
}

// check says what is wrong with a request.
func check(d model.Download) error {
	switch {
	case d.Model.IsZero():
		return errors.New("no model is named; name one")
	case d.Limit < 0:
		return fmt.Errorf("a limit of %d bytes per second; want 0 (none) or more", d.Limit)
	case d.Connections < 0:
		return fmt.Errorf("%d connections; want 0 (as configured) or more", d.Connections)
	case d.MaxRetries < -1:
		return fmt.Errorf("%d retries; want -1 (none), 0 (as configured) or more", d.MaxRetries)
	}
	return checkPriority(d.Priority)
}

func checkPriority(p model.Priority) error {
	if p < model.LowPriority || p > model.CriticalPriority {
		return fmt.Errorf("%v is none of low, normal, high, critical", p)
	}
	return nil
}

// reserve finds who brings the same as d already, or makes an entry whose turn is the caller's.
func (q *Queue) reserve(d model.Download) (e *entry, mine bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e := q.byKey[keyOf(d)]; e != nil {
		return e, false, nil
	}
	if waiting := len(q.line.entries) - len(q.line.ranked(0)) + q.adding; waiting >= q.settings.Size {
		return nil, false, &model.Error{
			Op: "queue", Class: model.RateLimited, Model: d.Model, After: whenFull,
			Err: fmt.Errorf("%w: %d downloads wait already", ErrFull, waiting), Hint: "try again when some are done, or cancel some",
		}
	}
	q.lastOrder++
	q.adding++
	e = newEntry(model.Download{
		ID: newID(), Model: d.Model, Revision: d.Revision, Include: slices.Clone(d.Include), Exclude: slices.Clone(d.Exclude),
		Priority: d.Priority, Limit: d.Limit, Connections: d.Connections, MaxRetries: d.MaxRetries,
		State: model.Queued, Order: q.lastOrder, Created: now(),
	})
	e.turn <- struct{}{}
	q.byKey[e.key] = e
	return e, true, nil
}

// enter stores a new entry and puts it into the line.
func (q *Queue) enter(ctx context.Context, e *entry) (model.Download, error) {
	defer e.give()
	err := ctx.Err()
	if err == nil {
		err = q.keep.Save(context.WithoutCancel(ctx), e.d)
	}
	q.mu.Lock()
	q.adding--
	if err != nil {
		e.gone = true
		delete(q.byKey, e.key)
		q.mu.Unlock()
		return model.Download{}, err
	}
	d := e.d
	q.byID[d.ID] = e
	q.line.insert(e)
	q.wake()
	q.mu.Unlock()
	q.tell(d, event.KindState, event.Change{To: model.Queued})
	return d, nil
}

// raise gives e at least a priority.
func (q *Queue) raise(ctx context.Context, e *entry, p model.Priority) (model.Download, error) {
	if err := e.take(ctx); err != nil {
		return model.Download{}, err
	}
	defer e.give()
	if e.gone {
		return model.Download{}, errMoot
	}
	q.mu.Lock()
	d := e.d
	q.mu.Unlock()
	if p <= d.Priority {
		return d, nil
	}
	return q.change(ctx, e, func(d *model.Download) error {
		d.Priority = p
		return nil
	})
}

// Pause stops downloads until somebody resumes them. It returns when that is stored; a running one
// ends within a second after that.
//
// Pause, and the actions below, act on each of the ids that they can, and return these downloads as
// they became; the errors of the others are joined. An unknown id is an error of Class NotFound, and
// a state that does not allow the action is a *StateError. The id All stands for all whose state does.
func (q *Queue) Pause(ctx context.Context, ids ...string) ([]model.Download, error) {
	return q.act(ctx, Pausing, ids, func(d *model.Download) {
		d.State, d.Pause, d.Reason, d.Class, d.NextTry = model.Paused, model.ByUser, "paused until somebody resumes it", "", time.Time{}
	})
}

// Resume queues downloads that are paused or wait for their next try. Their retries count anew.
func (q *Queue) Resume(ctx context.Context, ids ...string) ([]model.Download, error) {
	return q.act(ctx, Resuming, ids, func(d *model.Download) {
		d.State, d.Pause, d.Reason, d.Class, d.NextTry, d.Retries = model.Queued, "", "", "", time.Time{}, 0
	})
}

// Cancel ends downloads for good. It returns when that is stored; a running one ends within a second
// after that.
func (q *Queue) Cancel(ctx context.Context, ids ...string) ([]model.Download, error) {
	return q.act(ctx, Cancelling, ids, func(d *model.Download) {
		d.State, d.Pause, d.Reason, d.Class, d.NextTry, d.Ended = model.Stopped, "", "cancelled by somebody", "", time.Time{}, now()
	})
}

// Prioritize changes where downloads stand in the line. A running one goes on, unless a critical one
// needs its place.
func (q *Queue) Prioritize(ctx context.Context, p model.Priority, ids ...string) ([]model.Download, error) {
	if err := checkPriority(p); err != nil {
		return nil, &model.Error{Op: Prioritizing, Class: model.Usage, Err: err}
	}
	return q.act(ctx, Prioritizing, ids, func(d *model.Download) { d.Priority = p })
}

// Limit changes the rate that downloads may have at most, in bytes per second; 0 is no limit of their
// own. Whoever runs one is told at once, by Reporter.Follow.
func (q *Queue) Limit(ctx context.Context, perSecond model.Bytes, ids ...string) ([]model.Download, error) {
	if perSecond < 0 {
		return nil, &model.Error{Op: Limiting, Class: model.Usage, Err: fmt.Errorf("a limit of %d bytes per second; want 0 (none) or more", perSecond)}
	}
	return q.act(ctx, Limiting, ids, func(d *model.Download) { d.Limit = perSecond })
}

// act does an action with each of the ids. Nothing is started meanwhile: what an action over many
// leaves behind must not depend on which of them came first.
func (q *Queue) act(ctx context.Context, action string, ids []string, edit func(*model.Download)) ([]model.Download, error) {
	q.mu.Lock()
	q.acting++
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.acting--
		q.wake()
	}()
	entries, err := q.named(ctx, action, ids)
	results, errs := make([]model.Download, len(entries)), make([]error, len(entries))
	var g errgroup.Group
	g.SetLimit(together)
	for i, e := range entries {
		g.Go(func() error {
			results[i], errs[i] = q.actOn(ctx, action, e, edit)
			return nil
		})
	}
	_ = g.Wait() // each error is at its place
	all := slices.Contains(ids, All)
	var became []model.Download
	for i, failed := range errs {
		_, state := errors.AsType[*StateError](failed)
		switch {
		case failed == nil:
			became = append(became, results[i])
		case !all || !state:
			err = errors.Join(err, failed)
		}
	}
	return became, err
}

func (q *Queue) actOn(ctx context.Context, action string, e *entry, edit func(*model.Download)) (model.Download, error) {
	if err := e.take(ctx); err != nil {
		return model.Download{}, err
	}
	defer e.give()
	return q.change(ctx, e, func(d *model.Download) error {
		if err := allow(action, *d); err != nil {
			return err
		}
		edit(d)
		return nil
	})
}

// named are the entries of ids; the error is about those that have none.
func (q *Queue) named(ctx context.Context, action string, ids []string) (entries []*entry, err error) {
	var unknown []string
	q.mu.Lock()
	if slices.Contains(ids, All) {
		entries, ids = slices.Clone(q.line.entries), nil
	}
	for _, id := range ids {
		if e := q.byID[id]; e == nil {
			unknown = append(unknown, id)
		} else if !slices.Contains(entries, e) {
			entries = append(entries, e)
		}
	}
	q.mu.Unlock()
	for _, id := range unknown {
		err = errors.Join(err, q.whyNot(ctx, action, id))
	}
	return entries, err
}

// whyNot says why an action cannot be done with a download that is not here: it is over, or never was.
func (q *Queue) whyNot(ctx context.Context, action, id string) error {
	d, err := q.keep.Download(ctx, id)
	switch {
	case model.ClassOf(err) == model.NotFound:
		return &model.Error{Op: action, Class: model.NotFound, Err: fmt.Errorf("there is no download %q", id), Hint: "see ema ps --all"}
	case err != nil:
		return err
	}
	return &StateError{ID: id, Model: d.Model, Action: action, State: d.State, Allowed: Actions(d)}
}

// keyOf is the same for downloads that bring the same.
func keyOf(d model.Download) string {
	var b strings.Builder
	part := func(s string) { b.WriteString(strconv.Quote(s)) }
	part(string(d.Model.Scheme))
	part(d.Model.Name)
	part(d.Revision)
	for _, patterns := range [][]string{d.Include, d.Exclude} {
		b.WriteByte('|')
		for _, p := range slices.Compact(slices.Sorted(slices.Values(patterns))) {
			part(p)
		}
	}
	return b.String()
}
