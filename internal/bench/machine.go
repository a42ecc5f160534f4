package bench

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ema/internal/host"
	"ema/internal/model"
)

// A SystemResult is what this machine is, and how fast one core of it does what downloads and checks need. Rates are in a
// million bytes per second.
type SystemResult struct {
	CPUs            int         `json:"cpus"`
	CPUModel        *string     `json:"cpu_model"`
	Memory          model.Bytes `json:"memory_bytes"` // 0 when nobody can tell
	Kernel          *string     `json:"kernel"`
	Platform        string      `json:"platform"`
	StoreFileSystem *string     `json:"store_file_system"`

	SHA256     *float64 `json:"sha256_mb_per_second"`
	CRC32C     *float64 `json:"crc32c_mb_per_second"`
	MemoryCopy *float64 `json:"memory_copy_mb_per_second"`
}

// A Machine is where an assessment was made. What cannot be told is empty.
type Machine struct {
	CPUs       int         `json:"cpus"`
	CPUModel   string      `json:"cpu_model"`
	Memory     model.Bytes `json:"memory_bytes"`
	Kernel     string      `json:"kernel"`
	FileSystem string      `json:"store_file_system"`
}

// machineOf is this machine, with a store in dir.
func machineOf(dir string) Machine {
	m := Machine{CPUs: runtime.NumCPU()}
	m.CPUModel, _ = cpuModel()                      //nolint:errcheck // empty says that it cannot be told
	m.Kernel, _ = kernel()                          //nolint:errcheck // the same
	m.FileSystem, _ = fileSystem(dir)               //nolint:errcheck // the same
	m.Memory, _, _ = host.New("/", m.CPUs).Memory() //nolint:errcheck // the same
	return m
}

// Unlike says in words what differs between two machines; it is empty where nothing does that was told of both.
func (m Machine) Unlike(o Machine) (differ []string) {
	tell := func(what, here, there string) {
		if here != "" && there != "" && here != there {
			differ = append(differ, fmt.Sprintf("%s: %s, and here %s", what, there, here))
		}
	}
	tell("processor", m.CPUModel, o.CPUModel)
	if m.CPUs != o.CPUs && o.CPUs != 0 {
		tell("processors", fmt.Sprint(m.CPUs), fmt.Sprint(o.CPUs))
	}
	if a, b := float64(m.Memory), float64(o.Memory); a > 0 && b > 0 && max(a, b) > 1.1*min(a, b) {
		tell("memory", m.Memory.String(), o.Memory.String())
	}
	tell("kernel", m.Kernel, o.Kernel)
	tell("file system of the store", m.FileSystem, o.FileSystem)
	return differ
}

func (r *assessor) system(ctx context.Context) error {
	r.Progress("system")
	res := &SystemResult{CPUs: runtime.NumCPU(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	r.Results.System = res
	known := func(name string, to **string, value string, err error) {
		if err != nil {
			r.Unknown["system."+name] = err.Error()
			return
		}
		*to = &value
	}
	text, err := cpuModel()
	known("cpu_model", &res.CPUModel, text, err)
	text, err = kernel()
	known("kernel", &res.Kernel, text, err)
	text, err = fileSystem(r.Places[0].Dir)
	known("store_file_system", &res.StoreFileSystem, text, err)
	if res.Memory, _, err = host.New("/", res.CPUs).Memory(); err != nil {
		r.Unknown["system.memory_bytes"] = err.Error()
	}

	data, copied := aligned(8<<20), make([]byte, 8<<20)
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	for _, one := range []struct {
		name string
		to   **float64
		do   func()
	}{
		{"sha256", &res.SHA256, func() { sha256.Sum256(data) }},
		{"crc32c", &res.CRC32C, func() { crc32.Checksum(data, castagnoli) }},
		{"memory_copy", &res.MemoryCopy, func() { copy(copied, data) }},
	} {
		var rates []float64
		err := r.repeat(ctx, r.lasting("system")/3, func() bool { return tightEnough(rates) }, func(int) error {
			rates = append(rates, rateOf(len(data), one.do))
			return nil
		})
		if err != nil {
			return err
		}
		*one.to = r.note("system."+one.name, rates, "MB/s", Higher)
	}
	return nil
}

// rateOf does it for a tenth of a second, and returns the millions of bytes per second.
func rateOf(n int, do func()) float64 {
	begun, times := time.Now(), 0
	for time.Since(begun) < 100*time.Millisecond {
		do()
		times++
	}
	return float64(times) * float64(n) / 1e6 / time.Since(begun).Seconds()
}

func kernel() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", os.NewSyscallError("uname", err)
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]), nil
}

// cpuModel is how the first processor calls itself.
func cpuModel() (string, error) {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if key = strings.TrimSpace(key); key == "model name" || key == "Model" {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("/proc/cpuinfo names no model")
}

// fileSystem is the kind of the file system on which dir lies, as the kernel calls it.
func fileSystem(dir string) (kind string, err error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	device := fmt.Sprintf("%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev))) //nolint:unconvert // its type differs by system
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // it is only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(before); len(fields) > 2 && fields[2] == device {
			kind, _, _ = strings.Cut(after, " ")
			return kind, nil
		}
	}
	return "", fmt.Errorf("no mount is of the device %s of %s", device, dir)
}
