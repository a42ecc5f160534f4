package host

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Scheduling is how long all threads of this process have had a processor since they began, and how long they have waited for one
// that others had. Threads that have ended are not in it. (proc/PID/schedstat; sched-stats.rst of the kernel.)
func (h *Host) Scheduling() (ran, waited time.Duration, err error) {
	tasks, err := filepath.Glob(filepath.Join(h.root, "proc/self/task/*/schedstat"))
	if err != nil {
		return 0, 0, err
	}
	if len(tasks) == 0 {
		return 0, 0, errors.New("the kernel does not tell how long threads wait for a processor")
	}
	for _, t := range tasks {
		name, err := filepath.Rel(h.root, t)
		if err != nil {
			return 0, 0, err
		}
		text, err := h.read(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended meanwhile
		}
		if err != nil {
			return 0, 0, err
		}
		fields := strings.Fields(text)
		if len(fields) < 2 {
			return 0, 0, errMalformed
		}
		for i, to := range []*time.Duration{&ran, &waited} {
			n, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil || n < 0 {
				return 0, 0, errMalformed
			}
			*to += time.Duration(n)
		}
	}
	return ran, waited, nil
}
