package snapshot

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"ema/internal/model"
	"ema/internal/store"
)

// A holding is what the store holds of one model, as far as answers tell it. It is never changed once it is made.
type holding struct {
	id              model.ID
	size            model.Bytes // of all complete contents, each once
	stored          model.Bytes // all there is on disk: what is not complete too
	tier            model.Tier  // where most of it lies
	tiers           map[model.Tier]model.Bytes
	away            model.Tier // the tier that is missing, and has a part of it; "" when there is none
	revisions       []revision // the one that counts first
	missing, broken []string   // files of that one
	mark            stamp
	racy            bool // something changed so shortly before the look that the next change may leave no trace
}

// A revision is one commit of a holding.
type revision struct {
	commit    string
	refs      []string
	path      string
	state     store.State
	size      model.Bytes // of the files that are here
	whole     model.Bytes // of all its files
	proven    model.Bytes // of those that were verified
	checked   bool        // all of its files were
	files     int
	completed time.Time // by ema; zero if another tool brought it
}

func (r revision) complete() bool { return r.state == store.Available || r.state == store.Unverified }

// rank says which revision speaks for the model: what a loader that asks for the default revision would find, unless
// that is not all there and another is.
func (r revision) rank() int {
	byDefault := slices.Contains(r.refs, "main")
	switch {
	case byDefault && r.complete():
		return 0
	case byDefault && r.state == store.Damaged:
		return 1
	case r.complete():
		return 2
	case byDefault:
		return 3
	case r.state == store.Damaged:
		return 4
	}
	return 5
}

// hold is what answers need of what was found.
func (m *Models) hold(found store.Model, mark stamp, at time.Time) *holding {
	h := &holding{
		id: found.ID, size: found.Size, stored: found.Size + found.Incomplete, mark: mark, racy: mark.racy(at),
		tier: Mostly(found.Tiers), tiers: found.Tiers, away: found.Away,
	}
	if found.Incomplete > 0 { // what is being fetched lies in the hot tier
		h.tiers = maps.Clone(found.Tiers)
		if h.tiers == nil {
			h.tiers = map[model.Tier]model.Bytes{}
		}
		h.tiers[model.Hot] += found.Incomplete
	}
	files := map[string][]store.FileState{}
	for _, r := range found.Revisions {
		one := revision{commit: r.Commit, refs: r.Refs, path: m.set.Store.Snapshot(found.ID, r.Commit), state: r.State, size: r.Size, files: len(r.Files), checked: true}
		if r.Record != nil {
			one.completed = r.Record.CompletedAt
		}
		for _, f := range r.Files {
			one.whole += model.Bytes(max(f.Size, 0))
			if f.State == store.Available {
				one.proven += model.Bytes(f.Size)
			}
			one.checked = one.checked && (f.State == store.Available || f.State == store.Damaged)
		}
		files[r.Commit] = r.Files
		h.revisions = append(h.revisions, one)
	}
	slices.SortFunc(h.revisions, func(a, b revision) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), b.completed.Compare(a.completed), cmp.Compare(a.commit, b.commit))
	})
	if len(h.revisions) > 0 {
		for _, f := range files[h.revisions[0].commit] {
			switch f.State {
			case store.Incomplete:
				h.missing = append(h.missing, f.Path)
			case store.Damaged:
				h.broken = append(h.broken, f.Path)
			}
		}
	}
	return h
}

// Mostly is the tier in which most lies; of equal ones the fastest.
func Mostly(tiers map[model.Tier]model.Bytes) model.Tier {
	found := model.Hot
	for _, t := range model.Tiers() {
		if tiers[t] > tiers[found] {
			found = t
		}
	}
	return found
}

// same reports whether h and other, which may be nil, tell the same. When somebody looked does not matter.
func (h *holding) same(other *holding) bool {
	if h == nil || other == nil {
		return h == other
	}
	return h.id == other.id && h.size == other.size && h.stored == other.stored &&
		h.tier == other.tier && h.away == other.away && maps.Equal(h.tiers, other.tiers) &&
		slices.EqualFunc(h.revisions, other.revisions, revision.same) &&
		slices.Equal(h.missing, other.missing) && slices.Equal(h.broken, other.broken)
}

func (r revision) same(other revision) bool {
	return slices.Equal(r.refs, other.refs) && r.commit == other.commit && r.path == other.path && r.state == other.state &&
		r.size == other.size && r.whole == other.whole && r.proven == other.proven && r.checked == other.checked &&
		r.files == other.files && r.completed.Equal(other.completed)
}

// damaged reports whether any revision is.
func (h *holding) damaged() bool {
	return h != nil && slices.ContainsFunc(h.revisions, func(r revision) bool { return r.state == store.Damaged })
}

// first is the revision that speaks for the model; the zero revision when there is none.
func (h *holding) first() revision {
	if h == nil || len(h.revisions) == 0 {
		return revision{}
	}
	return h.revisions[0]
}
