package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ema/internal/model"
	"ema/internal/store"
)

// ownElsewhere owns the store in a real second process until the returned function kills it.
func ownElsewhere(t *testing.T, path string) (pid int, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownInChild+"="+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = stdin.Close()
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "owned\n" {
		t.Fatalf("the child said %q (%v)", line, err)
	}
	return cmd.Process.Pid, kill
}

func TestABusyStoreNamesItsOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub")
	pid, _ := ownElsewhere(t, path)
	_, err := store.New(store.Settings{Path: path}).Own(t.Context(), "second", nil)
	if model.ClassOf(err) != model.Busy {
		t.Fatalf("Own = %v, want Class Busy", err)
	}
	for _, want := range []string{fmt.Sprint(pid), "child of a test", "since 20", path} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
}

func TestAKilledOwnerBlocksNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub")
	pid, kill := ownElsewhere(t, path)
	told := make(chan store.Owner, 2)
	done := make(chan error, 1)
	go func() {
		w, err := store.New(store.Settings{Path: path}).Own(t.Context(), "waits", func(o store.Owner) { told <- o })
		if err == nil {
			err = w.Close()
		}
		done <- err
	}()
	if o := <-told; o.PID != pid || o.Command != "child of a test" || o.Host == "" || o.Since.IsZero() {
		t.Errorf("told of %+v, want process %d", o, pid)
	}
	kill()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(told) > 0 {
		t.Error("told more than once")
	}
}

func TestWaitingForAStoreEndsWithTheContext(t *testing.T) {
	set := store.Settings{Path: filepath.Join(t.TempDir(), "hub")}
	own(t, set)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := store.New(set).Own(ctx, "second", func(o store.Owner) {
		if o.PID != os.Getpid() {
			t.Errorf("told of process %d, want this one", o.PID)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Own = %v, want the context's error", err)
	}
}

func TestAStoreIsMadeAsOtherToolsExpectIt(t *testing.T) {
	dir := t.TempDir()
	own(t, store.Settings{Path: filepath.Join(dir, "new", "hub")})
	tag, err := os.ReadFile(filepath.Join(dir, "new", "hub", "CACHEDIR.TAG"))
	if err != nil || !strings.HasPrefix(string(tag), "Signature: 8a477f597d28d172789f06886806bc55\n") {
		t.Fatalf("CACHEDIR.TAG = %q, %v", tag, err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "new", "hub"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".locks" && e.Name() != "CACHEDIR.TAG" {
			t.Errorf("%s would be reported by other tools' scans", e.Name())
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new", "ema", "hub")); err != nil {
		t.Error(err)
	}
}

func TestABlobThatAnotherProgramFetchesIsWaitedFor(t *testing.T) {
	set := store.Settings{Path: filepath.Join(t.TempDir(), "hub")}
	s := tiny()
	f := s.m.Files[2]
	dir := filepath.Join(set.Path, ".locks", s.m.ID.DirName())
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(dir, f.Digest.Hex()+".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	impatient := own(t, set)
	if _, err := impatient.Partial(t.Context(), s.m.ID, f, ""); model.ClassOf(err) != model.Busy {
		t.Fatalf("Partial = %v, want Class Busy", err)
	}
	if err := impatient.Close(); err != nil {
		t.Fatal(err)
	}
	patient, err := store.New(set).Own(t.Context(), "waits", func(store.Owner) { lock.Close() })
	if err != nil {
		t.Fatal(err)
	}
	defer patient.Close()
	p, err := patient.Partial(t.Context(), s.m.ID, f, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Discard(); err != nil {
		t.Fatal(err)
	}
}
