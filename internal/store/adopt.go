package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ema/internal/model"
)

// Adopting says what is to be adopted, and how.
type Adopting struct {
	// Models are those of a cache that are wanted; none are all. Of a plain folder it is the one that the folder is.
	Models []model.ID
	// Revision is the name under which a plain folder is to be found; "" is main. A cache has names of its own.
	Revision string
	// Copy never makes a hard link. Without it, where storage cannot be shared otherwise, a file of ours has two names
	// afterwards: whoever writes into it under the other one damages the model, which is noticed.
	Copy bool
	// Progress is told that n more bytes are read or known; nil is told nothing.
	Progress func(n int64)
}

// Adopted is what an adoption did.
type Adopted struct {
	Models  []AdoptedModel
	Refused []error // why some of what lies there was left; each names it
}

// AdoptedModel is one revision that is available now.
type AdoptedModel struct {
	ID       model.ID
	Revision string // a ref that names it, else the commit
	Commit   string
	Path     string // of the snapshot
	Files    int
	Bytes    model.Bytes // of all files, each content once
	// Of these contents so many share storage, have a second name, are copies, or were here already.
	Cloned, Linked, Copied, Kept int
	Existing                     bool     // all of it was here already, and nothing was done
	Notes                        []string // what the user should know
}

// A load is one revision that is to be adopted.
type load struct {
	id       model.ID
	commit   string // empty: made from the files
	refs     []string
	files    []cargo
	listing  []model.File // all files of the commit
	unlisted bool         // nobody tells whether files are all
	cache    bool         // it lies in a cache
}

// A cargo is one file to be adopted.
type cargo struct {
	path string // in the model
	from string // where the name leads: a real path
	was  identity
	mine bool // it belongs to this user
	want model.Digest
}

// list notes what all files of the commit are, if raw is a tree.
func (l *load) list(raw []byte) {
	if files, err := parseTree(raw); err == nil {
		l.listing, l.unlisted = files, false
	}
}

func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// Adopt takes files of dir into the store, without copying them where the file system can share storage or give them a second
// name. It sees by itself whether dir is a cache of the hub's client (or the folder of one model in it), or a plain folder; of
// one that the hub's client has filled, notes tell the commit and the hashes. The commit of any other is made from the
// paths, sizes and hashes of its files, as when a folder is pulled: equal content has equal commits. Files of at most
// BlockSize are always copied.
//
// Every byte is read and hashed, so that all that is adopted is proven. What is damaged, changes meanwhile, leads out of the
// folder or has a name that no model may have is refused, and the revision with it; so is a revision that is here already
// with other content. A revision appears whole, when all of it is durable. After a crash at any step Adopt can be
// called again. What is here already costs no space.
//
// Of a cache, one revision that is refused does not keep the others: see Adopted.Refused.
func (w *Writer) Adopt(ctx context.Context, dir string, opt Adopting) (Adopted, error) {
	var done Adopted
	fail := func(err error) (Adopted, error) { return done, diskError("adopt", model.ID{}, dir, err) }
	dir, err := w.source(dir)
	if err != nil {
		return fail(err)
	}
	var loads []*load
	if parent := filepath.Dir(dir); strings.HasPrefix(filepath.Base(dir), "models--") && isHubCache(parent) {
		id, ok := model.IDOfDir(filepath.Base(dir))
		if !ok || len(opt.Models) > 0 && !slices.Equal(opt.Models, []model.ID{id}) {
			return fail(&model.Error{Op: "adopt", Class: model.Usage, File: dir, Err: errors.New("it is the folder of another model"), Hint: "name no model: the folder tells it"})
		}
		dir, opt.Models = parent, []model.ID{id}
	}
	cache := isHubCache(dir)
	switch {
	case cache && opt.Revision != "":
		return fail(&model.Error{Op: "adopt", Class: model.Usage, File: dir, Err: errors.New("it is a cache, which has names for its revisions"), Hint: "name the models without @REV"})
	case cache:
		if loads, done.Refused, err = w.hubCache(dir, opt.Models); err != nil {
			return fail(err)
		}
	case len(opt.Models) != 1 || opt.Models[0].Scheme != model.Hub:
		return fail(&model.Error{
			Op: "adopt", Class: model.Usage, File: dir, Err: errors.New("it is a plain folder, which does not tell what model it is"),
			Hint: "name it: ema store adopt DIR org/name",
		})
	default:
		l, err := w.plainFolder(dir, opt.Models[0])
		if err != nil {
			return fail(err)
		}
		loads = []*load{l}
	}
	for _, l := range loads {
		m, err := w.adoptOne(ctx, dir, l, opt)
		switch {
		case err == nil:
			done.Models = append(done.Models, m)
		case cache && refusal(err):
			done.Refused = append(done.Refused, diskError("adopt", l.id, dir, err))
		default:
			return done, diskError("adopt", l.id, dir, err)
		}
	}
	return done, nil
}

// refusal reports whether an error is about one revision alone.
func refusal(err error) bool {
	switch model.ClassOf(err) {
	case model.Integrity, model.Usage, model.NotFound:
		return true
	}
	return errors.Is(err, fs.ErrPermission)
}

// source is the real path of the folder to adopt from. It must have nothing to do with the store.
func (w *Writer) source(dir string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", &model.Error{Op: "adopt", Class: model.Usage, File: dir, Err: errors.New(why), Hint: "name another folder"}
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", &model.Error{Op: "adopt", Class: model.NotFound, File: dir, Err: errors.New("there is no such folder")}
	case err != nil:
		return "", err
	case !info.IsDir():
		return refuse("it is not a folder")
	}
	if dir, err = filepath.Abs(dir); err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", err
	}
	ours := []string{w.path, w.state}
	for _, t := range w.coldTiers() {
		ours = append(ours, w.colder[t])
	}
	for _, own := range ours {
		real, err := filepath.EvalSymlinks(own)
		switch {
		case err != nil:
		case real == dir:
			return refuse("it is this store itself")
		case within(real, dir):
			return refuse("it lies inside this store, which has it already")
		case within(dir, real):
			return refuse("this store lies in it")
		}
	}
	return dir, nil
}

// adoptOne adopts one revision.
func (w *Writer) adoptOne(ctx context.Context, dir string, l *load, opt Adopting) (AdoptedModel, error) {
	m := AdoptedModel{ID: l.id}
	refuse := func(file string, err error) (AdoptedModel, error) {
		return m, &model.Error{Op: "adopt", Class: model.Integrity, Model: l.id, File: file, Err: err, Hint: "nothing of this revision was adopted"}
	}
	if !l.cache {
		l.refs = []string{cmp.Or(opt.Revision, defaultRevision)}
	}
	if err := w.differs(l); err != nil {
		return m, err
	}
	var free []string
	files, err := w.haul(ctx, l, opt, &m, func(files []model.File) (err error) {
		if l.commit == "" {
			l.commit, l.listing = model.CommitOf(files, func(f model.File) string { return f.Digest.String() }), files
		}
		m.Commit, m.Path, m.Files, m.Revision = l.commit, w.Snapshot(l.id, l.commit), len(files), l.commit
		if free, err = w.freeNames(l, &m); err != nil {
			return err
		}
		return w.differs(l)
	})
	if err != nil {
		return m, err
	}
	for _, f := range distinctFiles(files) {
		m.Bytes += model.Bytes(f.Size)
	}
	rec, err := w.Record(l.id, l.commit)
	if err == nil && w.Available(l.id, l.commit, files) && hasAll(rec.Files, files) && w.allNamed(l, free) {
		m.Existing = true
		return m, nil
	}
	if err == nil { // what was pulled of the same commit stays a part of it
		for _, f := range rec.Files {
			if !hasPath(files, f.Path) && w.Available(l.id, l.commit, []model.File{f}) {
				files = append(files, f)
			}
		}
	}
	manifest := &model.Manifest{ID: l.id, Revision: m.Revision, Commit: l.commit, Files: l.listing}
	_, err = w.Commit(ctx, manifest, files, Record{Source: "adopted from " + dir, CompletedAt: time.Now().UTC(), Unlisted: l.unlisted})
	if err != nil {
		if e, ok := errors.AsType[*model.Error](err); ok && e.Class == model.Integrity {
			return refuse(e.File, e.Err)
		}
		return m, err
	}
	for _, name := range free {
		if name == m.Revision {
			continue
		}
		if err := w.writeRef(l.id, name, l.commit); err != nil {
			return m, err
		}
	}
	return m, nil
}

// freeNames are the names under which a revision can be found, and the first of them becomes its revision. A name that
// means another commit here keeps its meaning.
func (w *Writer) freeNames(l *load, m *AdoptedModel) (free []string, err error) {
	for _, name := range l.refs {
		at, taken := w.Ref(l.id, name)
		switch {
		case !taken || at == l.commit:
			free = append(free, name)
		case l.cache:
			m.Notes = append(m.Notes, fmt.Sprintf("%s is commit %.12s here and stays it; what was adopted is commit %.12s", name, at, l.commit))
		default:
			return nil, &model.Error{
				Op: "adopt", Class: model.Usage, Model: l.id, Err: fmt.Errorf("its %s is commit %.12s here, with other content", name, at),
				Hint: "adopt it under another name, as in " + l.id.Public() + "@mine, or remove the other one first",
			}
		}
	}
	if len(free) > 0 {
		m.Revision = free[0]
	}
	return free, nil
}

func (w *Writer) allNamed(l *load, names []string) bool {
	for _, name := range names {
		if at, ok := w.Ref(l.id, name); !ok || at != l.commit {
			return false
		}
	}
	return true
}

// differs refuses a commit that is here already with other content, as far as names and sizes tell it. What is not told is
// wanted to be as it is here.
func (w *Writer) differs(l *load) error {
	if l.commit == "" {
		return nil
	}
	if _, err := os.Lstat(w.Snapshot(l.id, l.commit)); err != nil {
		return ignoreMissing(err)
	}
	here := map[string]model.File{}
	if r := readRecord(w.recordPath(l.id, l.commit)); r != nil {
		for _, f := range r.Files {
			here[f.Path] = f
		}
	}
	if files, ok := w.readTree(l.id, l.commit); ok {
		for _, f := range files {
			if _, known := here[f.Path]; !known {
				here[f.Path] = f
			}
		}
	}
	for i, c := range l.files {
		f, known := here[c.path]
		if !known {
			continue
		}
		same := f.Size == c.was.size
		if same && !c.want.IsZero() && c.want.Algo() == f.Digest.Algo() {
			same = c.want == f.Digest
		}
		if !same {
			return &model.Error{
				Op: "adopt", Class: model.Integrity, Model: l.id, File: c.path,
				Err:  fmt.Errorf("commit %.12s is here already, and has other content under this name (%v of %d bytes, not %v of %d)", l.commit, f.Digest, f.Size, c.want, c.was.size),
				Hint: "a commit has one content: one of both is damaged or was edited; see which with: ema verify " + l.id.Public(),
			}
		}
		l.files[i].want = f.Digest
	}
	return nil
}

func hasPath(files []model.File, path string) bool {
	return slices.ContainsFunc(files, func(f model.File) bool { return f.Path == path })
}

// hasAll reports whether all of some files are among others.
func hasAll(among, some []model.File) bool {
	digests := make(map[string]model.Digest, len(among))
	for _, f := range among {
		digests[f.Path] = f.Digest
	}
	for _, f := range some {
		if digests[f.Path] != f.Digest {
			return false
		}
	}
	return true
}

// distinctFiles is one file of each content.
func distinctFiles(files []model.File) []model.File {
	seen := map[model.Digest]bool{}
	var all []model.File
	for _, f := range files {
		if !seen[f.Digest] {
			seen[f.Digest] = true
			all = append(all, f)
		}
	}
	return all
}

// Bounds of what is published together: see the pipeline's.
const (
	haulFiles = 256
	haulLarge = 16
)

// haul takes the contents of a revision and publishes them. It returns its files with their digests, which judge is shown before
// the last of them are published.
func (w *Writer) haul(ctx context.Context, l *load, opt Adopting, m *AdoptedModel, judge func([]model.File) error) (files []model.File, err error) {
	var staged []*Staged
	larges := 0
	defer func() {
		for _, st := range staged { // when it failed: a later run takes them anew
			err = errors.Join(err, w.drop(st))
		}
	}()
	publish := func() error {
		if err := w.Publish(ctx, staged); err != nil {
			return err
		}
		staged, larges = nil, 0
		return nil
	}
	byFile, done := map[string]model.Digest{}, map[model.Digest]bool{}
	for _, c := range l.files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f := model.File{Path: c.path, Size: c.was.size, Digest: c.want}
		for _, known := range l.listing {
			if known.Path == c.path && known.Digest == c.want {
				f = known
			}
		}
		if d, twice := byFile[c.from]; twice {
			f.Digest = d
			files = append(files, f)
			continue
		}
		t := taking{
			id: l.id, from: c.from, was: c.was, want: c.want, mayLink: c.mine && !opt.Copy, progress: opt.Progress,
		}
		if t.want.IsZero() && w.perhapsHere(l.id, c.was.size) {
			t.progress = nil
			if f.Digest, err = w.hashOf(ctx, t); err != nil {
				return nil, err
			}
			t.want, t.progress = f.Digest, opt.Progress
		}
		st, how, err := w.bring(ctx, t, done)
		if err != nil {
			return nil, err
		}
		f.Digest = t.want
		if st != nil {
			f.Digest = st.digest
		}
		byFile[c.from] = f.Digest
		files = append(files, f)
		if st != nil && t.want.IsZero() && (done[f.Digest] || w.isHere(l.id, f)) { // which only its content has told
			if err := w.drop(st); err != nil {
				return nil, err
			}
			st = nil
		}
		if st != nil {
			staged = append(staged, st)
			if m.count(how); st.size > BlockSize {
				larges++
			}
		} else if !done[f.Digest] {
			m.Kept++
		}
		done[f.Digest] = true
		if len(staged) >= haulFiles || larges >= haulLarge {
			if err := publish(); err != nil {
				return nil, err
			}
		}
	}
	if err := judge(files); err != nil {
		return nil, err
	}
	return files, publish()
}

// bring takes one file; nothing if its content is here, proven.
func (w *Writer) bring(ctx context.Context, t taking, done map[model.Digest]bool) (*Staged, manner, error) {
	if !t.want.IsZero() && (done[t.want] || w.isHere(t.id, model.File{Digest: t.want, Size: t.was.size})) {
		if t.progress != nil {
			t.progress(t.was.size)
		}
		return nil, 0, nil
	}
	if t.was.size <= BlockSize {
		st, err := w.takeSmall(t)
		return st, copied, err
	}
	return w.take(ctx, t)
}

// isHere reports whether a content is here, proven.
func (s *Store) isHere(id model.ID, f model.File) bool {
	b, err := s.Blob(id, f.Digest)
	return err == nil && b.Proof == Proven && b.Size == f.Size
}

func (m *AdoptedModel) count(how manner) {
	switch how {
	case cloned:
		m.Cloned++
	case linked:
		m.Linked++
	default:
		m.Copied++
	}
}

// perhapsHere reports whether a model has a content of that size: then a file is read before it is taken.
func (w *Writer) perhapsHere(id model.ID, size int64) bool {
	all, err := os.ReadDir(w.blobsDir(id))
	if err != nil || size <= BlockSize {
		return false
	}
	return slices.ContainsFunc(all, func(e fs.DirEntry) bool {
		info, err := os.Stat(w.blobPath(id, e.Name()))
		return err == nil && isBlobName(e.Name()) && info.Size() == size
	})
}
