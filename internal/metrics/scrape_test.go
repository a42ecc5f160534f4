package metrics

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/queue"
	"ema/internal/throttle"
)

// slowKeeper is a ledger whose disk hangs until it is released.
type slowKeeper struct{ released chan struct{} }

func (k slowKeeper) Save(context.Context, model.Download) error {
	<-k.released
	return nil
}

func (k slowKeeper) Download(context.Context, string) (model.Download, error) {
	return model.Download{}, errors.New("there is none")
}

func (k slowKeeper) Downloads(context.Context, ...model.State) ([]model.Download, error) {
	return nil, nil
}
func (k slowKeeper) LastOrder(context.Context) (int64, error) { return 0, nil }

func TestAScrapeWaitsForNoDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, keep, limiter := event.New(0), slowKeeper{make(chan struct{})}, throttle.New()
		limiter.Set(1)
		q := queue.New(queue.Settings{}, keep, nil, bus)
		share := limiter.Share(1, 0)
		ctx, cancel := context.WithCancel(t.Context())
		var busy sync.WaitGroup
		busy.Go(func() { // it is stored for as long as the disk hangs
			if _, _, err := q.Add(ctx, model.Download{Model: model.ID{Name: "org/name"}}); err != nil {
				t.Error(err)
			}
		})
		if err := share.Take(ctx, 1<<20); err != nil { // the first may run into debt
			t.Fatal(err)
		}
		busy.Go(func() { // it waits for its turn
			if err := share.Take(ctx, 1<<20); !errors.Is(err, context.Canceled) {
				t.Errorf("the share: %v", err)
			}
		})
		m := New(Settings{Active: q.List, Limit: limiter.Rate})
		listen(t, m, bus)
		synctest.Wait()
		begun := time.Now()
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if took := time.Since(begun); w.Code != http.StatusOK || took != 0 {
			t.Errorf("%d after %v", w.Code, took)
		}
		for _, want := range []string{"\nmodel_active_downloads 0\n", "\nema_bandwidth_limit_bytes_per_second 1\n"} {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("it lacks %q", want)
			}
		}
		cancel()
		close(keep.released)
		busy.Wait()
		share.Close()
	})
}
