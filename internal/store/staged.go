package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"

	"ema/internal/model"
)

// A Staged is a blob that is complete and verified but not yet visible: what Publish takes.
type Staged struct {
	id     model.ID
	digest model.Digest
	etag   string // names the partial, and the lock
	size   int64
	name   string // path of the data file
	crcs   []uint32
	was    identity // of a file that others know under another name, as it was hashed; zero: the file is ours alone

	data, log, lock File   // open for what came from a Partial; nil for a small file
	journal         string // path; empty for a small file
	done            bool
}

// Digest is the content's hash, and so the name under which it will be published.
func (s *Staged) Digest() model.Digest { return s.digest }

// Close gives up publishing: the bytes stay for a later run, the blob's lock is released. After
// Publish it does nothing.
func (s *Staged) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	var err error
	for _, f := range []File{s.data, s.log, s.lock} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// StageSmall stages a whole file of at most BlockSize bytes, whose content the caller has verified
// to hash to d. Nothing is synced: Publish does that once for many files.
func (w *Writer) StageSmall(id model.ID, f model.File, content []byte, d model.Digest) (*Staged, error) {
	if int64(len(content)) > BlockSize || int64(len(content)) != f.Size || d.IsZero() || !f.Digest.IsZero() && f.Digest != d {
		return nil, &model.Error{
			Op: "stage", Class: model.Integrity, Model: id, File: f.Path,
			Err: fmt.Errorf("content is %d bytes with %v, want %d bytes with %v", len(content), d, f.Size, f.Digest),
		}
	}
	st := &Staged{id: id, digest: d, etag: d.Hex(), size: f.Size}
	name := incompleteName(st.etag, newSuffix())
	st.name = w.blobPath(id, name)
	if f.Size > 0 {
		st.crcs = []uint32{crc32.Checksum(content, castagnoli)}
	}
	err := w.folder(w.blobsDir(id))
	if err == nil {
		err = w.noteLeftover(id, name)
	}
	if err == nil {
		err = w.writeTemp(st.name, content, false)
	}
	if err != nil {
		return nil, diskError("stage", id, f.Path, err)
	}
	return st, nil
}

// Leftover finds the content of a small file that a killed run had fetched but not published. What
// it returns hashes to f.Digest. Publish removes the others.
func (w *Writer) Leftover(id model.ID, f model.File) (content []byte, ok bool) {
	if f.Digest.IsZero() || f.Size > BlockSize {
		return nil, false
	}
	names, err := w.leftovers(id, f.Digest.Hex())
	if err != nil || len(names) == 0 {
		return nil, false // unreadable is as good as absent: it is fetched again
	}
	for _, name := range names {
		content, err := readLeftover(w.blobPath(id, name), f.Size)
		if err != nil {
			continue
		}
		h := f.Digest.NewHash(f.Size)
		h.Write(content)
		if f.Digest.Sum(h) == f.Digest {
			return content, true
		}
	}
	return nil, false
}

// Tidy removes what killed runs left of a blob that is published since, unless somebody fetches it now.
func (w *Writer) Tidy(id model.ID, d model.Digest) error {
	names, err := w.leftovers(id, d.Hex())
	if err != nil || len(names) == 0 {
		return diskError("tidy", id, d.Hex(), err)
	}
	busy, err := w.fetching(id.DirName(), d.Hex())
	if err == nil && !busy {
		err = w.removeLeftovers(id, d.Hex())
	}
	return diskError("tidy", id, d.Hex(), err)
}

// readLeftover reads a file if it has the right size.
func readLeftover(name string, size int64) ([]byte, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() != size {
		return nil, fs.ErrInvalid
	}
	content, err := os.ReadFile(name)
	if err == nil && int64(len(content)) != size {
		err = fs.ErrInvalid
	}
	return content, err
}

// leftovers lists the partial files of a blob. A model's folder is read once, since a model may have
// ten thousand small files; as the only writer we know what has changed since.
func (w *Writer) leftovers(id model.ID, etag string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.readLeftovers(id); err != nil {
		return nil, err
	}
	return slices.Clone(w.left[id.DirName()][etag]), nil
}

func (w *Writer) readLeftovers(id model.ID) error {
	if w.left[id.DirName()] != nil {
		return nil
	}
	entries, err := os.ReadDir(w.blobsDir(id))
	if ignoreMissing(err) != nil {
		return err
	}
	left := map[string][]string{}
	for _, e := range entries {
		// Without our suffix it is the resumable file of an older tool, which is not ours to remove.
		if etag, ok := etagOfIncomplete(e.Name()); ok && len(e.Name()) > len(etag)+len(incomplete) {
			left[etag] = append(left[etag], e.Name())
		}
	}
	w.left[id.DirName()] = left
	return nil
}

// noteLeftover adds a partial file to what leftovers knows.
func (w *Writer) noteLeftover(id model.ID, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.readLeftovers(id); err != nil {
		return err
	}
	etag, _ := etagOfIncomplete(name)
	left := w.left[id.DirName()]
	left[etag] = append(left[etag], name)
	return nil
}

// removeLeftovers removes a blob's partial files. The caller holds the blob's lock, or has made
// sure that nobody does.
func (w *Writer) removeLeftovers(id model.ID, etag string) error {
	names, err := w.leftovers(id, etag)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := w.remove(w.blobPath(id, name)); err != nil {
			return err
		}
	}
	w.forgetLeftovers(id, etag)
	return nil
}

func (w *Writer) forgetLeftovers(id model.ID, etag string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.left[id.DirName()], etag)
}
