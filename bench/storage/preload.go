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
	t.note("first read of a preloaded model", fmt.Sprintf("%.2f s", middle(first)))
	t.note("read from the page cache", fmt.Sprintf("%.2f s", middle(again)))
	t.atLeast("speed of the first ÷ the page cache's", "%.2f", middle(ratio), 0.95)
	t.atMost("resident bytes, % off what fincore says", "%.2f", middle(off), 1)
	return nil
}

// preloaded starts a daemon that keeps models in memory, uses the model, waits until it is there, and says how many bytes of it
// the daemon believes to be resident. The daemon is stopped then; the page cache stays.
func (b *bench) preloaded(ctx context.Context) (resident int64, err error) {
	cmd := exec.CommandContext(ctx, b.ema, "serve", "--config", b.config())
	cmd.Env = append(os.Environ(), "EMA_CACHE_OPTIMIZATION__MODEL_CACHE__ENABLED=true", "EMA_CACHE_OPTIMIZATION__MODEL_CACHE__MAX_SIZE_GB="+strconv.FormatInt(b.size>>30+1, 10))
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, complaints.String())
		}
	}()
	c := client.Local(filepath.Join(b.dir, "state"))
	deadline := time.Now().Add(2 * time.Minute)
	used := false
	for {
		if !used {
			used = c.Use(ctx, client.Usage{Model: b.name()}) == nil
		} else if r, err := c.Resources(ctx); err == nil && r.ModelCache != nil && r.ModelCache.Loading == 0 && r.ModelCache.Resident >= b.size*99/100 {
			return r.ModelCache.Resident, nil
		}
		if time.Now().After(deadline) {
			return 0, errors.New("the model is not in memory after two minutes")
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return 0, err
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
