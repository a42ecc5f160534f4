package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// mostMemory is what a pull with the defaults may take at its peak, whatever the model's size.
const mostMemory = 64 * model.MiB

// mostOpen is how many files and sockets a pull with the defaults may have open.
const mostOpen = 160

// A footprint is the most that a process was seen to take.
type footprint struct {
	memory model.Bytes
	files  int
}

// watched runs a pull to its end, and watches it.
func (w *world) watched(t testing.TB, args ...string) (path string, peak footprint) {
	t.Helper()
	p := w.start(t, append([]string{"pull"}, args...)...)
	done, seen := make(chan struct{}), make(chan footprint)
	go func() { seen <- watch(p.Process.Pid, done) }()
	code := p.end(t)
	close(done)
	peak = <-seen
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.err.String())
	}
	if peak.memory == 0 || peak.files == 0 {
		t.Fatal("the system does not tell what a process uses")
	}
	return strings.TrimSpace(p.out.String()), peak
}

// watch looks at a process until done. The kernel keeps the high-water mark of its memory; what a
// process is said to have used when it has ended counts in its parent, from before it was itself.
func watch(pid int, done <-chan struct{}) (peak footprint) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if entries, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(pid), "fd")); err == nil {
			peak.files = max(peak.files, len(entries))
		}
		if status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "status")); err == nil {
			var kib int64
			if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
				if _, err := fmt.Sscan(rest, &kib); err == nil {
					peak.memory = max(peak.memory, model.Bytes(kib)*model.KiB)
				}
			}
		}
		select {
		case <-tick.C:
		case <-done:
			return peak
		}
	}
}

func TestMemoryAndOpenFilesDoNotGrowWithTheModel(t *testing.T) {
	for promise, spec := range map[string]string{
		"a model of one large file":    "1x1GiB",
		"a model of many large files":  "500x2MiB",
		"a model of 2000 small files":  "2000x1KiB-64KiB",
		"a model of files of all kind": "300x4KiB-1MiB,3x64MiB",
	} {
		t.Run(promise, func(t *testing.T) {
			entries := generate(t, spec)
			w := newWorld(t, demohub.Repo(acme.Name, parts(entries)...))
			path, peak := w.watched(t, acme.Name)
			holds(t, path, entries)
			t.Logf("%s: peak %s, %d open", spec, peak.memory, peak.files)
			if peak.memory > mostMemory || peak.files > mostOpen {
				t.Errorf("peak %s, want at most %s; %d open files, want at most %d", peak.memory, mostMemory, peak.files, mostOpen)
			}
		})
	}
}
