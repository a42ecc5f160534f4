package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of CPU times in /proc: USER_HZ, which is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// usage is CPU time of the whole machine since it started.
type usage struct {
	busy, total time.Duration
	stolen      time.Duration // that the host gave to others
}

func machineUsage() (u usage, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, field := range strings.Fields(strings.TrimPrefix(line, "cpu ")) { // user nice system idle iowait irq softirq steal guest guest_nice
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return u, fmt.Errorf("/proc/stat: %w", err)
		}
		d := time.Duration(n) * tick
		switch i {
		case 0, 1, 2, 5, 6:
			u.busy += d
			u.total += d
		case 3, 4:
			u.total += d
		case 7:
			u.stolen = d
		}
	}
	return u, nil
}

// processUsage is the CPU time of one process since it started.
func processUsage(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name in parentheses may contain anything, but ours do not
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, err
}

// ownPeak is the most memory that this process ever had resident, in bytes; 0 if unknown. Linux counts it into the peak of
// every process that it starts, so smaller peers cannot be told apart from it.
func ownPeak() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	n, err := strconv.ParseInt(strings.TrimSpace(rest[:max(0, strings.Index(rest, "kB"))]), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// awaitIdle waits until less than a tenth of the machine was busy for a second, at most for the given time, and says
// whether it came to that.
func awaitIdle(ctx context.Context, most time.Duration) (bool, error) {
	deadline := time.Now().Add(most)
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	before, err := machineUsage()
	if err != nil {
		return false, err
	}
	for {
		select {
		case <-beat.C:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		now, err := machineUsage()
		if err != nil {
			return false, err
		}
		if now.busy-before.busy < (now.total-before.total)/10 {
			return true, nil
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		before = now
	}
}

// syncFolder makes all that was written to the file system of a folder durable, and says how long that took.
func syncFolder(dir string) (time.Duration, error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	begin := time.Now()
	err = unix.Syncfs(int(f.Fd()))
	return time.Since(begin), err
}
