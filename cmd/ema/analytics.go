package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"ema/client"
	"ema/internal/api/snapshot"
	"ema/internal/insight"
	"ema/internal/ledger"
	"ema/internal/model"
	"ema/internal/tier"
)

// An analyst draws conclusions from how models were used, as the database with the uses tells.
//
// An answer is kept until more records are written, and then for a second at most: while uses come all the time, as many who ask cost
// as much as one.
type analyst struct {
	d *daemon

	mu   sync.Mutex
	kept map[string]*told
}

// A told is an answer that was made, or is being made.
type told struct {
	made   chan struct{} // closed when it is
	answer any
	err    error
	begun  time.Time
	known  uint64 // records that were told then
}

const (
	// toldAge is how old an answer may be to which something was told since.
	toldAge = time.Second
	// mostTold is how many answers are kept.
	mostTold = 64
)

// once returns the answer to a question that is kept, or makes it: once for all who ask meanwhile.
func once[T any](ctx context.Context, a *analyst, question string, answer func(context.Context) (T, error)) (T, error) {
	state := a.d.history.State()
	known := state.Written + state.Dropped + state.Refused + uint64(state.Waiting)
	a.mu.Lock()
	t := a.kept[question]
	if t == nil || t.known != known && time.Since(t.begun) > toldAge {
		t = &told{made: make(chan struct{}), begun: time.Now(), known: known}
		if a.kept == nil || len(a.kept) >= mostTold {
			a.kept = map[string]*told{}
		}
		a.kept[question] = t
		a.mu.Unlock()
		made, err := answer(ctx)
		t.answer, t.err = made, err
		if err != nil { // it is asked again by the next one
			a.mu.Lock()
			delete(a.kept, question)
			a.mu.Unlock()
		}
		close(t.made)
		return made, err
	}
	a.mu.Unlock()
	select {
	case <-t.made:
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
	if t.err != nil && ctx.Err() == nil { // whoever made it may have gone
		return answer(ctx)
	}
	made, _ := t.answer.(T)
	return made, t.err
}

// database is the one with the uses, when all that was told is in it.
func (a *analyst) database(ctx context.Context) (*ledger.Ledger, error) { return a.d.past(ctx) }

// past is the database of the history, with all in it that was told. It fails with class Busy while that is away.
func (d *daemon) past(ctx context.Context) (*ledger.Ledger, error) {
	db, err := d.history.Database()
	if err == nil {
		err = d.history.Flush(ctx)
	}
	if err != nil && ctx.Err() == nil {
		return nil, &model.Error{
			Op: "read the history", Class: model.Busy, After: 5 * time.Second, Err: fmt.Errorf("its database cannot be used now: %w", err),
			Hint: `uses are kept until it can; "ema db check" says more`,
		}
	}
	return db, err
}

// Usage tells of the most used models of a question; see the API.
func (a *analyst) Usage(ctx context.Context, q ledger.UsageQuestion, limit, offset int) (client.Analytics, error) {
	db, err := a.database(ctx)
	if err != nil {
		return client.Analytics{}, err
	}
	if len(q.Models) == 1 { // which must be here, or have been used
		if _, err := a.d.line.Store.Model(q.Models[0]); err != nil {
			sums, other := db.UsageSums(ctx, ledger.UsageQuestion{First: q.First, Last: q.Last, Zone: q.Zone, Models: q.Models})
			if other == nil && len(sums) == 0 {
				return client.Analytics{}, named("see the uses", err)
			}
		}
	}
	question := fmt.Sprint("usage", q.First, q.Last, q.Zone, q.Models, q.Daily, limit, offset)
	return once(ctx, a, question, func(ctx context.Context) (client.Analytics, error) { return usageOf(ctx, db, q, limit, offset) })
}

// usageOf tells of the most used models of a question, after leaving out offset of them at most limit, and sums up all.
func usageOf(ctx context.Context, db *ledger.Ledger, q ledger.UsageQuestion, limit, offset int) (client.Analytics, error) {
	all := client.Analytics{Models: map[string]client.ModelAnalytics{}}
	sums, err := db.UsageSums(ctx, q)
	if err != nil {
		return all, err
	}
	slices.SortStableFunc(sums, func(a, b ledger.UsageSum) int { return cmp.Compare(b.Times, a.Times) }) // of equal ones by name
	all.Summary = summedUp(sums, q)
	page := q
	page.Models = nil
	for _, s := range sums[min(offset, len(sums)):min(offset+limit, len(sums))] {
		page.Models = append(page.Models, s.Model)
	}
	if len(q.Models) > 0 {
		page.Models = q.Models // also without uses
	}
	told, err := db.UsageOf(ctx, page)
	if err != nil {
		return all, err
	}
	days := float64(q.First.Until(q.Last) + 1)
	for _, m := range told {
		one := client.ModelAnalytics{
			Model: m.Model.Public(), Uses: m.Times, Failures: m.Failures, PerDay: float64(m.Times) / days, AverageTime: average(m.Quarter), SuccessRate: success(m.Quarter),
			Days: make([]client.UsageDay, len(m.Days)), Peaks: append([]int{}, insight.Peaks(m.Hours)...), Hours: m.Hours[:],
		}
		for i, d := range m.Days {
			one.Days[i] = client.UsageDay{Date: d.Date.String(), Uses: d.Times, AverageTime: average(d.Quarter)}
		}
		all.Models[one.Model] = one
	}
	return all, nil
}

// summedUp sums up models that are ordered by their uses, the most used first.
func summedUp(sums []ledger.UsageSum, q ledger.UsageQuestion) client.AnalyticsSummary {
	s := client.AnalyticsSummary{Models: len(sums), From: q.First.String(), To: q.Last.String(), Zone: q.Zone.String()}
	var all ledger.Quarter
	for _, m := range sums {
		all.Times += m.Times
		all.Failures += m.Failures
	}
	s.Uses, s.SuccessRate = all.Times, success(all)
	if len(sums) > 0 {
		s.Most, s.Least = new(sums[0].Model.Public()), new(sums[len(sums)-1].Model.Public())
	}
	return s
}

// success is which part of some uses succeeded; nil without any.
func success(q ledger.Quarter) *float64 {
	if q.Times == 0 {
		return nil
	}
	return new(float64(q.Times-q.Failures) / float64(q.Times))
}

// average is how many seconds some uses took, of those whose duration is known; nil without any.
func average(q ledger.Quarter) *float64 { return seconds(spanOf(q).Mean()) }

func spanOf(q ledger.Quarter) insight.Span {
	return insight.Span{Timed: q.Timed, Total: time.Duration(min(q.Duration, int64(1<<53))) * time.Microsecond}
}

func seconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	return new(d.Seconds())
}

// Cleanup is what could go; see the API.
func (a *analyst) Cleanup(ctx context.Context, most model.Bytes, minUnused *time.Duration) (client.CleanupAdvice, error) {
	advice := client.CleanupAdvice{Recommendations: []client.CleanupRecommendation{}}
	stock, err := a.d.takeStock(ctx, "")
	if err != nil {
		return advice, err
	}
	var held model.Bytes
	for _, s := range stock {
		held += s.Size
	}
	w := wish(a.d.settingsNow(), a.d.habits.knownSince())
	if minUnused != nil {
		w.MinUnused = *minUnused
	}
	target := held
	if most > 0 {
		if w.Free = held - most; w.Free <= 0 {
			advice.CurrentGB, advice.TargetGB = gib(uint64(held)), gib(uint64(most))
			return advice, nil
		}
		target = most
	}
	plan := tier.Advise(time.Now(), stock, a.d.habits.uses, w)
	if most == 0 {
		target -= plan.Free
	}
	advice.SavingsGB, advice.CurrentGB, advice.TargetGB = gib(uint64(plan.Free)), gib(uint64(held)), gib(uint64(target))
	told := snapshot.Suggest(plan).Candidates
	for i, s := range plan.Suggestions {
		c := told[i]
		advice.Recommendations = append(advice.Recommendations, client.CleanupRecommendation{
			Model: c.Model, Reason: c.Reason, LastUsed: c.LastUsed, SizeMB: float64(c.SizeBytes) / float64(model.MiB), Uses: s.Uses, Confidence: s.Confidence, Action: c.Action,
		})
	}
	return advice, nil
}

// How far performance looks back, in days: lately, and before that.
const (
	latelyDays = 7
	beforeDays = 30
)

// performances are those of all models with known durations, as a database tells.
func performances(ctx context.Context, db *ledger.Ledger, now time.Time) (map[model.ID]client.PerformanceTrend, error) {
	today := ledger.DateOf(now)
	sums := func(first, last ledger.Date) (map[model.ID]insight.Span, error) {
		all, err := db.UsageSums(ctx, ledger.UsageQuestion{First: first, Last: last, Zone: now.Location()})
		spans := map[model.ID]insight.Span{}
		for _, s := range all {
			spans[s.Model] = spanOf(s.Quarter)
		}
		return spans, err
	}
	lately, err := sums(today.Add(1-latelyDays), today)
	if err != nil {
		return nil, err
	}
	before, err := sums(today.Add(1-latelyDays-beforeDays), today.Add(-latelyDays))
	if err != nil {
		return nil, err
	}
	month, err := sums(today.Add(1-beforeDays), today)
	if err != nil {
		return nil, err
	}
	all := map[model.ID]client.PerformanceTrend{}
	for _, spans := range []map[model.ID]insight.Span{lately, before} {
		for id := range spans {
			l, b := lately[id], before[id]
			if _, known := all[id]; known || l.Timed+b.Timed == 0 {
				continue
			}
			score, trend := insight.Performance(l, b)
			t := client.PerformanceTrend{
				Score: score, Trend: string(trend), Lately: seconds(l.Mean()), Month: seconds(month[id].Mean()), Issues: []string{}, Recommendations: []string{},
			}
			if trend == insight.Degrading {
				t.Issues = append(t.Issues, fmt.Sprintf("uses take %.1f times as long as in the %d days before", 1 / *score, beforeDays))
			}
			all[id] = t
		}
	}
	return all, nil
}

// Performance is whether models became faster or slower; see the API.
func (a *analyst) Performance(ctx context.Context) (client.PerformanceTrends, error) {
	trends := client.PerformanceTrends{Models: map[string]client.PerformanceTrend{}}
	db, err := a.database(ctx)
	if err != nil {
		return trends, err
	}
	return once(ctx, a, "performance", func(ctx context.Context) (client.PerformanceTrends, error) { return a.performance(ctx, db, trends) })
}

// performance works out what Performance tells.
func (a *analyst) performance(ctx context.Context, db *ledger.Ledger, trends client.PerformanceTrends) (client.PerformanceTrends, error) {
	now := time.Now()
	all, err := performances(ctx, db, now)
	if err != nil {
		return trends, err
	}
	var scored, sum float64
	for id, t := range all {
		if t.Score != nil {
			scored, sum = scored+1, sum+*t.Score
		}
		if t.Trend == client.TrendDegrading {
			if m, err := a.d.line.Store.Model(id); err == nil && snapshot.Mostly(m.Tiers) != model.Hot {
				t.Recommendations = append(t.Recommendations, fmt.Sprintf("it lies in the %s tier: ema tier move %s hot", snapshot.Mostly(m.Tiers), shellWord(id.Public())))
			} else {
				t.Recommendations = append(t.Recommendations, "see whether memory, disk or processors are busy: GET /api/v1/admin/resources")
			}
		}
		trends.Models[id.Public()] = t
	}
	if scored > 0 {
		trends.System.Overall = new(sum / scored)
	}
	since := now.AddDate(0, 0, -beforeDays)
	trends.System.Since = ledger.DateOf(since).String()
	if err := a.downloads(ctx, since, &trends.System); err != nil {
		return trends, err
	}
	checks, err := db.Checks(ctx, model.ID{}, mostChecks)
	var well, full float64
	for _, c := range checks {
		if c.Kind == fullCheck || c.Kind == scrubCheck {
			if full++; c.Overall == model.Healthy || c.Overall == model.Degraded {
				well++
			}
		}
	}
	if full > 0 {
		trends.System.HealthSuccess = new(well / full)
	}
	return trends, err
}

// mostHistory is how many downloads of the past are looked at.
const mostHistory = 10_000

// downloads adds how downloads went since then.
func (a *analyst) downloads(ctx context.Context, since time.Time, s *client.SystemPerformance) error {
	history, err := a.d.ledger.History(ctx, mostHistory, 0)
	if err != nil {
		return err
	}
	var over, good, took float64
	var size model.Bytes
	for _, d := range history {
		if d.Ended.Before(since) || d.State != model.Completed && d.State != model.Failed {
			continue
		}
		if over++; d.State == model.Completed {
			good++
			if t := d.Ended.Sub(d.Started).Seconds(); !d.Started.IsZero() && t > 0 {
				took, size = took+t, size+d.Size
			}
		}
	}
	if over > 0 {
		s.Downloads = new(good / over)
	}
	if took > 0 {
		s.DownloadMBps = new(float64(size) / float64(model.MiB) / took)
	}
	return nil
}

// hoursAhead is how far suggestions to preload look.
const hoursAhead = 3

// Preload is which models should be brought near; see the API.
func (a *analyst) Preload(ctx context.Context, zone *time.Location) (client.PreloadAdvice, error) {
	advice := client.PreloadAdvice{Suggestions: []client.PreloadSuggestion{}, Zone: zone.String()}
	db, err := a.database(ctx)
	if err != nil {
		return advice, err
	}
	return once(ctx, a, "preload "+zone.String(), func(ctx context.Context) (client.PreloadAdvice, error) { return a.preload(ctx, db, zone, advice) })
}

// preload works out what Preload tells.
func (a *analyst) preload(ctx context.Context, db *ledger.Ledger, zone *time.Location, advice client.PreloadAdvice) (client.PreloadAdvice, error) {
	models, err := a.d.line.Store.Models(ctx)
	if err != nil {
		return advice, err
	}
	inMemory, err := a.d.cache.Look(ctx)
	if err != nil {
		return advice, err
	}
	now := time.Now().In(zone)
	q := ledger.UsageQuestion{First: ledger.DateOf(now).Add(1 - beforeDays), Last: ledger.DateOf(now), Zone: zone}
	days := beforeDays
	if known := ledger.DateOf(a.d.habits.knownSince().In(zone)); known.Compare(q.First) > 0 {
		days = known.Until(q.Last) + 1
	}
	habits := map[model.ID]*insight.Habit{}
	for _, m := range models {
		if m.Size == 0 {
			continue
		}
		h := &insight.Habit{Model: m.ID, Days: float64(days), Size: m.Size, Tier: snapshot.Mostly(m.Tiers)}
		for _, r := range inMemory {
			h.Near = h.Near || r.Model == m.ID && r.Resident >= m.Size/2
		}
		habits[m.ID] = h
		q.Models = append(q.Models, m.ID)
	}
	used, err := db.UsageOf(ctx, q)
	if err != nil {
		return advice, err
	}
	var all []insight.Habit
	for _, u := range used {
		h := habits[u.Model]
		h.Hours = u.Hours
		all = append(all, *h)
	}
	for _, s := range insight.Preload(all, now.Hour(), hoursAhead) {
		one := client.PreloadSuggestion{
			Model: s.Model.Public(), Hour: s.Hour, Expected: s.Expected, Confidence: s.Confidence, SizeMB: float64(s.Size) / float64(model.MiB), Tier: string(s.Tier),
			Action: "read it into memory: cache_optimization.model_cache keeps there what is used",
			Reason: fmt.Sprintf("it is used %.1f times between %d and %d o'clock on average", s.Expected, now.Hour(), (now.Hour()+hoursAhead)%24),
		}
		if s.Tier != model.Hot {
			one.Action = "bring it to the hot tier: ema tier move " + shellWord(one.Model) + " hot"
		}
		advice.Suggestions = append(advice.Suggestions, one)
	}
	return advice, nil
}
