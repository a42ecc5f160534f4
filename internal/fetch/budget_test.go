package fetch

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

// fixed are settings with which the number of connections is not adapted.
func fixed(connections, total int) Settings {
	return Settings{Connections: connections, Total: total, FixedParallel: true}
}

func TestJobsTogetherNeverHaveMoreConnectionsThanTheTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: 30 * time.Millisecond, perConn: steady(model.MiB)}
		f := New(fixed(8, 6), o)
		var jobs []Job
		var ends []func() error
		for i := range 3 {
			jobs = append(jobs, jobOf(60*model.MiB))
			ends = append(ends, begin(t.Context(), f, jobs[i]))
			time.Sleep(3 * time.Second) // the first has them all meanwhile
		}
		for _, job := range jobs {
			if n := job.Progress.Connections.Load(); n != 2 {
				t.Errorf("a job has %d of 6 connections, want its third", n)
			}
		}
		for i, end := range ends {
			whole(t, jobs[i], end())
		}
		if _, most := o.now(); most != 6 {
			t.Errorf("%d connections at once, want the total of 6", most)
		}
	})
}

func TestWhatAJobCannotUseGoesToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: 30 * time.Millisecond, perConn: steady(model.MiB)}
		f := New(fixed(8, 8), o)
		modest, greedy := jobOf(40*model.MiB), jobOf(60*model.MiB)
		modest.Connections = 1
		end := begin(t.Context(), f, modest)
		time.Sleep(time.Second)
		end2 := begin(t.Context(), f, greedy)
		time.Sleep(3 * time.Second)
		if m, g := modest.Progress.Connections.Load(), greedy.Progress.Connections.Load(); m != 1 || g != 7 {
			t.Errorf("%d and %d connections, want 1 as asked for and all others", m, g)
		}
		whole(t, greedy, end2())
		whole(t, modest, end())
	})
}

// On a slow network requests last for minutes. Who has too many connections ends them after the block that
// they are in, all the same.
func TestConnectionsAboveAJobsPartEndAfterTheirBlock(t *testing.T) {
	for promise, act := range map[string]func(f *Fetcher) func() error{
		"when another job comes": func(f *Fetcher) func() error {
			return begin(context.WithoutCancel(t.Context()), f, jobOf(32*model.MiB))
		},
		"when the cap is lowered": func(f *Fetcher) func() error {
			f.Configure(fixed(2, 4))
			return nil
		},
		"when the total is lowered": func(f *Fetcher) func() error {
			f.Configure(fixed(4, 2))
			return nil
		},
	} {
		t.Run(promise, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := New(fixed(4, 4), &origin{answer: 30 * time.Millisecond, perConn: steady(64 * model.KiB)})
				job := jobOf(64 * model.MiB)
				end := begin(t.Context(), f, job)
				time.Sleep(10 * time.Second)
				end2 := act(f)
				time.Sleep(35 * time.Second) // two blocks
				if n := job.Progress.Connections.Load(); n != 2 {
					t.Errorf("%d connections, want 2 of 4", n)
				}
				if end2 != nil {
					if err := end2(); err != nil {
						t.Error(err)
					}
				}
				whole(t, job, end())
				if extra := job.Progress.Received.Load() - job.Progress.Written.Load(); extra != 0 {
					t.Errorf("%d bytes came twice", extra)
				}
			})
		})
	}
}

func TestMoreJobsThanConnectionsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: 30 * time.Millisecond, perConn: steady(model.MiB)}
		f := New(fixed(8, 2), o)
		var jobs []Job
		var ends []func() error
		for i := range 5 {
			jobs = append(jobs, jobOf(40*model.MiB, model.KiB))
			ends = append(ends, begin(t.Context(), f, jobs[i]))
		}
		time.Sleep(50 * time.Second) // 100 MiB in all
		for i, job := range jobs {
			if got := model.Bytes(job.Progress.Received.Load()); got < 10*model.MiB {
				t.Errorf("job %d has got %v of 100 MiB", i, got)
			}
		}
		for i, end := range ends {
			whole(t, jobs[i], end())
		}
		if _, most := o.now(); most != 2 {
			t.Errorf("%d connections at once, want the total of 2", most)
		}
	})
}

func TestNewSettingsActOnJobsThatRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: 30 * time.Millisecond, perConn: steady(model.MiB)}
		f := New(fixed(2, 0), o)
		job := jobOf(400 * model.MiB)
		end := begin(t.Context(), f, job)
		count := func(after time.Duration, want int, why string) {
			t.Helper()
			time.Sleep(after)
			if running, _ := o.now(); running != want {
				t.Errorf("%d connections %v after %s, want %d", running, after, why, want)
			}
		}
		count(3*time.Second, 2, "the begin")
		f.Configure(fixed(6, 0))
		count(100*time.Millisecond, 6, "the cap was raised to 6")
		count(5*time.Second, 6, "the cap was raised to 6")
		f.Configure(fixed(3, 0))
		count(4*time.Second, 3, "the cap was lowered to 3")
		f.Configure(fixed(8, 4))
		count(4*time.Second, 4, "the total was set to 4")
		f.Configure(fixed(8, 1))
		count(4*time.Second, 1, "the total was set to 1")
		f.Configure(Settings{Connections: 8})
		count(20*time.Second, 8, "the total was lifted, and the climb allowed")
		whole(t, job, end())
		if n := job.Progress.Retries.Load(); n != 0 {
			t.Errorf("%d retries", n)
		}
		if extra := job.Progress.Received.Load() - job.Progress.Written.Load(); extra != 0 {
			t.Errorf("%d bytes came twice", extra)
		}
	})
}

// However jobs come, go, fail and are reconfigured: the total holds except while it is being lowered,
// nobody waits for ever, and each byte comes.
func TestTheBudgetHoldsWhateverHappens(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		total := rapid.IntRange(1, 8).Draw(rt, "total")
		type plan struct {
			begin, cancel time.Duration
			cap           int
			sizes         []model.Bytes
		}
		var plans []plan
		for range rapid.IntRange(1, 5).Draw(rt, "jobs") {
			p := plan{
				begin: time.Duration(rapid.IntRange(0, 20).Draw(rt, "begin")) * time.Second,
				cap:   rapid.IntRange(0, 8).Draw(rt, "cap"),
			}
			if rapid.IntRange(0, 3).Draw(rt, "is cancelled") == 0 {
				p.cancel = time.Duration(rapid.IntRange(1, 20).Draw(rt, "cancel")) * time.Second
			}
			for range rapid.IntRange(1, 4).Draw(rt, "files") {
				p.sizes = append(p.sizes, model.Bytes(rapid.Int64Range(0, 6*int64(model.MiB)).Draw(rt, "size")))
			}
			plans = append(plans, p)
		}
		failures := rapid.IntRange(0, 5).Draw(rt, "failures")
		answer := time.Duration(rapid.IntRange(0, 50).Draw(rt, "answer")) * time.Millisecond
		set := Settings{
			Connections: rapid.IntRange(1, 8).Draw(rt, "connections"), Total: total,
			FixedParallel: rapid.Bool().Draw(rt, "fixed"), Buffers: model.Bytes(rapid.IntRange(1, 30).Draw(rt, "buffers")) * model.MiB,
		}
		var problem error
		synctest.Test(t, func(t *testing.T) {
			o := &origin{answer: answer, perConn: steady(model.MiB)}
			fail := make(chan struct{}, failures)
			for range failures {
				fail <- struct{}{}
			}
			o.before = func(context.Context) error {
				select {
				case <-fail:
					return failing(model.Reset, 0)
				default:
					return nil
				}
			}
			f := New(set, o)
			results := make(chan error, len(plans))
			for _, p := range plans {
				go func() {
					time.Sleep(p.begin)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if p.cancel > 0 {
						defer time.AfterFunc(p.cancel, cancel).Stop()
					}
					job := jobOf(p.sizes...)
					job.Connections = p.cap
					err := f.Fetch(ctx, job)
					if ctx.Err() != nil {
						err = nil
					}
					results <- err
				}()
			}
			for range plans {
				select {
				case err := <-results:
					if err != nil {
						problem = err
					}
				case <-time.After(time.Hour):
					problem = fmt.Errorf("a job still waits after an hour")
					panic(problem)
				}
			}
			if _, most := o.now(); most > total {
				problem = fmt.Errorf("%d connections at once, the total is %d", most, total)
			}
			if f.buffers.out != 0 || f.budget.busy != 0 || len(f.budget.plans) != 0 || f.buffers.jobs != 0 {
				problem = fmt.Errorf("%d buffers, %d connections, %d plans are left over", f.buffers.out, f.budget.busy, len(f.budget.plans))
			}
		})
		if problem != nil {
			rt.Fatal(problem)
		}
	})
}
