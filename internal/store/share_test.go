package store_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/store/crashdisk"
)

// alike are two models with one large content in common, beside others.
func alike() (a, b sample) {
	weights := content(5, 2<<20+77)
	return sampleOf("acme/a", commit1, "model.safetensors", weights, "config.json", []byte("{}")),
		sampleOf("acme/b", commit2, "weights.safetensors", weights, "own.safetensors", content(6, 1<<20+9))
}

func large(s sample) model.File {
	for _, f := range s.m.Files {
		if f.Size == 2<<20+77 {
			return f
		}
	}
	return model.File{}
}

func oneFile(t testing.TB, w *store.Writer, a, b sample) bool {
	t.Helper()
	d := large(a).Digest
	one, err := os.Stat(filepath.Join(w.Path(), a.m.ID.DirName(), "blobs", d.Hex()))
	other, err2 := os.Stat(filepath.Join(w.Path(), b.m.ID.DirName(), "blobs", d.Hex()))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return os.SameFile(one, other)
}

func truth2(t testing.TB, w *store.Writer, all ...sample) {
	t.Helper()
	for _, s := range all {
		if err := checkTruth(w.Store, s); err != nil || !w.Available(s.m.ID, s.m.Commit, s.m.Files) {
			t.Fatalf("%s: %v", s.m.ID, err)
		}
	}
}

func TestAContentThatAnotherModelHasIsBorrowed(t *testing.T) {
	a, b := alike()
	w := pulled(t, tiered(memoryDir(t)), a)
	rest, err := w.Borrow(t.Context(), b.m.ID, b.m.Files)
	if err != nil || len(rest) != len(b.m.Files)-1 {
		t.Errorf("%+v, %v", rest, err)
	}
	for _, f := range rest {
		if f.Digest == large(a).Digest {
			t.Errorf("%s is not borrowed", f.Path)
		}
	}
	if blob, err := w.Blob(b.m.ID, large(a).Digest); err != nil || blob.Proof != store.Proven || blob.Size != large(a).Size {
		t.Errorf("%+v, %v", blob, err)
	}
	if _, err := pull(t.Context(), w, b, nil); err != nil {
		t.Fatal(err)
	}
	truth2(t, w, a, b)
	plan, err := w.PlanRemove(a.m.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	if oneFile(t, w, a, b) && plan.Bytes >= 2<<20 {
		t.Errorf("removing one of two names is said to free %v", plan.Bytes)
	}
	if err := w.Remove(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	truth2(t, w, b)
}

func TestNothingIsBorrowedThatIsNotProven(t *testing.T) {
	a, b := alike()
	w := pulled(t, tiered(memoryDir(t)), a)
	blob, err := w.Blob(a.m.ID, large(a).Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := scribble(blob.Path); err != nil { // into the second mebibyte
		f, err2 := os.OpenFile(blob.Path, os.O_WRONLY, 0)
		if err2 != nil {
			t.Fatal(err, err2)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("scribbled"), 1); err != nil {
			t.Fatal(err)
		}
	}
	if rest, err := w.Borrow(t.Context(), b.m.ID, []model.File{large(b)}); len(rest) != 1 || err != nil {
		t.Errorf("what somebody has changed is borrowed: %v, %v", rest, err)
	}
}

func TestAContentInAColderTierIsBorrowed(t *testing.T) {
	a, b := alike()
	w := pulled(t, tiered(memoryDir(t)), a)
	move(t, w, a, model.Cold)
	if rest, err := w.Borrow(t.Context(), b.m.ID, []model.File{large(b)}); len(rest) != 0 || err != nil {
		t.Fatalf("%v, %v", rest, err)
	}
	if _, err := pull(t.Context(), w, b, nil); err != nil {
		t.Fatal(err)
	}
	truth2(t, w, a, b)
	lies(t, w.Store, a, model.Cold)
	lies(t, w.Store, b, model.Hot)
}

func TestEqualContentsBecomeOneFile(t *testing.T) {
	a, b := alike()
	w := pulled(t, tiered(memoryDir(t)), a, b)
	if oneFile(t, w, a, b) {
		t.Fatal("they are one already")
	}
	twins, err := w.Twins()
	if err != nil || len(twins) != 1 || twins[0].Bytes != model.Bytes(large(a).Size) {
		t.Fatalf("%+v, %v", twins, err)
	}
	if done, err := w.Share(t.Context(), twins[0]); !done || err != nil {
		t.Fatalf("%v, %v", done, err)
	}
	if !oneFile(t, w, a, b) {
		t.Error("they are two files still")
	}
	if twins, err := w.Twins(); err != nil || len(twins) != 0 {
		t.Errorf("then there are %+v, %v", twins, err)
	}
	truth2(t, w, a, b)
	for _, to := range []model.Tier{model.Cold, model.Warm, model.Hot} { // each goes its own way
		move(t, w, a, to)
		truth2(t, w, a, b)
		lies(t, w.Store, b, model.Hot)
	}
	if found := check(t, w.Store); len(found) > 0 {
		t.Errorf("%+v", found)
	}
}

func TestWhereFilesHaveOneNameEachStaysAFileOfItsOwn(t *testing.T) {
	for _, cause := range []error{syscall.EMLINK, syscall.EPERM} {
		a, b := alike()
		dir := memoryDir(t)
		set := tiered(dir)
		d, err := crashdisk.New(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer removeAll(t, dir+".attic")
		set.Disk = d
		w := pulled(t, set, a, b)
		d.Fail(func(op, _ string) error {
			if op == "link" {
				return cause
			}
			return nil
		})
		twins, err := w.Twins()
		if err != nil || len(twins) != 1 {
			t.Fatalf("%+v, %v", twins, err)
		}
		if done, err := w.Share(t.Context(), twins[0]); done || err != nil {
			t.Errorf("%v: %v, %v", cause, done, err)
		}
		truth2(t, w, a, b)
		if found := check(t, w.Store); len(found) > 0 {
			t.Errorf("left: %+v", found)
		}
	}
}

// A crash at any step of sharing or borrowing takes nothing from either model, and leaves nothing that does not go away.
func TestACrashWhileContentsAreSharedTakesNothingAway(t *testing.T) {
	a, b := alike()
	for promise, borrow := range map[string]bool{"shared": false, "borrowed": true} {
		t.Run(promise, func(t *testing.T) {
			rnd, rounds := rand.New(rand.NewPCG(3, uint64(len(promise)))), 0
			for at, whole := 1, false; !whole; at++ {
				root := filepath.Join(memoryDir(t), "w")
				set := tiered(root)
				w := pulled2(t, set, a)
				if !borrow {
					if _, err := pull(t.Context(), w, b, nil); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				whole = crashedShare(t, set, root, borrow, at, rnd, a, b)
				rounds++
				removeAll(t, root)
			}
			if rounds < 8 {
				t.Errorf("only %d rounds", rounds)
			}
		})
	}
}

func crashedShare(t *testing.T, set store.Settings, root string, borrow bool, at int, rnd *rand.Rand, a, b sample) (whole bool) {
	t.Helper()
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
	if borrow {
		_, err = w.Borrow(t.Context(), b.m.ID, []model.File{large(b)})
	} else {
		twins, failed := w.Twins()
		if failed != nil || len(twins) != 1 {
			t.Fatalf("%+v, %v", twins, failed)
		}
		_, err = w.Share(t.Context(), twins[0])
	}
	if err != nil && !errors.Is(err, crashdisk.ErrStopped) {
		t.Fatal(err)
	}
	whole = err == nil
	if rnd.IntN(3) == 0 {
		err = d.Kill()
	} else {
		err = d.PowerLoss(rnd.Uint64(), root+".after")
		removeAll(t, root)
		err = errors.Join(err, os.Rename(root+".after", root))
	}
	if err != nil {
		t.Fatal(err)
	}
	removeAll(t, root+".attic")
	again := own2(t, set)
	defer again.Close()
	truth2(t, again, a)
	if !borrow {
		if err := checkTruth(again.Store, b); err != nil { // though its proof may have to be made anew
			t.Fatal(err)
		}
	}
	if _, err := pull(t.Context(), again, b, nil); err != nil {
		t.Fatal(err)
	}
	collect(t, again)
	truth2(t, again, a, b)
	if found := check(t, again.Store); len(found) > 0 {
		t.Fatalf("after %d operations: %+v", at, found)
	}
	return whole
}
