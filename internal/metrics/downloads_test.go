package metrics

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/event"
	"ema/internal/model"
)

// listen lets m count what is told on bus until the test ends.
func listen(t *testing.T, m *Metrics, bus *event.Bus) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var counting sync.WaitGroup
	counting.Go(func() {
		if err := m.Run(ctx, bus); !errors.Is(err, context.Canceled) {
			t.Errorf("counting ended with %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		counting.Wait()
	})
}

func step(bus *event.Bus, id string, to model.State) {
	bus.Tell(event.Event{Kind: event.KindState, Download: id, Model: model.ID{Name: "org/" + id}, Data: event.Change{To: to}})
}

// sum is the sum of a histogram without labels.
func sum(t *testing.T, m *Metrics, name string) float64 {
	t.Helper()
	return gathered(t, m)[name].GetMetric()[0].GetHistogram().GetSampleSum()
}

func counted(t *testing.T, m *Metrics, want map[string]float64) {
	t.Helper()
	for name, n := range want {
		if got := value(t, m, name); got != n {
			t.Errorf("%s is %v, want %v", name, got, n)
		}
	}
}

func TestADownloadIsTimedFromItsFirstStartToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, m := event.New(0), New(Settings{})
		listen(t, m, bus)
		synctest.Wait()
		for _, s := range []struct {
			after time.Duration
			to    model.State
		}{
			{0, model.Queued},
			{20 * time.Second, model.Resolving},
			{time.Second, model.Downloading},
			{time.Minute, model.Retrying},
			{time.Minute, model.Queued}, // it has had its start
			{time.Minute, model.Resolving},
			{time.Second, model.Paused},
			{time.Hour, model.Queued},
			{time.Second, model.Resolving},
			{time.Minute, model.Verifying},
			{time.Second, model.Completed},
		} {
			time.Sleep(s.after)
			step(bus, "a", s.to)
		}
		synctest.Wait()
		counted(t, m, map[string]float64{
			"model_download_success_total": 1, "model_download_failures_total": 0,
			"model_download_duration_seconds": 1, "ema_download_wait_seconds": 1, "ema_event_losses_total": 0,
		})
		if got := sum(t, m, "model_download_duration_seconds"); got != 3600+4*60+4 {
			t.Errorf("it took %v s", got)
		}
		if got := sum(t, m, "ema_download_wait_seconds"); got != 20 {
			t.Errorf("it waited %v s, want 20", got)
		}
		if len(m.lives) != 0 {
			t.Errorf("%d downloads are remembered that are over", len(m.lives))
		}
	})
}

func TestWhoIsPausedDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, m := event.New(0), New(Settings{})
		listen(t, m, bus)
		synctest.Wait()
		for _, to := range []model.State{model.Queued, model.Paused, model.Queued, model.Resolving} {
			step(bus, "a", to)
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if got := sum(t, m, "ema_download_wait_seconds"); got != 60 {
			t.Errorf("it waited %v s, want the minute since it was resumed", got)
		}
	})
}

func TestOnlyWhatFailedForGoodIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, m := event.New(0), New(Settings{})
		listen(t, m, bus)
		synctest.Wait()
		for id, to := range map[string]model.State{"a": model.Failed, "b": model.Stopped, "c": model.Retrying, "d": model.Paused, "e": model.Failed} {
			step(bus, id, model.Queued)
			step(bus, id, model.Resolving)
			step(bus, id, to)
		}
		synctest.Wait()
		counted(t, m, map[string]float64{
			"model_download_success_total": 0, "model_download_failures_total": 2, "model_download_duration_seconds": 0, "ema_download_wait_seconds": 5,
		})
		if len(m.lives) != 2 {
			t.Errorf("%d downloads are remembered, want the 2 that are not over", len(m.lives))
		}
	})
}

func TestRetriesAreCountedByTheirClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, m := event.New(0), New(Settings{})
		listen(t, m, bus)
		synctest.Wait()
		for c := model.Other; c <= model.Offline; c++ {
			if got := value(t, m, "ema_download_retries_total", "class", c.String()); got != 0 {
				t.Errorf("%s begins with %v", c, got)
			}
			for range int(c) {
				bus.Tell(event.Event{Kind: event.KindRetry, Data: event.Retry{Class: c, Host: fmt.Sprint("host", c), Error: "secret"}})
			}
		}
		bus.Tell(event.Event{Kind: event.KindRetry, Data: event.Retry{Class: 200}})
		synctest.Wait()
		for c := model.Timeout; c <= model.Offline; c++ {
			if got := value(t, m, "ema_download_retries_total", "class", c.String()); got != float64(c) {
				t.Errorf("%s: %v, want %d", c, got, c)
			}
		}
		if got := value(t, m, "ema_download_retries_total", "class", "other"); got != 1 {
			t.Errorf("a class without a name: %v under other, want 1", got)
		}
	})
}

func TestDownloadsOfEarlierDaysKeepTheirBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		bus, m := event.New(0), New(Settings{Active: func() []model.Download {
			return []model.Download{
				{ID: "ran", State: model.Queued, Created: now.Add(-3 * time.Hour), Started: now.Add(-2 * time.Hour)},
				{ID: "waits", State: model.Queued, Created: now.Add(-time.Hour)},
				{ID: "paused", State: model.Paused, Created: now.Add(-5 * time.Hour)},
				{ID: "set back", State: model.Queued, Created: now, Started: now.Add(time.Hour)},
			}
		}})
		listen(t, m, bus)
		synctest.Wait()
		step(bus, "paused", model.Queued)
		for _, id := range []string{"ran", "waits", "paused", "set back"} {
			step(bus, id, model.Resolving)
		}
		time.Sleep(time.Second)
		step(bus, "ran", model.Completed)
		step(bus, "set back", model.Completed)
		synctest.Wait()
		counted(t, m, map[string]float64{"model_download_duration_seconds": 2, "ema_download_wait_seconds": 2})
		if got := sum(t, m, "model_download_duration_seconds"); got != 7201 {
			t.Errorf("it took %v s, want those since its first start", got)
		}
		if got := sum(t, m, "ema_download_wait_seconds"); got != 3600 {
			t.Errorf("waited %v s, want the hour of the one that waited", got)
		}
	})
}

func TestWhatWasToldBeforeRunIsCountedWhenItWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := event.New(0)
		step(bus, "before", model.Failed)
		m := New(Settings{Since: bus.Seq()})
		step(bus, "between", model.Failed)
		listen(t, m, bus)
		synctest.Wait()
		counted(t, m, map[string]float64{"model_download_failures_total": 1})
	})
}

// stuck are metrics that begin with a loss, and then do not count until more was told.
func stuck(t *testing.T, bus *event.Bus, more func()) *Metrics {
	looks, looking, release := 0, make(chan struct{}), make(chan struct{})
	m := New(Settings{Since: 1, Active: func() []model.Download { // an event of which no bus knows
		if looks++; looks == 2 { // the first is New's; Run looks when it has subscribed again
			close(looking)
			<-release
		}
		return nil
	}})
	m.backlog = 10
	listen(t, m, bus)
	<-looking
	more()
	close(release)
	synctest.Wait()
	return m
}

func TestAReaderThatWasTooSlowGoesOnWithoutAHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := event.New(0)
		m := stuck(t, bus, func() {
			for i := range 1000 {
				step(bus, fmt.Sprint(i), model.Failed)
			}
		})
		counted(t, m, map[string]float64{"model_download_failures_total": 1000, "ema_event_losses_total": 1})
	})
}

func TestWhatIsLostIsSaidAndTheRestIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := event.New(5)
		m := stuck(t, bus, func() {
			step(bus, "never over", model.Resolving)
			for i := range 1000 {
				step(bus, fmt.Sprint(i), model.Failed)
			}
		})
		counted(t, m, map[string]float64{"model_download_failures_total": 9, "ema_event_losses_total": 2})
		if len(m.lives) != 0 {
			t.Error("a download is remembered that may be over")
		}
		step(bus, "after", model.Failed)
		synctest.Wait()
		counted(t, m, map[string]float64{"model_download_failures_total": 10, "ema_event_losses_total": 2})
	})
}
