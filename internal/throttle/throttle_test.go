package throttle

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/model"
)

// A link is a made-up network inside a synctest bubble: connections read from it and ask a Share for
// each piece. It counts the bytes of each download as they come, in steps of a hundredth of a second.
type link struct {
	limiter *Limiter
	begin   time.Time
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	bytes map[*Share][]int64
}

const step = 10 * time.Millisecond

func newLink(t *testing.T, limit model.Bytes) *link {
	l := &link{limiter: New(), begin: time.Now(), bytes: map[*Share][]int64{}}
	l.limiter.Set(limit)
	l.ctx, l.stop = context.WithCancel(t.Context())
	t.Cleanup(l.close)
	return l
}

func (l *link) close() {
	l.stop()
	l.running.Wait()
}

// connect opens n connections of a download, each as fast as speed in bytes per second (0 is endless),
// which hesitate now and then.
func (l *link) connect(t *testing.T, s *Share, n int, speed model.Bytes) {
	for i := range n {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		l.running.Go(func() {
			for l.ctx.Err() == nil {
				piece := s.Piece(1 << 20)
				if speed > 0 {
					time.Sleep(time.Duration(float64(piece) / float64(speed) * 1e9))
				}
				if random.IntN(50) == 0 {
					time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
				}
				l.came(s, piece)
				if err := s.Take(l.ctx, piece); err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("Take: %v", err)
					return
				}
			}
		})
	}
}

func (l *link) came(s *Share, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := int(time.Since(l.begin) / step)
	for len(l.bytes[s]) <= i {
		l.bytes[s] = append(l.bytes[s], 0)
	}
	l.bytes[s][i] += int64(n)
}

// between is how many bytes came in that time since the beginning, to these downloads or to all.
func (l *link) between(from, to time.Duration, shares ...*Share) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := int64(0)
	for s, bytes := range l.bytes {
		if len(shares) > 0 && s != shares[0] {
			continue
		}
		for i := int(from / step); i < min(int(to/step), len(bytes)); i++ {
			sum += bytes[i]
		}
	}
	return float64(sum)
}

// holds fails when, in any two seconds between from and to, the rate is more than 5 % off.
func (l *link) holds(t *testing.T, limit model.Bytes, from, to time.Duration, shares ...*Share) {
	t.Helper()
	const window = 2 * time.Second
	least, most := math.Inf(1), 0.0
	for at := from; at+window <= to; at += step {
		rate := l.between(at, at+window, shares...) / window.Seconds()
		least, most = min(least, rate), max(most, rate)
	}
	if off := max(most/float64(limit)-1, 1-least/float64(limit)); off > 0.05 {
		t.Errorf("limit %v: between %v and %v per second in two seconds, %.1f %% off", limit, model.Bytes(least), model.Bytes(most), off*100)
	}
}

func TestALimitHoldsInAnyTwoSeconds(t *testing.T) {
	for _, limit := range []model.Bytes{2 * model.MiB, 20 * model.MiB, 200 * model.MiB} {
		for _, connections := range []int{1, 16} {
			for _, downloads := range []int{1, 4} {
				for _, speed := range []model.Bytes{0, limit * 3 / 2} {
					promise := fmt.Sprintf("%v over %d connections of %d downloads at speed %v", limit, connections, downloads, speed)
					t.Run(promise, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							l := newLink(t, limit)
							for range downloads {
								s := l.limiter.Share(1, 0)
								t.Cleanup(s.Close)
								l.connect(t, s, connections, speed)
							}
							time.Sleep(8 * time.Second)
							l.close()
							l.holds(t, limit, 2*time.Second, 8*time.Second)
						})
					})
				}
			}
		}
	}
}

func TestADownloadsOwnLimitHoldsInAnyTwoSecondsAndLeavesTheRestToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, 20*model.MiB)
		small, large := l.limiter.Share(1, 2*model.MiB), l.limiter.Share(1, 0)
		defer small.Close()
		defer large.Close()
		l.connect(t, small, 16, 0)
		l.connect(t, large, 4, 0)
		time.Sleep(8 * time.Second)
		l.close()
		l.holds(t, 2*model.MiB, 2*time.Second, 8*time.Second, small)
		l.holds(t, 18*model.MiB, 2*time.Second, 8*time.Second, large)
	})
}

func TestAChangeActsWithinASecondOnThoseThatWait(t *testing.T) {
	for promise, change := range map[string]struct {
		before, after model.Bytes
		set           func(l *link, s *Share, limit model.Bytes)
	}{
		"lower":                  {200 * model.MiB, 2 * model.MiB, func(l *link, _ *Share, n model.Bytes) { l.limiter.Set(n) }},
		"higher":                 {2 * model.MiB, 200 * model.MiB, func(l *link, _ *Share, n model.Bytes) { l.limiter.Set(n) }},
		"from next to nothing":   {1, 20 * model.MiB, func(l *link, _ *Share, n model.Bytes) { l.limiter.Set(n) }},
		"from no limit":          {0, 2 * model.MiB, func(l *link, _ *Share, n model.Bytes) { l.limiter.Set(n) }},
		"lower, of one download": {200 * model.MiB, 2 * model.MiB, func(_ *link, s *Share, n model.Bytes) { s.Set(n) }},
	} {
		t.Run(promise, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLink(t, change.before)
				s := l.limiter.Share(1, 0)
				defer s.Close()
				l.connect(t, s, 16, 300*model.MiB/16)
				time.Sleep(5 * time.Second)
				change.set(l, s, change.after)
				time.Sleep(5 * time.Second)
				l.close()
				l.holds(t, change.after, 6*time.Second, 10*time.Second)
			})
		})
	}
}

func TestWhatPassedAtAHighLimitIsNotPaidForAtALowOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		l.Set(64 * model.MiB)
		s, other := l.Share(1, 0), l.Share(8, 0)
		defer s.Close()
		defer other.Close()
		if err := s.Take(t.Context(), 64<<20); err != nil { // a second's worth
			t.Fatal(err)
		}
		l.Set(model.MiB)
		begin := time.Now()
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			for other.Take(ctx, other.Piece(1<<20)) == nil {
			}
		})
		synctest.Wait()
		if err := s.Take(ctx, s.Piece(1<<20)); err != nil || time.Since(begin) > 1500*time.Millisecond {
			t.Errorf("the next piece passed after %v (%v), want about a second", time.Since(begin), err)
		}
		stop()
		running.Wait()
	})
}

func TestADownloadOfOneSlowConnectionStillGetsItsShareOfACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 80 * model.MiB
		l := newLink(t, limit)
		single := l.limiter.Share(1, 0)
		defer single.Close()
		l.connect(t, single, 1, limit/8*6/5) // a little faster than its share
		for range 7 {
			s := l.limiter.Share(1, 0)
			t.Cleanup(s.Close)
			l.connect(t, s, 16, 0)
		}
		time.Sleep(10 * time.Second)
		l.close()
		if got := l.between(2*time.Second, 10*time.Second, single) / 8; got < 0.9*float64(limit/8) {
			t.Errorf("it got %v per second, want 10 MiB", model.Bytes(got))
		}
	})
}

func TestADownloadThatComesInBurstsCatchesUpWithItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 20 * model.MiB
		l := newLink(t, limit)
		bursts, crowd := l.limiter.Share(1, 0), l.limiter.Share(1, 0)
		defer bursts.Close()
		defer crowd.Close()
		l.connect(t, crowd, 16, 0)
		l.running.Go(func() {
			for l.ctx.Err() == nil { // a pause, and then in 40 ms at full rate what it could have had of half of it meanwhile
				time.Sleep(60 * time.Millisecond)
				for left := int(limit * 40 / 1000); left > 0 && l.ctx.Err() == nil; {
					piece := bursts.Piece(left)
					l.came(bursts, piece)
					if bursts.Take(l.ctx, piece) != nil {
						return
					}
					left -= piece
				}
			}
		})
		time.Sleep(10 * time.Second)
		l.close()
		if got := l.between(2*time.Second, 10*time.Second, bursts) / 8; got < 0.36*float64(limit) {
			t.Errorf("it got %v per second, want 40 %% of 20 MiB", model.Bytes(got))
		}
	})
}

func TestPiecesAreSmallerWhileOtherDownloadsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		l.Set(1 << 50)
		s, other := l.Share(1, 0), l.Share(3, 0)
		defer s.Close()
		for range 100 {
			if err := s.Take(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		l.Set(4 * model.MiB)
		before := s.Piece(1 << 20)
		var waiting sync.WaitGroup
		for range 2 { // one passes, and the other waits until it is paid
			waiting.Go(func() {
				if err := other.Take(t.Context(), 1<<20); err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if after := s.Piece(1 << 20); before != 80<<10 || after != 20<<10 {
			t.Errorf("a piece is %d, and %d while others wait; want 80 and 20 KiB", before, after)
		}
		other.Close()
		waiting.Wait()
	})
}

func TestLiftingTheLimitFreesAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		l.Set(1)
		s := l.Share(1, 1)
		defer s.Close()
		var waiting sync.WaitGroup
		begin := time.Now()
		for range 8 {
			waiting.Go(func() {
				if err := s.Take(t.Context(), 1<<20); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		l.Set(0)
		s.Set(0)
		waiting.Wait()
		if waited := time.Since(begin); waited != 0 || l.Rate() != 0 {
			t.Errorf("passed after %v, with the limit at %v", waited, l.Rate())
		}
	})
}

func TestDownloadsThatWantMoreThanThereIsShareByWeight(t *testing.T) {
	type download struct{ weight, connections int }
	for promise, downloads := range map[string][]download{
		"equal weights, equal connections":       {{1, 4}, {1, 4}, {1, 4}},
		"equal weights, one connection of many":  {{1, 1}, {1, 16}},
		"equal weights, a crowd":                 {{2, 1}, {2, 2}, {2, 4}, {2, 8}, {2, 16}, {2, 1}, {2, 3}, {2, 9}},
		"low, normal, high, critical":            {{1, 4}, {2, 4}, {4, 4}, {8, 4}},
		"the heaviest with the fewest":           {{1, 16}, {2, 8}, {4, 4}, {8, 1}},
		"weights of nothing and less, as of one": {{0, 2}, {-5, 2}, {1, 2}},
	} {
		for _, limit := range []model.Bytes{2 * model.MiB, 200 * model.MiB} {
			t.Run(fmt.Sprintf("%s at %v", promise, limit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLink(t, limit)
					var shares []*Share
					sum := 0
					for _, d := range downloads {
						s := l.limiter.Share(d.weight, 0)
						t.Cleanup(s.Close)
						shares = append(shares, s)
						sum += max(1, d.weight)
						l.connect(t, s, d.connections, limit*3/2) // one connection could take it all
					}
					time.Sleep(12 * time.Second)
					l.close()
					for i, s := range shares {
						got := l.between(2*time.Second, 12*time.Second, s) / 10
						want := float64(limit) * float64(max(1, downloads[i].weight)) / float64(sum)
						if math.Abs(got/want-1) > 0.1 {
							t.Errorf("download %d of weight %d got %v per second, want %v", i, downloads[i].weight, model.Bytes(got), model.Bytes(want))
						}
					}
				})
			})
		}
	}
}

func TestWhatASlowOrIdleDownloadDoesNotUseTheOthersGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 20 * model.MiB
		l := newLink(t, limit)
		slow, idle, hungry := l.limiter.Share(8, 0), l.limiter.Share(8, 0), l.limiter.Share(1, 0)
		defer slow.Close()
		defer idle.Close()
		defer hungry.Close()
		l.connect(t, slow, 2, model.MiB)
		l.connect(t, hungry, 2, 0)
		time.Sleep(8 * time.Second)
		l.close()
		l.holds(t, limit, 2*time.Second, 8*time.Second)
		if got := l.between(2*time.Second, 8*time.Second, slow) / 6; got < 0.9*float64(2*model.MiB) {
			t.Errorf("the slow one got %v per second of the 2 MiB that it could take", model.Bytes(got))
		}
	})
}

func TestADownloadThatWasHeldBackDoesNotStarveTheOthersLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, 20*model.MiB)
		held, other := l.limiter.Share(1, model.MiB), l.limiter.Share(1, 0)
		defer held.Close()
		defer other.Close()
		l.connect(t, held, 4, 0)
		l.connect(t, other, 4, 0)
		time.Sleep(60 * time.Second)
		held.Set(0)
		time.Sleep(5 * time.Second)
		l.close()
		for at := 60500 * time.Millisecond; at < 65*time.Second; at += 500 * time.Millisecond {
			if got := 2 * l.between(at, at+500*time.Millisecond, other); math.Abs(got/float64(10*model.MiB)-1) > 0.1 {
				t.Errorf("at %v the other got %v per second, want half of 20 MiB", at, model.Bytes(got))
			}
		}
	})
}

func TestAWeightChangesWhileBytesFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, 20*model.MiB)
		a, b := l.limiter.Share(1, 0), l.limiter.Share(1, 0)
		defer a.Close()
		defer b.Close()
		l.connect(t, a, 4, 0)
		l.connect(t, b, 4, 0)
		time.Sleep(5 * time.Second)
		a.Weigh(3)
		time.Sleep(5 * time.Second)
		l.close()
		l.holds(t, 15*model.MiB, 6*time.Second, 10*time.Second, a)
		l.holds(t, 5*model.MiB, 6*time.Second, 10*time.Second, b)
	})
}

func TestNoConnectionOfADownloadStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const connections = 16
		l := New()
		l.Set(2 * model.MiB)
		s := l.Share(1, 0)
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		var took [connections]int
		var running sync.WaitGroup
		for i := range connections {
			running.Go(func() {
				for s.Take(ctx, 8<<10) == nil {
					took[i]++
				}
			})
		}
		running.Wait()
		s.Close()
		for i, n := range took {
			if mean := 10 * 256 / connections; n < mean*9/10 || n > mean*11/10 {
				t.Errorf("connection %d got %d of about %d pieces", i, n, mean)
			}
		}
	})
}

func TestACancelledTakeReturnsAtOnceAndCostsTheOthersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		l.Set(model.MiB)
		s := l.Share(1, 0)
		defer s.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("paused")
		if err := s.Take(ctx, 1<<20); err != nil { // passes, and is paid for in the next second
			t.Fatal(err)
		}
		var waiting sync.WaitGroup
		begin := time.Now()
		for range 4 {
			waiting.Go(func() {
				if err := s.Take(ctx, 64<<20); !errors.Is(err, why) || time.Since(begin) != 500*time.Millisecond {
					t.Errorf("Take, cancelled: %v after %v, want its cause after 0.5s", err, time.Since(begin))
				}
			})
		}
		synctest.Wait()
		waiting.Go(func() {
			if err := s.Take(t.Context(), 1); err != nil || time.Since(begin).Round(time.Millisecond) != time.Second {
				t.Errorf("Take behind them: %v after %v, want nil after 1s", err, time.Since(begin))
			}
		})
		time.Sleep(500 * time.Millisecond)
		cancel(why)
		waiting.Wait()
		if err := s.Take(ctx, 1); !errors.Is(err, why) {
			t.Errorf("Take with a context that has ended: %v, want its cause", err)
		}
	})
}

func TestAClosedShareLetsNobodyWaitAndNothingThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		l.Set(1)
		s, other := l.Share(1, 0), l.Share(1, 0)
		defer other.Close()
		if err := other.Take(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- s.Take(t.Context(), 1<<20) }()
		synctest.Wait()
		s.Close()
		s.Close()
		s.Set(5)
		s.Weigh(5)
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("Take that waited: %v, want ErrClosed", err)
		}
		if err := s.Take(t.Context(), 1); !errors.Is(err, ErrClosed) {
			t.Errorf("Take afterwards: %v, want ErrClosed", err)
		}
		if l.weight != 1 {
			t.Errorf("the weight of what is left is %d, want 1", l.weight)
		}
	})
}

func TestUnusedBudgetIsKeptForFiftyMillisecondsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		l.Set(1000)
		s := l.Share(1, 0)
		defer s.Close()
		time.Sleep(time.Hour)
		l.Set(1000) // is no change, and so takes nothing away
		begin := time.Now()
		for range 1051 {
			if err := s.Take(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took < 999*time.Millisecond || took > 1001*time.Millisecond {
			t.Errorf("1,051 bytes at 1,000 per second took %v, want 1s: 50 were saved, and the last goes into debt", took)
		}
	})
}

func TestNothingRunsWhenNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		l.Set(100)
		s := l.Share(1, 0)
		defer s.Close()
		if err := s.Take(t.Context(), 1000); err != nil {
			t.Fatal(err)
		}
		if l.timer != nil {
			t.Error("there is a timer although nobody has waited yet")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Take(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if l.timer.Stop() {
			t.Error("the timer is armed although nobody waits any more")
		}
	})
}

func TestPiecesAreSmallWhenTheLimitIsAndLargeWhenNothingLimits(t *testing.T) {
	l := New()
	s := l.Share(1, 0)
	defer s.Close()
	l.Set(1 << 50)
	for i := range 100 {
		if got := s.Piece(1 << 20); i == 0 && got != 4<<10 {
			t.Errorf("the first Piece is %d, want 4 KiB: nobody knows yet how many connections there are", got)
		}
		if err := s.Take(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	for limit, want := range map[model.Bytes]int{
		0:                1 << 20,
		1:                4 << 10,
		model.MiB:        20 << 10,
		2 * model.MiB:    40 << 10,
		200 * model.MiB:  256 << 10,
		1 << 60:          256 << 10,
		-5 * model.MiB:   1 << 20,
		5000 * model.KiB: 100 << 10,
	} {
		l.Set(limit)
		if got := s.Piece(1 << 20); got != want {
			t.Errorf("Piece at %v is %d, want %d", limit, got, want)
		}
		if got := s.Piece(1000); got != 1000 {
			t.Errorf("Piece of at most 1000 at %v is %d", limit, got)
		}
	}
	l.Set(200 * model.MiB)
	s.Set(model.MiB)
	if got, want := s.Piece(1<<20), 20<<10; got != want {
		t.Errorf("Piece at the download's own limit is %d, want %d", got, want)
	}
}

func BenchmarkTakeUnlimited(b *testing.B) {
	s := New().Share(1, 0)
	defer s.Close()
	ctx := b.Context()
	for b.Loop() {
		if err := s.Take(ctx, s.Piece(1<<20)); err != nil {
			b.Fatal(err)
		}
	}
}
