package snapshot

import (
	"errors"
	"net/http"
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
		w.do(func() { w.volume.Available = model.GiB })
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
	set.Volume = func() (Volume, error) { return Volume{}, errors.New("the disk is gone") }
	if got := answered(New(set).ServeStorage); got.Code != http.StatusInternalServerError || !strings.Contains(got.Body.String(), "the disk is gone") {
		t.Errorf("answered %d: %s", got.Code, got.Body)
	}
}
