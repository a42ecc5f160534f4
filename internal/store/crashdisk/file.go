package crashdisk

import (
	"bytes"
	"errors"

	"ema/internal/store"
)

// file is an open file whose writes are remembered until they are synced.
type file struct {
	store.File
	d    *Disk
	n    *node
	name string
}

// do performs one counted operation.
func (f *file) do(op string, act func() error) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.step(op, f.name); err != nil {
		return err
	}
	return act()
}

func (f *file) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.do("write", func() error {
		n, err = f.File.WriteAt(b, off)
		f.n.pending = append(f.n.pending, change{off, bytes.Clone(b[:n])})
		return err
	})
	return n, err
}

func (f *file) Truncate(size int64) error {
	return f.do("write", func() error {
		if err := f.File.Truncate(size); err != nil {
			return err
		}
		f.n.pending = append(f.n.pending, change{off: size})
		return nil
	})
}

func (f *file) Preallocate(size int64) error {
	return f.do("preallocate", func() error {
		info, err := f.File.Stat()
		if err != nil {
			return err
		}
		if err := f.File.Preallocate(size); err != nil {
			return err
		}
		f.n.pending = append(f.n.pending, change{off: max(size, info.Size())})
		return nil
	})
}

func (f *file) Datasync() error { return f.do("sync", func() error { return f.n.saveFile(false) }) }
func (f *file) Sync() error     { return f.do("sync", func() error { return f.n.saveFile(true) }) }

func (f *file) StartWriteback(int64, int64) error { return nil }
func (f *file) DropCache(int64, int64) error      { return nil }

func (f *file) Clone(store.File) error { return errors.ErrUnsupported }

func (f *file) Dedupe(store.File, int64) error { return errors.ErrUnsupported }

func (f *file) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if !f.d.open[f] {
		return nil // released by Kill
	}
	delete(f.d.open, f)
	return f.File.Close()
}
