package main

import (
	"context"
	"time"

	"ema/internal/event"
	"ema/internal/model"
)

// How often free space is looked at while a download waits for it: soon at first, less often when room that was found
// turned out to be too little (a quota, another program that takes it).
const spaceSoon, spaceLate = 5 * time.Second, 5 * time.Minute

// watchSpace lets downloads that were paused for space go on when there is room again. It sleeps unless one is.
func (d *daemon) watchSpace(ctx context.Context) error {
	paused, err := d.bus.Subscribe(event.Want{Filter: func(e event.Event) bool {
		change, ok := e.Data.(event.Change)
		return ok && change.To == model.Paused
	}})
	if err != nil {
		return err
	}
	defer paused.Close()
	for wait := spaceSoon; ; {
		short := d.shortest()
		if short == nil {
			wait = spaceSoon
			if _, err := paused.Next(ctx); err != nil {
				return nil //nolint:nilerr // ctx has ended, or nobody can tell any more: the daemon is going
			}
			continue
		}
		if pause(ctx, wait) != nil {
			return nil
		}
		room, err := d.line.Room(ctx)
		if err != nil {
			d.log.Warn("free space", "error", err.Error())
			continue
		}
		promised := d.line.Reserved() + promisedBefore(d.queue.List(), short.ID)
		if room.Left-promised > max(short.Size-short.Done, 0) {
			d.log.Info("there is room again", "left", room.Left.String())
			d.queue.SpaceBack()
			wait = min(2*wait, spaceLate)
		}
	}
}

// shortest is the download that waits for the least space; nil when none does.
func (d *daemon) shortest() *model.Download {
	var least *model.Download
	for _, dl := range d.queue.List() {
		if dl.State == model.Paused && dl.Pause == model.BySpace && (least == nil || dl.Size-dl.Done < least.Size-least.Done) {
			least = &dl
		}
	}
	return least
}
