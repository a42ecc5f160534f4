package host

import (
	"fmt"
	"math"
	"syscall"
)

// OpenFiles is how many files, sockets included, this process may have open: now, and at most when it
// raises the limit itself. Without any limit it is the greatest int.
func OpenFiles() (soft, hard int, err error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, 0, fmt.Errorf("the limit of open files cannot be read: %w", err)
	}
	return count(l.Cur), count(l.Max), nil
}

// RaiseOpenFiles sets the limit of open files to the most that this process may give itself, and
// returns it. Processes that this one starts get back what it was started with, unless this was called.
func RaiseOpenFiles() (int, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("the limit of open files cannot be read: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("the limit of open files cannot be raised to %d: %w", l.Max, err)
	}
	return count(l.Cur), nil
}

func count(n uint64) int { return int(min(n, math.MaxInt)) }
