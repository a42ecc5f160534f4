package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"ema/client"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/verify"
)

const (
	// scrubFile tells where a scrub was, in the store's state folder. It is written for the next start alone, so it needs no sync:
	// without it a model is read from its beginning.
	scrubFile = "scrub.json"
	// calm is how long after the start scrubbing begins: whoever starts the daemon wants to use it.
	calm = time.Minute
	// mostIdle is how long it is waited, at most, until it is looked again what is due.
	mostIdle = time.Hour
)

// A scrubbed is how far the scrub of a model is.
type scrubbed struct {
	Model  string   `json:"model"`
	Commit string   `json:"commit"`
	Done   []string `json:"done"` // contents that were read, and are right
}

// readAll makes full checks until ctx ends: first those that somebody has asked for, then of models with files that have changed,
// then, one after the other, of those whose last one is the oldest and due.
func (c *clinic) readAll(ctx context.Context) error {
	for {
		next, due := c.next(time.Now())
		if next == nil {
			if !wait(ctx, min(time.Until(due), mostIdle), c.reading) {
				return nil
			}
			continue
		}
		c.readOne(ctx, next)
		if ctx.Err() != nil {
			return nil
		}
	}
}

// next is what is to be read now, or when it should be asked again.
func (c *clinic) next(now time.Time) (*reading, time.Time) {
	interval := c.settings().ScrubIntervalHours.Duration()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) > 0 {
		first := c.asked[0]
		c.asked = c.asked[1:]
		return first, now
	}
	due := now.Add(mostIdle)
	var oldest model.ID
	for id, p := range c.charts {
		if p.suspect && len(p.commits) > 0 {
			return &reading{id: id, kind: fullCheck}, now
		}
		at := p.last().Add(interval)
		if interval <= 0 || len(p.commits) == 0 || p.verdict.Overall == model.Corrupted { // what is bad is not better for being read again
			continue
		}
		if q := c.charts[oldest]; q == nil || p.last().Before(q.last()) {
			oldest = id
		}
		if at.Before(due) {
			due = at
		}
	}
	if started := c.begun.Add(calm); due.Before(started) {
		due = started
	}
	if p := c.charts[oldest]; p != nil && !due.After(now) {
		return &reading{id: oldest, kind: scrubCheck}, now
	}
	return nil, due
}

// last is when it was tried last to read all of a model.
func (p *chart) last() time.Time {
	if p.postponed.After(p.full) {
		return p.postponed
	}
	return p.full
}

// readOne reads all commits of a model.
func (c *clinic) readOne(ctx context.Context, r *reading) {
	c.mu.Lock()
	p := c.chart(r.id)
	commits := p.commits
	p.suspect = false
	if r.task != nil {
		r.task.State, r.task.Begun = client.TaskRunning, new(time.Now().UTC())
		r.task.Estimate = c.estimate(time.Now().UTC(), p.size)
	}
	c.mu.Unlock()
	if len(commits) == 0 { // it was asked for before anybody had looked
		if m, err := c.d.line.Store.Model(r.id); err == nil {
			for _, rev := range m.Revisions {
				commits = append(commits, rev.Commit)
			}
		}
	}
	defer c.d.line.own.begin(r.id)()
	var failed error
	for _, commit := range commits {
		begun := time.Now()
		progress := &pipeline.Progress{}
		stop := c.follow(r, progress)
		report, err := c.d.line.VerifyEach(ctx, r.id, commit, c.manner(ctx, r, commit), progress)
		stop()
		if ctx.Err() != nil {
			return
		}
		countVerified(c.d.metrics, report, err)
		if err != nil {
			failed = err
			continue
		}
		c.forgetScrub(r)
		c.examined(r.id, commit, r.kind, report, time.Since(begun))
	}
	if failed != nil {
		c.d.log.Warn("not checked", "model", r.id.Public(), "error", failed.Error())
		c.mu.Lock()
		p.postponed = time.Now() // others come first
		c.mu.Unlock()
		c.lookAt(r.id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := r.task; t != nil {
		t.State, t.Ended, t.Percent, t.Estimate = client.TaskDone, new(time.Now().UTC()), 100, nil
		if failed != nil {
			t.State, t.Error = client.TaskFailed, failed.Error()
		}
	}
}

// follow keeps a task's progress up to date until it is stopped.
func (c *clinic) follow(r *reading, progress *pipeline.Progress) (stop func()) {
	if r.task == nil {
		return func() {}
	}
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
				if all := progress.Stage().Bytes; all > 0 {
					c.mu.Lock()
					r.task.Percent = min(99.9, 100*float64(progress.Hashed.Load())/float64(all))
					c.mu.Unlock()
				}
			}
		}
	}()
	return func() {
		close(over)
		<-ended
	}
}

// manner is how files are read: for somebody who waits as fast as the disk can; else one after the other, no faster than set, past
// the page cache, while nobody else reads much from the same disk, and from where an earlier scrub was.
func (c *clinic) manner(ctx context.Context, r *reading, commit string) pipeline.Reading {
	if r.kind != scrubCheck {
		return pipeline.Reading{}
	}
	var limit *rate.Limiter
	if most := c.settings().ScrubLimitMBps.PerSecond(); most > 0 {
		limit = rate.NewLimiter(rate.Limit(most), int(max(model.MiB, most/10)))
	}
	beside := paceBeside(c.d.line.Store.Path())
	pace := func(n int) error {
		if beside != nil {
			if err := beside(ctx, n); err != nil {
				return err
			}
		}
		if limit != nil {
			return limit.WaitN(ctx, n)
		}
		return ctx.Err()
	}
	was := c.scrubbed(r.id, commit)
	return pipeline.Reading{
		Open:     func(path string) (verify.Reader, error) { return host.OpenUncached(path, pace) },
		Known:    func(d model.Digest) bool { return slices.Contains(was.Done, d.String()) },
		Checked:  func(d model.Digest) { was.Done = append(was.Done, d.String()); c.noteScrub(was) },
		Parallel: 1,
		Run: func(ctx context.Context, fn func(context.Context) error) error {
			return c.d.pools.io.DoAt(ctx, host.IOLow, fn)
		},
	}
}

func (c *clinic) scrubPath() string { return filepath.Join(c.d.line.Store.StateDir(), scrubFile) }

// scrubbed is how far an earlier scrub of the same commit was.
func (c *clinic) scrubbed(id model.ID, commit string) scrubbed {
	var was scrubbed
	raw, err := os.ReadFile(c.scrubPath())
	if err != nil || json.Unmarshal(raw, &was) != nil || was.Model != id.String() || was.Commit != commit {
		return scrubbed{Model: id.String(), Commit: commit}
	}
	return was
}

// noteScrub notes how far a scrub is. Where that cannot be noted, less is saved by it.
func (c *clinic) noteScrub(s scrubbed) {
	raw, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(c.scrubPath()+".new", raw, 0o600)
	}
	if err == nil {
		err = os.Rename(c.scrubPath()+".new", c.scrubPath())
	}
	if err != nil {
		c.d.log.Warn("how far the scrub is was not noted", "error", err.Error())
	}
}

// forgetScrub removes the note of a scrub that is over.
func (c *clinic) forgetScrub(r *reading) {
	if r.kind == scrubCheck {
		_ = os.Remove(c.scrubPath()) // what stays is of a commit that was read; the next scrub of another one replaces it
	}
}
