//go:build linux

package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ema/internal/model"
)

// onDisk writes a file of some size to a file system that has a page cache in front of a disk, and
// drops it from memory.
func onDisk(t testing.TB, size model.Bytes) string {
	t.Helper()
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		var err error
		if dir, err = os.MkdirTemp("/var/tmp", "ema-test-"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	name := filepath.Join(dir, "blob")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, model.MiB)
	for i := range piece {
		piece[i] = byte(i * i >> 7)
	}
	for left := size; left > 0; left -= model.MiB {
		if _, err := f.Write(piece[:min(left, model.MiB)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Sync(), f.Close(), PageCache{}.Drop(name)); err != nil {
		t.Fatal(err)
	}
	return name
}

// measured is how much of the first n bytes this package finds in memory: in all, and piece by piece.
func measured(t testing.TB, name string, n int64) int64 {
	t.Helper()
	got, all, err := PageCache{}.Resident(name, 0, n)
	if err != nil {
		t.Fatal(err)
	}
	pieces := int64(0)
	for off := int64(0); off < all; off += chunk {
		piece, of, err := PageCache{}.Resident(name, off, min(chunk, n-off))
		if err != nil || of != min(chunk, all-off) {
			t.Fatalf("%d bytes at %d, %v", of, off, err)
		}
		pieces += piece
	}
	if pieces != got {
		t.Fatalf("%d bytes are in memory, but piece by piece %d", got, pieces)
	}
	return got
}

// fincore is how much of a file util-linux finds in memory.
func fincore(t testing.TB, name string) int64 {
	t.Helper()
	path, err := exec.LookPath("fincore")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("fincore (util-linux) is not here")
	}
	out, err := exec.Command(path, "--noheadings", "--bytes", "--output", "RES", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func within(got, want, of int64) bool { return math.Abs(float64(got-want)) <= float64(of)/100 }

func noStep(int64) error { return nil }

func TestResidencyIsWhatFincoreReports(t *testing.T) {
	const size = 48*model.MiB + 12345
	name := onDisk(t, size)
	if n := fincore(t, name); n > int64(size)/10 {
		if os.Getenv("CI") != "" {
			t.Fatalf("%d of %d bytes stay in memory", n, size)
		}
		t.Skipf("%d of %d bytes stay in memory; this file system drops nothing", n, size)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil { // only what is asked for is read
		t.Fatal(err)
	}
	page := make([]byte, os.Getpagesize())
	for _, next := range []struct{ from, to, step int64 }{
		{0, 1, 1}, // one page
		{int64(8 * model.MiB), int64(20 * model.MiB), 1 << 12},  // a piece
		{int64(20 * model.MiB), int64(40 * model.MiB), 3 << 12}, // every third page
		{int64(size) - 1, int64(size), 1},                       // the last page, which is not whole
		{0, int64(size), 1 << 12},                               // everything
	} {
		for off := next.from; off < next.to; off += next.step {
			if n, err := f.ReadAt(page, off); n == 0 {
				t.Fatal(err)
			}
		}
		want := fincore(t, name)
		if got := measured(t, name, math.MaxInt64); !within(got, want, int64(size)) {
			t.Errorf("after %+v %d bytes are in memory; fincore says %d", next, got, want)
		}
		for way, ask := range map[string]func(*os.File, int64, int64) (int64, error){"counted": counted, "walked": walked} {
			got, err := ask(f, 0, int64(size))
			if unaskable(err) {
				t.Logf("%s: %v", way, err)
			} else if err != nil || !within(got, want, int64(size)) {
				t.Errorf("%s after %+v: %d bytes are in memory, %v; fincore says %d", way, next, got, err, want)
			}
		}
	}
	if got := measured(t, name, math.MaxInt64); got != int64(size) {
		t.Errorf("of a file that is all in memory %d of %d bytes are", got, size)
	}
}

func TestPopulatedBytesAreInMemory(t *testing.T) {
	const size = 40*model.MiB + 5
	for _, mapped := range []bool{true, false} {
		t.Run(fmt.Sprintf("mapped=%t", mapped), func(t *testing.T) {
			name := onDisk(t, size)
			long := time.Now().Add(-100 * time.Hour) // long ago, so that a mere read would change it
			if err := os.Chtimes(name, long, time.Time{}); err != nil {
				t.Fatal(err)
			}
			if err := (PageCache{}).Populate(t.Context(), name, 0, 1<<20, mapped, noStep); err != nil {
				t.Fatal(err)
			}
			if got := measured(t, name, 1<<20); got != 1<<20 {
				t.Errorf("%d of the first MiB are in memory", got)
			}
			if err := (PageCache{}).Populate(t.Context(), name, 32<<20, math.MaxInt32, mapped, noStep); err != nil {
				t.Fatal(err)
			}
			if got, of, err := (PageCache{}).Resident(name, 32<<20, math.MaxInt32); got != 8<<20+5 || of != got || err != nil {
				t.Errorf("%d of the last %d bytes are in memory, %v", got, of, err)
			}
			steps := 0
			if err := (PageCache{}).Populate(t.Context(), name, 0, math.MaxInt64, mapped, func(done int64) error {
				if done != int64(steps)*chunk {
					t.Errorf("step %d comes after %d bytes", steps, done)
				}
				steps++
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if got := measured(t, name, math.MaxInt64); got != int64(size) {
				t.Errorf("%d of %d bytes are in memory", got, size)
			}
			if want := (int(size) + chunk - 1) / chunk; steps != want {
				t.Errorf("%d steps for %d chunks", steps, want)
			}
			var st unix.Stat_t
			if err := unix.Stat(name, &st); err != nil || time.Since(time.Unix(st.Atim.Unix())) < time.Hour {
				t.Errorf("the access time was changed to %v, %v", time.Unix(st.Atim.Unix()), err)
			}
		})
	}
}

func TestReadingAheadStopsWhenToldTo(t *testing.T) {
	name := onDisk(t, 64*model.MiB)
	enough := errors.New("enough")
	for promise, work := range map[string]func(context.Context, func(int64) error) error{
		"mapped": func(ctx context.Context, step func(int64) error) error {
			return PageCache{}.Populate(ctx, name, 0, math.MaxInt64, true, step)
		},
		"by reading": func(ctx context.Context, step func(int64) error) error {
			return PageCache{}.Populate(ctx, name, 0, math.MaxInt64, false, step)
		},
		"locking": func(ctx context.Context, step func(int64) error) error {
			l, err := PageCache{}.Lock(ctx, name, 0, math.MaxInt64, step)
			if l != nil {
				t.Error("a lock that was given up is there")
			}
			return err
		},
	} {
		t.Run(promise, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			steps := 0
			err := work(ctx, func(int64) error {
				if steps++; steps == 1 {
					cancel()
				}
				return nil
			})
			if steps != 1 || !errors.Is(err, context.Canceled) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOMEM) {
				t.Errorf("%d steps, %v", steps, err)
			}
			if err := work(t.Context(), func(int64) error { return enough }); !errors.Is(err, enough) {
				t.Error(err)
			}
		})
	}
}

// withoutMore runs do on a thread that may not lock more than the limit, and then leaves it to die.
func withoutMore(t *testing.T, limit uint64, do func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: min(limit, before.Max), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &before); err != nil {
			t.Error(err)
		}
	}()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked: what the thread gives up is lost with it
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		err := unix.Capget(&head, &caps[0])
		caps[0].Effective &^= 1 << unix.CAP_IPC_LOCK
		if err == nil {
			err = unix.Capset(&head, &caps[0])
		}
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestLockedBytesStayInMemoryUntilTheLockIsClosed(t *testing.T) {
	const size = 2*model.MiB + 100
	name := onDisk(t, size)
	l, err := PageCache{}.Lock(t.Context(), name, 0, math.MaxInt64, noStep)
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if _, rest, _ := strings.Cut(string(status), "VmLck:"); strings.Fields(rest)[0] == "0" {
		t.Error("the kernel counts no locked memory")
	}
	if err := (PageCache{}).Drop(name); err != nil {
		t.Fatal(err)
	}
	if got := measured(t, name, math.MaxInt64); got != int64(size) {
		t.Errorf("%d of %d locked bytes are in memory", got, size)
	}
	if err := errors.Join(l.Close(), PageCache{}.Drop(name)); err != nil {
		t.Fatal(err)
	}
	if got := measured(t, name, math.MaxInt64); got > int64(size)/10 {
		t.Errorf("%d of %d bytes are still held", got, size)
	}
}

func TestALimitOfLockedMemoryIsNamed(t *testing.T) {
	name := onDisk(t, 4*model.MiB)
	for _, limit := range []uint64{0, uint64(model.MiB)} {
		withoutMore(t, limit, func() {
			l, err := PageCache{}.Lock(context.Background(), name, 0, math.MaxInt64, noStep)
			if err == nil || l != nil || !strings.Contains(err.Error(), "RLIMIT_MEMLOCK") {
				t.Errorf("with a limit of %d: %v, %v", limit, l, err)
			}
		})
	}
}

func TestWhatTheKernelKeepsToItselfIsNotGuessed(t *testing.T) {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked: from here on the thread is nobody
		const nobody = 65534
		if os.Geteuid() == 0 {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
				done <- errno
				return
			}
		}
		_, err := walked(f, 0, 1)
		done <- err
	}()
	if err := <-done; !errors.Is(err, errUntold) {
		t.Error(err)
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{dir: nil, pipe: nil, filepath.Join(dir, "gone"): fs.ErrNotExist} {
		_, _, resident := PageCache{}.Resident(name, 0, 1)
		_, locked := PageCache{}.Lock(t.Context(), name, 0, 1, noStep)
		for _, err := range []error{resident, PageCache{}.Populate(t.Context(), name, 0, 1, true, noStep), locked} {
			if err == nil || !strings.Contains(err.Error(), name) || want != nil && !errors.Is(err, want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := PageCache{}.Lock(t.Context(), empty, 0, 1, noStep)
	if err != nil || l.Close() != nil || measured(t, empty, 1) != 0 {
		t.Errorf("an empty file cannot be locked: %v", err)
	}
}

func BenchmarkPopulate(b *testing.B) {
	const size = 256 * model.MiB
	name := onDisk(b, size)
	for _, mapped := range []bool{true, false} {
		b.Run(fmt.Sprintf("size=256MiB/mapped=%t", mapped), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				b.StopTimer()
				if err := (PageCache{}).Drop(name); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := (PageCache{}).Populate(b.Context(), name, 0, math.MaxInt64, mapped, noStep); err != nil {
					b.Fatal(err)
				}
			}
			if got := measured(b, name, math.MaxInt64); got != int64(size) {
				b.Fatalf("%d of %d bytes are in memory", got, size)
			}
		})
	}
}
