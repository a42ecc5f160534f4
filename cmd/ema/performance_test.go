package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/api/live"
	"ema/internal/host"
	"ema/internal/ledger"
	"ema/internal/model"
	"ema/internal/throttle"
)

func TestFiguresAreThoseOfWhatHappened(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "7")
	for range 20 {
		asks(t, http.DefaultClient, "GET", c.url+"/models/health", "", nil)
	}
	var p client.Performance
	if res := asks(t, http.DefaultClient, "GET", c.url+"/admin/performance/dashboard", "", &p); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	var s client.Storage
	asks(t, http.DefaultClient, "GET", c.url+"/models/storage", "", &s)
	if d := p.Downloads; *d.Active != 0 || *d.Queued != 0 || *d.Success != 1 || *d.Retries != 0 || d.QueueTime == nil || d.Speed == nil {
		t.Errorf("downloads: %+v", d)
	}
	if a := p.API; *a.Rate*p.Seconds < 20 || *a.Response <= 0 || *a.Response > 1000 || *a.Errors != 0 {
		t.Errorf("api over %.1f s: %+v", p.Seconds, a)
	}
	if used := s.Summary.ModelsGB; math.Abs(*p.Storage.Usage-used) > 0.01*used {
		t.Errorf("models take %g GiB, and %g by the storage", *p.Storage.Usage, used)
	}
	known := 0
	p.Each(func(name string, value **float64) {
		if why := p.Unknown[name]; (*value == nil) != (why != "") {
			t.Errorf("%s is %v, and unknown because %q", name, *value, why)
		}
		if *value != nil {
			known++
		}
		if strings.HasSuffix(name, "_rate") && *value != nil && (**value < 0 || **value > 1) {
			t.Errorf("%s is %g", name, **value)
		}
	})
	if known < 15 {
		t.Errorf("only %d figures are known: %v", known, p.Unknown)
	}
	c.ends(t)
}

func TestFiguresAreKept(t *testing.T) {
	d, _ := quietDaemon(t)
	d.host = host.New("", 2)
	d.cache = d.newCache(d.settingsNow())
	d.network, d.gauge = &network{hub: live.New(d.bus, live.Settings{})}, newGauge(d)
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- d.history.Run(ctx) }()
	defer func() {
		stop()
		<-over
	}()
	from := time.Now().Add(-time.Minute)
	for range 4 {
		d.gauge.keep(ctx)
	}
	const memory = "system.memory_usage_percent"
	h, err := d.gauge.Past(ctx, memory, from, time.Now().Add(time.Minute), 0)
	if err != nil {
		t.Fatal(err)
	}
	var times int64
	for _, p := range h.Points {
		times += p.Times
		if want := memoryInUse(t); math.Abs(p.Mean-want) > 10 || p.Least > p.Mean || p.Most < p.Mean {
			t.Errorf("%+v of memory, %g %% by hand", p, want)
		}
	}
	if times != 3 || h.Step != sampled.Seconds() {
		t.Errorf("%d samples, of steps of %g s: %+v", times, h.Step, h)
	}
	// What is longer ago than single samples are kept comes from sums of minutes, and hours.
	for age, step := range map[time.Duration]float64{48 * time.Hour: 172, 30 * 24 * time.Hour: 3600} {
		h, err := d.gauge.Past(ctx, memory, time.Now().Add(-age), time.Now().Add(time.Hour), 0)
		if err != nil || len(h.Points) == 0 || h.Points[len(h.Points)-1].Times != 3 && len(h.Points) < 2 || math.Floor(h.Step) < step {
			t.Errorf("over %v: %+v, %v", age, h, err)
		}
	}
	if _, err := d.gauge.Past(ctx, "system.luck", from, time.Now(), 0); model.ClassOf(err) != model.NotFound {
		t.Errorf("a figure that there is not: %v", err)
	}
}

// memoryInUse is the part of the memory that is not available, in percent, by the kernel's own file.
func memoryInUse(t *testing.T) float64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	figures := map[string]float64{}
	for line := range strings.Lines(string(raw)) {
		var name string
		var kib float64
		if n, _ := fmt.Sscanf(line, "%s %f", &name, &kib); n == 2 { //nolint:errcheck // other lines are of no interest
			figures[name] = kib
		}
	}
	return 100 * (1 - figures["MemAvailable:"]/figures["MemTotal:"])
}

// A figure that falls is told, with what may help; one that goes to and fro is not.
func TestWhereFiguresAreGoing(t *testing.T) {
	d, _ := quietDaemon(t)
	d.host = host.New("", 2)
	d.cache = d.newCache(d.settingsNow())
	d.network, d.gauge = &network{hub: live.New(d.bus, live.Settings{})}, newGauge(d)
	d.settings.API.ResponseCaching = false
	d.limiter, d.monitor = throttle.New(), &monitor{d: d}
	facts, err := d.app.machine()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- d.history.Run(ctx) }()
	defer func() {
		stop()
		<-over
	}()
	var samples []model.Sample
	now := time.Now()
	for i := range 10 {
		at := now.Truncate(5 * time.Minute).Add(time.Second - time.Duration(9-i)*5*time.Minute)
		for name, value := range map[string]float64{
			"downloads.average_speed_mbps": 600 - 20*float64(i), "api.average_response_time_ms": 1 + 0.2*float64(i), "storage.access_latency_ms": float64(1 + i%2), "api.requests_per_second": float64(i + 1),
			"downloads.active_count": float64(d.settings.Downloads.AtOnce(facts)),
		} {
			samples = append(samples, model.Sample{Series: name, At: at, Value: value}, model.Sample{Series: name, At: at.Add(10 * time.Second), Value: value})
		}
	}
	d.history.Tell(ledger.Batch{Samples: samples})
	got, err := d.gauge.Trends(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if speed := got.Trends["downloads.average_speed_mbps"]; speed.Trend != "falling" || speed.Good == nil || *speed.Good || *speed.Change > -30 || *speed.Change < -36 || speed.Samples < 9 {
		t.Errorf("speed: %+v", speed)
	}
	if l := got.Trends["storage.access_latency_ms"]; l.Trend != "steady" || l.Good != nil {
		t.Errorf("latency: %+v", l)
	}
	if r := got.Trends["api.requests_per_second"]; r.Trend != "rising" || r.Good != nil {
		t.Errorf("requests: %+v", r)
	}
	if _, known := got.Trends["system.gpu_memory_mb"]; known {
		t.Error("a figure without samples has a trend")
	}
	if r := got.Recommendations; len(r) != 2 || r[0].Type != "reduce_concurrent_downloads" || r[1].Type != "enable_response_caching" || r[1].Command != "ema config set api.response_caching true" || r[1].Held != "monitoring.auto_apply is off" {
		t.Errorf("recommended: %+v", r)
	}
	d.settings.API.ResponseCaching, d.settings.Downloads.MaxConcurrentDownloads = true, 1
	if got, err := d.gauge.Trends(ctx); err != nil || len(got.Recommendations) != 0 {
		t.Errorf("where it is so already: %+v, %v", got.Recommendations, err)
	}
}
