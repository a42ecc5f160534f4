package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"ema/client"
	"ema/internal/api"
	"ema/internal/config"
	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/tune"
)

// trialsFile has what the monitor has changed and learnt, in the store's state folder. It is replaced as a whole, as changed settings
// are.
const trialsFile = "optimizations.json"

// A monitor changes settings that may help, measures whether they do, and undoes those that do not: what tune decides. It changes them
// as "ema config set" does, and only with monitoring.auto_apply. It is safe for concurrent use.
type monitor struct {
	d       *daemon
	changed chan struct{} // holds one when settings have changed

	mu     sync.Mutex // guards what follows, and is held while it changes settings
	trials tune.Trials
	looked time.Time // zero until the first time
}

// newMonitor remembers what was changed before the daemon was started.
func newMonitor(d *daemon) (*monitor, error) {
	m := &monitor{d: d, changed: make(chan struct{}, 1)}
	raw, err := os.ReadFile(m.file())
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &m.trials)
	}
	if err != nil {
		return nil, &model.Error{
			Op: "read which settings were changed to go faster", Class: model.DiskError, File: m.file(), Err: err,
			Hint: `remove the file: then it is forgotten what they were before, and "ema config unset KEY" takes each back`,
		}
	}
	return m, nil
}

func (m *monitor) file() string { return filepath.Join(m.d.line.Store.StateDir(), trialsFile) }

// keep stores what is decided. The lock is held.
func (m *monitor) keep(t tune.Trials) error {
	if reflect.DeepEqual(t, m.trials) {
		return nil
	}
	raw, err := json.Marshal(t)
	if err == nil {
		_, err = replaceFile(store.OS{}, m.file(), raw)
	}
	if err != nil {
		return &model.Error{Op: "store which settings were changed to go faster", Class: model.DiskError, File: m.file(), Err: err, Hint: "see to the disk"}
	}
	m.trials = t
	return nil
}

// run looks how everything goes at the end of each interval, until ctx ends, and when settings have changed.
func (m *monitor) run(ctx context.Context) error {
	for {
		if err := m.look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			m.d.log.Warn("optimizations", "error", err.Error())
		}
		every := m.d.interval()
		// A little later than the interval ends: then its last sample is kept.
		next := time.NewTimer(time.Until(time.Now().Truncate(every).Add(every + sampled/5)))
		select {
		case <-ctx.Done():
			next.Stop()
			return nil
		case <-m.changed:
			next.Stop()
		case <-next.C:
		}
	}
}

// reconsider has it look soon: settings have changed.
func (m *monitor) reconsider() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// interval is the time between two samples that are judged.
func (d *daemon) interval() time.Duration {
	return max(sampled, d.settingsNow().Monitoring.IntervalSeconds.Duration())
}

// look decides by what is known now, and does it.
func (m *monitor) look(ctx context.Context, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.d.signs(ctx, now)
	if err != nil {
		return err
	}
	m.looked = now
	next, acts := tune.Decide(now, m.trials, f)
	return m.carryOut(ctx, now, f, next, acts, true)
}

// carryOut stores what is decided, and then does it: after a crash in between it is known that it may have to be done again. The lock
// is held.
func (m *monitor) carryOut(ctx context.Context, now time.Time, f tune.Signs, next tune.Trials, acts []tune.Act, byItself bool) error {
	was := m.trials
	if err := m.keep(next); err != nil {
		return err
	}
	var failed error
	for _, a := range acts {
		err := m.set(ctx, a)
		if byItself {
			err = errors.Join(err, m.audit(ctx, a, err))
		}
		switch {
		case err == nil:
			err = m.keep(m.trials.Done(a.Experiment, now))
		case model.ClassOf(err) == model.Usage: // it does not fit the other settings
			err = errors.Join(err, m.keep(m.trials.Refused(a.Experiment, now, f, "it cannot be set: "+err.Error())))
		}
		failed = errors.Join(failed, err)
	}
	m.tell(was)
	return failed
}

// set sets a key to a value, as a person would, or takes back what was changed of it.
func (m *monitor) set(ctx context.Context, a tune.Act) error {
	patch, err := config.Unset(a.Key)
	if a.Value != nil {
		patch, err = config.Set(a.Key, *a.Value)
	}
	if err != nil {
		return err
	}
	_, err = board{m.d}.Update(ctx, patch)
	return err
}

// audit notes what was set, and how that went.
func (m *monitor) audit(ctx context.Context, a tune.Act, err error) error {
	entry := model.AuditEntry{At: time.Now().UTC(), Who: "ema", Action: "optimize", Target: a.Key + " taken back", Result: "ok"}
	if a.Value != nil {
		entry.Target = a.Key + " " + *a.Value
	}
	if err != nil {
		entry.Result = model.ClassOf(err).String()
	}
	return m.d.ledger.Record(context.WithoutCancel(ctx), entry) // what was done is told, also when we are to end
}

// tell tells of experiments that have come to another stage, once their setting is as that wants it.
func (m *monitor) tell(was tune.Trials) {
	before := map[string]tune.Experiment{}
	for _, e := range was.Experiments {
		before[e.ID] = e
	}
	for _, e := range m.trials.Experiments {
		old, known := before[e.ID]
		if e.Pending || known && old.Stage == e.Stage && !old.Pending {
			continue
		}
		told := event.Optimization{ID: e.ID, Rule: e.Rule, Key: e.Key, From: e.From, To: e.To, Status: string(e.Stage), Reason: e.Why, Figure: e.Figure}
		if by := e.Effect(); !math.IsNaN(by) {
			told.Better = by
		}
		m.d.bus.Tell(event.Event{Kind: event.KindOptimization, Data: told})
		m.d.metrics.Optimized(told.Status)
		m.d.log.Info("optimization", "id", e.ID, "setting", e.Key, "from", e.From, "to", e.To, "status", told.Status, "because", e.Why)
		m.d.incident(model.Info, "optimization_"+told.Status, model.ID{}, fmt.Sprintf("%s %s → %s: %s", e.Key, e.From, e.To, e.Why))
	}
}

// Optimizations are the changes that were made, and what may help; see the API.
func (m *monitor) Optimizations(ctx context.Context) (client.Optimizations, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	all := client.Optimizations{AutoApply: m.d.settingsNow().Monitoring.AutoApply, Optimizations: []client.Optimization{}}
	if !m.looked.IsZero() {
		all.CheckedAt = new(m.looked.UTC())
	}
	for _, e := range slices.Backward(m.trials.Experiments) {
		all.Optimizations = append(all.Optimizations, optimization(e))
	}
	f, err := m.d.signs(ctx, now)
	if err == nil {
		all.Recommendations = recommendations(tune.Recommend(now, m.trials, f))
	}
	return all, err
}

// Undo takes a change back for a person.
func (m *monitor) Undo(ctx context.Context, id string) (client.Optimization, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	f, err := m.d.knobs()
	if err != nil {
		return client.Optimization{}, err
	}
	next, acts, err := tune.Undo(now, m.trials, f, id)
	if err != nil && model.ClassOf(err) == model.Usage {
		err = holdsNoMore{err}
	}
	if err == nil {
		err = m.carryOut(ctx, now, f, next, acts, false)
	}
	if err != nil {
		return client.Optimization{}, err
	}
	i := slices.IndexFunc(m.trials.Experiments, func(e tune.Experiment) bool { return e.ID == id })
	return optimization(m.trials.Experiments[i]), nil
}

// holdsNoMore is the sentence about a change that cannot be taken back.
type holdsNoMore struct{ error }

func (e holdsNoMore) Unwrap() error        { return e.error }
func (e holdsNoMore) Is(target error) bool { return target == api.ErrHoldsNoMore } //nolint:errorlint // it is what errors.Is asks

// optimization is an experiment as the API tells it.
func optimization(e tune.Experiment) client.Optimization {
	o := client.Optimization{
		ID: e.ID, Type: e.Rule, Reason: e.Reason, Setting: e.Key, From: e.From, To: e.To, Status: string(e.Stage), Why: e.Why,
		Metric: e.Figure, Begun: e.Began.UTC(), Since: e.Since.UTC(),
	}
	known := func(f float64) *float64 {
		if math.IsNaN(f) {
			return nil
		}
		return &f
	}
	without, with := e.Measured()
	o.Before, o.After = known(without), known(with)
	if by := e.Effect(); !math.IsNaN(by) {
		o.Better = new(100 * by)
	}
	if !e.Stage.Final() {
		o.Undo = new("ema optimizations undo " + e.ID)
	}
	return o
}

// recommendations are proposals as the API tells them.
func recommendations(all []tune.Recommended) []client.PerformanceRecommendation {
	told := []client.PerformanceRecommendation{}
	for _, r := range all {
		told = append(told, client.PerformanceRecommendation{
			Type: r.Rule, Reason: r.Reason, Setting: r.Key, Current: r.From, Advised: r.To, Command: "ema config set " + r.Key + " " + r.To, Held: r.Held,
		})
	}
	return told
}

// signs are what settings are judged by: the samples of whole intervals until now, and what is set.
func (d *daemon) signs(ctx context.Context, now time.Time) (tune.Signs, error) {
	f, err := d.knobs()
	if err != nil {
		return f, err
	}
	to := now.Truncate(f.Interval)
	from := to.Add(-f.Interval * time.Duration(f.Window))
	rows := map[time.Time]tune.Sample{}
	for _, name := range tune.FigureNames() {
		h, err := d.gauge.Past(ctx, name, from, to, f.Interval)
		if err != nil {
			return f, err
		}
		for _, p := range h.Points {
			if rows[p.At].Figures == nil {
				rows[p.At] = tune.Sample{At: p.At, Figures: map[string]float64{}}
			}
			rows[p.At].Figures[name] = p.Mean
		}
	}
	for _, s := range rows {
		f.Samples = append(f.Samples, s)
	}
	slices.SortFunc(f.Samples, func(a, b tune.Sample) int { return a.At.Compare(b.At) })
	return f, nil
}

// knobs are the settings that may be changed, with what else is known without history.
func (d *daemon) knobs() (tune.Signs, error) {
	d.mu.Lock()
	e, since := d.settings, d.limitedSince
	running := make([]*running, 0, len(d.running))
	for _, r := range d.running {
		running = append(running, r)
	}
	d.mu.Unlock()
	f := tune.Signs{
		Interval: d.interval(), Window: e.Monitoring.Window, Auto: e.Monitoring.AutoApply, Knobs: map[string]tune.Knob{},
		Limit: float64(d.limiter.Rate()) / float64(model.MiB), Each: float64(e.BandwidthManagement.PerDownloadLimitMbps), LimitSince: since,
	}
	for _, r := range running {
		if !r.over() {
			f.Connections = max(f.Connections, r.figures().Connections)
		}
	}
	over, err := readOverlay(d.changedFile())
	if err != nil {
		return f, err
	}
	// What would hold without any changed setting tells what people have set in files, variables and flags.
	under, err := d.app.daemonSettingsOver(config.Overlay{})
	if err != nil {
		return f, err
	}
	facts, err := d.app.machine()
	if err != nil {
		return f, err
	}
	acting, err := textOf(e.Values())
	if err != nil {
		return f, err
	}
	raw, err := over.Encode()
	if err != nil {
		return f, err
	}
	stored, err := textOf(json.RawMessage(raw))
	if err != nil {
		return f, err
	}
	for _, key := range tune.KnobKeys() {
		k := tune.Knob{Value: acting[key]}
		if key == "downloads.max_concurrent_downloads" {
			k.Value = fmt.Sprint(e.Downloads.AtOnce(facts))
		}
		if v, there := stored[key]; there {
			k.Stored = &v
		}
		if o := under.Origin(key); o.Said() {
			k.Said = o.String()
		}
		f.Knobs[key] = k
	}
	return f, nil
}

// textOf are the values in nested maps, by their paths with dots, as JSON has them.
func textOf(v any) (map[string]string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var tree map[string]any
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	all := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		section, ok := v.(map[string]any)
		if !ok {
			all[strings.TrimPrefix(path, ".")] = fmt.Sprint(v)
			return
		}
		for name, one := range section {
			walk(path+"."+name, one)
		}
	}
	walk("", tree)
	return all, nil
}
