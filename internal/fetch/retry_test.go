package fetch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/model"
)

func failing(c model.Class, after time.Duration) error {
	return &model.Error{Op: "fetch", Class: c, After: after, Err: errors.New("no")}
}

func TestEachClassHasItsPolicy(t *testing.T) {
	r := Retry{NoJitter: true}.withDefaults()
	for class, want := range map[model.Class][]time.Duration{
		model.Timeout:      {1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second},
		model.Reset:        {1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second},
		model.Truncated:    {1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second},
		model.ServerError:  {1 * time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second},
		model.RateLimited:  {15 * time.Second, 30 * time.Second, 60 * time.Second, 120 * time.Second, 120 * time.Second},
		model.RangeRefused: {1 * time.Second, 1 * time.Second, 1 * time.Second, 1 * time.Second, 1 * time.Second},
		model.Expired:      {100 * time.Millisecond, 100 * time.Millisecond},
		model.Auth:         nil,
		model.NotFound:     nil,
		model.DiskFull:     nil,
		model.DiskError:    nil,
		model.Cancelled:    nil,
		model.Usage:        nil,
	} {
		var a attempts
		for i, d := range want {
			if got, final := a.next(r, nil, 0, failing(class, 0)); final != nil || got != d {
				t.Errorf("%v: retry %d after %v (%v), want %v", class, i, got, final, d)
			}
		}
		if len(want) == 0 || len(want) == 5 {
			if _, final := a.next(r, nil, 0, failing(class, 0)); final == nil {
				t.Errorf("%v: still retried after %d attempts", class, len(want))
			}
		}
	}
}

func TestTheServersWishWinsOverEveryCeiling(t *testing.T) {
	var a attempts
	r := Retry{MaxDelay: time.Second}.withDefaults()
	if d, final := a.next(r, nil, 0, failing(model.RateLimited, 10*time.Minute)); final != nil || d != 10*time.Minute {
		t.Fatalf("waits %v (%v), the server asked for 10m", d, final)
	}
}

func TestJitterIsFullAndBounded(t *testing.T) {
	r := Retry{}.withDefaults()
	var low, high bool
	for range 1000 {
		d := r.delay(model.Reset, 3, 0)
		if d < 0 || d > 8*time.Second {
			t.Fatalf("delay %v outside [0, 8s]", d)
		}
		low, high = low || d < time.Second, high || d > 7*time.Second
	}
	if !low || !high {
		t.Fatal("delays do not spread over the whole range")
	}
}

func TestProgressStartsTheCountAgain(t *testing.T) {
	r := Retry{Max: 2, NoJitter: true}.withDefaults()
	var a attempts
	b := &blob{}
	for i := range 20 { // others make progress on the same file between our failures
		if _, final := a.next(r, b, uint64(i), failing(model.Reset, 0)); final != nil {
			t.Fatalf("gave up after %d failures although the file grew", i)
		}
	}
	for range 20 { // or we do
		a.progressed(1)
		if _, final := a.next(r, b, 20, failing(model.Reset, 0)); final != nil {
			t.Fatal("gave up although bytes came")
		}
	}
}

func TestAgainWaitsBetweenAttemptsAndStopsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, calls := time.Now(), 0
		err := Retry{NoJitter: true}.Again(t.Context(), nil, func(context.Context) error {
			if calls++; calls < 4 {
				return failing(model.ServerError, 0)
			}
			return nil
		})
		if waited := time.Since(begun); err != nil || calls != 4 || waited != 7*time.Second {
			t.Fatalf("%d calls in %v, %v; want 4 in 1+2+4 s", calls, waited, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err = Retry{}.Again(ctx, nil, func(context.Context) error { return failing(model.RateLimited, time.Hour) })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("returned %v when its context ended", err)
		}
	})
}

func TestRetriesFollowHowManyAttemptsSucceed(t *testing.T) {
	for _, c := range []struct {
		max  int
		rate float64
		a    Adaptive
		want int
	}{
		{5, 0.5, Adaptive{Enabled: true, Increase: true, Decrease: true}, 10},
		{5, 0.5, Adaptive{Enabled: true, Decrease: true}, 5},
		{5, 0.5, Adaptive{Increase: true}, 5},
		{5, 0.8, Adaptive{Enabled: true, Increase: true, Decrease: true}, 5},
		{5, 0.97, Adaptive{Enabled: true, Increase: true, Decrease: true}, 5},
		{5, 0.98, Adaptive{Enabled: true, Increase: true, Decrease: true}, 3},
		{5, 1, Adaptive{Enabled: true, Increase: true}, 5},
		{1, 1, Adaptive{Enabled: true, Decrease: true}, 1},
		{-1, 0, Adaptive{Enabled: true, Increase: true}, -1},
		{5, 0.5, Adaptive{Enabled: true, Threshold: 0.4, Increase: true}, 5},
		{5, 0.99, Adaptive{Enabled: true, Threshold: 1, Increase: true, Decrease: true}, 10},
	} {
		if got := (Retry{Max: c.max, Adaptive: c.a}).withDefaults().at(c.rate).Max; got != c.want {
			t.Errorf("%d retries where %.0f %% succeed, with %+v: %d, want %d", c.max, 100*c.rate, c.a, got, c.want)
		}
	}
}

// judged is an origin that fails, and says how many of its attempts succeed.
type judged struct {
	*origin
	rate  float64
	known bool
}

func (j judged) SuccessRate(error) (float64, bool) { return j.rate, j.known }

// Each failed attempt is told, and counted by its class; how many there are depends on the host.
func TestRetriesAreToldAndCountedByClass(t *testing.T) {
	for promise, c := range map[string]struct {
		rate  float64
		known bool
		want  int
	}{
		"as many as set":                        {0, false, 4},
		"twice as many where most fail":         {0.3, true, 8},
		"half as many where nearly all succeed": {1, true, 2},
	} {
		for _, size := range []model.Bytes{5 * model.MiB, model.KiB} {
			t.Run(promise+" for "+size.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := &origin{before: func(context.Context) error {
						return &model.Error{Op: "fetch", Class: model.ServerError, URL: "https://hub.test:8080/a?secret", Err: errors.New("no")}
					}}
					job := jobOf(size)
					told := 0
					var waited time.Duration
					job.Retried = func(host string, class model.Class, err error, wait time.Duration) {
						told++
						waited += wait
						if host != "hub.test:8080" || class != model.ServerError || err == nil {
							t.Errorf("told of %q, %v, %v", host, class, err)
						}
					}
					begun := time.Now()
					err := New(Settings{Connections: 1, Retry: Retry{
						Max: 4, NoJitter: true, Adaptive: Adaptive{Enabled: true, Increase: true, Decrease: true},
					}}, judged{o, c.rate, c.known}).Fetch(t.Context(), job)
					if model.ClassOf(err) != model.ServerError || told != c.want || time.Since(begun) != waited {
						t.Errorf("%v after %d retries in %v, want %d in %v", err, told, time.Since(begun), c.want, waited)
					}
					if p := job.Progress; p.Retries.Load() != int64(c.want) || p.ByClass[model.ServerError].Load() != int64(c.want) {
						t.Errorf("counted %d, of them %d server errors; want %d", p.Retries.Load(), p.ByClass[model.ServerError].Load(), c.want)
					}
				})
			})
		}
	}
}
