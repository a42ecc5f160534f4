package event

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

func subscribe(t *testing.T, b *Bus, w Want) *Subscription {
	t.Helper()
	s, err := b.Subscribe(w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func next(t *testing.T, s *Subscription) []Event {
	t.Helper()
	events, err := s.Next(t.Context())
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	return events
}

func progress(download string, done model.Bytes) Event {
	return Event{Kind: KindProgress, Download: download, Data: Progress{Done: done}}
}

func change(download string, to model.State) Event {
	return Event{Kind: KindState, Download: download, Data: Change{To: to}}
}

// brief names events as "download:what" for comparison.
func brief(events []Event) string {
	var all []string
	for _, e := range events {
		switch d := e.Data.(type) {
		case Progress:
			all = append(all, fmt.Sprintf("%s:%d", e.Download, d.Done))
		case Change:
			all = append(all, fmt.Sprintf("%s:%s", e.Download, d.To))
		case Move:
			all = append(all, fmt.Sprintf("%s:%s:%d", e.Model, d.State, d.Done))
		default:
			all = append(all, string(e.Kind))
		}
	}
	return fmt.Sprint(all)
}

func TestNextReturnsAllThatWaitInTheOrderOfTelling(t *testing.T) {
	b := New(0)
	s := subscribe(t, b, Want{})
	b.Tell(change("a", model.Queued))
	b.Tell(progress("a", 1))
	b.Tell(change("b", model.Queued))
	events := next(t, s)
	if got, want := brief(events), "[a:queued a:1 b:queued]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for i, e := range events {
		if e.At.IsZero() || e.At.Location() != time.UTC || i > 0 && e.Seq <= events[i-1].Seq {
			t.Errorf("event %d has number %d and time %v", i, e.Seq, e.At)
		}
	}
}

func TestProgressOfADownloadReplacesItsOlderProgressAndKeepsTheOrder(t *testing.T) {
	b := New(0)
	s := subscribe(t, b, Want{})
	b.Tell(progress("a", 1))
	b.Tell(progress("b", 1))
	b.Tell(change("a", model.Paused))
	b.Tell(progress("a", 2))
	b.Tell(progress("a", 3))
	if got, want := brief(next(t, s)), "[b:1 a:paused a:3]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	b.Tell(progress("a", 4))
	if got, want := brief(next(t, s)), "[a:4]"; got != want {
		t.Errorf("got %s afterwards, want %s", got, want)
	}
}

func move(name, state string, done model.Bytes) Event {
	return Event{Kind: KindMove, Model: model.ID{Name: name}, Data: Move{State: state, Done: done}}
}

func TestOfAMoveOnlyTheNewestFigureIsKeptAndEveryChange(t *testing.T) {
	b := New(0)
	s := subscribe(t, b, Want{Queue: 4})
	first := b.Seq()
	b.Tell(move("a", MoveWaiting, 0))
	for i := range 100 {
		b.Tell(move("a", MoveMoving, model.Bytes(i)))
		b.Tell(move("b", MoveMoving, model.Bytes(i)))
		b.Tell(progress("a", model.Bytes(i))) // a download's is not a move's
	}
	b.Tell(move("a", MoveDone, 100))
	if got, want := brief(next(t, s)), "[a:waiting:0 a:moving:99 b:moving:99 a:99 a:done:100]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := brief(next(t, subscribe(t, b, Want{Since: first}))), "[a:waiting:0 a:done:100]"; got != want {
		t.Errorf("repeated are %s, want %s", got, want)
	}
}

func TestOfABenchmarkOnlyTheNewestFigureIsKeptAndItsEnd(t *testing.T) {
	b := New(0)
	s, first := subscribe(t, b, Want{Queue: 1}), b.Seq()
	for i := range 100 {
		b.Tell(Event{Kind: KindBench, Data: Benchmark{ID: "a", State: BenchmarkRunning, Part: float64(i) / 100}})
	}
	b.Tell(Event{Kind: KindBench, Data: Benchmark{ID: "a", State: BenchmarkFailed, Error: "why"}})
	told := next(t, s)
	if len(told) != 2 || told[0].Data.(Benchmark).Part != 0.99 || told[1].Data.(Benchmark).State != BenchmarkFailed {
		t.Errorf("told: %+v", told)
	}
	if again := next(t, subscribe(t, b, Want{Since: first})); len(again) != 1 || again[0].Data.(Benchmark).Error != "why" {
		t.Errorf("repeated: %+v", again)
	}
}

func TestProgressNeverFillsTheQueue(t *testing.T) {
	b := New(0)
	s := subscribe(t, b, Want{Queue: 2})
	for i := range 1000 {
		b.Tell(progress(fmt.Sprint(i%7), model.Bytes(i)))
	}
	b.Tell(change("a", model.Queued))
	b.Tell(change("a", model.Resolving))
	if got, want := brief(next(t, s)), "[0:994 1:995 a:queued a:resolving]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestASlowSubscriberIsCutOffAndResumesWithoutAHole(t *testing.T) {
	const told = 25
	b := New(20)
	slow, quick := subscribe(t, b, Want{Queue: 10}), subscribe(t, b, Want{})
	var all []Event
	for i := range told {
		b.Tell(change(fmt.Sprint(i), model.Queued))
		all = append(all, next(t, quick)...)
	}
	seen := next(t, slow)
	if _, err := slow.Next(t.Context()); len(seen) != 10 || !errors.Is(err, ErrSlow) {
		t.Fatalf("read %d events, then %v; want 10, then ErrSlow", len(seen), err)
	}
	b.Tell(change("not for it", model.Queued))
	if _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlow) {
		t.Fatalf("Next later: %v, want ErrSlow still", err)
	}
	all = append(all, next(t, quick)...)
	again := subscribe(t, b, Want{Since: seen[len(seen)-1].Seq})
	b.Tell(change("new", model.Queued))
	all = append(all, next(t, quick)...)
	if got := append(seen, next(t, again)...); brief(got) != brief(all) {
		t.Errorf("read %s, want %s", brief(got), brief(all))
	}
}

func TestWhatIsRepeatedTakesNoRoomFromWhatComes(t *testing.T) {
	b := New(0)
	first := subscribe(t, b, Want{})
	for i := range 10 {
		b.Tell(change(fmt.Sprint(i), model.Queued))
	}
	s := subscribe(t, b, Want{Since: next(t, first)[0].Seq, Queue: 2})
	b.Tell(change("new", model.Queued))
	b.Tell(change("newer", model.Queued))
	if events := next(t, s); len(events) != 11 || events[10].Download != "newer" {
		t.Errorf("got %s, want 9 repeated and 2 new", brief(events))
	}
}

func TestResumingAfterWhatIsNoLongerKeptIsRefused(t *testing.T) {
	b := New(3)
	s := subscribe(t, b, Want{})
	for i := range 5 {
		b.Tell(change(fmt.Sprint(i), model.Queued))
		b.Tell(progress("p", model.Bytes(i))) // is not kept, and so pushes nothing out
	}
	var seq []uint64
	for _, e := range next(t, s) {
		if e.Kind == KindState {
			seq = append(seq, e.Seq)
		}
	}
	if _, err := b.Subscribe(Want{Since: seq[0]}); !errors.Is(err, ErrGone) {
		t.Errorf("since the first: %v, want ErrGone, since the second is no longer kept", err)
	}
	if got, want := brief(next(t, subscribe(t, b, Want{Since: seq[1]}))), "[2:queued 3:queued 4:queued]"; got != want {
		t.Errorf("since the second: %s, want %s", got, want)
	}
	only := Want{Since: seq[1], Filter: func(e Event) bool { return e.Download == "3" }}
	if got, want := brief(next(t, subscribe(t, b, only))), "[3:queued]"; got != want {
		t.Errorf("since the second, filtered: %s, want %s", got, want)
	}
}

func TestResumingWithANumberOfAnotherBusIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := New(0)
		s := subscribe(t, before, Want{})
		before.Tell(change("a", model.Queued))
		last := next(t, s)[0].Seq

		time.Sleep(time.Minute) // the restart
		after := New(0)
		if _, err := after.Subscribe(Want{Since: last}); !errors.Is(err, ErrGone) {
			t.Errorf("a number of the bus before the restart: %v, want ErrGone", err)
		}
		if _, err := after.Subscribe(Want{Since: last + 1<<40}); !errors.Is(err, ErrGone) {
			t.Errorf("a number not reached yet: %v, want ErrGone", err)
		}
	})
}

func TestTheNewestNumberBeginsWithAllThatIsToldFromNowOn(t *testing.T) {
	b := New(0)
	for _, download := range []string{"a", "b"} {
		s, now := subscribe(t, b, Want{}), b.Seq()
		b.Tell(change(download, model.Queued))
		told := next(t, s)
		if got := next(t, subscribe(t, b, Want{Since: now})); brief(got) != brief(told) {
			t.Errorf("since %d: %s, want %s", now, brief(got), brief(told))
		}
		if b.Seq() != told[0].Seq {
			t.Errorf("the newest number is %d, want %d", b.Seq(), told[0].Seq)
		}
	}
}

func TestNextWaitsUntilSomethingIsToldClosedOrCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(0)
		s := subscribe(t, b, Want{Filter: func(e Event) bool { return e.Kind == KindState }})
		begin := time.Now()
		time.AfterFunc(time.Second, func() { b.Tell(progress("a", 1)) }) // is not wanted
		time.AfterFunc(2*time.Second, func() { b.Tell(change("a", model.Queued)) })
		if events := next(t, s); time.Since(begin) != 2*time.Second || len(events) != 1 {
			t.Errorf("%d events after %v, want 1 after 2s", len(events), time.Since(begin))
		}

		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("the client went away")
		time.AfterFunc(time.Second, func() { cancel(why) })
		if _, err := s.Next(ctx); !errors.Is(err, why) {
			t.Errorf("Next, cancelled: %v, want its cause", err)
		}

		time.AfterFunc(time.Second, s.Close)
		if _, err := s.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Next, closed: %v, want ErrClosed", err)
		}
		b.Tell(change("a", model.Paused)) // harms nobody
		if len(b.subscribers) != 0 {
			t.Error("the bus still knows a closed subscription")
		}
	})
}

func TestManyTellersAndReadersLoseNothing(t *testing.T) {
	const tellers, each = 8, 200
	b := New(0)
	var telling, reading sync.WaitGroup
	for range 4 {
		s := subscribe(t, b, Want{})
		reading.Go(func() {
			last, changes := uint64(0), 0
			for changes < tellers*each {
				events, err := s.Next(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range events {
					if e.Seq <= last {
						t.Errorf("event %d after %d", e.Seq, last)
					}
					last = e.Seq
					if e.Kind == KindState {
						changes++
					}
				}
			}
		})
	}
	for i := range tellers {
		telling.Go(func() {
			for j := range each {
				b.Tell(progress(fmt.Sprint(i), model.Bytes(j)))
				b.Tell(change(fmt.Sprint(i), model.Queued))
			}
		})
	}
	telling.Wait()
	reading.Wait()
}

// TestWhateverHappensAReaderSeesEveryChangeOnceAndInOrder tells, reads and resumes at random, against
// a plain list of all that was told.
func TestWhateverHappensAReaderSeesEveryChangeOnceAndInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keep, queue := rapid.IntRange(1, 20).Draw(t, "keep"), rapid.IntRange(1, 20).Draw(t, "queue")
		b := New(keep)
		s, err := b.Subscribe(Want{Queue: queue})
		if err != nil {
			t.Fatal(err)
		}
		var told, seen []string // changes only
		newest := map[string]model.Bytes{}
		count := 0
		last := b.seq

		read := func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // read what is there, do not wait
			for {
				events, err := s.Next(ctx)
				for _, e := range events {
					if e.Seq <= last {
						t.Fatalf("event %d after %d", e.Seq, last)
					}
					last = e.Seq
					switch d := e.Data.(type) {
					case Change:
						seen = append(seen, e.Download)
					case Progress:
						if d.Done > newest[e.Download] {
							t.Fatalf("progress %d of %s was never told", d.Done, e.Download)
						}
					}
				}
				switch {
				case err == nil:
					continue
				case errors.Is(err, context.Canceled):
					return
				case !errors.Is(err, ErrSlow):
					t.Fatal(err)
				}
				if s, err = b.Subscribe(Want{Since: last, Queue: queue}); err == nil {
					continue
				}
				if missed := len(told) - len(seen); !errors.Is(err, ErrGone) || missed <= keep {
					t.Fatalf("resume: %v, with %d missed of %d kept", err, missed, keep)
				}
				seen = append([]string(nil), told...) // it reads the present state instead
				last = b.seq
				if s, err = b.Subscribe(Want{Queue: queue}); err != nil {
					t.Fatal(err)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				for range rapid.IntRange(1, 30).Draw(t, "times") {
					count++
					told = append(told, fmt.Sprint(count))
					b.Tell(change(fmt.Sprint(count), model.Queued))
				}
			},
			"progress": func(t *rapid.T) {
				d := rapid.SampledFrom([]string{"x", "y"}).Draw(t, "download")
				newest[d]++
				b.Tell(progress(d, newest[d]))
			},
			"read": func(*rapid.T) { read() },
			"": func(*rapid.T) {
				if len(s.queue) > s.room || len(s.progress) > 2 || len(b.kept) > keep {
					t.Fatalf("%d wait in room for %d, %d progress, %d kept", len(s.queue), s.room, len(s.progress), len(b.kept))
				}
			},
		})
		read()
		if fmt.Sprint(seen) != fmt.Sprint(told) {
			t.Fatalf("saw %v of %v", seen, told)
		}
	})
}
