package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/config"
	"ema/internal/model"
)

func TestAMoveAtLowPriorityTakesASmallShareBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, others := time.Now(), 100e6
		p := &pace{others: func(context.Context) float64 {
			if time.Since(begun) > 10*time.Second {
				return 0 // they have done
			}
			return others
		}}
		var moved float64
		for range 100 {
			if err := p.wait(t.Context(), 1<<20); err != nil {
				t.Fatal(err)
			}
			if moved += 1 << 20; time.Since(begun) < 10*time.Second && moved > 1<<20+others*paceShare*time.Since(begun).Seconds() {
				t.Fatalf("%v bytes in %v beside %v per second", moved, time.Since(begun), others)
			}
		}
		if took := time.Since(begun); took < 10*time.Second || took > 10*time.Second+2*paceMost {
			t.Errorf("100 MiB beside others of 10 s take %v: it goes on at full speed when they have done", took)
		}
		others, begun = 1e12, time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		p.looked, p.rate = time.Now(), paceQuiet
		if err := p.wait(ctx, 1<<30); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stopped: %v", err)
		}
	})
}

func TestOnlyLowPriorityIsPaced(t *testing.T) {
	set := config.Default().StorageTiers
	if paceOf(set, model.Hot, model.Warm, t.TempDir()) != nil {
		t.Error("a move at normal priority is paced")
	}
	set.Warm.IOPriority = "low"
	if paceOf(set, model.Hot, model.Warm, "/proc") != nil {
		t.Error("a file system without a disk is measured")
	}
}
