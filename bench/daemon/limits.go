package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

const (
	settle  = time.Second             // connections are made and buffers filled meanwhile
	measure = 6 * time.Second         // how long a limit is watched
	window  = 2 * time.Second         // any so long a time must keep it
	sample  = 50 * time.Millisecond   // how often the origin's counter is read
	sooner  = 1100 * time.Millisecond // after a change: it has a second to act
)

// limits measures at the origin what each limit lets through.
func (b bench) limits(ctx context.Context) error {
	fmt.Println("| limit MiB/s | connections | downloads | least of any 2 s | most of any 2 s | after halving it | kept |")
	fmt.Println("|---|---|---|---|---|---|---|")
	for _, rate := range []int{2, 20, 200} {
		for _, connections := range []int{1, 16} {
			for _, downloads := range []int{1, 4} {
				if err := b.limit(ctx, rate, connections, downloads); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b bench) limit(ctx context.Context, rate, connections, downloads int) (err error) {
	var repos []demohub.Option
	size := model.Bytes(rate)*model.MiB*15/model.Bytes(downloads) + 64*model.MiB
	for i := range downloads {
		repos = append(repos, demohub.Repo(fmt.Sprintf("acme/m%d", i), demohub.SeededFile("model.bin", size, uint64(i+1))))
	}
	hub, url, stop, err := origin(ctx, repos...)
	if err != nil {
		return err
	}
	defer stop()
	settings := func(rate float64) string {
		return fmt.Sprintf("bandwidth_management: {global_limit_mbps: %v}\nconnection_settings: {max_connections_per_host: %d, connection_pool_size: 64}\n"+
			"downloads: {max_concurrent_downloads: %d}\nstore: {durability: process}\n", rate, connections, downloads)
	}
	d, _, err := b.serve(ctx, filepath.Join(b.dir, fmt.Sprintf("hub-%d-%d-%d", rate, connections, downloads)), url, settings(float64(rate)))
	if err != nil {
		return err
	}
	for i := range downloads {
		if err := d.start(ctx, fmt.Sprintf("acme/m%d", i), ""); err != nil {
			return errors.Join(err, d.cmd.Process.Kill(), d.cmd.Wait())
		}
	}
	for hub.Stats().Body == 0 {
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	least, most, err := watch(ctx, hub, measure, float64(rate))
	if err != nil {
		return err
	}
	if err := errors.Join(d.configure(settings(float64(rate)/2)), d.cmd.Process.Signal(syscall.SIGHUP), pause(ctx, sooner)); err != nil {
		return err
	}
	halfLeast, halfMost, err := watch(ctx, hub, window, float64(rate)/2)
	if err != nil {
		return err
	}
	kept := "yes"
	if least < 0.95 || most > 1.05 || halfLeast < 0.95 || halfMost > 1.05 {
		kept = "**no**"
	}
	fmt.Printf("| %d | %d | %d | %.3f | %.3f | %.3f | %s |\n", rate, connections, downloads, least, most, halfLeast, kept)
	_, err = d.stop()
	return err
}

// watch reads the origin's counter and returns the least and the most that passed in any window, as parts of the limit.
func watch(ctx context.Context, hub *demohub.Hub, d time.Duration, rate float64) (least, most float64, err error) {
	type reading struct {
		at   time.Time
		sent int64
	}
	var all []reading
	least = 1e9
	for begun := time.Now(); time.Since(begun) <= d+sample; {
		now := reading{time.Now(), hub.Stats().Body}
		all = append(all, now)
		for _, then := range all {
			span := now.at.Sub(then.at)
			if span >= window && span < window+2*sample {
				part := float64(now.sent-then.sent) / span.Seconds() / float64(model.MiB) / rate
				least, most = min(least, part), max(most, part)
			}
		}
		if err := pause(ctx, sample); err != nil {
			return 0, 0, err
		}
	}
	return least, most, nil
}
