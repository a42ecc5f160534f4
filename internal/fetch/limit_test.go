package fetch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/model"
	"ema/internal/throttle"
)

// A valve is a limit of bytes per second that may be changed; 0 is none.
type valve struct {
	most  int // the largest piece
	taken atomic.Int64

	mu   sync.Mutex
	rate float64
	due  time.Time
	set  chan struct{} // closed and replaced when the rate changes
}

func newValve(rate model.Bytes) *valve {
	return &valve{most: 16 << 10, rate: float64(rate), due: time.Now(), set: make(chan struct{})}
}

func (v *valve) change(rate model.Bytes) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rate, v.due = float64(rate), time.Now()
	close(v.set)
	v.set = make(chan struct{})
}

func (v *valve) Piece(most int) int { return min(most, v.most) }

func (v *valve) Take(ctx context.Context, n int) error {
	v.taken.Add(int64(n))
	v.mu.Lock()
	changed, wait := v.set, time.Duration(0)
	if v.rate > 0 {
		if now := time.Now(); v.due.Before(now) {
			v.due = now
		}
		v.due = v.due.Add(time.Duration(float64(n) / v.rate * float64(time.Second)))
		wait = time.Until(v.due)
	}
	v.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// steady is an origin's rate for each connection.
func steady(perSecond model.Bytes) func(int) float64 {
	return func(int) float64 { return float64(perSecond) }
}

func TestEveryByteThatComesPassesTheLimitInPieces(t *testing.T) {
	for promise, bend := range map[string]byte{"large and small files": 0, "also those of an audit": 1} {
		t.Run(promise, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newValve(0)
				o := &origin{bend: bend, asked: func(n int) {
					if n > v.most {
						t.Errorf("a read asks for %d bytes, the limit allows %d at once", n, v.most)
					}
				}}
				job := jobOf(9*model.MiB+17, 3*model.MiB, 0, 1, model.MiB, 4711)
				job.Limit = v
				if bend != 0 { // the hash of the zeros that should have come
					for i, f := range job.Files {
						h := model.Digest{}.NewHash(f.Size)
						h.Write(make([]byte, f.Size))
						job.Files[i].Digest = model.Digest{}.Sum(h)
					}
				}
				err := New(Settings{Connections: 3}, o).Fetch(t.Context(), job)
				received := job.Progress.Received.Load()
				if err != nil || v.taken.Load() != received {
					t.Fatalf("%v; %d bytes passed the limit, %d were received", err, v.taken.Load(), received)
				}
				if again := received > 12*int64(model.MiB)+BlockSize+17+1+4711; again != (bend != 0) {
					t.Errorf("received %d bytes", received)
				}
			})
		})
	}
}

func TestALimitActsOnTheReadsThatRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newValve(model.MiB)
		job := jobOf(120 * model.MiB)
		job.Limit = v
		end := begin(t.Context(), New(Settings{Connections: 4}, &origin{perConn: steady(4 * model.MiB)}), job)
		in := func(d time.Duration) float64 { // MiB per second
			before := job.Progress.Received.Load()
			time.Sleep(d)
			return float64(job.Progress.Received.Load()-before) / d.Seconds() / float64(model.MiB)
		}
		time.Sleep(2 * time.Second)
		if rate := in(10 * time.Second); rate < 0.95 || rate > 1.05 {
			t.Errorf("%.2f MiB/s under a limit of 1", rate)
		}
		v.change(4 * model.MiB)
		if rate := in(5 * time.Second); rate < 3.8 || rate > 4.2 {
			t.Errorf("%.2f MiB/s under a limit of 4", rate)
		}
		v.change(64 * model.KiB)
		time.Sleep(time.Second)
		if rate := in(100 * time.Second); rate < 0.055 || rate > 0.07 {
			t.Errorf("%.3f MiB/s under a limit of 0.0625", rate)
		}
		v.change(0)
		if rate := in(4 * time.Second); rate < 12 {
			t.Errorf("%.2f MiB/s without a limit, the origin gives 16", rate)
		}
		whole(t, job, end())
		if n := job.Progress.Retries.Load(); n != 0 {
			t.Errorf("%d retries: the limit was taken for slow connections", n)
		}
	})
}

func TestCancellingEndsAConnectionThatWaitsInTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := jobOf(8*model.MiB, 4711)
		job.Limit = newValve(1) // byte per second
		ctx, cancel := context.WithCancelCause(t.Context())
		end := begin(ctx, New(Settings{}, &origin{}), job)
		time.Sleep(time.Hour)
		at := time.Now()
		cancel(errStopped)
		if err := end(); !errors.Is(err, errStopped) || !time.Now().Equal(at) {
			t.Errorf("ended with %v after %v", err, time.Since(at))
		}
		if n := job.Progress.Retries.Load(); n != 0 {
			t.Errorf("%d connections were taken for stalled ones", n)
		}
	})
}

// While the limit binds, more connections would bring nothing, whatever the origin is worth. When it is
// gone, the climb begins.
func TestConnectionsAreNotMultipliedUnderALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newValve(512 * model.KiB)
		o := &origin{perConn: steady(model.MiB)}
		job := jobOf(150 * model.MiB)
		job.Limit = v
		end := begin(t.Context(), New(Settings{Connections: 16}, o), job)
		time.Sleep(2 * time.Minute)
		if _, most := o.now(); most > few {
			t.Errorf("%d connections under a limit that half of one reaches", most)
		}
		v.change(0)
		time.Sleep(2 * time.Second)
		if running, _ := o.now(); running != 16 {
			t.Errorf("%d connections two seconds after the limit went, want all 16", running)
		}
		whole(t, job, end())
	})
}

// Under a limit too, a connection that waits for the network while the others wait for the limit is
// replaced.
func TestASlowConnectionIsReplacedUnderALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		o := &origin{}
		o.before = func(context.Context) error { n.Add(1); return nil }
		o.perConn = steady(model.MiB)
		slow := &oneSlow{origin: o}
		job := jobOf(40 * model.MiB)
		job.Limit = newValve(model.MiB)
		end := begin(t.Context(), New(Settings{Connections: 4, FixedParallel: true}, slow), job)
		whole(t, job, end())
		if got := job.Progress.ByClass[model.Timeout].Load(); got != 1 {
			t.Errorf("%d connections were replaced, want the slow one", got)
		}
	})
}

// The limiter that the daemon uses, under the whole engine: over any 2 s the rate is within 5 %, over one
// connection and many, for one job and several.
func TestTheRateOfAllJobsIsTheLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit             model.Bytes
		connections, jobs int
	}{
		{2 * model.MiB, 1, 1},
		{2 * model.MiB, 16, 1},
		{2 * model.MiB, 1, 4},
		{2 * model.MiB, 16, 4},
		{20 * model.MiB, 1, 1},
		{20 * model.MiB, 16, 4},
	} {
		t.Run(fmt.Sprintf("%v over %d connections of %d jobs", c.limit, c.connections, c.jobs), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limiter := throttle.New()
				limiter.Set(c.limit)
				f := New(fixed(c.connections, 0), &origin{answer: 20 * time.Millisecond, perConn: steady(64 * model.MiB)})
				var jobs []Job
				var ends []func() error
				for range c.jobs {
					share := limiter.Share(1, 0)
					defer share.Close()
					job := jobOf(model.Bytes(8 / c.jobs * int(c.limit)))
					job.Limit = share
					jobs, ends = append(jobs, job), append(ends, begin(t.Context(), f, job))
				}
				var seen []int64 // every 100 ms
				for range 65 {
					sum := int64(0)
					for _, job := range jobs {
						sum += job.Progress.Received.Load()
					}
					seen = append(seen, sum)
					time.Sleep(100 * time.Millisecond)
				}
				for at := 10; at+20 < len(seen); at++ {
					if part := float64(seen[at+20]-seen[at]) / float64(2*c.limit); part < 0.95 || part > 1.05 {
						t.Fatalf("in the 2 s from %.1f s on, %.1f %% of the limit came", float64(at)/10, 100*part)
					}
				}
				for i, end := range ends {
					whole(t, jobs[i], end())
					if n := jobs[i].Progress.Retries.Load(); n != 0 {
						t.Errorf("%d retries", n)
					}
				}
			})
		})
	}
}
