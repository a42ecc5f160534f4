package host

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// attributes are what the kernel knows of how a thread runs.
type attributes struct {
	sched unix.SchedAttr
	cores unix.CPUSet
	io    int
}

// readAttributes reads those of a thread; 0 is the calling one.
func readAttributes(tid int) (a attributes, err error) {
	sched, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return a, os.NewSyscallError("sched_getattr", err)
	}
	a.sched = *sched
	if err := unix.SchedGetaffinity(tid, &a.cores); err != nil {
		return a, os.NewSyscallError("sched_getaffinity", err)
	}
	a.io, err = ioPriority(tid)
	return a, err
}

// set has a thread run as c says, where start is what the process was started with. What is so already is left alone:
// that needs no permission. A thread that is gone is no error.
func (start *attributes) set(tid int, c Class) error {
	err := errors.Join(start.setPriority(tid, c.Priority), start.setCores(tid, c.Cores))
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// step is by how much a Priority differs from the next, of the 40 levels that there are: who is one step below gets a
// third of the time.
const step = 5

func (start *attributes) setPriority(tid int, p Priority) error {
	want := start.sched
	switch p = cmp.Or(p, Normal); p {
	case High:
		want.Nice = max(want.Nice-step, -20)
	case BelowNormal:
		want.Nice = min(want.Nice+step, 19)
	case Idle:
		want.Policy, want.Priority = unix.SCHED_IDLE, 0
	}
	now, err := unix.SchedGetAttr(tid, 0)
	if err != nil {
		return fmt.Errorf("priority %s cannot be set: %w", p, err)
	}
	if now.Policy == want.Policy && now.Priority == want.Priority && (now.Nice == want.Nice || want.Policy == unix.SCHED_IDLE) {
		return nil
	}
	err = unix.SchedSetAttr(tid, &want, 0)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("priority %s is not permitted: %w; grant CAP_SYS_NICE, or LimitNICE= to the service", p, err)
	case err != nil:
		return fmt.Errorf("priority %s cannot be set: %w", p, err)
	}
	return nil
}

func (start *attributes) setCores(tid int, cores []int) error {
	want := start.cores
	if len(cores) > 0 {
		want.Zero()
		for _, core := range cores {
			if start.cores.IsSet(core) {
				want.Set(core)
			}
		}
		if want.Count() == 0 {
			return fmt.Errorf("this process may use none of the cores %v", cores)
		}
	}
	var now unix.CPUSet
	if err := unix.SchedGetaffinity(tid, &now); err != nil || now == want {
		return err
	}
	if err := unix.SchedSetaffinity(tid, &want); err != nil {
		return fmt.Errorf("cores %v cannot be set: %w", cores, err)
	}
	return nil
}

// threadsOf lists the threads of a process.
func threadsOf(pid int) ([]int, error) {
	names, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return nil, err
	}
	all := make([]int, 0, len(names))
	for _, name := range names {
		if tid, err := strconv.Atoi(name.Name()); err == nil {
			all = append(all, tid)
		}
	}
	return all, nil
}

// thisThread is the number of the calling one.
func thisThread() int { return unix.Gettid() }

// Cores are the numbers of those that this process may use, as long as nobody has bound the calling thread to fewer.
func Cores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, os.NewSyscallError("sched_getaffinity", err)
	}
	var all []int
	for core := range len(set) * 64 {
		if set.IsSet(core) {
			all = append(all, core)
		}
	}
	return slices.Clip(all), nil
}
