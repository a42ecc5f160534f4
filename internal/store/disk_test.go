package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ema/internal/model"
	"ema/internal/store"
)

func TestAFullDiskIsNamedAndCostsNothing(t *testing.T) {
	s := tiny()
	for _, op := range []string{"preallocate", "write", "open", "rename"} {
		for _, cause := range []error{syscall.ENOSPC, syscall.EDQUOT} {
			t.Run(fmt.Sprintf("op=%s/%v", op, cause), func(t *testing.T) {
				w := newWorld(t, filepath.Join(memoryDir(t), "w"), bootA)
				o, err := store.New(w.set).Own(t.Context(), "test", nil)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				w.disk.Fail(func(got, name string) error {
					if n++; got == op && n > 20 || got == op && op == "preallocate" {
						return cause
					}
					return nil
				})
				_, err = pull(t.Context(), o, s, nil)
				if model.ClassOf(err) != model.DiskFull || !errors.Is(err, cause) || !strings.Contains(err.Error(), "acme/tiny") {
					t.Fatalf("pull = %v, want Class DiskFull and the model's name", err)
				}
				w.disk.Fail(nil)
				if _, err := pull(t.Context(), o, s, nil); err != nil {
					t.Fatalf("after space was freed: %v", err)
				}
				if err := checkTruth(o.Store, s); err != nil {
					t.Fatal(err)
				}
				if err := w.disk.Kill(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestADeviceThatLosesBytesTakesBackWhatWasNotDurable(t *testing.T) {
	w := newWorld(t, filepath.Join(memoryDir(t), "w"), bootA)
	o, err := store.New(w.set).Own(t.Context(), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	id, f := model.ID{Name: "acme/x"}, model.File{Path: "x", Size: 2 * store.BlockSize, Digest: model.SumSHA256(nil)}
	p, err := o.Partial(t.Context(), id, f, "")
	if err != nil {
		t.Fatal(err)
	}
	b := content(1, int(store.BlockSize))
	if err := errors.Join(p.WriteAt(b, 0, crcOf(b)), p.Sync(hashState(b), store.BlockSize), p.WriteAt(b, store.BlockSize, crcOf(b))); err != nil {
		t.Fatal(err)
	}
	w.disk.Fail(func(op, name string) error {
		if op == "sync" && strings.HasSuffix(name, ".incomplete") {
			return syscall.EIO
		}
		return nil
	})
	if err := p.Sync(nil, 0); model.ClassOf(err) != model.DiskError {
		t.Fatalf("Sync = %v, want Class DiskError", err)
	}
	w.disk.Fail(nil)
	if err := p.Sync(nil, 0); err == nil {
		t.Error("a second sync says that all is well: the kernel reports a loss only once")
	}
	if err := p.WriteAt(b, store.BlockSize, crcOf(b)); err == nil {
		t.Error("writing goes on")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err = o.Partial(t.Context(), id, f, ""); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_, upto := p.Checkpoint()
	if got := p.Written(0); got != store.BlockSize || upto != store.BlockSize {
		t.Errorf("%d bytes are trusted, %d of them hashed; want one block", got, upto)
	}
	if err := errors.Join(p.Close(), w.disk.Kill()); err != nil {
		t.Fatal(err)
	}
}

// mounted mounts a small file system in memory; false where this user may not.
func mounted(t *testing.T, options string) (string, bool) {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		return "", false
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir, true
}

func TestATinyRealFileSystemIsFullBeforeTheFirstByte(t *testing.T) {
	dir, ok := mounted(t, "size=3m")
	if !ok {
		return // TestAFullDiskIsNamedAndCostsNothing keeps the promise by other means
	}
	w := own(t, store.Settings{Path: filepath.Join(dir, "hub")})
	f := model.File{Path: "big", Size: 4 << 20, Digest: model.SumSHA256(nil)}
	if _, err := w.Partial(t.Context(), model.ID{Name: "a/b"}, f, ""); model.ClassOf(err) != model.DiskFull {
		t.Fatalf("Partial = %v, want Class DiskFull", err)
	}
	if free, err := w.Free(); err != nil || free < 2*model.MiB || free > 3*model.MiB {
		t.Errorf("free = %v, %v: what did not fit still takes space", free, err)
	}
}

func TestAReadOnlyStoreSaysSoInOneSentence(t *testing.T) {
	s := tiny()
	dir := filepath.Join(t.TempDir(), "w")
	w := newWorld(t, dir, bootA)
	w.disk.Fail(func(op, name string) error { return syscall.EROFS })
	st := store.New(w.set)
	check := func(err error) {
		t.Helper()
		if model.ClassOf(err) != model.DiskError || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "read-only") || !strings.Contains(err.Error(), "--store") {
			t.Errorf("Own = %q, want one sentence about a read-only file system", err)
		}
	}
	_, err := st.Own(t.Context(), "test", nil)
	check(err)
	root, ok := mounted(t, "size=9m")
	if !ok {
		return
	}
	set := store.Settings{Path: filepath.Join(root, "hub")}
	o := own2(t, set)
	if _, err := pull(t.Context(), o, s, nil); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("", root, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err = store.New(set).Own(t.Context(), "test", nil)
	check(err)
	if !store.New(set).Available(s.m.ID, commit1, s.m.Files) {
		t.Error("what is there cannot be read")
	}
}

func TestManySmallFilesArePublishedWithOneBarrier(t *testing.T) {
	var files []any
	for i := range 100 {
		files = append(files, fmt.Sprintf("f%d", i), []byte(fmt.Sprint("content ", i)))
	}
	s := sampleOf("acme/many", commit1, files...)
	w := newWorld(t, filepath.Join(memoryDir(t), "w"), bootA)
	o, err := store.New(w.set).Own(t.Context(), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	syncs := 0
	w.disk.Fail(func(op, _ string) error {
		if op == "sync" {
			syncs++
		}
		return nil
	})
	if _, err := pull(t.Context(), o, s, nil); err != nil {
		t.Fatal(err)
	}
	if syncs > 60 {
		t.Errorf("%d syncs for 100 files", syncs)
	}
	after := filepath.Join(filepath.Dir(w.root), "after")
	if err := w.disk.PowerLoss(1, after); err != nil {
		t.Fatal(err)
	}
	if !store.New(store.Settings{Path: filepath.Join(after, "hub")}).Available(s.m.ID, commit1, s.m.Files) {
		t.Error("not all of them survive a power loss")
	}
}

func TestASmallFileOfAKilledRunIsNotFetchedAgain(t *testing.T) {
	set := store.Settings{Path: filepath.Join(t.TempDir(), "hub")}
	s := tiny()
	f := s.m.Files[0]
	first := own2(t, set)
	if _, err := first.StageSmall(s.m.ID, f, []byte("{}\n"), f.Digest); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(set.Path, s.m.ID.DirName(), "blobs", s.m.Files[1].Digest.Hex()+".0123abcd.incomplete")
	put(t, torn, "more than nothing")
	w := own(t, set)
	if b, ok := w.Leftover(s.m.ID, f); !ok || string(b) != "{}\n" {
		t.Errorf("Leftover = %q, %v", b, ok)
	}
	if b, ok := w.Leftover(s.m.ID, s.m.Files[1]); ok {
		t.Errorf("Leftover = %q, which is not what was asked for", b)
	}
	if _, err := pull(t.Context(), w, s, nil); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(set.Path, "*", "blobs", "*.incomplete")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if _, err := os.Stat(blobFile(w.Store, s, 1)); err != nil {
		t.Error(err)
	}
}
