package store

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ema/internal/model"
)

// A leftover is what is left of one blob's fetch: data files, by any tool, and our journal.
type leftover struct {
	items   []Doomed
	changed time.Time   // when the youngest of its files was written
	takes   model.Bytes // disk space
	ours    bool        // there is a journal: a fetch of ours can go on with it
}

// PlanPartials says which files of interrupted fetches go: those that have not changed for maxAge, and
// of our own the oldest beyond most bytes of disk space together. What keep wants stays and counts for
// nothing, as does what somebody fetches now. It changes nothing.
//
// Those of other tools, and of moves between tiers that were cut short, have their age alone against
// them: nobody's next fetch begins with one.
func (s *Store) PlanPartials(now time.Time, maxAge time.Duration, most model.Bytes, keep func(id model.ID, etag string) bool) (Removal, error) {
	var r Removal
	names := map[string]bool{}
	for _, dir := range []string{s.path, filepath.Join(s.state, "partials")} {
		entries, err := os.ReadDir(dir)
		if ignoreMissing(err) != nil {
			return r, diskError("plan removal", model.ID{}, dir, err)
		}
		for _, e := range entries {
			names[e.Name()] = strings.HasPrefix(e.Name(), "models--")
		}
	}
	var idle []*leftover
	for name, isModel := range names {
		id, ok := s.idOf(name)
		if !isModel || !ok || id.DirName() != name {
			continue
		}
		of, err := s.leftovers(id, keep)
		if err != nil {
			return r, diskError("plan removal", id, "", err)
		}
		idle = append(idle, of...)
	}
	slices.SortFunc(idle, func(a, b *leftover) int { // youngest first: they have the best claim on the room
		return cmp.Or(b.changed.Compare(a.changed), strings.Compare(a.items[0].path, b.items[0].path))
	})
	room := most
	for _, l := range idle {
		old := now.Sub(l.changed) >= maxAge
		if !old {
			room -= l.counts()
		}
		if old || l.ours && (room < 0 || most == 0) {
			for _, d := range l.items {
				r.add(d)
			}
		}
	}
	r.sort()
	return r, nil
}

// counts is how much of the allowed room it uses.
func (l *leftover) counts() model.Bytes {
	if l.ours {
		return l.takes
	}
	return 0
}

// WithPartials is r with the files of interrupted fetches that p names, in the place of those that r
// names.
func (r Removal) WithPartials(p Removal) Removal {
	var both Removal
	for _, d := range r.Items {
		if d.Kind != KindPartial {
			both.add(d)
		}
	}
	for _, d := range p.Items {
		both.add(d)
	}
	both.sort()
	return both
}

// leftovers are those of one model that nobody keeps or fetches.
func (s *Store) leftovers(id model.ID, keep func(model.ID, string) bool) ([]*leftover, error) {
	by := map[string]*leftover{}
	collect := func(dir string, etagOf func(string) (string, bool), ours bool) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return ignoreMissing(err)
		}
		for _, e := range entries {
			etag, part := etagOf(e.Name())
			info, err := e.Info()
			if !part || err != nil { // no partial file, or gone meanwhile
				continue
			}
			l := by[etag]
			if l == nil {
				l = &leftover{}
				by[etag] = l
			}
			d := Doomed{Kind: KindPartial, Model: id, Name: etag, path: filepath.Join(dir, e.Name()), busy: id.DirName()}
			d.Bytes = treeBytesOnDisk(d.path, info)
			l.items, l.ours = append(l.items, d), l.ours || ours
			if info.ModTime().After(l.changed) {
				l.changed = info.ModTime()
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				l.takes += model.Bytes(st.Blocks * 512)
			}
		}
		return nil
	}
	if err := collect(s.blobsDir(id), etagOfIncomplete, false); err != nil {
		return nil, err
	}
	if err := collect(s.partialsDir(id), func(name string) (string, bool) { return stem(name), true }, true); err != nil {
		return nil, err
	}
	for _, t := range s.coldTiers() {
		if s.reachTier(t) != nil {
			continue // what is away is not judged
		}
		if err := collect(s.tierBlobs(t, id), etagOfIncomplete, false); err != nil {
			return nil, err
		}
	}
	var idle []*leftover
	for etag, l := range by {
		busy, err := s.fetching(id.DirName(), etag)
		if err != nil {
			return nil, err
		}
		if !busy && !keep(id, etag) {
			idle = append(idle, l)
		}
	}
	return idle, nil
}
