package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
	"ema/internal/store"
)

// A halfway blob is one that was begun and not finished.
type halfway struct {
	id      model.ID
	file    model.File
	age     time.Duration
	kept    bool // somebody waits for it
	open    *store.Partial
	foreign bool // another tool's: no journal
}

func (h halfway) etag() string { return h.file.Digest.Hex() }

// files are all that is on the disk for it.
func (h halfway) files(t testing.TB, w *store.Writer) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{
		filepath.Join(w.Path(), h.id.DirName(), "blobs", h.etag()+"*.incomplete"),
		filepath.Join(w.StateDir(), "partials", h.id.DirName(), h.etag()+".*"),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

func (h halfway) takes(t testing.TB, w *store.Writer) (sum model.Bytes) {
	t.Helper()
	for _, name := range h.files(t, w) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		sum += model.Bytes(info.Sys().(*syscall.Stat_t).Blocks * 512)
	}
	return sum
}

// begin puts it on the disk, as old as it is to be.
func (h *halfway) begin(t testing.TB, w *store.Writer, now time.Time) {
	t.Helper()
	if h.foreign {
		put(t, filepath.Join(w.Path(), h.id.DirName(), "blobs", h.etag()+".incomplete"), strings.Repeat("x", 10_000))
	} else {
		p, err := w.Partial(t.Context(), h.id, h.file, "")
		if err != nil {
			t.Fatal(err)
		}
		block := make([]byte, 1000)
		if err := p.WriteAt(block, 0, crcOf(block)); err != nil {
			t.Fatal(err)
		}
		if h.open != nil {
			h.open = p
			t.Cleanup(func() { _ = p.Close() })
		} else if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range h.files(t, w) {
		if err := os.Chtimes(name, now, now.Add(-h.age)); err != nil {
			t.Fatal(err)
		}
	}
}

// halfways draws some, of which no two are of the same age.
func halfways(t *rapid.T) []*halfway {
	var all []*halfway
	for i := range rapid.IntRange(1, 10).Draw(t, "how many") {
		h := &halfway{
			id:   model.ID{Name: fmt.Sprintf("acme/m%d", rapid.IntRange(0, 2).Draw(t, "model"))},
			file: model.File{Path: "w.bin", Size: rapid.Int64Range(store.BlockSize+1, 4*store.BlockSize).Draw(t, "size"), Digest: model.SumSHA256([]byte{byte(i)})},
			age:  time.Duration(rapid.IntRange(0, 20).Draw(t, "hours"))*time.Hour + time.Duration(i)*time.Second,
			kept: rapid.IntRange(0, 3).Draw(t, "waited for") == 0, foreign: rapid.IntRange(0, 4).Draw(t, "foreign") == 0,
		}
		if !h.foreign && rapid.IntRange(0, 4).Draw(t, "open") == 0 {
			h.open = new(store.Partial)
		}
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *halfway) int { return int((a.age - b.age) / time.Second) }) // youngest first
	return all
}

func TestPartialFilesStayAsLongAsTheRuleSays(t *testing.T) {
	base, runs := memoryDir(t), 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		dir := filepath.Join(base, fmt.Sprint(runs))
		defer os.RemoveAll(dir)
		w := own(t, store.Settings{Path: filepath.Join(dir, "hub"), Process: true})
		defer w.Close()
		now := time.Now()
		all := halfways(rt)
		kept := map[string]bool{}
		for _, h := range all {
			h.begin(t, w, now)
			kept[h.etag()] = h.kept
			if h.open != nil {
				defer h.open.Close()
			}
		}
		maxAge := time.Duration(rapid.IntRange(1, 30).Draw(rt, "max age")) * time.Hour
		most := model.Bytes(rapid.Int64Range(0, 8*store.BlockSize).Draw(rt, "most"))

		// The rule, said once more: from the youngest on, as much as there is room for.
		goes, room, full := map[string]bool{}, most, most == 0
		for _, h := range all {
			switch {
			case h.kept || h.open != nil:
			case h.age >= maxAge:
				goes[h.etag()] = true
			case h.foreign:
			default:
				if room -= h.takes(t, w); room < 0 {
					full = true
				}
				goes[h.etag()] = full
			}
		}
		plan, err := w.PlanPartials(now, maxAge, most, func(_ model.ID, etag string) bool { return kept[etag] })
		if err != nil {
			rt.Fatal(err)
		}
		for _, h := range all {
			if len(h.files(t, w)) == 0 {
				rt.Fatal("planning changed something")
			}
			named := slices.ContainsFunc(plan.Items, func(d store.Doomed) bool { return d.Name == h.etag() })
			if named && (h.kept || h.open != nil) {
				rt.Errorf("%+v is to go", *h)
			}
		}
		if err := w.Remove(t.Context(), plan); err != nil {
			rt.Fatal(err)
		}
		for _, h := range all {
			left := h.files(t, w)
			if gone := len(left) == 0; gone != goes[h.etag()] {
				rt.Errorf("%+v: gone %v, want %v (max age %v, most %v)", *h, gone, goes[h.etag()], maxAge, most)
			}
			if h.open != nil || h.foreign || goes[h.etag()] {
				continue
			}
			p, err := w.Partial(t.Context(), h.id, h.file, "")
			if err != nil {
				rt.Fatal(err)
			}
			if p.Written(0) != 1000 {
				rt.Errorf("%+v: what stayed goes on at %d", *h, p.Written(0))
			}
			if err := p.Close(); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

func TestTheOldestPartialFilesMakeRoom(t *testing.T) {
	w := own(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub"), Process: true})
	var all []*halfway
	for i := range 4 {
		h := &halfway{id: model.ID{Name: fmt.Sprintf("acme/m%d", i)}, file: model.File{Path: "w.bin", Size: 2 * store.BlockSize, Digest: model.SumSHA256([]byte{byte(i)})}, age: time.Duration(i) * time.Hour}
		h.begin(t, w, time.Now())
		all = append(all, h)
	}
	nobody := func(model.ID, string) bool { return false }
	two := all[0].takes(t, w) + all[1].takes(t, w)
	for _, c := range []struct {
		most model.Bytes
		stay int
	}{{model.TiB, 4}, {two, 2}, {two - 1, 1}, {0, 0}} {
		plan, err := w.PlanPartials(time.Now(), 24*time.Hour, c.most, nobody)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Remove(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		for i, h := range all {
			if there := len(h.files(t, w)) > 0; there != (i < c.stay) {
				t.Errorf("with room for %v, the one of %v is there: %v", c.most, h.age, there)
			}
		}
	}
}

func TestAPartialFileThatSomebodyTakesUpMeanwhileStays(t *testing.T) {
	w := own(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub"), Process: true})
	h := halfway{id: model.ID{Name: "acme/tiny"}, file: model.File{Path: "w.bin", Size: 2 * store.BlockSize, Digest: model.SumSHA256([]byte("1"))}, age: 48 * time.Hour}
	h.begin(t, w, time.Now())
	plan, err := w.PlanPartials(time.Now(), time.Hour, 0, func(model.ID, string) bool { return false })
	if err != nil || len(plan.Items) != 2 {
		t.Fatalf("%+v, %v", plan, err)
	}
	p, err := w.Partial(context.Background(), h.id, h.file, "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := w.Remove(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	if left := h.files(t, w); len(left) != 2 {
		t.Errorf("left are %v", left)
	}
}

func TestACollectionHasTheRuleOfPartialFilesInThePlaceOfItsOwn(t *testing.T) {
	s := tiny()
	w := pulled(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub"), Process: true}, s)
	unused := model.SumSHA256([]byte("unused")).Hex()
	put(t, filepath.Join(w.Path(), s.m.ID.DirName(), "blobs", unused), "x")
	var all []*halfway
	for i := range 2 {
		h := &halfway{id: s.m.ID, file: model.File{Path: "w.bin", Size: 2 * store.BlockSize, Digest: model.SumSHA256([]byte{byte(i)})}, age: time.Duration(i*10) * time.Hour}
		h.begin(t, w, time.Now())
		all = append(all, h)
	}
	later := time.Now().Add(30 * time.Hour)
	r, err := w.PlanCollect(24*time.Hour, later)
	if err != nil {
		t.Fatal(err)
	}
	partials, err := w.PlanPartials(later, 35*time.Hour, model.TiB, func(model.ID, string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	both := r.WithPartials(partials)
	var names []string
	var sum model.Bytes
	for _, d := range both.Items {
		names, sum = append(names, d.Name), sum+d.Bytes
	}
	if want := []string{unused, all[1].etag(), all[1].etag()}; !slices.Equal(names, want) || sum != both.Bytes {
		t.Errorf("%v of %v go, want %v", names, both.Bytes, want)
	}
}

func TestWhatAMoveLeftGoesByItsAgeAlone(t *testing.T) {
	s := tiny()
	w := pulled(t, tiered(t.TempDir()), s)
	if _, err := w.Move(t.Context(), s.m.ID, model.Warm, store.Moving{}); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(filepath.Dir(w.Path()), "warm", s.m.ID.DirName(), "blobs", model.SumSHA256([]byte("half")).Hex()+".00000000.incomplete")
	put(t, half, "half")
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{time.Hour, 0}, {25 * time.Hour, 1}} {
		plan, err := w.PlanPartials(time.Now().Add(c.after), 24*time.Hour, 0, func(model.ID, string) bool { return false })
		if err != nil || len(plan.Items) != c.want {
			t.Errorf("after %v %+v go, %v; want %d", c.after, plan.Items, err, c.want)
		}
		if err := w.Remove(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
	}
	lies(t, w.Store, s, model.Warm)
}
