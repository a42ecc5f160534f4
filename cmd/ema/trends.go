package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"ema/client"
	"ema/internal/config"
	"ema/internal/tune"
)

// worthwhile is by how much a figure must have become worse before anything is recommended for it.
const worthwhile = 0.1

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
	facts, err := g.d.app.machine()
	all.Recommendations = recommendations(all.Trends, c, c.Downloads.AtOnce(facts))
	return all, err
}

// recommendations are what may help against what has become worse by more than a tenth: fewer downloads at once where these become slower,
// and the cache of answers where the API does.
func recommendations(trends map[string]client.FigureTrend, c config.Config, atOnce int) []client.PerformanceRecommendation {
	all := []client.PerformanceRecommendation{}
	worse := func(name string) (float64, bool) {
		t := trends[name]
		bad := t.Good != nil && !*t.Good && t.Change != nil && math.Abs(*t.Change) >= 100*worthwhile
		if !bad {
			return 0, false
		}
		return math.Abs(*t.Change), true
	}
	set := func(kind, key, from, to, reason string) {
		all = append(all, client.PerformanceRecommendation{Type: kind, Reason: reason, Setting: key, Current: from, Advised: to, Command: "ema config set " + key + " " + to})
	}
	if by, bad := worse("downloads.average_speed_mbps"); bad && atOnce > 1 {
		set("reduce_concurrent_downloads", "downloads.max_concurrent_downloads", strconv.Itoa(atOnce), strconv.Itoa(atOnce-1), fmt.Sprintf("downloads have become %.0f %% slower", by))
	}
	if by, bad := worse("api.average_response_time_ms"); bad && !c.API.ResponseCaching {
		set("enable_response_caching", "api.response_caching", "false", "true", fmt.Sprintf("answers take %.0f %% longer", by))
	}
	return all
}
