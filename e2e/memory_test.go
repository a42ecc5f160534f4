package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// mostMemory is what a pull with the defaults may take at its peak, whatever the model's size.
const mostMemory = 64 * model.MiB

// mostOpen is how many files and sockets a pull with the defaults may have open.
const mostOpen = 160

// watched runs a pull to its end and returns its peak memory and the most files that were open.
func (w *world) watched(t testing.TB, args ...string) (path string, peak model.Bytes, open int) {
	t.Helper()
	p := w.start(t, append([]string{"pull"}, args...)...)
	done := make(chan struct{})
	most := make(chan int)
	go func() {
		most <- countOpen(p.Process.Pid, done)
	}()
	code := p.end(t)
	close(done)
	open = <-most
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.err.String())
	}
	usage, ok := p.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("the system does not tell what a process used")
	}
	return strings.TrimSpace(p.out.String()), model.Bytes(usage.Maxrss) * model.KiB, open
}

// countOpen is the most open files of a process until done.
func countOpen(pid int, done <-chan struct{}) (most int) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if entries, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(pid), "fd")); err == nil {
			most = max(most, len(entries))
		}
		select {
		case <-tick.C:
		case <-done:
			return most
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
			path, peak, open := w.watched(t, acme.Name)
			holds(t, path, entries)
			t.Logf("%s: peak %s, %d open", spec, peak, open)
			if peak > mostMemory || open > mostOpen {
				t.Errorf("peak %s, want at most %s; %d open files, want at most %d", peak, mostMemory, open, mostOpen)
			}
		})
	}
}
