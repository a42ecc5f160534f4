package store

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// WritePast is WriteAt for bytes that nobody reads again soon. Where it can, and unless the policy is
// CacheKeep, it writes whole blocks past the page cache, in one call each.
func (p *Partial) WritePast(b []byte, off int64, crc uint32) error { return p.write(b, off, crc, true) }

// openDirect opens the data file once more, for writing past the page cache. Where the file system or
// the policy does not allow that, everything goes through the page cache.
func (p *Partial) openDirect() {
	if p.w.cache == CacheKeep {
		return
	}
	if f, err := p.w.disk.OpenFile(p.name, os.O_RDWR|unix.O_DIRECT, 0); err == nil {
		p.direct = f
	}
}

// store writes b into the data file. Only whole blocks go past the page cache: smaller direct writes
// cost more than they save.
func (p *Partial) store(b []byte, off int64, past bool) error {
	if past && p.direct != nil && int64(len(b)) == BlockSize && off%BlockSize == 0 && pageAligned(b) {
		_, err := p.direct.WriteAt(b, off)
		if !errors.Is(err, unix.EINVAL) { // a device that wants another alignment gets it through the page cache
			return err
		}
	}
	return p.w.write(p.data, b, off)
}

// pageAligned reports whether b may be handed to a device as it lies in memory (open(2), O_DIRECT).
func pageAligned(b []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%4096 == 0 }
