package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// OS is the operating system's file system.
type OS struct{}

var _ Disk = OS{}

// OpenFile opens name; see Disk.
func (OS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Mkdir makes one folder.
func (OS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }

// Rename moves from to to.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Symlink makes name a link to target.
func (OS) Symlink(target, name string) error { return os.Symlink(target, name) }

// Link makes a hard link.
func (OS) Link(from, name string) error { return os.Link(from, name) }

// Remove removes name.
func (OS) Remove(name string) error { return os.Remove(name) }

// SyncDir syncs the folder.
func (OS) SyncDir(name string) error { return withFolder(name, unix.Fsync) }

// SyncFS syncs the file system that holds the folder name.
func (OS) SyncFS(name string) error { return withFolder(name, unix.Syncfs) }

func withFolder(name string, do func(fd int) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() // opened for reading: nothing can be lost
	if err := retried(func() error { return do(int(f.Fd())) }); err != nil {
		return &fs.PathError{Op: "sync", Path: name, Err: err}
	}
	return nil
}

// osFile adds to os.File what durability needs.
type osFile struct{ *os.File }

func (f osFile) call(op string, do func(fd int) error) error {
	if err := retried(func() error { return do(int(f.Fd())) }); err != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}

func (f osFile) Datasync() error { return f.call("fdatasync", unix.Fdatasync) }

func (f osFile) Preallocate(size int64) error {
	err := f.call("fallocate", func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}

func (f osFile) StartWriteback(off, n int64) error {
	err := f.call("sync_file_range", func(fd int) error {
		return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESPIPE) {
		return nil // it is only a head start
	}
	return err
}

func (f osFile) DropCache(off, n int64) error {
	return f.call("fadvise", func(fd int) error { return unix.Fadvise(fd, off, n, unix.FADV_DONTNEED) })
}

func (f osFile) TryLock() (bool, error) {
	err := f.call("flock", func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func (f osFile) Clone(from File) error {
	src, ok := from.(osFile)
	if !ok {
		return fmt.Errorf("clone %s: %w", f.Name(), errors.ErrUnsupported)
	}
	return clone(f.File, src.File)
}

// dedupeAtOnce is how much the kernel compares in one call, in bytes: some file systems do no more.
const dedupeAtOnce = 16 << 20

func (f osFile) Dedupe(from File, size int64) error {
	src, ok := from.(osFile)
	if !ok {
		return fmt.Errorf("dedupe %s: %w", f.Name(), errors.ErrUnsupported)
	}
	for off := int64(0); off < size; {
		ask := unix.FileDedupeRange{
			Src_offset: uint64(off), Src_length: uint64(min(size-off, dedupeAtOnce)),
			Info: []unix.FileDedupeRangeInfo{{Dest_fd: int64(f.Fd()), Dest_offset: uint64(off)}},
		}
		err := retried(func() error { return unix.IoctlFileDedupeRange(int(src.Fd()), &ask) })
		if err == nil && ask.Info[0].Status < 0 {
			err = syscall.Errno(-ask.Info[0].Status)
		}
		switch {
		case err == nil && ask.Info[0].Status == unix.FILE_DEDUPE_RANGE_SAME && ask.Info[0].Bytes_deduped > 0:
			off += int64(ask.Info[0].Bytes_deduped)
		case err == nil, unsupported(err):
			return fmt.Errorf("dedupe %s: %w", f.Name(), errors.ErrUnsupported)
		default:
			return &fs.PathError{Op: "dedupe", Path: f.Name(), Err: err}
		}
	}
	return nil
}

// clone makes dst share the storage of src; errors.ErrUnsupported where the file systems cannot.
func clone(dst, src *os.File) error {
	err := retried(func() error { return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) })
	switch {
	case err == nil:
		return nil
	case unsupported(err):
		return fmt.Errorf("clone %s: %w", dst.Name(), errors.ErrUnsupported)
	}
	return &fs.PathError{Op: "clone", Path: dst.Name(), Err: err}
}

// unsupported reports whether a file system says that it cannot share storage.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EXDEV) ||
		errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM)
}

// retried repeats a system call that a signal interrupted.
func retried(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
