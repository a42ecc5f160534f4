package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ema/client"
	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/store"
)

// write puts a file of another tool below dir.
func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

// bring makes a model as another tool would.
func bring(t *testing.T, hubDir string, id model.ID) {
	t.Helper()
	dir := filepath.Join(hubDir, id.DirName())
	write(t, dir, "refs/main", commit(1))
	write(t, dir, "snapshots/"+commit(1)+"/config.json", "{}")
}

func TestWhatOthersDoInTheFolderIsSeenByTheNextLook(t *testing.T) {
	id, other := hub("org/name"), hub("org/other")
	dir := func(s *store.Store) string { return filepath.Join(s.Path(), id.DirName()) }
	for promise, c := range map[string]struct {
		do   func(t *testing.T, s *store.Store)
		want string // how the model stands then
		told int    // its revisions
	}{
		"a model comes": {func(t *testing.T, s *store.Store) { bring(t, s.Path(), hub("org/third")) }, client.AvailabilityAvailable, 1},
		"a model goes":  {func(t *testing.T, s *store.Store) { remove(t, dir(s)) }, "", 0},
		"a revision comes": {func(t *testing.T, s *store.Store) {
			write(t, dir(s), "snapshots/"+commit(2)+"/config.json", "{}")
		}, client.AvailabilityAvailable, 2},
		"a revision goes": {func(t *testing.T, s *store.Store) {
			remove(t, filepath.Join(dir(s), "snapshots", commit(1)))
		}, client.AvailabilityPartial, 1},
		"a ref comes, deep": {func(t *testing.T, s *store.Store) { write(t, dir(s), "refs/pr/1", commit(3)) }, client.AvailabilityAvailable, 2},
		"a ref moves": {func(t *testing.T, s *store.Store) {
			write(t, dir(s), "refs/new", commit(2))
			if err := os.Rename(filepath.Join(dir(s), "refs/new"), filepath.Join(dir(s), "refs/main")); err != nil {
				t.Fatal(err)
			}
		}, client.AvailabilityAvailable, 2},
		"a file goes": {func(t *testing.T, s *store.Store) {
			remove(t, filepath.Join(dir(s), "snapshots", commit(1), "config.json"))
			write(t, dir(s), "refs/v1", commit(1))
		}, client.AvailabilityAvailable, 1},
		"the whole store goes": {func(t *testing.T, s *store.Store) { remove(t, s.Path()) }, "", 0},
	} {
		t.Run(promise, func(t *testing.T) {
			s := store.New(store.Settings{Path: filepath.Join(t.TempDir(), "hub")})
			bring(t, s.Path(), id)
			bring(t, s.Path(), other)
			w := newWorld(t)
			set := w.settings(1 << 62)
			set.Store = s
			m := New(set)
			m.following.Store(true) // as while it runs, but who looks is this test
			m.mark(model.ID{})
			var f folders
			see := func() (client.ModelStatus, int) {
				m.looked.Store(int64(m.now())) // no request waits for a look
				all := ask[client.Statuses](t, m.ServeStatus)
				return all.Models[id.Public()], len(all.Models)
			}
			if got, n := see(); got.Availability != client.AvailabilityAvailable || n != 2 {
				t.Fatalf("at first there are %d, and it is %q", n, got.Availability)
			}
			m.look(t.Context(), &f)
			c.do(t, s)
			m.look(t.Context(), &f)
			got, n := see()
			if got.Availability != c.want || len(got.Revisions) != c.told {
				t.Errorf("it is %q with %d revisions, want %q with %d", got.Availability, len(got.Revisions), c.want, c.told)
			}
			set.Caching = false
			if all := ask[client.Statuses](t, New(set).ServeStatus); len(all.Models) != n {
				t.Errorf("%d models are told, want the %d that are there", n, len(all.Models))
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func TestALookAtWhatHasNotChangedLeavesTheAnswer(t *testing.T) {
	s := store.New(store.Settings{Path: filepath.Join(t.TempDir(), "hub")})
	id := hub("org/name")
	bring(t, s.Path(), id)
	w := newWorld(t)
	set := w.settings(1 << 62)
	set.Store = s
	m := New(set)
	m.following.Store(true)
	m.mark(model.ID{})
	var f folders
	tag := ""
	for range 3 { // the first looks come so soon after the files that these may still change without a trace
		m.look(t.Context(), &f)
		got := answered(m.ServeStatus).Header().Get("Etag")
		if tag != "" && got != tag {
			t.Errorf("the tag went from %s to %s", tag, got)
		}
		tag = got
	}
	if m.page.Load().held != 1 {
		t.Errorf("the store is said to have changed %d times, want once: when it was found", m.page.Load().held)
	}
}

func TestAFileThatMayStillChangeWithoutATraceIsLookedAtAgain(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "blobs/x", "")
	s := stampOf(dir)
	changed := s.stood[0].changed
	at := func(after int64) bool { return s.racy(time.Unix(0, changed+after)) }
	if !at(0) || !at(int64(settles)-1) || at(int64(settles)) || !at(-1) || at(-int64(3*settles)) {
		t.Errorf("racy right away %v, before it settles %v, then %v, a little in the future %v, far in it %v", at(0), at(int64(settles)-1), at(int64(settles)), at(-1), at(-int64(3*settles)))
	}
}

func TestAChangeIsSeenByItsTraceAndWithoutOneWhereTheClockIsTooCoarseForIt(t *testing.T) {
	for promise, age := range map[string]time.Duration{
		"of what is old":   time.Hour,
		"of what is young": -settles / 2, // of the future, so that this test may be slow
	} {
		t.Run(promise, func(t *testing.T) {
			s := store.New(store.Settings{Path: filepath.Join(t.TempDir(), "hub")})
			id := hub("org/name")
			bring(t, s.Path(), id)
			write(t, s.Path(), id.DirName()+"/blobs/x", "x")
			at := time.Now().Add(-age)
			stand := func() {
				if err := filepath.WalkDir(s.Path(), func(path string, _ os.DirEntry, err error) error {
					return errors.Join(err, os.Chtimes(path, at, at))
				}); err != nil {
					t.Fatal(err)
				}
			}
			stand()
			w := newWorld(t)
			set := w.settings(1 << 62)
			set.Store = s
			m := New(set)
			m.following.Store(true)
			f := m.folders()
			m.look(t.Context(), &f)
			ask[client.Statuses](t, m.ServeStatus)
			m.look(t.Context(), &f)
			write(t, s.Path(), id.DirName()+"/snapshots/"+commit(1)+"/more.json", "{}")
			if age < 0 {
				stand()
			}
			m.look(t.Context(), &f)
			m.looked.Store(int64(m.now()))
			if got := ask[client.Statuses](t, m.ServeStatus).Models[id.Public()].Revisions; len(got) != 1 || got[0].Files != 2 {
				t.Errorf("it has %+v, want 2 files", got)
			}
		})
	}
}

// A late store answers with what it held when it was asked, once it is let go.
type late struct {
	*world
	asked, free chan struct{}
	first       *atomic.Bool // later questions are answered at once
}

func (l late) Models(ctx context.Context) ([]store.Model, error) {
	all, err := l.world.Models(ctx)
	if l.first.CompareAndSwap(false, true) {
		close(l.asked)
		<-l.free
	}
	return all, err
}

func TestWhatIsToldDuringALookAtEverythingIsNewerThanIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, comes, goes, silent := many(t, 3), hub("org/comes"), hub("org/goes"), hub("org/silent")
		w.models[goes] = whole(goes)
		m := New(w.settings(time.Hour))
		defer start(m)()
		w.do(func() { w.models[silent] = whole(silent) })
		l := newLate(w)
		m.set.Store = l
		var looking sync.WaitGroup
		looking.Go(func() { m.survey(t.Context(), news{all: true}) })
		<-l.asked
		w.put(whole(comes))
		w.drop(goes)
		for _, when := range []string{"during the look", "after it"} {
			if c, g := availability(t, m, comes), availability(t, m, goes); c != client.AvailabilityAvailable || g != "" {
				t.Errorf("%s, what has come is %q and what has gone is %q", when, c, g)
			}
			if when == "during the look" {
				close(l.free)
				looking.Wait()
			}
		}
		if got := availability(t, m, silent); got != client.AvailabilityAvailable {
			t.Errorf("what came without a word before the look is %q after it", got)
		}
	})
}

func newLate(w *world) late {
	return late{world: w, asked: make(chan struct{}), free: make(chan struct{}), first: new(atomic.Bool)}
}

func TestWhatWasSeenAfterACollectionIsNewerThanALookThatBeganBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := many(t, 3), hub("org/goes")
		w.models[id] = whole(id)
		m := New(w.settings(time.Hour))
		defer start(m)()
		l := newLate(w)
		m.set.Store = l
		var looking sync.WaitGroup
		looking.Go(func() { m.survey(t.Context(), news{all: true}) })
		<-l.asked
		w.do(func() { delete(w.models, id) })
		w.bus.Tell(event.Event{Kind: event.KindStored, Data: event.Stored{Why: "collected"}})
		for _, when := range []string{"during the look", "after it"} {
			if got := availability(t, m, id); got != "" {
				t.Errorf("%s, what was collected is %q", when, got)
			}
			if when == "during the look" {
				close(l.free)
				looking.Wait()
			}
		}
	})
}

func TestNobodyWaitsForALookAtEverythingThatNoEventDemands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := many(t, 3), hub("org/goes")
		w.models[id] = whole(id)
		folder := filepath.Join(w.path, id.DirName())
		if err := os.Mkdir(folder, 0o777); err != nil {
			t.Fatal(err)
		}
		m := New(w.settings(time.Hour))
		defer start(m)()
		answered(m.ServeStatus)
		time.Sleep(lookEvery)
		gate := make(chan struct{})
		let := sync.OnceFunc(func() { close(gate) })
		defer let()
		w.do(func() {
			delete(w.models, id)
			w.gate = gate
		})
		remove(t, folder)
		waited, scans := time.Duration(0), w.scans.Load()
		for range 100 {
			begun := time.Now()
			if got := availability(t, m, id); got != client.AvailabilityAvailable {
				t.Fatalf("before anybody has seen that it is gone, it is %q", got)
			}
			waited += time.Since(begun)
			time.Sleep(100 * time.Millisecond)
		}
		if waited != 0 || w.scans.Load() != scans+1 {
			t.Errorf("100 requests waited %v in all for %d looks, want 0s for one that is under way", waited, w.scans.Load()-scans)
		}
		let()
		synctest.Wait()
		if got := availability(t, m, id); got != "" {
			t.Errorf("once the look is over, it is %q", got)
		}
	})
}

func TestAModelThatComesBetweenTheStartAndTheFirstLookIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := many(t, 3), hub("org/name")
		m := New(w.settings(48 * time.Hour))
		defer start(m)()
		time.Sleep(8 * time.Hour)
		if err := os.Mkdir(filepath.Join(w.path, id.DirName()), 0o777); err != nil {
			t.Fatal(err)
		}
		w.do(func() { w.models[id] = whole(id) })
		if got := availability(t, m, id); got != client.AvailabilityAvailable {
			t.Errorf("it is %q", got)
		}
	})
}

func TestTheFirstRequestAfterAQuietNightSeesWhatOthersDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := many(t, 3), hub("org/name")
		m := New(w.settings(48 * time.Hour))
		defer start(m)()
		answered(m.ServeStatus)
		time.Sleep(8 * time.Hour)
		if err := os.Mkdir(filepath.Join(w.path, id.DirName()), 0o777); err != nil {
			t.Fatal(err)
		}
		w.do(func() { w.models[id] = whole(id) })
		if got := availability(t, m, id); got != client.AvailabilityAvailable {
			t.Errorf("it is %q", got)
		}
	})
}

func TestADiskThatHangsDelaysARequestByATenthOfASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := many(t, 3)
		m := New(w.settings(time.Hour))
		m.following.Store(true)
		m.looked.Store(int64(m.now())) // and nobody looks any more
		answered(m.ServeStatus)
		time.Sleep(time.Hour)
		begun := time.Now()
		if got := answered(m.ServeStatus); got.Code != 200 || time.Since(begun) != lookPatience {
			t.Errorf("answered %d after %v, want 200 after %v", got.Code, time.Since(begun), lookPatience)
		}
	})
}
