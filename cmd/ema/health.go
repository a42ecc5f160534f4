package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/client"
	"ema/internal/api/snapshot"
	"ema/internal/config"
	"ema/internal/event"
	"ema/internal/health"
	"ema/internal/insight"
	"ema/internal/ledger"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

const (
	// settles is how long after a model has changed it is looked at: changes seldom come alone.
	settles = 5 * time.Second
	// fresh is how old a full check may be that answers somebody who asks for one.
	fresh = time.Hour
	// A repair that failed is tried again by itself after so long, and twice as long each time.
	soonestRepair, latestRepair = time.Hour, 48 * time.Hour
	// comparing is how often it is asked how fast users find the models.
	comparing = 15 * time.Minute
	// readsCompared is how old a full check may be whose speed is compared with others.
	readsCompared = 90 * 24 * time.Hour
	// mostChecks is how many full checks may wait that somebody has asked for.
	mostChecks = 1000
)

// The kinds of checks, as history and answers call them.
const (
	quickCheck  = "quick"
	fullCheck   = "full"
	scrubCheck  = "scrub"
	repairCheck = "repair"
)

// A clinic knows how well models are: it looks at them at the start, when they change and from time to time, reads all of their
// bytes when somebody asks or when that is due, and has them repaired. Its methods may be called concurrently; run once.
type clinic struct {
	d *daemon

	wake    chan struct{} // holds one when a model is to be looked at
	reading chan struct{} // holds one when there may be something to read
	begun   time.Time

	mu       sync.Mutex
	charts   map[model.ID]*chart
	changed  map[model.ID]time.Time               // models to be looked at, and when
	asked    []*reading                           // full checks that wait
	swept    time.Time                            // when all models were looked at last; zero before the first time
	rate     float64                              // bytes per second of the last full check; 0 before the first
	slowness map[model.ID]client.PerformanceTrend // of models whose users have told of durations
	reads    map[model.ID]*float64                // how fast each model was read lately, against before
}

// A chart is what the clinic knows of one model. The clinic's lock guards it.
type chart struct {
	looked    time.Time
	read      map[string]time.Time     // when each commit was read as a whole last
	found     map[model.Digest]symptom // what is odd about contents, as they were read last
	verdict   health.Verdict
	said      model.Condition // what others were told last; "" = nothing
	check     *client.HealthTask
	repair    *client.HealthTask
	failure   string    // of the last repair
	tried     time.Time // when it was
	attempts  int       // that failed one after the other
	size      model.Bytes
	judged              // when it was looked at last
	postponed time.Time // when reading it failed last
}

// A symptom is what is odd about a content, as it was when it was read.
type symptom struct {
	state   string
	damaged model.Bytes
	notes   []string
	touched time.Time // the file's time of modification then
}

// A reading is a full check that waits or runs.
type reading struct {
	id   model.ID
	kind string
	task *client.HealthTask // nil for those that nobody has asked for
}

func newClinic(d *daemon) *clinic {
	return &clinic{
		d: d, wake: make(chan struct{}, 1), reading: make(chan struct{}, 1), begun: time.Now(),
		charts: map[model.ID]*chart{}, changed: map[model.ID]time.Time{},
	}
}

// run checks until ctx ends.
func (c *clinic) run(ctx context.Context) error {
	c.recall(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.hear(ctx) })
	g.Go(func() error { return c.look(ctx) })
	g.Go(func() error { return c.readAll(ctx) })
	g.Go(func() error { return c.compare(ctx) })
	return g.Wait()
}

// recall takes from the history when models were read last, as far as that can be asked: else they count as never read since they came.
func (c *clinic) recall(ctx context.Context) {
	db, err := c.d.history.Database()
	if err != nil {
		return
	}
	checks, err := db.LastChecks(ctx)
	if err != nil {
		c.d.log.Warn("what earlier checks have found is not known", "error", err.Error())
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range checks {
		p := c.chart(k.Model)
		if k.Overall == model.Healthy || k.Overall == model.Degraded { // what was not, is read again soon
			p.read[k.Commit] = k.At
		}
		p.said = worse(p.said, k.Overall)
	}
}

// worse is the worse of two conditions; "" is none.
func worse(a, b model.Condition) model.Condition {
	rank := []model.Condition{"", model.Healthy, model.Degraded, model.Uncertain, model.Corrupted}
	if slices.Index(rank, a) > slices.Index(rank, b) {
		return a
	}
	return b
}

// chart is what is known of a model. The lock is held.
func (c *clinic) chart(id model.ID) *chart {
	p := c.charts[id]
	if p == nil {
		p = &chart{read: map[string]time.Time{}, found: map[model.Digest]symptom{}}
		c.charts[id] = p
	}
	return p
}

// hear has models looked at that change, until ctx ends.
func (c *clinic) hear(ctx context.Context) error {
	for {
		changes, err := c.d.bus.Subscribe(event.Want{Filter: func(e event.Event) bool {
			change, ok := e.Data.(event.Change)
			return ok && change.To == model.Completed || e.Kind == event.KindStored || e.Kind == event.KindTier
		}})
		if err != nil {
			return nil //nolint:nilerr // the daemon is going
		}
		for err == nil {
			var some []event.Event
			some, err = changes.Next(ctx)
			for _, e := range some {
				c.touched(e.Model)
			}
		}
		changes.Close()
		if !errors.Is(err, event.ErrSlow) { // that only means that very much happened
			return nil
		}
		c.touched(model.ID{})
	}
}

// touched has a model looked at soon, or all when it is zero.
func (c *clinic) touched(id model.ID) {
	c.due(id, time.Now().Add(settles))
}

// due has a model looked at then, unless that is to be before.
func (c *clinic) due(id model.ID, at time.Time) {
	c.mu.Lock()
	was, waits := c.changed[id]
	if !waits || at.Before(was) {
		c.changed[id] = at
	}
	c.mu.Unlock()
	if !waits || at.Before(was) {
		nudge(c.wake)
	}
}

// nudge leaves a sign in a channel that holds one.
func nudge(sign chan struct{}) {
	select {
	case sign <- struct{}{}:
	default:
	}
}

// look looks at models: at all from time to time, at others when they have changed.
func (c *clinic) look(ctx context.Context) error {
	for {
		interval := c.settings().CheckIntervalHours.Duration()
		now := time.Now()
		c.mu.Lock()
		due := c.swept.Add(interval)
		if at, ok := c.changed[model.ID{}]; ok && at.Before(due) {
			due = at
		}
		all := !due.After(now)
		var some []model.ID
		for id, at := range c.changed {
			switch {
			case all || id.IsZero():
			case !at.After(now):
				some = append(some, id)
				delete(c.changed, id)
			case at.Before(due):
				due = at
			}
		}
		if all {
			clear(c.changed)
		}
		c.mu.Unlock()
		switch {
		case all:
			if err := c.lookAtAll(ctx); err != nil {
				return nil //nolint:nilerr // ctx has ended
			}
		case len(some) > 0:
			for _, id := range some {
				c.lookAt(id)
			}
		default:
			if !wait(ctx, due.Sub(now), c.wake) {
				return nil
			}
		}
	}
}

// wait waits for a sign, for d at most; false when ctx has ended.
func wait(ctx context.Context, d time.Duration, sign <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-sign:
	}
	return true
}

func (c *clinic) settings() config.Health { return c.d.settingsNow().Health }

// lookAtAll looks at all models; it fails when ctx ends.
func (c *clinic) lookAtAll(ctx context.Context) error {
	models, err := c.d.line.Store.Models(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		c.d.log.Warn("models not checked", "error", err.Error())
	}
	here, busy := map[model.ID]bool{}, c.busy()
	for _, m := range models {
		here[m.ID] = true
		c.judge(m, busy)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.swept = time.Now()
	if err == nil {
		maps.DeleteFunc(c.charts, func(id model.ID, _ *chart) bool { return !here[id] })
	}
	nudge(c.reading)
	return nil
}

// lookAt looks at one model.
func (c *clinic) lookAt(id model.ID) {
	m, err := c.d.line.Store.Model(id)
	if model.ClassOf(err) == model.NotFound {
		c.mu.Lock()
		delete(c.charts, id)
		c.mu.Unlock()
		return
	}
	if err == nil {
		c.judge(m, c.busy())
		nudge(c.reading)
	}
}

// busy are the models that are being changed, so that how they are now says little; those that are repaired are none of them.
func (c *clinic) busy() map[model.ID]bool {
	waits := c.d.waits()
	for id := range c.d.repairs.under() {
		delete(waits, id)
	}
	return waits
}

// judge works out how well a model is, from how its files are now and from what reading them has told, and says so when that is
// another condition than before.
func (c *clinic) judge(m store.Model, changing map[model.ID]bool) {
	busy := changing[m.ID]
	auto, now := c.settings(), time.Now()
	c.mu.Lock()
	p := c.chart(m.ID)
	f, found := factsOf(c.d.line.Store, m, p.found, p.read)
	f.Used, f.Read = c.slowness[m.ID].Score, c.reads[m.ID]
	f.Interval, f.Failure, f.Now = auto.ScrubIntervalHours.Duration(), p.failure, now
	p.looked, p.size, p.judged = now, m.Size, found
	was := p.said
	p.verdict = health.Judge(shellWord(m.ID.Public()), f)
	v := p.verdict
	alarming := func(k model.Condition) bool { return k == model.Corrupted || k == model.Degraded }
	busy = busy || p.suspect // it is read now, and then it is known
	tell := !busy && v.Overall != was && (alarming(v.Overall) || alarming(was) && v.Overall == model.Healthy)
	if !busy {
		p.said = v.Overall
	}
	mend := !busy && auto.AutoRepair && v.Overall == model.Corrupted && p.mendable && (p.attempts == 0 || now.Sub(p.tried) >= again(p.attempts))
	suspect := p.suspect
	c.mu.Unlock()
	c.d.habits.told.Add(1)
	if tell {
		c.tell(m.ID, was, v)
	}
	if mend {
		if _, _, err := c.d.repairs.ask(m.ID, mendAuto); err != nil {
			c.d.log.Warn("not repaired", "model", m.ID.Public(), "error", err.Error())
		}
	}
	if suspect {
		nudge(c.reading)
	}
}

// again is after how long a repair is tried again that has failed so often.
func again(attempts int) time.Duration { return min(soonestRepair<<min(attempts-1, 10), latestRepair) }

// A judged is what factsOf has found about a model beside the facts.
type judged struct {
	commits  []string  // that are judged
	full     time.Time // the oldest of the last full checks of these; zero when one was never read
	mendable bool      // what is missing or damaged belongs to what ema has brought
	suspect  bool      // something has changed that only reading explains
}

// factsOf is how the files of a model are now, as far as can be told without reading them: found is what reading contents has told,
// and read when all of a commit was read last.
func factsOf(s *store.Store, m store.Model, found map[model.Digest]symptom, read map[string]time.Time) (health.Facts, judged) {
	f, j, never := health.Facts{Source: true}, judged{mendable: true}, false
	for _, r := range m.Revisions {
		if r.Record == nil && r.State == store.Incomplete {
			continue // another tool's, which may be at work
		}
		j.commits = append(j.commits, r.Commit)
		at := read[r.Commit]
		if r.Record != nil && r.State == store.Available && r.Record.CompletedAt.After(at) {
			at = r.Record.CompletedAt // it was proven when it came
		}
		never = never || at.IsZero()
		if j.full.IsZero() || at.Before(j.full) {
			j.full = at
		}
		for _, file := range r.Files {
			one := fileHealth(s, m, file, found)
			if len(m.Revisions) > 1 {
				one.Path += fmt.Sprintf(" (%s)", revisionName(r))
			}
			if (one.State == health.Missing || one.State == health.Damaged) && r.Record == nil {
				j.mendable = false
			}
			j.suspect = j.suspect || one.State == health.Changed
			f.Files = append(f.Files, one)
		}
		if r.Record != nil && !strings.Contains(r.Record.Source, "://") {
			f.Source = false
		}
		if r.Record != nil {
			for _, q := range r.Record.Quarantined {
				f.Aside = append(f.Aside, q.Path+": "+q.Why)
			}
		}
	}
	if never {
		j.full = time.Time{}
	}
	f.Checked = j.full
	return f, j
}

// fileHealth is one file of a model, as far as can be told without reading it now.
func fileHealth(s *store.Store, m store.Model, file store.FileState, found map[model.Digest]symptom) health.File {
	f := health.File{Path: file.Path, Size: model.Bytes(file.Size), State: health.OK}
	odd, known := found[file.Digest]
	switch file.State {
	case store.Incomplete:
		f.State = health.Missing
		if m.Away != "" {
			f.State, f.Notes = health.Unreadable, []string{fmt.Sprintf("a part of the model lies in the %s tier, which is not there", m.Away)}
		}
		return f
	case store.Damaged:
		blob, err := s.Blob(m.ID, file.Digest)
		switch {
		case err != nil || blob.Size != file.Size:
			f.State = health.Damaged
			return f
		case !known || !touchedAt(blob.Path).Equal(odd.touched):
			f.State = health.Changed
			return f
		}
	default:
		if file.Digest.IsZero() {
			f.State = health.Unknown
		}
	}
	if known {
		f.State, f.Damaged, f.Notes = odd.state, odd.damaged, odd.notes
	}
	return f
}

// touchedAt is a file's time of modification; zero when that cannot be told.
func touchedAt(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// tell says to all who want to know that a model is no longer as it was.
func (c *clinic) tell(id model.ID, was model.Condition, v health.Verdict) {
	e := event.Health{From: was, To: v.Overall, Severity: model.Warning, Message: "it is as it should be again"}
	if was == "" {
		e.From = model.Uncertain
	}
	switch v.Overall {
	case model.Corrupted:
		e.Severity = model.Critical
	case model.Healthy:
		e.Severity = model.Info
	}
	if len(v.Issues) > 0 {
		e.Message = v.Issues[0]
	}
	if len(v.Recommendations) > 0 {
		e.Advice = v.Recommendations[0]
	}
	c.d.bus.Tell(event.Event{Kind: event.KindHealth, Model: id, Data: e})
	c.d.incident(e.Severity, "model_health_alert", id, e.Message)
	c.d.metrics.HealthAlert(e.Severity)
	say := c.d.log.Warn
	if v.Overall == model.Healthy {
		say = c.d.log.Info
	}
	say("model health", "model", id.Public(), "is", v.Overall, "message", e.Message, "advice", e.Advice)
	if hook := c.d.settingsNow().Monitoring.AlertWebhook; hook != "" {
		c.d.webhooks.Send(hook, map[string]any{
			"type": "model_health_alert", "model_id": id.Public(), "alert_type": v.Overall, "severity": e.Severity, "message": e.Message,
			"recommended_action": e.Advice, "timestamp": time.Now().UTC(),
		})
	}
}

// examined takes in what a check of one commit has found that read its bytes. took is how long that was.
func (c *clinic) examined(id model.ID, commit, kind string, report *pipeline.Report, took time.Duration) {
	now := time.Now().UTC()
	check := model.HealthCheck{Model: id, Commit: commit, At: now, Kind: kind, Files: len(report.Files), Duration: took}
	c.mu.Lock()
	p := c.chart(id)
	whole := true
	for _, f := range report.Files {
		d := f.Digest()
		found := symptom{state: f.State, notes: f.Notes}
		for _, s := range f.Damaged {
			found.damaged += model.Bytes(s.Len())
		}
		if blob, err := c.d.line.Store.Blob(id, d); err == nil {
			found.touched = touchedAt(blob.Path)
		}
		switch {
		case f.State == pipeline.FileMissing || d.IsZero():
			whole = whole && f.State != pipeline.FileMissing && f.State != pipeline.FileDamaged
		case f.State == pipeline.FileOK && len(f.Notes) == 0:
			delete(p.found, d)
		default:
			p.found[d] = found
			whole = whole && f.State == pipeline.FileOK
		}
		check.Bytes += f.Size
	}
	if whole {
		p.read[commit] = now
	}
	if took > 0 && kind == fullCheck {
		c.rate = float64(check.Bytes) / took.Seconds()
	}
	if kind == repairCheck {
		p.failure, p.attempts = "", 0
	}
	c.mu.Unlock()
	c.lookAt(id)
	c.mu.Lock()
	v := c.chart(id).verdict
	c.mu.Unlock()
	check.Overall, check.Health, check.Integrity, check.Performance, check.Issues = v.Overall, v.Health, v.Integrity, v.Performance, v.Issues
	c.d.history.Tell(ledger.Batch{Checks: []model.HealthCheck{check}})
}

// mended takes in what a repair of one commit has done; it is told before is right again, or err.
func (c *clinic) mended(id model.ID, commit string, before *pipeline.Report, res *pipeline.Result, took time.Duration, err error) {
	c.mu.Lock()
	p := c.chart(id)
	if err != nil {
		p.failure, p.tried = err.Error(), time.Now()
		if e, ok := errors.AsType[*model.Error](err); ok && e.Err != nil {
			p.failure = e.Err.Error()
		}
		p.attempts++
		defer c.due(id, p.tried.Add(again(p.attempts))) // then it is tried again
	} else if res != nil && p.repair != nil && p.repair.State == client.TaskRunning {
		p.repair.Actions = append(p.repair.Actions, res.Actions...)
	}
	c.mu.Unlock()
	if err != nil {
		c.lookAt(id)
		return
	}
	c.examined(id, commit, repairCheck, before.Mended(), took)
}

// count is how many models are how well.
func (c *clinic) count() map[model.Condition]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := map[model.Condition]int{}
	for _, p := range c.charts {
		if !p.looked.IsZero() {
			in[p.verdict.Overall]++
		}
	}
	return in
}

// well is how a model was found last, for answers about all models.
func (c *clinic) well(id model.ID) snapshot.Wellbeing {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := snapshot.Wellbeing{Performance: -1, Average: -1}
	p := c.charts[id]
	if p == nil || p.looked.IsZero() {
		return w
	}
	w.Checked = p.looked.UTC()
	if s := p.verdict.Performance; s != nil {
		w.Performance = *s
	}
	if t := c.slowness[id]; t.Lately != nil {
		w.Average = *t.Lately
	}
	return w
}

// compare asks from time to time how fast users find the models, and how fast they were read, until ctx ends.
func (c *clinic) compare(ctx context.Context) error {
	for {
		if db, err := c.d.history.Database(); err == nil {
			if err := c.compareNow(ctx, db, time.Now()); err != nil && ctx.Err() == nil {
				c.d.log.Warn("how fast models are is not known", "error", err.Error())
			}
		}
		if pause(ctx, comparing) != nil {
			return nil
		}
	}
}

// compareNow asks that once.
func (c *clinic) compareNow(ctx context.Context, db *ledger.Ledger, now time.Time) error {
	used, err := performances(ctx, db, now)
	if err != nil {
		return err
	}
	checks, err := db.FullReads(ctx, now.Add(-readsCompared))
	if err != nil {
		return err
	}
	reads := map[model.ID][]insight.Read{}
	for _, h := range checks {
		reads[h.Model] = append(reads[h.Model], insight.Read{Bytes: h.Bytes, Took: h.Duration})
	}
	scores := make(map[model.ID]*float64, len(reads))
	for id, all := range reads {
		scores[id] = insight.ReadSpeed(all)
	}
	c.mu.Lock()
	c.slowness, c.reads = used, scores
	c.mu.Unlock()
	for id := range used {
		c.touched(id)
	}
	for id := range scores {
		c.touched(id)
	}
	return nil
}

// Health is how well some models are, or all.
func (c *clinic) Health(_ context.Context, ids []model.ID) client.ModelsHealth {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := client.ModelsHealth{Models: map[string]client.ModelHealth{}}
	var scored, size float64
	for id, p := range c.charts {
		if p.looked.IsZero() {
			continue
		}
		switch p.verdict.Overall {
		case model.Healthy:
			h.System.Healthy++
		case model.Degraded:
			h.System.Degraded++
		case model.Corrupted:
			h.System.Corrupted++
		default:
			h.System.Unknown++
		}
		if s := p.verdict.Health; s != nil {
			weight := max(float64(p.size), 1)
			scored, size = scored+*s*weight, size+weight
		}
		if ids == nil || slices.Contains(ids, id) {
			h.Models[id.Public()] = p.tell(id)
		}
	}
	if size > 0 {
		h.System.OverallScore = new(scored / size)
	}
	if !c.swept.IsZero() {
		h.System.LastCheck = new(c.swept.UTC())
	}
	return h
}

// tell is p as answers have it. The clinic's lock is held.
func (p *chart) tell(id model.ID) client.ModelHealth {
	v := p.verdict
	h := client.ModelHealth{
		Model: id.Public(), Overall: string(v.Overall), HealthScore: v.Health, Integrity: v.Integrity, Performance: v.Performance,
		LastCheck: new(p.looked.UTC()), Issues: append([]string{}, v.Issues...), Recommendations: append([]string{}, v.Recommendations...),
	}
	if !p.full.IsZero() {
		h.LastFullCheck = new(p.full.UTC())
		if p.full.After(p.looked) {
			h.LastCheck = h.LastFullCheck
		}
	}
	for task, to := range map[*client.HealthTask]**client.HealthTask{p.check: &h.Check, p.repair: &h.Repair} {
		if task != nil {
			one := *task
			one.Actions = append([]string{}, one.Actions...)
			*to = &one
		}
	}
	return h
}

// History is the checks of a model that are remembered, the newest first.
func (c *clinic) History(ctx context.Context, id model.ID, most int) ([]model.HealthCheck, error) {
	if err := c.d.history.Flush(ctx); err != nil {
		return nil, err
	}
	db, err := c.d.history.Database()
	if err != nil {
		return nil, err
	}
	return db.Checks(ctx, id, most)
}

// Check begins a check of a model that somebody asks for, and returns how it stands. A full check that is not old is answered with
// that one, unless it is forced.
func (c *clinic) Check(_ context.Context, id model.ID, kind string, force bool) (client.HealthTask, error) {
	m, err := c.d.line.Store.Model(id)
	if err != nil {
		return client.HealthTask{}, named("check", err)
	}
	if len(m.Revisions) == 0 {
		return client.HealthTask{}, notWhole("check", id)
	}
	now := time.Now().UTC()
	if kind == "performance" { // it is known from what users tell: nothing has to be read
		c.judge(m, c.busy())
		return client.HealthTask{ID: rand.Text(), Kind: kind, State: client.TaskDone, Begun: &now, Ended: &now, Percent: 100, Actions: []string{}, Estimate: &now}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.chart(id)
	if t := p.check; t != nil && (t.State == client.TaskWaiting || t.State == client.TaskRunning) {
		return *t, nil
	}
	if t := p.check; !force && t != nil && t.State == client.TaskDone && now.Sub(*t.Ended) < fresh && !p.suspect {
		return *t, nil
	}
	if len(c.asked) >= mostChecks {
		return client.HealthTask{}, &model.Error{Op: "check", Class: model.RateLimited, Model: id, Err: errors.New("too many models wait to be checked already"), Hint: "try again later"}
	}
	ahead := m.Size
	for _, r := range c.asked {
		ahead += c.chart(r.id).size
	}
	p.check = &client.HealthTask{ID: rand.Text(), Kind: cmp.Or(kind, fullCheck), State: client.TaskWaiting, Actions: []string{}, Estimate: c.estimate(now, ahead)}
	c.asked = append(c.asked, &reading{id: id, kind: fullCheck, task: p.check})
	nudge(c.reading)
	return *p.check, nil
}

// estimate is when so much will have been read; nil while nobody can tell. The lock is held.
func (c *clinic) estimate(now time.Time, n model.Bytes) *time.Time {
	if c.rate <= 0 {
		return nil
	}
	return new(now.Add(time.Duration(float64(n) / c.rate * float64(time.Second))))
}

// Repair begins the repair of a model that somebody asks for, and returns how it stands.
func (c *clinic) Repair(_ context.Context, id model.ID, kind string) (client.HealthTask, error) {
	t, _, err := c.d.repairs.ask(id, kind)
	return t, err
}
