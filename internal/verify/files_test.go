package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"testing"

	"ema/internal/model"
)

// A shelf hands out blobs and counts how many are open.
type shelf struct{ open, most atomic.Int64 }

type onShelf struct {
	io.ReaderAt
	s *shelf
}

func (o onShelf) Close() error { o.s.open.Add(-1); return nil }

func (s *shelf) item(path string, data []byte) Item {
	return Item{
		Model: model.ID{Name: "acme/tiny"}, Path: path, Digest: model.SumSHA256(data), Size: int64(len(data)),
		Open: func() (Reader, error) {
			n := s.open.Add(1)
			for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
			}
			return onShelf{bytes.NewReader(data), s}, nil
		},
	}
}

func TestFilesVerifiesAllAndTellsOfEach(t *testing.T) {
	for _, parallel := range []int{0, 1, 3, 100} {
		t.Run(fmt.Sprintf("parallel=%d", parallel), func(t *testing.T) {
			var s shelf
			var items []Item
			for i := range 40 {
				items = append(items, s.item(fmt.Sprint(i), noise(1000*i)))
			}
			items[7].Digest = model.SumSHA256([]byte("something else"))
			items[8].Open = func() (Reader, error) { return nil, fmt.Errorf("open 8: %w", fs.ErrNotExist) }
			items[9].Open = func() (Reader, error) { return nil, errors.New("too many open files") }
			items[10].Open = func() (Reader, error) {
				s.open.Add(1)
				return onShelf{failing{bytes.NewReader(nil), 5}, &s}, nil
			}
			told := map[string]string{} // each is never called twice at a time, so no lock
			err := Files(t.Context(), items, Workers{Parallel: parallel}, func(it Item, res Result, err error) {
				if _, twice := told[it.Path]; twice {
					t.Errorf("%s was told twice", it.Path)
				}
				told[it.Path] = fmt.Sprint(res.OK, " ", model.ClassOf(err))
				if e, ok := errors.AsType[*model.Error](err); err != nil && (!ok || e.Model != it.Model || e.File != it.Path) {
					t.Errorf("%v does not name model and file", err)
				}
			})
			if err != nil || len(told) != len(items) {
				t.Fatalf("told of %d files: %v", len(told), err)
			}
			for path, got := range told {
				want := map[string]string{"7": "false other", "8": "false not_found", "9": "false disk_error", "10": "false disk_error"}[path]
				if want == "" {
					want = "true other"
				}
				if got != want {
					t.Errorf("%s: %s, want %s", path, got, want)
				}
			}
			if parallel > 0 && s.most.Load() > int64(parallel) || s.open.Load() != 0 {
				t.Errorf("%d files were open at once and %d still are", s.most.Load(), s.open.Load())
			}
		})
	}
}

func TestFilesStopsWhenCancelled(t *testing.T) {
	var s shelf
	var items []Item
	for i := range 50 {
		items = append(items, s.item(fmt.Sprint(i), noise(100_000)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	told := 0
	err := Files(ctx, items, Workers{Parallel: 2}, func(_ Item, _ Result, err error) {
		if told++; told == 3 {
			cancel()
		}
		if errors.Is(err, context.Canceled) {
			t.Error("told of a file that cancelling cut short")
		}
	})
	if !errors.Is(err, context.Canceled) || told > 6 || s.open.Load() != 0 {
		t.Errorf("told of %d files, %d still open: %v", told, s.open.Load(), err)
	}
	items[0].Open = func() (Reader, error) { t.Error("opened after cancelling"); return nil, fs.ErrClosed }
	if err := Files(ctx, items[:1], Workers{Parallel: 1}, func(Item, Result, error) { t.Error("told after cancelling") }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestFilesOfNothingIsDone(t *testing.T) {
	if err := Files(t.Context(), nil, Workers{Parallel: 4}, nil); err != nil {
		t.Error(err)
	}
}
