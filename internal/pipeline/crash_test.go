package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ema/internal/demohub"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
	"ema/internal/store/crashdisk"
)

// A life is what a cache goes through until the power fails: it runs with the disk that fails, and
// returns the error of the first step that did.
type life struct {
	name    string
	ends    string                     // the branch that is here when it ends well
	entries map[string][]demohub.Entry // by branch
	before  func(t testing.TB, r *rig) // with a disk that works, in an earlier boot
	run     func(ctx context.Context, l *pipeline.Line) error
	closely bool // the power fails at every moment, several times
}

// noise is a file whose content lies in memory, so that a thousand pulls of it are quick. No byte of it
// is zero: a hole must not look right.
func noise(path string, size int, seed uint64) demohub.Entry {
	b := make([]byte, size)
	rnd := rand.New(rand.NewPCG(seed, 6))
	for i := range b {
		b[i] = byte(1 + rnd.IntN(255))
	}
	if size > 1<<20 {
		return demohub.Bytes(path, b).LFS()
	}
	return demohub.Bytes(path, b)
}

func lives() []life {
	first := []demohub.Entry{
		noise("a.bin", 2<<20+77, 1), noise("b/c.bin", 3<<20, 2), noise("empty.bin", 0, 3),
		noise("config.json", 30, 4), noise("small.bin", 100<<10, 5), noise("block.bin", 1<<20, 6),
	}
	next := append(slices.Clone(first[1:]), noise("a.bin", 2<<20+77, 7), noise("new.bin", 4096, 8))
	pull := func(ctx context.Context, l *pipeline.Line, rev string) error {
		_, err := l.Pull(ctx, pipeline.Request{ID: acme, Revision: rev}, &pipeline.Progress{})
		return err
	}
	small := map[string][]demohub.Entry{"main": {noise("a", 5, 10)}, "next": {noise("a", 6, 11), noise("sub/b", 7, 12)}}
	branches := map[string][]demohub.Entry{"main": first, "next": next}
	pulled := func(t testing.TB, r *rig) { r.pull(t, request()) }
	return []life{
		{"a pull", "main", branches, nil, func(ctx context.Context, l *pipeline.Line) error { return pull(ctx, l, "main") }, false},
		{"an update", "next", branches, pulled, func(ctx context.Context, l *pipeline.Line) error { return pull(ctx, l, "next") }, false},
		{"two pulls", "next", branches, nil, func(ctx context.Context, l *pipeline.Line) error {
			if err := pull(ctx, l, "main"); err != nil {
				return err
			}
			return pull(ctx, l, "next")
		}, false},
		{"a repair", "main", branches, func(t testing.TB, r *rig) {
			pulled(t, r)
			flip(t, filepath.Join(r.another(t).home, blob(t, first[1])), 2<<20+5)
			if err := os.Remove(filepath.Join(r.another(t).home, blob(t, first[4]))); err != nil {
				t.Fatal(err)
			}
		}, func(ctx context.Context, l *pipeline.Line) error {
			commit, ok := l.Store.Ref(acme, "main")
			if !ok {
				return errors.New("there is no main")
			}
			_, _, err := l.Repair(ctx, acme, commit, &pipeline.Progress{})
			return err
		}, false},
		{"a completion of what another tool left", "main", branches, func(t testing.TB, r *rig) {
			a := r.another(t)
			a.write(blob(t, first[0]), content(t, first[0]))
			a.write(blob(t, first[1]), make([]byte, first[1].Size()))
			a.link("../../"+blob(t, first[0]), "snapshots/"+r.hub.Head(acme.Name, "main")+"/a.bin")
		}, func(ctx context.Context, l *pipeline.Line) error { return pull(ctx, l, "main") }, false},
		{"a small pull, looked at closely", "main", small, nil, func(ctx context.Context, l *pipeline.Line) error { return pull(ctx, l, "main") }, true},
		{"a small update, looked at closely", "next", small, pulled, func(ctx context.Context, l *pipeline.Line) error { return pull(ctx, l, "next") }, true},
	}
}

// truth fails the test if anything visible in a cache is not what it says. What was wrong before the
// disk began to fail may be wrong still.
func truth(t testing.TB, r *rig, wrong map[string]bool) {
	t.Helper()
	home := r.another(t).home
	entries, _ := os.ReadDir(filepath.Join(home, "blobs")) // none: nothing lies
	for _, e := range entries {
		d, err := model.ParseDigest(e.Name())
		if err != nil || wrong[e.Name()] {
			continue // an incomplete file promises nothing
		}
		if got, err := hashOf(filepath.Join(home, "blobs", e.Name()), d); err != nil || got != d {
			t.Fatalf("blob %s has other content: %v, %v", e.Name(), got, err)
		}
	}
	s := store.New(r.set)
	m, err := s.Model(acme)
	if err != nil {
		return
	}
	for _, rev := range m.Revisions {
		if len(rev.Refs) > 0 && rev.State == store.Incomplete && len(wrong) == 0 {
			t.Fatalf("%v lead to an incomplete snapshot: %+v", rev.Refs, rev.Files)
		}
		if rev.State != store.Available {
			continue
		}
		for _, f := range rev.Files {
			if _, err := os.Stat(filepath.Join(s.Snapshot(acme, rev.Commit), f.Path)); err != nil {
				t.Fatalf("%s counts as available: %v", rev.Commit, err)
			}
		}
	}
}

// whole checks what is said to be available: all of it must be there, and right.
func whole(t testing.TB, r *rig, path string, entries []demohub.Entry, wrong map[string]bool) {
	t.Helper()
	for _, e := range entries {
		if !wrong[digest(t, e).Hex()] {
			got, err := hashOf(filepath.Join(path, e.Path), digest(t, e))
			if err != nil || got != digest(t, e) {
				t.Fatalf("%s of an available model: %v, %v", e.Path, got, err)
			}
		}
	}
}

func TestPowerLossAtAnyMomentLeavesNoLieAndTheNextPullCompletes(t *testing.T) {
	points := 25 // in each life
	if raceDetector {
		points = 4 // it makes all of this ten times slower
	}
	for _, c := range lives() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := repo(t, parts(c.entries["main"])...)
			if _, err := r.hub.Commit(acme.Name, "next", c.entries["next"]...); err != nil {
				t.Fatal(err)
			}
			n := c.dies(t, r, 0, 1<<30)
			rnd := rand.New(rand.NewPCG(uint64(n), 5))
			times := points
			if c.closely && !raceDetector {
				times = 2 * n
			}
			for i := range times {
				at := 1 + i%n
				if times <= n {
					at = 1 + rnd.IntN(n)
				}
				t.Logf("power loss after operation %d of %d", at, n)
				c.dies(t, r, uint64(i), at)
			}
		})
	}
}

// dies lets a life end after that many operations on the disk, and checks what is left. It returns how
// many operations there were.
func (c life) dies(t *testing.T, r *rig, seed uint64, at int) int {
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	root := filepath.Join(dir, "disk")
	before := *r
	before.set = store.Settings{Path: filepath.Join(root, "hub"), BootID: "first boot", Process: true}
	if err := os.MkdirAll(root, 0o777); err != nil {
		t.Fatal(err)
	}
	if c.before != nil {
		c.before(t, &before)
	}
	wrong := wrongBlobs(t, &before)

	disk, err := crashdisk.New(root)
	if err != nil {
		t.Fatal(err)
	}
	disk.StopAfter(at)
	dying := before
	dying.set.Process, dying.set.Disk = false, disk
	err = c.run(t.Context(), dying.line(t))
	ops := disk.Ops()
	if err != nil && !errors.Is(err, crashdisk.ErrStopped) {
		t.Fatalf("%v, want no failure but the crash", err)
	}
	finished := err == nil

	after := before
	after.set = store.Settings{Path: filepath.Join(dir, "after", "hub"), BootID: fmt.Sprint("boot ", at), Process: true}
	if err := disk.PowerLoss(seed, filepath.Join(dir, "after")); err != nil {
		t.Fatal(err)
	}
	if finished {
		wrong = nil
	}
	truth(t, &after, wrong)
	here, l := after.line(t, offline), after.line(t)
	for _, branch := range slices.Sorted(maps.Keys(c.entries)) {
		res, err := here.Pull(t.Context(), pipeline.Request{ID: acme, Revision: branch}, &pipeline.Progress{})
		if err == nil {
			whole(t, &after, res.Path, c.entries[branch], wrong)
		} else if finished && c.ends == branch {
			t.Fatalf("what was finished is gone: %v", err)
		}
	}
	if commit, ok := here.Store.Ref(acme, "main"); ok && len(wrong) > 0 { // bit rot is for repair to find
		if _, _, err := l.Repair(t.Context(), acme, commit, &pipeline.Progress{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, branch := range []string{"main", c.ends} {
		res, err := l.Pull(t.Context(), pipeline.Request{ID: acme, Revision: branch}, &pipeline.Progress{})
		if err != nil {
			t.Fatal(err)
		}
		whole(t, &after, res.Path, c.entries[branch], nil)
	}
	truth(t, &after, nil)
	return ops
}

// wrongBlobs are the names of blobs whose content is another.
func wrongBlobs(t testing.TB, r *rig) map[string]bool {
	t.Helper()
	wrong := map[string]bool{}
	entries, _ := os.ReadDir(filepath.Join(r.another(t).home, "blobs")) // none: none is wrong
	for _, e := range entries {
		d, err := model.ParseDigest(e.Name())
		if err != nil {
			continue
		}
		got, err := hashOf(filepath.Join(r.another(t).home, "blobs", e.Name()), d)
		if err != nil {
			t.Fatal(err)
		}
		if got != d {
			wrong[e.Name()] = true
		}
	}
	return wrong
}
