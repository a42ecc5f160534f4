package fetch

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/model"
	"ema/internal/source"
)

// The source waits while a host or the network is away. That is not the connection's fault: it is neither
// slow, nor silent, nor failing, also while others deliver.
func TestWaitingLongForAnAnswerIsNoFailure(t *testing.T) {
	t.Parallel()
	for promise, waiting := range map[string]func(n int64) bool{
		"for all connections":                      func(int64) bool { return true },
		"for one, while others deliver":            func(n int64) bool { return n == 2 },
		"for most, while one delivers":             func(n int64) bool { return n > 1 },
		"for all but the first answer of a moment": func(n int64) bool { return n > 4 },
	} {
		t.Run(promise, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var opened atomic.Int64
				begun := time.Now()
				o := &origin{perConn: steady(64 * model.KiB)}
				o.before = func(ctx context.Context) error {
					if waiting(opened.Add(1)) {
						return pause(ctx, time.Until(begun.Add(7*time.Minute)))
					}
					return nil
				}
				job := jobOf(60*model.MiB, model.KiB, model.KiB)
				err := New(Settings{Connections: 4, FixedParallel: true, Retry: Retry{Max: -1}}, o).Fetch(t.Context(), job)
				whole(t, job, err)
				if n := job.Progress.Retries.Load(); n != 0 {
					t.Errorf("%d retries", n)
				}
			})
		})
	}
}

// hushed is an origin whose first connections fall silent after some bytes.
type hushed struct {
	*origin
	n     atomic.Int64
	quiet int64
}

func (h *hushed) Open(ctx context.Context, m *model.Manifest, f model.File, seg model.Segment) (*source.Body, error) {
	b, err := h.origin.Open(ctx, m, f, seg)
	if err == nil && h.n.Add(1) <= h.quiet {
		b.ReadCloser = &silence{body: b.ReadCloser.(*body)}
	}
	return b, err
}

type silence struct {
	*body
	said bool
}

func (s *silence) Read(p []byte) (int, error) {
	if s.said {
		<-s.ctx.Done()
		return 0, context.Cause(s.ctx)
	}
	s.said = true
	return s.body.Read(p[:min(len(p), 1000)])
}

// All connections fall silent at once, as when a cable is pulled or this process is stopped for a while:
// each costs a retry and nothing that came. The patience can be changed meanwhile.
func TestSilentConnectionsCostARetryEachAndNotTheJob(t *testing.T) {
	for promise, c := range map[string]struct{ at, then, want time.Duration }{
		"after the patience that was set":    {30 * time.Second, 30 * time.Second, 30 * time.Second},
		"after the one that was set instead": {time.Hour, 20 * time.Second, 20 * time.Second},
	} {
		t.Run(promise, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hushed{origin: &origin{perConn: steady(4 * model.MiB)}, quiet: 4}
				set := Settings{Connections: 4, FixedParallel: true, ReadTimeout: c.at, Retry: Retry{Max: 1, NoJitter: true}}
				f := New(set, h)
				job := jobOf(40 * model.MiB)
				begun := time.Now()
				end := begin(t.Context(), f, job)
				time.Sleep(5 * time.Second)
				set.ReadTimeout = c.then
				f.Configure(set)
				err := end()
				took := time.Since(begun)
				whole(t, job, err)
				if n := job.Progress.ByClass[model.Timeout].Load(); n != 4 {
					t.Errorf("%d retries, want one for each connection", n)
				}
				if again := job.Progress.Received.Load() - job.Progress.Written.Load(); again != 0 {
					t.Errorf("%d bytes came twice", again)
				}
				if took < c.want || took > c.want+10*time.Second {
					t.Errorf("took %v with a patience of %v", took, c.want)
				}
			})
		})
	}
}

// A disk that takes its time makes no connection slow or silent.
func TestWaitingForTheDiskIsNotTheNetworksFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := jobOf(24 * model.MiB)
		job.Open = func(_ context.Context, f model.File) (Sink, error) { return slowDisk{newMemory(f.Size)}, nil }
		set := Settings{Connections: 2, FixedParallel: true, SyncBytes: 2 * model.MiB, Retry: Retry{Max: -1}}
		whole(t, job, New(set, &origin{answer: 20 * time.Millisecond}).Fetch(t.Context(), job))
		if n := job.Progress.Retries.Load(); n != 0 {
			t.Errorf("%d retries", n)
		}
	})
}

type slowDisk struct{ *memory }

func (s slowDisk) Sync(state []byte, upto int64) error {
	time.Sleep(time.Minute)
	return s.memory.Sync(state, upto)
}
