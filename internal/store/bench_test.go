package store_test

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"

	"ema/internal/model"
	"ema/internal/store"
)

// BenchmarkOpenPartial opens what a killed run left of half a file.
func BenchmarkOpenPartial(b *testing.B) {
	for _, size := range []int64{4 << 30, 64 << 30} {
		b.Run(fmt.Sprintf("size=%dGiB", size>>30), func(b *testing.B) {
			w := own(b, store.Settings{Path: filepath.Join(b.TempDir(), "hub"), Disk: sparse{}})
			id, f := model.ID{Name: "acme/big"}, model.File{Path: "w", Size: size, Digest: model.SumSHA256(nil)}
			p, err := w.Partial(context.Background(), id, f, "")
			if err != nil {
				b.Fatal(err)
			}
			tail := make([]byte, store.BlockSize)
			for i := range size / store.BlockSize / 2 {
				if err := p.WriteAt(tail[:1], i*store.BlockSize, crcOf(tail[:1])); err != nil {
					b.Fatal(err)
				}
			}
			if err := p.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				p, err := w.Partial(context.Background(), id, f, "")
				if err != nil || p.Written(0) != 1 {
					b.Fatal(err)
				}
				if err := p.Close(); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// sparse makes files long without reserving space, so that a benchmark may open huge ones.
type sparse struct{ unsynced }

type sparseFile struct{ store.File }

func (f sparseFile) Preallocate(size int64) error { return f.Truncate(size) }

func (s sparse) OpenFile(name string, flag int, perm fs.FileMode) (store.File, error) {
	f, err := s.unsynced.OpenFile(name, flag, perm)
	return sparseFile{f}, err
}

// BenchmarkWrite writes one file as a downloader does, up to its durable end.
func BenchmarkWrite(b *testing.B) {
	const size = 256 << 20
	piece := make([]byte, 256<<10)
	for _, mode := range []struct {
		name string
		set  store.Settings
	}{{"power", store.Settings{}}, {"process", store.Settings{Process: true}}} {
		b.Run("durability="+mode.name, func(b *testing.B) {
			set := mode.set
			set.Path = filepath.Join(b.TempDir(), "hub")
			w := own(b, set)
			id, f := model.ID{Name: "acme/w"}, model.File{Path: "w", Size: size, Digest: model.SumSHA256([]byte("w"))}
			b.SetBytes(size)
			for b.Loop() {
				p, err := w.Partial(context.Background(), id, f, "")
				if err != nil {
					b.Fatal(err)
				}
				for off := int64(0); off < size; off += int64(len(piece)) {
					if err := p.WriteAt(piece, off, crcOf(piece)); err != nil {
						b.Fatal(err)
					}
					if p.Unsynced() >= 64<<20 {
						if err := p.Sync(nil, 0); err != nil {
							b.Fatal(err)
						}
					}
				}
				st, err := p.Stage(f.Digest)
				if err == nil {
					err = w.Publish(context.Background(), []*store.Staged{st})
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPublish publishes small files in one batch.
func BenchmarkPublish(b *testing.B) {
	for _, files := range []int{1, 8, 16, 32, 64, 1000} {
		b.Run(fmt.Sprintf("files=%d", files), func(b *testing.B) {
			w := own(b, store.Settings{Path: filepath.Join(b.TempDir(), "hub")})
			n := 0
			for b.Loop() {
				var staged []*store.Staged
				for range files {
					n++
					content := []byte(fmt.Sprint(n))
					d := model.SumSHA256(content)
					st, err := w.StageSmall(model.ID{Name: "acme/many"}, model.File{Path: "x", Size: int64(len(content)), Digest: d}, content, d)
					if err != nil {
						b.Fatal(err)
					}
					staged = append(staged, st)
				}
				if err := w.Publish(context.Background(), staged); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
