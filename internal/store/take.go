package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"ema/internal/model"
)

// A manner is how a file of somebody else came into the store.
type manner uint8

const (
	copied manner = iota
	cloned        // it shares storage with the other one until one of both changes
	linked        // it is the other one, under a second name
)

// A taking says how a file is to be taken.
type taking struct {
	id       model.ID
	from     string // a real path: no part of it is a link
	was      identity
	want     model.Digest // zero: whatever it is
	mayLink  bool
	proven   []uint32    // checksums of its blocks, when it was proven to be want and not touched since
	progress func(int64) // is told of bytes read; nil is told nothing
}

// errChanged is in errors about a file that somebody changes while it is read.
var errChanged = errors.New("it changes while it is read")

// take brings a file of more than BlockSize into a model, ready to be published: sharing storage where the file system can, else as a
// second name, else as a copy. It reads all of it, unless it is proven. The file at from stays as it is.
func (w *Writer) take(ctx context.Context, t taking) (st *Staged, how manner, err error) {
	src, err := w.disk.OpenFile(t.from, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	keep := false // src is what the Staged holds
	defer func() {
		if !keep {
			_ = src.Close() // opened for reading: nothing can be lost
		}
	}()
	if err := t.unchanged(src); err != nil {
		return nil, 0, err
	}
	etag := etagOf(t.id, model.File{Path: t.from, Size: t.was.size, Digest: t.want}, "")
	base := incompleteName(etag, newSuffix())
	name := w.blobPath(t.id, base)
	if err := w.folder(w.blobsDir(t.id)); err != nil {
		return nil, 0, err
	}
	if err := w.noteLeftover(t.id, base); err != nil {
		return nil, 0, err
	}
	dst, how, err := w.place(t, src, name)
	if err == nil && how == linked {
		dst, keep = src, true
	}
	st = &Staged{id: t.id, digest: t.want, etag: etag, size: t.was.size, name: name, data: dst}
	if err == nil {
		err = w.prove(ctx, t, st, src, how)
	}
	if err == nil && how == linked {
		st.was = t.was
	}
	if err != nil {
		return nil, 0, errors.Join(err, w.drop(st))
	}
	return st, how, nil
}

// drop gives up a file that was taken, and removes it, unless a part of Publish was done and it is visible.
func (w *Writer) drop(st *Staged) error {
	err := st.Close()
	if strings.HasSuffix(st.name, incomplete) {
		err = errors.Join(err, w.remove(st.name))
	}
	return err
}

// unchanged fails if an open file is not what it was.
func (t taking) unchanged(f File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || identityOf(info) != t.was {
		return t.changed()
	}
	return nil
}

func (t taking) changed() error {
	return &model.Error{
		Op: "adopt", Class: model.Integrity, Model: t.id, File: t.from, Err: errChanged, Hint: "nothing of the model was adopted; try again when it is at rest",
	}
}

// place puts src under name, and returns the open file if it is another one.
func (w *Writer) place(t taking, src File, name string) (dst File, how manner, err error) {
	if dst, err = w.create(name); err != nil {
		return nil, 0, err
	}
	err = dst.Clone(src)
	if err == nil {
		return dst, cloned, nil
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		return dst, 0, err
	}
	if t.mayLink {
		if err := errors.Join(dst.Close(), w.remove(name)); err != nil {
			return nil, 0, err
		}
		if ok, err := w.secondName(t, name); ok || err != nil {
			return nil, linked, err
		}
		if dst, err = w.create(name); err != nil {
			return nil, 0, err
		}
	}
	return dst, copied, dst.Preallocate(t.was.size)
}

// secondName makes name a second name of the file; false where that cannot be.
func (w *Writer) secondName(t taking, name string) (bool, error) {
	err := w.disk.Link(t.from, name)
	if cannotLink(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	w.changed(w.blobsDir(t.id))
	info, err := os.Lstat(name)
	if err == nil && identityOf(info) != t.was {
		err = t.changed() // another file has that name by now
	}
	return true, err
}

// cannotLink reports whether a file can have no second name there: on another file system, of another user, with too many names.
func cannotLink(err error) bool {
	for _, e := range []error{syscall.EXDEV, syscall.EPERM, syscall.EMLINK, syscall.EOPNOTSUPP, syscall.EACCES} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// prove reads what was placed, fills it in if it is a copy, and completes st by what it is.
func (w *Writer) prove(ctx context.Context, t taking, st *Staged, src File, how manner) error {
	if t.proven != nil && how != copied {
		st.crcs = t.proven
		if t.progress != nil {
			t.progress(t.was.size)
		}
		return t.unchanged(src)
	}
	c := copying{w: w, src: src, dst: st.data, size: t.was.size, cloned: how != copied, proven: t.proven, how: Moving{Progress: t.progress}}
	if how == cloned {
		c.src = st.data // what is ours now is what counts
	}
	if how == copied {
		if err := c.openDirect(st.name); err != nil {
			return err
		}
	}
	sum, err := c.run(ctx, t.want)
	if c.direct != nil {
		err = errors.Join(err, c.direct.Close())
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if changed := t.unchanged(src); changed != nil {
		return changed
	}
	if err != nil {
		return err
	}
	if !t.want.IsZero() && sum != t.want {
		return &model.Error{
			Op: "adopt", Class: model.Integrity, Model: t.id, File: t.from, Err: fmt.Errorf("its content is %v, want %v", sum, t.want),
			Hint: "it is damaged: remove it and pull the model",
		}
	}
	st.digest, st.crcs = sum, c.crcs
	return nil
}

// hashOf reads a file and returns what it is.
func (w *Writer) hashOf(ctx context.Context, t taking) (model.Digest, error) {
	src, err := w.disk.OpenFile(t.from, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return model.Digest{}, err
	}
	defer src.Close() // opened for reading: nothing can be lost
	if err := t.unchanged(src); err != nil {
		return model.Digest{}, err
	}
	c := copying{w: w, src: src, size: t.was.size, cloned: true, how: Moving{Progress: t.progress}}
	sum, err := c.run(ctx, t.want)
	if changed := t.unchanged(src); changed != nil && ctx.Err() == nil {
		return sum, changed
	}
	return sum, err
}

// takeSmall stages a file of at most BlockSize: reading it is less work than sharing it.
func (w *Writer) takeSmall(t taking) (*Staged, error) {
	src, err := w.disk.OpenFile(t.from, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer src.Close() // opened for reading: nothing can be lost
	if err := t.unchanged(src); err != nil {
		return nil, err
	}
	content := make([]byte, t.was.size)
	if n, err := src.ReadAt(content, 0); n < len(content) {
		if changed := t.unchanged(src); changed != nil {
			return nil, changed
		}
		return nil, &fs.PathError{Op: "read", Path: t.from, Err: err}
	}
	if err := t.unchanged(src); err != nil {
		return nil, err
	}
	h := t.want.NewHash(t.was.size)
	h.Write(content)
	sum := t.want.Sum(h)
	if !t.want.IsZero() && sum != t.want {
		return nil, &model.Error{
			Op: "adopt", Class: model.Integrity, Model: t.id, File: t.from, Err: fmt.Errorf("its content is %v, want %v", sum, t.want),
			Hint: "it is damaged: remove it and pull the model",
		}
	}
	if t.progress != nil {
		t.progress(t.was.size)
	}
	return w.StageSmall(t.id, model.File{Path: t.from, Size: t.was.size, Digest: sum}, content, sum)
}
