package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/process"
	"golang.org/x/sys/unix"
)

// Readers measures how much other programs read from a disk. It is for one goroutine at a time.
type Readers struct {
	device string // its name, such as nvme0n1p1
	self   *process.Process
	at     time.Time
	all    uint64 // bytes that were read from the disk
	ours   uint64 // and by this process, from any
}

// NewReaders measures the disk on which path lies. It fails where the file system has no disk of its own, as those in memory
// or on a network.
func NewReaders(path string) (*Readers, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("measure the disk of %s: %w", path, err)
	}
	name, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))) //nolint:unconvert // its type differs by system
	if err != nil {
		return nil, fmt.Errorf("measure the disk of %s: %w", path, err)
	}
	self, err := process.NewProcess(int32(os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("measure this process: %w", err)
	}
	return &Readers{device: filepath.Base(name), self: self}, nil
}

// Look is how many bytes per second others have read from the disk since the last look; 0 at the first.
func (r *Readers) Look(ctx context.Context) (float64, error) {
	disks, err := disk.IOCountersWithContext(ctx, r.device)
	if err != nil {
		return 0, fmt.Errorf("measure the disk %s: %w", r.device, err)
	}
	own, err := r.self.IOCountersWithContext(ctx)
	if err != nil {
		return 0, fmt.Errorf("measure this process: %w", err)
	}
	now, all, ours := time.Now(), disks[r.device].ReadBytes, own.DiskReadBytes
	took, others := now.Sub(r.at).Seconds(), float64(all-r.all)-float64(ours-r.ours)
	first := r.at.IsZero()
	r.at, r.all, r.ours = now, all, ours
	if first || took <= 0 {
		return 0, nil
	}
	return max(0, others/took), nil
}
