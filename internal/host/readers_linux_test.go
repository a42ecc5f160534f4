package host

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatOthersReadIsToldFromWhatThisProcessReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	r, err := NewReaders(filepath.Dir(path))
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("the temporary folder has no disk of its own: %v", err) // in memory, or on a network
	}
	text := make([]byte, 32<<20)
	for i := range text {
		text[i] = byte(i * i >> 8)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	forget := func() {
		t.Helper()
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
	}
	read := func(by func()) float64 { // bytes that others have read meanwhile
		t.Helper()
		forget()
		if _, err := r.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		begun := r.at
		by()
		rate, err := r.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return rate * r.at.Sub(begun).Seconds()
	}
	byAnother := func() {
		// What a child has read counts as its parent's once that has waited for it.
		cat := exec.CommandContext(t.Context(), "cat", path)
		out, err := cat.StdoutPipe()
		if err == nil {
			err = cat.Start()
		}
		if err == nil {
			_, err = io.CopyN(io.Discard, out, int64(len(text)))
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cat.Wait() })
	}
	bySelf := func() {
		if _, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	// Other programs of this machine read too, so the second figure is only told from the whole, in a moment when they read little.
	var others, ours float64
	for range 20 {
		others, ours = read(byAnother), read(bySelf)
		if others >= float64(len(text)) && ours < float64(len(text))/2 {
			return
		}
	}
	t.Errorf("another program read 32 MiB: %.0f bytes; this one did: %.0f bytes of others", others, ours)
}
