package main

import (
	"context"
	"net/http"
	"slices"

	"ema/internal/api/snapshot"
	"ema/internal/event"
	"ema/internal/model"
)

// lately is how many downloads of the history are read at the start, for models whose last one failed.
const lately = 1000

// answers are about models and their storage, prepared before anybody asks.
func (d *daemon) answers(ctx context.Context) (*snapshot.Models, error) {
	failed, err := d.failures(ctx)
	if err != nil {
		return nil, err
	}
	kept := d.settings.API
	return snapshot.New(snapshot.Settings{
		Store: d.line.Store, Downloads: d.queue, Events: d.bus, Failed: failed, Figures: d.standing, Tiers: d.shelves,
		Uses: d.habits, Moves: d.moves.all, Advise: d.advise,
		Refuse:  func(w http.ResponseWriter, r *http.Request, err error) { d.api.Refuse(w, r, err) },
		Caching: kept.ResponseCaching, TTL: kept.CacheTTLSeconds.Duration(),
	}), nil
}

// failures are the last downloads of models, as far as these failed lately, oldest first.
func (d *daemon) failures(ctx context.Context) ([]model.Download, error) {
	history, err := d.ledger.History(ctx, lately, 0)
	if err != nil {
		return nil, err
	}
	var failed []model.Download
	newer := map[model.ID]bool{}
	for _, dl := range d.queue.List() {
		newer[dl.Model] = true
	}
	for _, dl := range history {
		if dl.State == model.Failed && !newer[dl.Model] {
			failed = append(failed, dl)
		}
		newer[dl.Model] = true
	}
	slices.Reverse(failed)
	return failed, nil
}

// standing is how far a download is that runs.
func (d *daemon) standing(id string) (snapshot.Figures, bool) {
	f := d.figures(id)
	if f == nil {
		return snapshot.Figures{}, false
	}
	return snapshot.Figures{Done: f.Done, Total: f.Total, Rate: f.Rate, ETA: f.ETA}, true
}

// shelves are how the tiers stand, the hot one first.
func (d *daemon) shelves() ([]snapshot.Tier, error) {
	d.mu.Lock()
	set := d.settings.StorageTiers
	d.mu.Unlock()
	return tiers(d.line.Store, set, d.line.LeaveFree())
}

// stored tells that the store holds something else of a model than before, or of any when it is zero.
func (d *daemon) stored(id model.ID, why string) {
	if why == "removed" || why == "moved" {
		d.cache.Forget(id) // its files are others now, or none
	}
	d.bus.Tell(event.Event{Kind: event.KindStored, Model: id, Data: event.Stored{Why: why}})
}
