package pipeline_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
	"ema/internal/verify"
)

// A harm is what befalls a model that lies at home, with a snapshot and two of its large files.
type harm struct {
	name string
	do   func(t *testing.T, rnd *rand.Rand, home, snap string, one, other demohub.Entry)
}

// harms are what disks, programs and people do to models.
func harms() []harm {
	path := func(t *testing.T, home string, e demohub.Entry) string { return filepath.Join(home, blob(t, e)) }
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	return []harm{
		{"a bit flips", func(t *testing.T, rnd *rand.Rand, home, _ string, one, _ demohub.Entry) {
			flip(t, path(t, home, one), rnd.Int64N(one.Size()))
		}},
		{"many bits flip", func(t *testing.T, rnd *rand.Rand, home, _ string, one, other demohub.Entry) {
			for range 1 + rnd.IntN(20) {
				flip(t, path(t, home, one), rnd.Int64N(one.Size()))
			}
			flip(t, path(t, home, other), rnd.Int64N(other.Size()))
		}},
		{"it is cut short", func(t *testing.T, rnd *rand.Rand, home, _ string, one, _ demohub.Entry) {
			must(t, os.Truncate(path(t, home, one), rnd.Int64N(one.Size())))
		}},
		{"it grows", func(t *testing.T, rnd *rand.Rand, home, _ string, one, _ demohub.Entry) {
			must(t, os.Truncate(path(t, home, one), one.Size()+1+rnd.Int64N(3<<20)))
		}},
		{"it is deleted", func(t *testing.T, _ *rand.Rand, home, _ string, one, _ demohub.Entry) {
			must(t, os.Remove(path(t, home, one)))
		}},
		{"its link is deleted", func(t *testing.T, _ *rand.Rand, _, snap string, one, _ demohub.Entry) {
			must(t, os.Remove(filepath.Join(snap, one.Path)))
		}},
		{"contents are swapped", func(t *testing.T, _ *rand.Rand, home, _ string, one, other demohub.Entry) {
			a, b := path(t, home, one), path(t, home, other)
			must(t, errors.Join(os.Rename(a, a+".x"), os.Rename(b, a), os.Rename(a+".x", b)))
		}},
		{"links are swapped", func(t *testing.T, _ *rand.Rand, _, snap string, one, other demohub.Entry) {
			a, b := filepath.Join(snap, one.Path), filepath.Join(snap, other.Path)
			must(t, errors.Join(os.Rename(a, a+".x"), os.Rename(b, a), os.Rename(a+".x", b)))
		}},
		{"nobody may read it", func(t *testing.T, rnd *rand.Rand, home, _ string, one, _ demohub.Entry) {
			if rnd.IntN(2) == 0 { // and it is damaged
				flip(t, path(t, home, one), rnd.Int64N(one.Size()))
			}
			must(t, os.Chmod(path(t, home, one), 0))
		}},
		{"its link leads in a circle", func(t *testing.T, _ *rand.Rand, _, snap string, one, _ demohub.Entry) {
			name := filepath.Join(snap, one.Path)
			must(t, errors.Join(os.Remove(name), os.Symlink(filepath.Base(name), name)))
		}},
	}
}

func TestWhateverHappensToAFileIsFoundAndMended(t *testing.T) {
	t.Parallel()
	one, other, small := demohub.File("one.bin", 3*model.MiB+5), demohub.File("two.bin", 3*model.MiB+5), demohub.File("small.bin", 700)
	for i, h := range harms() {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			r := repo(t, one, other, small)
			res := r.pull(t, request())
			home := r.another(t).home
			rnd := rand.New(rand.NewPCG(7, uint64(i)))
			for round := range 10 {
				files := []demohub.Entry{one, other}
				if rnd.IntN(2) == 0 {
					files[0], files[1] = other, one
				}
				h.do(t, rnd, home, res.Path, files[0], files[1])
				report, err := r.line(t).Verify(t.Context(), acme, res.Commit, &pipeline.Progress{})
				if err != nil || report.OK() {
					t.Fatalf("round %d: nothing was found: %+v, %v", round, report, err)
				}
				_, mended, err := r.line(t).Repair(t.Context(), acme, res.Commit, &pipeline.Progress{})
				if err != nil || len(mended.Actions) == 0 {
					t.Fatalf("round %d: %+v, %v", round, mended, err)
				}
				holds(t, res.Path, one, other, small)
				if again, err := r.line(t).Verify(t.Context(), acme, res.Commit, &pipeline.Progress{}); err != nil || !again.OK() {
					t.Fatalf("round %d: after the repair: %+v, %v", round, again, err)
				}
			}
		})
	}
}

// faulty reads a file, and fails as a disk does while it has failures left.
type faulty struct {
	verify.Reader
	left *atomic.Int64
}

func (f faulty) ReadAt(b []byte, off int64) (int, error) {
	if off >= 1<<20 && f.left.Add(-1) >= 0 {
		return 0, &os.PathError{Op: "read", Path: "x", Err: syscall.EIO}
	}
	return f.Reader.ReadAt(b, off)
}

func TestADiskThatFailsForAWhileMakesNoModelBad(t *testing.T) {
	t.Parallel()
	r := repo(t, broken, demohub.File("small.bin", 100))
	res := r.pull(t, request())
	for failures, want := range map[int64]string{1: pipeline.FileOK, 2: pipeline.FileOK, 1000: pipeline.FileUnreadable} {
		t.Run(fmt.Sprint(failures), func(t *testing.T) {
			t.Parallel()
			var left atomic.Int64
			left.Store(failures)
			how := pipeline.Reading{Open: func(path string) (verify.Reader, error) {
				f, err := os.Open(path)
				return faulty{f, &left}, err
			}}
			report, err := r.line(t).VerifyEach(t.Context(), acme, res.Commit, how, &pipeline.Progress{})
			if err != nil || !report.Whole() {
				t.Fatalf("report = %+v, %v", report, err)
			}
			if f := report.Files[0]; want == pipeline.FileOK && len(f.Notes) > 0 {
				t.Errorf("after %d failures it is still said: %v", failures, f.Notes)
			}
			if f := report.Files[0]; f.State != want || want != pipeline.FileOK && (len(f.Notes) == 0 || !strings.Contains(f.Notes[0], "input/output error")) {
				t.Errorf("after %d failures: %+v, want %s", failures, f, want)
			}
			if f := report.Files[1]; f.State != pipeline.FileOK {
				t.Errorf("the other file: %+v", f)
			}
		})
	}
}

func TestAFileThatChangesWhileItIsReadIsNotCalledDamaged(t *testing.T) {
	t.Parallel()
	r := repo(t, broken)
	res := r.pull(t, request())
	name := filepath.Join(r.another(t).home, blob(t, broken))
	var opened atomic.Int64
	how := pipeline.Reading{Open: func(path string) (verify.Reader, error) {
		f, err := os.Open(path)
		if opened.Add(1) == 1 { // somebody puts a copy in its place, and it is not finished yet
			content := content(t, broken)
			content[5]++
			err = errors.Join(err, os.WriteFile(name+".new", content, 0o600), os.Rename(name+".new", name))
			content[5]--
			t.Cleanup(func() { _ = os.Remove(name) })
			if err == nil {
				_ = f.Close()
				f, err = os.Open(path)
			}
			return replacing{f, name, content}, err
		}
		return f, err
	}}
	report, err := r.line(t).VerifyEach(t.Context(), acme, res.Commit, how, &pipeline.Progress{})
	if err != nil || !report.OK() || opened.Load() < 2 {
		t.Errorf("report = %+v, %v, opened %d times", report, err, opened.Load())
	}
}

// replacing has the right content take the name when it is closed.
type replacing struct {
	*os.File
	name    string
	content []byte
}

func (r replacing) Close() error {
	return errors.Join(r.File.Close(), os.WriteFile(r.name+".new", r.content, 0o600), os.Rename(r.name+".new", r.name))
}

// What was read before is not read again, unless it has changed since.
func TestACheckGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	r := repo(t, demohub.File("a.bin", 2*model.MiB), demohub.File("b.bin", 2*model.MiB+1))
	res := r.pull(t, request())
	var done []model.Digest
	opened := 0
	how := pipeline.Reading{
		Open:     func(path string) (verify.Reader, error) { opened++; return os.Open(path) },
		Known:    func(d model.Digest) bool { return slices.Contains(done, d) },
		Checked:  func(d model.Digest) { done = append(done, d) },
		Parallel: 1,
	}
	for round, want := range []int{2, 0, 1} {
		if opened = 0; round == 2 {
			name := filepath.Join(r.another(t).home, blob(t, demohub.File("a.bin", 2*model.MiB)))
			if err := os.Chtimes(name, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
				t.Fatal(err)
			}
		}
		report, err := r.line(t).VerifyEach(t.Context(), acme, res.Commit, how, &pipeline.Progress{})
		if err != nil || !report.OK() || opened != want {
			t.Errorf("round %d: %d files were opened, want %d: %+v, %v", round, opened, want, report, err)
		}
	}
}

func TestAContentIsMendedFromAnotherModelHere(t *testing.T) {
	t.Parallel()
	r := newRig(t, demohub.Repo(acme.Name, broken), demohub.Repo("acme/other", broken))
	res := r.pull(t, request())
	other := model.ID{Name: "acme/other"}
	r.pull(t, pipeline.Request{ID: other})
	home := r.another(t).home
	mine := filepath.Join(home, blob(t, broken))
	// Both may be one file under two names: a copy of its own is damaged, and the other one stays right.
	if err := errors.Join(os.Remove(mine), os.WriteFile(mine, content(t, broken), 0o600)); err != nil {
		t.Fatal(err)
	}
	flip(t, mine, 12345)
	_, mended, err := r.line(t, offline).Repair(t.Context(), acme, res.Commit, &pipeline.Progress{})
	if err != nil || mended.Fetched != 0 || len(mended.Actions) != 1 || !strings.Contains(mended.Actions[0], "another model") {
		t.Fatalf("offline: %+v, %v", mended, err)
	}
	holds(t, res.Path, broken)

	// What is shared is damaged in both: it is not believed, and fetched.
	shared := filepath.Join(filepath.Dir(home), other.DirName(), blob(t, broken))
	flip(t, shared, 777)
	if !sameFile(t, mine, shared) {
		flip(t, mine, 777)
	}
	r.hub.ResetStats()
	if _, _, err := r.line(t).Repair(t.Context(), acme, res.Commit, &pipeline.Progress{}); err != nil {
		t.Fatal(err)
	}
	holds(t, res.Path, broken)
	if sent := r.hub.Stats().Body; sent != int64(model.MiB) {
		t.Errorf("%d bytes were sent, want those of one block", sent)
	}
}

func sameFile(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.Stat(a)
	y, other := os.Stat(b)
	if err != nil || other != nil {
		t.Fatal(err, other)
	}
	return os.SameFile(x, y)
}

func TestASourceThatHasTheModelNoMoreLeavesWhatIsHere(t *testing.T) {
	t.Parallel()
	r, res, name := damaged(t, 100)
	r.hub.Fault(demohub.Match{}, demohub.Status(404), 0)
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = r.line(t).Repair(t.Context(), acme, res.Commit, &pipeline.Progress{})
	e, ok := errors.AsType[*model.Error](err)
	if !ok || e.Class != model.Integrity || !strings.Contains(e.Hint, "adopt") || !strings.Contains(e.Hint, "nothing was removed") {
		t.Errorf("error = %v", err)
	}
	if after, err := os.ReadFile(name); err != nil || string(after) != string(before) {
		t.Errorf("the damaged file is not as it was: %v", err)
	}
	if m, err := store.New(r.set).Model(acme); err != nil || len(m.Revisions) != 1 {
		t.Errorf("the model is gone: %+v, %v", m, err)
	}
}
