package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"ema/internal/model"
)

// ExportCounts says how the files of an export came into its folder.
type ExportCounts struct {
	Cloned int // sharing storage until one of both changes
	Linked int // a second name of the blob: who edits it edits the store
	Copied int
	Kept   int // equal files that were there already
}

// Export puts files of a revision into dir as plain files under their own paths, sharing storage
// where the file system can (reflink, else hard link, else a copy). Equal files are kept, others are
// replaced atomically. Whatever lies in dir, nothing is written through a symbolic link in it, nor
// outside of it. When it returns without an error, what it wrote is durable; files that were there
// already are not synced.
func (s *Store) Export(ctx context.Context, id model.ID, commit string, files []model.File, dir string) (ExportCounts, error) {
	x := exporter{s: s, buf: make([]byte, s.writeSize)}
	fail := func(file string, err error) (ExportCounts, error) {
		return x.how, diskError("export", id, file, err)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fail(dir, err)
	}
	root, err := os.OpenFile(dir, unix.O_DIRECTORY, 0)
	if err != nil {
		return fail(dir, err)
	}
	defer root.Close() // opened for reading: nothing can be lost
	folders := map[string]bool{}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return x.how, err
		}
		if err := model.CheckPath(f.Path); err != nil {
			return fail(f.Path, &model.Error{Op: "export", Class: model.Integrity, Model: id, File: f.Path, Err: err})
		}
		if err := x.one(ctx, root, s.contentPath(id, commit, f), f.Path); err != nil {
			return fail(filepath.Join(dir, f.Path), err)
		}
		for d := path.Dir(f.Path); !folders[d]; d = path.Dir(d) {
			folders[d] = true
		}
	}
	if !s.sync {
		return x.how, nil
	}
	for d := range folders {
		if err := syncBelow(root, d); err != nil {
			return fail(filepath.Join(dir, d), err)
		}
	}
	return x.how, nil
}

// contentPath is where the content of a revision's file lies: a blob, or a plain file in the
// snapshot where another tool could not make links.
func (s *Store) contentPath(id model.ID, commit string, f model.File) string {
	if !f.Digest.IsZero() {
		if name := s.blobPath(id, f.Digest.Hex()); isFile(os.Stat(name)) {
			return name
		}
	}
	return filepath.Join(s.Snapshot(id, commit), filepath.FromSlash(f.Path))
}

func isFile(info fs.FileInfo, err error) bool { return err == nil && info.Mode().IsRegular() }

type exporter struct {
	s   *Store
	how ExportCounts
	buf []byte
}

// one puts the file from at name below root.
func (x *exporter) one(ctx context.Context, root *os.File, from, name string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close() // opened for reading: nothing can be lost
	folder, err := openBelow(root, path.Dir(name), true)
	if err != nil {
		return err
	}
	defer folder.Close() // opened for reading: nothing can be lost
	base := path.Base(name)
	same, err := x.equal(ctx, src, folder, base)
	if err != nil {
		return err
	}
	if same {
		x.how.Kept++
		return nil
	}
	tmp := ".ema." + newSuffix() + ".tmp"
	dirfd := int(folder.Fd())
	err = x.place(ctx, src, dirfd, tmp)
	if err == nil {
		err = retried(func() error { return unix.Renameat(dirfd, tmp, dirfd, base) })
	}
	if err != nil {
		if gone := unix.Unlinkat(dirfd, tmp, 0); !errors.Is(gone, unix.ENOENT) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

// equal reports whether name in folder is a plain file with src's content.
func (x *exporter) equal(ctx context.Context, src, folder *os.File, name string) (bool, error) {
	fd, err := unix.Openat(int(folder.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, nil // not there, a link, or not for us to read: rename decides what happens to it
	}
	old := os.NewFile(uintptr(fd), name)
	defer old.Close() // opened for reading: nothing can be lost
	a, errA := src.Stat()
	b, errB := old.Stat()
	if err := errors.Join(errA, errB); err != nil {
		return false, err
	}
	if b.IsDir() {
		return false, fmt.Errorf("there is a folder of that name")
	}
	if os.SameFile(a, b) {
		return true, nil
	}
	if !b.Mode().IsRegular() || a.Size() != b.Size() {
		return false, nil
	}
	other := make([]byte, len(x.buf))
	for off := int64(0); off < a.Size(); {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := src.ReadAt(x.buf[:min(int64(len(x.buf)), a.Size()-off)], off)
		if n == 0 {
			return false, err
		}
		if m, _ := old.ReadAt(other[:n], off); m != n || !bytes.Equal(x.buf[:n], other[:n]) {
			return false, nil
		}
		off += int64(n)
	}
	return true, nil
}

// place makes tmp in the folder a clone, a link or a copy of src, and durable.
func (x *exporter) place(ctx context.Context, src *os.File, dirfd int, tmp string) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dirfd, tmp, flags, 0o666)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(fd), tmp)
	err = clone(dst, src)
	if err == nil {
		x.how.Cloned++
		return x.closeDurable(dst)
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		return errors.Join(err, dst.Close())
	}
	linked := tmp + ".link"
	// Through the open file: the name might lead elsewhere by now, or into a colder tier.
	self := fmt.Sprintf("/proc/self/fd/%d", src.Fd())
	if unix.Linkat(unix.AT_FDCWD, self, dirfd, linked, unix.AT_SYMLINK_FOLLOW) == nil {
		x.how.Linked++
		return errors.Join(dst.Close(), unix.Renameat(dirfd, linked, dirfd, tmp))
	}
	if err := x.copy(ctx, dst, src); err != nil {
		return errors.Join(err, dst.Close())
	}
	x.how.Copied++
	return x.closeDurable(dst)
}

func (x *exporter) copy(ctx context.Context, dst, src *os.File) error {
	for off := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := src.ReadAt(x.buf, off)
		if n > 0 {
			if _, err := dst.WriteAt(x.buf[:n], off); err != nil {
				return err
			}
			off += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (x *exporter) closeDurable(f *os.File) error {
	var err error
	if x.s.sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// openBelow opens a folder below root, one name at a time and never through a link, making what is
// missing if asked.
func openBelow(root *os.File, dir string, create bool) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(root.Fd()), ".", flags, 0)
	if err != nil {
		return nil, err
	}
	at := os.NewFile(uintptr(fd), dir)
	if dir == "." {
		return at, nil
	}
	for part := range strings.SplitSeq(dir, "/") {
		if create {
			if err := unix.Mkdirat(int(at.Fd()), part, 0o777); err != nil && !errors.Is(err, unix.EEXIST) {
				return nil, errors.Join(err, at.Close())
			}
		}
		fd, err := unix.Openat(int(at.Fd()), part, flags, 0)
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			err = fmt.Errorf("%s is a link or a file, where a folder is needed; remove it or choose another folder", part)
		}
		if err = errors.Join(err, at.Close()); err != nil {
			return nil, err
		}
		at = os.NewFile(uintptr(fd), dir)
	}
	return at, nil
}

func syncBelow(root *os.File, dir string) error {
	f, err := openBelow(root, dir, false)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
