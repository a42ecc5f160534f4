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

	"golang.org/x/sys/unix"

	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/verify"
)

// The states of a file that was checked.
const (
	FileOK         = "ok"
	FileMissing    = "missing"
	FileDamaged    = "damaged"
	FileUnknown    = "unknown"    // there is no hash to compare it with
	FileUnreadable = "unreadable" // it could not be read, again and again: nobody knows how it is
)

// A FileReport is what checking one file of a model found.
type FileReport struct {
	Path    string          `json:"path"`
	Size    model.Bytes     `json:"size"`
	State   string          `json:"state"`             // one of the constants
	Damaged []model.Segment `json:"damaged,omitempty"` // which bytes, where block checksums are known
	Notes   []string        `json:"notes,omitempty"`   // what is odd about it, in words

	file   model.File
	odd    []string // what is odd about its structure
	astray bool     // its link leads to another content than its own
	barred bool     // nobody may read it
}

// bad reports whether a file is not what it should be.
func (f FileReport) bad() bool { return f.State == FileMissing || f.State == FileDamaged }

// Digest is the content that the file should have; zero when nobody knows.
func (f FileReport) Digest() model.Digest { return f.file.Digest }

// A Report is what checking one revision of a model found.
type Report struct {
	ID     model.ID     `json:"-"`
	Model  string       `json:"model"`
	Commit string       `json:"commit"`
	Files  []FileReport `json:"files"`
}

// OK reports whether all files are there, could be read and are right.
func (r *Report) OK() bool {
	return r.Whole() && !slices.ContainsFunc(r.Files, func(f FileReport) bool { return f.State == FileUnreadable })
}

// Whole reports whether no file is known to be missing or damaged.
func (r *Report) Whole() bool { return !slices.ContainsFunc(r.Files, FileReport.bad) }

// Mended is the report once all that is in it was mended.
func (r *Report) Mended() *Report {
	after := *r
	after.Files = slices.Clone(r.Files)
	for i, f := range after.Files {
		if f.State != FileUnknown {
			after.Files[i].State, after.Files[i].Damaged = FileOK, nil
		}
		if f.State != FileOK {
			after.Files[i].Notes = nil
		}
	}
	return &after
}

// Verify reads every byte of one revision and compares it with the promised hashes. What turns out to
// be right is recorded as proven, where the store's owner lets us. It repairs nothing.
//
// A file that cannot be read, or changes meanwhile, is read again after a while; only then it is FileUnreadable.
func (l *Line) Verify(ctx context.Context, id model.ID, commit string, p *Progress) (*Report, error) {
	return l.VerifyEach(ctx, id, commit, Reading{}, p)
}

// Reading is how files are read to be checked. The zero Reading reads them all, as everybody reads files.
type Reading struct {
	// Open opens a file; nil is os.Open.
	Open func(path string) (verify.Reader, error)
	// Known reports whether a content, whose file has not changed since it was proven, need not be read again; nil is never.
	Known func(d model.Digest) bool
	// Checked is told of each content that was read and is right, one at a time; nil is told nothing.
	Checked func(d model.Digest)
	// Locate leaves unhashed what is damaged by its block checksums already.
	Locate bool
	// Parallel is how many files are read at once; 0 is as the Line has it.
	Parallel int
	// Run runs what reads and hashes a file; nil is as the Line has it.
	Run func(context.Context, func(context.Context) error) error
}

// VerifyEach is Verify that reads files in another manner.
func (l *Line) VerifyEach(ctx context.Context, id model.ID, commit string, how Reading, p *Progress) (*Report, error) {
	files, err := l.expected(id, commit)
	if err != nil {
		return nil, err
	}
	p.enter("checking", func(s *Stage) { s.Files, s.Bytes = len(files), sum(files) })
	report := &Report{ID: id, Model: id.Public(), Commit: commit}
	report.Files, err = l.check(ctx, id, files, func(f model.File) string { return l.Store.Snapshot(id, commit) + "/" + f.Path }, how, p)
	if err != nil {
		return nil, err
	}
	p.enter("done", nil)
	return report, nil
}

// rereads is how long to wait before a file is read again that could not be read, each time.
func rereads() []time.Duration { return []time.Duration{200 * time.Millisecond, 2 * time.Second} }

// check reads the files of a model where they are found under names of theirs, and compares them with their hashes.
func (l *Line) check(ctx context.Context, id model.ID, files []model.File, at func(model.File) string, how Reading, p *Progress) ([]FileReport, error) {
	reports := make([]FileReport, len(files))
	var again []int // of files, those to be read
	for i, f := range files {
		reports[i] = l.glance(id, f, at(f))
		if reports[i].State != FileOK {
			continue
		}
		if blob, err := l.blob(id, f); how.Known != nil && err == nil && blob.Proof == store.Proven && how.Known(f.Digest) {
			p.FilesDone.Add(1)
			p.Hashed.Add(f.Size)
			continue
		}
		again = append(again, i)
	}
	for _, wait := range append(rereads(), 0) {
		if err := l.read(ctx, id, files, again, at, reports, how, p); err != nil {
			return nil, err
		}
		again = slices.DeleteFunc(again, func(i int) bool { return reports[i].State != FileUnreadable })
		if len(again) == 0 || wait == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
	return reports, nil
}

// glance is what can be told of a file without reading all of it: FileOK when it has to be read.
func (l *Line) glance(id model.ID, f model.File, full string) FileReport {
	r := FileReport{Path: f.Path, Size: model.Bytes(f.Size), State: FileOK, file: f}
	info, err := os.Stat(full)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		r.State = FileMissing
	case err != nil:
		r.State, r.Notes = FileUnreadable, []string{err.Error()}
	case !info.Mode().IsRegular():
		r.State, r.Notes = FileDamaged, []string{"it is no file"}
	case l.leadsElsewhere(id, f, full, info):
		r.State, r.astray, r.Notes = FileDamaged, true, []string{"its link leads to the content of another file"}
	case info.Size() != f.Size:
		r.State, r.Notes = FileDamaged, []string{fmt.Sprintf("it has %d bytes instead of %d", info.Size(), f.Size)}
	case info.Mode().Perm()&0o444 == 0 && f.Size > 0:
		r.State, r.barred, r.Notes = FileUnreadable, true, []string{fmt.Sprintf("its permissions are %04o: nobody may read it", info.Mode().Perm())}
	case f.Digest.IsZero():
		r.State = FileUnknown
	default:
		if finding, err := Structure(f.Path, full, f.Size); err == nil && finding.Verdict >= verify.Suspicious {
			r.odd, r.Notes = finding.Problems, finding.Problems
		}
	}
	return r
}

// leadsElsewhere reports whether a file of a snapshot is a link to another content than its own, which is here.
func (l *Line) leadsElsewhere(id model.ID, f model.File, full string, info fs.FileInfo) bool {
	link, err := os.Lstat(full)
	if err != nil || link.Mode()&fs.ModeSymlink == 0 {
		return false
	}
	blob, err := l.blob(id, f)
	if err != nil {
		return false
	}
	own, err := os.Stat(blob.Path)
	return err == nil && !os.SameFile(own, info)
}

// read reads some of the files, equal contents once, and notes in reports what they are.
func (l *Line) read(ctx context.Context, id model.ID, files []model.File, which []int, at func(model.File) string, reports []FileReport, how Reading, p *Progress) error {
	byDigest := map[model.Digest][]int{}
	before := map[model.Digest]fs.FileInfo{} // what each content is read from, as it was
	var items []verify.Item
	for _, i := range which {
		f := files[i]
		if byDigest[f.Digest] = append(byDigest[f.Digest], i); len(byDigest[f.Digest]) > 1 {
			continue
		}
		full := at(f)
		if info, err := os.Stat(full); err == nil {
			before[f.Digest] = info
		}
		it := item(id, f, full)
		if how.Open != nil {
			it.Open = func() (verify.Reader, error) { return how.Open(full) }
		}
		it.Blocks, _ = l.Store.Blocks(id, f.Digest) //nolint:errcheck // without them damage is found, not located
		it.Progress = func(n int64) { p.Hashed.Add(n) }
		items = append(items, it)
	}
	parallel := how.Parallel
	if parallel <= 0 {
		parallel = l.parallel()
	}
	run := how.Run
	if run == nil {
		run = l.Run
	}
	proven, wrong := map[model.Digest][]uint32{}, map[model.Digest]bool{}
	err := verify.Files(ctx, items, verify.Workers{Parallel: parallel, Run: run, Ahead: run == nil, Locate: how.Locate}, func(it verify.Item, res verify.Result, err error) {
		p.FilesDone.Add(1)
		first := &reports[byDigest[it.Digest][0]]
		changed := false
		if now, statErr := os.Stat(at(first.file)); err == nil && (statErr != nil || before[it.Digest] == nil || !unchanged(before[it.Digest], now)) {
			changed = true
		}
		for _, i := range byDigest[it.Digest] {
			r := &reports[i]
			r.State, r.Damaged, r.Notes = FileOK, nil, r.odd
			switch {
			case errors.Is(err, fs.ErrNotExist):
				r.State = FileMissing
			case err != nil:
				r.State, r.Notes = FileUnreadable, []string{"it could not be read: " + cause(err)}
			case changed:
				r.State, r.Notes = FileUnreadable, []string{"somebody changed it while it was read"}
			case !res.OK:
				r.State, r.Damaged = FileDamaged, res.Damaged
			}
		}
		wrong[it.Digest] = first.State == FileDamaged
		if first.State == FileOK {
			proven[it.Digest] = res.Blocks
			if how.Checked != nil {
				how.Checked(it.Digest)
			}
		}
	})
	if err != nil {
		return err
	}
	l.record(ctx, id, files, proven, wrong, before)
	return nil
}

// cause is what is behind an error about a file, without saying again which it is.
func cause(err error) string {
	if e, ok := errors.AsType[*model.Error](err); ok && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

// unchanged reports whether a file is what it was, as far as can be told without reading it.
func unchanged(was, is fs.FileInfo) bool {
	return os.SameFile(was, is) && was.Size() == is.Size() && was.ModTime().Equal(is.ModTime())
}

// record notes what was proven, and what was proven once and is damaged now. It is a favour to the next run: when another process
// owns the store or it cannot be written to, the same is simply found again then.
//
// The proof is of what was read: a snapshot of another tool may hold a copy, which says nothing about the
// blob of the same name.
func (l *Line) record(ctx context.Context, id model.ID, files []model.File, proven map[model.Digest][]uint32, wrong map[model.Digest]bool, read map[model.Digest]fs.FileInfo) {
	var news []model.File
	for _, f := range files {
		blob, err := l.blob(id, f)
		if err != nil || wrong[f.Digest] != (blob.Proof == store.Proven) || proven[f.Digest] == nil && !wrong[f.Digest] {
			continue
		}
		if now, err := os.Stat(blob.Path); err == nil && unchanged(read[f.Digest], now) {
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
		if wrong[f.Digest] {
			err = w.Disprove(id, f.Digest)
		} else {
			err = w.Prove(id, f.Digest, proven[f.Digest])
		}
		if err != nil {
			return
		}
	}
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

// Structure checks the file at path, which is called name in its model: its header, and no more of it than that needs.
func Structure(name, path string, size int64) (verify.Finding, error) {
	f, err := os.Open(path)
	if err != nil {
		return verify.Finding{}, err
	}
	defer f.Close()
	return verify.Structure(name, io.ReaderAt(f), size), nil
}
