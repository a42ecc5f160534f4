package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"ema/internal/model"
	"ema/internal/store"
)

func TestManyWritersAndASyncDoNotDisturbEachOther(t *testing.T) {
	const blocks = 6
	whole := content(5, blocks<<20)
	set := store.Settings{Path: filepath.Join(t.TempDir(), "hub"), BootID: bootA}
	w := own(t, set)
	id, f := model.ID{Name: "acme/x"}, model.File{Path: "x", Size: blocks << 20, Digest: model.SumSHA256(whole)}
	p, err := w.Partial(t.Context(), id, f, "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	group, written := errgroup.Group{}, make(chan struct{}, blocks)
	for i := range int64(blocks) {
		group.Go(func() error {
			defer func() { written <- struct{}{} }()
			for off := i << 20; off < (i+1)<<20; off += 100_000 {
				end := min(off+100_000, (i+1)<<20)
				if err := p.WriteAt(whole[off:end], off, crcOf(whole[off:end])); err != nil {
					return err
				}
				if _, err := p.ReadAt(make([]byte, end-off), off); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range blocks {
		upto := p.Written(0)
		if err := p.Sync(hashState(whole[:upto]), upto); err != nil {
			t.Fatal(err)
		}
		<-written
	}
	if err := errors.Join(group.Wait(), p.Sync(nil, 0)); err != nil {
		t.Fatal(err)
	}
	if len(p.Missing()) > 0 || p.Unsynced() != 0 {
		t.Fatalf("missing %v, unsynced %d", p.Missing(), p.Unsynced())
	}
	if err := errors.Join(p.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	set.BootID = bootB
	if p, err = own(t, set).Partial(t.Context(), id, f, ""); err != nil {
		t.Fatal(err)
	}
	if err := trusts(p, f, whole, map[int64]bool{0: true, 1 << 20: true, 5 << 20: true}); err != nil {
		t.Error(err)
	}
}

// duringSync is the operating system's disk that does something while a data file is synced.
type duringSync struct {
	store.OS
	act *func()
}

type duringSyncFile struct {
	store.File
	act *func()
}

func (d duringSync) OpenFile(name string, flag int, perm fs.FileMode) (store.File, error) {
	f, err := d.OS.OpenFile(name, flag, perm)
	if err == nil && strings.HasSuffix(name, ".incomplete") {
		return duringSyncFile{f, d.act}, nil
	}
	return f, err
}

func (f duringSyncFile) Datasync() error {
	err := f.File.Datasync()
	(*f.act)() // after the device answered, before the caller heard of it
	return err
}

func TestWhatChangesDuringASyncIsNotCalledDurable(t *testing.T) {
	b := content(6, 1<<20)
	for change, c := range map[string]struct {
		before int
		during func(p *store.Partial) error
	}{
		// The entry looks as before, but its bytes are newer than the sync.
		"the same bytes again": {1 << 20, func(p *store.Partial) error {
			return errors.Join(p.Forget(model.Segment{End: 1 << 20}), p.WriteAt(b, 0, crcOf(b)))
		}},
		"more bytes in a block": {1 << 19, func(p *store.Partial) error { return p.WriteAt(b[1<<19:], 1<<19, crcOf(b[1<<19:])) }},
	} {
		t.Run(change, func(t *testing.T) {
			act := func() {}
			set := store.Settings{Path: filepath.Join(t.TempDir(), "hub"), BootID: bootA, Disk: duringSync{act: &act}}
			w := own(t, set)
			id, f := model.ID{Name: "acme/x"}, model.File{Path: "x", Size: 2 << 20, Digest: model.SumSHA256(nil)}
			p, err := w.Partial(t.Context(), id, f, "")
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if err := p.WriteAt(b[:c.before], 0, crcOf(b[:c.before])); err != nil {
				t.Fatal(err)
			}
			act = func() {
				if err := c.during(p); err != nil {
					t.Error(err)
				}
			}
			if err := errors.Join(p.Sync(hashState(b[:c.before]), int64(c.before)), p.Close(), w.Close()); err != nil {
				t.Fatal(err)
			}
			// The power fails, and takes what came during the sync.
			names, err := filepath.Glob(filepath.Join(set.Path, "*", "blobs", "*.incomplete"))
			if err != nil || len(names) != 1 {
				t.Fatalf("%v, %v", names, err)
			}
			if err := os.WriteFile(names[0], make([]byte, f.Size), 0o666); err != nil {
				t.Fatal(err)
			}
			if p, err = own(t, store.Settings{Path: set.Path, BootID: bootB}).Partial(t.Context(), id, f, ""); err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if state, upto := p.Checkpoint(); p.Written(0) != 0 || state != nil {
				t.Errorf("%d lost bytes are trusted, and a checkpoint at %d", p.Written(0), upto)
			}
		})
	}
}
