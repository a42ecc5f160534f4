package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ema/internal/model"
)

// Kind is what a removal takes away. The order is the order of removing: what refers to something
// goes, durably, before what it refers to.
type Kind uint8

// The kinds.
const (
	KindRef Kind = iota
	KindRecord
	KindSnapshot
	KindTree
	KindBlob
	KindColder  // the content of a blob that lies in a colder tier; its name in the store is a KindBlob
	KindPartial // a file that was being fetched, or the journal about it
	KindSidecar
	KindFolder // an empty folder, or a folder where something was built
)

// String is the name used in messages and JSON.
func (k Kind) String() string {
	return [...]string{"ref", "record", "snapshot", "tree", "blob", "colder", "partial", "checksums", "folder"}[k]
}

// Doomed is one thing that a Removal takes away.
type Doomed struct {
	Kind  Kind
	Model model.ID // zero for what belongs to no model that can be named
	Name  string   // ref, commit or blob
	Bytes model.Bytes

	path string // absolute
	busy string // the folder's name, if the blob's lock must be free
}

// Removal is what is to go, in order, and what that frees.
type Removal struct {
	Items []Doomed
	Bytes model.Bytes
}

func (r *Removal) add(d Doomed) {
	r.Items = append(r.Items, d)
	r.Bytes += d.Bytes
}

// PlanRemove says what removing one revision takes away - its refs, its snapshot, and the blobs that
// no other snapshot uses - or with an empty commit the whole model. It changes nothing. What is not
// here is an error of Class NotFound.
func (s *Store) PlanRemove(id model.ID, commit string) (Removal, error) {
	var r Removal
	refs, err := readRefs(s.refsDir(id))
	if err != nil {
		return r, diskError("plan removal", id, "", err)
	}
	here, err := s.commitsHere(id)
	if err != nil {
		return r, diskError("plan removal", id, "", err)
	}
	whole := commit == ""
	if _, err := os.Stat(s.modelDir(id)); err != nil || !whole && !slices.Contains(here, commit) {
		return r, &model.Error{Op: "plan removal", Class: model.NotFound, Model: id, File: commit, Err: notHere{}, Hint: `"ema ls" shows what is here`}
	}
	for name, c := range refs {
		if whole || c == commit {
			r.add(Doomed{Kind: KindRef, Model: id, Name: name, path: filepath.Join(s.refsDir(id), filepath.FromSlash(name))})
		}
	}
	if whole {
		return r, diskError("plan removal", id, "", s.planWhole(id, here, &r))
	}
	s.planRevision(id, commit, &r)
	used, err := s.usedBlobs(id, commit)
	if err != nil {
		return r, diskError("plan removal", id, "", err)
	}
	mine, err := s.blobsOf(id, commit)
	if err != nil {
		return r, diskError("plan removal", id, "", err)
	}
	for name := range mine.names {
		if info, err := os.Lstat(s.blobPath(id, name)); err == nil && !used.has(name, info) {
			s.planBlob(id, name, info, &r)
		}
	}
	r.sort()
	if len(here) == 1 {
		s.planFolders(id, &r)
	}
	return r, nil
}

// commitsHere lists the commits of which there is a snapshot, or only a record.
func (s *Store) commitsHere(id model.ID) ([]string, error) {
	seen := map[string]bool{}
	for _, dir := range []string{s.snapshotsDir(id), s.recordsDir(id)} {
		entries, err := os.ReadDir(dir)
		if ignoreMissing(err) != nil {
			return nil, err
		}
		for _, e := range entries {
			if name := strings.TrimSuffix(e.Name(), ".json"); model.IsCommit(name) {
				seen[name] = true
			}
		}
	}
	refs, err := readRefs(s.refsDir(id))
	for _, c := range refs {
		seen[c] = true
	}
	var commits []string
	for c := range seen {
		commits = append(commits, c)
	}
	return commits, err
}

// planRevision adds what belongs to one commit alone, without refs and blobs.
func (s *Store) planRevision(id model.ID, commit string, r *Removal) {
	r.addIfThere(Doomed{Kind: KindRecord, Model: id, Name: commit, path: s.recordPath(id, commit)})
	r.addIfThere(Doomed{Kind: KindSnapshot, Model: id, Name: commit, path: s.Snapshot(id, commit)})
	r.addIfThere(Doomed{Kind: KindTree, Model: id, Name: commit, path: filepath.Join(s.treesDir(id), commit+".json")})
	r.addIfThere(Doomed{Kind: KindTree, Model: id, Name: commit, path: filepath.Join(s.modelDir(id), ".no_exist", commit)})
}

func (r *Removal) addIfThere(d Doomed) {
	info, err := os.Lstat(d.path)
	if err != nil {
		return
	}
	d.Bytes = treeBytesOnDisk(d.path, info)
	r.add(d)
}

// treeBytesOnDisk sums the regular files at or below path: links weigh nothing, nor does a file that has other names.
func treeBytesOnDisk(path string, info fs.FileInfo) (sum model.Bytes) {
	if info.Mode().IsRegular() {
		return alone(info)
	}
	if !info.IsDir() {
		return 0
	}
	_ = filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				sum += alone(info)
			}
		}
		return nil // what cannot be read is not counted
	})
	return sum
}

// alone is what the removal of one name of a file frees.
func alone(info fs.FileInfo) model.Bytes {
	if links(info) > 1 {
		return 0
	}
	return model.Bytes(info.Size())
}

func (s *Store) planBlob(id model.ID, name string, info fs.FileInfo, r *Removal) {
	r.add(Doomed{Kind: KindBlob, Model: id, Name: name, Bytes: treeBytesOnDisk(s.blobPath(id, name), info), path: s.blobPath(id, name)})
	r.addIfThere(Doomed{Kind: KindSidecar, Model: id, Name: name, path: s.sidecarPath(id, name)})
	for _, t := range s.coldTiers() {
		r.addIfThere(Doomed{Kind: KindColder, Model: id, Name: name, path: s.blobIn(t, id, name)})
		r.addIfThere(Doomed{Kind: KindSidecar, Model: id, Name: name, path: s.sidecarIn(t, id, name)})
	}
}

// planWhole adds everything of a model but its refs.
func (s *Store) planWhole(id model.ID, commits []string, r *Removal) error {
	for _, c := range commits {
		s.planRevision(id, c, r)
	}
	blobs, err := os.ReadDir(s.blobsDir(id))
	if ignoreMissing(err) != nil {
		return err
	}
	for _, e := range blobs {
		d := Doomed{Kind: KindBlob, Model: id, Name: e.Name(), path: s.blobPath(id, e.Name())}
		if etag, part := etagOfIncomplete(e.Name()); part {
			d.Kind, d.Name, d.busy = KindPartial, etag, id.DirName()
		}
		r.addIfThere(d)
	}
	dirs := map[string]Kind{s.partialsDir(id): KindPartial, s.blocksDir(id): KindSidecar}
	for _, t := range s.coldTiers() {
		dirs[s.tierBlobs(t, id)] = KindColder
	}
	for dir, kind := range dirs {
		entries, err := os.ReadDir(dir)
		if ignoreMissing(err) != nil {
			return err
		}
		for _, e := range entries {
			d := Doomed{Kind: kind, Model: id, Name: stem(e.Name()), path: filepath.Join(dir, e.Name())}
			if kind == KindPartial {
				d.busy = id.DirName()
			}
			r.addIfThere(d)
		}
	}
	r.addIfThere(Doomed{Kind: KindRecord, Model: id, Name: "move", path: s.movePath(id)})
	r.add(Doomed{Kind: KindFolder, Model: id, Name: buildDir, path: s.buildDir(id)})
	r.sort()
	s.planFolders(id, r)
	return nil
}

// planFolders adds a model's folders, deepest first; what else is in one of them keeps it.
func (s *Store) planFolders(id model.ID, r *Removal) {
	for _, dir := range []string{
		s.buildDir(id),
		s.blobsDir(id), s.refsDir(id), s.snapshotsDir(id), s.treesDir(id), filepath.Join(s.modelDir(id), ".no_exist"),
		s.modelDir(id), s.blocksDir(id), s.partialsDir(id), s.recordsDir(id),
	} {
		r.add(Doomed{Kind: KindFolder, Model: id, path: dir})
	}
	for _, t := range s.coldTiers() {
		r.add(Doomed{Kind: KindFolder, Model: id, path: s.tierBlobs(t, id)})
		r.add(Doomed{Kind: KindFolder, Model: id, path: filepath.Dir(s.tierBlobs(t, id))})
	}
}

// stem is the part of a name before its first dot: the etag of a blob's files.
func stem(name string) string {
	before, _, _ := strings.Cut(name, ".")
	return before
}

func (r *Removal) sort() {
	slices.SortStableFunc(r.Items, func(a, b Doomed) int {
		if a.Kind != b.Kind {
			return int(a.Kind) - int(b.Kind)
		}
		return strings.Compare(a.path, b.path)
	})
}

// Remove takes away what was planned, in the order of kinds, each durably gone before the next: a
// crash leaves blobs that nobody names, never a name of something that is gone. It never follows a
// link. Partial files that somebody fetches at this moment, and folders that are not empty, stay.
func (w *Writer) Remove(ctx context.Context, r Removal) error {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		clear(w.left) // it is read again when needed
	}()
	for _, d := range r.Items {
		if !d.Model.IsZero() {
			// A removal before this one may have been killed before its names were durably gone.
			w.changed(w.refsDir(d.Model), w.snapshotsDir(d.Model))
		}
	}
	kind := KindRef
	for _, d := range r.Items {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, w.saveNames())
		}
		if d.Kind != kind {
			if err := w.saveNames(); err != nil {
				return diskError("remove", d.Model, d.Name, err)
			}
			kind = d.Kind
		}
		if err := w.removeOne(d); err != nil {
			return diskError("remove", d.Model, d.path, err)
		}
	}
	return diskError("remove", model.ID{}, "", w.saveNames())
}

func (w *Writer) removeOne(d Doomed) error {
	if !w.inside(d.path) || d.path == w.path || d.path == w.state {
		return &model.Error{Op: "remove", Class: model.Usage, Model: d.Model, File: d.path, Err: errors.New("it is not in this store")}
	}
	if d.busy != "" {
		busy, err := w.fetching(d.busy, d.Name)
		if busy || err != nil {
			return err
		}
	}
	switch {
	case d.Kind == KindRef:
		return w.removeRef(d.path)
	case d.Kind == KindSnapshot, d.Kind == KindTree, d.Kind == KindFolder && d.Name != "":
		return w.vanish(d)
	case d.Kind == KindFolder:
		return w.removeEmpty(d.path)
	}
	return w.remove(d.path)
}

// removeRef removes a ref and the folders that its name made (refs/pr/1), if they are empty now.
func (w *Writer) removeRef(name string) error {
	if err := w.remove(name); err != nil {
		return err
	}
	for dir := filepath.Dir(name); filepath.Base(dir) != "refs"; dir = filepath.Dir(dir) {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			return ignoreMissing(err)
		}
		if err := w.removeEmpty(dir); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) removeEmpty(dir string) error {
	err := w.remove(dir)
	if errors.Is(err, fs.ErrExist) { // ENOTEMPTY
		return nil
	}
	w.forgetFolders(dir)
	return err
}

// vanish takes a folder out of sight by one rename before taking it apart, so that nobody ever sees
// half of a snapshot.
func (w *Writer) vanish(d Doomed) error {
	info, err := os.Lstat(d.path)
	if err != nil {
		return ignoreMissing(err)
	}
	if !info.IsDir() {
		return w.remove(d.path)
	}
	if d.Kind == KindSnapshot {
		if err := w.folder(w.buildDir(d.Model)); err != nil {
			return err
		}
		trash := filepath.Join(w.buildDir(d.Model), "trash."+newSuffix())
		if err := w.rename(d.path, trash); err != nil {
			return err
		}
		if err := w.saveNames(); err != nil {
			return err
		}
		d.path = trash
	}
	w.forgetFolders(d.path)
	return w.removeTree(d.path)
}

// usage is which blobs snapshots use.
type usage struct {
	names  map[string]bool
	inodes map[uint64]bool // of links that lead to a blob by some other way than we would write
}

func (u usage) has(name string, info fs.FileInfo) bool {
	return u.names[name] || len(u.inodes) > 0 && u.inodes[identityOf(info).inode]
}

// usedBlobs collects what all snapshots of a model use, but those of one commit.
func (s *Store) usedBlobs(id model.ID, without string) (usage, error) {
	u := usage{names: map[string]bool{}, inodes: map[uint64]bool{}}
	entries, err := os.ReadDir(s.snapshotsDir(id))
	if ignoreMissing(err) != nil {
		return u, err
	}
	for _, e := range entries {
		if e.Name() != without {
			if err := s.use(id, e.Name(), &u); err != nil {
				return u, err
			}
		}
	}
	return u, nil
}

func (s *Store) blobsOf(id model.ID, commit string) (usage, error) {
	u := usage{names: map[string]bool{}, inodes: map[uint64]bool{}}
	return u, s.use(id, commit, &u)
}

// use adds what one snapshot uses. Unlike a listing it must not overlook anything: what it does not
// see may be removed.
func (s *Store) use(id model.ID, commit string, u *usage) error {
	v := s.viewOf(id, commit)
	return filepath.WalkDir(v.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err)
		}
		if e.Type()&fs.ModeSymlink == 0 {
			return nil
		}
		target, err := os.Readlink(name)
		if err != nil {
			return ignoreMissing(err)
		}
		if blob, ok := v.blobOf(name, target); ok {
			u.names[blob] = true
			return nil
		}
		if info, err := os.Stat(name); err == nil {
			u.inodes[identityOf(info).inode] = true
		}
		return nil
	})
}

// PlanCollect says what nobody needs any more: blobs that no snapshot links, files that were being
// fetched and their journals, checksums and records of what is gone, and what a crash left half
// built. Only what has not changed for olderThan goes, and no file that somebody fetches now. It
// changes nothing.
func (s *Store) PlanCollect(olderThan time.Duration, now time.Time) (Removal, error) {
	var r Removal
	names := map[string]bool{}
	for _, dir := range []string{s.path, filepath.Join(s.state, "blocks"), filepath.Join(s.state, "partials"), filepath.Join(s.state, "models")} {
		entries, err := os.ReadDir(dir)
		if ignoreMissing(err) != nil {
			return r, diskError("plan collection", model.ID{}, dir, err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "models--") {
				names[e.Name()] = true
			}
		}
	}
	before := now.Add(-olderThan)
	for name := range names {
		if id, ok := s.idOf(name); ok && id.DirName() == name {
			if err := s.collect(id, before, &r); err != nil {
				return r, diskError("plan collection", id, "", err)
			}
		}
	}
	r.sort()
	return r, nil
}

// collect plans one model.
func (s *Store) collect(id model.ID, before time.Time, r *Removal) error {
	old := func(dir string, each func(name string, info fs.FileInfo) error) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return ignoreMissing(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || info.ModTime().After(before) {
				continue // gone meanwhile, or too young
			}
			if err := each(e.Name(), info); err != nil {
				return err
			}
		}
		return nil
	}
	partial := func(path, etag string) error {
		busy, err := s.fetching(id.DirName(), etag)
		if err == nil && !busy {
			r.addIfThere(Doomed{Kind: KindPartial, Model: id, Name: etag, path: path, busy: id.DirName()})
		}
		return err
	}
	used, err := s.usedBlobs(id, "")
	if err != nil {
		return err
	}
	return errors.Join(
		old(s.blobsDir(id), func(name string, info fs.FileInfo) error {
			if etag, part := etagOfIncomplete(name); part {
				return partial(s.blobPath(id, name), etag)
			}
			if isBlobName(name) && !used.has(name, info) {
				s.planBlob(id, name, info, r)
			}
			return nil
		}),
		old(s.partialsDir(id), func(name string, _ fs.FileInfo) error {
			return partial(filepath.Join(s.partialsDir(id), name), stem(name))
		}),
		s.collectColder(id, used, old, partial, r),
		old(s.blocksDir(id), func(name string, _ fs.FileInfo) error {
			blob, t, whole := parseSidecarName(name)
			if _, err := os.Lstat(s.blobPath(id, blob)); !whole || errors.Is(err, fs.ErrNotExist) || s.Has(t) && t != s.tierOf(id, blob) {
				r.addIfThere(Doomed{Kind: KindSidecar, Model: id, Name: stem(name), path: filepath.Join(s.blocksDir(id), name)})
			}
			return nil
		}),
		old(s.recordsDir(id), func(name string, _ fs.FileInfo) error {
			commit, whole := strings.CutSuffix(name, ".json")
			if _, err := os.Lstat(s.Snapshot(id, commit)); !whole || errors.Is(err, fs.ErrNotExist) {
				r.addIfThere(Doomed{Kind: KindRecord, Model: id, Name: stem(name), path: filepath.Join(s.recordsDir(id), name)})
			}
			return nil
		}),
		old(s.buildDir(id), func(name string, _ fs.FileInfo) error {
			r.addIfThere(Doomed{Kind: KindFolder, Model: id, Name: name, path: filepath.Join(s.buildDir(id), name)})
			return nil
		}),
	)
}

// collectColder plans what lies in colder tiers and no name leads to. A content that a snapshot wants stays, though its name is
// gone: it can be found again.
func (s *Store) collectColder(id model.ID, used usage, old func(string, func(string, fs.FileInfo) error) error, partial func(path, etag string) error, r *Removal) error {
	for _, t := range s.coldTiers() {
		if s.reachTier(t) != nil {
			continue // what is away is not judged
		}
		err := old(s.tierBlobs(t, id), func(name string, info fs.FileInfo) error {
			path := s.blobIn(t, id, name)
			if etag, part := etagOfIncomplete(name); part {
				return partial(path, etag)
			}
			if !isBlobName(name) || s.tierOf(id, name) == t {
				return nil
			}
			if s.orphan(t, id, name) || !used.has(name, info) {
				r.addIfThere(Doomed{Kind: KindColder, Model: id, Name: name, path: path})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
