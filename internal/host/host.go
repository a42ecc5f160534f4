// Package host samples this machine: how busy it is and how much it has to give.
//
// It reads files of the kernel, each time anew, and keeps nothing. Tests hand it a folder instead of
// the root of the file system.
package host

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// A Host is a machine, seen through its files. It is safe for concurrent use.
type Host struct {
	root string
	cpus int
}

// New makes the host whose proc and sys lie below root; empty = "/". cpus is how many threads may run at
// once; 0 = as many as Go allows itself. It reads nothing yet.
func New(root string, cpus int) *Host {
	return &Host{cmp.Or(root, "/"), cmp.Or(cpus, runtime.GOMAXPROCS(0))}
}

// CPUs is how many threads may run at once: the cores that this process may use, which Go bounds by
// the quota of its cgroup.
func (h *Host) CPUs() int { return h.cpus }

// errMalformed is wrapped when a file of the kernel is not as it should be.
var errMalformed = errors.New("the kernel's file is not of the expected form")

// read returns the content of a file below the root.
func (h *Host) read(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(h.root, filepath.FromSlash(name)))
	return string(b), err
}

// lines calls each with the fields of each line of a file below the root, blank lines left out.
func (h *Host) lines(name string, each func(fields []string) error) error {
	content, err := h.read(name)
	if err != nil {
		return err
	}
	for line := range strings.Lines(content) {
		if fields := strings.Fields(line); len(fields) > 0 {
			if err := each(fields); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// number reads a count that is not negative.
func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %q is no count", errMalformed, s)
	}
	return n, nil
}

// cgroup is the folder of this process in the unified hierarchy (version 2), below the root; empty
// when there is none, and when it is the top, which says nothing that /proc does not.
func (h *Host) cgroup() (string, error) {
	own := ""
	content, err := h.read("proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for lines := bufio.NewScanner(strings.NewReader(content)); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "0::"); ok {
			own = path.Clean("/" + name)
		}
	}
	if own == "" || own == "/" {
		return "", nil
	}
	for _, mount := range []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(h.root, mount, "cgroup.controllers")); err == nil {
			return mount + own, nil
		}
	}
	return "", nil
}
