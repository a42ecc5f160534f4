package main

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/model"
	"ema/internal/store"
)

func TestTiersAreToldOfWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		states := map[model.Tier]string{model.Hot: store.TierReady, model.Cold: store.TierMissing}
		look := func() (all []store.TierState) {
			mu.Lock()
			defer mu.Unlock()
			for _, tier := range model.Tiers() {
				if s := states[tier]; s != "" {
					all = append(all, store.TierState{Tier: tier, State: s})
				}
			}
			return all
		}
		var told []string
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- watchTiers(ctx, look, func(s store.TierState) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, string(s.Tier)+" "+s.State)
			})
		}()
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			if !slices.Equal(told, want) {
				t.Errorf("told are %q, want %q", told, want)
			}
			told = nil
			mu.Unlock()
			time.Sleep(tiersEvery)
			synctest.Wait()
		}
		time.Sleep(tiersEvery / 2) // between two looks
		expect("cold missing")
		expect()
		mu.Lock()
		states[model.Cold] = store.TierReady
		mu.Unlock()
		expect()
		mu.Lock()
		states[model.Hot], states[model.Cold] = store.TierFull, store.TierReadOnly
		mu.Unlock()
		expect("cold ready")
		expect("hot full", "cold read_only")
		expect()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestWithoutColderTiersNobodyLooks(t *testing.T) {
	looks := 0
	err := watchTiers(t.Context(), func() []store.TierState {
		looks++
		return []store.TierState{{Tier: model.Hot, State: store.TierFull}}
	}, func(s store.TierState) { t.Errorf("told is %+v", s) })
	if err != nil || looks != 1 {
		t.Errorf("%d looks, %v", looks, err)
	}
}
