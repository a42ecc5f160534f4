package host

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strings"

	"ema/internal/model"
)

// Memory is how much memory there is for this process and its siblings, and how much of it can be had
// without swapping. Where the cgroup of this process, or one above it, has a limit, that counts: what
// is in use is then without the page cache that the kernel can drop.
func (h *Host) Memory() (total, available model.Bytes, err error) {
	found := map[string]model.Bytes{}
	err = h.lines("proc/meminfo", func(fields []string) error {
		if name := fields[0]; (name == "MemTotal:" || name == "MemAvailable:") && len(fields) > 1 {
			n, err := number(fields[1])
			if err != nil || n > math.MaxInt64/int64(model.KiB) {
				return fmt.Errorf("%w: %s", errMalformed, name)
			}
			found[name] = model.Bytes(n) * model.KiB
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	total, available = found["MemTotal:"], found["MemAvailable:"]
	if total == 0 {
		return 0, 0, fmt.Errorf("proc/meminfo: %w: it has no MemTotal", errMalformed)
	}
	group, err := h.cgroup()
	if err != nil {
		return 0, 0, err
	}
	for ; strings.Count(group, "/") > 2; group = path.Dir(group) { // sys/fs/cgroup is the top
		most, free, limited, err := h.limit(group)
		if err != nil {
			return 0, 0, err
		}
		if limited {
			total, available = min(total, most), min(available, free)
		}
	}
	return total, min(available, total), nil
}

// limit is what a cgroup may have, and what is left of it.
func (h *Host) limit(group string) (most, free model.Bytes, limited bool, err error) {
	text, err := h.read(group + "/memory.max")
	text = strings.TrimSpace(text)
	if errors.Is(err, fs.ErrNotExist) || err == nil && text == "max" {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, err
	}
	limit, err := number(text)
	if err != nil {
		return 0, 0, false, fmt.Errorf("%s/memory.max: %w", group, err)
	}
	text, err = h.read(group + "/memory.current")
	if err != nil {
		return 0, 0, false, err
	}
	used, err := number(strings.TrimSpace(text))
	if err != nil {
		return 0, 0, false, fmt.Errorf("%s/memory.current: %w", group, err)
	}
	err = h.lines(group+"/memory.stat", func(fields []string) error {
		// The active part is memory to be had too, as it is in MemAvailable: what was read twice is active.
		if len(fields) == 2 && (fields[0] == "inactive_file" || fields[0] == "active_file") {
			n, err := number(fields[1])
			used -= min(n, used)
			return err
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, 0, false, err
	}
	return model.Bytes(limit), model.Bytes(max(limit-used, 0)), true, nil
}

// Resident is how much memory this process has now, and how much it had at most since it began.
func (h *Host) Resident() (now, peak model.Bytes, err error) {
	err = h.lines("proc/self/status", func(fields []string) error {
		if name := fields[0]; (name == "VmRSS:" || name == "VmHWM:") && len(fields) > 1 {
			n, err := number(fields[1])
			if err != nil || n > math.MaxInt64/int64(model.KiB) {
				return fmt.Errorf("%w: %s", errMalformed, name)
			}
			if name == "VmRSS:" {
				now = model.Bytes(n) * model.KiB
			} else {
				peak = model.Bytes(n) * model.KiB
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	if now == 0 {
		return 0, 0, fmt.Errorf("proc/self/status: %w: it has no VmRSS", errMalformed)
	}
	return now, max(now, peak), nil // the kernel counts the two at different times
}
