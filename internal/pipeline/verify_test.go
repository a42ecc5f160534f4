package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

var broken = demohub.File("large.bin", 8*model.MiB+100) //nolint:gochecknoglobals // constant

// damaged is a model of which one byte of large.bin is wrong, at a time that shows nothing: bit rot.
func damaged(t testing.TB, at int64, more ...demohub.Entry) (*rig, *pipeline.Result, string) {
	t.Helper()
	r := repo(t, append(parts(more), broken)...)
	res := r.pull(t, request())
	name := filepath.Join(r.another(t).home, blob(t, broken))
	flip(t, name, at)
	r.hub.ResetStats()
	return r, res, name
}

func flip(t testing.TB, name string, at int64) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x40
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b[at:at+1], at)
		err = errors.Join(err, f.Close())
	}
	if err = errors.Join(err, os.Chtimes(name, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func TestAFlippedByteIsLocatedAndOnlyItsBlockIsFetched(t *testing.T) {
	t.Parallel()
	for _, at := range []int64{0, 3<<20 + 17, 8<<20 + 99} {
		small := demohub.File("small.bin", 1000)
		r, res, name := damaged(t, at, small)
		report, err := r.line(t).Verify(t.Context(), acme, res.Commit, &pipeline.Progress{})
		if err != nil || report.OK() {
			t.Fatalf("report = %+v, %v", report, err)
		}
		want := model.Segment{Start: at >> 20 << 20, End: min(at>>20<<20+1<<20, broken.Size())}
		if f := report.Files[0]; f.Path != "large.bin" || f.State != "damaged" || len(f.Damaged) != 1 || f.Damaged[0] != want {
			t.Errorf("byte %d: %+v, want %v", at, f, want)
		}
		if f := report.Files[1]; f.State != "ok" {
			t.Errorf("the healthy file: %+v", f)
		}
		if m, err := store.New(r.set).Model(acme); err != nil || m.Revisions[0].State != store.Damaged {
			t.Errorf("everybody else is told that it is %v, %v", m.Revisions[0].State, err)
		}
		reader, err := os.Open(name) // somebody who uses the model
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		report, repaired, err := r.line(t).Repair(t.Context(), acme, res.Commit, &pipeline.Progress{})
		if err != nil || report.OK() || repaired.Path != res.Path {
			t.Fatalf("repair: %+v, %+v, %v", report, repaired, err)
		}
		holds(t, res.Path, broken, small)
		if sent := r.hub.Stats().Body; sent != want.Len() {
			t.Errorf("byte %d: %d bytes were sent, want the %d of its block", at, sent, want.Len())
		}
		old := make([]byte, 1)
		if _, err := reader.ReadAt(old, at); err != nil || old[0] == content(t, broken)[at] {
			t.Error("the file that somebody had open was changed under him")
		}
		if again, err := r.line(t).Verify(t.Context(), acme, res.Commit, &pipeline.Progress{}); err != nil || !again.OK() {
			t.Errorf("after the repair: %+v, %v", again, err)
		}
	}
}

func TestRepairBringsBackWhatIsGone(t *testing.T) {
	small, empty := demohub.File("small.bin", 1000), demohub.File("empty.bin", 0)
	for promise, c := range map[string]struct {
		harm  func(home, snap string) error
		state string
		most  int64
	}{
		"a deleted blob":       {func(home, _ string) error { return os.Remove(filepath.Join(home, blob(t, broken))) }, "missing", broken.Size()},
		"a deleted small blob": {func(home, _ string) error { return os.Remove(filepath.Join(home, blob(t, small))) }, "missing", small.Size()},
		"a truncated blob":     {func(home, _ string) error { return os.Truncate(filepath.Join(home, blob(t, broken)), 5<<20) }, "damaged", broken.Size()},
		"an emptied blob":      {func(home, _ string) error { return os.Truncate(filepath.Join(home, blob(t, broken)), 0) }, "damaged", broken.Size()},
		"a blob that grew":     {func(home, _ string) error { return os.Truncate(filepath.Join(home, blob(t, broken)), 9<<20) }, "damaged", broken.Size()},
		"a deleted link":       {func(_, snap string) error { return os.Remove(filepath.Join(snap, "large.bin")) }, "missing", 0},
		"a deleted snapshot":   {func(_, snap string) error { return os.RemoveAll(snap) }, "missing", 0},
		"a blob of zeros": {func(home, _ string) error {
			return os.WriteFile(filepath.Join(home, blob(t, broken)), make([]byte, broken.Size()), 0o666)
		}, "damaged", broken.Size()},
	} {
		t.Run(promise, func(t *testing.T) {
			t.Parallel()
			r := repo(t, broken, small, empty)
			res := r.pull(t, request())
			home := r.another(t).home
			if err := c.harm(home, res.Path); err != nil {
				t.Fatal(err)
			}
			report, err := r.line(t).Verify(t.Context(), acme, res.Commit, &pipeline.Progress{})
			if err != nil || report.OK() {
				t.Fatalf("report = %+v, %v", report, err)
			}
			found := false
			for _, f := range report.Files {
				found = found || f.State == c.state
			}
			if !found {
				t.Errorf("report = %+v, want a file %s", report, c.state)
			}
			r.hub.ResetStats()
			if _, err := r.line(t, offline).Pull(t.Context(), request(), &pipeline.Progress{}); model.ClassOf(err) != model.Offline {
				t.Errorf("the broken model is served: %v", err)
			}
			_, mended, err := r.line(t, offline).Repair(t.Context(), acme, res.Commit, &pipeline.Progress{})
			if c.most > 0 && model.ClassOf(err) != model.Offline || c.most == 0 && err != nil {
				t.Errorf("offline repair = %v", err)
			}
			if c.most > 0 {
				if _, mended, err = r.line(t).Repair(t.Context(), acme, res.Commit, &pipeline.Progress{}); err != nil {
					t.Fatal(err)
				}
			}
			holds(t, res.Path, broken, small, empty)
			if int64(mended.Fetched) > c.most || c.most == 0 && r.hub.Stats().Hub.Requests != 0 {
				t.Errorf("%d bytes were fetched, at most %d are needed", mended.Fetched, c.most)
			}
		})
	}
}

func TestARepairOfAnOldCommitLeavesTheBranchWhereItIs(t *testing.T) {
	r, first, _ := damaged(t, 77)
	if _, err := r.hub.Commit(acme.Name, "main", demohub.File("new.bin", 10)); err != nil {
		t.Fatal(err)
	}
	second := r.pull(t, request())
	if _, _, err := r.line(t).Repair(t.Context(), acme, first.Commit, &pipeline.Progress{}); err != nil {
		t.Fatal(err)
	}
	holds(t, first.Path, broken)
	if c, ok := store.New(r.set).Ref(acme, "main"); !ok || c != second.Commit {
		t.Errorf("main = %s, want %s", c, second.Commit)
	}
}

func TestAHealthyModelNeedsNoRepair(t *testing.T) {
	r := repo(t, parts(files())...)
	res := r.pull(t, request())
	r.hub.ResetStats()
	report, repaired, err := r.line(t).Repair(t.Context(), acme, res.Commit, &pipeline.Progress{})
	if err != nil || !report.OK() || repaired != nil || r.hub.Stats().Hub.Requests != 0 {
		t.Errorf("%+v, %+v, %v", report, repaired, err)
	}
	if _, err := r.line(t).Verify(t.Context(), acme, "0123456789012345678901234567890123456789", &pipeline.Progress{}); model.ClassOf(err) != model.NotFound {
		t.Errorf("a commit that is not here: %v", err)
	}
}

// What is known to be damaged is not available, and pulling it again fetches the bad block only.
func TestAPullMendsWhatWasFoundDamaged(t *testing.T) {
	t.Parallel()
	r, res, _ := damaged(t, 3<<20)
	if _, err := r.line(t).Verify(t.Context(), acme, res.Commit, &pipeline.Progress{}); err != nil {
		t.Fatal(err)
	}
	r.pull(t, request())
	holds(t, res.Path, broken)
	if sent := r.hub.Stats().Body; sent != int64(model.MiB) {
		t.Errorf("%d bytes were sent, want those of one block", sent)
	}
}

// A repair that dies leaves the old blob as it was, and the next one succeeds.
func TestARepairThatDiesLeavesTheOldState(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 4 {
		at := rnd.Int64N(broken.Size())
		r, res, name := damaged(t, at)
		r.hub.Set(demohub.Rate(20 * model.MiB))
		before, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(100))*time.Millisecond)
		_, _, err = r.line(t).Repair(ctx, acme, res.Commit, &pipeline.Progress{})
		cancel()
		after, readErr := os.ReadFile(name)
		switch {
		case readErr != nil:
			t.Fatal(readErr)
		case err == nil:
		case !errors.Is(err, context.DeadlineExceeded):
			t.Fatalf("error = %v", err)
		case !bytes.Equal(after, before) && !bytes.Equal(after, content(t, broken)):
			t.Fatal("neither the old blob nor the right one")
		}
		if _, _, err := r.line(t).Repair(t.Context(), acme, res.Commit, &pipeline.Progress{}); err != nil {
			t.Fatal(err)
		}
		holds(t, res.Path, broken)
		if sent := r.hub.Stats().Body; sent > int64(3*model.MiB) {
			t.Errorf("two attempts at one block cost %d bytes", sent)
		}
	}
}

// A right copy in a snapshot says nothing about a wrong blob of the same name.
func TestACopyIsNoProofOfABlob(t *testing.T) {
	r := repo(t, broken)
	a, commit := r.another(t), r.hub.Head(acme.Name, "main")
	wrong := content(t, broken)
	wrong[100]++
	a.write(blob(t, broken), wrong)
	a.write("snapshots/"+commit+"/"+broken.Path, content(t, broken))
	a.write("refs/main", []byte(commit))
	r.leaveTree(t, commit)
	if _, err := r.line(t).Verify(t.Context(), acme, commit, &pipeline.Progress{}); err != nil {
		t.Fatal(err)
	}
	if b, err := store.New(r.set).Blob(acme, digest(t, broken)); err != nil || b.Proof == store.Proven {
		t.Errorf("the wrong blob is %v, %v", b.Proof, err)
	}
	holds(t, r.pull(t, request()).Path, broken)
}

// leaveTree leaves the tree of a commit, as the hub's client does.
func (r *rig) leaveTree(t testing.TB, commit string) {
	t.Helper()
	text := fmt.Sprintf(`{"format_version":1,"files":{"large.bin":{"size":%d,"blob_id":%q,"lfs_sha256":%q}}}`,
		broken.Size(), strings.Repeat("0", 40), digest(t, broken).Hex())
	r.another(t).write("trees/"+commit+".json", []byte(text))
}
