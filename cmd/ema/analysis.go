package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ema/client"
	"ema/internal/config"
	ours "ema/internal/metrics"
	"ema/internal/model"
	"ema/internal/source"
	"ema/internal/tune"
)

// shortest is how much time has to be looked at for figures that mean anything.
const shortest = 3 * time.Second

// look counts what concerns this daemon.
func (d *daemon) look(ctx context.Context, totals ours.Totals) look {
	now := d.line.look(ctx, d.host)
	now.totals = totals
	state := d.history.State()
	now.writes, now.writing = state.Writes, state.Took
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, r := range d.running {
		if !r.over() {
			now.downloads[id] = lookAt(r.show.progress)
		}
	}
	return now
}

// Analysis is what everything waits for; see the API.
func (g *gauge) Analysis(ctx context.Context, about model.ID) (client.PerformanceAnalysis, error) {
	g.mu.Lock()
	from := glance{at: g.begun}
	for _, p := range g.past { // the newest that is old enough
		if time.Since(p.at) >= shortest {
			from = p
		}
	}
	now := g.glance(ctx)
	g.mu.Unlock()
	if from.look.at.IsZero() {
		from.look.at = from.at
	}
	e, found := g.evidence(from.look, now.look, about)
	if !about.IsZero() && !found {
		last, err := lastDownload(g.d.line.Store.StateDir(), about)
		if err != nil {
			return client.PerformanceAnalysis{}, err
		}
		last.Evidence.HashSpeed = g.hashSpeed()
		a := analysed(last.Evidence, last.At, g.d.effective())
		a.Model, a.Finished = about.Public(), true
		return a, ctx.Err()
	}
	e.HashSpeed = g.hashSpeed()
	a := analysed(e, now.at, g.d.effective())
	if !about.IsZero() {
		a.Model = about.Public()
	}
	return a, ctx.Err()
}

// evidence is what happened between two looks, of one download where about names one; found says that there is one.
func (g *gauge) evidence(from, to look, about model.ID) (e tune.Evidence, found bool) {
	d := g.d
	c := d.settingsNow()
	e = d.line.evidence(d.host, c, from, to)
	limit, why := d.limit()
	e.Limit, e.LimitWhy = float64(limit), why
	list := d.queue.List()
	facts, err := d.app.machine()
	if err == nil {
		e.Queue.AtOnce, e.Queue.Most = c.Downloads.AtOnce(facts), c.Downloads.Waiting(facts)
	}
	for _, dl := range list {
		switch dl.State {
		case model.Queued:
			e.Queue.Waiting++
			e.Queue.Longest = max(e.Queue.Longest, to.at.Sub(dl.Created))
		case model.Resolving, model.Downloading, model.Verifying:
			e.Queue.Running++
		}
		if !about.IsZero() && dl.Model != about {
			continue
		}
		if dl.State == model.Paused && dl.Pause == model.BySpace {
			e.Downloads = append(e.Downloads, tune.DownloadEvidence{Model: dl.Model.Public(), Full: dl.Reason})
			found = true
			continue
		}
		now, runs := to.downloads[dl.ID]
		if !runs {
			found = found || !dl.State.Final()
			continue
		}
		found = true
		d.mu.Lock()
		own := smaller(dl.Limit, d.perDownload())
		begun := from.at
		if r := d.running[dl.ID]; r != nil && r.begun.After(begun) {
			begun = r.begun
		}
		d.mu.Unlock()
		one := now.since(from.downloads[dl.ID], dl.Model.Public(), to.at.Sub(begun))
		one.Limit = float64(own)
		if !dl.Started.IsZero() {
			one.Waited = dl.Started.Sub(dl.Created)
		}
		e.Downloads = append(e.Downloads, one)
		e.Received += float64(one.Received) / max(one.Lasted.Seconds(), 0.001)
	}
	e.Requests = requestsBetween(from.totals, to.totals)
	e.Requests.StuckIn, e.Requests.Stuck = d.api.Oldest(to.at)
	e.Database = g.databaseBetween(from, to)
	return e, found
}

// effective are the settings that hold, with where they are from.
func (d *daemon) effective() *config.Effective {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settings
}

// valueAt is the value of a key in nested maps; empty where there is no such key.
func valueAt(values map[string]any, key string) string {
	section, rest, nested := strings.Cut(key, ".")
	value, known := values[section]
	if inner, is := value.(map[string]any); is && nested {
		return valueAt(inner, rest)
	}
	if !known || nested {
		return ""
	}
	return fmt.Sprint(value)
}

// requestsBetween are those that were answered between two looks.
func requestsBetween(from, to ours.Totals) tune.APIEvidence {
	e := tune.APIEvidence{Answered: int(to.Answers - from.Answers)}
	if e.Answered > 0 {
		e.Mean = inSeconds((to.Answering - from.Answering) / (to.Answers - from.Answers))
	}
	slowest := 0.0
	for op, now := range to.Operations {
		before := from.Operations[op]
		if n := now.Times - before.Times; n > 0 && (now.Seconds-before.Seconds)/n > slowest {
			slowest, e.Slowest = (now.Seconds-before.Seconds)/n, op
		}
	}
	return e
}

func inSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// databaseBetween is what the databases did between two looks: that of this machine, and that of the history.
func (g *gauge) databaseBetween(from, to look) tune.DatabaseEvidence {
	state := g.d.history.State()
	e := tune.DatabaseEvidence{Waiting: state.Waiting, Server: g.d.settingsNow().Database.URL != ""}
	if state.Away != nil {
		e.Away = state.Away.Error()
	}
	kept := to.totals.Database.Times - from.totals.Database.Times
	written := float64(to.writes - from.writes)
	if e.Operations = int(kept + written); e.Operations > 0 {
		spent := inSeconds(to.totals.Database.Seconds-from.totals.Database.Seconds) + to.writing - from.writing
		e.Mean = time.Duration(float64(spent) / (kept + written))
	}
	return e
}

// analysed judges the evidence, and tells it as the API does. c is what is configured.
func analysed(e tune.Evidence, at time.Time, c *config.Effective) client.PerformanceAnalysis {
	judged := tune.Diagnose(e)
	a := client.PerformanceAnalysis{
		At: at.UTC(), Seconds: e.Span.Seconds(), Verdict: judged.Verdict, Bottlenecks: []client.Bottleneck{}, Components: map[string]string{},
		Times: map[string]float64{}, Ceilings: []client.Ceiling{}, Unknown: map[string]string{},
	}
	values := c.Values()
	for _, f := range judged.Findings {
		b := client.Bottleneck{
			Component: string(f.Component), Share: f.Share, AtCeiling: f.Ceiling, Verdict: f.Verdict, Evidence: f.Evidence, Setting: f.Setting, Advised: f.Advised, Command: f.Command,
		}
		if b.Evidence == nil {
			b.Evidence = []string{}
		}
		b.Current = valueAt(values, f.Setting)
		a.Bottlenecks = append(a.Bottlenecks, b)
	}
	for c, text := range judged.Others {
		a.Components[string(c)] = text
	}
	var spent source.Spent
	for _, d := range e.Downloads {
		for p, t := range d.Spent {
			spent[p] += t
		}
	}
	if len(e.Downloads) > 0 {
		for _, p := range source.Phases() {
			a.Times[p.String()] = spent[p].Seconds()
		}
		a.Unknown["connection_seconds.decompress"] = "the bytes of models come as they are"
	}
	ceiling := func(component tune.Component, name string, perSecond float64, from, why string) {
		c := client.Ceiling{Component: string(component), Name: name, Unit: "MB/s", Source: from}
		if perSecond > 0 {
			c.Value = new(perSecond / 1e6)
			if len(e.Downloads) > 0 {
				c.Reached = new(e.Received / perSecond)
			}
		} else {
			a.Unknown["ceilings."+name] = why
		}
		a.Ceilings = append(a.Ceilings, c)
	}
	ceiling(tune.OfNetwork, "link", e.LinkSpeed, "what the drivers of the network cards say", "no network driver tells the speed of its link")
	ceiling(tune.OfCPU, "hash", e.HashSpeed, "SHA-256 by one processor, measured for this", "it was not measured")
	for _, d := range e.Disks {
		ceiling(tune.OfDisk, "disk "+d.Tier, d.Ceiling, "writing a large file, measured on "+d.Measured.UTC().Format(time.DateOnly), `no benchmark was kept: "ema benchmark --generate-baseline" measures it`)
	}
	if e.Limit > 0 {
		ceiling(tune.OfLimiter, "limit", e.Limit, cmp.Or(e.LimitWhy, "bandwidth_management"), "")
	}
	if e.Delayed < 0 {
		a.Unknown["cpu"] = "the kernel does not tell how long threads wait for a processor"
	}
	return a
}

// keepTiming keeps what a download that has just ended waited for, since from. What was here already is no download.
func (g *gauge) keepTiming(ctx context.Context, dl model.Download, from look) {
	to := g.d.look(ctx, g.d.metrics.Totals(streams()...))
	if to.downloads[dl.ID].received == 0 && to.at.Sub(from.at) < time.Second {
		return
	}
	e, found := g.evidence(from, to, dl.Model)
	if !found {
		return
	}
	if err := keepTiming(g.d.line.Store.StateDir(), dl.Model, e); err != nil {
		g.d.log.Info("what a download waited for is not kept", "model", dl.Model.Public(), "error", err.Error())
	}
}

// timingsFolder has what the last download of each model waited for, in the store's state folder; keptTimings of them.
const (
	timingsFolder = "timings"
	keptTimings   = 200
)

// A timing is the evidence about one download that has ended.
type timing struct {
	Model    string
	At       time.Time
	Evidence tune.Evidence
}

func timingFile(state string, id model.ID) string {
	sum := sha256.Sum256([]byte(id.String()))
	return filepath.Join(state, timingsFolder, hex.EncodeToString(sum[:16])+".json")
}

// keepTiming keeps evidence about a download that has ended. It may be lost with the power: it is worth no wait.
func keepTiming(state string, id model.ID, e tune.Evidence) error {
	name := timingFile(state, id)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	raw, err := json.Marshal(timing{Model: id.Public(), At: time.Now().UTC(), Evidence: e})
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(raw)
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return pruneTimings(filepath.Dir(name))
}

// pruneTimings removes the oldest.
func pruneTimings(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) <= keptTimings {
		return err
	}
	age := func(e fs.DirEntry) time.Time {
		i, err := e.Info()
		if err != nil {
			return time.Time{}
		}
		return i.ModTime()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return age(a).Compare(age(b)) })
	for _, e := range entries[:len(entries)-keptTimings] {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// lastDownload is the evidence about the last download of a model, or of any where id is zero.
func lastDownload(state string, id model.ID) (*timing, error) {
	name := timingFile(state, id)
	if id.IsZero() {
		newest := time.Time{}
		files, _ := filepath.Glob(filepath.Join(state, timingsFolder, "*.json")) //nolint:errcheck // the pattern is right
		for _, f := range files {
			if i, err := os.Stat(f); err == nil && i.ModTime().After(newest) {
				name, newest = f, i.ModTime()
			}
		}
	}
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &model.Error{Op: "analyze", Class: model.NotFound, Model: id, Err: errors.New("no download of it is known"), Hint: "download it, and ask again"}
	}
	if err != nil {
		return nil, err
	}
	var t timing
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, &model.Error{Op: "analyze", Model: id, File: name, Err: fmt.Errorf("what is kept of the download is not readable: %w", err), Hint: "remove the file"}
	}
	return &t, nil
}

// shareOf is a share as people read it.
func shareOf(share float64) string { return strings.TrimSpace(fmt.Sprintf("%3.0f %%", 100*share)) }
