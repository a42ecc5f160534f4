package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"ema/internal/model"
)

// State says how much of a revision, or of one of its files, is here.
type State string

// The states, best first. A revision is as its worst file is.
const (
	Available  State = "available"  // there, and its bytes were verified by this store
	Unverified State = "unverified" // complete as far as anybody can tell, but never verified here
	Incomplete State = "partial"    // something that is wanted is missing
	Damaged    State = "damaged"    // a file is not what it was, or not what it should be
)

// Model is what the store holds of one model, whoever put it there.
type Model struct {
	ID        model.ID
	Revisions []Revision // by commit
	// Size of all complete contents, each once.
	Size model.Bytes
	// Tiers is how much of Size lies in which tier.
	Tiers map[model.Tier]model.Bytes
	// Away is a tier into which names of contents lead that are not found there; "" when all are.
	Away model.Tier
	// Incomplete is the size of files that are being fetched, or were when somebody was killed.
	Incomplete model.Bytes
}

// Revision is one commit of a model.
type Revision struct {
	Commit string
	Refs   []string // names that point here, sorted
	Record *Record  // nil if another tool made it
	Files  []FileState
	Size   model.Bytes // of the files that are here, each content once
	State  State
}

// FileState is one file of a revision. Of a foreign file, Digest is zero if nothing tells it.
type FileState struct {
	model.File
	State State
}

// Models lists everything that lies under the store's path, ours and others', in the order of their
// folders' names. Files that appear or vanish meanwhile show up as a state, never as a failure; an
// error means that the folder itself cannot be read.
func (s *Store) Models(ctx context.Context) ([]Model, error) {
	entries, err := os.ReadDir(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, diskError("list models", model.ID{}, s.path, err)
	}
	found := make([]*Model, len(entries))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * runtime.GOMAXPROCS(0)) // it is system calls, mostly on cached metadata
	for i, e := range entries {
		if !strings.HasPrefix(e.Name(), "models--") {
			continue
		}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if id, ok := s.idOf(e.Name()); ok {
				m := s.look(id)
				found[i] = &m
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var models []Model
	for _, m := range found {
		if m != nil {
			models = append(models, *m)
		}
	}
	return models, nil
}

// Model is what the store holds of one model; fs.ErrNotExist in an error of Class NotFound if that
// is nothing.
func (s *Store) Model(id model.ID) (Model, error) {
	if info, err := os.Stat(s.modelDir(id)); err != nil || !info.IsDir() {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return Model{}, &model.Error{Op: "find", Class: model.NotFound, Model: id, Err: notHere{}, Hint: `"ema ls" shows what is here`}
		}
		return Model{}, diskError("find", id, s.modelDir(id), err)
	}
	return s.look(id), nil
}

// notHere is fs.ErrNotExist in words that fit a model.
type notHere struct{}

func (notHere) Error() string        { return "not in the store" }
func (notHere) Is(target error) bool { return target == fs.ErrNotExist }

// Available reports whether every wanted file of a revision is linked, present and proven.
func (s *Store) Available(id model.ID, commit string, wanted []model.File) bool {
	v := s.viewOf(id, commit)
	for _, f := range wanted {
		if v.file(f, true, identity{}).State != Available {
			return false
		}
	}
	return true
}

// idOf is the id of a model's folder. Folders of URLs and of local folders do not tell it, so
// their records do.
func (s *Store) idOf(dirName string) (model.ID, bool) {
	id, ok := model.IDOfDir(dirName)
	if ok && !strings.HasPrefix(id.Name, "url/") && !strings.HasPrefix(id.Name, "file/") {
		return id, true
	}
	records := filepath.Join(s.state, "models", dirName)
	entries, err := os.ReadDir(records)
	if err != nil {
		return id, ok
	}
	for _, e := range entries {
		if r := readRecord(filepath.Join(records, e.Name())); r != nil && r.ID.DirName() == dirName {
			return r.ID, true
		}
	}
	return id, ok
}

// look reads one model's folder. What cannot be read counts as absent.
func (s *Store) look(id model.ID) Model {
	m := Model{ID: id}
	blobs, _ := os.ReadDir(s.blobsDir(id))
	m.Tiers = map[model.Tier]model.Bytes{}
	known := make(map[string]located, len(blobs))
	for _, e := range blobs {
		tier := model.Hot
		if e.Type()&fs.ModeSymlink != 0 {
			tier = s.tierOf(id, e.Name())
		}
		info, err := os.Stat(s.blobPath(id, e.Name()))
		if err != nil && tier != model.Hot {
			m.Away = tier
		}
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if _, part := etagOfIncomplete(e.Name()); part {
			m.Incomplete += model.Bytes(info.Size())
		} else if isBlobName(e.Name()) {
			m.Size += model.Bytes(info.Size())
			m.Tiers[tier] += model.Bytes(info.Size())
			known[e.Name()] = located{info, tier}
		}
	}
	refs := map[string][]string{}
	named, _ := readRefs(s.refsDir(id))
	for name, commit := range named {
		refs[commit] = append(refs[commit], name)
	}
	here := map[string]bool{}
	snapshots, _ := os.ReadDir(s.snapshotsDir(id))
	for _, e := range snapshots {
		here[e.Name()] = true
		if model.IsCommit(e.Name()) && refs[e.Name()] == nil {
			refs[e.Name()] = []string{}
		}
	}
	sidecars, _ := os.ReadDir(s.blocksDir(id))
	checked := make(map[string]bool, len(sidecars))
	for _, e := range sidecars {
		checked[e.Name()] = true
	}
	for commit, names := range refs {
		slices.Sort(names)
		r := s.revision(id, commit, here[commit], known, checked)
		r.Refs = names
		m.Revisions = append(m.Revisions, r)
		for _, f := range r.Files {
			if f.Digest.IsZero() && f.State == Unverified {
				m.Size += model.Bytes(f.Size) // a regular file, whose content is in no blob
			}
		}
	}
	slices.SortFunc(m.Revisions, func(a, b Revision) int { return strings.Compare(a.Commit, b.Commit) })
	return m
}

// revision judges one commit: by the files that its record wanted, else by the list of all its
// files, else by what lies there.
func (s *Store) revision(id model.ID, commit string, here bool, known map[string]located, checked map[string]bool) Revision {
	v := s.viewOf(id, commit)
	v.known, v.checked = known, checked
	r := Revision{Commit: commit, Record: readRecord(s.recordPath(id, commit)), State: Available}
	if r.Record != nil && (r.Record.ID.DirName() != id.DirName() || r.Record.Commit != commit) {
		r.Record = nil
	}
	if r.Record != nil {
		for i, f := range r.Record.Files {
			r.add(v.file(f, true, r.Record.proven[i]))
		}
	} else if files, ok := s.readTree(id, commit); ok {
		for _, f := range files {
			r.add(v.file(f, false, identity{}))
		}
	} else {
		r.State = Unverified // nobody can tell whether this is all
		v.walk(func(f FileState) { r.add(f) })
	}
	if !here {
		r.State = worse(r.State, Incomplete)
	}
	seen := make(map[model.Digest]bool, len(r.Files))
	for _, f := range r.Files {
		if f.State == Incomplete || !f.Digest.IsZero() && seen[f.Digest] {
			continue
		}
		seen[f.Digest] = true
		r.Size += model.Bytes(f.Size)
	}
	return r
}

func (r *Revision) add(f FileState) {
	r.Files = append(r.Files, f)
	r.State = worse(r.State, f.State)
}

// worse is the state of what consists of a and b.
func worse(a, b State) State {
	for _, s := range []State{Damaged, Incomplete, Unverified} {
		if a == s || b == s {
			return s
		}
	}
	return Available
}

// view is one snapshot with the folders that it needs, so that ten thousand files cost few
// allocations.
type view struct {
	s                    *Store
	id                   model.ID
	dir, blobs, sidecars string
	known                map[string]located // blobs that were looked at already
	checked              map[string]bool    // names of the sidecars that are there; nil: nobody looked
}

func (s *Store) viewOf(id model.ID, commit string) view {
	return view{s: s, id: id, dir: s.Snapshot(id, commit), blobs: s.blobsDir(id), sidecars: s.blocksDir(id)}
}

// located is a blob's file, and the tier in which it lies.
type located struct {
	fs.FileInfo
	tier model.Tier
}

func (v view) stat(blob string) (located, error) {
	if l, ok := v.known[blob]; ok {
		return l, nil
	}
	info, err := os.Stat(v.blobs + "/" + blob)
	return located{info, v.s.tierOf(v.id, blob)}, err
}

// file judges one wanted file. Only for a file of our own does the name of the blob count: through
// a mirror, other tools store the same content under other names. proven is what the blob was when it
// was proven, zero if nobody remembers.
func (v view) file(f model.File, ours bool, proven identity) FileState {
	name := v.dir + "/" + f.Path
	target, err := os.Readlink(name)
	if err != nil {
		return FileState{f, v.plain(name, f.Size)}
	}
	blob, known := f.Digest.Hex(), target == linkTarget(f.Path, f.Digest)
	if !known {
		blob, known = v.blobOf(name, target)
	}
	if !known {
		return FileState{f, v.plain(name, f.Size)}
	}
	info, err := v.stat(blob)
	switch {
	case err != nil:
		return FileState{f, Incomplete}
	case !info.Mode().IsRegular() || info.Size() != f.Size || ours && blob != f.Digest.Hex():
		return FileState{f, Damaged}
	case info.tier == model.Hot && v.checked[blob+".crc"] && proven == identityOf(info.FileInfo):
		return FileState{f, Available}
	}
	return FileState{f, stateOf(prove(v.sidecars+"/"+sidecarName(blob, info.tier), info.FileInfo))}
}

func stateOf(p Proof) State {
	switch p {
	case Proven:
		return Available
	case Changed:
		return Damaged
	}
	return Unverified
}

// plain judges a file that is no link to a blob of ours: a copy, where another tool could not make
// links, or a link to who knows where.
func (v view) plain(name string, size int64) State {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return Incomplete
	case !info.Mode().IsRegular() || info.Size() != size:
		return Damaged
	}
	return Unverified
}

// blobOf is the blob's name that a snapshot's link leads to, if it leads into the model's blobs.
func (v view) blobOf(name, target string) (string, bool) {
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(name), target)
	}
	dir, blob := filepath.Split(filepath.Clean(target))
	return blob, filepath.Clean(dir) == v.blobs
}

// walk visits what lies in a snapshot, in path order.
func (v view) walk(visit func(FileState)) {
	_ = filepath.WalkDir(v.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // what cannot be read counts as absent
		}
		rel, err := filepath.Rel(v.dir, name)
		if err != nil {
			return nil
		}
		f := FileState{File: model.File{Path: filepath.ToSlash(rel)}, State: Incomplete}
		if info, err := os.Stat(name); err == nil {
			f.Size, f.State = info.Size(), Unverified
		}
		if target, err := os.Readlink(name); err == nil {
			if blob, ok := v.blobOf(name, target); ok {
				if d, err := model.ParseDigest(blob); err == nil {
					f.Digest = d
				}
				if f.State != Incomplete {
					f.State = v.file(f.File, false, identity{}).State
				}
			}
		}
		visit(f)
		return nil
	})
}
