package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/pipeline"
)

// sizedAhead is how many of the downloads that wait are asked about before their turn: enough to promise the disk's space
// in order, few enough that a long queue does not use up the questions that a hub answers.
const sizedAhead = 100

// sizeQueue finds out how much the downloads take that wait, while others run, and promises them the disk's space in
// their order: whoever will not fit is paused with the figures now, and not after hours in the line. It sleeps until
// something is queued.
func (d *daemon) sizeQueue(ctx context.Context) error {
	asked := map[string]bool{}
	for {
		queued, err := d.bus.Subscribe(event.Want{Filter: func(e event.Event) bool {
			change, ok := e.Data.(event.Change)
			return ok && change.To == model.Queued
		}})
		if err != nil {
			return err
		}
		for err == nil {
			d.sizeAll(ctx, asked)
			_, err = queued.Next(ctx)
		}
		queued.Close()
		if !errors.Is(err, event.ErrSlow) { // that only means that very many came
			return nil //nolint:nilerr // the daemon is going
		}
	}
}

// sizeAll asks about those that wait, one after the other, until it has asked about each that it should.
func (d *daemon) sizeAll(ctx context.Context, asked map[string]bool) {
	for ctx.Err() == nil {
		list := d.queue.List()
		for id := range asked {
			if !slices.ContainsFunc(list, func(dl model.Download) bool { return dl.ID == id && dl.State == model.Queued }) {
				delete(asked, id)
			}
		}
		next := nextToSize(list, asked)
		if next == nil {
			return
		}
		asked[next.ID] = true
		if err := d.size(ctx, *next); err != nil {
			d.log.Debug("size not known before its turn", "model", next.Model.Public(), "download", next.ID, "error", err.Error())
		}
	}
}

// nextToSize is the first download of list that waits and was not asked about; nil when there is none, or when nothing
// runs: then it begins at once and is asked about anyway.
func nextToSize(list []model.Download, asked map[string]bool) *model.Download {
	if len(list) == 0 || !runs(list[0].State) {
		return nil
	}
	waiting := 0
	for i, dl := range list {
		if dl.State != model.Queued {
			continue
		}
		if waiting++; waiting > sizedAhead {
			return nil
		}
		if !asked[dl.ID] {
			return &list[i]
		}
	}
	return nil
}

func runs(s model.State) bool {
	return s == model.Resolving || s == model.Downloading || s == model.Verifying
}

// size finds out how much one download takes, and pauses it when that is not there.
func (d *daemon) size(ctx context.Context, dl model.Download) error {
	if dl.Size == 0 {
		req := pipeline.Request{ID: dl.Model, Revision: dl.Revision, Select: pipeline.Selection{Include: dl.Include, Exclude: dl.Exclude}}
		plan, err := d.line.Plan(ctx, req, new(pipeline.Progress))
		if err != nil {
			return err // it will fail the same way in its turn, or succeed
		}
		if dl, err = d.queue.Sized(ctx, dl.ID, plan.Bytes, plan.Bytes-plan.Missing+plan.Partial); err != nil {
			return err
		}
	}
	room, err := d.line.Room(ctx)
	if err != nil {
		return err
	}
	need, promised := dl.Size-dl.Done, d.line.Reserved()+promisedBefore(d.queue.List(), dl.ID)
	short := need + promised - room.Left
	if need <= 0 || short <= 0 {
		return nil
	}
	return d.queue.Short(ctx, dl.ID, &model.Error{
		Op: "pull", Class: model.DiskFull, Model: dl.Model, File: d.line.Store.Path(), Short: short,
		Err:  fmt.Errorf("not enough space: %s to fetch, %s for downloads before it and %s, %s too few", need, promised, room.Why, short),
		Hint: `see what could go with "ema gc --dry-run" and "ema ls"`,
	})
}

// promisedBefore is what the downloads of list still take that come before the one with that id and do not run yet.
func promisedBefore(list []model.Download, id string) (sum model.Bytes) {
	for _, dl := range list {
		if dl.ID == id {
			break
		}
		if dl.State == model.Queued || dl.State == model.Paused && dl.Pause == model.ByPreemption {
			sum += max(0, dl.Size-dl.Done)
		}
	}
	return sum
}
