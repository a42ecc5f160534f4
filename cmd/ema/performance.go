package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ema/client"
	"ema/internal/host"
	"ema/internal/ledger"
	"ema/internal/metrics"
	"ema/internal/model"
)

// sampled is how often figures are measured and kept, and lookBack how far back those reach that are asked for.
const (
	sampled  = 10 * time.Second
	lookBack = time.Minute
)

// stockKept is how long it counts what the models take: to find out, all of them are looked at.
const stockKept = time.Minute

// A gauge measures how everything runs: when it is asked, and every ten seconds for the history. It is safe for concurrent use.
type gauge struct {
	d       *daemon
	begun   time.Time
	cleaned struct{ wanted, freed atomic.Int64 } // bytes, by cleanups on their own

	mu      sync.Mutex // guards what follows; held while the machine is looked at
	meter   host.Meter
	past    []glance // of the last minute, the oldest first
	stock   model.Bytes
	stocked time.Time

	hashSpeed func() float64
	watchman  *watchman
}

// A glance is what was counted at one moment.
type glance struct {
	at     time.Time
	totals metrics.Totals
	device host.Device
	noDisk error
	usage  host.Usage
	look   look
}

func newGauge(d *daemon) *gauge {
	g := &gauge{d: d, begun: time.Now(), hashSpeed: hashSpeed()}
	g.watchman = newWatchman(g)
	return g
}

// run keeps figures until ctx ends.
func (g *gauge) run(ctx context.Context) error {
	tick := time.NewTicker(sampled)
	defer tick.Stop()
	for {
		g.keep(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// keep measures once, and tells the history.
func (g *gauge) keep(ctx context.Context) {
	g.mu.Lock()
	now := g.glance(ctx)
	from := g.past
	g.past = append(slices.DeleteFunc(slices.Clone(g.past), func(o glance) bool { return now.at.Sub(o.at) >= lookBack }), now)
	g.mu.Unlock()
	if len(from) == 0 {
		return
	}
	p := g.figures(ctx, from[len(from)-1], now)
	var samples []model.Sample
	p.Each(func(name string, value **float64) {
		if *value != nil {
			samples = append(samples, model.Sample{Series: name, At: p.At, Value: **value})
		}
	})
	g.d.history.Tell(ledger.Batch{Samples: samples})
}

// Now is how everything runs, over the last minute.
func (g *gauge) Now(ctx context.Context) (client.Performance, error) {
	g.mu.Lock()
	from := glance{at: g.begun}
	if len(g.past) > 0 {
		from = g.past[0]
	}
	now := g.glance(ctx)
	g.mu.Unlock()
	return g.figures(ctx, from, now), ctx.Err()
}

// glance counts everything. Its figures of the machine are since the last glance.
func (g *gauge) glance(ctx context.Context) glance {
	now := glance{at: time.Now(), totals: g.d.metrics.Totals(streams()...)}
	now.device, now.noDisk = host.DeviceOf(ctx, g.d.line.Store.Path())
	now.look = g.d.look(ctx, now.totals)
	now.usage, _ = g.meter.Look(ctx) //nolint:errcheck // it only fails when ctx ends, and nobody sees these figures then
	return now
}

// streams are operations that last as long as their clients like.
func streams() []string { return []string{"stream-events", "follow", "run-command"} }

// figures are what two glances tell, and what can be seen now.
func (g *gauge) figures(ctx context.Context, from, now glance) client.Performance {
	seconds := now.at.Sub(from.at).Seconds()
	p := client.Performance{At: now.at.UTC(), Seconds: seconds, Unknown: map[string]string{}}
	g.downloads(&p, from, now)
	g.requests(&p, from, now)
	g.disk(ctx, &p, from, now)
	g.machine(&p, now)
	p.Each(func(name string, value **float64) {
		if *value != nil && (math.IsNaN(**value) || math.IsInf(**value, 0)) {
			*value = nil
		}
		if _, told := p.Unknown[name]; *value == nil && !told {
			p.Unknown[name] = "it cannot be read on this machine"
		} else if *value != nil {
			delete(p.Unknown, name)
		}
	})
	return p
}

func (g *gauge) downloads(p *client.Performance, from, now glance) {
	var active, queued float64
	for _, dl := range g.d.queue.List() {
		switch dl.State {
		case model.Resolving, model.Downloading, model.Verifying:
			active++
		case model.Queued, model.Retrying:
			queued++
		}
	}
	f, was, is := &p.Downloads, from.totals, now.totals
	f.Active, f.Queued = &active, &queued
	if received := is.Received - was.Received; received > 0 || active > 0 {
		f.Speed = new(received / float64(model.MiB) / p.Seconds)
	} else {
		p.Unknown["downloads.average_speed_mbps"] = "nothing was received"
	}
	if ended := is.Successes + is.Failures; ended > 0 {
		f.Success = new(is.Successes / ended)
	} else {
		p.Unknown["downloads.success_rate"] = "no download has ended since the daemon was started"
	}
	f.Retries = new((is.Retries - was.Retries) / p.Seconds * 60)
	if started := is.Starts - was.Starts; started > 0 {
		f.QueueTime = new((is.Waited - was.Waited) / started)
	} else {
		p.Unknown["downloads.queue_processing_time_seconds"] = "no download was started"
	}
}

func (g *gauge) requests(p *client.Performance, from, now glance) {
	f, was, is := &p.API, from.totals, now.totals
	answers := is.Answers - was.Answers
	f.Rate = new(answers / p.Seconds)
	if answers > 0 {
		f.Response = new((is.Answering - was.Answering) / answers * 1000)
		f.Errors = new((is.Errors - was.Errors) / answers)
	} else {
		p.Unknown["api.average_response_time_ms"], p.Unknown["api.error_rate"] = "nobody asked anything", "nobody asked anything"
	}
	if s := g.d.network.hub.Stats(); uint64(s.Clients)+s.ClosedSlow > 0 {
		f.WebSocket = new(float64(s.Clients) / (float64(s.Clients) + float64(s.ClosedSlow)))
	} else {
		p.Unknown["api.websocket_connection_stability"] = "nobody follows by WebSocket"
	}
}

func (g *gauge) disk(ctx context.Context, p *client.Performance, from, now glance) {
	f := &p.Storage
	if used, err := g.takes(ctx); err == nil {
		f.Usage = new(float64(used) / float64(model.GiB))
	} else {
		p.Unknown["storage.total_usage_gb"] = err.Error()
	}
	if !g.d.settingsNow().CacheOptimization.ModelCache.Enabled {
		p.Unknown["storage.cache_hit_rate"] = "the cache of models in memory is switched off"
	} else if cache := g.d.cache.Stats(); cache.Uses > 0 {
		f.CacheHits = new(cache.HitRate())
	} else {
		p.Unknown["storage.cache_hit_rate"] = "no model was used since the daemon was started"
	}
	if wanted := g.cleaned.wanted.Load(); wanted > 0 {
		f.Cleanup = new(float64(g.cleaned.freed.Load()) / float64(wanted))
	} else {
		p.Unknown["storage.cleanup_efficiency"] = "no cleanup was needed since the daemon was started"
	}
	was, is := from.device, now.device
	why := "it was not measured before"
	if now.noDisk != nil {
		why = now.noDisk.Error()
	}
	if now.noDisk != nil || was.Name != is.Name {
		for _, name := range []string{"io_throughput_mbps", "access_latency_ms", "io_utilization"} {
			p.Unknown["storage."+name] = why
		}
		return
	}
	f.Throughput = new((is.Bytes - was.Bytes) / float64(model.MiB) / p.Seconds)
	f.Busy = new(min(1, (is.Busy-was.Busy)/p.Seconds))
	if n := is.Operations - was.Operations; n > 0 {
		f.Latency = new((is.Waited - was.Waited) / n * 1000)
	} else {
		p.Unknown["storage.access_latency_ms"] = "nobody asked the device for anything"
	}
}

// takes is what models take, as it was found within the last minute.
func (g *gauge) takes(ctx context.Context) (model.Bytes, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.stocked) < stockKept {
		return g.stock, nil
	}
	used, _, err := g.d.stock(ctx)
	if err == nil {
		g.stock, g.stocked = used, time.Now()
	}
	return used, err
}

func (g *gauge) machine(p *client.Performance, now glance) {
	f, u := &p.System, now.usage
	f.CPU, f.Network = known(u.MachineCPU, 1), known(u.Network, float64(model.MiB))
	if u.Memory > 0 && u.Available >= 0 {
		f.Memory, f.MemoryGB = new(100*(u.Memory-u.Available)/u.Memory), new((u.Memory-u.Available)/float64(model.GiB))
	}
	if speed := g.d.host.LinkSpeed(); speed > 0 && u.Network >= 0 {
		f.NetworkPart = new(u.Network / speed)
	} else {
		p.Unknown["system.network_bandwidth_utilization"] = "no network driver tells the speed of its link"
	}
	if used, total := g.d.host.GPUMemory(); total > 0 {
		f.GPUMemory, f.GPUPercent = new(used/float64(model.MiB)), new(100*used/total)
	} else {
		for _, name := range []string{"gpu_memory_mb", "gpu_memory_percent"} {
			p.Unknown["system."+name] = "no graphics driver tells of its memory in /sys"
		}
	}
	if waits, err := g.d.host.Pressure(); err != nil {
		for _, name := range []string{"cpu_pressure", "io_pressure", "memory_pressure"} {
			p.Unknown["system."+name] = err.Error()
		}
	} else {
		f.CPUWait = &waits.CPU
		if waits.Source != "load" {
			f.IOWait, f.MemoryWait = &waits.IO, &waits.Memory
		}
	}
}

// mostPoints is how many points are told of a figure unless a step is asked for.
const mostPoints = 1000

// Past is one figure over time; see the API.
func (g *gauge) Past(ctx context.Context, metric string, from, to time.Time, step time.Duration) (client.PerformanceHistory, error) {
	h := client.PerformanceHistory{Metric: metric, From: from.UTC(), To: to.UTC(), Points: []client.PerformancePoint{}}
	known := false
	new(client.PerformanceFigures).Each(func(name string, _ **float64) { known = known || name == metric })
	if !known {
		return h, &model.Error{Op: "read the history", Class: model.NotFound, Err: fmt.Errorf("there is no figure %q", metric), Hint: "GET /api/v1/admin/performance/current has those that are, by group and name, such as system.cpu_usage_percent"}
	}
	db, err := g.d.past(ctx)
	if err != nil {
		return h, err
	}
	if step <= 0 {
		step = max(sampled, to.Sub(from)/mostPoints)
	}
	// What is kept that long, and no coarser than was asked for; else the finest that is kept.
	kept, age := time.Hour, time.Since(from)
	if age < ledger.MinutesKept && step < time.Hour {
		kept = time.Minute
	}
	if age < ledger.SamplesKept && step < time.Minute {
		kept = 0
	}
	step = max(step, kept)
	h.Step = step.Seconds()
	sums, err := db.Samples(ctx, metric, from, to, kept)
	if err != nil {
		return h, err
	}
	for _, s := range sums {
		at := s.At.UTC().Truncate(step)
		if last := len(h.Points) - 1; last < 0 || !h.Points[last].At.Equal(at) {
			h.Points = append(h.Points, client.PerformancePoint{At: at, Mean: s.Mean, Least: s.Least, Most: s.Most, Times: s.Times})
			continue
		}
		p := &h.Points[len(h.Points)-1]
		p.Mean = (p.Mean*float64(p.Times) + s.Mean*float64(s.Times)) / float64(p.Times+s.Times)
		p.Least, p.Most, p.Times = min(p.Least, s.Least), max(p.Most, s.Most), p.Times+s.Times
	}
	return h, nil
}
