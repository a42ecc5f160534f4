package main

import (
	"context"
	"time"

	"ema/internal/config"
	"ema/internal/host"
	"ema/internal/model"
)

// A pace keeps a move at low priority out of the way of programs that read from the same disks. An I/O priority does that
// only where the disk's scheduler knows priorities, and those of fast disks do not.
type pace struct {
	others func(ctx context.Context) float64 // bytes per second that others read now
	looked time.Time
	rate   float64
}

const (
	paceLook  = 50 * time.Millisecond  // between two looks at the others
	paceQuiet = 4 << 20                // bytes per second: what others read less does not count
	paceShare = 0.04                   // of what others read: what is moved beside them, read and written again
	paceMost  = 250 * time.Millisecond // until it is looked again
)

// paceOf is how a move between two tiers is paced: not at all, unless its priority is low.
func paceOf(set config.StorageTiers, from, to model.Tier, folders ...string) func(context.Context, int) error {
	if slower(set, from, to) != host.IOLow {
		return nil
	}
	return paceBeside(folders...)
}

// paceBeside keeps what reads and writes in some folders out of the way of others who read from the same disks; nil where that cannot
// be measured. It is for one goroutine.
func paceBeside(folders ...string) func(context.Context, int) error {
	var disks []*host.Readers
	for _, dir := range folders {
		if r, err := host.NewReaders(dir); err == nil { // where that cannot be measured, the priority is all there is
			disks = append(disks, r)
		}
	}
	if len(disks) == 0 {
		return nil
	}
	p := &pace{others: func(ctx context.Context) (most float64) {
		for _, d := range disks {
			if rate, err := d.Look(ctx); err == nil {
				most = max(most, rate)
			}
		}
		return most
	}}
	return p.wait
}

// wait waits until n more bytes may be moved.
func (p *pace) wait(ctx context.Context, n int) error {
	for left := float64(n); ; {
		if now := time.Now(); now.Sub(p.looked) >= paceLook {
			p.rate, p.looked = p.others(ctx), now
		}
		if p.rate < paceQuiet || left <= 0 {
			return ctx.Err()
		}
		most := paceMost.Seconds() * p.rate * paceShare
		piece := min(left, most)
		if err := pause(ctx, time.Duration(piece/(p.rate*paceShare)*float64(time.Second))); err != nil {
			return err
		}
		left -= piece
	}
}
