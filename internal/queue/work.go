package queue

import (
	"context"
	"errors"
	"net/url"
	"time"

	"ema/internal/event"
	"ema/internal/model"
)

// Run brings one model: it returns nil when that is available, and soon after ctx has ended. d is the
// download as it was when it was started. Whatever r is told after Run has returned, or after ctx has
// ended, has no effect.
type Run func(ctx context.Context, d model.Download, r Reporter) error

// A Reporter is told how a running download gets on. Its methods may be called concurrently.
type Reporter interface {
	// Stage says that resolving, downloading or verifying begins. It waits until that is stored.
	Stage(s model.State)
	// Resolved says what the revision stands for, and how much it is. It waits until that is stored.
	Resolved(commit string, size model.Bytes)
	// Progress says how much is here. It is not stored until something else is, and not told to the
	// bus: rates and connections are known to Run alone, so that is who tells.
	Progress(done model.Bytes)
	// Completed says where the model is, before Run returns nil.
	Completed(path string)
	// Follow calls f with the download as it is now, and again whenever its limit or its priority was
	// changed. f must be quick, must not change this download, and must be harmless after Run. It is
	// not called twice at once.
	Follow(f func(d model.Download))
}

// A work is one attempt to bring a download. It has a place among the running ones until it ends,
// also after its download was taken from it.
type work struct {
	q      *Queue
	e      *entry
	ctx    context.Context //nolint:containedctx // of the goroutine that this is
	cancel context.CancelCauseFunc

	// Written under the queue's lock by whoever has the entry's turn, so either is enough to read; the
	// last two under the lock alone.
	started bool                 // it is stored that it runs
	void    bool                 // the download is no longer its own: nothing it says counts
	follow  func(model.Download) // nil: nobody follows
	path    string               // of the snapshot
	began   model.Bytes          // that were here when it started
}

// errTaken is why a work's context ends when its download is taken from it.
var errTaken = errors.New("the download was paused, cancelled or put back")

func newWork(ctx context.Context, q *Queue, e *entry) *work {
	w := &work{q: q, e: e, began: e.d.Done}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w
}

// keepTo stops the work when its download has become something that it is not working on.
func (w *work) keepTo(d *model.Download) {
	if running(d.State) {
		w.started = true
	}
	if w.started && !running(d.State) || !w.started && rank(d) > 1 {
		w.void = true
		w.cancel(errTaken)
	}
}

// work brings one download, from its place in the line to what becomes of it.
func (q *Queue) work(ctx context.Context, w *work) {
	defer q.leave(w)
	if d, ok := q.start(ctx, w); ok {
		q.finish(ctx, w, q.run(w.ctx, d, w))
	}
}

// leave gives w's place to others.
func (q *Queue) leave(w *work) {
	w.cancel(nil)
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.works, w)
	if w.e.work == w {
		w.e.work = nil
	}
	q.wake()
}

// start brings the download into its first running state.
func (q *Queue) start(ctx context.Context, w *work) (model.Download, bool) {
	q.mu.Lock()
	preempted := w.e.d.State == model.Paused
	q.mu.Unlock()
	if preempted {
		_, ok := q.insist(ctx, w, func(d *model.Download) error {
			d.State, d.Pause, d.Reason = model.Queued, "", "" // there is room again
			return nil
		})
		if !ok {
			return model.Download{}, false
		}
	}
	return q.insist(ctx, w, func(d *model.Download) error {
		d.State, d.Reason, d.Class = model.Resolving, "", ""
		d.Tries++
		if d.Started.IsZero() {
			d.Started = now()
		}
		return nil
	})
}

// finish says what becomes of a download whose work has ended.
func (q *Queue) finish(ctx context.Context, w *work, err error) {
	var retry *event.Retry
	d, ok := q.insist(ctx, w, func(d *model.Download) error {
		retry = q.outcome(d, w, err, ctx.Err() != nil)
		return nil
	})
	if ok && retry != nil {
		q.tell(d, event.KindRetry, *retry)
	}
}

// outcome makes of d what err means; ending is whether the whole queue ends.
func (q *Queue) outcome(d *model.Download, w *work, err error, ending bool) *event.Retry {
	q.mu.Lock()
	policy, path := q.settings.Retry, w.path
	q.mu.Unlock()
	if err == nil {
		d.State, d.Path, d.Ended, d.Done = model.Completed, path, now(), defaultTo(d.Size, d.Done)
		d.Reason, d.Class, d.Retries = "", "", 0
		return nil
	}
	if ending {
		d.State = model.Queued
		return nil
	}
	class := model.ClassOf(err)
	d.Reason, d.Class = err.Error(), class.String()
	if d.Done > w.began {
		d.Retries = 0
	}
	most := defaultTo(d.MaxRetries, policy.Max)
	switch {
	case class == model.DiskFull:
		d.State, d.Pause = model.Paused, model.BySpace
	case passing(class) && d.Retries < most:
		wait := policy.wait(d.Retries, err)
		d.State, d.NextTry = model.Retrying, time.Now().Add(wait)
		d.Retries++
		return &event.Retry{Host: hostOf(err), Class: class, Error: d.Reason, Wait: wait}
	default:
		d.State, d.Ended = model.Failed, now()
	}
	return nil
}

// hostOf is the host that an error is about; "" when it names none.
func hostOf(err error) string {
	if e, ok := errors.AsType[*model.Error](err); ok {
		if u, err := url.Parse(e.URL); err == nil {
			return u.Host
		}
	}
	return ""
}

// insist makes a change that nobody waits for, and repeats it until the ledger takes it, the download
// is taken from w, or ctx ends: then the ledger still says that it runs, and Load will queue it.
func (q *Queue) insist(ctx context.Context, w *work, edit func(d *model.Download) error) (model.Download, bool) {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		d, err := w.change(edit)
		if err == nil {
			return d, true
		}
		if errors.Is(err, errMoot) {
			return d, false
		}
		q.tell(d, event.KindProgress, event.Progress{State: d.State, Done: d.Done, Total: d.Size, Note: err.Error()})
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return d, false
		}
	}
}

// change changes the download while it is w's own.
func (w *work) change(edit func(d *model.Download) error) (model.Download, error) {
	ctx := context.Background() // what has come to pass must be stored, whoever has stopped waiting
	if err := w.e.take(ctx); err != nil {
		return model.Download{}, err
	}
	defer w.e.give()
	return w.q.change(ctx, w.e, func(d *model.Download) error {
		if w.void {
			return errMoot
		}
		return edit(d)
	})
}

// report changes the download where a failure of the ledger costs only what is reported.
func (w *work) report(edit func(d *model.Download) error) {
	d, err := w.change(edit)
	if err != nil && !errors.Is(err, errMoot) {
		w.q.tell(d, event.KindProgress, event.Progress{State: d.State, Done: d.Done, Total: d.Size, Note: err.Error()})
	}
}

// Stage implements Reporter.
func (w *work) Stage(s model.State) {
	w.report(func(d *model.Download) error {
		if s == d.State || !running(s) || !mayFollow(d.State, s) {
			return errMoot // checks run side by side with downloads; the table says what counts as a step
		}
		d.State = s
		return nil
	})
}

// Resolved implements Reporter.
func (w *work) Resolved(commit string, size model.Bytes) {
	w.report(func(d *model.Download) error {
		if d.Commit == commit && d.Size == size {
			return errMoot
		}
		d.Commit, d.Size = commit, size
		return nil
	})
}

// Progress implements Reporter.
func (w *work) Progress(done model.Bytes) {
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	if !w.void {
		w.e.d.Done = done
	}
}

// Completed implements Reporter.
func (w *work) Completed(path string) {
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	w.path = path
}

// Follow implements Reporter.
func (w *work) Follow(f func(d model.Download)) {
	w.e.turn <- struct{}{}
	defer w.e.give()
	w.q.mu.Lock()
	w.follow = f
	d := w.e.d
	w.q.mu.Unlock()
	f(d)
}

// now is the time as it is stored: the wall's, comparable with times that were stored before.
func now() time.Time { return time.Now().UTC().Round(0) }
