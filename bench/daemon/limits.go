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

// limits measures what each limit lets through: the bytes that the daemon has taken from its sockets, and beside it those
// that the origin has sent. These come in lumps, since a receiver opens its window by a whole packet at a time, which is
// 64 KiB on loopback: with many connections and a low limit that is more than the limit allows in a window.
func (b bench) limits(ctx context.Context) error {
	fmt.Println("| limit MiB/s | connections | downloads | taken in any 2 s | sent in any 2 s | taken after halving | kept |")
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
	taken, sent, err := d.watch(ctx, hub, measure, float64(rate))
	if err != nil {
		return err
	}
	if err := errors.Join(d.configure(settings(float64(rate)/2)), d.cmd.Process.Signal(syscall.SIGHUP), pause(ctx, sooner)); err != nil {
		return err
	}
	half, _, err := d.watch(ctx, hub, window, float64(rate)/2)
	if err != nil {
		return err
	}
	kept := "yes"
	if !taken.within(0.05) || !half.within(0.05) {
		kept = "**no**"
	}
	fmt.Printf("| %d | %d | %d | %v | %v | %v | %s |\n", rate, connections, downloads, taken, sent, half, kept)
	_, err = d.stop()
	return err
}

// A spread is the least and the most that passed in any window, as parts of the limit.
type spread struct{ least, most float64 }

func (s spread) within(part float64) bool { return s.least >= 1-part && s.most <= 1+part }

func (s spread) String() string { return fmt.Sprintf("%.3f–%.3f", s.least, s.most) }

// A reading is a counter at a time.
type reading struct {
	at    time.Time
	bytes int64
}

// add widens the spread by the windows that end with the newest reading.
func (s *spread) add(all []reading, rate float64) {
	now := all[len(all)-1]
	for _, then := range all {
		if span := now.at.Sub(then.at); span >= window && span < window+2*sample {
			part := float64(now.bytes-then.bytes) / span.Seconds() / float64(model.MiB) / rate
			s.least, s.most = min(s.least, part), max(s.most, part)
		}
	}
}

// watch reads the daemon's and the origin's counters for a time.
func (d *daemon) watch(ctx context.Context, hub *demohub.Hub, long time.Duration, rate float64) (taken, sent spread, err error) {
	taken.least, sent.least = 1e9, 1e9
	var here, there []reading
	for begun := time.Now(); time.Since(begun) <= long+2*sample; {
		active, err := d.Active(ctx)
		if err != nil {
			return taken, sent, err
		}
		var sum int64
		for _, one := range active.Downloads {
			sum += one.DownloadedBytes
		}
		here, there = append(here, reading{time.Now(), sum}), append(there, reading{time.Now(), hub.Stats().Body})
		taken.add(here, rate)
		sent.add(there, rate)
		if err := pause(ctx, sample); err != nil {
			return taken, sent, err
		}
	}
	return taken, sent, nil
}
