package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"ema/internal/config"
	"ema/internal/event"
	"ema/internal/ledger"
	"ema/internal/model"
	"ema/internal/queue"
	"ema/internal/store"
)

// partialsEvery is how often files of interrupted downloads are looked at while nothing ends.
const partialsEvery = time.Hour

// A partialRule says which files of interrupted downloads stay. Those of downloads that are not over always do.
type partialRule struct {
	age     time.Duration // so long after they were written last
	most    model.Bytes   // and so much disk space together
	restart bool          // those of downloads that are not over stay over a restart of the daemon, too
}

// partialRuleOf is the section cache_optimization.download_cache.
func partialRuleOf(c config.Config) partialRule {
	kept := c.CacheOptimization.DownloadCache
	r := partialRule{age: kept.TempFileCleanupHours.Duration(), most: kept.MaxSizeGB.Bytes(), restart: kept.PartialDownloadCache}
	if !kept.Enabled || !kept.PartialDownloadCache {
		r.most = 0
	}
	return r
}

// plan is what goes by the rule of what nobody waits for.
func (r partialRule) plan(s *store.Store, waits map[model.ID]bool) (store.Removal, error) {
	return s.PlanPartials(time.Now(), r.age, r.most, func(id model.ID, _ string) bool { return waits[id] })
}

// beginPartials removes the files of interrupted downloads that are not to stay over a restart. Nothing is being
// downloaded yet.
func (d *daemon) beginPartials(ctx context.Context) error {
	if rule := partialRuleOf(d.settings.Config); !rule.restart {
		return d.removePartials(ctx, rule, nil)
	}
	return nil
}

// tidyPartials removes files of interrupted downloads as the settings say: at the start, every hour, when a download
// has ended, and when the settings change.
func (d *daemon) tidyPartials(ctx context.Context) error {
	for {
		if err := d.tidyPartialsOnce(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("files of interrupted downloads not removed", "error", err.Error())
		}
		if err := d.makeRoom(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("not cleaned up", "error", err.Error())
		}
		timer := time.NewTimer(partialsEvery)
		select {
		case <-d.tidying:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (d *daemon) tidyPartialsOnce(ctx context.Context) error {
	waits, open, err := d.door.shut(ctx)
	if err != nil {
		return err
	}
	defer open()
	for _, dl := range d.queue.List() {
		waits[dl.Model] = true
	}
	return d.removePartials(ctx, partialRuleOf(d.settingsNow()), waits)
}

func (d *daemon) removePartials(ctx context.Context, rule partialRule, waits map[model.ID]bool) error {
	plan, err := rule.plan(d.line.Store, waits)
	if err != nil || len(plan.Items) == 0 {
		return err
	}
	err = d.line.Writer.Remove(ctx, plan)
	concerned := map[model.ID]bool{}
	for _, item := range plan.Items {
		concerned[item.Model] = true
	}
	for id := range concerned {
		d.stored(id, "collected") // of what failed, a part may have gone
	}
	if err == nil {
		d.log.Info("files of interrupted downloads removed", "models", len(concerned), "freed", plan.Bytes.String())
	}
	return err
}

// hearEnds has files of interrupted downloads, and what may go for space, looked at whenever a download has ended or waits.
func (d *daemon) hearEnds(ctx context.Context) error {
	for {
		ends, err := d.bus.Subscribe(event.Want{Filter: func(e event.Event) bool {
			change, ok := e.Data.(event.Change)
			return ok && (change.To.Final() || change.To == model.Paused)
		}})
		for err == nil {
			d.lookAtPartials()
			_, err = ends.Next(ctx)
		}
		if ends != nil {
			ends.Close()
		}
		if !errors.Is(err, event.ErrSlow) { // that only means that very many ended
			return nil //nolint:nilerr // the daemon is going
		}
	}
}

// lookAtPartials has tidyPartials look soon, if it does not already.
func (d *daemon) lookAtPartials() {
	select {
	case d.tidying <- struct{}{}:
	default:
	}
}

// waited are the models that a download waits for: in the daemon those that it must not touch, else what a daemon that
// does not run now will go on with.
func (a *app) waited(ctx context.Context, s *store.Store) (map[model.ID]bool, error) {
	if a.within != nil {
		return a.busy, nil
	}
	file := filepath.Join(s.StateDir(), "ema.db")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	l, err := ledger.Open(ctx, file)
	if err != nil {
		return nil, err
	}
	waits := map[model.ID]bool{}
	found, err := l.Downloads(ctx, queue.Unfinished()...)
	for _, dl := range found {
		waits[dl.Model] = true
	}
	return waits, errors.Join(err, l.Close())
}
