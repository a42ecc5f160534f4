package pipeline

import (
	"path/filepath"
	"testing"

	"ema/internal/model"
	"ema/internal/store"
)

// What one download will still take is not promised to the next; what the disk has already, or nobody
// takes any more, is. The figures leave room for what else writes to this disk during the test.
func TestSpaceIsPromisedOnce(t *testing.T) {
	s := store.New(store.Settings{Path: filepath.Join(t.TempDir(), "hub")})
	free, err := s.Free()
	if err != nil {
		t.Fatal(err)
	}
	l := &Line{Store: s, MinFree: free - 100*model.GiB}
	id := model.ID{Name: "acme/model"}
	files := func(sizes ...model.Bytes) (all []model.File) {
		for i, n := range sizes {
			all = append(all, model.File{Path: string(rune('a' + i)), Size: int64(n), Digest: model.SumGitBlob([]byte{byte(i)})})
		}
		return all
	}
	first, err := l.reserve(t.Context(), id, "main", files(30*model.GiB, 30*model.GiB))
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.reserve(t.Context(), id, "main", files(60*model.GiB))
	if e, ok := err.(*model.Error); !ok || e.Class != model.DiskFull || e.Short < 10*model.GiB || e.Short > 30*model.GiB {
		t.Fatalf("60 GiB beside 60 of 100: %v, want that about 20 GiB are short", err)
	}
	first.taken("a") // now it is the volume's figures that tell
	first.taken("a")
	if got := l.Reserved(); got != 30*model.GiB {
		t.Fatalf("%v are reserved after one of two files was taken, want 30 GiB", got)
	}
	second, err := l.reserve(t.Context(), id, "main", files(60*model.GiB))
	if err != nil {
		t.Fatal(err)
	}
	first.end()
	second.end()
	second.taken("a")
	if got := l.Reserved(); got != 0 {
		t.Fatalf("%v are reserved by nobody", got)
	}
}
