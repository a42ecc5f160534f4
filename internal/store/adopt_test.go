package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ema/internal/model"
	"ema/internal/source"
	"ema/internal/store"
	"ema/internal/store/crashdisk"
)

// adopt adopts, and fails the test if that fails.
func adopt(t testing.TB, w *store.Writer, dir string, opt store.Adopting) store.Adopted {
	t.Helper()
	done, err := w.Adopt(t.Context(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// shows fails unless a snapshot of a store shows exactly these files, all proven, and a check finds nothing.
func shows(t testing.TB, w *store.Writer, m store.AdoptedModel, want map[string][]byte) {
	t.Helper()
	rec, err := w.Record(m.ID, m.Commit)
	if err != nil || len(rec.Files) != len(want) || m.Files != len(want) || !w.Available(m.ID, m.Commit, rec.Files) {
		t.Fatalf("%+v of %+v: %v", rec, m, err)
	}
	for path, b := range want {
		if err := sameFile(filepath.Join(m.Path, path), b); err != nil {
			t.Error(err)
		}
	}
	if commit, ok := w.Ref(m.ID, m.Revision); m.Revision != m.Commit && (!ok || commit != m.Commit) {
		t.Errorf("%s is %q", m.Revision, commit)
	}
	for _, f := range check(t, w.Store) {
		t.Errorf("%+v", f)
	}
}

func sameInode(t testing.TB, a, b string) bool {
	t.Helper()
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	if err := errors.Join(errX, errY); err != nil {
		t.Fatal(err)
	}
	return os.SameFile(x, y)
}

func TestACacheOfAnotherUserIsAdoptedWithoutACopy(t *testing.T) {
	dir := memoryDir(t)
	from := filepath.Join(dir, "theirs", "hub")
	s := cached(t, from)
	w := own(t, tiered(dir))
	var told int64
	done := adopt(t, w, from, store.Adopting{Progress: func(n int64) { told += n }})
	if len(done.Models) != 2 || len(done.Refused) != 0 {
		t.Fatalf("%+v", done)
	}
	m := done.Models[0]
	if m.Commit != commit1 || m.Revision != "main" || m.Linked+m.Cloned != 1 || m.Copied != 2 || m.Existing || told < int64(m.Bytes) {
		t.Errorf("%+v, told of %d", m, told)
	}
	shows(t, w, m, s.content)
	large := s.m.Files[1].Digest.Hex()
	if !sameInode(t, filepath.Join(from, s.m.ID.DirName(), "blobs", large), filepath.Join(w.Path(), s.m.ID.DirName(), "blobs", large)) && m.Cloned == 0 {
		t.Error("the large file was copied")
	}
	second := done.Models[1]
	if second.Commit != commit2 || second.Revision != "refs/pr/1" || second.Kept != 1 {
		t.Errorf("%+v", second)
	}
	shows(t, w, second, map[string][]byte{"config.json": s.content["config.json"], "notes.txt": []byte("a plain file")})
	if files, ok := w.Tree(s.m.ID, commit2); !ok || len(files) != 2 {
		t.Errorf("the list of all files was not taken over: %+v", files)
	}
	if rec, err := w.Record(s.m.ID, commit1); err != nil || !rec.Unlisted || rec.Source != "adopted from "+from {
		t.Errorf("%+v, %v", rec, err)
	}
	if _, ok := w.Tree(s.m.ID, commit1); ok {
		t.Error("what nobody has listed has a list")
	}

	again := adopt(t, w, from, store.Adopting{})
	for _, m := range again.Models {
		if !m.Existing || m.Copied+m.Cloned+m.Linked != 0 {
			t.Errorf("the second time: %+v", m)
		}
	}
	one := adopt(t, own(t, tiered(filepath.Join(dir, "one"))), filepath.Join(from, s.m.ID.DirName()), store.Adopting{Copy: true})
	if len(one.Models) != 2 || one.Models[0].Copied != 3 {
		t.Errorf("by the folder of the model: %+v", one)
	}
}

// notes writes what the hub's client notes of a file in a plain folder.
func notes(t testing.TB, dir, file, commit, etag string, at time.Time) {
	t.Helper()
	put(t, filepath.Join(dir, ".cache", "huggingface", "download", file+".metadata"), fmt.Sprintf("%s\n%s\n%.6f\n", commit, etag, float64(at.UnixNano())/1e9))
	put(t, filepath.Join(dir, ".cache", "huggingface", "download", file+".lock"), "")
}

// localDir makes a plain folder as the hub's client fills it.
func localDir(t testing.TB, dir string, s sample, noted bool) {
	t.Helper()
	for _, f := range s.m.Files {
		put(t, filepath.Join(dir, f.Path), string(s.content[f.Path]))
		if noted {
			notes(t, dir, f.Path, s.m.Commit, f.Digest.Hex(), time.Now().Add(time.Second))
		}
	}
	if noted {
		put(t, filepath.Join(dir, ".cache", "huggingface", ".gitignore"), "*")
		put(t, filepath.Join(dir, ".cache", "huggingface", "CACHEDIR.TAG"), "")
	}
}

func TestAFolderOfTheHubsClientIsTheCommitThatItsNotesTell(t *testing.T) {
	s := tiny()
	dir := memoryDir(t)
	localDir(t, filepath.Join(dir, "local"), s, true)
	w := own(t, tiered(dir))
	done := adopt(t, w, filepath.Join(dir, "local"), store.Adopting{Models: []model.ID{s.m.ID}})
	if m := done.Models[0]; m.Commit != commit1 || m.Revision != "main" {
		t.Fatalf("%+v", m)
	}
	shows(t, w, done.Models[0], s.content)
	for _, f := range s.m.Files {
		if b, err := w.Blob(s.m.ID, f.Digest); err != nil || b.Proof != store.Proven {
			t.Errorf("%s is not under the hub's name: %+v, %v", f.Path, b, err)
		}
	}
	if rec, err := w.Record(s.m.ID, commit1); err != nil || !rec.Unlisted {
		t.Errorf("%+v, %v: the notes do not tell whether these are all files", rec, err)
	}
	// With the list of all files it is known what is missing.
	put(t, filepath.Join(dir, "local", ".cache", "huggingface", "trees", commit1+".json"), fmt.Sprintf(
		`{"format_version": 1, "files": {"config.json": {"size": 3, "blob_id": %q}, "more": {"size": 1, "blob_id": %q}}}`, s.m.Files[0].Digest.Hex(), commit2))
	listed := own(t, tiered(filepath.Join(dir, "listed")))
	adopt(t, listed, filepath.Join(dir, "local"), store.Adopting{Models: []model.ID{s.m.ID}})
	rec, err := listed.Record(s.m.ID, commit1)
	if files, ok := listed.Tree(s.m.ID, commit1); err != nil || !ok || len(files) != 2 || rec.Unlisted {
		t.Errorf("%+v, %+v, %v", files, rec, err)
	}
}

func TestAFolderIsNoCommitOfTheHubUnlessAllOfItIs(t *testing.T) {
	s := tiny()
	for promise, spoil := range map[string]func(t *testing.T, dir string){
		"a file was edited": func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "config.json"), "{ }")
			future(t, filepath.Join(dir, "config.json"))
		},
		"a file was added": func(t *testing.T, dir string) { put(t, filepath.Join(dir, "mine.txt"), "x") },
		"a file is of another commit": func(t *testing.T, dir string) {
			notes(t, dir, "config.json", commit2, s.m.Files[0].Digest.Hex(), time.Now().Add(time.Hour))
		},
		"a note cannot be read": func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, ".cache/huggingface/download/config.json.metadata"), "x\ny\nz\n")
		},
		"a note has an unlikely time": func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, ".cache/huggingface/download/config.json.metadata"), commit1+"\ne\nNaN\n")
		},
		"there is no note of one file": func(t *testing.T, dir string) {
			rm(t, filepath.Join(dir, ".cache/huggingface/download/config.json.metadata"))
		},
	} {
		t.Run(promise, func(t *testing.T) {
			dir := memoryDir(t)
			local := filepath.Join(dir, "local")
			localDir(t, local, s, true)
			spoil(t, local)
			w := own(t, tiered(dir))
			m := adopt(t, w, local, store.Adopting{Models: []model.ID{s.m.ID}}).Models[0]
			if m.Commit == commit1 || m.Commit == commit2 {
				t.Errorf("it is %s", m.Commit)
			}
			want := map[string][]byte{}
			for path := range s.content {
				b, err := os.ReadFile(filepath.Join(local, path))
				if err != nil {
					t.Fatal(err)
				}
				want[path] = b
			}
			if _, err := os.Stat(filepath.Join(local, "mine.txt")); err == nil {
				want["mine.txt"] = []byte("x")
			}
			shows(t, w, m, want)
		})
	}
}

// future makes a file newer than any note about it.
func future(t testing.TB, name string) {
	t.Helper()
	at := time.Now().Add(time.Hour)
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestAPlainFolderHasTheCommitThatPullingItWouldGive(t *testing.T) {
	s := tiny()
	dir := memoryDir(t)
	local := filepath.Join(dir, "local")
	localDir(t, local, s, false)
	put(t, filepath.Join(local, ".git", "HEAD"), "x")
	put(t, filepath.Join(local, ".cache", "x"), "x")
	link(t, "sub/second.safetensors", filepath.Join(local, "again.safetensors"))
	src, err := source.New(source.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	manifest, err := src.Resolve(t.Context(), model.ID{Scheme: model.Folder, Name: local}, "")
	if err != nil {
		t.Fatal(err)
	}
	w := own(t, tiered(dir))
	m := adopt(t, w, local, store.Adopting{Models: []model.ID{s.m.ID}, Revision: "mine"}).Models[0]
	if m.Commit != manifest.Commit || m.Revision != "mine" {
		t.Errorf("%+v, want commit %s", m, manifest.Commit)
	}
	want := map[string][]byte{"again.safetensors": s.content["sub/second.safetensors"]}
	for path, b := range s.content {
		want[path] = b
	}
	shows(t, w, m, want)
	if !adopt(t, w, local, store.Adopting{Models: []model.ID{s.m.ID}, Revision: "mine"}).Models[0].Existing {
		t.Error("the second time something was done")
	}
	put(t, filepath.Join(local, "config.json"), "changed")
	_, err = w.Adopt(t.Context(), local, store.Adopting{Models: []model.ID{s.m.ID}, Revision: "mine"})
	if model.ClassOf(err) != model.Usage || !strings.Contains(err.Error(), "its mine is commit "+m.Commit[:12]+" here, with other content") {
		t.Errorf("other content under the same name: %v", err)
	}
	shows(t, w, m, want)
}

func TestWhatCannotBeAdoptedIsRefusedInOneSentence(t *testing.T) {
	s := tiny()
	at := func(path string) func(dir string) string {
		return func(dir string) string { return filepath.Join(dir, path) }
	}
	for promise, c := range map[string]struct {
		prepare func(t *testing.T, dir string)
		dir     func(dir string) string
		class   model.Class
		says    string
	}{
		"a link out of the folder": {func(t *testing.T, dir string) { link(t, "/etc/passwd", dir+"/in/a") }, at("in"), model.Integrity, "/in/a: it is a link that leads out of the folder, to /etc/passwd"},
		"a link around the folder": {func(t *testing.T, dir string) { put(t, dir+"/b", "x"); link(t, "../b", dir+"/in/a") }, at("in"), model.Integrity, "leads out of the folder"},
		"a link to nowhere":        {func(t *testing.T, dir string) { link(t, "none", dir+"/in/a") }, at("in"), model.Integrity, "leads nowhere"},
		"a link to itself":         {func(t *testing.T, dir string) { link(t, "a", dir+"/in/a") }, at("in"), model.Integrity, "or to itself"},
		"a link to a folder":       {func(t *testing.T, dir string) { put(t, dir+"/in/b/c", "x"); link(t, "b", dir+"/in/a") }, at("in"), model.Integrity, "a link to a folder"},
		"a hostile name":           {func(t *testing.T, dir string) { put(t, dir+"/in/a\\b", "x") }, at("in"), model.Integrity, "backslash"},
		"a name with a line feed":  {func(t *testing.T, dir string) { put(t, dir+"/in/a\nb", "x") }, at("in"), model.Integrity, "control character"},
		"a pipe":                   {func(t *testing.T, dir string) { mkdirs(t, dir+"/in"); pipe(t, dir+"/in/a") }, at("in"), model.Integrity, "neither a file nor a folder"},
		"what git keeps of a file": {func(t *testing.T, dir string) {
			put(t, dir+"/in/a", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
		}, at("in"), model.Integrity, "git lfs pull"},
		"an empty folder":            {func(t *testing.T, dir string) { mkdirs(t, dir+"/in") }, at("in"), model.NotFound, "no files"},
		"no folder":                  {func(*testing.T, string) {}, at("none"), model.NotFound, "no such folder"},
		"a file":                     {func(t *testing.T, dir string) { put(t, dir+"/in", "x") }, at("in"), model.Usage, "not a folder"},
		"the store":                  {func(*testing.T, string) {}, at("hub"), model.Usage, "this store itself"},
		"a folder inside the store":  {func(t *testing.T, dir string) { put(t, dir+"/hub/models--a--b/x/y", "x") }, at("hub/models--a--b/x"), model.Usage, "inside this store"},
		"a link into the store":      {func(t *testing.T, dir string) { put(t, dir+"/hub/x/y", "x"); link(t, "hub/x", dir+"/in") }, at("in"), model.Usage, "inside this store"},
		"a folder around the store":  {func(*testing.T, string) {}, at(""), model.Usage, "this store lies in it"},
		"a folder of a tier":         {func(t *testing.T, dir string) { mkdirs(t, dir+"/cold") }, at("cold"), model.Usage, "this store itself"},
		"one file of two unreadable": {func(t *testing.T, dir string) { put(t, dir+"/in/ok", "x"); link(t, "/none", dir+"/in/bad") }, at("in"), model.Integrity, "/in/bad: "},
	} {
		t.Run(promise, func(t *testing.T) {
			dir := memoryDir(t)
			w := own(t, tiered(dir))
			c.prepare(t, dir)
			done, err := w.Adopt(t.Context(), c.dir(dir), store.Adopting{Models: []model.ID{s.m.ID}})
			if model.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) || strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("%v (%v)", err, model.ClassOf(err))
			}
			if found, _ := filepath.Glob(filepath.Join(dir, "hub", s.m.ID.DirName(), "*", "*")); len(found) > 0 || len(done.Models) > 0 {
				t.Errorf("half-adopted: %v, %+v", found, done)
			}
		})
	}
	w := own(t, tiered(memoryDir(t)))
	from := memoryDir(t)
	put(t, filepath.Join(from, "a"), "x")
	if _, err := w.Adopt(t.Context(), from, store.Adopting{}); model.ClassOf(err) != model.Usage || !strings.Contains(err.Error(), "ema store adopt DIR org/name") {
		t.Errorf("without a name: %v", err)
	}
}

func pipe(t testing.TB, name string) {
	t.Helper()
	if err := syscall.Mkfifo(name, 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestInACacheADamagedRevisionDoesNotKeepTheOthers(t *testing.T) {
	dir := memoryDir(t)
	from := filepath.Join(dir, "theirs")
	s := cached(t, from)
	other := filepath.Join(from, "models--acme--other")
	bad := model.SumSHA256([]byte("what it should be")).Hex()
	put(t, filepath.Join(other, "blobs", bad), "what it is, alas.")
	link(t, "../../blobs/"+bad, filepath.Join(other, "snapshots", commit1, "a"))
	link(t, "../../blobs/"+strings.Repeat("f", 64), filepath.Join(other, "snapshots", commit2, "a"))
	link(t, "/etc/passwd", filepath.Join(other, "snapshots", strings.Repeat("3", 40), "a"))
	mkdirs(t, filepath.Join(from, "models--a--b--c", "snapshots"))
	link(t, other, filepath.Join(from, "models--acme--elsewhere"))
	w := own(t, tiered(dir))
	done := adopt(t, w, from, store.Adopting{})
	if len(done.Models) != 2 || len(done.Refused) != 5 {
		t.Fatalf("%+v", done)
	}
	for _, err := range done.Refused {
		if model.ClassOf(err) != model.Integrity {
			t.Errorf("%v", err)
		}
	}
	shows(t, w, done.Models[0], s.content)
	if _, err := os.Stat(filepath.Join(w.Path(), "models--acme--other", "snapshots")); err == nil {
		t.Error("something of the damaged model is visible")
	}
	done, err := w.Adopt(t.Context(), from, store.Adopting{Models: []model.ID{{Name: "acme/unknown"}, s.m.ID}})
	if err != nil || len(done.Refused) != 1 || model.ClassOf(done.Refused[0]) != model.NotFound || len(done.Models) != 2 {
		t.Errorf("%+v, %v", done, err)
	}
}

func TestACommitHasOneContent(t *testing.T) {
	s := tiny()
	for promise, spoil := range map[string]func(b map[string][]byte){
		"of another size":          func(b map[string][]byte) { b["config.json"] = []byte("{}") },
		"of another hash":          func(b map[string][]byte) { b["config.json"] = []byte("[]\n") },
		"of another hash, a large": func(b map[string][]byte) { b["model.safetensors"] = content(99, len(b["model.safetensors"])) },
	} {
		t.Run(promise, func(t *testing.T) {
			dir := memoryDir(t)
			w := pulled(t, tiered(dir), s)
			other := tiny()
			spoil(other.content)
			for i, f := range other.m.Files {
				b := other.content[f.Path]
				if f.Digest.Algo() == model.SHA256 {
					other.m.Files[i] = lfs(f.Path, b)
				} else {
					other.m.Files[i] = plain(f.Path, b)
				}
			}
			localDir(t, filepath.Join(dir, "local"), other, true)
			_, err := w.Adopt(t.Context(), filepath.Join(dir, "local"), store.Adopting{Models: []model.ID{s.m.ID}})
			if model.ClassOf(err) != model.Integrity || !strings.Contains(err.Error(), "is here already, and has other content under this name") {
				t.Errorf("%v", err)
			}
			lies(t, w.Store, s, model.Hot)
		})
	}
	// The name of another commit keeps its meaning, and what is adopted is found by its commit.
	dir := memoryDir(t)
	from := filepath.Join(dir, "theirs")
	there := cached(t, from)
	newer := sampleOf("acme/foreign", strings.Repeat("9", 40), "config.json", []byte("newer"))
	w := pulled(t, tiered(dir), newer)
	m := adopt(t, w, from, store.Adopting{}).Models[0]
	if at, _ := w.Ref(there.m.ID, "main"); at != newer.m.Commit || m.Revision != commit1 || len(m.Notes) != 1 {
		t.Errorf("main is %s, %+v", at, m)
	}
	shows(t, w, m, there.content)
}

func TestAFileThatChangesWhileItIsReadIsNotAdopted(t *testing.T) {
	s := sampleOf("acme/big", commit1, "model.safetensors", content(5, 3<<20+77))
	for promise, c := range map[string]struct {
		change func(name string) error
		copy   bool
	}{
		"a copy, written into":        {scribble, true},
		"a second name, written into": {scribble, false},
		"a copy, replaced":            {replace, true},
		"a copy, cut short":           {func(name string) error { return os.Truncate(name, 1<<20) }, true},
	} {
		t.Run(promise, func(t *testing.T) {
			dir := memoryDir(t)
			local := filepath.Join(dir, "local")
			localDir(t, local, s, false)
			w := own(t, tiered(dir))
			once := true
			_, err := w.Adopt(t.Context(), local, store.Adopting{Models: []model.ID{s.m.ID}, Copy: c.copy, Progress: func(int64) {
				if once {
					once = false
					if err := c.change(filepath.Join(local, "model.safetensors")); err != nil {
						t.Error(err)
					}
				}
			}})
			if promise == "a copy, replaced" { // what was open is what was hashed
				if err != nil || !w.Available(s.m.ID, mustRef(t, w, s.m.ID), s.m.Files) {
					t.Error(err)
				}
				return
			}
			if model.ClassOf(err) != model.Integrity || !strings.Contains(err.Error(), "changes while it is read") {
				t.Errorf("%v", err)
			}
			if found := append(check(t, w.Store), store.Finding{}); len(found) != 1 {
				t.Errorf("left: %+v", found)
			}
		})
	}
}

func mustRef(t testing.TB, w *store.Writer, id model.ID) string {
	t.Helper()
	at, ok := w.Ref(id, "main")
	if !ok {
		t.Fatal("no main")
	}
	return at
}

func scribble(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("scribbled"), 2<<20)
	return errors.Join(err, f.Close())
}

func replace(name string) error {
	return errors.Join(os.WriteFile(name+".new", []byte("new"), 0o666), os.Rename(name+".new", name))
}

func TestWhoWritesIntoAnAdoptedFileIsNoticed(t *testing.T) {
	s := sampleOf("acme/big", commit1, "model.safetensors", content(5, 3<<20+77))
	dir := memoryDir(t)
	localDir(t, filepath.Join(dir, "local"), s, false)
	w := own(t, tiered(dir))
	m := adopt(t, w, filepath.Join(dir, "local"), store.Adopting{Models: []model.ID{s.m.ID}}).Models[0]
	if err := scribble(filepath.Join(dir, "local", "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	found := check(t, w.Store)
	if m.Linked == 1 && (len(found) != 1 || found[0].Kind != store.BlobChanged) || m.Linked == 0 && len(found) > 0 {
		t.Errorf("%+v; %+v", m, found)
	}
}

func TestAFileWithTooManyNamesIsCopied(t *testing.T) {
	for _, cause := range []error{syscall.EMLINK, syscall.EPERM, syscall.EXDEV} {
		s := tiny()
		dir := memoryDir(t)
		localDir(t, filepath.Join(dir, "local"), s, false)
		set := tiered(dir)
		d, err := crashdisk.New(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer removeAll(t, dir+".attic")
		set.Disk = d
		d.Fail(func(op, _ string) error {
			if op == "link" {
				return cause
			}
			return nil
		})
		w := own(t, set)
		m := adopt(t, w, filepath.Join(dir, "local"), store.Adopting{Models: []model.ID{s.m.ID}}).Models[0]
		if m.Copied != 4 || m.Linked != 0 {
			t.Errorf("%v: %+v", cause, m)
		}
		shows(t, w, m, s.content)
	}
}

func TestAnAdoptionEndsWithItsContextAndLeavesNothing(t *testing.T) {
	s := sampleOf("acme/big", commit1, "model.safetensors", content(5, 6<<20+77))
	dir := memoryDir(t)
	localDir(t, filepath.Join(dir, "local"), s, false)
	w := own(t, tiered(dir))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := w.Adopt(ctx, filepath.Join(dir, "local"), store.Adopting{Models: []model.ID{s.m.ID}, Copy: true, Progress: func(int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if found := check(t, w.Store); len(found) > 0 {
		t.Errorf("left: %+v", found)
	}
}

// A crash at any step of an adoption leaves no half-visible model, loses no content, and the next one ends it.
func TestACrashAtAnyStepOfAnAdoptionIsRepaired(t *testing.T) {
	s := tiny()
	for promise, c := range map[string]struct {
		fill func(t testing.TB, dir string) sample
		opt  store.Adopting
		step int
	}{
		"of a cache":         {func(t testing.TB, dir string) sample { return cached(t, dir) }, store.Adopting{}, 2},
		"of a cache, copied": {func(t testing.TB, dir string) sample { return cached(t, dir) }, store.Adopting{Copy: true}, 3},
		"of a folder":        {func(t testing.TB, dir string) sample { localDir(t, dir, s, true); return s }, store.Adopting{Models: []model.ID{s.m.ID}}, 2},
	} {
		t.Run(promise, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(7, uint64(len(promise))))
			root := filepath.Join(memoryDir(t), "w")
			rounds := 0
			for at, whole := 1, false; !whole; at += c.step {
				whole = crashedAdoption(t, root, c.fill, c.opt, at, rnd)
				rounds++
			}
			if rounds < 15 {
				t.Errorf("only %d rounds", rounds)
			}
		})
	}
}

func crashedAdoption(t *testing.T, root string, fill func(testing.TB, string) sample, opt store.Adopting, at int, rnd *rand.Rand) (whole bool) {
	t.Helper()
	defer removeAll(t, root, root+".attic", root+".after")
	from := filepath.Join(root, "from")
	want := fill(t, from)
	before := contentsIn(t, from)
	d, err := crashdisk.New(root)
	if err != nil {
		t.Fatal(err)
	}
	set := tiered(root)
	crashing := set
	crashing.Disk = d
	w, err := store.New(crashing).Own(t.Context(), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	d.StopAfter(at)
	_, failed := w.Adopt(t.Context(), from, opt)
	if failed != nil && !errors.Is(failed, crashdisk.ErrStopped) {
		t.Fatal(failed)
	}
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
	st := store.New(set)
	if err := halfVisible(st, want); err != nil {
		t.Fatalf("after %d operations: %v", at, err)
	}
	now := contentsIn(t, root)
	for b, n := range before {
		if now[b] < n {
			t.Fatalf("after %d operations: %.20q is lost", at, b)
		}
	}
	w = own2(t, set)
	defer w.Close()
	if _, err := w.Adopt(t.Context(), from, opt); err != nil {
		t.Fatalf("after %d operations: %v", at, err)
	}
	m, err := st.Model(want.m.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Revisions {
		if r.State != store.Available || len(r.Refs) == 0 {
			t.Fatalf("after %d operations and again: %+v", at, r)
		}
	}
	commit := mustRef(t, w, want.m.ID)
	if err := checkSnapshot(st.Snapshot(want.m.ID, commit), want); err != nil {
		t.Fatalf("after %d operations and again: %v", at, err)
	}
	for _, f := range check(t, st) {
		if !f.Harmless {
			t.Fatalf("after %d operations and again: %+v", at, f)
		}
	}
	return failed == nil
}

// halfVisible fails if a snapshot or a ref shows less than all of a sample, or something else.
func halfVisible(st *store.Store, want sample) error {
	m, err := st.Model(want.m.ID)
	if err != nil {
		return nil //nolint:nilerr // nothing is there, so nothing lies
	}
	for _, r := range m.Revisions {
		if r.Commit == commit2 { // the other one of a cache, of which a file is missing by the list of all
			continue
		}
		if r.State == store.Damaged || r.State == store.Incomplete {
			return fmt.Errorf("%+v", r)
		}
		if err := checkSnapshot(st.Snapshot(want.m.ID, r.Commit), want); err != nil {
			return err
		}
	}
	return nil
}
