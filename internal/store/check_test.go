package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/store/crashdisk"
)

// cached builds by hand a cache as the hub's own client leaves it (reference/hub-protocol, section 16): two commits that share
// contents, a branch and a pull request, what is known not to exist, a tree, locks, a plain file where no link could be made, and
// what other tools have in the same folder.
func cached(t testing.TB, path string) sample {
	t.Helper()
	s := sampleOf("acme/foreign", commit1,
		"config.json", []byte("{\"a\":1}\n"),
		"model.safetensors", content(3, 1<<20+333),
		"onnx/model.safetensors", content(4, 2000),
		"onnx/config.json", []byte("{\"a\":1}\n"),
	)
	root := filepath.Join(path, s.m.ID.DirName())
	for _, f := range s.m.Files {
		put(t, filepath.Join(root, "blobs", f.Digest.Hex()), string(s.content[f.Path]))
		put(t, filepath.Join(path, ".locks", s.m.ID.DirName(), f.Digest.Hex()+".lock"), "")
		link(t, strings.Repeat("../", 2+strings.Count(f.Path, "/"))+"blobs/"+f.Digest.Hex(), filepath.Join(root, "snapshots", commit1, f.Path))
	}
	link(t, "../../blobs/"+s.m.Files[0].Digest.Hex(), filepath.Join(root, "snapshots", commit2, "config.json"))
	put(t, filepath.Join(root, "snapshots", commit2, "notes.txt"), "a plain file")
	put(t, filepath.Join(root, "refs", "main"), commit1)
	put(t, filepath.Join(root, "refs", "refs", "pr", "1"), commit2)
	put(t, filepath.Join(root, ".no_exist", commit1, "adapter_config.json"), "")
	put(t, filepath.Join(root, "trees", commit2+".json"), fmt.Sprintf(
		`{"format_version": 1, "files": {"config.json": {"size": 8, "blob_id": %q}, "more.bin": {"size": 3, "blob_id": "0967ef424bce6791893e9a57bb952f80fd536e93"}}}`,
		s.m.Files[0].Digest.Hex()))
	put(t, filepath.Join(path, "CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n")
	put(t, filepath.Join(path, "version.txt"), "1")
	put(t, filepath.Join(path, ".DS_Store"), "")
	put(t, filepath.Join(path, "datasets--acme--other", "refs", "main"), commit1)
	// Somebody asked only for a file that is not there: the client remembers that, and the commit.
	none := filepath.Join(path, "models--acme--none")
	put(t, filepath.Join(none, "refs", "main"), commit1)
	put(t, filepath.Join(none, ".no_exist", commit1, "config.json"), "")
	return s
}

func check(t testing.TB, s *store.Store) []store.Finding {
	t.Helper()
	found, err := s.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAHealthyStoreHasNothingToFind(t *testing.T) {
	s, set := tiny(), tiered(memoryDir(t))
	other := sampleOf("acme/Other", commit1, "config.json", []byte("{}"), "model.safetensors", content(9, 3<<20))
	newer := s
	newer.m = &model.Manifest{ID: s.m.ID, Revision: "main", Commit: commit2, Files: s.m.Files[:2]}
	byCommit := sampleOf("acme/pinned", commit1, "a", []byte("a"))
	byCommit.m.Revision = commit1
	w := pulled(t, set, s, newer, other, byCommit)
	for _, tier := range []model.Tier{model.Hot, model.Cold, model.Warm} {
		move(t, w, s, tier)
		if found := check(t, w.Store); len(found) > 0 {
			t.Errorf("in the %s tier: %+v", tier, found)
		}
	}
	// A pull that was stopped will go on.
	f := lfs("big.safetensors", content(8, 2<<20))
	p, err := w.Partial(t.Context(), s.m.ID, f, "")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if found := check(t, w.Store); len(found) > 0 {
			t.Errorf("of a pull: %+v", found)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// So does what nobody may read at the moment, after a removal.
	r, err := w.PlanRemove(s.m.ID, commit2)
	if err == nil {
		err = w.Remove(t.Context(), r)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range check(t, w.Store) {
		if f.Kind != store.RefMissing { // main is gone: the older commit has no name any more
			t.Errorf("after a removal: %+v", f)
		}
	}
}

func TestACacheOfTheHubsOwnClientHasNothingToFind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub")
	s := cached(t, path)
	st := store.New(store.Settings{Path: path})
	if found := check(t, st); len(found) > 0 {
		t.Errorf("never used: %+v", found)
	}
	w := own(t, store.Settings{Path: path})
	mended, err := w.Rebuild(t.Context(), nil)
	if found := check(t, st); err != nil || len(found)+len(mended) > 0 {
		t.Errorf("used: %+v, mended %+v, %v", found, mended, err)
	}
	if err := checkTruth(st, s); err == nil {
		t.Error("the other ref is no ref of this sample: the check of the test is blind")
	}
}

func TestAnEmptyStoreHasNothingToFind(t *testing.T) {
	if found := check(t, store.New(store.Settings{Path: filepath.Join(t.TempDir(), "none")})); len(found) > 0 {
		t.Error(found)
	}
}

// A damage is done to a store behind our back.
type damage struct {
	do       func(t testing.TB, p places)
	kind     store.FindingKind
	harmless bool
	mended   bool // by Rebuild
}

// places are where the parts of the tiny sample lie.
type places struct {
	s                            sample
	hub, home, snap, state, cold string
	blob                         func(i int) string // of file i
}

func placesOf(root string, s sample) places {
	hub := filepath.Join(root, "hub")
	home := filepath.Join(hub, s.m.ID.DirName())
	return places{
		s, hub, home, filepath.Join(home, "snapshots", commit1), filepath.Join(root, "ema", "hub"), filepath.Join(root, "cold", s.m.ID.DirName(), "blobs"),
		func(i int) string { return filepath.Join(home, "blobs", s.m.Files[i].Digest.Hex()) },
	}
}

func damages() map[string]damage {
	relink := func(t testing.TB, target, name string) {
		rm(t, name)
		link(t, target, name)
	}
	return map[string]damage{
		"a ref of a commit that is not here": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "refs", "dev"), commit2)
		}, store.RefAstray, false, true},
		"a ref that ran ahead of its files": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "refs", "main"), commit2)
		}, store.RefAstray, false, true},
		"a ref with a line feed": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "refs", "main"), commit1+"\n")
		}, store.RefUnreadable, false, true},
		"half of a ref": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "refs", "main"), commit1[:20])
		}, store.RefUnreadable, false, true},
		"a ref that nobody knows, unreadable": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "refs", "v1"), "x")
		}, store.RefUnreadable, false, false},
		"a ref that another tool was writing": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "refs", "main.0123abcd.tmp"), commit1)
		}, store.Stranger, true, false},
		"no ref": {func(t testing.TB, p places) { rm(t, filepath.Join(p.home, "refs")) }, store.RefMissing, false, true},
		"a link to a content that is not here": {func(t testing.TB, p places) {
			relink(t, "../../blobs/"+strings.Repeat("e", 64), filepath.Join(p.snap, "added.bin"))
		}, store.LinkDead, false, false},
		"a link to another content": {func(t testing.TB, p places) {
			relink(t, "../../blobs/"+p.s.m.Files[0].Digest.Hex(), filepath.Join(p.snap, "model.safetensors"))
		}, store.LinkWrong, false, true},
		"a link to nowhere": {func(t testing.TB, p places) {
			relink(t, "../../../nowhere", filepath.Join(p.snap, "sub", "second.safetensors"))
		}, store.LinkDead, false, true},
		"a link out of the store": {func(t testing.TB, p places) {
			relink(t, "/etc/passwd", filepath.Join(p.snap, "config.json"))
		}, store.LinkOutside, false, true},
		"a link to a folder outside": {func(t testing.TB, p places) {
			link(t, "/etc", filepath.Join(p.snap, "etc"))
		}, store.LinkOutside, false, false},
		"an absolute link": {func(t testing.TB, p places) {
			relink(t, p.blob(0), filepath.Join(p.snap, "config.json"))
		}, store.LinkAbsolute, true, true},
		"a link to itself": {func(t testing.TB, p places) {
			relink(t, "config.json", filepath.Join(p.snap, "config.json"))
		}, store.LinkLoop, false, true},
		"two links to each other": {func(t testing.TB, p places) {
			link(t, "b", filepath.Join(p.snap, "a"))
			link(t, "a", filepath.Join(p.snap, "b"))
		}, store.LinkLoop, false, false},
		"a file without its link": {func(t testing.TB, p places) { rm(t, filepath.Join(p.snap, "sub")) }, store.FileMissing, false, true},
		"a file without its link and content": {func(t testing.TB, p places) {
			rm(t, filepath.Join(p.snap, "sub", "second.safetensors"))
			rm(t, p.blob(4))
		}, store.FileMissing, false, false},
		"a content that is gone": {func(t testing.TB, p places) { rm(t, p.blob(2)) }, store.LinkDead, false, false},
		"no snapshot":            {func(t testing.TB, p places) { rm(t, p.snap) }, store.SnapshotMissing, false, true},
		"a snapshot and a content gone": {func(t testing.TB, p places) {
			rm(t, p.snap)
			rm(t, p.blob(2))
		}, store.SnapshotMissing, false, false},
		"a content nobody uses": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "blobs", strings.Repeat("d", 64)), "x")
		}, store.BlobUnused, true, false},
		"a content that was touched": {func(t testing.TB, p places) {
			if err := os.Chtimes(p.blob(2), time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
				t.Fatal(err)
			}
		}, store.BlobChanged, false, false},
		"a content that was replaced by one of the same size": {func(t testing.TB, p places) {
			rm(t, p.blob(2))
			put(t, p.blob(2), strings.Repeat("x", len(p.s.content["model.safetensors"])))
		}, store.BlobChanged, false, false},
		"a content cut short": {func(t testing.TB, p places) {
			if err := os.Truncate(p.blob(2), 100); err != nil {
				t.Fatal(err)
			}
		}, store.SizeWrong, false, false},
		"a plain file cut short": {func(t testing.TB, p places) {
			rm(t, filepath.Join(p.snap, "model.safetensors"))
			put(t, filepath.Join(p.snap, "model.safetensors"), "short")
		}, store.SizeWrong, false, false},
		"a content that leads elsewhere": {func(t testing.TB, p places) {
			if err := os.Rename(p.blob(2), filepath.Join(p.hub, "..", "moved")); err != nil {
				t.Fatal(err)
			}
			link(t, filepath.Join(p.hub, "..", "moved"), p.blob(2))
		}, store.BlobElsewhere, true, false},
		"a content that leads nowhere":   {func(t testing.TB, p places) { relink(t, "/none", p.blob(2)) }, store.BlobLost, false, false},
		"a content that leads to itself": {func(t testing.TB, p places) { relink(t, filepath.Base(p.blob(2)), p.blob(2)) }, store.LinkLoop, false, false},
		"a content under another name": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "blobs", "md5-abc"), "x")
			link(t, "../../blobs/md5-abc", filepath.Join(p.snap, "added.bin"))
		}, store.BlobMisnamed, true, false},
		"something among the contents": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "blobs", "notes.txt"), "x")
		}, store.Stranger, true, false},
		"a folder among the contents": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "blobs", strings.Repeat("c", 64), "x"), "x")
		}, store.Stranger, true, false},
		"a partial file of a dead fetch": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "blobs", strings.Repeat("a", 64)+".01234567.incomplete"), "half")
		}, store.PartialDead, true, false},
		"a partial file of an older tool": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "blobs", strings.Repeat("a", 64)+".incomplete"), "half")
		}, store.PartialDead, true, false},
		"a partial file of llama.cpp": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "blobs", strings.Repeat("a", 64)+".downloadInProgress"), "half")
		}, store.PartialDead, true, false},
		"checksums of what is gone": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.state, "blocks", p.s.m.ID.DirName(), strings.Repeat("a", 64)+".crc"), "x")
		}, store.ProofStale, true, true},
		"checksums of a copy that is gone": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.state, "blocks", p.s.m.ID.DirName(), filepath.Base(p.blob(2))+".cold.crc"), "x")
		}, store.ProofStale, true, true},
		"checksums that cannot be read": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.state, "blocks", p.s.m.ID.DirName(), filepath.Base(p.blob(2))+".crc"), "x")
		}, store.ProofStale, true, true},
		"checksums half written": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.state, "blocks", p.s.m.ID.DirName(), filepath.Base(p.blob(2))+".crc.0123abcd.tmp"), "x")
		}, store.ProofStale, true, true},
		"the record of a revision that another tool removed": {func(t testing.TB, p places) {
			for _, dir := range []string{"refs", "snapshots", "blobs"} {
				rm(t, filepath.Join(p.home, dir))
			}
			rm(t, filepath.Join(p.state, "blocks"))
		}, store.RecordStale, true, true},
		"a record that cannot be read": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.state, "models", p.s.m.ID.DirName(), commit1+".json"), "{")
		}, store.RecordStale, true, true},
		"a journal without its file": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.state, "partials", p.s.m.ID.DirName(), strings.Repeat("a", 64)+".journal"), "x")
		}, store.JournalStale, true, true},
		"a move of a model that is gone": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.state, "moves", "models--acme--gone.json"), `{"model":"acme/gone","to":"cold"}`)
		}, store.JournalStale, true, true},
		"a move that was cut short": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.state, "moves", p.s.m.ID.DirName()+".json"), `{"model":"acme/tiny","to":"cold"}`)
		}, store.LeftUnfinished, true, false},
		"something half built": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, ".ema", "snapshot.0123abcd", "x"), "x")
		}, store.LeftUnfinished, true, false},
		"another spelling": {func(t testing.TB, p places) {
			mkdirs(t, filepath.Join(p.hub, "models--Acme--Tiny"))
		}, store.NamesAlike, true, false},
		"a folder that no model has": {func(t testing.TB, p places) {
			mkdirs(t, filepath.Join(p.hub, "models--a--b--c"))
		}, store.Stranger, true, false},
		"something beside the models":   {func(t testing.TB, p places) { put(t, filepath.Join(p.hub, "notes.txt"), "x") }, store.Stranger, true, false},
		"something in a model's folder": {func(t testing.TB, p places) { put(t, filepath.Join(p.home, "notes.txt"), "x") }, store.Stranger, true, false},
		"a file among the snapshots": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.home, "snapshots", "x"), "x")
		}, store.Stranger, false, false},
		"a copy in a tier that no name leads to": {func(t testing.TB, p places) {
			put(t, filepath.Join(p.cold, strings.Repeat("b", 64)), "x")
		}, store.BlobUnused, true, false},
		"a name that was lost while its content lies in a tier": {func(t testing.TB, p places) {
			mkdirs(t, p.cold)
			if err := os.Rename(p.blob(2), filepath.Join(p.cold, filepath.Base(p.blob(2)))); err != nil {
				t.Fatal(err)
			}
		}, store.BlobLost, false, true},
	}
}

// contentsIn counts the plain files below root by their content, leaving notes of ours out.
func contentsIn(t testing.TB, root string) map[string]int {
	t.Helper()
	all := map[string]int{}
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.Contains(name, "/refs/") || strings.Contains(name, "/ema/") || strings.Contains(name, "/.locks/") || strings.Contains(name, "/.cache/") {
			return err
		}
		b, err := os.ReadFile(name)
		all[string(b)]++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEveryDisagreementIsFoundExplainedAndMendedWithoutLoss(t *testing.T) {
	for promise, d := range damages() {
		t.Run(promise, func(t *testing.T) {
			s, set := tiny(), tiered(memoryDir(t))
			w := pulled(t, set, s)
			p := placesOf(filepath.Dir(set.Path), s)
			d.do(t, p)
			before := contentsIn(t, filepath.Dir(set.Path))
			found := check(t, w.Store)
			i := slices.IndexFunc(found, func(f store.Finding) bool { return f.Kind == d.kind })
			if i < 0 {
				t.Fatalf("found %+v, want %s", found, d.kind)
			}
			f := found[i]
			if f.Harmless != d.harmless || !filepath.IsAbs(f.Path) || f.Problem == "" || f.Remedy == "" || strings.HasSuffix(f.Problem, ".") {
				t.Errorf("%+v", f)
			}
			if says := strings.Contains(f.Remedy, "store rebuild"); says != d.mended {
				t.Errorf("the remedy is %q, mended: %v", f.Remedy, d.mended)
			}
			for _, other := range found {
				if other.Kind != d.kind && !other.Harmless {
					t.Errorf("found besides: %+v", other)
				}
			}
			mended, err := w.Rebuild(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.ContainsFunc(mended, func(f store.Finding) bool { return f.Kind == d.kind }); got != d.mended {
				t.Errorf("mended %+v", mended)
			}
			after := check(t, w.Store)
			if d.mended && len(after) > 0 {
				t.Errorf("left: %+v", after)
			}
			if again, err := w.Rebuild(t.Context(), nil); err != nil || len(again) > 0 {
				t.Errorf("a second time there is still something to mend: %+v, %v", again, err)
			}
			now := contentsIn(t, filepath.Dir(set.Path))
			for b, n := range before {
				if now[b] < n {
					t.Errorf("%d of %d files with %.20q are left", now[b], n, b)
				}
			}
			if d.mended && d.kind != store.RecordStale && !w.Available(s.m.ID, commit1, s.m.Files) && d.kind != store.ProofStale {
				if m, err := w.Model(s.m.ID); err != nil || m.Revisions[0].State != store.Unverified {
					t.Errorf("not available: %+v, %v", m, err)
				}
			}
		})
	}
}

func TestRebuildLeavesAloneWhatItIsToSpare(t *testing.T) {
	s, set := tiny(), tiered(memoryDir(t))
	w := pulled(t, set, s)
	rm(t, placesOf(filepath.Dir(set.Path), s).snap)
	mended, err := w.Rebuild(t.Context(), func(id model.ID) bool { return id == s.m.ID })
	if err != nil || len(mended) > 0 || len(check(t, w.Store)) == 0 {
		t.Errorf("mended %+v, %v", mended, err)
	}
}

// The hub's own client writes a ref before the files, and holds a lock for each file.
func TestWhileSomebodyFetchesNothingIsTakenAway(t *testing.T) {
	s, set := tiny(), tiered(memoryDir(t))
	w := pulled(t, set, s)
	p := placesOf(filepath.Dir(set.Path), s)
	put(t, filepath.Join(p.home, "refs", "dev"), commit2)
	put(t, filepath.Join(p.home, "blobs", strings.Repeat("a", 64)+".01234567.incomplete"), "half")
	lock, err := store.OS{}.OpenFile(filepath.Join(p.hub, ".locks", s.m.ID.DirName(), strings.Repeat("a", 64)+".lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := lock.TryLock(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if found := check(t, w.Store); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
	if mended, err := w.Rebuild(t.Context(), nil); err != nil || len(mended) > 0 {
		t.Errorf("mended %+v, %v", mended, err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if found := check(t, w.Store); len(found) != 2 {
		t.Errorf("found %+v, want the ref and the partial file", found)
	}
}

func TestATierThatIsAwayIsSaidOnce(t *testing.T) {
	s, set := tiny(), tiered(memoryDir(t))
	w := pulled(t, set, s)
	move(t, w, s, model.Cold)
	cold := set.Colder[model.Cold]
	if err := os.Rename(cold, cold+".away"); err != nil {
		t.Fatal(err)
	}
	found := check(t, w.Store)
	if len(found) != 1 || found[0].Kind != store.TierGone || found[0].Harmless || found[0].Path != cold {
		t.Errorf("found %+v", found)
	}
	if mended, err := w.Rebuild(t.Context(), nil); err != nil || len(mended) > 0 {
		t.Errorf("mended %+v, %v", mended, err)
	}
	if err := os.Rename(cold+".away", cold); err != nil {
		t.Fatal(err)
	}
	lies(t, w.Store, s, model.Cold)
}

func TestACheckEndsWithItsContext(t *testing.T) {
	w := pulled(t, tiered(memoryDir(t)), tiny())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := w.Rebuild(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// wrecked damages a store in many ways at once, all of which Rebuild mends.
func wrecked(t testing.TB, root string, s sample) {
	t.Helper()
	p := placesOf(root, s)
	all := damages()
	for _, name := range []string{
		"a ref that ran ahead of its files", "a link to another content", "a link to itself", "a link to nowhere",
		"a name that was lost while its content lies in a tier", "checksums of what is gone", "a journal without its file", "an absolute link",
	} {
		if name == "an absolute link" {
			rm(t, filepath.Join(p.snap, "config.json")) // which leads to itself
			link(t, p.blob(0), filepath.Join(p.snap, "config.json"))
			continue
		}
		all[name].do(t, p)
	}
	rm(t, filepath.Join(p.snap, "empty.txt"))
}

func TestACrashAtAnyStepOfARebuildLosesNothingAndTheNextOneEndsIt(t *testing.T) {
	s := tiny()
	root := filepath.Join(memoryDir(t), "w")
	set := tiered(root)
	rebuild := func(d store.Disk) error {
		crashing := set
		crashing.Disk = d
		w, err := store.New(crashing).Own(context.Background(), "test", nil)
		if err != nil {
			return err
		}
		_, err = w.Rebuild(context.Background(), nil)
		return errors.Join(err, w.Close())
	}
	rounds := 0
	for at, whole := 1, false; !whole; at++ {
		w := pulled(t, set, s)
		wrecked(t, root, s)
		before := contentsIn(t, root)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		d, err := crashdisk.New(root)
		if err != nil {
			t.Fatal(err)
		}
		d.StopAfter(at)
		err = rebuild(d)
		whole = err == nil
		if err != nil && !errors.Is(err, crashdisk.ErrStopped) {
			t.Fatal(err)
		}
		if at%2 == 0 {
			err = d.PowerLoss(uint64(at), root+".after")
			removeAll(t, root)
			err = errors.Join(err, os.Rename(root+".after", root)) // links lead to absolute names
		} else {
			err = d.Kill()
		}
		if err == nil {
			err = rebuild(unsynced{})
		}
		if err != nil {
			t.Fatalf("after operation %d: %v", at, err)
		}
		for _, f := range check(t, store.New(set)) {
			if f.Kind != store.LeftUnfinished {
				t.Fatalf("after operation %d: %+v", at, f)
			}
		}
		if err := checkTruth(store.New(set), s); err != nil {
			t.Fatalf("after operation %d: %v", at, err)
		}
		now := contentsIn(t, root)
		for b, n := range before {
			if now[b] < n {
				t.Fatalf("after operation %d: %d of %d files with %.20q are left", at, now[b], n, b)
			}
		}
		removeAll(t, root, root+".attic")
		rounds++
	}
	if rounds < 20 {
		t.Errorf("only %d rounds", rounds)
	}
}
