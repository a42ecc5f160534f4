package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/verify"
)

// A FileReport is what checking one file of a model found.
type FileReport struct {
	Path    string          `json:"path"`
	Size    model.Bytes     `json:"size"`
	State   string          `json:"state"`             // "ok", "missing", "damaged", "unknown": no hash to compare with
	Damaged []model.Segment `json:"damaged,omitempty"` // which bytes, where block checksums are known
	Notes   []string        `json:"notes,omitempty"`   // what is odd about its structure, in words

	file model.File
}

// A Report is what checking one revision of a model found.
type Report struct {
	ID     model.ID     `json:"-"`
	Model  string       `json:"model"`
	Commit string       `json:"commit"`
	Files  []FileReport `json:"files"`
}

// OK reports whether all files are there and right.
func (r *Report) OK() bool {
	return !slices.ContainsFunc(r.Files, func(f FileReport) bool { return f.State == "missing" || f.State == "damaged" })
}

// Verify reads every byte of one revision and compares it with the promised hashes. What turns out to
// be right is recorded as proven, where the store's owner lets us. It repairs nothing.
func (l *Line) Verify(ctx context.Context, id model.ID, commit string, p *Progress) (*Report, error) {
	files, err := l.expected(id, commit)
	if err != nil {
		return nil, err
	}
	p.enter("checking", func(s *Stage) { s.Files, s.Bytes = len(files), sum(files) })
	report := &Report{ID: id, Model: id.Public(), Commit: commit, Files: make([]FileReport, len(files))}
	byDigest := map[model.Digest][]int{} // files of equal content are read once
	var items []verify.Item
	read := map[model.Digest]fs.FileInfo{} // what each content is read from, as it was before
	for i, f := range files {
		report.Files[i] = FileReport{Path: f.Path, Size: model.Bytes(f.Size), State: "ok", file: f}
		full := l.Store.Snapshot(id, commit) + "/" + f.Path
		info, err := os.Stat(full)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			report.Files[i].State = "missing"
			continue
		case err != nil:
			return nil, &model.Error{Op: "verify", Class: model.DiskError, Model: id, File: full, Err: err}
		case info.Size() != f.Size:
			report.Files[i].State = "damaged"
			report.Files[i].Notes = []string{fmt.Sprintf("it has %d bytes instead of %d", info.Size(), f.Size)}
			continue
		case f.Digest.IsZero():
			report.Files[i].State = "unknown"
			continue
		}
		if finding, err := structure(f.Path, full, f.Size); err == nil && finding.Verdict >= verify.Suspicious {
			report.Files[i].Notes = finding.Problems
		}
		if byDigest[f.Digest] = append(byDigest[f.Digest], i); len(byDigest[f.Digest]) > 1 {
			continue
		}
		read[f.Digest] = info
		it := item(id, f, full)
		it.Blocks, _ = l.Store.Blocks(id, f.Digest) //nolint:errcheck // without them damage is found, not located
		it.Progress = func(n int64) { p.Hashed.Add(n) }
		items = append(items, it)
	}
	proven := map[model.Digest][]uint32{}
	err = verify.Files(ctx, items, verify.Workers{Parallel: l.parallel(), Run: l.Run}, func(it verify.Item, res verify.Result, err error) {
		p.FilesDone.Add(1)
		for _, i := range byDigest[it.Digest] {
			switch {
			case err != nil:
				report.Files[i].State = "damaged"
				report.Files[i].Notes = append(report.Files[i].Notes, err.Error())
			case !res.OK:
				report.Files[i].State, report.Files[i].Damaged = "damaged", res.Damaged
			default:
				proven[it.Digest] = res.Blocks
			}
		}
	})
	if err != nil {
		return nil, err
	}
	l.record(ctx, id, files, proven, read)
	p.enter("done", nil)
	return report, nil
}

// record notes what Verify proved. It is a favour to the next run: when another process owns the
// store or it cannot be written to, the proof is simply made again then.
//
// The proof is of what was read: a snapshot of another tool may hold a copy, which says nothing about the
// blob of the same name.
func (l *Line) record(ctx context.Context, id model.ID, files []model.File, proven map[model.Digest][]uint32, read map[model.Digest]fs.FileInfo) {
	var news []model.File
	for _, f := range files {
		blob, err := l.blob(id, f)
		if err != nil || blob.Proof == store.Proven || proven[f.Digest] == nil {
			continue
		}
		if now, err := os.Stat(blob.Path); err == nil && os.SameFile(now, read[f.Digest]) && now.ModTime().Equal(read[f.Digest].ModTime()) {
			news = append(news, f)
		}
	}
	if len(news) == 0 {
		return
	}
	w, done, err := l.own(ctx, nil)
	if err != nil {
		return
	}
	defer done()
	for _, f := range news {
		if w.Prove(id, f.Digest, proven[f.Digest]) != nil {
			return
		}
	}
}

// Repair checks a revision and brings back what is missing or damaged: of a damaged file whose block
// checksums are known only the bad blocks. The old file stays until the new one is proven.
func (l *Line) Repair(ctx context.Context, id model.ID, commit string, p *Progress) (*Report, *Result, error) {
	begun := time.Now()
	report, err := l.Verify(ctx, id, commit, p)
	if err != nil || report.OK() {
		return report, nil, err
	}
	if l.Offline {
		return report, nil, &model.Error{Op: "repair", Class: model.Offline, Model: id, Err: errors.New("files must be fetched again and offline mode forbids the network")}
	}
	r, err := l.resolve(ctx, Request{ID: id, Revision: commit}, p)
	if err != nil {
		return report, nil, err
	}
	rec, err := l.Store.Record(id, commit)
	if err != nil {
		rec = store.Record{ID: id, Revision: commit, Commit: commit}
	}
	r.Select = Selection{Include: rec.Include, Exclude: rec.Exclude}
	if at, ok := l.Store.Ref(id, rec.Revision); ok && at == commit { // a branch that has moved on stays where it is
		r.manifest.Revision = rec.Revision
	}
	var missing, unlinked []model.File
	mend := map[string][]model.Segment{}
	r.wanted = nil
	seen := map[model.Digest]bool{}
	for _, f := range report.Files {
		r.wanted = append(r.wanted, f.file)
		switch {
		case f.State == "missing":
			unlinked = append(unlinked, f.file)
		case f.State == "damaged" && !seen[f.file.Digest]:
			missing = append(missing, f.file)
			seen[f.file.Digest] = !f.file.Digest.IsZero()
			if len(f.Damaged) > 0 {
				mend[f.Path] = f.Damaged
			}
		}
	}
	w, done, err := l.own(ctx, l.Waiting)
	if err != nil {
		return report, nil, err
	}
	defer done()
	unlinked = slices.DeleteFunc(unlinked, func(f model.File) bool { return seen[f.Digest] })
	gone, err := l.missing(ctx, w, id, unlinked, p) // the blob may be here when only the link is not
	if err != nil {
		return report, nil, err
	}
	missing = append(missing, gone...)
	reserved, err := l.reserve(ctx, id, commit, missing)
	if err != nil {
		return report, nil, err
	}
	defer reserved.end()
	p.enter("fetching", func(s *Stage) { s.Here = s.Bytes - sum(missing) })
	if err := l.fetch(ctx, w, r, missing, mend, reserved, p); err != nil {
		return report, nil, err
	}
	p.enter("publishing", nil)
	rec.Files, rec.CompletedAt = r.wanted, time.Now().UTC()
	path, err := w.Commit(ctx, r.manifest, r.wanted, rec)
	if err != nil {
		return report, nil, err
	}
	p.enter("done", nil)
	return report, &Result{
		ID: id, Model: id.Public(), Revision: r.manifest.Revision, Commit: commit, Path: path, Files: len(missing),
		Bytes: sum(missing), Fetched: model.Bytes(p.Received.Load()), Took: time.Since(begun), Seconds: time.Since(begun).Seconds(),
	}, nil
}

// expected are the files that a revision should have, as far as anything here tells.
func (l *Line) expected(id model.ID, commit string) ([]model.File, error) {
	m, err := l.Store.Model(id)
	if err != nil {
		return nil, err
	}
	for _, rev := range m.Revisions {
		if rev.Commit == commit {
			return wanted(rev), nil
		}
	}
	return nil, &model.Error{Op: "verify", Class: model.NotFound, Model: id, Err: fmt.Errorf("commit %s is not here", commit), Hint: `"ema ls" shows what is`}
}

// wanted are the files of a revision without their states.
func wanted(rev store.Revision) []model.File {
	files := make([]model.File, len(rev.Files))
	for i, f := range rev.Files {
		files[i] = f.File
	}
	return files
}

// item is f as the verifier takes it, read from path.
func item(id model.ID, f model.File, path string) verify.Item {
	return verify.Item{
		Model: id, Path: f.Path, Digest: f.Digest, Size: f.Size,
		Open: func() (verify.Reader, error) { return os.Open(path) },
	}
}

// structure checks the file at path, which is called name in its model.
func structure(name, path string, size int64) (verify.Finding, error) {
	f, err := os.Open(path)
	if err != nil {
		return verify.Finding{}, err
	}
	defer f.Close()
	return verify.Structure(name, io.ReaderAt(f), size), nil
}
