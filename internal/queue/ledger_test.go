package queue_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"ema/internal/event"
	"ema/internal/ledger"
	"ema/internal/model"
	"ema/internal/queue"
)

// nobody listens.
type nobody struct{}

func (nobody) Tell(event.Event) {}

func never(ctx context.Context, _ model.Download, _ queue.Reporter) error {
	<-ctx.Done()
	return ctx.Err()
}

func openLedger(t testing.TB, path string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// fill adds n downloads of all priorities from several goroutines.
func fill(t testing.TB, q *queue.Queue, n int) {
	t.Helper()
	const goroutines = 16
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			for i := g; i < n; i += goroutines {
				d := model.Download{Model: model.ID{Name: fmt.Sprintf("org/m%04d", i)}, Priority: model.Priority(i%4 - 1), Limit: model.Bytes(i)}
				if _, _, err := q.Add(t.Context(), d); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestAThousandAreInTheirOldOrderAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ema.db")
	before := queue.New(queue.Settings{}, openLedger(t, path), never, event.New(0))
	fill(t, before, 1000)
	var pause []string
	for i, d := range before.List() {
		if i%10 == 0 {
			pause = append(pause, d.ID)
		}
	}
	if _, err := before.Pause(t.Context(), pause...); err != nil {
		t.Fatal(err)
	}
	if _, _, err := before.Add(t.Context(), model.Download{Model: model.ID{Name: "one too many"}}); err == nil {
		t.Error("more were taken than may wait")
	}

	// Nobody ended the first one: this is what a crash leaves.
	after := queue.New(queue.Settings{}, openLedger(t, path), never, event.New(0))
	if err := after.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, want := after.List(), before.List()
	if len(got) != 1000 || len(want) != 1000 {
		t.Fatalf("there are %d, were %d", len(got), len(want))
	}
	for i := range want {
		if fmt.Sprint(got[i]) != fmt.Sprint(want[i]) {
			t.Fatalf("at %d is %+v, was %+v", i, got[i], want[i])
		}
	}
	if !slices.IsSortedFunc(got[:900], func(a, b model.Download) int { return int(b.Priority) - int(a.Priority) }) {
		t.Error("they are not in the order of their priorities")
	}
}

func TestARealLedgerAndBusLeadADownloadThroughItsLife(t *testing.T) {
	l := openLedger(t, filepath.Join(t.TempDir(), "ema.db"))
	bus := event.New(0)
	told, err := bus.Subscribe(event.Want{})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	q := queue.New(queue.Settings{Concurrent: 8}, l, func(_ context.Context, _ model.Download, r queue.Reporter) error {
		r.Resolved("c0ffee", 10)
		r.Stage(model.Downloading)
		r.Progress(10)
		r.Stage(model.Verifying)
		r.Completed("/here")
		return nil
	}, bus)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- q.Run(ctx) }()
	fill(t, q, 50)
	for completed := 0; completed < 50; {
		events, err := told.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if c, ok := e.Data.(event.Change); ok && c.To == model.Completed {
				completed++
			}
		}
	}
	stop()
	<-ended
	done, err := l.History(t.Context(), 0, 0)
	if err != nil || len(done) != 50 || len(q.List()) != 0 {
		t.Fatalf("%d completed, %d are left, %v", len(done), len(q.List()), err)
	}
	for _, d := range done {
		if d.State != model.Completed || d.Path != "/here" || d.Commit != "c0ffee" || d.Done != 10 || d.Tries < 1 { // more when it gave way to a critical one
			t.Errorf("stored is %+v", d)
		}
	}
}

func BenchmarkList(b *testing.B) {
	b.Run("waiting=1000", func(b *testing.B) {
		q := filled(b, 1000)
		for b.Loop() {
			if len(q.List()) != 1000 {
				b.Fatal("not all are there")
			}
		}
	})
}

func BenchmarkPrioritize(b *testing.B) {
	b.Run("waiting=1000", func(b *testing.B) {
		q := filled(b, 1000)
		id, p := q.List()[500].ID, model.LowPriority
		for b.Loop() {
			p = -p
			if _, err := q.Prioritize(b.Context(), p, id); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	b.Run("waiting=1000", func(b *testing.B) {
		l := openLedger(b, filepath.Join(b.TempDir(), "ema.db"))
		fill(b, queue.New(queue.Settings{}, l, never, nobody{}), 1000)
		for b.Loop() {
			if err := queue.New(queue.Settings{}, l, never, nobody{}).Load(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkAdd adds to a real ledger, from as many as ask at once.
func BenchmarkAdd(b *testing.B) {
	for _, clients := range []int{1, 16} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			q := queue.New(queue.Settings{Size: 1 << 30}, openLedger(b, filepath.Join(b.TempDir(), "ema.db")), never, nobody{})
			work := make(chan int)
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for i := range work {
						if _, _, err := q.Add(b.Context(), model.Download{Model: model.ID{Name: fmt.Sprint(i)}}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			i := 0
			for b.Loop() {
				work <- i
				i++
			}
			close(work)
			all.Wait()
		})
	}
}

// filled has n downloads in a ledger that takes no time.
func filled(b *testing.B, n int) *queue.Queue {
	q := queue.New(queue.Settings{}, instant{&memory{byID: map[string]model.Download{}}}, never, nobody{})
	fill(b, q, n)
	return q
}
