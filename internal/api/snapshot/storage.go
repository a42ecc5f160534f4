package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"ema/client"
	"ema/internal/model"
	"ema/internal/store"
)

const (
	measureEvery = time.Second    // free space changes without a word
	planEvery    = time.Minute    // garbage grows old without a word
	leftAlone    = 24 * time.Hour // what is younger is not called garbage, as by "ema gc"
)

// A report is the answer about storage, and what it is made of. It is never changed once others can see it.
type report struct {
	answer
	held              uint64 // the number of the store's facts in it; 0 keeps it for nobody
	measured, planned time.Duration
	cleanup           client.CleanupSuggestions
}

// knows reports whether t answers a request that comes now, when the store's facts are those of p.
func (t *report) knows(p *page, now time.Duration) bool {
	return t != nil && p.held != 0 && t.held >= p.held && now-t.measured < measureEvery
}

// plans reports whether the store still holds what it did when t told what could go. Run follows what grows old.
func (t *report) plans(p *page) bool { return t != nil && p.held != 0 && t.held == p.held }

// ServeStorage answers what models take, where, and what could go. What the tiers have, and how far moves are, is at most a
// second old, and what has grown old enough to go appears within a minute.
func (m *Models) ServeStorage(w http.ResponseWriter, r *http.Request) {
	t, err := m.stock(r.Context())
	if err != nil {
		m.set.Refuse(w, r, err)
		return
	}
	t.serve(w, r)
}

// stock is the report that answers a request which comes now.
func (m *Models) stock(ctx context.Context) (*report, error) {
	if !m.storage.asked.Load() { // who only reads it disturbs no other processor
		m.storage.asked.Store(true)
	}
	p, err := m.current(ctx)
	if err != nil {
		return nil, err
	}
	now := m.now()
	if t := m.storage.newest.Load(); t.knows(p, now) {
		return t, nil
	}
	select {
	case m.storage.flight <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-m.storage.flight }()
	old := m.storage.newest.Load()
	if old.knows(p, now) {
		return old, nil
	}
	t, err := m.report(context.WithoutCancel(ctx), p, old) // others wait for it too
	if err != nil {
		return nil, err
	}
	m.storage.newest.Store(t)
	return t, nil
}

// report makes a report about the models in p. What could go stands in old, unless the store has changed since.
func (m *Models) report(ctx context.Context, p *page, old *report) (*report, error) {
	t := &report{held: p.held, measured: m.now()}
	tiers, err := m.set.Tiers()
	if err != nil {
		return nil, err
	}
	if old.plans(p) {
		t.cleanup, t.planned = old.cleanup, old.planned
	} else if t.cleanup, t.planned, err = m.plan(ctx); err != nil {
		return nil, err
	}
	return t, m.write(t, p, tiers, old)
}

// plan is what could go now.
func (m *Models) plan(ctx context.Context) (client.CleanupSuggestions, time.Duration, error) {
	at := m.now()
	if m.set.Advise != nil {
		advice, err := m.set.Advise(ctx)
		return advice, at, err
	}
	plan, err := m.set.Store.PlanCollect(leftAlone, time.Now())
	return suggest(plan), at, err
}

// replan renews what could go when somebody has asked and it may have become more with time. Whoever asks meanwhile gets
// the report before.
func (m *Models) replan(ctx context.Context) {
	old := m.storage.newest.Load()
	if old == nil || old.held == 0 || m.now()-old.planned < planEvery || !m.storage.asked.Swap(false) {
		return
	}
	cleanup, planned, err := m.plan(ctx)
	if err != nil {
		return // what was planned is true, though perhaps not all; the next look tries again
	}
	tiers, err := m.set.Tiers()
	if err != nil {
		return
	}
	select {
	case m.storage.flight <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-m.storage.flight }()
	newest, p := m.storage.newest.Load(), m.page.Load()
	if newest.held != old.held || p.held != old.held {
		return // the store has changed meanwhile: whoever asks plans anew
	}
	t := &report{held: old.held, measured: m.now(), planned: planned, cleanup: cleanup}
	if m.write(t, p, tiers, newest) == nil {
		m.storage.newest.Store(t)
	}
}

// write encodes t about the models in p. When that gives the bytes of old, they keep their tag.
func (m *Models) write(t *report, p *page, tiers []Tier, old *report) error {
	answer := tally(p, tiers, t.cleanup)
	if m.set.Moves != nil {
		answer.Moves = append(answer.Moves, m.set.Moves()...)
	}
	body, err := encode(answer)
	if err != nil {
		return err
	}
	body, err = stocked(body, p)
	if err != nil {
		return err
	}
	if old != nil && bytes.Equal(old.body, body) {
		t.answer = old.answer
	} else {
		t.answer = m.seal(body)
	}
	return nil
}

// stocked is an encoded answer with the models of p in it, the largest first.
func stocked(body []byte, p *page) ([]byte, error) {
	before, after, found := bytes.Cut(body, []byte(noModels))
	if !found {
		return nil, fmt.Errorf("the answer about storage has no place for models: %.100s", body)
	}
	all, size := make([]*fragment, 0, len(p.fragments)), len(body)
	for _, f := range p.fragments {
		if f.stock != nil {
			all, size = append(all, f), size+len(f.stock)+1
		}
	}
	slices.SortStableFunc(all, func(a, b *fragment) int { return cmp.Compare(b.facts.holding.stored, a.facts.holding.stored) })
	whole := append(make([]byte, 0, size), before...)
	whole = append(whole, noModels[:len(noModels)-1]...)
	for i, f := range all {
		if i > 0 {
			whole = append(whole, ',')
		}
		whole = append(whole, f.stock...)
	}
	return append(append(whole, ']'), after...), nil
}

// noModels is where the models of an answer about storage belong.
const noModels = `"models_storage":[]`

// stock is what the answer about storage tells of one model that is here.
func (f facts) stock() client.ModelStorage {
	h := f.holding
	s := client.ModelStorage{Model: f.name, SizeGB: gb(h.stored), SizeBytes: int64(h.stored), Tier: string(h.tier), Pinned: f.pinned}
	s.LastAccessed, s.UsageFrequency = f.use()
	if len(h.tiers) > 1 {
		s.TierBytes = make(map[string]int64, len(h.tiers))
		for t, n := range h.tiers {
			s.TierBytes[string(t)] = int64(n)
		}
	}
	return s
}

// tally is the answer about storage, but for the models.
func tally(p *page, tiers []Tier, cleanup client.CleanupSuggestions) client.Storage {
	s := client.Storage{Models: []client.ModelStorage{}, Tiers: []client.TierStorage{}, Moves: []client.ModelMove{}, Cleanup: cleanup}
	var stored model.Bytes
	models, held, count := 0, map[model.Tier]model.Bytes{}, map[model.Tier]int{}
	for _, f := range p.fragments {
		h := f.facts.holding
		if h == nil {
			continue
		}
		models++
		stored += h.stored
		count[h.tier]++
		for t, n := range h.tiers {
			held[t] += n
		}
	}
	var all Volume // each file system once
	seen := map[uint64]bool{}
	for _, t := range tiers {
		if !seen[t.Device] {
			all.Total, all.Used, all.Available, all.Reserve = all.Total+t.Total, all.Used+t.Used, all.Available+t.Available, all.Reserve+t.Reserve
		}
		seen[t.Device] = t.Device != 0
		s.Tiers = append(s.Tiers, t.Tell(held[t.Tier], count[t.Tier]))
	}
	s.Summary = client.StorageSummary{
		CapacityGB: gb(all.Total), UsedGB: gb(all.Used), AvailableGB: gb(all.Available), UsagePercent: all.usage(),
		Models: models, ModelsGB: gb(stored), ReserveGB: gb(all.Reserve),
	}
	return s
}

// usage is how full a volume is, in percent of what ordinary users can have: what is kept for the system counts for nobody,
// as with df.
func (v Volume) usage() float64 {
	if theirs := v.Used + v.Available; theirs > 0 {
		return 100 * float64(v.Used) / float64(theirs)
	}
	return 0
}

// Tell is the answer about a tier in which so many models take so much. Where it is bounded below its file system, the bound
// counts.
func (t Tier) Tell(held model.Bytes, models int) client.TierStorage {
	s := client.TierStorage{
		Tier: string(t.Tier), Path: t.Path, State: t.State, Problem: t.Problem,
		CapacityGB: gb(t.Total), MaxSizeGB: gb(t.Max), UsedGB: gb(t.Used), AvailableGB: gb(t.Available), UsagePercent: t.usage(),
		ModelsGB: gb(held), Models: models,
	}
	if t.Max == 0 {
		return s
	}
	left := max(t.Max-held, 0)
	s.CapacityGB, s.AvailableGB = gb(min(t.Max, t.Total)), gb(min(left, t.Available))
	if t.Max < t.Total {
		s.UsagePercent = 100 * float64(held) / float64(t.Max)
	}
	if left == 0 && t.State == client.TierReady {
		s.State, s.Problem = client.TierFull, fmt.Sprintf("its models take %s, and max_size_gb of the %s tier allows %s", held, t.Tier, t.Max)
	}
	return s
}

// suggest is what a collection would do, model by model.
func suggest(plan store.Removal) client.CleanupSuggestions {
	s := client.CleanupSuggestions{SavingsGB: gb(plan.Bytes), Candidates: []client.CleanupCandidate{}}
	bytes, kinds := map[string]model.Bytes{}, map[string]map[store.Kind]int{}
	for _, d := range plan.Items {
		name := ""
		if !d.Model.IsZero() {
			name = d.Model.Public()
		}
		if kinds[name] == nil {
			kinds[name] = map[store.Kind]int{}
		}
		bytes[name] += d.Bytes
		kinds[name][d.Kind]++
	}
	for name, b := range bytes {
		s.Candidates = append(s.Candidates, client.CleanupCandidate{
			Model: name, Reason: because(kinds[name]), SizeGB: gb(b), SizeBytes: int64(b), Action: client.CleanupCollect, Confidence: new(1.0),
		})
	}
	slices.SortFunc(s.Candidates, func(a, b client.CleanupCandidate) int {
		return cmp.Or(cmp.Compare(b.SizeBytes, a.SizeBytes), cmp.Compare(a.Model, b.Model))
	})
	s.SafeToRemove = len(s.Candidates)
	return s
}

// because says what a collection removes of one model.
func because(kinds map[store.Kind]int) string {
	var parts []string
	for k := store.KindRef; k <= store.KindFolder; k++ {
		if n := kinds[k]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s (%d)", k, n))
		}
	}
	return `no revision needs it; "ema gc" removes: ` + strings.Join(parts, ", ")
}
