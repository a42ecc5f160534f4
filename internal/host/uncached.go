//go:build linux

package host

import (
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sip is what an Uncached reads at a time: large enough for a disk, small enough to be stopped soon.
const sip = 1 << 20

// An Uncached reads a file without pushing anybody's files out of memory: past the page cache where the file system can, and
// so from the disk itself; elsewhere it lets go of what it has brought into memory, and of nothing that was there before. It
// is for one goroutine, and fast when it is read in order.
type Uncached struct {
	f      *os.File
	size   int64
	direct bool
	pace   func(n int) error
	buf    []byte // aligned as devices want it
	off, n int64  // what it holds
}

// OpenUncached opens a file. pace, if not nil, is told before so many bytes are read, and may wait; its errors are those of
// reading.
func OpenUncached(name string, pace func(n int) error) (*Uncached, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
	u := &Uncached{f: f, direct: true, pace: pace}
	if errors.Is(err, unix.EINVAL) {
		if u.f, err = os.Open(name); err == nil {
			err = u.buffered()
		}
	}
	if err != nil {
		return nil, err
	}
	info, err := u.f.Stat()
	if err != nil {
		return nil, errors.Join(err, u.f.Close())
	}
	u.size = info.Size()
	raw := make([]byte, sip+4096)
	u.buf = raw[-uintptr(unsafe.Pointer(unsafe.SliceData(raw)))&4095:][:sip]
	return u, nil
}

// buffered goes on through the page cache.
func (u *Uncached) buffered() error {
	u.direct = false
	if flags, err := unix.FcntlInt(u.f.Fd(), unix.F_GETFL, 0); err == nil && flags&unix.O_DIRECT != 0 {
		if _, err := unix.FcntlInt(u.f.Fd(), unix.F_SETFL, flags&^unix.O_DIRECT); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	// What is read ahead of us would stay.
	return os.NewSyscallError("fadvise", unix.Fadvise(int(u.f.Fd()), 0, 0, unix.FADV_RANDOM))
}

// ReadAt reads as os.File does.
func (u *Uncached) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		if off < u.off || off >= u.off+u.n {
			if err := u.fill(off); err != nil {
				return n, err
			}
			if off >= u.off+u.n {
				return n, io.EOF
			}
		}
		k := copy(b[n:], u.buf[off-u.off:u.n])
		n, off = n+k, off+int64(k)
	}
	return n, nil
}

// fill reads the part in which off lies.
func (u *Uncached) fill(off int64) error {
	u.off, u.n = off&^(sip-1), 0
	if u.pace != nil {
		if err := u.pace(int(min(sip, max(u.size-u.off, 1)))); err != nil {
			return err
		}
	}
	before := int64(1)
	if !u.direct {
		before = u.resident()
	}
	n, err := u.f.ReadAt(u.buf, u.off)
	if u.direct && errors.Is(err, unix.EINVAL) { // a file system that takes the flag and not the reads
		if err := u.buffered(); err != nil {
			return err
		}
		before = u.resident()
		n, err = u.f.ReadAt(u.buf, u.off)
	}
	if before == 0 {
		_ = unix.Fadvise(int(u.f.Fd()), u.off, sip, unix.FADV_DONTNEED) // a favour to others: what stays, goes when memory is wanted
	}
	if u.n = int64(n); errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

// resident is how much of the part is in memory; 1 when nobody can tell.
func (u *Uncached) resident() int64 {
	n := min(sip, u.size-u.off)
	if n <= 0 {
		return 1
	}
	in, err := counted(u.f, u.off, n)
	if in == 0 && err == nil || unaskable(err) {
		in, err = walked(u.f, u.off, n)
	}
	if err != nil {
		return 1
	}
	return in
}

// Close closes the file.
func (u *Uncached) Close() error { return u.f.Close() }
