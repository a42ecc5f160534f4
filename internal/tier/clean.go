package tier

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"ema/internal/model"
)

// Stock is what Advise knows of one model.
type Stock struct {
	ID   model.ID
	Size model.Bytes // what all of it takes, and its removal frees
	// Since is when the newest of it came here.
	Since  time.Time
	Pinned bool
	Open   bool // another program has some of it open or mapped
	Busy   bool // is downloaded, moved or repaired
	// LastCopy says that it cannot be fetched again: its source is gone, or nobody knows it. Models that come from folders
	// or addresses always count as such.
	LastCopy bool
	Garbage  model.Bytes // of Size: contents that no revision needs, and what abandoned downloads left
	Old      []Old
}

// Old is a revision that no name leads to and that a newer one has replaced.
type Old struct {
	Commit string
	Size   model.Bytes // of Stock.Size, without Garbage: what only the removal of this one frees
	Since  time.Time   // when it came
}

// Wish says what is to be freed, and what may go for it.
type Wish struct {
	// Free is how much is to be freed; 0 or less names all that may go.
	Free model.Bytes
	// MinUnused is how long a model must have been unused to go.
	MinUnused time.Duration
	// KeepRecent is the age under which models and revisions stay.
	KeepRecent time.Duration
	// Watched is since when uses have been noticed: before that, unused means nothing. Zero is for ever.
	Watched time.Time
	// Often, unless nil, keeps the models that are used as often as it asks: the rule of the hot tier.
	Often *Rule
}

// Action is what is to be done about a suggestion.
type Action string

// The actions, the most harmless first.
const (
	Collect        Action = "collect"
	RemoveRevision Action = "remove_revision"
	RemoveModel    Action = "remove_model"
)

// A Suggestion is something that could go.
type Suggestion struct {
	ID     model.ID
	Commit string // of RemoveRevision
	Action Action
	Bytes  model.Bytes // it frees, after the suggestions before it
	Reason string      // a sentence
	// Confidence is how sure it is that nobody will miss it, from 0 to 1. It is 1 for what no revision needs, and 0.9 for
	// old revisions. A model has 1 - 0.5^(unused / MinUnused): 0.5 when it has just been unused long enough, 0.75 after
	// twice that time; halved in the measure of its uses in Often's window. MinUnused counts as a day at least.
	Confidence float64
	Last       time.Time // when the model was used last; zero when that is not known
	Uses       int       // of the model, as far back as uses are counted
}

// Kept is a model that stays, and why.
type Kept struct {
	ID  model.ID
	Why string // a sentence
}

// Advice says what could go, the least missed first.
type Advice struct {
	Suggestions []Suggestion
	Free        model.Bytes // by all suggestions together
	Short       model.Bytes // how much of Wish.Free cannot be freed so
	Kept        []Kept      // models that may not go, in the order of their names
}

// Advise says what could go to free what is wished for. It reads nothing and removes nothing.
//
// First comes what no revision needs, then old revisions, the largest first, then unused models: those that were used
// little, are large and have been unused for long. It never names a model that is pinned, open or busy, that came lately,
// is used often, or could not be fetched again; of such it may name what no revision needs, unless it is open or busy. To
// wish for more adds suggestions at the end, and changes none.
func Advise(now time.Time, stock []Stock, uses *Uses, w Wish) Advice {
	var garbage, old, unused []ranked
	var a Advice
	for _, s := range stock {
		if s.Open || s.Busy {
			a.Kept = append(a.Kept, Kept{s.ID, w.protects(now, s, uses)})
			continue
		}
		base := Suggestion{ID: s.ID, Last: uses.Last(s.ID), Uses: uses.Count(s.ID, time.Unix(0, 0))}
		rest := s.Size
		if s.Garbage > 0 {
			g := base
			g.Action, g.Bytes, g.Confidence = Collect, s.Garbage, 1
			g.Reason = fmt.Sprintf("no revision needs these %s of contents and partial files", s.Garbage)
			garbage = append(garbage, ranked{g, -float64(s.Garbage)})
			rest -= min(rest, s.Garbage)
		}
		if why := w.protects(now, s, uses); why != "" {
			a.Kept = append(a.Kept, Kept{s.ID, why})
			continue
		}
		for _, r := range s.Old {
			if now.Sub(r.Since) < w.KeepRecent {
				continue
			}
			o := base
			o.Action, o.Commit, o.Bytes, o.Confidence = RemoveRevision, r.Commit, r.Size, 0.9
			o.Reason = fmt.Sprintf("a newer revision has replaced it, and no branch or tag leads to it; it came %s ago", span(now.Sub(r.Since)))
			old = append(old, ranked{o, -float64(r.Size)})
			rest -= min(rest, r.Size)
		}
		if idle := w.idle(now, s, base.Last); idle >= w.MinUnused {
			m := base
			m.Action, m.Bytes, m.Confidence = RemoveModel, rest, w.confidence(now, s.ID, uses, idle)
			m.Reason = "it " + w.reason(now, s, m.Last, idle)
			unused = append(unused, ranked{m, float64(1+m.Uses) / (math.Max(idle.Hours(), 1) * math.Max(float64(rest), 1))})
		} else {
			a.Kept = append(a.Kept, Kept{s.ID, "only models unused for " + span(w.MinUnused) + " may go: it " + w.reason(now, s, base.Last, idle)})
		}
	}
	for _, group := range [][]ranked{garbage, old, unused} {
		slices.SortFunc(group, ranked.compare)
		for _, r := range group {
			if w.Free > 0 && a.Free >= w.Free {
				break
			}
			a.Suggestions = append(a.Suggestions, r.Suggestion)
			a.Free += r.Bytes
		}
	}
	a.Short = max(0, w.Free-a.Free)
	slices.SortFunc(a.Kept, func(a, b Kept) int { return compareIDs(a.ID, b.ID) })
	return a
}

// ranked is a suggestion and its rank: the lowest goes first.
type ranked struct {
	Suggestion
	rank float64
}

func (r ranked) compare(o ranked) int {
	return cmp.Or(cmp.Compare(r.rank, o.rank), compareIDs(r.ID, o.ID), cmp.Compare(r.Commit, o.Commit))
}

// protects says why nothing of a model may go that a revision needs; "" when it may.
func (w Wish) protects(now time.Time, s Stock, uses *Uses) string {
	age := now.Sub(s.Since)
	switch {
	case s.Busy:
		return "it is being downloaded, moved or repaired"
	case s.Pinned:
		return "it is pinned"
	case s.Open:
		return "another program has it open"
	case s.LastCopy || s.ID.Scheme != model.Hub:
		return "it may be the last copy: it could not be fetched again"
	case age < w.KeepRecent:
		return fmt.Sprintf("it came %s ago, and models younger than %s stay", span(age), span(w.KeepRecent))
	}
	if w.Often == nil {
		return ""
	}
	if n := uses.Count(s.ID, now.Add(-w.Often.Window)); n >= max(1, w.Often.Uses) {
		return fmt.Sprintf("it is used often: %s, and %d are enough", useCount(n, w.Often.Window), max(1, w.Often.Uses))
	}
	return ""
}

// idle is for how long a model has certainly been unused.
func (w Wish) idle(now time.Time, s Stock, last time.Time) time.Duration {
	for _, t := range []time.Time{s.Since, w.Watched} {
		if t.After(last) {
			last = t
		}
	}
	return now.Sub(last)
}

// confidence is as Suggestion.Confidence says.
func (w Wish) confidence(now time.Time, id model.ID, uses *Uses, idle time.Duration) float64 {
	sure := 1 - math.Pow(0.5, idle.Hours()/max(w.MinUnused, 24*time.Hour).Hours())
	if w.Often != nil && w.Often.Uses > 0 {
		sure *= 1 - w.Often.Score(uses.Count(id, now.Add(-w.Often.Window)))/2
	}
	return sure
}

// reason tells for how long a model has been unused.
func (w Wish) reason(now time.Time, s Stock, last time.Time, idle time.Duration) string {
	switch {
	case !last.IsZero() && now.Sub(last) == idle:
		return fmt.Sprintf("was last used %s ago", span(idle))
	case now.Sub(s.Since) == idle:
		return fmt.Sprintf("came %s ago and has not been used since", span(idle))
	}
	return fmt.Sprintf("has not been used for %s, and for how long before nobody noticed", span(idle))
}
