package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ema/internal/model"
	"ema/internal/store"
)

// Repair checks a revision and brings back what is missing, damaged or cannot be read, and nothing else: a link is made again,
// who may read a file is set right, a content comes from another model here that has it, and of the rest only the bad blocks are
// fetched, where block checksums are known. The old file stays until the new one is proven.
//
// Where the source has moved on, the commit that is here is asked for; where it has no such commit any more the error is of class
// Integrity, says so, and nothing was removed.
func (l *Line) Repair(ctx context.Context, id model.ID, commit string, p *Progress) (*Report, *Result, error) {
	return l.mend(ctx, id, commit, false, p)
}

// Renew is Repair that fetches all files again, also those that are right. What is here stays until the new files are proven.
func (l *Line) Renew(ctx context.Context, id model.ID, commit string, p *Progress) (*Report, *Result, error) {
	return l.mend(ctx, id, commit, true, p)
}

func (l *Line) mend(ctx context.Context, id model.ID, commit string, anew bool, p *Progress) (*Report, *Result, error) {
	begun := time.Now()
	report, err := l.VerifyEach(ctx, id, commit, Reading{Locate: true}, p)
	if err != nil || report.OK() && !anew {
		return report, nil, err
	}
	w, done, err := l.own(ctx, l.Waiting)
	if err != nil {
		return report, nil, err
	}
	defer done()
	m := &mending{line: l, w: w, id: id, commit: commit, anew: anew, segments: map[string][]model.Segment{}}
	if err := m.look(ctx, report, p); err != nil {
		return report, nil, err
	}
	res, err := m.carryOut(ctx, report, p)
	if err != nil {
		return report, nil, err
	}
	res.Took = time.Since(begun)
	res.Seconds = res.Took.Seconds()
	return report, res, nil
}

// A mending is one repair of a revision.
type mending struct {
	line   *Line
	w      *store.Writer
	id     model.ID
	commit string
	anew   bool // all files are fetched

	contents []model.File               // to be brought, equal contents once
	segments map[string][]model.Segment // of these, what is bad, where that is known, by their paths
	actions  []string                   // what was done, in words
}

// did notes what was done.
func (m *mending) did(format string, values ...any) {
	m.actions = append(m.actions, fmt.Sprintf(format, values...))
}

// look finds out what has to be brought: the content of a file that is missing may be here when only its link is not, and a
// file that nobody may read may be right.
func (m *mending) look(ctx context.Context, report *Report, p *Progress) error {
	here := map[model.Digest]bool{} // contents that are looked at again, where the store has them
	var again []model.File
	for _, f := range report.Files {
		if m.anew {
			f.Damaged = nil
			m.bring(f)
			continue
		}
		if f.State == FileOK || f.State == FileUnknown {
			continue
		}
		d := f.file.Digest
		if f.barred && !d.IsZero() {
			if err := m.w.Permit(m.id, d); err != nil {
				return err
			}
			m.did("%s: it can be read again", f.Path)
		}
		if blob, err := m.line.blob(m.id, f.file); err == nil && blob.Size == f.file.Size && (f.State == FileMissing || f.astray || f.barred) {
			if f.State == FileMissing || f.astray {
				m.did("%s: its link was made again", f.Path)
			}
			if !here[d] {
				here[d] = true
				again = append(again, f.file)
			}
			continue
		}
		m.bring(f)
	}
	seen, err := m.line.check(ctx, m.id, again, m.stored, Reading{}, p)
	for _, f := range seen {
		if f.State != FileOK {
			m.bring(f)
		}
	}
	return err
}

// stored is where the store has the content of a file.
func (m *mending) stored(f model.File) string {
	b, _ := m.line.blob(m.id, f) //nolint:errcheck // what is gone by now is missing, as check says
	return b.Path
}

// bring has the content of a file brought.
func (m *mending) bring(f FileReport) {
	if !f.file.Digest.IsZero() && slices.ContainsFunc(m.contents, func(o model.File) bool { return o.Digest == f.file.Digest }) {
		return
	}
	m.contents = append(m.contents, f.file)
	if len(f.Damaged) > 0 {
		m.segments[f.Path] = f.Damaged
	} else if crcs, err := m.line.Store.Blocks(m.id, f.file.Digest); f.State == FileUnreadable && err == nil && len(crcs) > 1 {
		m.segments[f.Path] = []model.Segment{} // what cannot be read turns out while the rest is copied
	}
}

// carryOut brings what is to be brought, and makes the revision whole.
func (m *mending) carryOut(ctx context.Context, report *Report, p *Progress) (*Result, error) {
	l, files := m.line, make([]model.File, len(report.Files))
	for i, f := range report.Files {
		files[i] = f.file
	}
	rest, err := m.contents, error(nil)
	if !m.anew {
		if rest, err = m.w.Replace(ctx, m.id, m.contents); err != nil {
			return nil, err
		}
	}
	for _, f := range m.contents {
		if !slices.ContainsFunc(rest, func(o model.File) bool { return o.Path == f.Path }) {
			m.did("%s: taken from another model here", f.Path)
		}
	}
	rec, err := l.Store.Record(m.id, m.commit)
	if err != nil {
		rec = store.Record{ID: m.id, Revision: m.commit, Commit: m.commit}
	}
	r := &resolved{manifest: &model.Manifest{ID: m.id, Revision: rec.Revision, Commit: m.commit, Files: files}}
	if len(rest) > 0 {
		if r, err = m.fetch(ctx, files, rest, rec, p); err != nil {
			return nil, err
		}
		files = r.wanted // with what only their coming told
	}
	if at, ok := l.Store.Ref(m.id, rec.Revision); ok && at == m.commit {
		r.manifest.Revision = rec.Revision
	} else {
		r.manifest.Revision = m.commit // a branch that has moved on stays where it is
	}
	p.enter("publishing", nil)
	rec.Files, rec.CompletedAt = files, time.Now().UTC()
	path, err := m.w.Commit(ctx, r.manifest, files, rec)
	if err != nil {
		return nil, err
	}
	p.enter("done", nil)
	return &Result{
		ID: m.id, Model: m.id.Public(), Revision: r.manifest.Revision, Commit: m.commit, Path: path, Files: len(m.contents),
		Bytes: sum(m.contents), Fetched: model.Bytes(p.Received.Load()), Actions: m.actions,
	}, nil
}

// fetch fetches the contents that nobody here has.
func (m *mending) fetch(ctx context.Context, files, rest []model.File, rec store.Record, p *Progress) (*resolved, error) {
	l := m.line
	if l.Offline && m.id.Scheme != model.Folder {
		return nil, &model.Error{Op: "repair", Class: model.Offline, Model: m.id, Err: errors.New("files must be fetched again and offline mode forbids the network")}
	}
	r, err := l.resolve(ctx, Request{ID: m.id, Revision: m.commit}, nil, p)
	if err != nil {
		return nil, m.given(err)
	}
	r.Select = Selection{Include: rec.Include, Exclude: rec.Exclude}
	r.wanted = files
	reserved, err := l.reserve(ctx, m.id, m.commit, rest)
	if err != nil {
		return nil, err
	}
	defer reserved.end()
	p.enter("fetching", func(s *Stage) { s.Here = s.Bytes - sum(rest) })
	if err := l.fetch(ctx, m.w, r, rest, m.segments, reserved, p); err != nil {
		return nil, m.given(err)
	}
	for _, f := range rest {
		if bad := m.segments[f.Path]; len(bad) > 0 {
			var n int64
			for _, s := range bad {
				n += s.Len()
			}
			m.did("%s: %s of %s fetched again", f.Path, model.Bytes(n), model.Bytes(f.Size))
		} else if bad != nil {
			m.did("%s: fetched again what could not be read", f.Path)
		} else {
			m.did("%s: fetched again, %s", f.Path, model.Bytes(f.Size))
		}
	}
	return r, nil
}

// given is err, or what it means when the source does not have any more what is to be mended.
func (m *mending) given(err error) error {
	switch model.ClassOf(err) {
	case model.NotFound, model.Auth:
		return &model.Error{
			Op: "repair", Class: model.Integrity, Model: m.id, Err: fmt.Errorf("it is damaged, and its source does not give it any more: %w", err),
			Hint: `nothing was removed; "ema store adopt DIR MODEL" takes a good copy from elsewhere, "ema rm MODEL" gives the model up`,
		}
	}
	return err
}
