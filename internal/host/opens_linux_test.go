package host

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// only hears in one way.
func only(t *testing.T, begin func() (*listener, error)) *Opens {
	t.Helper()
	way, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	return &Opens{[]*listener{way}}
}

// hearing watches a folder, and returns what is heard.
func hearing(t *testing.T, o *Opens, dir string) <-chan Open {
	t.Helper()
	if err := o.Add(dir); err != nil {
		t.Fatal(err)
	}
	heard := make(chan Open, 10000)
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := o.Run(ctx, func(one Open) { heard <- one }); !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
	})
	t.Cleanup(func() { cancel(); run.Wait() })
	return heard
}

func next(t *testing.T, heard <-chan Open) Open {
	t.Helper()
	select {
	case one := <-heard:
		return one
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is heard")
		return Open{}
	}
}

func TestFilesThatAreOpenedAreHeardOf(t *testing.T) {
	for how, begin := range map[string]func() (*listener, error){"fanotify": newFanotify, "inotify": newInotify} {
		t.Run(how, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a")
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "file")
			if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
				t.Fatal(err)
			}
			o := only(t, begin)
			heard := hearing(t, o, dir)
			if o.How() != how || o.HowOf(dir) != how || o.HowOf(path) != "" {
				t.Errorf("it hears by %s, of the folder by %q, of the file by %q", o.How(), o.HowOf(dir), o.HowOf(path))
			}
			self, other := Self, Other
			if how == "inotify" {
				self, other = Unknown, Unknown
			}
			if err := exec.CommandContext(t.Context(), "cat", path).Run(); err != nil {
				t.Fatal(err)
			}
			if one := next(t, heard); one != (Open{Path: path, By: other}) {
				t.Errorf("another program has opened it: %+v", one)
			}
			if _, err := os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
			if one := next(t, heard); one != (Open{Path: path, By: self}) {
				t.Errorf("this one has opened it: %+v", one)
			}

			// Another folder of that name is heard of when it is added again.
			if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o777), os.WriteFile(path, nil, 0o600), o.Add(dir)); err != nil {
				t.Fatal(err)
			}
			for len(heard) > 0 {
				<-heard
			}
			if _, err := os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
			for one := next(t, heard); one.Path != path; one = next(t, heard) {
			}
			o.Remove(dir)
			if o.HowOf(dir) != "" {
				t.Error("a removed folder is watched")
			}
			o.Remove(filepath.Join(dir, "never"))
			marker := filepath.Join(t.TempDir(), "marker")
			if err := errors.Join(os.WriteFile(marker, nil, 0o600), o.Add(filepath.Dir(marker))); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{path, marker} {
				if _, err := os.ReadFile(name); err != nil {
					t.Fatal(err)
				}
			}
			for one := next(t, heard); one.Path != marker; one = next(t, heard) {
				if filepath.Dir(one.Path) == dir && one.By != Unknown && len(heard) == 0 {
					t.Errorf("a removed folder is heard of: %+v", one)
				}
			}
			if err := o.Add(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what is not there: %v", err)
			}
		})
	}
}

func TestAFolderThatFanotifyDoesNotKnowIsHeardOfByInotify(t *testing.T) {
	const dir = "/proc/sys/kernel" // its file system gives no handles that name its folders
	o, err := NewOpens()
	if err != nil {
		t.Fatal(err)
	}
	heard := hearing(t, o, dir)
	if o.HowOf(dir) != "inotify" {
		t.Errorf("it hears by %q", o.HowOf(dir))
	}
	path := filepath.Join(dir, "ostype")
	if err := exec.CommandContext(t.Context(), "cat", path).Run(); err != nil {
		t.Fatal(err)
	}
	for one := next(t, heard); one != (Open{Path: path}); one = next(t, heard) { // others may look there, too
	}

	// A name that another file system takes over is heard of in one way only.
	name := filepath.Join(t.TempDir(), "tier")
	if err := errors.Join(os.Symlink(dir, name), o.Add(name)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(name), os.Mkdir(name, 0o777), o.Add(name)); err != nil {
		t.Fatal(err)
	}
	if o.HowOf(name) != o.How() || o.How() == "fanotify" && o.ways[1].watches(name) {
		t.Errorf("it hears by %q", o.HowOf(name))
	}
}

func TestMoreOpensThanTheSystemKeepsAreToldOfAsLost(t *testing.T) {
	for how, begin := range map[string]func() (*listener, error){"fanotify": newFanotify, "inotify": newInotify} {
		t.Run(how, func(t *testing.T) {
			raw, err := os.ReadFile("/proc/sys/fs/" + how + "/max_queued_events")
			if err != nil {
				t.Fatal(err)
			}
			most, err := strconv.Atoi(strings.TrimSpace(string(raw)))
			if err != nil || most > 1<<17 {
				t.Skipf("the system keeps %s", raw)
			}
			dir := t.TempDir()
			o := only(t, begin)
			if err := o.Add(dir); err != nil {
				t.Fatal(err)
			}
			for i := range most + 10 { // of other names: equal events are kept once
				if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			heard := 0
			err = o.Run(ctx, func(one Open) {
				if heard++; one.Lost {
					cancel()
				}
			})
			if !errors.Is(err, context.Canceled) || heard < most/2 {
				t.Errorf("%d are heard of, and it ends with %v", heard, err)
			}
			if err := o.Add(dir); err == nil {
				t.Error("what has ended watches a folder")
			}
		})
	}
}

func TestEventsThatAreCutShortAreLeftOut(t *testing.T) {
	o := listening(-1, true)
	o.folders["1"] = "/dir"
	heard := 0
	whole := make([]byte, 24+4+8+8+12+8)
	binary.NativeEndian.PutUint32(whole, uint32(len(whole)))
	binary.NativeEndian.PutUint16(whole[6:], 24)
	whole[24] = unix.FAN_EVENT_INFO_TYPE_DFID_NAME
	binary.NativeEndian.PutUint16(whole[26:], uint16(len(whole)-24))
	binary.NativeEndian.PutUint32(whole[36:], 12)
	copy(whole[56:], "name\x00")
	o.folders[string(whole[28:56])] = "/dir"
	o.fanotified(whole, func(one Open) {
		if heard++; one != (Open{Path: "/dir/name", By: Other}) {
			t.Errorf("%+v", one)
		}
	})
	if heard != 1 {
		t.Fatalf("a whole event is heard of %d times", heard)
	}
	for at := range whole {
		for _, v := range []byte{0, 1, 0x7f, 0xff} {
			b := append([]byte(nil), whole...)
			b[at] = v
			o.fanotified(b, func(Open) {})
			o.inotified(b, func(Open) {})
			o.fanotified(b[:at], func(Open) {})
			o.inotified(b[:at], func(Open) {})
		}
	}
	binary.NativeEndian.PutUint64(whole[8:], unix.FAN_Q_OVERFLOW)
	lost := false
	o.fanotified(whole, func(one Open) { lost = one.Lost })
	if !lost {
		t.Error("events that were lost are not told of")
	}
}
