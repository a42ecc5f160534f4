package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/store/crashdisk"
)

// second is another revision that shares one blob with tiny.
func second() sample {
	s := sampleOf("acme/tiny", commit2, "config.json", []byte("{}\n"), "new.json", []byte("new"))
	s.m.Revision = "next"
	return s
}

func TestRemovingARevisionKeepsWhatOthersUse(t *testing.T) {
	a, b := tiny(), second()
	w := pulled(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub")}, a, b)
	r, err := w.PlanRemove(a.m.ID, commit1)
	if err != nil {
		t.Fatal(err)
	}
	if want := a.m.Files[2].Size + a.m.Files[4].Size; int64(r.Bytes) < want || int64(r.Bytes) > want+10_000 {
		t.Errorf("frees %d bytes, want %d and a little", r.Bytes, want)
	}
	if !w.Available(a.m.ID, commit1, a.m.Files) {
		t.Error("planning changed something")
	}
	if err := w.Remove(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if !w.Available(b.m.ID, commit2, b.m.Files) {
		t.Error("the other revision is no longer available")
	}
	if _, err := os.Lstat(w.Snapshot(a.m.ID, commit1)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the snapshot is still there")
	}
	if refs, err := w.Refs(a.m.ID); err != nil || len(refs) != 1 || refs["next"] != commit2 {
		t.Errorf("refs = %v, %v", refs, err)
	}
	if _, err := w.Blob(a.m.ID, a.m.Files[2].Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob that nobody uses is still there: %v", err)
	}
	if r, err = w.PlanRemove(a.m.ID, commit2); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Model(a.m.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the last revision the model is still there: %v", err)
	}
	if _, err := pull(t.Context(), w, a, nil); err != nil || !w.Available(a.m.ID, commit1, a.m.Files) {
		t.Errorf("it cannot be fetched again: %v", err)
	}
}

func TestRemovingAModelFollowsNoLink(t *testing.T) {
	s := tiny()
	dir := t.TempDir()
	w := pulled(t, store.Settings{Path: filepath.Join(dir, "hub")}, s)
	put(t, filepath.Join(dir, "outside", "precious"), "p")
	link(t, "../../../../outside", filepath.Join(w.Snapshot(s.m.ID, commit1), "trap"))
	link(t, "../../../outside/precious", filepath.Join(w.Path(), s.m.ID.DirName(), "blobs", model.SumSHA256([]byte("p")).Hex()))
	r, err := w.PlanRemove(s.m.ID, "")
	if err == nil {
		err = w.Remove(t.Context(), r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "outside", "precious")); err != nil {
		t.Error("something outside of the store was removed")
	}
	if _, err := w.Model(s.m.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the model is still there: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(w.StateDir(), "*", s.m.ID.DirName())); err != nil || len(left) > 0 {
		t.Errorf("state is left: %v, %v", left, err)
	}
}

func TestCollectingTakesOnlyWhatIsOldAndUnused(t *testing.T) {
	s := tiny()
	w := pulled(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub")}, s)
	blobs := filepath.Join(w.Path(), s.m.ID.DirName(), "blobs")
	unused, young := model.SumSHA256([]byte("1")).Hex(), model.SumSHA256([]byte("2")).Hex()
	dead := model.SumSHA256([]byte("3")).Hex() + ".01234567.incomplete"
	for _, name := range []string{unused, young, dead} {
		put(t, filepath.Join(blobs, name), "x")
	}
	// A use is a use, by whatever way it leads there.
	alias := filepath.Join(filepath.Dir(w.Path()), "alias")
	link(t, "hub", alias)
	link(t, filepath.Join(alias, s.m.ID.DirName(), "blobs", young), filepath.Join(w.Snapshot(s.m.ID, commit1), "absolute"))
	f := model.File{Path: "busy.bin", Size: 2 * store.BlockSize, Digest: model.SumSHA256([]byte("4"))}
	p, err := w.Partial(t.Context(), s.m.ID, f, "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if r, err := w.PlanCollect(24*time.Hour, time.Now()); err != nil || len(r.Items) > 0 {
		t.Errorf("of what is young, %+v would go (%v)", r.Items, err)
	}
	r, err := w.PlanCollect(24*time.Hour, time.Now().Add(25*time.Hour))
	if err != nil || r.Bytes != 2 || len(r.Items) != 2 {
		t.Fatalf("plan = %+v, %v", r, err)
	}
	if err := w.Remove(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{unused: false, dead: false, young: true} {
		if _, err := os.Lstat(filepath.Join(blobs, name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
	if err := p.WriteAt([]byte("x"), 0, crcOf([]byte("x"))); err != nil || !w.Available(s.m.ID, commit1, s.m.Files) {
		t.Errorf("something in use was taken: %v", err)
	}
}

func TestRemovingAModelLeavesWhatIsBeingFetched(t *testing.T) {
	s := tiny()
	w := pulled(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub")}, s)
	f := model.File{Path: "busy.bin", Size: 2 * store.BlockSize, Digest: model.SumSHA256([]byte("4"))}
	r, err := w.PlanRemove(s.m.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.Partial(t.Context(), s.m.ID, f, "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	later, err := w.PlanRemove(s.m.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, plan := range []store.Removal{r, later} { // made before and after the fetch began
		if err := errors.Join(w.Remove(t.Context(), plan), p.WriteAt([]byte("x"), p.Written(0), crcOf([]byte("x")))); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err = w.Partial(t.Context(), s.m.ID, f, ""); err != nil || p.Written(0) != 2 {
		t.Errorf("%d bytes are left of 2 (%v)", p.Written(0), err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestACrashWhileRemovingLeavesNoRefToSomethingGone(t *testing.T) {
	dir := memoryDir(t)
	a, b := tiny(), second()
	for at, done := 1, false; !done; at++ {
		root := filepath.Join(dir, fmt.Sprint(at))
		set := store.Settings{Path: filepath.Join(root, "hub"), Disk: unsynced{}}
		w := own2(t, set)
		for _, s := range []sample{a, b} {
			if _, err := pull(context.Background(), w, s, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		c := newWorld(t, root, bootA)
		plan, err := store.New(c.set).PlanRemove(a.m.ID, commit1)
		if err != nil {
			t.Fatal(err)
		}
		if w, err = store.New(c.set).Own(context.Background(), "test", nil); err != nil {
			t.Fatal(err)
		}
		c.disk.StopAfter(at)
		err = w.Remove(context.Background(), plan)
		if done = err == nil; err != nil && !errors.Is(err, crashdisk.ErrStopped) {
			t.Fatal(err)
		}
		after := root + ".after"
		if err := c.disk.PowerLoss(uint64(at), after); err != nil {
			t.Fatal(err)
		}
		st := store.New(store.Settings{Path: filepath.Join(after, "hub")})
		for _, s := range []sample{a, b} {
			if _, err := os.Stat(st.Snapshot(s.m.ID, s.m.Commit)); err == nil {
				if err := checkSnapshot(st.Snapshot(s.m.ID, s.m.Commit), s); err != nil {
					t.Fatalf("after operation %d: %v", at, err)
				}
			} else if _, ok := st.Ref(s.m.ID, s.m.Revision); ok {
				t.Fatalf("after operation %d: %s is a ref to nothing", at, s.m.Revision)
			}
		}
		if !st.Available(b.m.ID, commit2, b.m.Files) {
			t.Fatalf("after operation %d: the other revision is no longer available", at)
		}
		removeAll(t, root, root+".attic", after)
	}
}
