package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"ema/client"
	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/store"
)

// TestWhateverHappensAnAnswerIsWhatAComputationFromNothingGives changes the store and the queue at random, and compares
// each answer with one that was computed from nothing. A tag stands for the same bytes for ever.
func TestWhateverHappensAnAnswerIsWhatAComputationFromNothingGives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := t.TempDir()
		rapid.Check(struct{ testing.TB }{t}, func(t *rapid.T) { // without the deadline, of which a bubble knows nothing
			w := &world{path: path, bus: event.New(0), models: map[model.ID]store.Model{}, figures: map[string]Figures{}}
			m := New(w.settings(time.Hour))
			defer start(m)()
			ids := []model.ID{hub("a/a"), hub("b/b"), hub("c/c"), {Scheme: model.HTTPS, Name: "https://h/x?s=1"}, {Scheme: model.HTTPS, Name: "https://h/x?s=2"}}
			which := func(t *rapid.T) model.ID { return rapid.SampledFrom(ids).Draw(t, "model") }
			state := rapid.SampledFrom([]store.State{store.Available, store.Unverified, store.Incomplete, store.Damaged})
			tags := map[string]string{}
			last := map[string]string{} // bodies by what was asked
			check := func(name string, cached, naive http.HandlerFunc) {
				got, want := answered(cached), answered(naive)
				if got.Code != want.Code || got.Body.String() != want.Body.String() {
					t.Fatalf("%s is answered with %d\n%s\nwant %d\n%s", name, got.Code, got.Body, want.Code, want.Body)
				}
				tag := got.Header().Get("Etag")
				if tag == "" {
					delete(last, name) // it is gone: if it comes back, that is a change
					return
				}
				if body, known := tags[tag]; known && body != got.Body.String() {
					t.Fatalf("the tag %s stood for other bytes", tag)
				}
				tags[tag] = got.Body.String()
				if was, asked := last[name]; asked && tags[was] == got.Body.String() && was != tag {
					t.Fatalf("%s has not changed, but its tag has", name)
				}
				last[name] = tag
			}
			n := 0
			t.Repeat(map[string]func(*rapid.T){
				"store": func(t *rapid.T) {
					m := stored(which(t), state.Draw(t, "state"), rapid.SliceOfN(state, 0, 3).Draw(t, "files")...)
					m.Revisions[0].Refs = rapid.SampledFrom([][]string{{}, {"main"}, {"main", "v1"}}).Draw(t, "refs")
					w.put(m)
				},
				"remove": func(t *rapid.T) { w.drop(which(t)) },
				"download": func(t *rapid.T) {
					n++
					w.move(dl(fmt.Sprint("dl_", n), which(t), model.Queued))
				},
				"move": func(t *rapid.T) {
					if len(w.downloads) == 0 {
						return
					}
					d := rapid.SampledFrom(w.downloads).Draw(t, "download")
					d.State = rapid.SampledFrom([]model.State{model.Resolving, model.Downloading, model.Verifying, model.Paused, model.Retrying, model.Queued, model.Completed, model.Failed, model.Stopped}).Draw(t, "to")
					d.Reason = rapid.SampledFrom([]string{"", "the origin is gone"}).Draw(t, "reason")
					if d.State == model.Completed {
						w.do(func() { w.models[d.Model] = whole(d.Model) })
					}
					w.move(d)
				},
				"progress": func(t *rapid.T) {
					if len(w.downloads) == 0 {
						return
					}
					i := rapid.IntRange(0, len(w.downloads)-1).Draw(t, "download")
					done := model.Bytes(rapid.IntRange(0, 8<<20).Draw(t, "done"))
					if rapid.Bool().Draw(t, "told") {
						w.do(func() { w.figures[w.downloads[i].ID] = Figures{Done: done, Total: 8 * model.MiB, Rate: 1} })
						w.bus.Tell(event.Event{Kind: event.KindProgress, Download: w.downloads[i].ID, Model: w.downloads[i].Model})
					} else {
						w.do(func() { w.downloads[i].Done = done })
					}
					time.Sleep(progressEvery) // of the bubble: it may be that old
				},
				"wait": func(*rapid.T) { time.Sleep(3 * time.Second) },
				"": func(*rapid.T) {
					naive := w.naive()
					check("all", m.ServeStatus, naive.ServeStatus)
					check("storage", m.ServeStorage, naive.ServeStorage)
					for _, id := range ids {
						check(id.Public(), func(rw http.ResponseWriter, r *http.Request) { m.ServeModel(rw, r, id) },
							func(rw http.ResponseWriter, r *http.Request) { naive.ServeModel(rw, r, id) })
					}
				},
			})
		})
	})
}

func TestARequestAfterAnEventNeverSeesTheOldState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := many(t, 20), hub("org/name")
		m := New(w.settings(time.Hour))
		defer start(m)()
		var told atomic.Int64
		var tellers, readers sync.WaitGroup
		over := make(chan struct{})
		tellers.Go(func() {
			for v := range int64(500) {
				w.put(store.Model{ID: id, Size: model.Bytes(v)})
				told.Store(v)
			}
		})
		tellers.Go(func() {
			for range 500 {
				w.bus.Tell(event.Event{Kind: event.KindProgress, Download: "dl_1", Model: id})
				w.move(dl("dl_1", hub("other/name"), model.Downloading))
			}
		})
		for range 4 {
			readers.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
					}
					v := told.Load()
					got := ask[client.Statuses](t, m.ServeStatus)
					if one := got.Models[id.Public()]; one.SizeBytes < v {
						t.Errorf("a request after version %d sees %d", v, one.SizeBytes)
						return
					}
				}
			})
		}
		tellers.Wait()
		close(over)
		readers.Wait()
	})
}

// An interrupted store is told of while it is looked at.
type interrupted struct {
	*world
	model, plan func() // called when the facts are read and not yet handed out
}

func (i interrupted) Model(id model.ID) (store.Model, error) {
	defer i.model()
	return i.world.Model(id)
}

func (i interrupted) PlanCollect(age time.Duration, now time.Time) (store.Removal, error) {
	defer i.plan()
	return i.world.PlanCollect(age, now)
}

func TestWhatHappensWhileAnAnswerIsMadeIsInTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := many(t, 3), hub("org/name")
		m := New(w.settings(time.Hour))
		defer start(m)()
		var once sync.Once
		m.set.Store = interrupted{w, func() { once.Do(func() { w.put(whole(id)) }) }, func() {}}
		w.put(stored(id, store.Incomplete, store.Incomplete))
		answered(m.ServeStatus)
		if got := availability(t, m, id); got != client.AvailabilityAvailable {
			t.Errorf("it is %q, want what it became meanwhile", got)
		}
	})
}

func TestProgressIsEncodedAtMostEvery200MillisecondsAndChangesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := newWorld(t), hub("org/name")
		w.downloads = []model.Download{dl("dl_1", id, model.Downloading)}
		m := New(w.settings(time.Hour))
		defer start(m)()
		at := func(done model.Bytes) {
			w.do(func() { w.figures["dl_1"] = Figures{Done: done, Total: 100} })
			w.bus.Tell(event.Event{Kind: event.KindProgress, Download: "dl_1", Model: id})
		}
		percent := func() float64 { return *ask[client.Statuses](t, m.ServeStatus).Models[id.Public()].DownloadProgress }
		time.Sleep(time.Minute)
		at(10)
		if got := percent(); got != 10 {
			t.Errorf("after a quiet minute: %v %%, want the newest 10", got)
		}
		at(20)
		time.Sleep(progressEvery - 1)
		if got := percent(); got != 10 {
			t.Errorf("right before the time: %v %%, want the encoded 10", got)
		}
		time.Sleep(time.Nanosecond)
		if got := percent(); got != 20 {
			t.Errorf("after the time: %v %%, want 20", got)
		}
		at(30)
		w.move(dl("dl_2", hub("another/one"), model.Queued))
		if got := percent(); got != 30 {
			t.Errorf("after a change of state: %v %%, want all that is known, 30", got)
		}
	})
}

func TestOneProgressingDownloadLeavesTheBytesOfAllOthers(t *testing.T) {
	w, id := many(t, 100), hub("org/name")
	w.downloads = []model.Download{dl("dl_1", id, model.Downloading)}
	m := New(w.settings(time.Hour))
	pageNow := func(old *page) *page {
		p, err := m.make(t.Context(), old)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := pageNow(nil)
	w.downloads[0].Done++
	if same := pageNow(first); &same.body[0] != &first.body[0] {
		t.Error("what rounds to the same was spliced again under another tag")
	}
	w.downloads[0].Done *= 2
	second, others := pageNow(first), 0
	for i, f := range second.fragments {
		if f == first.fragments[i] {
			others++
		}
	}
	if others != 100 || second.tag[0] == first.tag[0] {
		t.Errorf("%d fragments of 100 others were taken over; tags %s and %s", others, first.tag, second.tag)
	}
}

func TestManyWhoAskAtOnceCauseOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := many(t, 3)
		m := New(w.settings(time.Hour))
		defer start(m)()
		before := w.scans.Load()
		for what, broken := range map[string]error{"a whole store": nil, "a broken one": errors.New("the disk is gone")} {
			gate := make(chan struct{})
			w.do(func() { w.gate, w.broken = gate, broken })
			w.bus.Tell(event.Event{Kind: event.KindStored, Data: event.Stored{Why: "collected"}})
			var readers sync.WaitGroup
			var refused atomic.Int64
			for range 50 {
				readers.Go(func() {
					if answered(m.ServeStatus).Code != http.StatusOK {
						refused.Add(1)
					}
				})
			}
			synctest.Wait()
			close(gate)
			readers.Wait()
			if got := w.scans.Load() - before; got != 1 {
				t.Errorf("%s: 50 requests looked %d times, want once", what, got)
			}
			if want := map[bool]int64{true: 0, false: 50}[broken == nil]; refused.Load() != want {
				t.Errorf("%s: %d of 50 were refused, want %d", what, refused.Load(), want)
			}
			w.do(func() { w.gate, w.broken = nil, nil })
			time.Sleep(time.Nanosecond) // whoever comes at the time of a failure shares it
			if got := answered(m.ServeStatus); got.Code != http.StatusOK {
				t.Errorf("%s: afterwards %d %s", what, got.Code, got.Body)
			}
			before = w.scans.Load()
		}
	})
}

// A stuck writer takes nothing until it is let go.
type stuck struct {
	*httptest.ResponseRecorder
	free <-chan struct{}
}

func (s stuck) Write(p []byte) (int, error) {
	<-s.free
	return s.ResponseRecorder.Write(p)
}

func TestAStuckReaderDelaysNobodyAndGetsWhatItWasPromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := many(t, 3), hub("org/name")
		m := New(w.settings(time.Hour))
		defer start(m)()
		free := make(chan struct{})
		var reading sync.WaitGroup
		readers := map[string]stuck{}
		for name, serve := range map[string]http.HandlerFunc{"status": m.ServeStatus, "storage": m.ServeStorage} {
			readers[name] = stuck{httptest.NewRecorder(), free}
			reading.Go(func() { serve(readers[name], httptest.NewRequest(http.MethodGet, "/", http.NoBody)) })
			synctest.Wait()
		}
		begun := time.Now()
		for n := range 10 {
			w.put(store.Model{ID: id, Size: model.Bytes(n)})
			if got := ask[client.Statuses](t, m.ServeStatus).Models[id.Public()]; got.SizeBytes != int64(n) {
				t.Errorf("while somebody is stuck, version %d is answered with %d", n, got.SizeBytes)
			}
			ask[client.Storage](t, m.ServeStorage)
		}
		if time.Since(begun) != 0 {
			t.Errorf("others waited %v", time.Since(begun))
		}
		close(free)
		reading.Wait()
		for name, r := range readers {
			if !json.Valid(r.Body.Bytes()) || r.Header().Get("Content-Length") != fmt.Sprint(r.Body.Len()) || strings.Contains(r.Body.String(), "org/name") {
				t.Errorf("%s: the stuck reader got %s", name, r.Body)
			}
		}
	})
}

func TestWhoGivesUpWaitingIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := many(t, 1)
		m := New(w.settings(time.Hour))
		defer start(m)()
		gate := make(chan struct{})
		w.do(func() { w.gate = gate })
		w.bus.Tell(event.Event{Kind: event.KindStored})
		var first sync.WaitGroup
		first.Go(func() { answered(m.ServeStatus) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.current(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it got %v, want its own deadline", err)
		}
		close(gate)
		first.Wait()
	})
}

func TestAnIdleDaemonLooksAtNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := many(t, 3)
		m := New(w.settings(5 * time.Second))
		defer start(m)()
		answered(m.ServeStatus)
		time.Sleep(time.Minute)
		scans, looked := w.scans.Load(), m.looked.Load()
		time.Sleep(24 * time.Hour)
		if w.scans.Load() != scans || m.looked.Load() != looked {
			t.Errorf("a day without requests caused %d looks at everything, and looks until %v", w.scans.Load()-scans, time.Duration(m.looked.Load()))
		}
	})
}

func TestWhatNobodyTellsIsSeenWithinTheTTLWhileSomebodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 5 * time.Second
		w, id := many(t, 3), hub("org/name")
		m := New(w.settings(ttl))
		defer start(m)()
		for range 3 {
			answered(m.ServeStatus)
			time.Sleep(time.Second)
		}
		begun := time.Now()
		w.do(func() { w.models[id] = whole(id) })
		for availability(t, m, id) == "" {
			if time.Since(begun) > ttl+lookEvery {
				t.Fatalf("it is not seen after %v", time.Since(begun))
			}
			time.Sleep(100 * time.Millisecond)
		}
		scans := w.scans.Load()
		for range 100 {
			answered(m.ServeStatus)
			time.Sleep(100 * time.Millisecond)
		}
		if got := w.scans.Load() - scans; got > 2 {
			t.Errorf("10 s of requests caused %d looks at everything, want one per %v", got, ttl)
		}
	})
}

func TestWithoutCachingEveryAnswerIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := many(t, 3), hub("org/name")
		m := New(w.settings(0))
		defer start(m)()
		if got := availability(t, m, id); got != "" {
			t.Fatalf("it is %s before it is there", got)
		}
		first := answered(m.ServeStatus).Header().Get("Etag")
		if again := answered(m.ServeStatus, "If-None-Match", first); again.Code != http.StatusNotModified {
			t.Errorf("unchanged bytes are answered with %d, want 304", again.Code)
		}
		w.do(func() { w.models[id] = whole(id) })
		if got := availability(t, m, id); got != client.AvailabilityAvailable {
			t.Errorf("it is %q without a word, want it seen", got)
		}
		m.Configure(true, time.Hour)
		w.do(func() { delete(w.models, id) })
		if got := availability(t, m, id); got != "" {
			t.Errorf("right after caching began it is %q, want what is", got)
		}
		m.Configure(false, time.Hour)
		w.do(func() { w.models[id] = whole(id) })
		if got := availability(t, m, id); got != client.AvailabilityAvailable {
			t.Errorf("after caching ended it is %q, want it seen", got)
		}
	})
}

func TestBeforeAndAfterRunAnswersAreMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := newWorld(t), hub("org/name")
		m := New(w.settings(time.Hour))
		w.do(func() { w.models[id] = whole(id) })
		if got := availability(t, m, id); got != client.AvailabilityAvailable {
			t.Errorf("before Run it is %q", got)
		}
		start(m)()
		w.do(func() { delete(w.models, id) })
		if got := availability(t, m, id); got != "" {
			t.Errorf("after Run it is %q, want it gone", got)
		}
	})
}

func TestOfManyFailuresTheOldestIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := New(w.settings(time.Hour))
		defer start(m)()
		for i := range mostFailures + 3 {
			d := dl(fmt.Sprint("dl_", i), hub(fmt.Sprintf("org/%03d", i)), model.Failed)
			d.Reason = "the origin is gone"
			w.move(d)
		}
		w.move(dl("dl_x", hub("org/050"), model.Queued))
		w.move(dl("dl_x", hub("org/050"), model.Stopped))
		got := ask[client.Statuses](t, m.ServeStatus).Models
		_, oldest := got["org/002"]
		_, again := got["org/050"]
		if len(got) != mostFailures-1 || oldest || again || got["org/102"].DownloadError != "the origin is gone" {
			t.Errorf("%d failures are told: %s", len(got), names(got))
		}
	})
}
