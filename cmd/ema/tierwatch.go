package main

import (
	"context"
	"time"

	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/store"
)

// tiersEvery is how often the folders of colder tiers are looked at: a disk that is unmounted tells nobody.
const tiersEvery = time.Minute

// watchTiers tells changed of each tier that is not ready at first, and then of each that is no longer as it was, until ctx
// ends. Where the hot tier is the only one there is nothing to watch: without it nothing works, and who lacks its space says so.
func watchTiers(ctx context.Context, look func() []store.TierState, changed func(store.TierState)) error {
	was := map[model.Tier]string{}
	for {
		now := look()
		if len(now) < 2 {
			return nil
		}
		for _, t := range now {
			before, seen := was[t.Tier]
			if !seen {
				before = store.TierReady
			}
			if t.State != before {
				changed(t)
			}
			was[t.Tier] = t.State
		}
		if pause(ctx, tiersEvery) != nil {
			return nil
		}
	}
}

// tierChanged tells that the folder of a tier is no longer as it was.
func (d *daemon) tierChanged(t store.TierState) {
	d.bus.Tell(event.Event{Kind: event.KindTier, Data: event.Tier{Tier: t.Tier, State: t.State, Problem: t.Problem}})
	if t.State == store.TierReady {
		d.log.Info("tier ready again", "tier", string(t.Tier), "path", t.Path)
		return
	}
	d.log.Warn("tier", "tier", string(t.Tier), "path", t.Path, "state", t.State, "problem", t.Problem)
}
