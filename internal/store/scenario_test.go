package store_test

import (
	"bytes"
	"context"
	"encoding"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ema/internal/model"
	"ema/internal/store"
)

// sample is a made-up model with the content of its files.
type sample struct {
	m       *model.Manifest
	content map[string][]byte
}

const (
	bootA = "11111111-0000-0000-0000-000000000001"
	bootB = "22222222-0000-0000-0000-000000000002"
)

func content(seed uint64, size int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(1 + rnd.IntN(255)) // never zero: a hole must not look right
	}
	return b
}

// lfs and plain describe a file as a hub does.
func lfs(path string, b []byte) model.File {
	pointer := model.SumGitBlob([]byte("pointer to " + path)).Hex()
	return model.File{Path: path, Size: int64(len(b)), Digest: model.SumSHA256(b), PointerID: pointer}
}

func plain(path string, b []byte) model.File {
	return model.File{Path: path, Size: int64(len(b)), Digest: model.SumGitBlob(b)}
}

func sampleOf(id, commit string, files ...any) sample {
	s := sample{
		m:       &model.Manifest{ID: model.ID{Name: id}, Revision: "main", Commit: commit},
		content: map[string][]byte{},
	}
	for i := 0; i < len(files); i += 2 {
		path, b := files[i].(string), files[i+1].([]byte)
		f := plain(path, b)
		if filepath.Ext(path) == ".safetensors" {
			f = lfs(path, b)
		}
		s.m.Files = append(s.m.Files, f)
		s.content[path] = b
	}
	return s
}

var (
	commit1 = "1111111111111111111111111111111111111111"
	commit2 = "2222222222222222222222222222222222222222"
)

func tiny() sample {
	return sampleOf("acme/tiny", commit1,
		"config.json", []byte("{}\n"),
		"empty.txt", []byte{},
		"model.safetensors", content(1, 1<<20+400_567),
		"sub/same.json", []byte("{}\n"),
		"sub/second.safetensors", content(2, 1<<20+1),
	)
}

// pull brings a sample into a store as a downloader does: it goes on where an earlier run ended,
// and checks the hash from the last checkpoint on. progress hears of every Sync that succeeded.
func pull(ctx context.Context, w *store.Writer, s sample, progress func(path string, p *store.Partial)) (string, error) {
	var staged []*store.Staged
	defer func() {
		for _, st := range staged {
			_ = st.Close()
		}
	}()
	seen := map[model.Digest]bool{}
	for _, f := range s.m.Files {
		b, err := w.Blob(s.m.ID, f.Digest)
		if seen[f.Digest] || err == nil && b.Proof == store.Proven && b.Size == f.Size {
			continue
		}
		seen[f.Digest] = true
		st, err := fetch(ctx, w, s, f, progress)
		if err != nil {
			return "", err
		}
		staged = append(staged, st)
	}
	if err := w.Publish(ctx, staged); err != nil {
		return "", err
	}
	return w.Commit(ctx, s.m, s.m.Files, store.Record{Source: "a test", CompletedAt: time.Unix(1e9, 0)})
}

func fetch(ctx context.Context, w *store.Writer, s sample, f model.File, progress func(string, *store.Partial)) (*store.Staged, error) {
	whole := s.content[f.Path]
	if f.Size <= store.BlockSize {
		if left, ok := w.Leftover(s.m.ID, f); ok {
			whole = left
		}
		return w.StageSmall(s.m.ID, f, whole, f.Digest)
	}
	p, err := w.Partial(ctx, s.m.ID, f, "")
	if err != nil {
		return nil, err
	}
	defer p.Close()
	h := f.Digest.NewHash(f.Size)
	state, hashed := p.Checkpoint()
	if state != nil {
		if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
			return nil, err
		}
	}
	advance := func() error {
		b := make([]byte, p.Written(hashed)-hashed)
		if _, err := p.ReadAt(b, hashed); err != nil {
			return err
		}
		h.Write(b)
		hashed += int64(len(b))
		state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err == nil {
			err = p.Sync(state, hashed)
		}
		if err == nil && progress != nil {
			progress(f.Path, p)
		}
		return err
	}
	const piece = 150_000
	for _, seg := range p.Missing() {
		for off := seg.Start; off < seg.End; {
			n := min(piece, seg.End-off, store.BlockSize-off%store.BlockSize)
			if err := p.WriteAt(whole[off:off+n], off, crcOf(whole[off:off+n])); err != nil {
				return nil, err
			}
			off += n
			if p.Unsynced() > 600_000 {
				if err := advance(); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := advance(); err != nil {
		return nil, err
	}
	return p.Stage(f.Digest.Sum(h))
}

// checkTruth fails if anything visible in a store is not what it says.
func checkTruth(s *store.Store, want sample) error {
	blobs := filepath.Join(s.Path(), want.m.ID.DirName(), "blobs")
	entries, _ := os.ReadDir(blobs)
	for _, e := range entries {
		d, err := model.ParseDigest(e.Name())
		if err != nil {
			continue // an incomplete file promises nothing
		}
		f, err := os.Open(filepath.Join(blobs, e.Name()))
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		h := d.NewHash(info.Size())
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		if d.Sum(h) != d {
			return fmt.Errorf("blob %s has other content (%d bytes)", e.Name(), info.Size())
		}
	}
	snapshots, _ := os.ReadDir(filepath.Dir(s.Snapshot(want.m.ID, "x")))
	for _, e := range snapshots {
		if err := checkSnapshot(s.Snapshot(want.m.ID, e.Name()), want); err != nil {
			return err
		}
	}
	refs, err := s.Refs(want.m.ID)
	if err != nil {
		return err
	}
	for name, commit := range refs {
		if commit != want.m.Commit {
			return fmt.Errorf("ref %s is %q", name, commit)
		}
		if err := checkSnapshot(s.Snapshot(want.m.ID, commit), want); err != nil {
			return fmt.Errorf("ref %s: %w", name, err)
		}
	}
	m, err := s.Model(want.m.ID)
	if err != nil {
		return nil //nolint:nilerr // nothing is there, so nothing lies
	}
	for _, r := range m.Revisions {
		if r.State == store.Damaged {
			return fmt.Errorf("a crash made %+v look damaged", r.Files)
		}
	}
	return nil
}

func checkSnapshot(dir string, want sample) error {
	for path, b := range want.content {
		if err := sameFile(filepath.Join(dir, path), b); err != nil {
			return err
		}
	}
	return nil
}

// sameFile fails if a file has not this content.
func sameFile(name string, b []byte) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if n > len(b) || !bytes.Equal(buf[:n], b[:n]) {
			return fmt.Errorf("%s has other content", name)
		}
		b = b[n:]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if len(b) > 0 {
		return fmt.Errorf("%s is %d bytes short", name, len(b))
	}
	return nil
}

// own opens a store for writing, and closes it with the test.
func own(t testing.TB, set store.Settings) *store.Writer {
	t.Helper()
	w, err := store.New(set).Own(t.Context(), t.Name(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func pulled(t testing.TB, set store.Settings, samples ...sample) *store.Writer {
	t.Helper()
	w := own(t, set)
	for _, s := range samples {
		if _, err := pull(t.Context(), w, s, nil); err != nil {
			t.Fatal(err)
		}
	}
	return w
}
