package store_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/store/crashdisk"
)

// twoCommits is a store with two commits of a model, of which main leads to the second.
func twoCommits(t *testing.T) (store.Settings, sample, sample) {
	t.Helper()
	set := store.Settings{Path: filepath.Join(t.TempDir(), "root", "hub"), BootID: bootA}
	old := sampleOf("acme/model", commit1, "model.bin", content(1, 1000))
	young := sampleOf("acme/model", commit2, "model.bin", content(2, 1000))
	w := pulled2(t, set, old)
	if _, err := pull(t.Context(), w, young, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return set, old, young
}

func TestANameLeadsBackToACommitThatIsWhole(t *testing.T) {
	set, old, young := twoCommits(t)
	w := own2(t, set)
	defer w.Close()
	id := old.m.ID
	if c, _ := w.Ref(id, "main"); c != commit2 {
		t.Fatalf("main = %s", c)
	}
	if err := w.Point(t.Context(), id, "main", commit1); err != nil {
		t.Fatal(err)
	}
	if c, _ := w.Ref(id, "main"); c != commit1 {
		t.Errorf("main = %s", c)
	}
	for rev, commit := range map[string]string{commit2: commit2, "../x": commit2, "main": "3333333333333333333333333333333333333333"} {
		if err := w.Point(t.Context(), id, rev, commit); err == nil {
			t.Errorf("%s leads to %s", rev, commit)
		}
	}
	blob, err := w.Blob(id, young.m.Files[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(blob.Path, 10); err != nil {
		t.Fatal(err)
	}
	if err := w.Point(t.Context(), id, "main", commit2); model.ClassOf(err) != model.Integrity {
		t.Errorf("a commit that is not whole: %v", err)
	}
	if c, _ := w.Ref(id, "main"); c != commit1 {
		t.Errorf("main = %s after what was refused", c)
	}
}

// However it ends, the name leads to one of both commits, and both are there.
func TestARollbackThatDiesLeavesOneOfBoth(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	back, rounds := 0, 0
	for at := 1; ; at++ {
		done := false
		for range 6 {
			rounds++
			set, old, young := twoCommits(t)
			root := filepath.Dir(set.Path)
			d, err := crashdisk.New(root)
			if err != nil {
				t.Fatal(err)
			}
			crashing := set
			crashing.Disk = d
			w, err := store.New(crashing).Own(t.Context(), "test", nil)
			if err != nil {
				t.Fatal(err)
			}
			d.StopAfter(at)
			failed := w.Point(t.Context(), old.m.ID, "main", commit1)
			if failed != nil && !errors.Is(failed, crashdisk.ErrStopped) {
				t.Fatal(failed)
			}
			if rnd.IntN(3) == 0 {
				err = d.Kill()
			} else if err = d.PowerLoss(rnd.Uint64(), root+".after"); err == nil {
				removeAll(t, root)
				err = os.Rename(root+".after", root)
			}
			if err != nil {
				t.Fatal(err)
			}
			st := store.New(set)
			c, ok := st.Ref(old.m.ID, "main")
			if !ok || c != commit1 && c != commit2 || failed == nil && c != commit1 {
				t.Fatalf("stopped after %d operations: main = %q, %v", at, c, failed)
			}
			if c == commit1 {
				back++
			}
			for _, s := range []sample{old, young} {
				if !st.Available(s.m.ID, s.m.Commit, s.m.Files) {
					t.Fatalf("stopped after %d operations: %s is gone", at, s.m.Commit)
				}
			}
			done = failed == nil
		}
		if done {
			break
		}
	}
	if back == 0 || back == rounds {
		t.Errorf("%d of %d led back: nothing was interrupted", back, rounds)
	}
}
