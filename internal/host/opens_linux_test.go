package host

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hearing watches a folder by one of both ways, and returns what is heard.
func hearing(t *testing.T, begin func() (*Opens, error), dir string) (*Opens, <-chan Open) {
	t.Helper()
	o, err := begin()
	if err != nil {
		t.Fatal(err)
	}
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
	return o, heard
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
	for how, begin := range map[string]func() (*Opens, error){"fanotify": newFanotify, "inotify": newInotify} {
		t.Run(how, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a")
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "file")
			if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
				t.Fatal(err)
			}
			o, heard := hearing(t, begin, dir)
			if o.How() != how {
				t.Errorf("it hears by %s", o.How())
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
