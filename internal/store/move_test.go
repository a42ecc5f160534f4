package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/store/crashdisk"
)

// tiered are the settings of a store in root with all tiers.
func tiered(root string) store.Settings {
	return store.Settings{
		Path: filepath.Join(root, "hub"), BootID: bootA, Disk: unsynced{},
		Colder: map[model.Tier]string{model.Warm: filepath.Join(root, "warm"), model.Cold: filepath.Join(root, "cold")},
	}
}

// lies fails unless all of a sample's content lies in that tier and nowhere else, under its old paths.
func lies(t testing.TB, s *store.Store, want sample, tier model.Tier) {
	t.Helper()
	if err := checkTruth(s, want); err != nil {
		t.Fatal(err)
	}
	if !s.Available(want.m.ID, want.m.Commit, want.m.Files) {
		t.Fatal("not available")
	}
	m, err := s.Model(want.m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if m.Tiers[tier] != m.Size || m.Size == 0 || len(m.Tiers) != 1 || m.Away != "" {
		t.Fatalf("of %v there are %v, away: %q; want all in %s", m.Size, m.Tiers, m.Away, tier)
	}
	for _, r := range m.Revisions {
		if r.State != store.Available {
			t.Fatalf("the revision is %s: %+v", r.State, r.Files)
		}
	}
	for _, f := range want.m.Files {
		b, err := s.Blob(want.m.ID, f.Digest)
		if err != nil || b.Tier != tier || b.Proof != store.Proven {
			t.Fatalf("%s: %+v, %v", f.Path, b, err)
		}
		if blocks, err := s.Blocks(want.m.ID, f.Digest); err != nil || int64(len(blocks)) != (f.Size+store.BlockSize-1)/store.BlockSize {
			t.Fatalf("%s: %d checksums, %v", f.Path, len(blocks), err)
		}
	}
	nothingElse(t, s, want, tier)
}

// nothingElse fails if another tier, or what is built or half done, still has files.
func nothingElse(t testing.TB, s *store.Store, want sample, tier model.Tier) {
	t.Helper()
	root := filepath.Dir(s.Path())
	for _, other := range []model.Tier{model.Warm, model.Cold} {
		files, _ := filepath.Glob(filepath.Join(root, string(other), want.m.ID.DirName(), "blobs", "*"))
		if other != tier && len(files) > 0 || other == tier && len(files) != distinct(want) {
			t.Fatalf("in the %s tier are %v", other, files)
		}
	}
	half, _ := filepath.Glob(filepath.Join(root, "*", want.m.ID.DirName(), "blobs", "*.incomplete"))
	links, _ := filepath.Glob(filepath.Join(s.Path(), want.m.ID.DirName(), ".ema", "*"))
	proofs, _ := filepath.Glob(filepath.Join(s.StateDir(), "blocks", want.m.ID.DirName(), "*"))
	if len(half)+len(links) > 0 || len(proofs) != distinct(want) {
		t.Fatalf("left over: %v %v %v", half, links, proofs)
	}
}

func distinct(s sample) int {
	all := map[model.Digest]bool{}
	for _, f := range s.m.Files {
		all[f.Digest] = true
	}
	return len(all)
}

func move(t testing.TB, w *store.Writer, s sample, to model.Tier) {
	t.Helper()
	if _, err := w.Move(context.Background(), s.m.ID, to, store.Moving{}); err != nil {
		t.Fatal(err)
	}
}

func TestAModelThatMovesKeepsItsPathAndItsProof(t *testing.T) {
	s := tiny()
	w := pulled(t, tiered(memoryDir(t)), s)
	lies(t, w.Store, s, model.Hot)
	for _, to := range []model.Tier{model.Cold, model.Warm, model.Cold, model.Hot, model.Warm, model.Warm, model.Hot} {
		move(t, w, s, to)
		lies(t, w.Store, s, to)
	}
	target, err := os.Readlink(filepath.Join(w.Snapshot(s.m.ID, commit1), "model.safetensors"))
	if err != nil || filepath.IsAbs(target) || !strings.HasPrefix(target, "../../blobs/") {
		t.Errorf("the snapshot's link is %q, %v: other tools expect it relative", target, err)
	}
	if left, err := w.Resume(); err != nil || len(left) > 0 {
		t.Errorf("still to be done: %v, %v", left, err)
	}
}

func TestAMoveTellsItsProgressAndAsksBeforeItCopies(t *testing.T) {
	s := tiny()
	w := pulled(t, tiered(memoryDir(t)), s)
	var asked, told int64
	moved, err := w.Move(t.Context(), s.m.ID, model.Cold, store.Moving{
		Pace:     func(_ context.Context, n int) error { asked += int64(n); return nil },
		Progress: func(n int64) { told += n },
	})
	if err != nil || moved.Blobs != distinct(s) || int64(moved.Bytes) != told || asked != told {
		t.Errorf("%+v, %v; asked for %d, told of %d bytes", moved, err, asked, told)
	}
}

func TestAMoveThatIsStoppedGoesOnWhereItWas(t *testing.T) {
	s := sampleOf("acme/big", commit1, "model.safetensors", content(5, 6<<20+77))
	set := tiered(memoryDir(t))
	w := pulled(t, set, s)
	ctx, cancel := context.WithCancel(t.Context())
	var n int64
	_, err := w.Move(ctx, s.m.ID, model.Cold, store.Moving{Progress: func(b int64) {
		if n += b; n >= 4<<20 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped: %v", err)
	}
	lies4 := w.Available(s.m.ID, commit1, s.m.Files)
	if left, err := w.Resume(); err != nil || len(left) != 1 || left[0] != (store.Unfinished{ID: s.m.ID, To: model.Cold}) || !lies4 {
		t.Fatalf("to be done: %v, %v; available %v", left, err, lies4)
	}
	d := &counting{Disk: unsynced{}}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	set.Disk = d
	w = own(t, set)
	move(t, w, s, model.Cold)
	lies(t, w.Store, s, model.Cold)
	if d.written > 3<<20 {
		t.Errorf("%d bytes were written again", d.written)
	}
}

// counting counts what is written in pieces of content.
type counting struct {
	store.Disk
	mu      sync.Mutex
	written int64
}

func (d *counting) OpenFile(name string, flag int, perm os.FileMode) (store.File, error) {
	f, err := d.Disk.OpenFile(name, flag, perm)
	return countingFile{f, d}, err
}

type countingFile struct {
	store.File
	d *counting
}

func (f countingFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	f.d.written += int64(len(b))
	f.d.mu.Unlock()
	return f.File.WriteAt(b, off)
}

func TestReadersOfAModelThatMovesNeverFailAndNeverReadAWrongByte(t *testing.T) {
	s := tiny()
	w := pulled(t, tiered(memoryDir(t)), s)
	open, err := os.Open(filepath.Join(w.Snapshot(s.m.ID, commit1), "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	reads := 0
	readers.Go(func() {
		for ctx.Err() == nil {
			if err := checkSnapshot(w.Snapshot(s.m.ID, commit1), s); err != nil {
				t.Error(err)
				return
			}
			reads++
		}
	})
	tiers := []model.Tier{model.Cold, model.Warm, model.Hot}
	for i := range 100 {
		move(t, w, s, tiers[i%3])
	}
	cancel()
	readers.Wait()
	if reads < 10 {
		t.Errorf("only %d reads meanwhile", reads)
	}
	b := make([]byte, len(s.content["model.safetensors"]))
	if _, err := open.ReadAt(b, 0); err != nil || string(b) != string(s.content["model.safetensors"]) {
		t.Errorf("who had it open before reads something else: %v", err)
	}
}

// A move that is cut off at any of its steps, by a kill or a power loss, leaves the model whole under its paths; opening the
// store again and moving on finishes it, with nothing left over.
func TestAMoveThatCrashesAnywhereLeavesTheModelWhole(t *testing.T) {
	s := tiny()
	tiers := model.Tiers()
	rounds := 0
	for _, from := range tiers {
		for _, to := range tiers {
			if from == to {
				continue
			}
			for at, whole := 1, false; !whole; at += 3 {
				rnd := rand.New(rand.NewPCG(uint64(at), uint64(rounds)))
				root := filepath.Join(memoryDir(t), "w")
				set := tiered(root)
				w := pulled2(t, set, s)
				move(t, w, s, from)
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				whole = crash(t, set, s, to, at, rnd)
				if rnd.IntN(3) == 0 { // and again, on the way to wherever
					crash(t, set, s, tiers[rnd.IntN(3)], 1+rnd.IntN(40), rnd)
				}
				w = own2(t, set)
				end := tiers[rnd.IntN(3)]
				move(t, w, s, end)
				if err := w.Abandon(s.m.ID); err != nil {
					t.Fatal(err)
				}
				collect(t, w)
				lies(t, w.Store, s, end)
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				removeAll(t, root)
				rounds++
			}
		}
	}
	if rounds < 200 {
		t.Errorf("only %d rounds", rounds)
	}
}

// crash moves a sample on a disk that stops after some operations, and then looks as after a kill or a power loss. It fails when
// the model is not whole then, and reports whether the move was over before.
func crash(t testing.TB, set store.Settings, s sample, to model.Tier, after int, rnd *rand.Rand) bool {
	t.Helper()
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
	d.StopAfter(after)
	_, failed := w.Move(t.Context(), s.m.ID, to, store.Moving{})
	if failed != nil && !errors.Is(failed, crashdisk.ErrStopped) {
		t.Fatal(failed)
	}
	if failed != nil && rnd.IntN(2) == 0 { // the next process opens the store before the power fails
		if err := d.Kill(); err != nil {
			t.Fatal(err)
		}
		d.Restart()
		if _, err := store.New(crashing).Own(t.Context(), "test", nil); err != nil {
			t.Fatal(err)
		}
	}
	if rnd.IntN(4) == 0 {
		err = d.Kill()
	} else if err = d.PowerLoss(rnd.Uint64(), root+".after"); err == nil {
		removeAll(t, root)
		err = os.Rename(root+".after", root) // links lead to absolute names
	}
	if err != nil {
		t.Fatal(err)
	}
	removeAll(t, root+".attic")
	st := store.New(set)
	if err := checkTruth(st, s); err != nil || !st.Available(s.m.ID, commit1, s.m.Files) {
		m, _ := st.Model(s.m.ID)
		t.Fatalf("to %s, stopped after %d operations: %v; %+v", to, after, err, m)
	}
	return failed == nil
}

func pulled2(t testing.TB, set store.Settings, s sample) *store.Writer {
	t.Helper()
	w := own2(t, set)
	if _, err := pull(t.Context(), w, s, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

func collect(t testing.TB, w *store.Writer) {
	t.Helper()
	r, err := w.PlanCollect(0, time.Now().Add(time.Hour))
	if err == nil {
		err = w.Remove(t.Context(), r)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestATierThatIsAwayIsNotWrittenToAndLosesNothing(t *testing.T) {
	s, other := tiny(), sampleOf("acme/other", commit2, "model.safetensors", content(9, 1<<20+5))
	root := memoryDir(t)
	w := pulled(t, tiered(root), s, other)
	move(t, w, s, model.Cold)
	cold := filepath.Join(root, "cold")
	if err := os.Rename(cold, cold+".unmounted"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(cold, 0o777); err != nil { // the empty mount point
		t.Fatal(err)
	}
	for id, to := range map[model.ID]model.Tier{other.m.ID: model.Cold, s.m.ID: model.Hot} {
		if _, err := w.Move(t.Context(), id, to, store.Moving{}); !errors.Is(err, store.ErrTierAway) || !strings.Contains(err.Error(), cold) {
			t.Errorf("move %v: %v", id, err)
		}
	}
	if st := w.Tiers()[2]; st.State != store.TierMissing || st.Problem == "" {
		t.Errorf("%+v", st)
	}
	if m, err := w.Model(s.m.ID); err != nil || m.Away != model.Cold || m.Revisions[0].State != store.Incomplete {
		t.Errorf("%+v, %v", m, err)
	}
	collect(t, w)
	if files, _ := filepath.Glob(filepath.Join(cold, "*", "*", "*")); len(files) > 0 {
		t.Errorf("in the mount point are %v", files)
	}
	removeAll(t, cold)
	if err := os.Rename(cold+".unmounted", cold); err != nil {
		t.Fatal(err)
	}
	lies(t, w.Store, s, model.Cold)
	move(t, w, s, model.Hot)
	lies(t, w.Store, s, model.Hot)
}

func TestATierOfAnotherStoreIsRefused(t *testing.T) {
	s := tiny()
	root := memoryDir(t)
	w := pulled(t, tiered(root), s)
	move(t, w, s, model.Cold)
	set := tiered(filepath.Join(root, "second"))
	set.Colder = tiered(root).Colder
	second := pulled(t, set, s)
	if _, err := second.Move(t.Context(), s.m.ID, model.Cold, store.Moving{}); !errors.Is(err, store.ErrTierAway) || !strings.Contains(err.Error(), w.Path()) {
		t.Errorf("moved into another store's tier: %v", err)
	}
	lies(t, w.Store, s, model.Cold)
}

// When a disk fails at any operation - full, read-only, broken - nothing is lost, and the move works once it is well again.
func TestADiskThatFailsDuringAMoveLosesNothing(t *testing.T) {
	s := tiny()
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EROFS, syscall.EIO} {
		for at := 1; at < 60; at += 2 {
			root := filepath.Join(memoryDir(t), "w")
			set := tiered(root)
			w := pulled2(t, set, s)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			d, err := crashdisk.New(root)
			if err != nil {
				t.Fatal(err)
			}
			set.Disk = d
			w = own2(t, set)
			n := 0
			d.Fail(func(op, name string) error {
				if n++; n >= at {
					return &os.PathError{Op: op, Path: name, Err: errno}
				}
				return nil
			})
			_, err = w.Move(t.Context(), s.m.ID, model.Cold, store.Moving{})
			if want := map[bool]model.Class{true: model.DiskFull, false: model.DiskError}[errno == syscall.ENOSPC]; err != nil && model.ClassOf(err) != want {
				t.Fatalf("%v at %d: %v", errno, at, err)
			}
			if err := checkTruth(w.Store, s); err != nil || !w.Available(s.m.ID, commit1, s.m.Files) {
				t.Fatalf("%v at %d: %v", errno, at, err)
			}
			d.Fail(nil)
			move(t, w, s, model.Cold)
			collect(t, w)
			lies(t, w.Store, s, model.Cold)
			if err := errors.Join(w.Close(), d.Kill()); err != nil {
				t.Fatal(err)
			}
			removeAll(t, root, root+".attic")
		}
	}
}

func TestWhatIsDamagedDoesNotMove(t *testing.T) {
	s := tiny()
	for promise, damage := range map[string]func(name string) error{
		"a byte flipped behind our back": func(name string) error { return flip(name, 1<<20+3, false) },
		"a byte flipped by the disk":     func(name string) error { return flip(name, 17, true) },
	} {
		t.Run(promise, func(t *testing.T) {
			w := pulled(t, tiered(memoryDir(t)), s)
			blob := filepath.Join(w.Path(), s.m.ID.DirName(), "blobs", s.m.Files[2].Digest.Hex())
			if err := damage(blob); err != nil {
				t.Fatal(err)
			}
			_, err := w.Move(t.Context(), s.m.ID, model.Cold, store.Moving{})
			if model.ClassOf(err) != model.Integrity || !strings.Contains(err.Error(), "ema repair") {
				t.Errorf("moved: %v", err)
			}
			if info, err := os.Lstat(blob); err != nil || !info.Mode().IsRegular() {
				t.Errorf("the content is no longer in its place: %v", err)
			}
		})
	}
}

// flip changes one byte of a file; hidden keeps its times, as a failing disk does.
func flip(name string, at int64, hidden bool) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := []byte{0}
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil || !hidden {
		return err
	}
	return os.Chtimes(name, info.ModTime(), info.ModTime())
}

func TestAModelInAColderTierGoesAsAWhole(t *testing.T) {
	s, other := tiny(), sampleOf("acme/other", commit2, "model.safetensors", content(9, 1<<20+5))
	root := memoryDir(t)
	w := pulled(t, tiered(root), s, other)
	move(t, w, s, model.Cold)
	move(t, w, other, model.Cold)
	for _, commit := range []string{commit1, ""} {
		r, err := w.PlanRemove(s.m.ID, commit)
		if err != nil {
			t.Fatal(err)
		}
		want := model.Bytes(0)
		for _, b := range s.content {
			want += model.Bytes(len(b))
		}
		want -= model.Bytes(len("{}\n")) // once only
		if r.Bytes < want || r.Bytes > want+10_000 {
			t.Errorf("%q frees %v, want %v and records", commit, r.Bytes, want)
		}
	}
	r, err := w.PlanRemove(s.m.ID, "")
	if err == nil {
		err = w.Remove(t.Context(), r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(root, "*", s.m.ID.DirName())); len(files) > 0 {
		t.Errorf("left over: %v", files)
	}
	lies(t, w.Store, other, model.Cold)
}

func TestWhatIsMendedInAColderTierLiesInTheStoreAgain(t *testing.T) {
	s := sampleOf("acme/big", commit1, "model.safetensors", content(5, 2<<20+77))
	w := pulled(t, tiered(memoryDir(t)), s)
	move(t, w, s, model.Cold)
	f := s.m.Files[0]
	bad := []model.Segment{{Start: 0, End: store.BlockSize}}
	p, err := w.Mend(t.Context(), s.m.ID, f, bad)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	st, err := fetchInto(p, s.content[f.Path], f)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Publish(t.Context(), []*store.Staged{st}); err != nil {
		t.Fatal(err)
	}
	lies(t, w.Store, s, model.Hot)
}

// fetchInto fills what is missing of a partial blob.
func fetchInto(p *store.Partial, truth []byte, f model.File) (*store.Staged, error) {
	for _, seg := range p.Missing() {
		for off := seg.Start; off < seg.End; off += store.BlockSize {
			b := truth[off:min(off+store.BlockSize, seg.End)]
			if err := p.WriteAt(b, off, crcOf(b)); err != nil {
				return nil, err
			}
		}
	}
	if err := p.Sync(nil, 0); err != nil {
		return nil, err
	}
	return p.Stage(f.Digest)
}

// After any sequence of moves, pulls, removals, collections and other tools' deletions, every path either leads to the right
// bytes or its revision is said to be incomplete; and there is nothing in the tiers that no name leads to, once collected.
func TestTheLayoutHoldsAfterAnySequenceOfOperations(t *testing.T) {
	samples := []sample{tiny(), sampleOf("acme/other", commit2, "model.safetensors", content(9, 1<<20+5), "config.json", []byte("[]\n"))}
	rapid.Check(t, func(r *rapid.T) {
		root := filepath.Join(memoryDir(t), fmt.Sprint(rapid.Uint64().Draw(r, "root")))
		defer os.RemoveAll(root)
		w := own2(t, tiered(root))
		defer w.Close()
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			s := samples[rapid.IntRange(0, 1).Draw(r, "model")]
			var err error
			switch op := rapid.SampledFrom([]string{"pull", "move", "move", "move", "remove", "collect", "delete", "stop", "reopen"}).Draw(r, "op"); op {
			case "pull":
				_, err = pull(t.Context(), w, s, nil)
			case "move":
				_, err = w.Move(t.Context(), s.m.ID, rapid.SampledFrom(model.Tiers()).Draw(r, "to"), store.Moving{})
			case "stop":
				ctx, cancel := context.WithCancel(t.Context())
				_, err = w.Move(ctx, s.m.ID, rapid.SampledFrom(model.Tiers()).Draw(r, "to"), store.Moving{Progress: func(int64) { cancel() }})
				cancel()
				if errors.Is(err, context.Canceled) {
					err = nil
				}
			case "remove":
				var rm store.Removal
				if rm, err = w.PlanRemove(s.m.ID, ""); err == nil {
					err = w.Remove(t.Context(), rm)
				}
			case "collect":
				collect(t, w)
			case "delete": // as another tool does: the file behind the link
				name := filepath.Join(w.Path(), s.m.ID.DirName(), "blobs", s.m.Files[0].Digest.Hex())
				if real, link := filepath.EvalSymlinks(name); link == nil {
					err = os.Remove(real)
				}
			case "reopen":
				if err = w.Close(); err == nil {
					w, err = store.New(tiered(root)).Own(t.Context(), "test", nil)
				}
			}
			if err != nil && model.ClassOf(err) != model.NotFound && !errors.Is(err, os.ErrNotExist) {
				r.Fatal(err)
			}
			for _, s := range samples {
				holds(r, w.Store, s)
			}
		}
		for _, s := range samples {
			if err := w.Abandon(s.m.ID); err != nil {
				r.Fatal(err)
			}
		}
		collect(t, w)
		for _, tier := range []model.Tier{model.Warm, model.Cold} {
			files, _ := filepath.Glob(filepath.Join(root, string(tier), "*", "blobs", "*"))
			for _, f := range files {
				name := filepath.Join(w.Path(), filepath.Base(filepath.Dir(filepath.Dir(f))), "blobs", filepath.Base(f))
				if target, err := os.Readlink(name); err != nil || target != f {
					r.Fatalf("nothing leads to %s: %q, %v", f, target, err)
				}
			}
		}
	})
}

// holds fails if a path leads to wrong bytes, or to none while its revision is said to be there.
func holds(r *rapid.T, s *store.Store, want sample) {
	m, err := s.Model(want.m.ID)
	if err != nil {
		return
	}
	for _, rev := range m.Revisions {
		for _, f := range rev.Files {
			name := filepath.Join(s.Snapshot(want.m.ID, rev.Commit), f.Path)
			if target, err := os.Readlink(name); err == nil && filepath.IsAbs(target) {
				r.Fatalf("%s is an absolute link", name)
			}
			err := sameFile(name, want.content[f.Path])
			if f.State == store.Available && err != nil || err != nil && !errors.Is(err, os.ErrNotExist) {
				r.Fatalf("%s is %s: %v", name, f.State, err)
			}
		}
	}
	entries, _ := os.ReadDir(filepath.Join(s.Path(), want.m.ID.DirName(), "blobs"))
	for _, e := range entries {
		if _, err := model.ParseDigest(e.Name()); err != nil && !strings.HasSuffix(e.Name(), ".incomplete") {
			r.Fatalf("other tools report the entry %s", e.Name())
		}
	}
}

// stalling is a disk that does nothing in a folder until it is let.
type stalling struct {
	store.Disk
	in  string
	let chan struct{}
	hit chan struct{} // closed when somebody waits
	one sync.Once
}

func (d *stalling) OpenFile(name string, flag int, perm os.FileMode) (store.File, error) {
	if strings.HasPrefix(name, d.in) {
		d.one.Do(func() { close(d.hit) })
		<-d.let
	}
	return d.Disk.OpenFile(name, flag, perm)
}

func TestATierThatIsSlowKeepsNobodyFromItsModels(t *testing.T) {
	s, other := tiny(), sampleOf("acme/other", commit2, "model.safetensors", content(9, 1<<20+5))
	root := memoryDir(t)
	w := pulled(t, tiered(root), s)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	set := tiered(root)
	d := &stalling{Disk: set.Disk, in: filepath.Join(root, "cold", s.m.ID.DirName()), let: make(chan struct{}), hit: make(chan struct{})}
	set.Disk = d
	w = own(t, set)
	var moving sync.WaitGroup
	moving.Go(func() {
		if _, err := w.Move(t.Context(), s.m.ID, model.Cold, store.Moving{}); err != nil {
			t.Error(err)
		}
	})
	<-d.hit // from now on the move waits for the disk
	if err := checkTruth(w.Store, s); err != nil || !w.Available(s.m.ID, commit1, s.m.Files) {
		t.Errorf("the model that moves: %v", err)
	}
	if _, err := pull(t.Context(), w, other, nil); err != nil {
		t.Errorf("another model: %v", err)
	}
	if got := w.Tiers(); got[len(got)-1].State != store.TierReady {
		t.Errorf("%+v", got)
	}
	close(d.let)
	moving.Wait()
	lies(t, w.Store, s, model.Cold)
	truth2(t, w, other)
}
