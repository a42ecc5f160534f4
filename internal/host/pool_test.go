package host

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

func newThreads(t *testing.T) *Threads {
	return NewThreads(func(problem string) { t.Errorf("told: %s", problem) })
}

func TestAPool(t *testing.T) {
	for promise, keeps := range map[string]func(*testing.T, *Threads){
		"runs no more tasks at once than it has threads":   runsNoMore,
		"runs tasks in the order in which they were given": runsInOrder,
		"forgets a task whose caller waits no longer":      forgetsTheCancelled,
		"does not begin what is cancelled already":         refusesTheCancelled,
		"waits for a task that has begun, whatever ends":   waitsForTheBegun,
		"returns what the task returns":                    returnsTheError,
		"begins what waits when it may have more threads":  growsAtOnce,
		"has a thread for each task without a limit":       hasNoLimit,
		"goes on when a task ends its goroutine":           survivesGoexit,
		"follows a lower limit after the tasks under way":  shrinks,
	} {
		t.Run(promise, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { keeps(t, newThreads(t)) })
		})
	}
}

// a crowd is tasks of which each waits until it is let go.
type crowd struct {
	pool *Pool
	let  chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	now     int
	most    int
	started []int
}

func newCrowd(p *Pool) *crowd { return &crowd{pool: p, let: make(chan struct{})} }

// join gives the pool a task, and returns when that runs or waits.
func (c *crowd) join(n int) {
	c.done.Go(func() {
		_ = c.pool.Do(context.Background(), func(context.Context) error {
			c.mu.Lock()
			c.now++
			c.most = max(c.most, c.now)
			c.started = append(c.started, n)
			c.mu.Unlock()
			<-c.let
			c.mu.Lock()
			c.now--
			c.mu.Unlock()
			return nil
		})
	})
	synctest.Wait()
}

func (c *crowd) wantLoad(t *testing.T, running, waiting int) {
	t.Helper()
	synctest.Wait()
	if r, w := c.pool.Load(); r != running || w != waiting || c.now != running {
		t.Errorf("%d run and %d wait, %d are under way; want %d and %d", r, w, c.now, running, waiting)
	}
}

func (c *crowd) end(t *testing.T) {
	t.Helper()
	close(c.let)
	c.done.Wait()
	if r, w := c.pool.Load(); r != 0 || w != 0 {
		t.Errorf("%d run and %d wait after the end", r, w)
	}
}

func runsNoMore(t *testing.T, threads *Threads) {
	c := newCrowd(threads.NewPool("test", 3, Class{}))
	for n := range 20 {
		c.join(n)
	}
	c.wantLoad(t, 3, 17)
	c.let <- struct{}{}
	c.wantLoad(t, 3, 16)
	c.end(t)
	if c.most != 3 {
		t.Errorf("%d at once", c.most)
	}
}

func runsInOrder(t *testing.T, threads *Threads) {
	c := newCrowd(threads.NewPool("test", 1, Class{}))
	for n := range 5 {
		c.join(n)
	}
	c.end(t)
	if !slices.IsSorted(c.started) || len(c.started) != 5 {
		t.Errorf("began in the order %v", c.started)
	}
}

func forgetsTheCancelled(t *testing.T, threads *Threads) {
	c := newCrowd(threads.NewPool("test", 1, Class{}))
	c.join(0)
	ctx, cancel := context.WithCancel(t.Context())
	var err error
	c.done.Go(func() {
		err = c.pool.Do(ctx, func(context.Context) error {
			t.Error("it runs")
			return nil
		})
	})
	c.wantLoad(t, 1, 1)
	cancel()
	c.wantLoad(t, 1, 0)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	c.end(t)
}

func refusesTheCancelled(t *testing.T, threads *Threads) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := threads.NewPool("test", 1, Class{}).Do(ctx, func(context.Context) error {
		t.Error("it runs")
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func waitsForTheBegun(t *testing.T, threads *Threads) {
	p := threads.NewPool("test", 1, Class{})
	ctx, cancel := context.WithCancel(t.Context())
	over := false
	err := p.Do(ctx, func(context.Context) error {
		cancel()
		synctest.Wait()
		over = true
		return nil
	})
	if err != nil || !over {
		t.Errorf("%v, over %v", err, over)
	}
}

func returnsTheError(t *testing.T, threads *Threads) {
	want := errors.New("so it is")
	if err := threads.NewPool("test", 1, Class{}).Do(t.Context(), func(context.Context) error { return want }); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
}

func growsAtOnce(t *testing.T, threads *Threads) {
	c := newCrowd(threads.NewPool("test", 1, Class{}))
	for n := range 5 {
		c.join(n)
	}
	c.wantLoad(t, 1, 4)
	c.pool.Configure(3, Class{})
	c.wantLoad(t, 3, 2)
	c.pool.Configure(0, Class{})
	c.wantLoad(t, 5, 0)
	c.end(t)
}

func hasNoLimit(t *testing.T, threads *Threads) {
	c := newCrowd(threads.NewPool("test", 0, Class{}))
	for n := range 30 {
		c.join(n)
	}
	c.wantLoad(t, 30, 0)
	c.end(t)
}

func survivesGoexit(t *testing.T, threads *Threads) {
	p := threads.NewPool("test", 1, Class{})
	for range 3 {
		err := p.Do(t.Context(), func(context.Context) error {
			runtime.Goexit()
			return nil
		})
		if !errors.Is(err, errUnfinished) {
			t.Errorf("%v", err)
		}
	}
	if err := p.Do(t.Context(), func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}

func shrinks(t *testing.T, threads *Threads) {
	c := newCrowd(threads.NewPool("test", 3, Class{}))
	for n := range 6 {
		c.join(n)
	}
	c.pool.Configure(1, Class{})
	c.wantLoad(t, 3, 3)
	c.let <- struct{}{}
	c.wantLoad(t, 2, 3)
	c.let <- struct{}{}
	c.wantLoad(t, 1, 3)
	c.let <- struct{}{}
	c.wantLoad(t, 1, 2)
	c.end(t)
}
