//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"ema/internal/model"
)

const (
	// chunk is what is read ahead or locked between two looks at the context: some milliseconds of a
	// fast disk, and few enough system calls.
	chunk = 16 << 20
	// stride is what is asked for in one piece: the kernel cuts greater requests down to what the
	// device likes, and says nothing.
	stride = 128 << 10
	// window is how much of a file is mapped at once to ask for its residency.
	window = 1 << 30
)

// errUntold is wrapped when the kernel keeps to itself what is in memory.
var errUntold = errors.New("the kernel tells which pages are in memory only to the owner of a file and to those who may write it")

// A PageCache is the kernel's cache of the content of files. It changes no access time, as far as
// the kernel permits: other tools judge by it what has been used.
type PageCache struct{}

// Open opens a file for reading.
func (PageCache) Open(name string) (io.ReadCloser, error) { return open(name) }

// Resident is how many of the n bytes of a file from off on are in memory; off is a multiple of the
// size of pages. of is n, or what the file has from there on when that is less.
func (PageCache) Resident(name string, off, n int64) (resident, of int64, err error) {
	f, of, err := extent(name, off, n)
	if err != nil || of == 0 {
		return 0, 0, err
	}
	defer f.Close()
	ask := counted
	resident, err = ask(f, off, of)
	if resident == 0 && err == nil || unaskable(err) {
		// The file of a stacked file system has pages in another file, about which only a mapping
		// tells: overlayfs, for one, always counts none.
		ask = walked
		resident, err = ask(f, off, of)
	}
	// The file ends within its last page, which was counted as a whole.
	if page := int64(os.Getpagesize()); err == nil && resident > 0 && of%page != 0 {
		var last int64
		if last, err = ask(f, off+of-of%page, of%page); last > 0 {
			resident -= page - of%page
		}
	}
	if err != nil {
		return 0, of, fmt.Errorf("how much of %s is in memory is not known: %w", name, err)
	}
	return max(0, min(resident, of)), of, nil
}

// counted asks for the number of pages (Linux 6.5).
func counted(f *os.File, off, n int64) (int64, error) {
	span, stat := unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, unix.Cachestat_t{}
	_, _, errno := unix.Syscall6(unix.SYS_CACHESTAT, f.Fd(), uintptr(unsafe.Pointer(&span)), uintptr(unsafe.Pointer(&stat)), 0, 0, 0)
	if errno != 0 {
		return 0, os.NewSyscallError("cachestat", errno)
	}
	return int64(stat.Cache) * int64(os.Getpagesize()), nil
}

// unaskable reports whether cachestat gave no answer and a mapping may: it is not there, a sandbox
// does not know it, the file is of a kind that it does not serve, or of somebody else.
func unaskable(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP)
}

// walked asks about each page of a mapping, which touches none of them.
func walked(f *os.File, off, n int64) (int64, error) {
	// Of files of others, mincore says that everything is in memory (Linux 5.2).
	if told, err := mayAsk(f); err != nil || !told {
		return 0, errors.Join(err, errUntold)
	}
	page := int64(os.Getpagesize())
	pages, told := int64(0), make([]byte, min(window, n+page-1)/page)
	for end := off + n; off < end; off += window {
		b, err := unix.Mmap(int(f.Fd()), off, int(min(window, end-off)), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return 0, os.NewSyscallError("mmap", err)
		}
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&told[0])))
		for _, t := range told[:(int64(len(b))+page-1)/page] {
			pages += int64(t & 1)
		}
		if err := unix.Munmap(b); err != nil {
			return 0, os.NewSyscallError("munmap", err)
		}
		if errno != 0 {
			return 0, os.NewSyscallError("mincore", errno)
		}
	}
	return pages * page, nil
}

func mayAsk(f *os.File) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	if int(st.Uid) == os.Geteuid() {
		return true, nil
	}
	return unix.Faccessat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.W_OK, unix.AT_EACCESS) == nil, nil
}

// Populate reads the n bytes of a file from off on into memory and returns when they are there: through a
// mapping, which copies nothing, or by reading. Before each chunk of some MiB it looks at ctx and
// tells step how many bytes are done; an error of either ends it. It works at the I/O priority of the calling thread.
func (PageCache) Populate(ctx context.Context, name string, off, n int64, mapped bool, step func(done int64) error) error {
	f, n, err := extent(name, off, n)
	if err != nil || n == 0 {
		return err
	}
	defer f.Close()
	if mapped {
		err = populate(ctx, f, off, n, step)
	}
	if !mapped || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) { // before Linux 5.14; cannot be mapped
		err = readThrough(ctx, f, off, n, step)
	}
	if err != nil {
		return fmt.Errorf("read %s ahead: %w", name, err)
	}
	return nil
}

func populate(ctx context.Context, f *os.File, off, n int64, step func(done int64) error) error {
	for done := int64(0); done < n; done += chunk {
		if err := begin(ctx, step, done); err != nil {
			return err
		}
		most := min(chunk, n-done)
		want(f, off+done, most)
		b, err := unix.Mmap(int(f.Fd()), off+done, int(most), unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return os.NewSyscallError("mmap", err)
		}
		err = os.NewSyscallError("madvise", retried(func() error { return unix.Madvise(b, unix.MADV_POPULATE_READ) }))
		if err := errors.Join(err, os.NewSyscallError("munmap", unix.Munmap(b))); err != nil {
			return err
		}
	}
	return nil
}

func readThrough(ctx context.Context, f *os.File, off, n int64, step func(done int64) error) error {
	buf := make([]byte, min(model.Bytes(n), model.MiB))
	for done := int64(0); done < n; done += chunk {
		if err := begin(ctx, step, done); err != nil {
			return err
		}
		most := min(chunk, n-done)
		want(f, off+done, most)
		// Asking does not wait, reading does: whoever is told that it is done may rely on it.
		if _, err := io.CopyBuffer(onlyWriter{io.Discard}, io.NewSectionReader(f, off+done, most), buf); err != nil {
			return err
		}
	}
	return nil
}

// onlyWriter hides that io.Discard would bring a small buffer of its own.
type onlyWriter struct{ io.Writer }

// want tells the kernel what is read next. It is only a head start, so its failure is none.
func want(f *os.File, off, n int64) {
	for end := off + n; off < end; off += stride {
		_ = unix.Fadvise(int(f.Fd()), off, min(stride, end-off), unix.FADV_WILLNEED)
	}
}

// Lock reads the n bytes of a file from off on into memory and keeps them there until the returned lock is
// closed, whatever else wants the memory. It may be stopped as Populate may. Where the limit of locked
// memory forbids it, the error says so.
func (PageCache) Lock(ctx context.Context, name string, off, n int64, step func(done int64) error) (io.Closer, error) {
	f, n, err := extent(name, off, n)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return lock(nil), nil
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), off, int(n), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("lock %s in memory: %w", name, os.NewSyscallError("mmap", err))
	}
	for done := int64(0); done < n && err == nil; done += chunk {
		if err = begin(ctx, step, done); err == nil {
			most := min(chunk, n-done)
			want(f, off+done, most)
			err = locked(b[done:done+most], model.Bytes(n))
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s in memory: %w", name, err), os.NewSyscallError("munmap", unix.Munmap(b)))
	}
	return lock(b), nil
}

// locked locks a part of a mapping, all of which is size bytes.
func locked(b []byte, size model.Bytes) error {
	err := retried(func() error { return unix.Mlock(b) })
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOMEM) {
		return os.NewSyscallError("mlock", err)
	}
	var l unix.Rlimit
	if e := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); e != nil || l.Cur >= math.MaxInt64 {
		return os.NewSyscallError("mlock", err)
	}
	return fmt.Errorf("%v are more than this process may still lock of its %v (RLIMIT_MEMLOCK; LimitMEMLOCK= of its systemd unit): %w", size, model.Bytes(l.Cur), err)
}

// A lock is a mapping whose pages are locked.
type lock []byte

func (l lock) Close() error {
	if l == nil {
		return nil
	}
	return os.NewSyscallError("munmap", unix.Munmap(l))
}

// Drop removes what is in memory of a file, except what is not yet on the disk, locked, or mapped by
// somebody.
func (PageCache) Drop(name string) error {
	f, err := open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("fadvise", unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// extent opens a file of which the n bytes from off on matter, and bounds n by its size.
func extent(name string, off, n int64) (*os.File, int64, error) {
	f, err := open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: name, Err: errors.New("it is no regular file")}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	if n = min(n, info.Size()-off); n <= 0 {
		return nil, 0, f.Close()
	}
	return f, n, nil
}

func open(name string) (*os.File, error) {
	// Without waiting for a writer, in case it is a pipe. Access times may be kept by owners only.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		f, err = os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	return f, err
}

// begin is what comes before each chunk.
func begin(ctx context.Context, step func(done int64) error, done int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return step(done)
}

// retried repeats a system call that a signal interrupted.
func retried(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
