package store_test

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ema/internal/model"
	"ema/internal/store"
)

// pythonCache builds what the hub's own client leaves: no sidecars, no record, a ref.
func pythonCache(t testing.TB, path string) (id model.ID, digest model.Digest) {
	t.Helper()
	id = model.ID{Name: "acme/python"}
	root := filepath.Join(path, id.DirName())
	b := []byte("{}\n")
	digest = model.SumGitBlob(b)
	put(t, filepath.Join(root, "blobs", digest.Hex()), string(b))
	link(t, "../../blobs/"+digest.Hex(), filepath.Join(root, "snapshots", commit1, "config.json"))
	put(t, filepath.Join(root, "refs", "main"), commit1)
	put(t, filepath.Join(root, ".no_exist", commit1, "adapter_config.json"), "")
	put(t, filepath.Join(root, "blobs", strings.Repeat("a", 64)+".01234567.incomplete"), "half")
	put(t, filepath.Join(path, ".locks", id.DirName(), strings.Repeat("a", 64)+".lock"), "")
	put(t, filepath.Join(path, "datasets--acme--other", "refs", "main"), commit1)
	put(t, filepath.Join(path, "version.txt"), "1")
	return id, digest
}

func TestAPythonMadeCacheIsAdoptedWithoutACopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub")
	id, d := pythonCache(t, path)
	w := own(t, store.Settings{Path: path})
	models, err := w.Models(t.Context())
	if err != nil || len(models) != 1 || models[0].ID != id || models[0].Size != 3 || models[0].Incomplete != 4 {
		t.Fatalf("models = %+v, %v", models, err)
	}
	r := models[0].Revisions[0]
	if r.State != store.Unverified || r.Commit != commit1 || !slices.Equal(r.Refs, []string{"main"}) || r.Record != nil ||
		len(r.Files) != 1 || r.Files[0].Path != "config.json" || r.Files[0].Digest != d {
		t.Fatalf("revision = %+v", r)
	}
	b, err := w.Blob(id, d)
	if err != nil || b.Proof != store.Unproven {
		t.Fatalf("blob = %+v, %v", b, err)
	}
	crc := crc32.Checksum([]byte("{}\n"), crc32.MakeTable(crc32.Castagnoli))
	if err := w.Prove(id, d, []uint32{crc}); err != nil {
		t.Fatal(err)
	}
	if b, err = w.Blob(id, d); err != nil || b.Proof != store.Proven {
		t.Fatalf("blob = %+v, %v", b, err)
	}
	if got, err := w.Blocks(id, d); err != nil || !slices.Equal(got, []uint32{crc}) {
		t.Fatalf("blocks = %v, %v", got, err)
	}
	if !w.Available(id, commit1, []model.File{{Path: "config.json", Size: 3, Digest: d}}) {
		t.Error("what was verified is not available")
	}
	put(t, b.Path, "{}!")
	if b, err = w.Blob(id, d); err != nil || b.Proof != store.Changed {
		t.Fatalf("blob = %+v, %v", b, err)
	}
}

func TestForeignChangesShowUpAsStates(t *testing.T) {
	for promise, c := range map[string]struct {
		change func(t *testing.T, s sample, st *store.Store)
		want   store.State
	}{
		"untouched is available":              {func(*testing.T, sample, *store.Store) {}, store.Available},
		"a deleted blob makes it partial":     {func(t *testing.T, s sample, st *store.Store) { rm(t, blobFile(st, s, 0)) }, store.Incomplete},
		"a deleted link makes it partial":     {func(t *testing.T, s sample, st *store.Store) { rm(t, linkFile(st, s, 2)) }, store.Incomplete},
		"a deleted snapshot makes it partial": {func(t *testing.T, s sample, st *store.Store) { rm(t, st.Snapshot(s.m.ID, commit1)) }, store.Incomplete},
		"a longer blob is damaged": {func(t *testing.T, s sample, st *store.Store) {
			put(t, blobFile(st, s, 0), "longer than before")
		}, store.Damaged},
		"a touched blob is damaged": {func(t *testing.T, s sample, st *store.Store) {
			if err := os.Chtimes(blobFile(st, s, 2), time.Time{}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}, store.Damaged},
		"a link to another blob is damaged": {func(t *testing.T, s sample, st *store.Store) {
			rm(t, linkFile(st, s, 0))
			link(t, "../../blobs/"+s.m.Files[1].Digest.Hex(), linkFile(st, s, 0))
		}, store.Damaged},
		"a regular file of the right size is unverified": {func(t *testing.T, s sample, st *store.Store) {
			rm(t, linkFile(st, s, 0))
			put(t, linkFile(st, s, 0), "{}\n")
		}, store.Unverified},
		"an added file changes nothing": {func(t *testing.T, s sample, st *store.Store) {
			put(t, filepath.Join(st.Snapshot(s.m.ID, commit1), "notes.txt"), "mine")
		}, store.Available},
		"a torn ref of another tool is no ref": {func(t *testing.T, s sample, st *store.Store) {
			put(t, filepath.Join(st.Path(), s.m.ID.DirName(), "refs", "torn"), commit1[:17])
		}, store.Available},
		"without checksums nothing is proven": {func(t *testing.T, s sample, st *store.Store) {
			rm(t, filepath.Join(st.StateDir(), "blocks"))
		}, store.Unverified},
		"without the record the tree tells what is wanted": {func(t *testing.T, s sample, st *store.Store) {
			rm(t, filepath.Join(st.StateDir(), "models"))
			rm(t, linkFile(st, s, 4))
		}, store.Incomplete},
	} {
		t.Run(promise, func(t *testing.T) {
			s := tiny()
			w := pulled(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub"), Process: true}, s)
			c.change(t, s, w.Store)
			m, err := w.Model(s.m.ID)
			if err != nil || len(m.Revisions) != 1 {
				t.Fatalf("Model = %+v, %v", m, err)
			}
			if m.Revisions[0].State != c.want {
				t.Errorf("state %q of %+v, want %q", m.Revisions[0].State, m.Revisions[0].Files, c.want)
			}
			if avail := w.Available(s.m.ID, commit1, s.m.Files); avail != (c.want == store.Available) {
				t.Errorf("Available = %v where the state is %q", avail, c.want)
			}
		})
	}
}

func TestModelsFromURLsKeepTheirNames(t *testing.T) {
	s := tiny()
	s.m.ID = model.ID{Scheme: model.HTTPS, Name: "https://example.com/models/tiny.bin?x=1"}
	w := pulled(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub"), Process: true}, s)
	models, err := w.Models(t.Context())
	if err != nil || len(models) != 1 || models[0].ID != s.m.ID || models[0].Revisions[0].State != store.Available {
		t.Fatalf("models = %+v, %v", models, err)
	}
}

func TestWhatIsNotHereIsNotFound(t *testing.T) {
	s := store.New(store.Settings{Path: filepath.Join(t.TempDir(), "none")})
	if models, err := s.Models(t.Context()); err != nil || len(models) > 0 {
		t.Errorf("Models = %v, %v", models, err)
	}
	_, err := s.Model(model.ID{Name: "a/b"})
	if !errors.Is(err, fs.ErrNotExist) || model.ClassOf(err) != model.NotFound {
		t.Errorf("Model = %v", err)
	}
	if _, err := s.Blob(model.ID{Name: "a/b"}, model.SumSHA256(nil)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Blob = %v", err)
	}
	if _, err := s.PlanRemove(model.ID{Name: "a/b"}, ""); model.ClassOf(err) != model.NotFound {
		t.Errorf("PlanRemove = %v", err)
	}
	if free, err := s.Free(); err != nil || free <= 0 {
		t.Errorf("Free = %v, %v", free, err)
	}
}

func blobFile(st *store.Store, s sample, i int) string {
	return filepath.Join(st.Path(), s.m.ID.DirName(), "blobs", s.m.Files[i].Digest.Hex())
}

func linkFile(st *store.Store, s sample, i int) string {
	return filepath.Join(st.Snapshot(s.m.ID, s.m.Commit), s.m.Files[i].Path)
}

func rm(t testing.TB, name string) {
	t.Helper()
	if err := os.RemoveAll(name); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkModels(b *testing.B) {
	for _, models := range []int{100, 1000} {
		b.Run(fmt.Sprintf("models=%d/files=5", models), func(b *testing.B) {
			w := own(b, store.Settings{Path: filepath.Join(memoryDir(b), "hub"), Process: true})
			for i := range models {
				var files []any
				for k := range 5 {
					files = append(files, fmt.Sprintf("file%d.json", k), []byte(fmt.Sprint(i, k)))
				}
				if _, err := pull(b.Context(), w, sampleOf(fmt.Sprintf("acme/m%d", i), commit1, files...), nil); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				got, err := w.Models(b.Context())
				if err != nil || len(got) != models || got[0].Revisions[0].State != store.Available {
					b.Fatalf("%d models, %v", len(got), err)
				}
			}
		})
	}
}
