package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"ema/internal/model"
)

// Borrow brings contents into a model that other ones of this store have, proven, and returns the files whose contents nobody has.
// What is borrowed shares storage where the file system can, else it is the same file under a second name, else a copy. Contents of
// at most BlockSize are not worth it. All of it is published when Borrow returns; after a crash at any step each is or is not.
func (w *Writer) Borrow(ctx context.Context, id model.ID, files []model.File) (rest []model.File, err error) {
	owners, err := w.owners(id, files)
	if err != nil {
		return nil, diskError("borrow", id, "", err)
	}
	for _, f := range files {
		taken := false
		for _, other := range owners[f.Digest.Hex()] {
			if taken, err = w.borrow(ctx, id, other, f); err != nil {
				return nil, diskError("borrow", id, f.Path, err)
			}
			if taken {
				break
			}
		}
		if !taken {
			rest = append(rest, f)
		}
	}
	return rest, nil
}

// borrow brings one content of another model; false if it is not proven there, or changes.
func (w *Writer) borrow(ctx context.Context, id, other model.ID, f model.File) (bool, error) {
	t, ok := w.lending(other, f.Digest, f.Size)
	if !ok {
		return false, nil
	}
	t.id = id
	st, _, err := w.take(ctx, t)
	if errors.Is(err, errChanged) {
		return false, nil
	}
	if err == nil {
		if err = w.Publish(ctx, []*Staged{st}); err != nil {
			err = errors.Join(err, w.drop(st))
		}
	}
	return err == nil, err
}

// Replace brings contents into a model that turned out to be damaged or missing there, from other models of this store that have
// them, and returns the files whose contents nobody has. Unlike Borrow it believes no proof: it reads every byte, since what was
// damaged may be shared. All of it is published when Replace returns.
func (w *Writer) Replace(ctx context.Context, id model.ID, files []model.File) (rest []model.File, err error) {
	owners, err := w.owners(id, files)
	if err != nil {
		return nil, diskError("replace", id, "", err)
	}
	for _, f := range files {
		taken := false
		for _, other := range owners[f.Digest.Hex()] {
			t, ok := w.lending(other, f.Digest, f.Size)
			if !ok {
				continue
			}
			t.id, t.proven = id, nil
			st, _, err := w.take(ctx, t)
			if err == nil {
				if err = w.Publish(ctx, []*Staged{st}); err != nil {
					return nil, errors.Join(err, w.drop(st))
				}
				taken = true
				break
			}
			if ctx.Err() != nil || model.ClassOf(err) == model.DiskFull {
				return nil, diskError("replace", id, f.Path, err)
			}
			// Another copy that is damaged too, or cannot be read, is none.
		}
		if !taken {
			rest = append(rest, f)
		}
	}
	return rest, nil
}

// Permit lets everybody read a content whose file forbids that. What it holds stays as proven as it was.
func (w *Writer) Permit(id model.ID, d model.Digest) error {
	name, err := filepath.EvalSymlinks(w.blobPath(id, d.Hex())) // it may lie in a colder tier
	if err != nil {
		return diskError("permit", id, "", err)
	}
	return diskError("permit", id, name, os.Chmod(name, 0o644))
}

// lending is how a content of a model can be taken by another one; false unless it is proven there.
func (w *Writer) lending(id model.ID, d model.Digest, size int64) (taking, bool) {
	from, err := filepath.EvalSymlinks(w.blobPath(id, d.Hex())) // it may lie in a colder tier
	if err != nil {
		return taking{}, false
	}
	info, err := os.Lstat(from)
	if err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return taking{}, false
	}
	who, crcs, err := w.sidecar(id, d)
	if err != nil || who != identityOf(info) {
		return taking{}, false
	}
	return taking{id: id, from: from, was: who, want: d, mayLink: ownedByUs(info), proven: crcs}, true
}

// owners are the models, but for one, that have contents of some files, by the contents' names.
func (s *Store) owners(but model.ID, files []model.File) (map[string][]model.ID, error) {
	wanted := map[string]bool{}
	for _, f := range files {
		if !f.Digest.IsZero() && f.Size > BlockSize {
			wanted[f.Digest.Hex()] = true
		}
	}
	found := map[string][]model.ID{}
	if len(wanted) == 0 {
		return found, nil
	}
	ids, err := s.ids()
	for _, id := range ids {
		if id == but {
			continue
		}
		blobs, err := os.ReadDir(s.blobsDir(id))
		if ignoreMissing(err) != nil {
			return nil, err
		}
		for _, b := range blobs {
			if wanted[b.Name()] {
				found[b.Name()] = append(found[b.Name()], id)
			}
		}
	}
	return found, err
}

// ids are the models of which there is a folder in the store.
func (s *Store) ids() (all []model.ID, err error) {
	entries, err := os.ReadDir(s.path)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "models--") {
			continue
		}
		if id, ok := s.idOf(e.Name()); ok {
			all = append(all, id)
		}
	}
	return all, ignoreMissing(err)
}

// A Twin is a content that lies in the store more than once.
type Twin struct {
	Model model.ID // whose content becomes a second name
	Of    model.ID // of this one's
	Name  string
	Bytes model.Bytes
}

// Twins finds contents of more than BlockSize that several models have as files of their own in the hot tier, proven to be the
// same. It changes nothing. Files that share their storage in other ways it cannot tell from others.
func (s *Store) Twins() (all []Twin, err error) {
	ids, err := s.ids()
	if err != nil {
		return nil, diskError("find equal contents", model.ID{}, s.path, err)
	}
	type first struct {
		id   model.ID
		info fs.FileInfo
	}
	seen := map[string]first{}
	for _, id := range ids {
		blobs, err := os.ReadDir(s.blobsDir(id))
		if ignoreMissing(err) != nil {
			return nil, diskError("find equal contents", id, s.blobsDir(id), err)
		}
		for _, b := range blobs {
			info, err := b.Info()
			if err != nil || !b.Type().IsRegular() || info.Size() <= BlockSize || !s.provenAs(id, b.Name(), info) {
				continue
			}
			one, twice := seen[b.Name()]
			switch {
			case !twice:
				seen[b.Name()] = first{id, info}
			case one.info.Size() == info.Size() && !os.SameFile(one.info, info):
				t := Twin{Model: id, Of: one.id, Name: b.Name()}
				if links(info) == 1 {
					t.Bytes = model.Bytes(info.Size())
				}
				all = append(all, t)
			}
		}
	}
	return all, nil
}

// provenAs reports whether a file in the hot tier is proven to be the content that its name says.
func (s *Store) provenAs(id model.ID, name string, info fs.FileInfo) bool {
	d, err := model.ParseDigest(name)
	return err == nil && d.Algo() == model.SHA256 && prove(s.sidecarPath(id, name), info) == Proven
}

// Share makes one file of a content that two models have, in one step: at every moment both have all of it. It is false where
// the file system gives the file no second name, or where one of both is not what it was. After a crash in between, the content
// may count as never verified until the next pull or "ema verify".
func (w *Writer) Share(ctx context.Context, t Twin) (bool, error) {
	d, err := model.ParseDigest(t.Name)
	if err != nil {
		return false, diskError("share", t.Model, t.Name, err)
	}
	info, err := os.Lstat(w.blobPath(t.Model, t.Name))
	if err != nil || !info.Mode().IsRegular() || !w.provenAs(t.Model, t.Name, info) {
		return false, nil //nolint:nilerr // it is not what it was
	}
	taken, ok := w.lending(t.Of, d, info.Size())
	if !ok || !taken.mayLink {
		return false, nil
	}
	taken.id = t.Model
	done, err := w.replaceByLink(ctx, taken, t.Name)
	return done, diskError("share", t.Model, t.Name, err)
}

// replaceByLink makes a content a second name of another file that is proven to be the same. Until that is durable it has no proof: what a
// crash leaves counts as never verified, and not as damaged.
func (w *Writer) replaceByLink(ctx context.Context, t taking, name string) (done bool, err error) {
	lock, err := w.lockBlob(ctx, t.id, name)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	base := incompleteName(name, newSuffix())
	if err := w.noteLeftover(t.id, base); err != nil {
		return false, err
	}
	second := w.blobPath(t.id, base)
	ok, err := w.secondName(t, second)
	if err == nil && ok {
		err = errors.Join(w.remove(w.sidecarHere(t.id, name)), w.saveNames())
	}
	if err == nil && ok {
		if err = w.rename(second, w.blobPath(t.id, name)); err == nil {
			return true, errors.Join(w.saveNames(), w.Prove(t.id, t.want, t.proven))
		}
	}
	if ok || err != nil {
		err = errors.Join(err, w.remove(second))
	}
	if errors.Is(err, errChanged) {
		return false, nil
	}
	return false, err
}

// links is how many names a file has.
func links(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink) //nolint:unconvert // its type differs by system
	}
	return 1
}
