package main

import (
	"context"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/tier"
)

// heardWithin is how late it may be heard that a file was opened.
const heardWithin = 2 * time.Second

// own are the opens of the daemon itself, so that they are not taken for uses where the system does not tell who has opened a
// file. It tells whether an open may be one of them, not whether it is: another program may open the same file just then.
type own struct {
	mu      sync.Mutex
	reading map[model.ID]int       // what reads a model's files; that of the zero ID may read any
	ended   map[model.ID]time.Time // when such a thing has ended
	files   map[string]time.Time   // when single contents were opened, by their names, which are the same in all tiers
	swept   time.Time
}

func newOwn() *own {
	return &own{reading: map[model.ID]int{}, ended: map[model.ID]time.Time{}, files: map[string]time.Time{}}
}

// begin notes that files of a model may be opened until done is called; with the zero ID those of any.
func (o *own) begin(id model.ID) (done func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reading[id]++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		now := time.Now()
		o.sweep(now)
		o.ended[id] = now
		if o.reading[id]--; o.reading[id] == 0 {
			delete(o.reading, id)
		}
	}
}

// opens notes that a file is about to be opened.
func (o *own) opens(path string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.sweep(now)
	o.files[filepath.Base(path)] = now
}

// sweep forgets what is heard by now.
func (o *own) sweep(now time.Time) {
	if now.Sub(o.swept) <= heardWithin {
		return
	}
	o.swept = now
	for id, at := range o.ended {
		if now.Sub(at) > heardWithin {
			delete(o.ended, id)
		}
	}
	for name, at := range o.files {
		if now.Sub(at) > heardWithin {
			delete(o.files, name)
		}
	}
}

// may reports whether the daemon may have opened a file of which is heard now.
func (o *own) may(id model.ID, path string, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, of := range []model.ID{id, {}} {
		if o.reading[of] > 0 || now.Sub(o.ended[of]) <= heardWithin {
			return true
		}
	}
	return now.Sub(o.files[filepath.Base(path)]) <= heardWithin
}

// ownDisk is a disk on which it is noted what is opened.
type ownDisk struct {
	store.OS
	own *own
}

// OpenFile opens a file; see store.Disk.
func (d ownDisk) OpenFile(name string, flag int, perm fs.FileMode) (store.File, error) {
	d.own.opens(name)
	return d.OS.OpenFile(name, flag, perm)
}

// ownPages are pages of which it is noted whose files are opened for them.
type ownPages struct {
	tier.Pages
	own *own
}

// Open opens a file; see tier.Pages.
func (p ownPages) Open(name string) (io.ReadCloser, error) {
	p.own.opens(name)
	return p.Pages.Open(name)
}

// Resident opens a file to measure it; see tier.Pages.
func (p ownPages) Resident(name string, off, n int64) (resident, of int64, err error) {
	p.own.opens(name)
	return p.Pages.Resident(name, off, n)
}

// Populate opens a file to read it ahead; see tier.Pages.
func (p ownPages) Populate(ctx context.Context, name string, off, n int64, mapped bool, step func(done int64) error) error {
	p.own.opens(name)
	return p.Pages.Populate(ctx, name, off, n, mapped, step)
}

// Lock opens a file to lock it in memory; see tier.Pages.
func (p ownPages) Lock(ctx context.Context, name string, off, n int64, step func(done int64) error) (io.Closer, error) {
	p.own.opens(name)
	return p.Pages.Lock(ctx, name, off, n, step)
}
