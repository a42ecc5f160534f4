package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"ema/bench/table"
)

// move measures a demotion and a promotion, with their verification and their syncs, beside cp and sha256sum.
func (b *bench) move(ctx context.Context) error {
	original, copied := filepath.Join(b.source(), "model.bin"), filepath.Join(b.dir, "copy")
	var down, up, cpu, peak, ideal, after, overIdeal, overAfter []float64
	for round := range b.rounds {
		var both [2]cost
		for i, tier := range []string{"cold", "hot"} {
			blob, err := b.blob(ctx)
			if err != nil {
				return err
			}
			if err := forget(blob); err != nil {
				return err
			}
			if _, both[i], err = b.run1(ctx, b.ema, "tier", "move", b.name(), tier, "--config", b.config(), "--quiet"); err != nil {
				return err
			}
		}
		if err := forget(original); err != nil {
			return err
		}
		_, cp, err := b.run1(ctx, "cp", "--reflink=never", original, copied)
		if err != nil {
			return err
		}
		_, sum, err := b.run1(ctx, "sha256sum", copied)
		if err != nil {
			return err
		}
		if err := os.Remove(copied); err != nil {
			return err
		}
		best, apart := max(cp.wall, sum.wall), cp.wall+sum.wall
		for _, c := range both {
			overIdeal, overAfter = append(overIdeal, best/c.wall), append(overAfter, apart/c.wall)
			cpu, peak = append(cpu, c.cpu), append(peak, c.peak)
		}
		down, up = append(down, both[0].wall), append(up, both[1].wall)
		ideal, after = append(ideal, best), append(after, apart)
		fmt.Printf("  round %d: to cold %.2f s, back %.2f s; cp %.2f s, sha256sum %.2f s\n", round+1, both[0].wall, both[1].wall, cp.wall, sum.wall)
	}
	t := &b.table
	t.Note("the model", fmt.Sprintf("one file of %d MiB, not in memory", b.size>>20))
	t.Note("to the cold tier, verified and durable", fmt.Sprintf("%.2f s", table.Middle(down)))
	t.Note("and back", fmt.Sprintf("%.2f s", table.Middle(up)))
	t.Note("CPU, most memory", fmt.Sprintf("%.2f s, %.0f MiB", table.Middle(cpu), table.Middle(peak)))
	t.Note("the slower of cp and sha256sum, not synced", fmt.Sprintf("%.2f s", table.Middle(ideal)))
	t.Note("both, one after the other", fmt.Sprintf("%.2f s", table.Middle(after)))
	t.AtLeast("speed ÷ the slower of both", "%.2f", table.Middle(overIdeal), 0.9)
	t.AtLeast("speed ÷ both one after the other", "%.2f", table.Middle(overAfter), 1.6)
	return nil
}

// beside measures what somebody who reads from the same disk loses while a move at low priority runs.
func (b *bench) beside(ctx context.Context) error {
	original := filepath.Join(b.source(), "model.bin")
	read := func() (float64, error) {
		_, c, err := b.run1(ctx, "dd", "if="+original, "of=/dev/null", "bs=1M", "iflag=direct", fmt.Sprintf("count=%d", min(b.size>>20, 2048)))
		return c.wall, err
	}
	var alone, loaded, lost []float64
	for round := range b.rounds {
		quiet, err := read()
		if err != nil {
			return err
		}
		tier := []string{"cold", "hot"}[round%2]
		moving := exec.CommandContext(ctx, b.ema, "tier", "move", b.name(), tier, "--config", b.config(), "--quiet")
		if err := moving.Start(); err != nil {
			return err
		}
		moved := make(chan error, 1)
		go func() { moved <- moving.Wait() }()
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return errors.Join(err, <-moved)
		}
		busy, err := read()
		select {
		case end := <-moved:
			if err = errors.Join(err, end); err == nil {
				fmt.Println("  the move was over before the read: too fast to disturb it all the time")
			}
		default:
			err = errors.Join(err, <-moved)
		}
		if err != nil {
			return err
		}
		alone, loaded, lost = append(alone, quiet), append(loaded, busy), append(lost, 100*(1-quiet/busy))
		fmt.Printf("  round %d: read alone %.2f s, beside a move %.2f s\n", round+1, quiet, busy)
	}
	if b.rounds%2 == 1 {
		if _, _, err := b.run1(ctx, b.ema, "tier", "move", b.name(), "hot", "--config", b.config(), "--quiet"); err != nil {
			return err
		}
	}
	t := &b.table
	t.Note("a sequential read alone", fmt.Sprintf("%.2f s", table.Middle(alone)))
	t.Note("beside a move at low priority", fmt.Sprintf("%.2f s", table.Middle(loaded)))
	t.AtMost("it loses %", "%.1f", table.Middle(lost), 15)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
