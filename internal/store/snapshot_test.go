package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ema/internal/model"
	"ema/internal/store"
)

func TestASnapshotIsWhatTheHubsOwnClientWouldMake(t *testing.T) {
	s := tiny()
	w := pulled(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub")}, s)
	dir := w.Snapshot(s.m.ID, commit1)
	for path, want := range map[string]string{
		"config.json":            "../../blobs/0967ef424bce6791893e9a57bb952f80fd536e93",
		"empty.txt":              "../../blobs/e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
		"sub/same.json":          "../../../blobs/0967ef424bce6791893e9a57bb952f80fd536e93",
		"sub/second.safetensors": "../../../blobs/" + s.m.Files[4].Digest.Hex(),
	} {
		if got, err := os.Readlink(filepath.Join(dir, path)); err != nil || got != want {
			t.Errorf("%s -> %s (%v), want %s", path, got, err, want)
		}
	}
	root := filepath.Join(w.Path(), "models--acme--tiny")
	if ref, err := os.ReadFile(filepath.Join(root, "refs", "main")); err != nil || string(ref) != commit1 {
		t.Errorf("refs/main = %q, %v", ref, err)
	}
	tree, err := os.ReadFile(filepath.Join(root, "trees", commit1+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"{\n \"format_version\": 1,\n \"files\": {\n  \"config.json\": {\n   \"size\": 3,\n   \"blob_id\": \"0967ef424bce6791893e9a57bb952f80fd536e93\"\n  },",
		"\"blob_id\": \"" + s.m.Files[2].PointerID + "\",\n   \"lfs_sha256\": \"" + s.m.Files[2].Digest.Hex() + "\",\n   \"lfs_size\": 1449143\n  }",
	} {
		if !strings.Contains(string(tree), want) {
			t.Errorf("the tree has no %s:\n%s", want, tree)
		}
	}
	m, err := w.Model(s.m.ID)
	if err != nil {
		t.Fatal(err)
	}
	r := m.Revisions[0]
	if r.State != store.Available || r.Record == nil || r.Record.Source != "a test" || len(r.Files) != 5 || m.Size != s.m.Bytes()-3 {
		t.Errorf("listed as %+v, %d bytes", r, m.Size)
	}
}

func TestACommitAskedForByItsIDGetsAPin(t *testing.T) {
	s := tiny()
	s.m.Revision = commit1
	w := pulled(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub")}, s)
	if c, ok := w.Ref(s.m.ID, "ema-pin-111111111111"); !ok || c != commit1 {
		t.Fatalf("pin = %q, %v", c, ok)
	}
	s.m.Revision = "refs/pr/1"
	if _, err := pull(t.Context(), w, s, nil); err != nil {
		t.Fatal(err)
	}
	refs, err := w.Refs(s.m.ID)
	if err != nil || len(refs) != 2 || refs["refs/pr/1"] != commit1 {
		t.Fatalf("refs = %v, %v", refs, err)
	}
}

func TestAHalfFilledSnapshotOfAnotherToolIsCompleted(t *testing.T) {
	s := tiny()
	set := store.Settings{Path: filepath.Join(t.TempDir(), "hub")}
	dir := store.New(set).Snapshot(s.m.ID, commit1)
	mkdirs(t, filepath.Join(dir, "sub"))
	put(t, filepath.Join(dir, "config.json"), "{}\n") // a copy, where a link could not be made
	link(t, "../../blobs/gone", filepath.Join(dir, "model.safetensors"))
	put(t, filepath.Join(dir, "theirs.txt"), "stays")
	w := pulled(t, set, s)
	if err := checkSnapshot(dir, s); err != nil {
		t.Fatal(err)
	}
	if !w.Available(s.m.ID, commit1, s.m.Files) {
		t.Error("not available")
	}
	if b, err := os.ReadFile(filepath.Join(dir, "theirs.txt")); err != nil || string(b) != "stays" {
		t.Error("the other tool's file is gone")
	}
}

func TestNamesThatCannotBeFilesAreRefused(t *testing.T) {
	one := []byte("one")
	for promise, c := range map[string]struct {
		files []any
		trap  func(t *testing.T, dir string)
	}{
		"a file below a file":                   {[]any{"a", one, "a/b", one}, nil},
		"a file that is a folder":               {[]any{"a/b", one, "a", one}, nil},
		"one name twice":                        {[]any{"a", one, "a", one}, nil},
		"a path that climbs out":                {[]any{"../a", one}, nil},
		"a folder of the snapshot in the way":   {[]any{"a", one}, func(t *testing.T, dir string) { mkdirs(t, filepath.Join(dir, "a")) }},
		"a file of the snapshot in the way":     {[]any{"a/b", one}, func(t *testing.T, dir string) { put(t, filepath.Join(dir, "a"), "x") }},
		"a link in the snapshot that leads out": {[]any{"a/b", one}, func(t *testing.T, dir string) { link(t, "../../../..", filepath.Join(dir, "a")) }},
	} {
		t.Run(promise, func(t *testing.T) {
			base := t.TempDir()
			s := sampleOf("acme/odd", commit1, c.files...)
			w := own(t, store.Settings{Path: filepath.Join(base, "hub")})
			if c.trap != nil {
				mkdirs(t, w.Snapshot(s.m.ID, commit1))
				c.trap(t, w.Snapshot(s.m.ID, commit1))
			}
			_, err := pull(t.Context(), w, s, nil)
			if model.ClassOf(err) != model.Integrity {
				t.Fatalf("commit = %v, want Class Integrity", err)
			}
			if _, ok := w.Ref(s.m.ID, "main"); ok {
				t.Error("there is a ref to what was refused")
			}
			if _, err := os.Lstat(filepath.Join(base, "b")); !errors.Is(err, fs.ErrNotExist) {
				t.Error("something was written outside of the store")
			}
		})
	}
}

func TestWhatIsNotPublishedIsNotCommitted(t *testing.T) {
	s := tiny()
	w := own(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub")})
	if _, err := w.Commit(t.Context(), s.m, s.m.Files, store.Record{}); model.ClassOf(err) != model.Integrity {
		t.Fatalf("Commit = %v, want Class Integrity", err)
	}
	if _, err := w.Model(s.m.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Model = %v, want nothing there", err)
	}
}

func TestAResumeOfUnknownContentNeedsTheSameValidator(t *testing.T) {
	w := own(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub")})
	id, f := model.ID{Name: "acme/x"}, model.File{Path: "x.bin", Size: 2 * store.BlockSize}
	for i, c := range []struct {
		validator string
		written   int64
	}{{"v1", 0}, {"v1", 5}, {"v2", 0}} {
		p, err := w.Partial(t.Context(), id, f, c.validator)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Written(0); got != c.written {
			t.Errorf("%d: %d bytes are there, want %d", i, got, c.written)
		}
		if c.written == 0 {
			if err := p.WriteAt([]byte("hello"), 0, crcOf([]byte("hello"))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Stage(model.SumSHA256(nil)); err == nil {
			t.Error("what is not complete was staged")
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func mkdirs(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
}

func put(t testing.TB, name, text string) {
	t.Helper()
	mkdirs(t, filepath.Dir(name))
	if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

func link(t testing.TB, target, name string) {
	t.Helper()
	mkdirs(t, filepath.Dir(name))
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}
