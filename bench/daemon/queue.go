package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/client"
	"ema/internal/demohub"
	"ema/internal/model"
)

const (
	queued  = 1000
	askers  = 8 // clients at once
	resting = 20 * time.Second
)

// queue measures what the queue takes, how it survives a restart, and what a daemon costs that has nothing to do.
func (b bench) queue(ctx context.Context) error {
	hub, url, stop, err := origin(ctx, demohub.Repo("acme/busy", demohub.File("model.bin", 64*model.MiB)), demohub.Rate(model.MiB))
	if err != nil {
		return err
	}
	defer stop()
	store := filepath.Join(b.dir, "hub-queue")
	settings := fmt.Sprintf("downloads: {max_concurrent_downloads: 1, queue_size: %d}\n", 2*queued)
	d, _, err := b.serve(ctx, store, url, settings)
	if err != nil {
		return err
	}
	idle, err := d.rest(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\nidle: %.2f %% of a core, %.1f context switches per second, %s resident\n", idle.cpu.Seconds()/resting.Seconds()*100, float64(idle.switches)/resting.Seconds(), model.Bytes(idle.resident))

	if err := d.start(ctx, "acme/busy", "critical"); err != nil {
		return err
	}
	for hub.Stats().Body == 0 {
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	begun := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for k := range askers {
		g.Go(func() error {
			for i := k; i < queued; i += askers {
				if err := d.start(gctx, fmt.Sprintf("acme/m%d", i), []string{"low", "normal", "high"}[i%3]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	took := time.Since(begun)
	fmt.Printf("enqueued %d in %.2f s: %.0f per minute\n", queued, took.Seconds(), queued/took.Minutes())

	before, err := d.order(ctx)
	if err != nil {
		return err
	}
	ended, err := d.stop()
	if err != nil {
		return err
	}
	d, ready, err := b.serve(ctx, store, url, settings)
	if err != nil {
		return err
	}
	after, err := d.order(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("stopped in %.2f s while downloading; with %d queued it answered %.2f s after its start, in the same order: %v\n", ended.Seconds(), len(before)-1, ready.Seconds(), slices.Equal(before, after))
	_, err = d.stop()
	return err
}

// order is the models in the order in which they would run.
func (d *daemon) order(ctx context.Context) ([]string, error) {
	active, err := d.Active(ctx)
	if err != nil {
		return nil, err
	}
	return names(active), nil
}

func names(a client.Active) (all []string) {
	for _, d := range a.Downloads {
		all = append(all, d.Model)
	}
	return all
}

// rest is what the daemon uses while it has nothing to do.
func (d *daemon) rest(ctx context.Context) (cost, error) {
	if err := pause(ctx, 2*time.Second); err != nil {
		return cost{}, err
	}
	before, err := d.cost()
	if err != nil {
		return cost{}, err
	}
	if err := pause(ctx, resting); err != nil {
		return cost{}, err
	}
	after, err := d.cost()
	return cost{after.cpu - before.cpu, after.switches - before.switches, after.resident}, err
}
