package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"ema/internal/demohub"
	"ema/internal/model"
)

// flip changes one byte of a file and none of its times, as failing memory and disks do.
func flip(t testing.TB, name string, at int64) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	b[0] ^= 1
	_, writeErr := f.WriteAt(b, at)
	if err := errors.Join(err, writeErr, f.Close(), os.Chtimes(name, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func TestOneWrongByteIsFoundAndCostsOneBlock(t *testing.T) {
	entries := []demohub.Entry{demohub.File("large.bin", 8*model.MiB), demohub.File("small.bin", 100)}
	w := newWorld(t, demohub.Repo("acme/model", parts(entries)...))
	path := w.pull(t, "acme/model")
	flip(t, filepath.Join(path, "large.bin"), 6<<20+42)
	w.hub.ResetStats()
	w.run(t, 4, "verify", "acme/model")
	w.run(t, 0, "repair", "acme/model")
	holds(t, path, entries)
	if sent := w.hub.Stats().Body; sent != int64(model.MiB) {
		t.Errorf("%d bytes were sent for one block", sent)
	}
	w.run(t, 0, "verify", "acme/model")
}
