package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
	"ema/internal/queue"
)

// naive is what a queue is to do, said as simply as it can be: a list that is searched from its
// beginning for everything. Time is what the test says it is.
type naive struct {
	settings queue.Settings
	all      []*model.Download // unfinished
}

// ahead says by the words of the specification who runs first: critical ones, then by priority and
// the spans waited, then by arrival.
func (n *naive) ahead(a, b *model.Download, now time.Time) bool {
	if ca, cb := a.Priority == model.CriticalPriority, b.Priority == model.CriticalPriority; ca != cb {
		return ca
	}
	worth := func(d *model.Download) time.Duration {
		return time.Duration(d.Priority)*n.settings.Ageing + now.Sub(d.Created)
	}
	if worth(a) != worth(b) {
		return worth(a) > worth(b)
	}
	return a.Order < b.Order
}

func ready(d *model.Download) bool {
	return d.State == model.Queued || d.State == model.Paused && d.Pause == model.ByPreemption
}

func inRun(d *model.Download) bool {
	return d.State == model.Resolving || d.State == model.Downloading || d.State == model.Verifying
}

func (n *naive) pick(is func(*model.Download) bool, now time.Time) (found []*model.Download) {
	for _, d := range n.all {
		if is(d) {
			found = append(found, d)
		}
	}
	sort.Slice(found, func(i, j int) bool { return n.ahead(found[i], found[j], now) })
	return found
}

// settle does all that there is to do at a time.
func (n *naive) settle(now time.Time) {
	for {
		for _, d := range n.all {
			if d.State == model.Retrying && !d.NextTry.After(now) {
				d.State = model.Queued
			}
		}
		runs, waits := n.pick(inRun, now), n.pick(ready, now)
		var lowest *model.Download
		for _, d := range runs {
			if lowest == nil || d.Priority < lowest.Priority || d.Priority == lowest.Priority && d.Order > lowest.Order {
				lowest = d
			}
		}
		switch {
		case len(runs) > n.settings.Concurrent:
			lowest.State = model.Queued
		case len(waits) == 0:
			return
		case len(runs) < n.settings.Concurrent:
			waits[0].State, waits[0].Pause = model.Resolving, ""
			waits[0].Tries++
		case waits[0].Priority == model.CriticalPriority && lowest.Priority < model.CriticalPriority:
			lowest.State, lowest.Pause = model.Paused, model.ByPreemption
		default:
			return
		}
	}
}

// pass lets time go on, and does what is due on the way.
func (n *naive) pass(until time.Time) {
	for {
		next := until
		for _, d := range n.all {
			if d.State == model.Retrying && d.NextTry.Before(next) {
				next = d.NextTry
			}
		}
		n.settle(next)
		if next.Equal(until) {
			return
		}
	}
}

func (n *naive) list(now time.Time) string {
	later := n.pick(func(d *model.Download) bool { return d.State == model.Retrying }, now)
	sort.SliceStable(later, func(i, j int) bool { return later[i].NextTry.Before(later[j].NextTry) })
	var all []model.Download
	for _, group := range [][]*model.Download{
		n.pick(inRun, now), n.pick(ready, now), later,
		n.pick(func(d *model.Download) bool { return d.State == model.Paused && d.Pause != model.ByPreemption }, now),
	} {
		for _, d := range group {
			all = append(all, *d)
		}
	}
	return details(all)
}

// details are all that the model and the queue must agree on.
func details(all []model.Download) string {
	var b strings.Builder
	for _, d := range all {
		fmt.Fprintf(&b, "%s %v %s %s tries %d retries %d\n", d.Model.Name, d.Priority, d.State, d.Pause, d.Tries, d.Retries)
	}
	return b.String()
}

func (n *naive) drop(d *model.Download) {
	n.all = slices.DeleteFunc(n.all, func(o *model.Download) bool { return o == d })
}

// instant is a ledger that takes no time, so that the model need not know how long saves take.
type instant struct{ *memory }

func (m instant) Save(_ context.Context, d model.Download) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byID[d.ID] = d
	return nil
}

func TestTheQueueDoesWhatANaiveOneDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(bubbled{t}, compareWithNaive)
	})
}

// bubbled hides from rapid that it runs in a test whose deadline means nothing, since time is faked.
type bubbled struct{ *testing.T }

func compareWithNaive(t *rapid.T) {
	ctx := context.Background()
	settings := queue.Settings{
		Concurrent: rapid.IntRange(1, 4).Draw(t, "concurrent"), Size: 12, Ageing: 10 * time.Minute,
		Retry: queue.RetryPolicy{Max: 2, Base: time.Minute, NoJitter: true},
	}
	n := &naive{settings: settings}
	keep := &memory{byID: map[string]model.Download{}}
	var b *bench
	var end func()
	open := func() {
		b = &bench{t: t, keep: keep, jobs: map[string]*job{}}
		b.q = queue.New(n.settings, instant{keep}, b.run, b)
		if err := b.q.Load(ctx); err != nil {
			t.Fatal(err)
		}
		running, cancel := context.WithCancel(ctx)
		ended := make(chan error)
		go func() { ended <- b.q.Run(running) }()
		end = func() {
			cancel()
			<-ended
		}
	}
	open()
	defer func() { end() }()
	names := 0
	one := func(t *rapid.T) *model.Download {
		if len(n.all) == 0 {
			t.Skip("empty")
		}
		return rapid.SampledFrom(n.all).Draw(t, "one")
	}
	priority := rapid.Map(rapid.Int8Range(-1, 2), func(i int8) model.Priority { return model.Priority(i) })
	// do compares what both make of an action that is for some states only.
	do := func(t *rapid.T, d *model.Download, allowed bool, act func(context.Context, ...string) ([]model.Download, error), edit func()) {
		got, err := act(ctx, d.ID)
		_, refused := errors.AsType[*queue.StateError](err)
		if refused == allowed || refused != (err != nil) || allowed && len(got) != 1 {
			t.Fatalf("%s %s: %v, %v", d.Model.Name, d.State, got, err)
		}
		if allowed {
			edit()
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"add": func(t *rapid.T) {
			names++
			d := model.Download{Model: model.ID{Name: fmt.Sprintf("m%d", names)}, Priority: priority.Draw(t, "priority")}
			waiting := 0
			for _, d := range n.all {
				if !inRun(d) {
					waiting++
				}
			}
			added, _, err := b.q.Add(ctx, d)
			if full := errors.Is(err, queue.ErrFull); full != (waiting >= settings.Size) || full != (err != nil) {
				t.Fatalf("with %d waiting: %v", waiting, err)
			}
			if err == nil {
				n.all = append(n.all, &added)
			}
		},
		"add again": func(t *rapid.T) {
			d, p := one(t), priority.Draw(t, "priority")
			if got, was, err := b.q.Add(ctx, model.Download{Model: d.Model, Priority: p}); !was || err != nil || got.ID != d.ID {
				t.Fatalf("answered %v, %t, %v", got, was, err)
			}
			d.Priority = max(d.Priority, p)
		},
		"pause": func(t *rapid.T) {
			d := one(t)
			do(t, d, d.Pause != model.ByUser, b.q.Pause, func() { d.State, d.Pause = model.Paused, model.ByUser })
		},
		"resume": func(t *rapid.T) {
			d := one(t)
			do(t, d, d.State == model.Paused || d.State == model.Retrying, b.q.Resume, func() { d.State, d.Pause, d.Retries = model.Queued, "", 0 })
		},
		"cancel": func(t *rapid.T) {
			d := one(t)
			do(t, d, true, b.q.Cancel, func() { n.drop(d) })
		},
		"prioritize": func(t *rapid.T) {
			d, p := one(t), priority.Draw(t, "priority")
			do(t, d, true, func(ctx context.Context, ids ...string) ([]model.Download, error) {
				return b.q.Prioritize(ctx, p, ids...)
			}, func() { d.Priority = p })
		},
		"pause all": func(t *rapid.T) {
			if _, err := b.q.Pause(ctx, queue.All); err != nil {
				t.Fatal(err)
			}
			for _, d := range n.all {
				d.State, d.Pause = model.Paused, model.ByUser
			}
		},
		"resume all": func(t *rapid.T) {
			if _, err := b.q.Resume(ctx, queue.All); err != nil {
				t.Fatal(err)
			}
			for _, d := range n.all {
				if d.State == model.Paused || d.State == model.Retrying {
					d.State, d.Pause, d.Retries = model.Queued, "", 0
				}
			}
		},
		"end": func(t *rapid.T) {
			names := b.running()
			if len(names) == 0 {
				t.Skip("nothing runs")
			}
			name := rapid.SampledFrom(names).Draw(t, "running")
			at := slices.IndexFunc(n.all, func(d *model.Download) bool { return d.Model.Name == name })
			d := n.all[at]
			switch rapid.SampledFrom([]string{"well", "reset", "progress and reset", "no space", "not found"}).Draw(t, "how") {
			case "well":
				b.jobs[name].end <- nil
				n.drop(d)
			case "progress and reset":
				d.Done += 10
				b.jobs[name].r.Progress(d.Done)
				d.Retries = 0
				fallthrough
			case "reset":
				b.jobs[name].end <- reset
				if d.Retries >= settings.Retry.Max {
					n.drop(d)
					break
				}
				d.State, d.NextTry = model.Retrying, time.Now().Add(time.Minute<<d.Retries)
				d.Retries++
			case "no space":
				b.jobs[name].end <- diskFull
				d.State, d.Pause = model.Paused, model.BySpace
			case "not found":
				b.jobs[name].end <- &model.Error{Class: model.NotFound}
				n.drop(d)
			}
		},
		"stage": func(t *rapid.T) {
			names := b.running()
			if len(names) == 0 {
				t.Skip("nothing runs")
			}
			name := rapid.SampledFrom(names).Draw(t, "running")
			s := rapid.SampledFrom([]model.State{model.Downloading, model.Verifying}).Draw(t, "stage")
			b.jobs[name].r.Stage(s)
			at := slices.IndexFunc(n.all, func(d *model.Download) bool { return d.Model.Name == name })
			n.all[at].State = s
		},
		"space is back": func(*rapid.T) {
			b.q.SpaceBack()
			for _, d := range n.all {
				if d.Pause == model.BySpace {
					d.State, d.Pause = model.Queued, ""
				}
			}
		},
		"configure": func(t *rapid.T) {
			n.settings.Concurrent = rapid.IntRange(1, 4).Draw(t, "concurrent")
			n.settings.Ageing = rapid.SampledFrom([]time.Duration{time.Minute, 10 * time.Minute}).Draw(t, "ageing")
			b.q.Configure(n.settings)
		},
		"time passes": func(t *rapid.T) {
			until := time.Now().Add(time.Duration(rapid.IntRange(1, 300).Draw(t, "seconds")) * time.Second)
			n.pass(until)
			time.Sleep(time.Until(until))
		},
		"restart": func(t *rapid.T) {
			if rapid.Bool().Draw(t, "crash") {
				crashed := keep
				keep = keep.copied()
				b.keep = crashed
			}
			end()
			open()
			for _, d := range n.all {
				if d.State != model.Paused || d.Pause != model.ByUser {
					d.State, d.Pause = model.Queued, ""
				}
			}
		},
		"": func(t *rapid.T) {
			synctest.Wait()
			n.settle(time.Now())
			if got, want := details(b.q.List()), n.list(time.Now()); got != want {
				t.Fatalf("the queue:\n%s\nthe naive one:\n%s", got, want)
			}
			var want []string
			for _, d := range n.pick(inRun, time.Now()) {
				want = append(want, d.Model.Name)
			}
			slices.Sort(want)
			if got := b.running(); !slices.Equal(got, want) {
				t.Fatalf("%v run, want %v", got, want)
			}
			for _, d := range b.q.List() {
				if s := b.stored(d.ID); s.State != d.State || s.Pause != d.Pause || s.Priority != d.Priority || s.Retries != d.Retries {
					t.Fatalf("stored is %+v, said is %+v", s, d)
				}
			}
		},
	})
}
