package main

import (
	"context"
	"math"
	"time"

	"ema/client"
	"ema/internal/tune"
)

// Trends is where all figures are going; see the API.
func (g *gauge) Trends(ctx context.Context) (client.PerformanceCourse, error) {
	c := g.d.settingsNow()
	interval := time.Duration(c.Monitoring.IntervalSeconds) * time.Second
	all := client.PerformanceCourse{
		Interval: interval.Seconds(), Window: c.Monitoring.Window, Trends: map[string]client.FigureTrend{}, Recommendations: []client.PerformanceRecommendation{},
	}
	to := time.Now()
	from := to.Add(-interval * time.Duration(c.Monitoring.Window))
	var names []string
	new(client.PerformanceFigures).Each(func(name string, _ **float64) { names = append(names, name) })
	for _, name := range names {
		h, err := g.Past(ctx, name, from, to, max(interval, sampled))
		if err != nil {
			return all, err
		}
		if len(h.Points) == 0 {
			continue
		}
		samples := make([]float64, len(h.Points))
		for i, p := range h.Points {
			samples[i] = p.Mean
		}
		t, last := tune.TrendOf(samples), h.Points[len(h.Points)-1]
		one := client.FigureTrend{Trend: string(t.Course), Median: t.Median, Last: last.Mean, Samples: len(samples), LastAt: last.At}
		if !math.IsNaN(t.Change) {
			one.Change = new(100 * t.Change)
		}
		if better := tune.Better(name); better != tune.Steady && (t.Course == tune.Rising || t.Course == tune.Falling) {
			one.Good = new(t.Course == better)
		}
		all.Trends[name] = one
	}
	f, err := g.d.signs(ctx, to)
	if err != nil {
		return all, err
	}
	g.d.monitor.mu.Lock()
	trials := g.d.monitor.trials
	g.d.monitor.mu.Unlock()
	all.Recommendations = recommendations(tune.Recommend(to, trials, f))
	return all, nil
}
