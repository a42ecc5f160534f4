package fetch

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/model"
)

// The whole engine against an origin that breaks down above k connections, near and far: within 30 s it
// has settled, and delivers at least nine tenths of what k connections would. When the origin becomes
// worse or better, it settles again.
func TestTheEngineSettlesBesideAnOriginThatBreaksDown(t *testing.T) {
	t.Parallel()
	const per, most = 128 * model.KiB, 12
	for promise, c := range map[string]struct {
		answer time.Duration
		ks     []int64
		part   float64 // of what k connections would bring, for all together above k
	}{
		"near, it breaks down to a tenth":     {time.Millisecond, []int64{6, 3, 9}, 0.1},
		"near, it breaks down by half":        {time.Millisecond, []int64{5, 2}, 0.5},
		"near, it stands one connection only": {time.Millisecond, []int64{1, 4}, 0.3},
		"far, it breaks down to a tenth":      {60 * time.Millisecond, []int64{6, 3, 9}, 0.1},
		"far, it breaks down to a third":      {200 * time.Millisecond, []int64{2, 10}, 0.33},
	} {
		t.Run(promise, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var k atomic.Int64
				k.Store(c.ks[0])
				o := &origin{answer: c.answer, perConn: func(running int) float64 {
					if k := k.Load(); int64(running) > k {
						return c.part * float64(k) * float64(per) / float64(running)
					}
					return float64(per)
				}}
				job := jobOf(512 * model.MiB)
				job.Manifest.Answer = c.answer
				ctx, cancel := context.WithCancelCause(t.Context())
				end := begin(ctx, New(Settings{Connections: most}, o), job)
				for _, now := range c.ks {
					k.Store(now)
					time.Sleep(30 * time.Second)
					before := job.Progress.Received.Load()
					const window = 50 * time.Second
					over := 0
					for range window / (100 * time.Millisecond) {
						time.Sleep(100 * time.Millisecond)
						if running, _ := o.now(); int64(running) > now {
							over++
						}
					}
					rate := float64(job.Progress.Received.Load()-before) / window.Seconds()
					if best := float64(now) * float64(per); rate < 0.9*best {
						t.Errorf("with k = %d: %.0f %% of the best rate, %s", now, 100*rate/best, job.Progress.Note.Load())
					}
					if over > 50 {
						t.Errorf("with k = %d: more than that for %d %% of the time", now, over/5)
					}
				}
				cancel(errStopped)
				if err := end(); !errors.Is(err, errStopped) {
					t.Error(err)
				}
				if n := job.Progress.Retries.Load(); n != 0 {
					t.Errorf("%d retries", n)
				}
			})
		})
	}
}
