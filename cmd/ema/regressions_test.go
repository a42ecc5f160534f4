package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ema/internal/api/live"
	"ema/internal/event"
	"ema/internal/host"
	"ema/internal/ledger"
	"ema/internal/model"
	"ema/internal/webhook"
)

// A figure that has become worse than it was for weeks is told once by event and webhook, also over a restart, and so is its end.
func TestARegressionIsToldOncePerIncident(t *testing.T) {
	d, _ := quietDaemon(t)
	d.host = host.New("", 2)
	d.cache = d.newCache(d.settingsNow())
	d.network, d.gauge = &network{hub: live.New(d.bus, live.Settings{})}, newGauge(d)
	posted := make(chan string, 100)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) //nolint:errcheck // what is missing shows
		posted <- string(body)
	}))
	defer hook.Close()
	d.settings.Monitoring.AlertWebhook = hook.URL
	d.webhooks = webhook.New(nil, d.log)
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 2)
	go func() { over <- d.history.Run(ctx) }()
	go func() { over <- d.webhooks.Run(ctx) }()
	defer func() {
		stop()
		<-over
		<-over
	}()
	told, err := d.bus.Subscribe(event.Want{Filter: func(e event.Event) bool { return e.Kind == event.KindPerformance }})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()

	const figure, other = "api.average_response_time_ms", "downloads.average_speed_mbps"
	begun := time.Now().Truncate(time.Hour)
	remember := func(from, to time.Time, step time.Duration, value, speed float64) {
		t.Helper()
		var b ledger.Batch
		for at := from; at.Before(to); at = at.Add(step) {
			b.Samples = append(b.Samples, model.Sample{Series: figure, At: at, Value: value}, model.Sample{Series: other, At: at, Value: speed})
		}
		d.history.Tell(b)
		if err := d.history.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	w := d.gauge.watchman
	remember(begun.Add(-72*time.Hour), begun, 10*time.Minute, 2, 100)
	if w.check(ctx, begun); w.open() != 0 {
		t.Fatalf("at the start: %+v", w.newly)
	}
	// The API becomes slower by half, and downloads twice as fast.
	remember(begun, begun.Add(time.Hour), 5*time.Minute, 3, 200)
	now := begun.Add(time.Hour)
	w.check(ctx, now)
	if r := w.newly; len(r.Regressions) != 1 || r.Regressions[0].Metric != figure || r.Regressions[0].Against != "history" || r.Regressions[0].Worse != 50 || w.open() != 0 {
		t.Fatalf("at the first check: %+v, %d incidents", r, w.open())
	}
	w.check(ctx, now)
	w.check(ctx, now)
	d.gauge.watchman = newWatchman(d.gauge) // the daemon is started anew
	w = d.gauge.watchman
	w.check(ctx, now)
	all, err := d.gauge.Regressions(ctx)
	if err != nil || w.open() != 1 || len(all.Incidents) != 1 || all.Incidents[0].Until != nil || !strings.Contains(all.Incidents[0].Message, "50 % worse than before: 3, was 2") {
		t.Fatalf("%v: %+v", err, all)
	}
	if why := all.NotJudged["storage.cache_hit_rate"]; why == "" {
		t.Errorf("not judged are %v", all.NotJudged)
	}
	// A baseline of the slow time is no regression for itself, but the weeks before still say so.
	if b, err := d.gauge.SetBaseline(ctx, 24*30); err != nil || b.Figures[figure].Samples < 24 || b.Figures[figure].Median != 2 {
		t.Errorf("the baseline: %+v, %v", b, err)
	}
	// It becomes as fast as it was.
	remember(now, now.Add(time.Hour), 5*time.Minute, 2, 200)
	for range 3 {
		w.check(ctx, now.Add(time.Hour))
	}
	if all, err = d.gauge.Regressions(ctx); err != nil || w.open() != 0 || len(all.Incidents) != 1 || all.Incidents[0].Until == nil || all.BaselineAt == nil {
		t.Errorf("%v: %+v", err, all)
	}
	var events []event.Event
	for len(events) < 2 {
		some, err := told.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, some...)
	}
	first, last := events[0].Data.(event.Performance), events[1].Data.(event.Performance) //nolint:errcheck,forcetypeassert // only these are subscribed to
	if len(events) != 2 || first.Severity != model.Warning || last.Severity != model.Info || first.Metric != figure || first.Advice == "" {
		t.Errorf("told: %+v", events)
	}
	for _, want := range []string{`"warning"`, `"info"`} {
		select {
		case said := <-posted:
			var m map[string]any
			if err := json.Unmarshal([]byte(said), &m); err != nil || m["type"] != "performance_alert" || m["metric"] != figure || !strings.Contains(said, want) {
				t.Errorf("posted: %s", said)
			}
		case <-time.After(patient):
			t.Fatal("nothing is posted")
		}
	}
	select {
	case said := <-posted:
		t.Errorf("one more: %s", said)
	case <-time.After(100 * time.Millisecond):
	}
}
