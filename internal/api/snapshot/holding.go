package snapshot

import (
	"cmp"
	"slices"
	"time"

	"ema/internal/model"
	"ema/internal/store"
)

// A holding is what the store holds of one model, as far as answers tell it. It is never changed once it is made.
type holding struct {
	id              model.ID
	name            string
	stored          model.Bytes // all there is on disk, each content once
	unfinished      model.Bytes // of these, in files that are not complete
	revisions       []revision  // the one that counts first
	missing, broken []string    // files of that one

	folder string
	mark   stamp
	racy   bool // something changed so shortly before the look that the next change may leave no trace
}

// A revision is one commit of a holding.
type revision struct {
	commit    string
	refs      []string
	path      string
	state     store.State
	size      model.Bytes // of the files that are here
	whole     model.Bytes // of all its files
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
		id: found.ID, name: found.ID.Public(), stored: found.Size + found.Incomplete, unfinished: found.Incomplete,
		folder: m.folder(found.ID), mark: mark, racy: mark.racy(at),
	}
	files := map[string][]store.FileState{}
	for _, r := range found.Revisions {
		one := revision{commit: r.Commit, refs: r.Refs, path: m.set.Store.Snapshot(found.ID, r.Commit), state: r.State, size: r.Size, files: len(r.Files)}
		if r.Record != nil {
			one.completed = r.Record.CompletedAt
		}
		for _, f := range r.Files {
			one.whole += model.Bytes(max(f.Size, 0))
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
