//go:build linux

package host

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"ema/internal/model"
)

// uncached opens a file as a scrub does, past the page cache or through it.
func uncached(t *testing.T, name string, direct bool, pace func(int) error) *Uncached {
	t.Helper()
	u, err := OpenUncached(name, pace)
	if err == nil && !direct && u.direct {
		err = u.buffered()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

func TestUncachedReadsWhatIsThere(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 4095, 4096, 1 << 20, 1<<20 + 1, 3<<20 + 777} {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(rnd.Uint32())
		}
		name := filepath.Join(t.TempDir(), "blob")
		if err := os.WriteFile(name, want, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, direct := range []bool{true, false} {
			u := uncached(t, name, direct, nil)
			got, err := io.ReadAll(io.NewSectionReader(u, 0, int64(size)+10))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, direct %v: %d bytes, %v", size, direct, len(got), err)
			}
			for range 20 {
				off := rnd.IntN(size + 1)
				b := make([]byte, rnd.IntN(2<<20))
				n, err := u.ReadAt(b, int64(off))
				if rest := want[off:]; !bytes.Equal(b[:n], rest[:min(len(b), len(rest))]) || (err != nil) != (len(b) > len(rest)) {
					t.Fatalf("%d bytes at %d of %d, direct %v: %d, %v", len(b), off, size, direct, n, err)
				}
			}
		}
	}
}

func TestUncachedLeavesMemoryAsItWas(t *testing.T) {
	const size = 24 * model.MiB
	for _, direct := range []bool{true, false} {
		name := onDisk(t, size)
		keep, err := os.Open(name) // somebody has used the first part
		if err != nil {
			t.Fatal(err)
		}
		defer keep.Close()
		if err := (PageCache{}).Populate(t.Context(), name, 0, int64(8*model.MiB), false, func(int64) error { return nil }); err != nil {
			t.Fatal(err)
		}
		before, _, err := PageCache{}.Resident(name, 0, int64(size))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, io.NewSectionReader(uncached(t, name, direct, nil), 0, int64(size))); err != nil || n != int64(size) {
			t.Fatal(n, err)
		}
		after, _, err := PageCache{}.Resident(name, 0, int64(size))
		if err != nil || after < before || after > before+int64(2*model.MiB) {
			t.Errorf("direct %v: %v were in memory, then %v: %v", direct, model.Bytes(before), model.Bytes(after), err)
		}
	}
}

func TestUncachedWaitsForItsPace(t *testing.T) {
	t.Parallel()
	name, told := onDisk(t, 3*model.MiB+5), 0
	u := uncached(t, name, true, func(n int) error { told += n; return nil })
	if _, err := io.Copy(io.Discard, io.NewSectionReader(u, 0, int64(3*model.MiB+5))); err != nil || told != int(3*model.MiB+5) {
		t.Errorf("told of %d bytes: %v", told, err)
	}
	stop := errors.New("stop")
	u = uncached(t, name, true, func(int) error { return stop })
	if _, err := u.ReadAt(make([]byte, 10), 0); !errors.Is(err, stop) {
		t.Errorf("error = %v", err)
	}
}
