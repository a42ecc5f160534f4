package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"ema/client"
	"ema/internal/api"
	"ema/internal/api/snapshot"
	"ema/internal/config"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
	"ema/internal/tier"
)

// leftAlone is the age under which contents that no revision needs stay, as with "ema gc".
const leftAlone = 24 * time.Hour

// wish is what may go when somebody cleans up, as the settings say.
func wish(c config.Config, watched time.Time) tier.Wish {
	hot := ruleOf(c.StorageTiers.Hot)
	return tier.Wish{
		MinUnused: c.Cleanup.MinUnusedDays.Duration(), KeepRecent: c.Cleanup.KeepRecentDays.Duration(), Watched: watched, Often: &hot,
	}
}

// rubbish is what no revision needs, model by model, as "ema gc" would remove it.
func (d *daemon) rubbish(waits map[model.ID]bool) (map[model.ID]store.Removal, error) {
	all, err := collectable(d.line.Store, leftAlone, partialRuleOf(d.settingsNow()), waits)
	by := map[model.ID]store.Removal{}
	for _, item := range all.Items {
		r := by[item.Model]
		r.Items, r.Bytes = append(r.Items, item), r.Bytes+item.Bytes
		by[item.Model] = r
	}
	return by, err
}

// waits are the models that must not be touched: those that are downloaded, moved or repaired, or wait for that.
func (d *daemon) waits() map[model.ID]bool {
	waits := d.repairs.under()
	for _, dl := range d.queue.List() {
		waits[dl.Model] = true
	}
	for id := range d.moves.under() {
		waits[id] = true
	}
	return waits
}

// takeStock is what could go, of the models that are in a tier; of all when in is "".
func (d *daemon) takeStock(ctx context.Context, in model.Tier) ([]tier.Stock, error) {
	waits := d.waits()
	models, err := d.line.Store.Models(ctx)
	if err != nil {
		return nil, err
	}
	garbage, err := d.rubbish(waits)
	if err != nil {
		return nil, err
	}
	open, err := host.LookForFilesInUse()
	if err != nil {
		return nil, &model.Error{Op: "clean up", Class: model.DiskError, Err: fmt.Errorf("nobody can tell which models are in use: %w", err)}
	}
	var all []tier.Stock
	for _, k := range models {
		if in != "" && k.Tiers[in] == 0 && (in != model.Hot || k.Incomplete == 0) {
			continue
		}
		s := tier.Stock{ID: k.ID, Size: k.Size + k.Incomplete, Pinned: d.habits.isPinned(k.ID), Busy: waits[k.ID], Garbage: garbage[k.ID].Bytes}
		if in != "" {
			s.Size = k.Tiers[in]
		}
		s.Size = max(s.Size, s.Garbage)
		delete(garbage, k.ID)
		s.Open = d.inUse(k.ID, open.Sees) // of what is carried out more is asked
		if err := d.revisions(k, &s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	for id, r := range garbage { // what belongs to models that are gone
		if in == "" || in == model.Hot {
			all = append(all, tier.Stock{ID: id, Size: r.Bytes, Garbage: r.Bytes})
		}
	}
	return all, nil
}

// revisions adds to s what k's revisions tell: when the newest came, which are old, and whether they can be fetched again.
func (d *daemon) revisions(k store.Model, s *tier.Stock) error {
	came := make([]time.Time, len(k.Revisions))
	var named time.Time // when the newest of those came that a name leads to
	for i, r := range k.Revisions {
		if r.Record != nil {
			came[i] = r.Record.CompletedAt
			s.LastCopy = s.LastCopy || !strings.Contains(r.Record.Source, "://")
		} else if info, err := os.Stat(d.line.Store.Snapshot(k.ID, r.Commit)); err == nil {
			came[i] = info.ModTime() // another tool has brought it
		}
		if came[i].After(s.Since) {
			s.Since = came[i]
		}
		if len(r.Refs) > 0 && came[i].After(named) {
			named = came[i]
		}
	}
	for i, r := range k.Revisions {
		if len(r.Refs) > 0 || !came[i].Before(named) {
			continue
		}
		plan, err := d.line.Store.PlanRemove(k.ID, r.Commit)
		if err != nil {
			return err
		}
		s.Old = append(s.Old, tier.Old{Commit: r.Commit, Size: plan.Bytes, Since: came[i]})
	}
	return nil
}

// inUse reports whether another program has a content of a model open or mapped.
func (d *daemon) inUse(id model.ID, open func(path string) bool) bool {
	for _, path := range d.line.Store.BlobPaths(id) {
		if open(path) {
			return true
		}
	}
	return false
}

// advise is what could go now, for the answer about storage.
func (d *daemon) advise(ctx context.Context) (client.CleanupSuggestions, error) {
	stock, err := d.takeStock(ctx, "")
	if err != nil {
		return client.CleanupSuggestions{}, err
	}
	a := tier.Advise(time.Now(), stock, d.habits.uses, wish(d.settingsNow(), d.habits.knownSince()))
	return snapshot.Suggest(a), nil
}

// clean makes space, or says what would go: what somebody names, or what the rules find.
func (d *daemon) clean(ctx context.Context, c api.Cleaning) ([]api.Cleaned, error) {
	if c.Models != nil {
		return d.cleanNamed(ctx, c)
	}
	w := wish(d.settingsNow(), d.habits.knownSince())
	if c.MinUnused != nil {
		w.MinUnused = *c.MinUnused
	}
	if !c.KeepFrequent {
		w.Often = nil
	}
	stock, err := d.takeStock(ctx, "")
	if err != nil {
		return nil, err
	}
	return d.cleanBy(ctx, stock, w, c.DryRun)
}

// cleanNamed removes models that somebody names, however lately they were used, but for pinned and open ones.
func (d *daemon) cleanNamed(ctx context.Context, c api.Cleaning) ([]api.Cleaned, error) {
	var decided []api.Cleaned
	for _, id := range c.Models {
		one := api.Cleaned{Model: id, Action: client.CleanupRemoveModel, Reason: "somebody asked for it"}
		err := d.inQuiet(ctx, func(q quiet) {
			plan, err := d.line.Store.PlanRemove(id, "")
			decided = append(decided, d.carryOut(ctx, q, one, plan, err, c.DryRun))
		})
		if err != nil {
			return decided, err
		}
	}
	return decided, nil
}

// cleanBy removes what a wish allows. A model goes only when its source says that it still has it.
func (d *daemon) cleanBy(ctx context.Context, stock []tier.Stock, w tier.Wish, dryRun bool) ([]api.Cleaned, error) {
	advice, err := d.fetchable(ctx, stock, w)
	if err != nil {
		return nil, err
	}
	decided, err := d.collect(ctx, advice.Suggestions, dryRun)
	for _, s := range advice.Suggestions {
		if err != nil {
			return decided, err
		}
		if s.Action == tier.Collect {
			continue
		}
		one := api.Cleaned{Model: s.ID, Action: string(s.Action), Reason: s.Reason}
		err = d.inQuiet(ctx, func(q quiet) {
			plan, err := d.line.Store.PlanRemove(s.ID, s.Commit)
			decided = append(decided, d.carryOut(ctx, q, one, plan, err, dryRun))
		})
	}
	for _, k := range advice.Kept {
		if !k.ID.IsZero() {
			decided = append(decided, api.Cleaned{Model: k.ID, Action: client.CleanupKeep, Reason: k.Why})
		}
	}
	return decided, err
}

// collect carries out those suggestions that are about what no revision needs: looking for that means to look at everything.
func (d *daemon) collect(ctx context.Context, all []tier.Suggestion, dryRun bool) (decided []api.Cleaned, err error) {
	all = slices.DeleteFunc(slices.Clone(all), func(s tier.Suggestion) bool { return s.Action != tier.Collect })
	if len(all) == 0 {
		return nil, nil
	}
	err = d.inQuiet(ctx, func(q quiet) {
		garbage, err := d.rubbish(q.waits)
		for _, s := range all {
			one := api.Cleaned{Model: s.ID, Action: string(s.Action), Reason: s.Reason}
			decided = append(decided, d.carryOut(ctx, q, one, garbage[s.ID], err, dryRun))
		}
	})
	return decided, err
}

// sourcePatience is how long a source may take to say that it still has a model.
const sourcePatience = 10 * time.Second

// fetchable is advice in which no model is to go that its source does not have any more, or may not have. A source that does not
// answer is not asked about the next one.
func (d *daemon) fetchable(ctx context.Context, stock []tier.Stock, w tier.Wish) (tier.Advice, error) {
	asked, silent := map[model.ID]bool{}, false
	for {
		advice := tier.Advise(time.Now(), stock, d.habits.uses, w)
		lost := map[model.ID]bool{}
		for _, s := range advice.Suggestions {
			if s.Action != tier.RemoveModel || asked[s.ID] {
				continue
			}
			asked[s.ID] = true
			if !silent {
				under, cancel := context.WithTimeout(ctx, sourcePatience)
				_, err := d.line.Source.Resolve(under, s.ID, "")
				late := under.Err() != nil
				cancel()
				if ctx.Err() != nil {
					return advice, context.Cause(ctx)
				}
				if err == nil {
					continue
				}
				silent = late || pipeline.Unreachable(err)
			}
			lost[s.ID] = true
		}
		if len(lost) == 0 {
			return advice, nil
		}
		for i := range stock {
			stock[i].LastCopy = stock[i].LastCopy || lost[stock[i].ID]
		}
	}
}

// quiet is a moment in which no download, move or removal begins: what is planned in it is true until it ends.
type quiet struct {
	waits map[model.ID]bool // models that must not be touched
	open  *host.FilesInUse
}

// inQuiet does something in such a moment.
func (d *daemon) inQuiet(ctx context.Context, do func(quiet)) error {
	busy, open, err := d.door.shut(ctx)
	if err != nil {
		return err
	}
	defer open()
	files, err := host.LookForFilesInUse()
	if err != nil {
		return &model.Error{Op: "clean up", Class: model.DiskError, Err: fmt.Errorf("nobody can tell which models are in use: %w", err)}
	}
	maps.Copy(busy, d.waits())
	do(quiet{busy, files})
	return ctx.Err()
}

// carryOut removes what was planned, unless that has failed, it is a dry run, or somebody needs it.
func (d *daemon) carryOut(ctx context.Context, q quiet, one api.Cleaned, plan store.Removal, failed error, dryRun bool) api.Cleaned {
	switch {
	case failed != nil:
		one.Err = failed
		return one
	case q.waits[one.Model]:
		one.Err = &model.Error{
			Op: "clean up", Class: model.Busy, Model: one.Model, Err: errors.New("it is being downloaded, moved or repaired"), Hint: "try again when that is over",
		}
		return one
	case one.Action != client.CleanupCollect && d.habits.isPinned(one.Model):
		one.Action, one.Reason = client.CleanupKeep, "it is pinned: let it loose first"
		return one
	case d.inUse(one.Model, func(path string) bool { d.line.own.opens(path); return q.open.Has(path) }):
		one.Action, one.Reason = client.CleanupKeep, "another program has it open"
		return one
	}
	one.Freed = plan.Bytes
	if dryRun || len(plan.Items) == 0 {
		return one
	}
	if one.Err = d.line.Writer.Remove(ctx, plan); one.Err != nil {
		one.Freed = 0
	}
	why := "collected"
	if one.Action == client.CleanupRemoveModel {
		why = "removed"
	}
	d.stored(one.Model, why) // of what failed, a part may have gone
	if one.Err == nil {
		d.log.Info("cleaned up", "model", one.Model.Public(), "action", one.Action, "freed", one.Freed.String(), "why", one.Reason)
	}
	return one
}

// makeRoom cleans up by itself where a tier is fuller than cleanup.trigger_percent, until it is as full as
// cleanup.target_percent says or nothing more may go; and where a download waits for space, until it has that.
func (d *daemon) makeRoom(ctx context.Context) error {
	c := d.settingsNow()
	if !c.Cleanup.Auto {
		return nil
	}
	for _, t := range d.line.Store.Tiers() {
		if t.State == store.TierMissing || t.State == store.TierReadOnly {
			continue
		}
		free, err := d.surplus(ctx, c, t)
		if err == nil && t.Tier == model.Hot {
			free, err = d.awaited(ctx, free)
		}
		if err != nil {
			return err
		}
		if free <= 0 {
			continue
		}
		stock, err := d.takeStock(ctx, t.Tier)
		if err != nil {
			return err
		}
		w := wish(c, d.habits.knownSince())
		w.Free = free
		decided, failed := d.cleanBy(ctx, stock, w, false)
		var freed model.Bytes
		for _, one := range decided {
			freed += one.Freed
			if one.Action == client.CleanupKeep {
				continue
			}
			entry := model.AuditEntry{At: time.Now().UTC(), Who: "ema", Action: "clean-up", Target: one.Action + " " + one.Model.Public(), Result: "ok"}
			if one.Err != nil {
				entry.Result = model.ClassOf(one.Err).String()
			}
			if err := d.ledger.Record(context.WithoutCancel(ctx), entry); err != nil { // what was done is told, also when we are to end
				return errors.Join(failed, err)
			}
		}
		if failed != nil {
			return failed
		}
		d.gauge.cleaned.wanted.Add(int64(free))
		d.gauge.cleaned.freed.Add(int64(min(freed, free)))
		if freed < free {
			d.log.Warn("tier fuller than it is to be", "tier", string(t.Tier), "wanted", free.String(), "freed", freed.String(), "hint", `"ema tier" and "ema ls" show what takes the space`)
		}
	}
	return nil
}

// awaited is free, or more where a download waits for more.
func (d *daemon) awaited(ctx context.Context, free model.Bytes) (model.Bytes, error) {
	short := d.shortest()
	if short == nil {
		return free, nil
	}
	room, err := d.line.Room(ctx)
	return max(free, short.Size-short.Done-room.Left), err
}

// surplus is how much is to be freed in a tier: of its disk, or of what its models may take.
func (d *daemon) surplus(ctx context.Context, c config.Config, t store.TierState) (model.Bytes, error) {
	share := func(percent float64, of model.Bytes) model.Bytes { return model.Bytes(percent / 100 * float64(of)) }
	v, _, err := volume(t.Path)
	if err != nil {
		return 0, err
	}
	var free model.Bytes
	if all := v.Used + v.Available; v.Used >= share(c.Cleanup.TriggerPercent, all) {
		free = v.Used - share(c.Cleanup.TargetPercent, all)
	}
	most := largest(c.StorageTiers, t.Tier)
	if most == 0 {
		return free, nil
	}
	models, err := d.line.Store.Models(ctx)
	var held model.Bytes
	for _, k := range models {
		held += k.Tiers[t.Tier]
	}
	if held >= share(c.Cleanup.TriggerPercent, most) {
		free = max(free, held-share(c.Cleanup.TargetPercent, most))
	}
	return free, err
}
