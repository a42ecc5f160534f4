package main

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/host"
	"ema/internal/model"
)

func TestWhatTheDaemonOpensMayBeItsOwnUntilItMustHaveBeenHeard(t *testing.T) {
	one, other := model.ID{Name: "acme/a"}, model.ID{Name: "acme/b"}
	for promise, c := range map[string]struct {
		begin           func(*own) (done func())
		here, elsewhere bool // while it lasts: the same file, and one of another model
		later           bool // when it has ended, 2 s later
	}{
		"while it reads a model": {func(o *own) func() { return o.begin(one) }, true, false, true},
		"while it reads any":     {func(o *own) func() { return o.begin(model.ID{}) }, true, true, true},
		"when it opens a file":   {func(o *own) func() { o.opens("/hot/blobs/ab"); return func() {} }, true, false, true},
	} {
		t.Run(promise, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOwn()
				if o.may(one, "/cold/blobs/ab", time.Now()) {
					t.Fatal("what it has not opened may be its own")
				}
				done := c.begin(o)
				if got := o.may(one, "/cold/blobs/ab", time.Now()); got != c.here {
					t.Errorf("the same: %v", got)
				}
				if got := o.may(other, "/cold/blobs/cd", time.Now()); got != c.elsewhere {
					t.Errorf("another one: %v", got)
				}
				time.Sleep(heardWithin)
				done()
				if got := o.may(one, "/cold/blobs/ab", time.Now()); got != c.later {
					t.Errorf("at its end: %v", got)
				}
				time.Sleep(heardWithin + 1)
				if o.may(one, "/cold/blobs/ab", time.Now()) {
					t.Error("much later it may still be its own")
				}
				o.opens("/hot/blobs/ef")
				if len(o.ended)+len(o.reading) > 0 || len(o.files) != 1 {
					t.Errorf("it remembers %v, %v, %v", o.reading, o.ended, o.files)
				}
			})
		})
	}
}

func TestPagesAndDiskOfTheDaemonAreNotedBeforeTheyAreOpened(t *testing.T) {
	o, id := newOwn(), model.ID{Name: "acme/a"}
	path := filepath.Join(t.TempDir(), "ab")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	pages := ownPages{host.PageCache{}, o}
	for name, open := range map[string]func() error{
		"the disk": func() error {
			f, err := ownDisk{own: o}.OpenFile(path, os.O_RDONLY, 0)
			if err != nil {
				return err
			}
			return f.Close()
		},
		"a header": func() error {
			f, err := pages.Open(path)
			if err != nil {
				return err
			}
			return f.Close()
		},
		"a measurement": func() error { _, _, err := pages.Resident(path, 0, 4); return err },
		"reading ahead": func() error {
			return pages.Populate(t.Context(), path, 0, 4, false, func(int64) error { return nil })
		},
		"a lock": func() error {
			f, err := pages.Lock(t.Context(), path, 0, 4, func(int64) error { return nil })
			if err != nil {
				return err
			}
			return f.Close()
		},
	} {
		clear(o.files)
		if err := open(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !o.may(id, path, time.Now()) {
			t.Errorf("%s is not its own", name)
		}
	}
}
