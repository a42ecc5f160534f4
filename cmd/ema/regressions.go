package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"ema/client"
	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/tune"
)

// A watchman finds figures that are worse than they were, and tells it once each time. It is safe for concurrent use.
type watchman struct {
	g *gauge

	mu    sync.Mutex // guards what follows
	kept  vigil
	newly client.PerformanceRegressions // of the last check
}

// A vigil is what a watchman remembers over restarts.
type vigil struct {
	Baseline  *client.PerformanceBaseline
	Incidents tune.Incidents
	Over      []tune.Incident // the newest first
}

// watchedFile has it, in the store's state folder; mostOver incidents that are over are remembered.
const (
	watchedFile = "regressions.json"
	mostOver    = 50
)

// historyOf is how long ago the weeks begin that a figure is compared with.
const historyOf = 14 * 24 * time.Hour

// newWatchman remembers what an earlier one did. What is not readable is moved aside: it is worth no daemon that does not start.
func newWatchman(g *gauge) *watchman {
	w := &watchman{g: g}
	name := w.file()
	raw, err := os.ReadFile(name)
	if err == nil {
		if err = json.Unmarshal(raw, &w.kept); err != nil {
			w.kept = vigil{}
			err = errors.Join(err, os.Rename(name, name+".broken"))
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.d.log.Warn("what regressions there were is forgotten", "error", err.Error())
	}
	w.newly = client.PerformanceRegressions{Regressions: []client.PerformanceRegression{}, NotJudged: map[string]string{}}
	return w
}

func (w *watchman) file() string { return filepath.Join(w.g.d.line.Store.StateDir(), watchedFile) }

// run looks every monitoring.interval_seconds until ctx ends.
func (w *watchman) run(ctx context.Context) error {
	for {
		interval := time.Duration(w.g.d.settingsNow().Monitoring.IntervalSeconds) * time.Second
		if err := pause(ctx, interval); err != nil {
			return nil //nolint:nilerr // the daemon is going
		}
		w.check(ctx, time.Now())
	}
}

// samples are the means of a figure over spans of step.
func (w *watchman) samples(ctx context.Context, figure string, from, to time.Time, step time.Duration) ([]float64, error) {
	h, err := w.g.Past(ctx, figure, from, to, step)
	all := make([]float64, len(h.Points))
	for i, p := range h.Points {
		all[i] = p.Mean
	}
	return all, err
}

// figures are the names of all figures that may become worse.
func figures() (names []string) {
	new(client.PerformanceFigures).Each(func(name string, _ **float64) {
		if tune.Better(name) != tune.Steady {
			names = append(names, name)
		}
	})
	return names
}

// check judges all figures, and tells of those that have newly become worse, and of those that are well again.
func (w *watchman) check(ctx context.Context, now time.Time) {
	set := w.g.d.settingsNow().Monitoring
	interval := max(time.Duration(set.IntervalSeconds)*time.Second, sampled)
	window := now.Add(-interval * time.Duration(set.Window))
	w.mu.Lock()
	defer w.mu.Unlock()
	r := client.PerformanceRegressions{Threshold: set.RegressionThreshold, Checked: new(now.UTC()), Regressions: []client.PerformanceRegression{}, NotJudged: map[string]string{}}
	for _, name := range figures() {
		last, err := w.samples(ctx, name, window, now, interval)
		var before []float64
		if err == nil {
			before, err = w.samples(ctx, name, window.Add(-historyOf), window, time.Hour)
		}
		if err != nil {
			r.NotJudged[name] = err.Error()
			continue
		}
		references := map[string]tune.Reference{"history": tune.ReferenceOf(before)}
		if w.kept.Baseline != nil {
			f := w.kept.Baseline.Figures[name]
			references["baseline"] = tune.Reference{Median: f.Median, MAD: f.MAD, Samples: f.Samples}
		}
		worst, against, judged := tune.Degradation{}, "", false
		for _, by := range slices.Sorted(maps.Keys(references)) {
			d, why := tune.Degraded(name, last, references[by], set.RegressionThreshold)
			if why != "" {
				r.NotJudged[name] = by + ": " + why
				continue
			}
			if !judged || d.Regressed && !worst.Regressed || d.Regressed == worst.Regressed && d.Worse > worst.Worse {
				worst, against, judged = d, by, true
			}
		}
		if !judged {
			continue
		}
		delete(r.NotJudged, name)
		if worst.Regressed {
			r.Regressions = append(r.Regressions, client.PerformanceRegression{
				Metric: name, Against: against, Before: worst.Before, Now: worst.Now, Worse: 100 * worst.Worse, Noise: worst.Noise,
			})
		}
		opened, closed := w.kept.Incidents.Check(now.UTC(), name, worst, set.RegressionThreshold)
		if closed != nil {
			w.kept.Over = append([]tune.Incident{*closed}, w.kept.Over[:min(len(w.kept.Over), mostOver-1)]...)
		}
		// It is kept before it is told: one that is told twice is worse than one that is not told when the power goes just now.
		if err := w.keep(); err != nil {
			w.g.d.log.Warn("what regressions there are cannot be kept", "error", err.Error())
		}
		for _, i := range []*tune.Incident{opened, closed} {
			if i != nil {
				w.tell(*i)
			}
		}
	}
	slices.SortFunc(r.Regressions, func(a, b client.PerformanceRegression) int { return cmp.Compare(b.Worse, a.Worse) })
	w.newly = r
}

// keep stores what is remembered: it is written and synced, then it takes the name, then the folder is synced. The caller holds mu.
func (w *watchman) keep() error {
	raw, err := json.Marshal(w.kept)
	if err != nil {
		return err
	}
	if err := writeWhole(w.file(), raw); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(w.file()))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// sentence says what an incident is.
func sentence(i tune.Incident) string {
	if !i.Until.IsZero() {
		return fmt.Sprintf("%s is as it was again, after %s", i.Metric, duration(i.Until.Sub(i.Since)))
	}
	return fmt.Sprintf("%s is %.0f %% worse than before: %.4g, was %.4g", i.Metric, 100*i.Worst.Worse, i.Worst.Now, i.Worst.Before)
}

// tell tells all who want to know that an incident has begun, or is over.
func (w *watchman) tell(i tune.Incident) {
	e := event.Performance{Metric: i.Metric, Severity: model.Warning, Message: sentence(i), Advice: "see what is waited for: ema analyze-bottlenecks", Before: i.Worst.Before, Now: i.Worst.Now}
	if !i.Until.IsZero() {
		e.Severity, e.Advice = model.Info, ""
	}
	d := w.g.d
	d.bus.Tell(event.Event{Kind: event.KindPerformance, Data: e})
	d.incident(e.Severity, "performance_alert", model.ID{}, e.Message)
	d.log.Warn("performance", "metric", e.Metric, "message", e.Message)
	if hook := d.settingsNow().Monitoring.AlertWebhook; hook != "" {
		d.webhooks.Send(hook, map[string]any{
			"type": "performance_alert", "metric": e.Metric, "severity": e.Severity, "message": e.Message, "recommended_action": e.Advice,
			"before": e.Before, "now": e.Now, "timestamp": time.Now().UTC(),
		})
	}
}

// open is how many incidents there are now.
func (w *watchman) open() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.kept.Incidents.Open)
}

// Regressions are the figures that are worse than they were; see the API.
func (g *gauge) Regressions(context.Context) (client.PerformanceRegressions, error) {
	w := g.watchman
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.newly
	r.Threshold, r.Incidents = g.d.settingsNow().Monitoring.RegressionThreshold, []client.PerformanceIncident{}
	if w.kept.Baseline != nil {
		r.BaselineAt = &w.kept.Baseline.At
	}
	for _, name := range w.kept.Incidents.Names() {
		r.Incidents = append(r.Incidents, incidentShown(w.kept.Incidents.Open[name]))
	}
	for _, i := range w.kept.Over {
		r.Incidents = append(r.Incidents, incidentShown(i))
	}
	return r, nil
}

func incidentShown(i tune.Incident) client.PerformanceIncident {
	c := client.PerformanceIncident{Metric: i.Metric, Since: i.Since, Before: i.Worst.Before, Worst: i.Worst.Now, Worse: 100 * i.Worst.Worse, Message: sentence(i)}
	if !i.Until.IsZero() {
		c.Until = &i.Until
	}
	return c
}

// Baseline is the one that was taken last; see the API.
func (g *gauge) Baseline(context.Context) (client.PerformanceBaseline, error) {
	g.watchman.mu.Lock()
	defer g.watchman.mu.Unlock()
	if b := g.watchman.kept.Baseline; b != nil {
		return *b, nil
	}
	return client.PerformanceBaseline{}, &model.Error{Op: "read the baseline", Class: model.NotFound, Err: errors.New("none was taken"), Hint: "take one with: ema regressions --set-baseline"}
}

// SetBaseline takes how the figures were over the last hours for a baseline, by the means of each minute or more.
func (g *gauge) SetBaseline(ctx context.Context, hours float64) (client.PerformanceBaseline, error) {
	now := time.Now()
	b := client.PerformanceBaseline{At: now.UTC(), Hours: hours, Figures: map[string]client.BaselineFigure{}}
	for _, name := range figures() {
		samples, err := g.watchman.samples(ctx, name, now.Add(-inSeconds(3600*hours)), now, time.Minute)
		if err != nil {
			return b, err
		}
		if len(samples) > 0 {
			r := tune.ReferenceOf(samples)
			b.Figures[name] = client.BaselineFigure{Median: r.Median, MAD: r.MAD, Samples: r.Samples}
		}
	}
	if len(b.Figures) == 0 {
		return b, &model.Error{Op: "take a baseline", Class: model.Busy, Err: fmt.Errorf("nothing is known of the last %g hours", hours), Hint: "wait a minute: figures are kept every ten seconds"}
	}
	w := g.watchman
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.kept.Baseline
	w.kept.Baseline = &b
	if err := w.keep(); err != nil {
		w.kept.Baseline = before
		return b, &model.Error{Op: "take a baseline", Class: model.DiskError, File: w.file(), Err: err}
	}
	return b, nil
}
