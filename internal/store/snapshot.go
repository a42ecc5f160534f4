package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"ema/internal/model"
)

// defaultRevision is what a hub calls the revision of a request that names none.
const defaultRevision = "main"

// Commit makes a revision visible whose wanted files are all published, and returns the path of its
// snapshot. files are those of m that were wanted, with the digests of their published blobs. Of
// rec, ID, Revision, Commit and Files are filled in here.
//
// The snapshot appears whole, by one rename; one that exists already is completed link by link. The
// ref comes last, when everything that it leads to is durable. A commit that was asked for by its
// id gets a pin as its ref, since other tools prune what no ref names.
//
// A path that lies below another file, or behind a link inside the snapshot, is refused.
func (w *Writer) Commit(ctx context.Context, m *model.Manifest, files []model.File, rec Record) (string, error) {
	fail := func(err error) (string, error) { return "", diskError("commit", m.ID, "", err) }
	rev := m.Revision
	if rev == "" {
		rev = defaultRevision
	}
	if !model.IsCommit(m.Commit) {
		return fail(&model.Error{Op: "commit", Class: model.Integrity, Model: m.ID, Err: fmt.Errorf("%q is not a commit id", m.Commit)})
	}
	if err := model.CheckRevision(rev); err != nil {
		return fail(&model.Error{Op: "commit", Class: model.Usage, Model: m.ID, Err: err})
	}
	proven, err := w.checkFiles(m.ID, files)
	if err != nil {
		return fail(err)
	}
	snap := w.Snapshot(m.ID, m.Commit)
	info, err := os.Lstat(snap)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = w.build(ctx, m.ID, snap, files)
	case err == nil && !info.IsDir():
		err = clash(m.ID, snap, "is not a folder")
	case err == nil:
		err = w.complete(ctx, m.ID, snap, files)
	}
	if err != nil {
		return fail(err)
	}
	// The blobs may have been published by a process that died before it synced their names.
	if err := w.adopt(w.blobsDir(m.ID), w.blocksDir(m.ID)); err != nil {
		return fail(err)
	}
	rec.ID, rec.Revision, rec.Commit, rec.Files, rec.proven = m.ID, rev, m.Commit, files, proven
	if err := w.describe(m, rec); err != nil {
		return fail(err)
	}
	if err := w.saveNames(); err != nil {
		return fail(err)
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := w.nameRevision(m.ID, rev, m.Commit); err != nil {
		return fail(err)
	}
	return snap, nil
}

// checkFiles refuses names that cannot all exist, and files whose blob is not there. It returns what each
// blob is now, zero for those that were never proven.
func (w *Writer) checkFiles(id model.ID, files []model.File) ([]identity, error) {
	names := make(map[string]bool, len(files)) // true for a file, false for a folder above one
	proven := make([]identity, len(files))
	for i, f := range files {
		if err := model.CheckPath(f.Path); err != nil {
			return nil, &model.Error{Op: "commit", Class: model.Integrity, Model: id, File: f.Path, Err: err}
		}
		if _, used := names[f.Path]; used {
			return nil, clash(id, f.Path, "is named twice, or is a file and a folder")
		}
		names[f.Path] = true
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			if names[dir] {
				return nil, clash(id, f.Path, "lies below a file")
			}
			names[dir] = false
		}
		info, err := os.Stat(w.blobPath(id, f.Digest.Hex()))
		if f.Digest.IsZero() || errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || info.Size() != f.Size) {
			return nil, &model.Error{
				Op: "commit", Class: model.Integrity, Model: id, File: f.Path,
				Err: fmt.Errorf("its content (%d bytes, %v) is not published", f.Size, f.Digest),
			}
		}
		if err != nil {
			return nil, diskError("commit", id, f.Path, err)
		}
		if prove(w.sidecarHere(id, f.Digest.Hex()), info) == Proven {
			proven[i] = identityOf(info)
		}
	}
	return proven, nil
}

func clash(id model.ID, file, why string) error {
	return &model.Error{Op: "commit", Class: model.Integrity, Model: id, File: file, Err: errors.New("it " + why)}
}

// linkTarget is the relative link from a snapshot's file to its blob.
func linkTarget(file string, d model.Digest) string {
	return strings.Repeat("../", 2+strings.Count(file, "/")) + "blobs/" + d.Hex()
}

// build makes a snapshot where nobody looks, and moves it into place when it is durable.
func (w *Writer) build(ctx context.Context, id model.ID, snap string, files []model.File) error {
	// Two levels below the model's folder, as the snapshot will be: its links are right in both places.
	tmp := filepath.Join(w.buildDir(id), "snapshot."+newSuffix())
	for _, dir := range []string{filepath.Dir(snap), filepath.Dir(tmp)} {
		if err := w.folder(dir); err != nil {
			return err
		}
	}
	if err := w.disk.Mkdir(tmp, 0o777); err != nil {
		return err
	}
	w.changed(filepath.Dir(tmp), tmp)
	err := w.fill(ctx, tmp, files)
	if err == nil {
		err = w.saveNames()
	}
	if err == nil {
		err = w.rename(tmp, snap)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		err = w.complete(ctx, id, snap, files) // another tool was faster
	}
	if cleanErr := w.removeTree(tmp); err == nil {
		return cleanErr
	}
	return err // what could not be cleaned is for PlanCollect
}

// fill links all files in an empty folder.
func (w *Writer) fill(ctx context.Context, root string, files []model.File) error {
	made := map[string]bool{".": true}
	var mkdir func(dir string) error
	mkdir = func(dir string) error {
		if made[dir] {
			return nil
		}
		if err := mkdir(path.Dir(dir)); err != nil {
			return err
		}
		made[dir] = true
		name := filepath.Join(root, filepath.FromSlash(dir))
		w.changed(filepath.Dir(name), name)
		return w.disk.Mkdir(name, 0o777)
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := mkdir(path.Dir(f.Path)); err != nil {
			return err
		}
		name := filepath.Join(root, filepath.FromSlash(f.Path))
		if err := w.disk.Symlink(linkTarget(f.Path, f.Digest), name); err != nil {
			return err
		}
	}
	return nil
}

// complete adds or replaces single links of an existing snapshot, each atomically.
func (w *Writer) complete(ctx context.Context, id model.ID, snap string, files []model.File) error {
	if err := w.folder(w.buildDir(id)); err != nil {
		return err
	}
	if err := w.adopt(filepath.Dir(snap), snap); err != nil {
		return err
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.ownFolders(id, snap, path.Dir(f.Path)); err != nil {
			return err
		}
		name := filepath.Join(snap, filepath.FromSlash(f.Path))
		w.changed(filepath.Dir(name))
		target := linkTarget(f.Path, f.Digest)
		info, err := os.Lstat(name)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case err == nil && info.IsDir():
			return clash(id, f.Path, "is a folder in the snapshot that exists already")
		case err == nil && info.Mode()&fs.ModeSymlink != 0:
			if now, err := os.Readlink(name); err == nil && now == target {
				continue
			}
		}
		tmp := filepath.Join(w.buildDir(id), "link."+newSuffix())
		if err := w.disk.Symlink(target, tmp); err != nil {
			return err
		}
		if err := w.rename(tmp, name); err != nil {
			return errors.Join(err, w.remove(tmp))
		}
	}
	return nil
}

// ownFolders makes the folders of a path inside a snapshot, and refuses to go through a link: what
// lies behind it is not ours.
func (w *Writer) ownFolders(id model.ID, snap, dir string) error {
	if dir == "." {
		return nil
	}
	at := snap
	for part := range strings.SplitSeq(dir, "/") {
		at = filepath.Join(at, part)
		info, err := os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := w.folder(at); err != nil {
				return err
			}
		case err != nil:
			return err
		case !info.IsDir():
			return clash(id, dir, "is not a folder in the snapshot that exists already")
		}
		w.changed(at)
	}
	return nil
}

// describe writes the tree and the record of a revision.
func (w *Writer) describe(m *model.Manifest, rec Record) error {
	if tree, ok := treeBytes(m.Files); ok && len(m.Files) > 0 { // without files nobody knows what there are
		name := filepath.Join(w.treesDir(m.ID), m.Commit+".json")
		if err := w.folder(filepath.Dir(name)); err != nil {
			return err
		}
		if err := w.writeBuilt(m.ID, name, tree); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(rec, "", " ")
	if err != nil {
		return err
	}
	name := w.recordPath(m.ID, m.Commit)
	if err := w.folder(filepath.Dir(name)); err != nil {
		return err
	}
	return w.writeNew(name, append(text, '\n'))
}

// nameRevision writes the ref of a revision, or a pin for a bare commit that no ref names.
func (w *Writer) nameRevision(id model.ID, rev, commit string) error {
	if !model.IsCommit(rev) {
		return w.writeRef(id, rev, commit)
	}
	refs, err := readRefs(w.refsDir(id))
	if err != nil {
		return err
	}
	for _, c := range refs {
		if c == commit {
			return nil
		}
	}
	return w.writeRef(id, pinPrefix+commit[:12], commit)
}

// Point has a revision's name lead to another commit of the model, which must be here as a whole: that is how an update is taken
// back. It returns when that is durable; dying before leaves the name as it was, dying after as it is wanted.
//
//  1. the ref is written where nobody looks, and synced
//  2. it takes the place of the old one by one rename
//  3. the folder is synced
func (w *Writer) Point(ctx context.Context, id model.ID, rev, commit string) error {
	fail := func(err error) error { return diskError("roll back", id, "", err) }
	if err := model.CheckRevision(rev); err != nil || model.IsCommit(rev) {
		return fail(&model.Error{Op: "roll back", Class: model.Usage, Model: id, Err: fmt.Errorf("%q is no name that could lead elsewhere", rev)})
	}
	for _, r := range w.look(id).Revisions {
		if r.Commit != commit {
			continue
		}
		if r.State != Available {
			return fail(&model.Error{
				Op: "roll back", Class: model.Integrity, Model: id, Err: fmt.Errorf("commit %.12s is not here as a whole: it is %s", commit, r.State),
				Hint: "mend it with: ema repair MODEL@" + commit,
			})
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return fail(w.writeRef(id, rev, commit))
	}
	return fail(&model.Error{Op: "roll back", Class: model.NotFound, Model: id, Err: fmt.Errorf("commit %.12s is not here", commit), Hint: `"ema ls" shows what is`})
}

// removeTree removes a folder with all that is in it, and follows no link.
func (w *Writer) removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreMissing(err)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = w.removeTree(name)
		} else {
			err = w.remove(name)
		}
		if err != nil {
			return err
		}
	}
	return w.remove(dir)
}
