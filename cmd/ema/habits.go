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
	kept    *journal
	history *ledger.Recorder
	uses    *tier.Uses
	told    atomic.Uint64 // uses, and what was found of the health of models
	well    func(id model.ID) snapshot.Wellbeing
	latest  func(id model.ID) string

	mu     sync.Mutex
	since  time.Time // when uses began to be noticed, as far as is known
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

// recall reads what is known from the ledger. While the database with the uses is away none is known, as if they were
// noticed from now on: keepHistory reads them later.
func (d *daemon) recall(ctx context.Context, set config.StorageTiers) (*habits, error) {
	h := &habits{
		kept: d.ledger, history: d.history, uses: tier.NewUses(windowOfUses(set)), since: time.Now(), pinned: map[model.ID]bool{}, well: d.clinic.well, latest: d.updates.latest,
	}
	if db, err := d.history.Database(); err == nil {
		if err := h.remember(ctx, db, windowOfUses(set)); err != nil {
			return nil, err
		}
	}
	pins, err := d.ledger.Pins(ctx)
	for _, id := range pins {
		h.pinned[id] = true
	}
	return h, err
}

// remember adds the uses that a database knows of, over so long.
func (h *habits) remember(ctx context.Context, db *ledger.Ledger, window time.Duration) error {
	since, err := db.UsesSince(ctx)
	if err != nil {
		return err
	}
	err = db.Uses(ctx, time.Now().Add(-window), func(c model.UseCount) error {
		h.uses.Record(c.Model, c.Last, c.Times)
		return nil
	})
	if err != nil {
		return err
	}
	last, err := db.LastUses(ctx)
	if err != nil {
		return err
	}
	for id, at := range last {
		h.uses.Record(id, at, 0)
	}
	h.mu.Lock()
	h.since = since
	h.mu.Unlock()
	h.told.Add(1)
	return nil
}

// knownSince is when uses began to be noticed: before that, nobody knows whether a model was used.
func (h *habits) knownSince() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since
}

// Use is how a model is used.
func (h *habits) Use(id model.ID) snapshot.Use {
	h.mu.Lock()
	pinned := h.pinned[id]
	h.mu.Unlock()
	return snapshot.Use{Last: h.uses.Last(id), PerDay: h.uses.Frequency(id, time.Now(), perDay), Pinned: pinned, Wellbeing: h.well(id), Latest: h.latest(id)}
}

// Uses is another number after each use.
func (h *habits) Uses() uint64 { return h.told.Load() }

// note counts a use, which is written soon.
func (h *habits) note(u model.Use) {
	h.history.Tell(ledger.Batch{Uses: []model.Use{u}})
	h.uses.Record(u.Model, u.At, 1)
	h.told.Add(1)
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
func (d *daemon) used(u model.Use) {
	if err := d.cache.Used(u.Model); err != nil { // before the use has got far
		d.log.Warn("models in memory", "model", u.Model.Public(), "error", err.Error())
	}
	d.habits.note(u)
}

// use counts a use of a model that is here, for the API.
func (d *daemon) use(_ context.Context, u model.Use) error {
	if _, err := d.line.Store.Model(u.Model); err != nil {
		return named("use", err)
	}
	d.used(u)
	return nil
}
