package host

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"syscall"
)

// Pressure is how much of the last ten seconds work on this machine had to wait, from 0 (never) to 1
// (always).
type Pressure struct {
	CPU, IO, Memory float64
	// Source is where the figures are from: "pressure" of the whole machine, "cgroup" when at least
	// one of the group of this process is worse, "load" when the kernel measures no pressure. Then CPU
	// is the load of the last minute beyond what the cores can run, and the others are unknown, 0.
	Source string
}

// Worst is the greatest of the three, and its name: "cpu", "io" or "memory".
func (p Pressure) Worst() (float64, string) {
	worst, name := p.CPU, "cpu"
	if p.IO > worst {
		worst, name = p.IO, "io"
	}
	if p.Memory > worst {
		worst, name = p.Memory, "memory"
	}
	return worst, name
}

// Pressure samples the machine, and the cgroup of this process where that has figures of its own: of
// the two, the worse counts. A file that is there and makes no sense is an error.
func (h *Host) Pressure() (Pressure, error) {
	var p Pressure
	parts := []struct {
		name string
		to   *float64
	}{{"cpu", &p.CPU}, {"io", &p.IO}, {"memory", &p.Memory}}
	for _, part := range parts {
		v, known, err := h.some("proc/pressure/" + part.name)
		if err != nil {
			return Pressure{}, err
		}
		if known {
			*part.to, p.Source = v, "pressure"
		}
	}
	group, err := h.cgroup()
	if err != nil {
		return Pressure{}, err
	}
	if group != "" {
		for _, part := range parts {
			v, known, err := h.some(group + "/" + part.name + ".pressure")
			if err != nil {
				return Pressure{}, err
			}
			if known && (v > *part.to || p.Source == "") {
				*part.to, p.Source = v, "cgroup"
			}
		}
	}
	if p.Source != "" {
		return p, nil
	}
	return h.load()
}

// some is the share of the last ten seconds in which at least one task waited, by a pressure file;
// unknown where the kernel has none or was told not to measure.
func (h *Host) some(name string) (share float64, known bool, err error) {
	err = h.lines(name, func(fields []string) error {
		if fields[0] != "some" {
			return nil
		}
		for _, f := range fields[1:] {
			if v, ok := strings.CutPrefix(f, "avg10="); ok {
				percent, err := finite(v)
				if err != nil {
					return err
				}
				share, known = min(percent/100, 1), true
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EOPNOTSUPP):
		return 0, false, nil
	case err == nil && !known:
		return 0, false, fmt.Errorf("%s: %w: it has no avg10", name, errMalformed)
	}
	return share, known, err
}

// load judges by the load average. As many runnable tasks as there are CPUs are no pressure: nobody
// waits. With twice as many, each task waits half of its time.
func (h *Host) load() (Pressure, error) {
	p := Pressure{Source: "load"}
	found := false
	err := h.lines("proc/loadavg", func(fields []string) error {
		running, err := finite(fields[0])
		if err != nil {
			return err
		}
		found = true
		if cpus := float64(h.CPUs()); running > cpus {
			p.CPU = 1 - cpus/running
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("proc/loadavg: %w: it is empty", errMalformed)
	}
	return p, err
}

// finite reads a figure that is neither negative nor beyond all measure.
func finite(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return 0, fmt.Errorf("%w: %q is no figure", errMalformed, s)
	}
	return v, nil
}
