package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ema/client"

	"ema/bench/table"
)

// preload measures what a model that the daemon has read ahead is worth to the first program that loads it, and whether the
// daemon's own figure is what the system says.
func (b *bench) preload(ctx context.Context) error {
	var first, again, ratio, off []float64
	for round := range b.rounds {
		blob, err := b.blob(ctx)
		if err != nil {
			return err
		}
		if err := forget(blob); err != nil {
			return err
		}
		ours, err := b.preloaded(ctx)
		if err != nil {
			return err
		}
		theirs, err := b.fincore(ctx, blob)
		if err != nil {
			return err
		}
		_, cold, err := b.run1(ctx, "dd", "if="+blob, "of=/dev/null", "bs=1M")
		if err != nil {
			return err
		}
		_, warm, err := b.run1(ctx, "dd", "if="+blob, "of=/dev/null", "bs=1M")
		if err != nil {
			return err
		}
		first, again = append(first, cold.wall), append(again, warm.wall)
		ratio, off = append(ratio, warm.wall/cold.wall), append(off, 100*abs(float64(ours-theirs))/float64(b.size))
		fmt.Printf("  round %d: first read %.2f s, again %.2f s; resident says ema %d MiB, fincore %d MiB\n", round+1, cold.wall, warm.wall, ours>>20, theirs>>20)
	}
	t := &b.table
	t.Note("first read of a preloaded model", fmt.Sprintf("%.2f s", table.Middle(first)))
	t.Note("read from the page cache", fmt.Sprintf("%.2f s", table.Middle(again)))
	t.AtLeast("speed of the first ÷ the page cache's", "%.2f", table.Middle(ratio), 0.95)
	t.AtMost("resident bytes, % off what fincore says", "%.2f", table.Middle(off), 1)
	return nil
}

// preloaded has the model used while a daemon keeps models in memory, waits until it is there, and says how many bytes of it
// the daemon finds resident. The daemon is stopped then; the page cache stays.
func (b *bench) preloaded(ctx context.Context) (resident int64, err error) {
	stop, err := b.serve(ctx, "EMA_CACHE_OPTIMIZATION__MODEL_CACHE__MAX_SIZE_GB="+strconv.FormatInt(b.size>>30+1, 10))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	c := client.Local(filepath.Join(b.dir, "state"))
	if _, err := c.RecordUse(ctx, client.Use{Model: b.name()}); err != nil {
		return 0, err
	}
	for deadline := time.Now().Add(2 * time.Minute); ; {
		r, err := c.Resources(ctx)
		if err != nil {
			return 0, err
		}
		if m := r.ModelCache; m != nil && m.ResidentMB >= 0.99*float64(b.size>>20) {
			return int64(m.ResidentMB * (1 << 20)), nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("the model is not in memory after two minutes: %+v", r.ModelCache)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// serve starts a daemon and waits until it answers. The settings are of the environment.
func (b *bench) serve(ctx context.Context, settings ...string) (stop func() error, err error) {
	cmd := exec.CommandContext(ctx, b.ema, "serve", "--config", b.config())
	cmd.Env = append(os.Environ(), settings...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() error {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			return fmt.Errorf("%w\n%s", err, complaints.String())
		}
		return nil
	}
	c := client.Local(filepath.Join(b.dir, "state"))
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err := c.Version(ctx); err == nil {
			return stop, nil
		} else if time.Now().After(deadline) {
			return nil, errors.Join(err, stop())
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, errors.Join(err, stop())
		}
	}
}

func (b *bench) fincore(ctx context.Context, name string) (int64, error) {
	out, _, err := b.run1(ctx, "fincore", "--bytes", "--noheadings", "--output", "RES", name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(out), 10, 64)
}

func abs(f float64) float64 { return max(f, -f) }
