package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ema/internal/api/snapshot"
	"ema/internal/config"
	"ema/internal/ledger"
	"ema/internal/model"
	"ema/internal/tier"
)

// habits is what the daemon knows of how models are used: in the ledger, and counted in memory. It is safe for concurrent use.
type habits struct {
	kept  *ledger.Ledger
	uses  *tier.Uses
	since time.Time     // when uses began to be noticed
	told  atomic.Uint64 // uses

	mu     sync.Mutex
	pinned map[model.ID]bool
}

// perDay is over how long it is counted how often a model is used per day.
const perDay = 30 * 24 * time.Hour

// windowOfUses is how long uses are counted: as long as any tier asks for.
func windowOfUses(set config.StorageTiers) time.Duration {
	keep := perDay
	for _, t := range model.Tiers() {
		keep = max(keep, section(set, t).Criteria.LastUsedDays.Duration())
	}
	return keep
}

// section is the configuration of a tier.
func section(set config.StorageTiers, t model.Tier) config.Tier {
	return map[model.Tier]config.Tier{model.Hot: set.Hot, model.Warm: set.Warm, model.Cold: set.Cold}[t]
}

// ruleOf is which models belong to a tier.
func ruleOf(t config.Tier) tier.Rule {
	return tier.Rule{Uses: t.Criteria.UsageFrequencyThreshold, Window: t.Criteria.LastUsedDays.Duration(), Max: t.MaxSizeGB.Bytes()}
}

// recall reads what is known from the ledger.
func recall(ctx context.Context, kept *ledger.Ledger, set config.StorageTiers) (*habits, error) {
	h := &habits{kept: kept, uses: tier.NewUses(windowOfUses(set)), pinned: map[model.ID]bool{}}
	var err error
	if h.since, err = kept.UsesSince(ctx); err != nil {
		return nil, err
	}
	err = kept.Uses(ctx, time.Now().Add(-windowOfUses(set)), func(c model.UseCount) error {
		h.uses.Record(c.Model, c.Last, c.Times)
		return nil
	})
	if err != nil {
		return nil, err
	}
	last, err := kept.LastUses(ctx)
	if err != nil {
		return nil, err
	}
	for id, at := range last {
		h.uses.Record(id, at, 0)
	}
	pins, err := kept.Pins(ctx)
	for _, id := range pins {
		h.pinned[id] = true
	}
	return h, err
}

// Use is how a model is used.
func (h *habits) Use(id model.ID) snapshot.Use {
	h.mu.Lock()
	pinned := h.pinned[id]
	h.mu.Unlock()
	return snapshot.Use{Last: h.uses.Last(id), PerDay: h.uses.Frequency(id, time.Now(), perDay), Pinned: pinned}
}

// Uses is another number after each use.
func (h *habits) Uses() uint64 { return h.told.Load() }

// note counts a use, when it is durable.
func (h *habits) note(ctx context.Context, u model.Use) error {
	if err := h.kept.RecordUses(ctx, []model.Use{u}); err != nil {
		return err
	}
	h.uses.Record(u.Model, u.At, 1)
	h.told.Add(1)
	return nil
}

// pin keeps a model where it is, or lets it loose.
func (h *habits) pin(ctx context.Context, id model.ID, pinned bool) error {
	if err := h.kept.SetPin(ctx, id, pinned); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pinned[id] = pinned; !pinned {
		delete(h.pinned, id)
	}
	return nil
}

// pins are the pinned models.
func (h *habits) pins() []model.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.pinned))
}

// isPinned reports whether a model stays where it is.
func (h *habits) isPinned(id model.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pinned[id]
}

// used counts a use, and has the model kept in memory.
func (d *daemon) used(ctx context.Context, u model.Use) error {
	if err := d.cache.Used(u.Model); err != nil { // before the use has got far
		d.log.Warn("models in memory", "model", u.Model.Public(), "error", err.Error())
	}
	return d.habits.note(ctx, u)
}

// use counts a use of a model that is here, for the API.
func (d *daemon) use(ctx context.Context, u model.Use) error {
	if _, err := d.line.Store.Model(u.Model); err != nil {
		return named("use", err)
	}
	return d.used(ctx, u)
}
