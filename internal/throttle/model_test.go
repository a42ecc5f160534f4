package throttle

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

// A crowd is a Limiter with downloads whose connections always want more, for comparison with what
// each should get.
type crowd struct {
	limiter   *Limiter
	rate      float64
	downloads []*hungry
	running   sync.WaitGroup

	mu      sync.Mutex  // of what is below, and of all figures of downloads
	change  int         // how often everything was changed
	waiting map[int]int // pieces not passed yet, by the change after which they were read
}

type hungry struct {
	share  *Share
	weight int
	own    float64 // its limit in bytes per second; 0 is none
	stops  []context.CancelFunc
	passed float64 // bytes
	piece  float64 // the largest lately
}

func (c *crowd) open(weight int, own model.Bytes) {
	c.downloads = append(c.downloads, &hungry{share: c.limiter.Share(weight, own), weight: weight, own: float64(own)})
}

func (c *crowd) close(i int) {
	c.downloads[i].share.Close()
	for _, stop := range c.downloads[i].stops {
		stop()
	}
	c.downloads = append(c.downloads[:i:i], c.downloads[i+1:]...)
}

func (c *crowd) connect(d *hungry) {
	ctx, stop := context.WithCancel(context.Background())
	d.stops = append(d.stops, stop)
	c.running.Go(func() {
		for {
			c.mu.Lock()
			change := c.change
			c.waiting[change]++
			c.mu.Unlock()
			n := d.share.Piece(1 << 20)
			err := d.share.Take(ctx, n)
			c.mu.Lock()
			c.waiting[change]--
			if err == nil {
				d.passed += float64(n)
				d.piece = max(d.piece, float64(n))
			}
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
}

func (c *crowd) disconnect(d *hungry) {
	if n := len(d.stops); n > 0 {
		d.stops[n-1]()
		d.stops = d.stops[:n-1]
	}
}

// settle waits until all that was read before the last change has passed.
func (c *crowd) settle() {
	c.mu.Lock()
	c.change++
	now := c.change
	c.mu.Unlock()
	for old := 1; old > 0; {
		time.Sleep(transition)
		synctest.Wait()
		c.mu.Lock()
		old = 0
		for change, n := range c.waiting {
			if change < now {
				old += n
			}
		}
		c.mu.Unlock()
	}
}

// figures returns, and with fresh forgets, what has passed for each download and the largest piece.
func (c *crowd) figures(fresh bool) (passed []float64, piece float64) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.downloads {
		if fresh {
			d.piece = 0
		}
		passed = append(passed, d.passed)
		piece = max(piece, d.piece)
	}
	return passed, piece
}

// due is what each download should get per second, by pouring: all fill in proportion to their
// weights, who has enough stops, and the rest goes on.
func (c *crowd) due() (rates []float64, sum float64) {
	rates = make([]float64, len(c.downloads))
	open, rest := map[int]bool{}, c.rate
	for i, d := range c.downloads {
		open[i] = len(d.stops) > 0
	}
	for {
		weights := 0
		for i, d := range c.downloads {
			if open[i] {
				weights += d.weight
			}
		}
		if weights == 0 {
			break
		}
		each, closed := rest/float64(weights), false
		for i, d := range c.downloads {
			if open[i] && d.own > 0 && d.own <= each*float64(d.weight) {
				rates[i], open[i], closed = d.own, false, true
				rest -= d.own
			}
		}
		if closed {
			continue
		}
		for i, d := range c.downloads {
			if open[i] {
				rates[i] = each * float64(d.weight)
			}
		}
		break
	}
	for _, r := range rates {
		sum += r
	}
	return rates, sum
}

// TestAnyCrowdGetsItsDueInAnyWindow changes everything at random and compares with pouring: never more
// than rate x time and a burst, never less than 95 % while somebody wants bytes, and for each download
// its share.
func TestAnyCrowdGetsItsDueInAnyWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Wrapped, since rapid asks a *testing.T for its deadline, which bubbles forbid.
		rapid.Check(struct{ *testing.T }{t}, func(t *rapid.T) {
			limits := rapid.SampledFrom([]model.Bytes{100 * model.KiB, model.MiB, 3 * model.MiB, 20 * model.MiB})
			own := rapid.SampledFrom([]model.Bytes{0, 0, 100 * model.KiB, model.MiB, 7 * model.MiB})
			weights := rapid.SampledFrom([]int{1, 2, 4, 8})
			c := &crowd{limiter: New(), waiting: map[int]int{}}
			defer func() {
				for len(c.downloads) > 0 {
					c.close(0)
				}
				c.running.Wait()
			}()
			set := func() {
				limit := limits.Draw(t, "limit")
				c.limiter.Set(limit)
				c.rate = float64(limit)
			}
			set()
			for range rapid.IntRange(1, 6).Draw(t, "segments") {
				for range rapid.IntRange(1, 5).Draw(t, "changes") {
					what := rapid.IntRange(0, 7).Draw(t, "what")
					if len(c.downloads) == 0 || what == 0 {
						c.open(weights.Draw(t, "weight"), own.Draw(t, "own"))
						c.connect(c.downloads[len(c.downloads)-1])
						continue
					}
					i := rapid.IntRange(0, len(c.downloads)-1).Draw(t, "which")
					switch d := c.downloads[i]; what {
					case 1:
						set()
					case 2:
						limit := own.Draw(t, "own")
						d.share.Set(limit)
						d.own = float64(limit)
					case 3:
						d.weight = weights.Draw(t, "weight")
						d.share.Weigh(d.weight)
					case 4:
						c.close(i)
					case 5:
						c.disconnect(d)
					default:
						for range rapid.IntRange(1, 5).Draw(t, "connections") {
							c.connect(d)
						}
					}
				}
				c.settle()
				c.compare(t)
			}
		})
	})
}

func (c *crowd) compare(t *rapid.T) {
	var at []time.Time
	var passed [][]float64
	look := func(fresh bool) float64 {
		p, piece := c.figures(fresh)
		at, passed = append(at, time.Now()), append(passed, p)
		return piece
	}
	look(true)
	piece := 0.0
	for range 8 {
		time.Sleep(time.Duration(rapid.IntRange(1, 900).Draw(t, "ms")) * time.Millisecond)
		piece = look(false)
	}
	piece = max(piece, leastPiece)
	due, sum := c.due()
	for i := range at {
		for j := i + 1; j < len(at); j++ {
			seconds, all := at[j].Sub(at[i]).Seconds(), 0.0
			for k := range due {
				got := passed[j][k] - passed[i][k]
				all += got
				if own := c.downloads[k].own; own > 0 && got > own*(seconds+burst.Seconds())+piece+1 {
					t.Fatalf("download %d got %.0f bytes in %.3f s, over its own limit of %.0f", k, got, seconds, own)
				}
				if want := due[k] * seconds; seconds > 2 && math.Abs(got-want) > 0.1*want+2*piece {
					t.Fatalf("download %d got %.0f bytes in %.3f s, its due is %.0f (of %v)", k, got, seconds, want, c)
				}
			}
			if most := c.rate*(seconds+burst.Seconds()) + piece + 1; all > most {
				t.Fatalf("all got %.0f bytes in %.3f s, at most %.0f should be", all, seconds, most)
			}
			if least := 0.95*sum*seconds - piece*float64(len(due)) - 1; all < least {
				t.Fatalf("all got %.0f bytes in %.3f s, at least %.0f should be (of %v)", all, seconds, least, c)
			}
		}
	}
}

func (c *crowd) String() string {
	s := fmt.Sprintf("%.0f bytes per second for", c.rate)
	for _, d := range c.downloads {
		s += fmt.Sprintf(" {weight %d, own %.0f, %d connections}", d.weight, d.own, len(d.stops))
	}
	return s
}

// TestEverythingAtOnceIsSafe leaves checking to the race detector and to goleak: real time, real
// goroutines, and nobody left waiting at the end.
func TestEverythingAtOnceIsSafe(t *testing.T) {
	l := New()
	k := NewKeeper(l, func(model.Bytes, string) {})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := k.Run(ctx, func() Facts { return Facts{Load: 1, Rate: model.MiB} }); err == nil {
			t.Error("Run ended without a reason")
		}
	})
	var downloads sync.WaitGroup
	for i := range 6 {
		downloads.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 2))
			for range 30 {
				s := l.Share(random.IntN(9), model.Bytes(random.IntN(2)<<26))
				var connections sync.WaitGroup
				ctx, stop := context.WithCancel(ctx)
				for range 4 {
					connections.Go(func() {
						for range 50 {
							if s.Take(ctx, s.Piece(1<<16)) != nil {
								return
							}
						}
					})
				}
				s.Weigh(random.IntN(5))
				s.Set(model.Bytes(random.IntN(2) << 27))
				k.Configure(Schedule{Global: model.Bytes(random.IntN(3) << 27)}, Adapt{Enabled: random.IntN(2) == 0})
				if random.IntN(2) == 0 {
					stop()
				}
				if random.IntN(2) == 0 {
					s.Close()
				}
				connections.Wait()
				stop()
				s.Close()
			}
		})
	}
	downloads.Wait()
	cancel()
	running.Wait()
	if len(l.shares) != 0 || l.weight != 0 {
		t.Errorf("%d shares of weight %d are left", len(l.shares), l.weight)
	}
}
