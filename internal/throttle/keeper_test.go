package throttle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/model"
)

// keep runs a Keeper in the bubble, and notes when facts were asked for and what it told.
type keep struct {
	*Keeper
	limiter *Limiter

	mu    sync.Mutex
	facts Facts
	asked []time.Time
	told  []string
}

func newKeep(t *testing.T) *keep {
	k := &keep{limiter: New()}
	k.Keeper = NewKeeper(k.limiter, func(limit model.Bytes, why string) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.told = append(k.told, fmt.Sprintf("%s %v %s", time.Now().UTC().Format("15:04:05"), limit, why))
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := k.Run(ctx, k.ask); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v, want that it was cancelled", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return k
}

func (k *keep) ask() Facts {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, time.Now())
	return k.facts
}

func (k *keep) set(f Facts) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.facts = f
}

// tells fails when Keeper has not told just that since the last time.
func (k *keep) tells(t *testing.T, want ...string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Equal(k.told, want) {
		t.Errorf("told %q, want %q", k.told, want)
	}
	k.told = nil
}

func (k *keep) questions() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(k.asked)
	k.asked = nil
	return n
}

// Bubbles begin at midnight of 1 January 2000, UTC.

func TestTheLimitFlipsWithTheWindowAtTheMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeep(t)
		k.Configure(Schedule{
			Windows:  []Window{{Name: "night", Start: 22 * 60, End: 6 * 60, Zone: time.UTC}, {Name: "work", Start: 9 * 60, End: 17 * 60, Zone: time.UTC, Limit: 5}},
			OffHours: 9,
		}, Adapt{})
		time.Sleep(24*time.Hour + time.Second)
		k.tells(t, "06:00:00 9 B off hours", `09:00:00 5 B the window "work"`, "17:00:00 9 B off hours", "22:00:00 0 B ")
		if k.questions() != 0 {
			t.Error("it asked for facts without need")
		}
	})
}

func TestConfigureActsAtOnceWhetherTheKeeperRunsOrNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := New()
		NewKeeper(idle, nil).Configure(Schedule{Global: 7}, Adapt{})
		if idle.Rate() != 7 {
			t.Errorf("the limit is %v before Run, want 7 B", idle.Rate())
		}
		k := newKeep(t)
		time.Sleep(90 * time.Second)
		for limit := range model.Bytes(3) {
			k.Configure(Schedule{Global: limit}, Adapt{})
			if got := k.limiter.Rate(); got != limit {
				t.Errorf("the limit is %v, want %v", got, limit)
			}
		}
		k.Configure(Schedule{Global: 2}, Adapt{}) // changes nothing, so nothing is told
		k.tells(t, "00:01:30 1 B the global limit", "00:01:30 2 B the global limit")
		k.Configure(Schedule{Windows: []Window{{Name: "soon", Start: 3, End: 4, Zone: time.UTC, Limit: 5}}}, Adapt{})
		time.Sleep(5 * time.Minute)
		k.tells(t, "00:01:30 0 B ", `00:03:00 5 B the window "soon"`, "00:04:00 0 B ")
	})
}

func TestFactsAreAskedOncePerSecondWhileDownloadsRunAndNeverElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeep(t)
		on := Adapt{Enabled: true, MonitorLoad: true, Reduce: true}
		k.Configure(Schedule{}, on)
		time.Sleep(time.Hour)
		if n := k.questions(); n != 0 {
			t.Errorf("asked %d times without a download", n)
		}
		a, b := k.limiter.Share(1, 0), k.limiter.Share(1, 0)
		time.Sleep(10500 * time.Millisecond)
		if n := k.questions(); n != 11 {
			t.Errorf("asked %d times in 10.5 s with downloads, want 11", n)
		}
		a.Close()
		b.Close()
		time.Sleep(time.Hour)
		if n := k.questions(); n > 1 {
			t.Errorf("asked %d times after the downloads", n)
		}
		c := k.limiter.Share(1, 0)
		defer c.Close()
		k.Configure(Schedule{}, Adapt{MonitorLoad: true, Reduce: true})
		k.questions()
		time.Sleep(time.Hour)
		if n := k.questions(); n != 0 {
			t.Errorf("asked %d times although it is off", n)
		}
	})
}

func TestHighLoadLowersTheLimitOfTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeep(t)
		k.set(Facts{Load: 0.9, Rate: 8 * model.MiB})
		k.Configure(Schedule{Global: 8 * model.MiB}, Adapt{Enabled: true, MonitorLoad: true, Reduce: true, Threshold: 0.85})
		s := k.limiter.Share(1, 0)
		time.Sleep(10 * time.Second)
		const why = "reduced: the load of this machine is 0.90, over 0.85"
		k.tells(t, "00:00:00 8.0 MiB the global limit", "00:00:08 6.0 MiB "+why)

		k.Configure(Schedule{Global: 4 * model.MiB}, Adapt{Enabled: true, MonitorLoad: true, Reduce: true, Threshold: 0.85})
		synctest.Wait()
		k.tells(t, "00:00:10 4.0 MiB the global limit", "00:00:10 3.0 MiB "+why)

		s.Close()
		synctest.Wait()
		k.tells(t, "00:00:10 4.0 MiB the global limit")
	})
}

func TestTheLoadIsLeftAloneUnlessItIsToBeMonitoredAndActedOn(t *testing.T) {
	for _, a := range []Adapt{{Enabled: true}, {Enabled: true, MonitorLoad: true}, {Enabled: true, Reduce: true}} {
		synctest.Test(t, func(t *testing.T) {
			k := newKeep(t)
			k.set(Facts{Load: 1, Rate: 40 * model.MiB})
			k.Configure(Schedule{}, a)
			defer k.limiter.Share(1, 0).Close()
			time.Sleep(time.Minute)
			k.tells(t)
			k.set(Facts{Load: 1, Rate: 40 * model.MiB, RTT: 200 * time.Millisecond, MinRTT: 10 * time.Millisecond})
			time.Sleep(5 * time.Second)
			if k.limiter.Rate() == 0 {
				t.Error("long round trips did not lower the limit")
			}
		})
	}
}

func TestAKeeperWithWindowsSleepsForAMinuteAtMostAndElseUntilSomethingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		window := []Window{{Name: "noon", Start: 12 * 60, End: 13 * 60, Zone: time.UTC, Limit: 5}}
		for _, c := range []struct {
			schedule Schedule
			want     time.Duration
		}{
			{Schedule{}, 0},
			{Schedule{Global: 5}, 0},
			{Schedule{OffHours: 5}, 0},
			{Schedule{Windows: window}, time.Minute},
			{Schedule{Windows: window, Global: 1}, time.Minute},
		} {
			k := NewKeeper(New(), nil)
			k.Configure(c.schedule, Adapt{Enabled: true})
			if wait := k.check(nil); wait != c.want {
				t.Errorf("with %+v it sleeps for %v, want %v", c.schedule, wait, c.want)
			}
		}
		time.Sleep(12*time.Hour - 20*time.Second)
		k := NewKeeper(New(), nil)
		k.Configure(Schedule{Windows: window}, Adapt{})
		if wait := k.check(nil); wait != 20*time.Second {
			t.Errorf("20 s before the window it sleeps for %v", wait)
		}
	})
}
