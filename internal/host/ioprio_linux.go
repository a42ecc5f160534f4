package host

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The kernel's numbers of ioprio_set(2), which no package has: a class in the upper bits, a level below. 0 is none,
// and then the class goes with the priority of the thread.
const (
	ioWhoThread  = 1
	ioClassShift = 13
	ioBestEffort = 2 << ioClassShift
	ioIdle       = 3<<ioClassShift | 7
)

// ioPriority reads that of a thread; 0 is the calling one.
func ioPriority(tid int) (int, error) {
	p, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_GET, ioWhoThread, uintptr(tid), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("ioprio_get", errno)
	}
	return int(p), nil
}

// setIO sets the I/O priority of the calling thread.
func (start *attributes) setIO(p IOPriority) error {
	want := start.io
	switch p {
	case IOHigh:
		want = ioBestEffort
	case IONormal:
		want = ioBestEffort | 4
	case IOLow:
		want = ioIdle
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_IOPRIO_SET, ioWhoThread, 0, uintptr(want)); errno != 0 {
		return fmt.Errorf("I/O priority %s cannot be set: %w", p, errno)
	}
	return nil
}
