package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/store/crashdisk"
)

// world is a folder with a store on a disk that can crash.
type world struct {
	root string
	disk *crashdisk.Disk
	set  store.Settings
}

func newWorld(t testing.TB, root, boot string) *world {
	t.Helper()
	if err := os.MkdirAll(root, 0o777); err != nil {
		t.Fatal(err)
	}
	w, err := tryWorld(root, boot)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func tryWorld(root, boot string) (*world, error) {
	d, err := crashdisk.New(root)
	return &world{root, d, store.Settings{Path: filepath.Join(root, "hub"), BootID: boot, Disk: d}}, err
}

// kept is which blocks of which file the store promised to keep over a power loss.
type kept map[string]map[int64]bool

func (k kept) note(path string, p *store.Partial) {
	k[path] = map[int64]bool{}
	for off := int64(0); ; off += store.BlockSize {
		reach := p.Written(off)
		if reach == off {
			return
		}
		if reach >= off+store.BlockSize {
			k[path][off] = true
		}
	}
}

// run pulls the sample until the disk stops, and reports whether it was finished.
func (w *world) run(t testing.TB, s sample, k kept) bool {
	t.Helper()
	err := func() error {
		writer, err := store.New(w.set).Own(context.Background(), "test", nil)
		if err != nil {
			return err
		}
		_, err = pull(context.Background(), writer, s, k.note)
		return err
	}()
	if err != nil && !errors.Is(err, crashdisk.ErrStopped) {
		t.Fatalf("pull = %v, want no failure but the crash", err)
	}
	return err == nil
}

// checkTrust opens every partial file and compares what it trusts with the truth.
func checkTrust(t testing.TB, set store.Settings, s sample, k kept) {
	t.Helper()
	w := own2(t, set)
	defer w.Close()
	for _, f := range s.m.Files {
		if _, err := w.Blob(s.m.ID, f.Digest); err == nil || f.Size <= store.BlockSize {
			continue
		}
		p, err := w.Partial(context.Background(), s.m.ID, f, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := trusts(p, f, s.content[f.Path], k[f.Path]); err != nil {
			t.Fatalf("%s: %v", f.Path, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func trusts(p *store.Partial, f model.File, truth []byte, promised map[int64]bool) error {
	for off := int64(0); off < f.Size; off += store.BlockSize {
		end := min(p.Written(off), off+store.BlockSize)
		b := make([]byte, end-off)
		if _, err := p.ReadAt(b, off); err != nil {
			return err
		}
		if !bytes.Equal(b, truth[off:end]) {
			return fmt.Errorf("trusts wrong bytes below %d", end)
		}
		if promised[off] && end != min(off+store.BlockSize, f.Size) {
			return fmt.Errorf("the block at %d was synced, but only %d bytes of it are left", off, end-off)
		}
	}
	state, upto := p.Checkpoint()
	if state == nil {
		return nil
	}
	h := sha256.New()
	h.Write(truth[:upto])
	want, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err == nil && !bytes.Equal(state, want) {
		err = fmt.Errorf("the checkpoint at %d is not the hash of what is there", upto)
	}
	return err
}

func own2(t testing.TB, set store.Settings) *store.Writer {
	t.Helper()
	w, err := store.New(set).Own(context.Background(), "check", nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// finishes checks that a store that crashed tells no lie, and that the pull goes on to the end.
func finishes(t testing.TB, root, boot string, s sample, k kept, collect bool) {
	t.Helper()
	set := store.Settings{Path: filepath.Join(root, "hub"), BootID: boot, Disk: unsynced{}}
	if err := checkTruth(store.New(set), s); err != nil {
		t.Fatal(err)
	}
	checkTrust(t, set, s, k)
	w := own2(t, set)
	defer w.Close()
	if _, err := pull(context.Background(), w, s, nil); err != nil {
		t.Fatal(err)
	}
	if err := checkTruth(w.Store, s); err != nil {
		t.Fatal(err)
	}
	if !w.Available(s.m.ID, s.m.Commit, s.m.Files) {
		t.Fatal("not available after the second pull")
	}
	if c, ok := w.Ref(s.m.ID, "main"); !ok || c != s.m.Commit {
		t.Fatalf("main = %q, %v", c, ok)
	}
	if !collect {
		return
	}
	r, err := w.PlanCollect(0, time.Now().Add(time.Hour))
	if err == nil {
		err = w.Remove(context.Background(), r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := checkTruth(w.Store, s); err != nil || !w.Available(s.m.ID, s.m.Commit, s.m.Files) {
		t.Fatalf("collecting what nobody needs took something else: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(root, "hub", "*", "blobs", "*.incomplete"))
	state, _ := filepath.Glob(filepath.Join(root, "ema", "hub", "*", "*", "*.journal*"))
	builds, _ := filepath.Glob(filepath.Join(root, "hub", "*", ".ema", "*"))
	if left = append(append(left, state...), builds...); err != nil || len(left) > 0 {
		t.Fatalf("left over: %v, %v", left, err)
	}
}

// opsOfPull is how many operations a whole pull takes.
func opsOfPull(t testing.TB, s sample) int {
	w := newWorld(t, memoryDir(t)+"/whole", bootA)
	if !w.run(t, s, kept{}) {
		t.Fatal("the pull did not finish")
	}
	if err := w.disk.Kill(); err != nil {
		t.Fatal(err)
	}
	return w.disk.Ops()
}

func TestPowerLossAtAnyOperationLeavesNoLie(t *testing.T) {
	s := tiny()
	n := opsOfPull(t, s)
	dir := memoryDir(t)
	for at := 1; at <= n; at += 3 {
		root := filepath.Join(dir, fmt.Sprint(at))
		w, k := newWorld(t, root, bootA), kept{}
		w.disk.StopAfter(at)
		w.run(t, s, k)
		after := root + ".after"
		if err := w.disk.PowerLoss(uint64(at), after); err != nil {
			t.Fatal(err)
		}
		finishes(t, after, bootB, s, k, at%4 == 1)
		removeAll(t, root, root+".attic", after)
	}
}

func TestWhatIsDoneSurvivesAPowerLoss(t *testing.T) {
	s := tiny()
	for seed := range uint64(10) {
		root := filepath.Join(memoryDir(t), "w")
		w := newWorld(t, root, bootA)
		if !w.run(t, s, kept{}) {
			t.Fatal("the pull did not finish")
		}
		if err := w.disk.PowerLoss(seed, root+".after"); err != nil {
			t.Fatal(err)
		}
		st := store.New(store.Settings{Path: filepath.Join(root+".after", "hub")})
		if !st.Available(s.m.ID, s.m.Commit, s.m.Files) {
			t.Fatalf("seed %d: not available", seed)
		}
		if c, ok := st.Ref(s.m.ID, "main"); !ok || c != commit1 {
			t.Fatalf("seed %d: the ref is gone", seed)
		}
	}
}

func TestWhatIsDoneAfterAKillSurvivesAPowerLoss(t *testing.T) {
	s := tiny()
	dir := memoryDir(t)
	n := opsOfPull(t, s)
	for at := 1; at <= n; at += 4 {
		root := filepath.Join(dir, fmt.Sprint(at))
		w := newWorld(t, root, bootA)
		w.disk.StopAfter(at)
		w.run(t, s, kept{})
		if err := w.disk.Kill(); err != nil {
			t.Fatal(err)
		}
		w.disk.Restart() // the killed one's names may not be durable, and nobody else will make them so
		if !w.run(t, s, kept{}) {
			t.Fatal("the second pull did not finish")
		}
		after := root + ".after"
		if err := w.disk.PowerLoss(uint64(at), after); err != nil {
			t.Fatal(err)
		}
		st := store.New(store.Settings{Path: filepath.Join(after, "hub")})
		if c, ok := st.Ref(s.m.ID, "main"); !ok || c != commit1 || !st.Available(s.m.ID, s.m.Commit, s.m.Files) {
			t.Fatalf("killed after operation %d of %d, finished, and gone with the power", at, n)
		}
		removeAll(t, root, root+".attic", after)
	}
}

func TestKillAtAnyOperationLosesNoWrittenByte(t *testing.T) {
	s := tiny()
	n := opsOfPull(t, s)
	dir := memoryDir(t)
	for at := 1; at <= n; at += 4 {
		root := filepath.Join(dir, fmt.Sprint(at))
		w, k := newWorld(t, root, bootA), kept{}
		w.disk.StopAfter(at)
		w.run(t, s, k)
		if err := w.disk.Kill(); err != nil {
			t.Fatal(err)
		}
		finishes(t, root, bootA, s, k, at%4 == 1)
		removeAll(t, root, root+".attic")
	}
}

func TestSeveralCrashesInARowLeaveNoLie(t *testing.T) {
	s := tiny()
	n := opsOfPull(t, s)
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		dir := memoryDir(t)
		root, boot := filepath.Join(dir, "0"), bootA
		for i := range 4 {
			w := newWorld(t, root, boot)
			w.disk.StopAfter(1 + rnd.IntN(n))
			w.run(t, s, kept{})
			if rnd.IntN(2) == 0 {
				if err := w.disk.Kill(); err != nil {
					t.Fatal(err)
				}
				removeAll(t, root+".attic")
			} else {
				next := filepath.Join(dir, fmt.Sprint(i+1))
				if err := w.disk.PowerLoss(seed, next); err != nil {
					t.Fatal(err)
				}
				removeAll(t, root, root+".attic")
				root, boot = next, fmt.Sprint("boot ", i)
			}
			set := store.Settings{Path: filepath.Join(root, "hub"), BootID: boot}
			if err := checkTruth(store.New(set), s); err != nil {
				t.Fatalf("seed %d, crash %d: %v", seed, i, err)
			}
		}
		finishes(t, root, boot, s, kept{}, true)
	}
}

func removeAll(t testing.TB, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if err := os.RemoveAll(d); err != nil {
			t.Fatal(err)
		}
	}
}

// unsynced is the operating system's disk without its slowest part, where no crash follows.
type unsynced struct{ store.OS }

type unsyncedFile struct{ store.File }

func (unsyncedFile) Sync() error                       { return nil }
func (unsyncedFile) Datasync() error                   { return nil }
func (unsyncedFile) StartWriteback(off, n int64) error { return nil }
func (unsynced) SyncDir(string) error                  { return nil }
func (unsynced) SyncFS(string) error                   { return nil }
func (u unsynced) OpenFile(name string, flag int, perm fs.FileMode) (store.File, error) {
	f, err := u.OS.OpenFile(name, flag, perm)
	return unsyncedFile{f}, err
}
