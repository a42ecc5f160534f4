package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ema/internal/model"
)

func folderID(dir string) model.ID { return model.ID{Scheme: model.Folder, Name: dir} }

func put(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func offlineSources(t *testing.T) *Sources {
	t.Helper()
	s, err := New(Settings{Offline: true}) // folders need no network
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestFolderServesItsFiles(t *testing.T) {
	dir, s := t.TempDir(), offlineSources(t)
	files := map[string][]byte{"config.json": []byte("{}\n"), "sub/weights.bin": noise(3_000_000), "empty": {}, ".gitattributes": []byte("x")}
	for p, b := range files {
		put(t, dir, p, b)
	}
	put(t, dir, ".git/config", []byte("no"))
	put(t, dir, "sub/.cache/huggingface/x", []byte("no"))
	if err := os.Symlink("sub/weights.bin", filepath.Join(dir, "link.bin")); err != nil {
		t.Fatal(err)
	}
	files["link.bin"] = files["sub/weights.bin"]
	m := resolved(t, s, folderID(dir), "")
	if len(m.Files) != len(files) || !model.IsCommit(m.Commit) || m.Revision != "main" {
		t.Fatalf("manifest = %+v", m)
	}
	for p, content := range files {
		f := fileOf(t, m, p)
		if f.Size != int64(len(content)) || f.Digest != model.SumSHA256(content) {
			t.Errorf("%s = %+v", p, f)
		}
		got, err := readSegment(t, s, m, p, model.Segment{End: f.Size})
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", p, len(got), err)
		}
	}
	seg := model.Segment{Start: 123, End: 2_345_678}
	got, err := readSegment(t, s, m, "sub/weights.bin", seg)
	if err != nil || !bytes.Equal(got, files["link.bin"][seg.Start:seg.End]) {
		t.Errorf("segment: %d bytes, %v", len(got), err)
	}

	t.Run("with a commit that follows the content alone", func(t *testing.T) {
		copied := t.TempDir()
		for p, b := range files {
			put(t, copied, p, b)
		}
		if c := resolved(t, s, folderID(copied), ""); c.Commit != m.Commit {
			t.Errorf("a copy has the commit %s, the original %s", c.Commit, m.Commit)
		}
		put(t, copied, "config.json", []byte("[]\n"))
		if c := resolved(t, s, folderID(copied), "main"); c.Commit == m.Commit {
			t.Error("a changed file does not change the commit")
		}
		_, err := s.Resolve(t.Context(), folderID(copied), m.Commit)
		classIs(t, err, model.NotFound)
	})
	t.Run("after a restart, too", func(t *testing.T) {
		got, err := readSegment(t, offlineSources(t), m, "config.json", model.Segment{Start: 1, End: 3})
		if err != nil || string(got) != "}\n" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestFolderNoticesChanges(t *testing.T) {
	for promise, change := range map[string]func(t *testing.T, p string){
		"of the size":    func(t *testing.T, p string) { put(t, filepath.Dir(p), "a.bin", noise(99)) },
		"of the content": func(t *testing.T, p string) { touch(t, p) },
	} {
		t.Run(promise, func(t *testing.T) {
			dir, s := t.TempDir(), offlineSources(t)
			p := filepath.Join(dir, "a.bin")
			put(t, dir, "a.bin", noise(100))
			m := resolved(t, s, folderID(dir), "")
			during, err := s.Open(t.Context(), m, m.Files[0], model.Segment{Start: 0, End: 100})
			if err != nil {
				t.Fatal(err)
			}
			defer during.Close()
			if _, err := io.ReadFull(during, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			change(t, p)
			_, err = io.ReadAll(during)
			classIs(t, err, model.Integrity)
			_, err = s.Open(t.Context(), m, m.Files[0], model.Segment{Start: 0, End: 100})
			classIs(t, err, model.Integrity)
			mentions(t, err, "a.bin", "changed")
		})
	}
	t.Run("by deletion", func(t *testing.T) {
		dir, s := t.TempDir(), offlineSources(t)
		put(t, dir, "a.bin", noise(100))
		m := resolved(t, s, folderID(dir), "")
		if err := os.Remove(filepath.Join(dir, "a.bin")); err != nil {
			t.Fatal(err)
		}
		_, err := s.Open(t.Context(), m, m.Files[0], model.Segment{End: 1})
		classIs(t, err, model.NotFound)
		if !errors.Is(err, ErrEntryNotFound) {
			t.Error(err)
		}
	})
}

// touch gives a file another time, as writing the same number of other bytes would.
func touch(t *testing.T, p string) {
	t.Helper()
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(p, then, then); err != nil {
		t.Fatal(err)
	}
}

func TestFolderRefuses(t *testing.T) {
	secret := t.TempDir()
	put(t, secret, "secret", []byte("s3cret"))
	for promise, c := range map[string]struct {
		make  func(t *testing.T, dir string)
		class model.Class
		says  string
	}{
		"a link out of it":              {func(t *testing.T, dir string) { link(t, "../"+filepath.Base(secret)+"/secret", dir, "x") }, model.Usage, "x: the link leads out"},
		"an absolute link out of it":    {func(t *testing.T, dir string) { link(t, filepath.Join(secret, "secret"), dir, "x") }, model.Usage, "x: the link leads out"},
		"a link to nowhere":             {func(t *testing.T, dir string) { link(t, "nothing", dir, "x") }, model.Usage, "nowhere"},
		"a link to a folder":            {func(t *testing.T, dir string) { put(t, dir, "d/f", nil); link(t, "d", dir, "x") }, model.Usage, "link to a folder"},
		"links in a circle":             {func(t *testing.T, dir string) { link(t, "y", dir, "x"); link(t, "x", dir, "y") }, model.Usage, "link"},
		"a name that is no path of one": {func(t *testing.T, dir string) { put(t, dir, `a\b`, nil) }, model.Integrity, "unsafe"},
		"a folder that is not there":    {func(t *testing.T, dir string) { _ = os.Remove(dir) }, model.NotFound, "no such model"},
		"a file instead of a folder":    {func(t *testing.T, dir string) { _ = os.Remove(dir); put(t, filepath.Dir(dir), filepath.Base(dir), nil) }, model.DiskError, "not a directory"},
	} {
		t.Run(promise, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "m")
			if err := os.Mkdir(dir, 0o750); err != nil {
				t.Fatal(err)
			}
			c.make(t, dir)
			_, err := offlineSources(t).Resolve(t.Context(), folderID(dir), "")
			classIs(t, err, c.class)
			mentions(t, err, c.says)
		})
	}
	t.Run("to follow a link that appears later", func(t *testing.T) {
		dir, s := t.TempDir(), offlineSources(t)
		put(t, dir, "a", []byte("s3cret"))
		m := resolved(t, s, folderID(dir), "")
		if err := os.Remove(filepath.Join(dir, "a")); err != nil {
			t.Fatal(err)
		}
		link(t, filepath.Join(secret, "secret"), dir, "a")
		_, err := s.Open(t.Context(), m, m.Files[0], model.Segment{End: 6})
		classIs(t, err, model.DiskError)
	})
	t.Run("to go on when it is cancelled", func(t *testing.T) {
		dir, s := t.TempDir(), offlineSources(t)
		put(t, dir, "a", noise(100))
		m := resolved(t, s, folderID(dir), "")
		ctx, cancel := context.WithCancel(t.Context())
		b, err := s.Open(ctx, m, m.Files[0], model.Segment{End: 100})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		cancel()
		_, err = b.Read(make([]byte, 5))
		classIs(t, err, model.Cancelled)
		_, err = s.Resolve(ctx, folderID(dir), "")
		classIs(t, err, model.Cancelled)
	})
}

func link(t *testing.T, target, dir, name string) {
	t.Helper()
	if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}
