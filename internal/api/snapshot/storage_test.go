package snapshot

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ema/client"
	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/store"
)

func TestStorageTellsTheVolumeTheModelsAndWhatCouldGo(t *testing.T) {
	w := newWorld(t)
	small, large := hub("org/small"), hub("org/large")
	w.models[small] = stored(small, store.Available, store.Available)
	w.models[large] = stored(large, store.Available, store.Available, store.Available)
	w.downloads = []model.Download{dl("dl_1", hub("org/coming"), model.Queued)}
	w.plan = store.Removal{Bytes: model.GiB, Items: []store.Doomed{
		{Kind: store.KindBlob, Model: small, Bytes: model.GiB / 4}, {Kind: store.KindBlob, Model: large, Bytes: model.GiB / 2}, {Kind: store.KindPartial, Model: large, Bytes: model.GiB / 4},
	}}
	got := ask[client.Storage](t, w.naive().ServeStorage)
	want := client.StorageSummary{CapacityGB: 100, UsedGB: 25, AvailableGB: 75, UsagePercent: 25, Models: 2, ModelsGB: 3. / 1024, ReserveGB: 5}
	if got.Summary != want {
		t.Errorf("the summary is %+v, want %+v", got.Summary, want)
	}
	if len(got.Models) != 2 || got.Models[0].Model != large.Name || got.Models[0].SizeBytes != int64(2*model.MiB) || got.Models[0].Tier != "hot" || got.Models[0].LastAccessed != nil {
		t.Errorf("the models are %+v, want the largest first", got.Models)
	}
	if len(got.Tiers) != 1 || got.Tiers[0].Path != w.path || got.Tiers[0].Models != 2 || got.Tiers[0].CapacityGB != 100 {
		t.Errorf("the tiers are %+v", got.Tiers)
	}
	c := got.Cleanup
	if c.SavingsGB != 1 || c.SafeToRemove != 2 || c.Candidates[0].Model != large.Name || c.Candidates[0].SizeGB != 0.75 || !strings.Contains(c.Candidates[0].Reason, "blob (1), partial (1)") {
		t.Errorf("what could go is %+v", c)
	}
}

func TestStorageTellsWhereModelsLieAndHowTheyAreUsed(t *testing.T) {
	w := newWorld(t)
	here, split, gone := whole(hub("org/here")), whole(hub("org/split")), stored(hub("org/gone"), store.Incomplete, store.Incomplete)
	here.Tiers = map[model.Tier]model.Bytes{model.Hot: 2 * model.MiB}
	split.Tiers = map[model.Tier]model.Bytes{model.Warm: model.MiB / 2, model.Cold: 3 * model.MiB / 2}
	gone.Away = model.Cold
	for _, m := range []store.Model{here, split, gone} {
		w.models[m.ID] = m
	}
	last := time.Date(2026, 3, 1, 9, 30, 0, 5, time.UTC)
	w.uses[here.ID] = Use{Last: last, PerDay: 2.5, Pinned: true}
	disk := Volume{Total: 10 * model.GiB, Used: 4 * model.GiB, Available: 6 * model.GiB}
	w.tiers = []Tier{
		{Tier: model.Hot, Path: "/hot", State: client.TierReady, Device: 1, Volume: disk},
		{Tier: model.Warm, Path: "/warm", State: client.TierReady, Device: 1, Volume: disk, Max: model.MiB / 2},
		{Tier: model.Cold, Path: "/cold", State: client.TierMissing, Problem: "mount it"},
	}
	w.moves = []client.ModelMove{{Model: "org/here", From: "hot", To: "cold", State: client.MoveMoving}}
	m := w.naive()
	got := ask[client.Storage](t, m.ServeStorage)
	if s := got.Summary; s.CapacityGB != 10 || s.UsedGB != 4 || s.AvailableGB != 6 || s.UsagePercent != 40 || s.Models != 3 {
		t.Errorf("the summary is %+v, want one file system counted once", s)
	}
	for i, want := range []client.TierStorage{
		{Tier: "hot", Path: "/hot", State: client.TierReady, CapacityGB: 10, UsedGB: 4, AvailableGB: 6, UsagePercent: 40, ModelsGB: 2. / 1024, Models: 2},
		{
			Tier: "warm", Path: "/warm", State: client.TierFull, Problem: "its models take 512.0 KiB, and max_size_gb of the warm tier allows 512.0 KiB",
			CapacityGB: 0.5 / 1024, MaxSizeGB: 0.5 / 1024, UsedGB: 4, AvailableGB: 0, UsagePercent: 100, ModelsGB: 0.5 / 1024,
		},
		{Tier: "cold", Path: "/cold", State: client.TierMissing, Problem: "mount it", ModelsGB: 1.5 / 1024, Models: 1},
	} {
		if got.Tiers[i] != want {
			t.Errorf("the tier is\n%+v, want\n%+v", got.Tiers[i], want)
		}
	}
	told := map[string]client.ModelStorage{}
	for _, one := range got.Models {
		told[one.Model] = one
	}
	if one := told["org/here"]; one.Tier != "hot" || one.TierBytes != nil || !one.Pinned || !one.LastAccessed.Equal(last) || *one.UsageFrequency != 2.5 {
		t.Errorf("%+v", one)
	}
	if one := told["org/split"]; one.Tier != "cold" || one.TierBytes["warm"] != int64(model.MiB/2) || one.TierBytes["cold"] != int64(3*model.MiB/2) || one.Pinned || one.LastAccessed != nil || one.UsageFrequency != nil {
		t.Errorf("%+v", one)
	}
	if len(got.Moves) != 1 || got.Moves[0] != w.moves[0] {
		t.Errorf("the moves are %+v", got.Moves)
	}
	all := ask[client.Statuses](t, m.ServeStatus).Models
	if one := all["org/here"]; *one.StorageTier != "hot" || !one.Pinned || !one.LastUsed.Equal(last) || *one.UsageFrequency != 2.5 || one.StorageProblem != "" {
		t.Errorf("%+v", one)
	}
	if one := all["org/split"]; *one.StorageTier != "cold" || one.Pinned {
		t.Errorf("%+v", one)
	}
	if one := all["org/gone"]; !strings.Contains(one.StorageProblem, "the cold tier, which is not there") {
		t.Errorf("%+v", one)
	}
}

func TestMovesPinsAndTiersAreSeenByTheNextRequest(t *testing.T) {
	id, other := hub("org/name"), hub("some-org/some-model-0001")
	moved := whole(id)
	moved.Tiers = map[model.Tier]model.Bytes{model.Cold: moved.Size}
	tell := func(w *world, state string) {
		w.bus.Tell(event.Event{Kind: event.KindMove, Model: id, Data: event.Move{From: model.Hot, To: model.Cold, State: state}})
	}
	for promise, c := range map[string]struct {
		do   func(w *world)
		want func(s client.Storage, one client.ModelStatus) bool
	}{
		"a move begins": {
			func(w *world) {
				w.do(func() { w.moves = []client.ModelMove{{Model: "org/name", State: client.MoveWaiting}} })
				tell(w, event.MoveWaiting)
			},
			func(s client.Storage, _ client.ModelStatus) bool { return len(s.Moves) == 1 },
		},
		"a move is done": {
			func(w *world) {
				w.do(func() { w.models[id] = moved })
				tell(w, event.MoveDone)
			},
			func(s client.Storage, one client.ModelStatus) bool {
				return *one.StorageTier == "cold" && slices.ContainsFunc(s.Models, func(m client.ModelStorage) bool { return m.Model == "org/name" && m.Tier == "cold" })
			},
		},
		"a move fails half way": {
			func(w *world) {
				w.do(func() { w.models[id] = moved })
				tell(w, event.MoveFailed)
			},
			func(_ client.Storage, one client.ModelStatus) bool { return *one.StorageTier == "cold" },
		},
		"a model is pinned": {
			func(w *world) {
				w.do(func() { w.uses[id] = Use{Pinned: true} })
				w.bus.Tell(event.Event{Kind: event.KindStored, Model: id, Data: event.Stored{Why: "pinned"}})
			},
			func(s client.Storage, one client.ModelStatus) bool {
				return one.Pinned && slices.ContainsFunc(s.Models, func(m client.ModelStorage) bool { return m.Model == "org/name" && m.Pinned })
			},
		},
		"a tier goes missing": {
			func(w *world) {
				w.do(func() { w.models[id] = stored(id, store.Incomplete, store.Incomplete) })
				w.bus.Tell(event.Event{Kind: event.KindTier, Data: event.Tier{Tier: model.Cold, State: client.TierMissing}})
			},
			func(_ client.Storage, one client.ModelStatus) bool { return !one.IsAvailable },
		},
	} {
		t.Run(promise, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := many(t, 3)
				w.models[id] = whole(id)
				m := New(w.settings(time.Hour))
				defer start(m)()
				ask[client.Storage](t, m.ServeStorage)
				before := ask[client.Statuses](t, m.ServeStatus).Models[other.Name]
				c.do(w)
				s, all := ask[client.Storage](t, m.ServeStorage), ask[client.Statuses](t, m.ServeStatus)
				if !c.want(s, all.Models[id.Name]) {
					t.Errorf("the next request sees %+v and %+v", s.Models, all.Models[id.Name])
				}
				if !reflect.DeepEqual(all.Models[other.Name], before) {
					t.Error("another model has changed")
				}
			})
		})
	}
}

func TestHowFarAMoveIsIsASecondOldAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := many(t, 3)
		m := New(w.settings(time.Hour))
		defer start(m)()
		w.moves = []client.ModelMove{{Model: "org/name", State: client.MoveMoving, MovedBytes: 1}}
		ask[client.Storage](t, m.ServeStorage)
		w.do(func() { w.moves[0].MovedBytes = 2 })
		w.bus.Tell(event.Event{Kind: event.KindMove, Model: hub("org/name"), Data: event.Move{State: event.MoveMoving}})
		if got := ask[client.Storage](t, m.ServeStorage).Moves[0].MovedBytes; got != 1 {
			t.Errorf("within the second, %d bytes are moved, want those of the answer that there is: 1", got)
		}
		time.Sleep(measureEvery)
		if got := ask[client.Storage](t, m.ServeStorage).Moves[0].MovedBytes; got != 2 {
			t.Errorf("after a second, %d bytes are moved, want 2", got)
		}
	})
}

func TestAUseIsSeenSoonAndMakesFewAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := many(t, 3)
		id := hub("some-org/some-model-0001")
		m := New(w.settings(time.Hour))
		defer start(m)()
		last := func() *time.Time { return ask[client.Statuses](t, m.ServeStatus).Models[id.Name].LastUsed }
		if last() != nil {
			t.Fatal("it was never used")
		}
		time.Sleep(progressEvery)
		first := time.Now()
		w.use(id, Use{Last: first, PerDay: 1})
		if at := last(); at == nil || !at.Equal(first) {
			t.Errorf("after a quiet time a use is seen at once, not %v", at)
		}
		p := m.page.Load()
		w.use(id, Use{Last: first.Add(time.Millisecond), PerDay: 2})
		if at := last(); !at.Equal(first) || m.page.Load() != p {
			t.Errorf("right after it another use makes another answer: %v", at)
		}
		time.Sleep(progressEvery)
		if at := last(); !at.Equal(first.Add(time.Millisecond)) {
			t.Errorf("200 ms later it is not seen: %v", at)
		}
		p = m.page.Load()
		time.Sleep(usesAge / 2)
		if last(); m.page.Load() != p {
			t.Error("an answer is made anew though nothing happens")
		}
		w.do(func() { w.uses[id] = Use{Last: first, PerDay: 0.5} }) // days pass
		time.Sleep(usesAge / 2)
		if got := ask[client.Statuses](t, m.ServeStatus).Models[id.Name]; *got.UsageFrequency != 0.5 {
			t.Errorf("a minute later it is used %v times a day, want 0.5", *got.UsageFrequency)
		}
	})
}

func TestWhatCouldGoIsWhatIsAdvised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := many(t, 3)
		set := w.settings(time.Hour)
		advice := client.CleanupSuggestions{SavingsGB: 2, SafeToRemove: 1, Candidates: []client.CleanupCandidate{{Model: "org/old", Action: client.CleanupRemoveModel}}}
		var fails error
		set.Advise = func(context.Context) (client.CleanupSuggestions, error) { return advice, fails }
		m := New(set)
		defer start(m)()
		if got := ask[client.Storage](t, m.ServeStorage).Cleanup; !reflect.DeepEqual(got, advice) || w.plans.Load() != 0 {
			t.Errorf("%+v", got)
		}
		fails = errors.New("nobody knows")
		w.put(whole(hub("org/name")))
		if got := answered(m.ServeStorage); got.Code != http.StatusInternalServerError {
			t.Errorf("answered %d: %s", got.Code, got.Body)
		}
	})
}

func TestAnEmptyStoreIsToldWithoutNulls(t *testing.T) {
	w := answered(newWorld(t).naive().ServeStorage)
	if strings.Contains(w.Body.String(), "null") {
		t.Errorf("it is %s", w.Body)
	}
}

func TestStorageIsMeasuredEachSecondAndPlannedWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, id := many(t, 3), hub("org/name")
		m := New(w.settings(time.Hour))
		defer start(m)()
		free := func() float64 { return ask[client.Storage](t, m.ServeStorage).Summary.AvailableGB }
		free()
		w.do(func() { w.tiers[0].Available = model.GiB })
		if got := free(); got != 75 {
			t.Errorf("within the second, %v GiB are free, want those measured: 75", got)
		}
		time.Sleep(measureEvery)
		if got := free(); got != 1 || w.plans.Load() != 1 {
			t.Errorf("after a second, %v GiB are free and %d plans were made, want 1 and 1", got, w.plans.Load())
		}
		w.put(whole(id))
		if got := ask[client.Storage](t, m.ServeStorage); got.Summary.Models != 4 || w.plans.Load() != 2 {
			t.Errorf("after a change there are %d models and %d plans, want 4 and 2", got.Summary.Models, w.plans.Load())
		}
		w.do(func() { w.plan = store.Removal{Bytes: model.GiB} })
		w.bus.Tell(event.Event{Kind: event.KindStored, Data: event.Stored{Why: "collected"}})
		if got := ask[client.Storage](t, m.ServeStorage); got.Cleanup.SavingsGB != 1 {
			t.Errorf("after a collection, %v GiB could go, want what is planned now: 1", got.Cleanup.SavingsGB)
		}
		w.do(func() { w.plan = store.Removal{Bytes: 2 * model.GiB} })
		time.Sleep(planEvery)
		if got := ask[client.Storage](t, m.ServeStorage); got.Cleanup.SavingsGB != 2 {
			t.Errorf("after a minute, %v GiB could go, want what has grown old: 2", got.Cleanup.SavingsGB)
		}
	})
}

func TestAPlanThatWasOvertakenByAChangeIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := many(t, 3)
		m := New(w.settings(time.Hour))
		defer start(m)()
		w.do(func() { w.plan = store.Removal{Bytes: model.GiB} })
		ask[client.Storage](t, m.ServeStorage)
		time.Sleep(planEvery)
		var overtaken atomic.Bool
		m.set.Store = interrupted{w, func() {}, func() {
			if overtaken.CompareAndSwap(false, true) {
				w.do(func() { w.plan = store.Removal{} })
				w.bus.Tell(event.Event{Kind: event.KindStored, Data: event.Stored{Why: "collected"}})
				answered(m.ServeStorage)
			}
		}}
		for range 2 {
			if got := ask[client.Storage](t, m.ServeStorage); got.Cleanup.SavingsGB != 0 {
				t.Errorf("%v GiB could go, want none: they have gone", got.Cleanup.SavingsGB)
			}
		}
	})
}

func TestAVolumeThatCannotBeMeasuredIsARefusal(t *testing.T) {
	set := newWorld(t).settings(0)
	set.Tiers = func() ([]Tier, error) { return nil, errors.New("the disk is gone") }
	if got := answered(New(set).ServeStorage); got.Code != http.StatusInternalServerError || !strings.Contains(got.Body.String(), "the disk is gone") {
		t.Errorf("answered %d: %s", got.Code, got.Body)
	}
}
