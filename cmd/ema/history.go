package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ema/internal/event"
	"ema/internal/ledger"
	"ema/internal/model"
)

const (
	// unwrittenFile has what could not be written to the database before the daemon ended, in the store's state folder.
	unwrittenFile = "unwritten.json"
	// mostUnwritten is how many records wait in memory while the database is away: some 20 MiB.
	mostUnwritten = 100_000
)

// journal is the ledger of this machine, in its own file: what the daemon has to do does not depend on another machine.
// How long it takes to store a download is told, and where history is kept elsewhere, a copy goes there.
type journal struct {
	*ledger.Ledger
	took   func(operation string, d time.Duration) // nil until there are metrics
	copies *ledger.Recorder                        // nil where history is in the same file
}

// Save stores d.
func (j *journal) Save(ctx context.Context, d model.Download) error {
	begun := time.Now()
	err := j.Ledger.Save(ctx, d)
	if j.took != nil {
		j.took("save", time.Since(begun))
	}
	if err == nil && j.copies != nil {
		j.copies.Tell(ledger.Batch{Downloads: []model.Download{d}})
	}
	return err
}

// Record adds e to the audit trail.
func (j *journal) Record(ctx context.Context, e model.AuditEntry) error {
	err := j.Ledger.Record(ctx, e)
	if err == nil && j.copies != nil {
		j.copies.Tell(ledger.Batch{Audit: []model.AuditEntry{e}})
	}
	return err
}

// keepHistory writes history until the function that it returns is called, which is when nobody tells anything any more.
// When a database that was away is found, it reads what was used before.
func (d *daemon) keepHistory(ctx context.Context) (end func() error) {
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	over := make(chan error, 1)
	go func() { over <- d.history.Run(own) }()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		d.watchDatabase(own)
	}()
	return func() error {
		stop()
		<-watched
		return <-over
	}
}

// watchDatabase says when the database of the history is lost and found, until ctx ends.
func (d *daemon) watchDatabase(ctx context.Context) {
	_, err := d.history.Database()
	remembered := err == nil
	var away bool
	for {
		s, changed := d.history.Watch()
		switch {
		case s.Away != nil && !away:
			away = true
			d.log.Warn("history is kept in memory until its database can be used", "error", s.Away.Error())
			d.incident(model.Warning, "database_away", model.ID{}, s.Away.Error())
		case s.Away == nil && away:
			away = false
			d.log.Info("the database of the history is there again", "waiting", s.Waiting, "dropped", s.Dropped)
			d.incident(model.Info, "database_back", model.ID{}, fmt.Sprintf("%d records of history were kept meanwhile, %d were dropped", s.Waiting, s.Dropped))
		}
		if db, err := d.history.Database(); err == nil && !remembered {
			if err := d.habits.remember(ctx, db, windowOfUses(d.settingsNow().StorageTiers)); err == nil {
				remembered = true
			} else if ctx.Err() == nil {
				d.log.Warn("what was used before is not known", "error", err.Error())
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// incident has something remembered that people may want to look up later.
func (d *daemon) incident(s model.Severity, kind string, id model.ID, message string) {
	d.history.Tell(ledger.Batch{Events: []model.Incident{{At: time.Now().UTC(), Kind: kind, Severity: s, Model: id, Message: message}}})
}

// chronicle has remembered what becomes of models, until ctx ends.
func (d *daemon) chronicle(ctx context.Context) error {
	for {
		changes, err := d.bus.Subscribe(event.Want{Filter: func(e event.Event) bool {
			change, ok := e.Data.(event.Change)
			return ok && change.To.Final()
		}})
		if err != nil {
			return nil //nolint:nilerr // the daemon is going
		}
		for err == nil {
			var some []event.Event
			some, err = changes.Next(ctx)
			for _, e := range some {
				d.chronicled(e)
			}
		}
		changes.Close()
		if !errors.Is(err, event.ErrSlow) { // that only means that very much happened
			return nil
		}
	}
}

// chronicled has one event remembered.
func (d *daemon) chronicled(e event.Event) {
	change, ok := e.Data.(event.Change)
	if !ok {
		return
	}
	switch change.To {
	case model.Completed:
		d.incident(model.Info, "download_completed", e.Model, "it was downloaded")
	case model.Failed:
		d.incident(model.Warning, "download_failed", e.Model, change.Reason)
	default:
		d.incident(model.Info, "download_cancelled", e.Model, "its download was given up")
	}
}

// forget removes history that is older than anybody wants to keep: at the start, and once a day.
func (d *daemon) forget(ctx context.Context) error {
	for {
		keep := d.settingsNow().Database.RetentionDays.Duration()
		before := time.Now().Add(-keep)
		n, err := d.ledger.Prune(ctx, before)
		for _, prune := range []func(context.Context, time.Time) (int, error){d.ledger.PruneAudit, d.ledger.PruneUses, d.ledger.PruneMoves} {
			if err == nil {
				_, err = prune(ctx, before)
			}
		}
		if db, away := d.history.Database(); err == nil && away == nil {
			_, err = db.PruneHistory(ctx, time.Now(), keep)
			for _, prune := range []func(context.Context, time.Time) (int, error){db.Prune, db.PruneAudit, db.PruneUses} {
				if err == nil && db != d.ledger.Ledger {
					_, err = prune(ctx, before)
				}
			}
		}
		d.habits.uses.Forget(time.Now())
		if err != nil && ctx.Err() == nil {
			d.log.Warn("history not pruned", "error", err.Error())
		} else if n > 0 {
			d.log.Info("history pruned", "downloads", n)
		}
		if pause(ctx, 24*time.Hour) != nil {
			return nil
		}
	}
}
