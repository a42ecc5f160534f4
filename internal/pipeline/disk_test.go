package pipeline_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
	"ema/internal/store/crashdisk"
)

// A disk that is full, or fails, for a while: the pull says so, shows nothing that is not whole, and the
// next one in the same process completes, hindered by nothing that the first one kept.
func TestADiskThatFailsForAWhileHindersNothingLater(t *testing.T) {
	entries := []demohub.Entry{
		noise("a.bin", 2<<20+77, 1), noise("b/c.bin", 3<<20, 2), noise("empty.bin", 0, 3), noise("small.bin", 100<<10, 5),
	}
	for op, class := range map[string]model.Class{
		"open": model.DiskError, "write": model.DiskFull, "preallocate": model.DiskFull, "sync": model.DiskError,
		"rename": model.DiskError, "mkdir": model.DiskFull, "symlink": model.DiskFull,
	} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			r := repo(t, parts(entries)...)
			root := filepath.Join(t.TempDir(), "disk")
			if err := os.MkdirAll(root, 0o777); err != nil {
				t.Fatal(err)
			}
			disk, err := crashdisk.New(root)
			if err != nil {
				t.Fatal(err)
			}
			cause := syscall.ENOSPC
			if class == model.DiskError {
				cause = syscall.EIO
			}
			r.set = store.Settings{Path: filepath.Join(root, "hub"), BootID: "boot", Disk: disk}
			l := r.line(t, func(l *pipeline.Line) { l.Waiting = func(o store.Owner) { t.Errorf("it waits for %v", o) } })
			failed, rnd := 0, rand.New(rand.NewPCG(8, uint64(len(op))))
			for try := range 4 {
				var left atomic.Int64
				left.Store(int64(try * rnd.IntN(4)))
				disk.Fail(func(now, _ string) error {
					if now == op && left.Add(-1) < 0 {
						return cause
					}
					return nil
				})
				_, err := l.Pull(t.Context(), request(), &pipeline.Progress{})
				if err == nil {
					break
				}
				if failed++; model.ClassOf(err) != class {
					t.Errorf("%v of class %v, want %v", err, model.ClassOf(err), class)
				}
				truth(t, r, nil)
				if _, ok := l.Store.Ref(acme, "main"); ok {
					t.Error("there is a ref after a failure")
				}
			}
			disk.Fail(nil)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			res, err := l.Pull(ctx, request(), &pipeline.Progress{})
			if err != nil || failed == 0 {
				t.Fatalf("%v after %d failures", err, failed)
			}
			holds(t, res.Path, entries...)
		})
	}
}

// What nobody can do is not tried again and again.
func TestAFullDiskIsNotRetried(t *testing.T) {
	r := repo(t, noise("a.bin", 2<<20+77, 1))
	root := filepath.Join(t.TempDir(), "disk")
	if err := os.MkdirAll(root, 0o777); err != nil {
		t.Fatal(err)
	}
	disk, err := crashdisk.New(root)
	if err != nil {
		t.Fatal(err)
	}
	r.set = store.Settings{Path: filepath.Join(root, "hub"), BootID: "boot", Disk: disk}
	disk.Fail(func(op, name string) error {
		if op == "write" && filepath.Ext(name) == ".incomplete" {
			return syscall.ENOSPC
		}
		return nil
	})
	p := &pipeline.Progress{}
	_, err = r.line(t).Pull(t.Context(), request(), p)
	if model.ClassOf(err) != model.DiskFull || p.Retries.Load() != 0 {
		t.Errorf("%v after %d retries", err, p.Retries.Load())
	}
}
