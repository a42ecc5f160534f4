package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shirou/gopsutil/v4/disk"
	"golang.org/x/sys/unix"
)

// A Device is what a block device has done since the machine was started.
type Device struct {
	Name       string
	Bytes      float64 // read and written
	Operations float64 // requests that have ended
	Waited     float64 // seconds that these took, added up
	Busy       float64 // seconds in which it had any
}

// DeviceOf is the block device on which path lies. One that has no counters, such as that of a network file system, is an error.
func DeviceOf(ctx context.Context, path string) (Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Device{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))) //nolint:unconvert // its type differs by system
	if err != nil {
		return Device{}, fmt.Errorf("%s lies on no block device of this machine: %w", path, err)
	}
	name := filepath.Base(link)
	all, err := disk.IOCountersWithContext(ctx, name)
	if err != nil {
		return Device{}, err
	}
	c, known := all[name]
	if !known {
		return Device{}, fmt.Errorf("the kernel counts nothing for the device %s", name)
	}
	return Device{
		Name: name, Bytes: float64(c.ReadBytes + c.WriteBytes), Operations: float64(c.ReadCount + c.WriteCount), Waited: float64(c.ReadTime+c.WriteTime) / 1000,
		Busy: float64(c.IoTime) / 1000,
	}, nil
}

// LinkSpeed is the sum of the speeds of this machine's network links that are up, in bytes per second; 0 where no driver tells one, as
// that of a virtual machine's card often does not.
func (h *Host) LinkSpeed() float64 {
	var bytes float64
	links, _ := filepath.Glob(filepath.Join(h.root, "sys/class/net/*")) //nolint:errcheck // the pattern is right
	for _, link := range links {
		name := filepath.Base(link)
		if state, err := h.read("sys/class/net/" + name + "/operstate"); err != nil || strings.TrimSpace(state) != "up" {
			continue
		}
		if speed, err := h.read("sys/class/net/" + name + "/speed"); err == nil {
			if mbit, err := number(strings.TrimSpace(speed)); err == nil {
				bytes += float64(mbit) * 1e6 / 8
			}
		}
	}
	return bytes
}

// GPUMemory is what is used of the memory of all graphics cards, and all of it, in bytes; both 0 where the kernel tells of none. It is
// known of cards whose driver tells in /sys, as amdgpu does.
func (h *Host) GPUMemory() (used, total float64) {
	cards, _ := filepath.Glob(filepath.Join(h.root, "sys/class/drm/card*/device/mem_info_vram_total")) //nolint:errcheck // the pattern is right
	for _, card := range cards {
		dir, err := filepath.Rel(h.root, filepath.Dir(card))
		if err != nil {
			continue
		}
		var figures [2]int64
		for i, name := range []string{"mem_info_vram_used", "mem_info_vram_total"} {
			text, readErr := h.read(filepath.Join(dir, name))
			if figures[i], err = number(strings.TrimSpace(text)); readErr != nil || err != nil {
				figures = [2]int64{}
				break
			}
		}
		used, total = used+float64(figures[0]), total+float64(figures[1])
	}
	return used, total
}
