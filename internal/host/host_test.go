package host

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ema/internal/model"
)

// machine writes files below a folder that stands for the root.
func machine(t testing.TB, files map[string]string) *Host {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return New(root, 0)
}

const (
	calm = "some avg10=0.00 avg60=9.00 avg300=9.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
	busy = "some avg10=50.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"
	full = "some avg10=100.00 avg60=0.00 avg300=0.00 total=1\n"
	ours = "12:memory:/old\n0::/system.slice/ema.service\n"
	slot = "sys/fs/cgroup/system.slice/ema.service/"
)

func TestPressure(t *testing.T) {
	for promise, c := range map[string]struct {
		files map[string]string
		want  Pressure
		worst string
	}{
		"is the share of the last ten seconds in which some waited": {
			map[string]string{"proc/pressure/cpu": busy, "proc/pressure/io": calm, "proc/pressure/memory": calm},
			Pressure{0.5, 0, 0, "pressure"},
			"cpu",
		},
		"names the worst": {
			map[string]string{"proc/pressure/cpu": calm, "proc/pressure/io": busy, "proc/pressure/memory": full},
			Pressure{0, 0.5, 1, "pressure"},
			"memory",
		},
		"of the own group counts when it is worse": {
			map[string]string{
				"proc/pressure/cpu": calm, "proc/pressure/io": busy, "proc/pressure/memory": calm, "proc/self/cgroup": ours,
				"sys/fs/cgroup/cgroup.controllers": "cpu\n", slot + "cpu.pressure": full, slot + "io.pressure": calm,
			},
			Pressure{1, 0.5, 0, "cgroup"},
			"cpu",
		},
		"of the own group counts where the machine has none": {
			map[string]string{"proc/self/cgroup": ours, "sys/fs/cgroup/unified/cgroup.controllers": "", "sys/fs/cgroup/unified/system.slice/ema.service/io.pressure": busy},
			Pressure{0, 0.5, 0, "cgroup"},
			"io",
		},
		"of the top group is that of the machine": {
			map[string]string{"proc/pressure/io": busy, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cgroup.controllers": "", "sys/fs/cgroup/io.pressure": full},
			Pressure{0, 0.5, 0, "pressure"},
			"io",
		},
		"is the load where nothing else is known": {
			map[string]string{"proc/loadavg": "1e9 0.5 0.5 1/100 4242\n"},
			Pressure{1 - float64(New("", 0).CPUs())/1e9, 0, 0, "load"},
			"cpu",
		},
		"is none while everything runs": {
			map[string]string{"proc/loadavg": "0.10 0.5 0.5 1/100 4242\n"},
			Pressure{0, 0, 0, "load"},
			"cpu",
		},
	} {
		t.Run(promise, func(t *testing.T) {
			p, err := machine(t, c.files).Pressure()
			if err != nil || p != c.want {
				t.Fatalf("%+v, %v; want %+v", p, err, c.want)
			}
			v, name := p.Worst()
			if name != c.worst || v != max(p.CPU, p.IO, p.Memory) {
				t.Errorf("the worst is %v of %s", v, name)
			}
		})
	}
}

func TestMalformedFilesAreErrors(t *testing.T) {
	for _, content := range []string{"", "some", "some avg10=", "some avg10=x", "some avg10=NaN", "some avg10=-1", "some avg10=Inf", "full avg10=1.00"} {
		p, err := machine(t, map[string]string{"proc/pressure/cpu": content}).Pressure()
		if !errors.Is(err, errMalformed) || !strings.Contains(err.Error(), "proc/pressure/cpu") {
			t.Errorf("%q: %+v, %v", content, p, err)
		}
	}
	if _, err := machine(t, nil).Pressure(); err == nil {
		t.Error("a machine without any file has a pressure")
	}
	for _, content := range []string{"", "MemTotal: x kB", "MemTotal: -1 kB", "MemTotal: 9223372036854775807 kB"} {
		if _, _, err := machine(t, map[string]string{"proc/meminfo": content}).Memory(); !errors.Is(err, errMalformed) {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestMemory(t *testing.T) {
	const info = "MemTotal:       1000 kB\nMemFree: 5 kB\nMemAvailable:    600 kB\n"
	for promise, c := range map[string]struct {
		files            map[string]string
		total, available model.Bytes
	}{
		"of the machine": {nil, 1000 * model.KiB, 600 * model.KiB},
		"of a group without a limit": {
			map[string]string{slot + "memory.max": "max\n"}, 1000 * model.KiB, 600 * model.KiB,
		},
		"of a group with a limit, without the cache that can be dropped": {
			map[string]string{
				slot + "memory.max": "409600\n", slot + "memory.current": "204800\n",
				slot + "memory.stat": "anon 1\ninactive_file 61440\nactive_file 40960\n",
			}, 400 * model.KiB, 300 * model.KiB,
		},
		"of a group below one with a limit": {
			map[string]string{"sys/fs/cgroup/system.slice/memory.max": "409600\n", "sys/fs/cgroup/system.slice/memory.current": "512000\n"},
			400 * model.KiB, 0,
		},
		"of a group whose limit is beyond the machine": {
			map[string]string{slot + "memory.max": "4096000\n", slot + "memory.current": "0\n"}, 1000 * model.KiB, 600 * model.KiB,
		},
	} {
		t.Run(promise, func(t *testing.T) {
			files := map[string]string{"proc/meminfo": info, "proc/self/cgroup": ours, "sys/fs/cgroup/cgroup.controllers": ""}
			for k, v := range c.files {
				files[k] = v
			}
			total, available, err := machine(t, files).Memory()
			if err != nil || total != c.total || available != c.available {
				t.Errorf("%d of %d, %v; want %d of %d", available, total, err, c.available, c.total)
			}
		})
	}
}

func TestThisMachine(t *testing.T) {
	h := New("", 0)
	p, err := h.Pressure()
	if worst, _ := p.Worst(); err != nil || worst < 0 || worst > 1 || p.Source == "" {
		t.Errorf("pressure %+v, %v", p, err)
	}
	total, available, err := h.Memory()
	if err != nil || total < 64*model.MiB || available <= 0 || available > total {
		t.Errorf("memory %v of %v, %v", available, total, err)
	}
	soft, hard, err := OpenFiles()
	if err != nil || soft < 16 || hard < soft {
		t.Fatalf("open files %d of %d, %v", soft, hard, err)
	}
	raised, err := RaiseOpenFiles()
	if now, _, _ := OpenFiles(); err != nil || raised != hard || now != hard {
		t.Errorf("raised to %d, now %d of %d, %v", raised, now, hard, err)
	}
	if h.CPUs() < 1 {
		t.Errorf("%d CPUs", h.CPUs())
	}
}

func FuzzPressure(f *testing.F) {
	f.Add(calm, ours, "1.00 2 3")
	f.Add("some avg10=1e308", "0::/../..\n", "")
	f.Fuzz(func(t *testing.T, pressure, group, load string) {
		h := machine(t, map[string]string{"proc/self/cgroup": group, "proc/loadavg": load, "sys/fs/cgroup/cgroup.controllers": ""})
		for _, name := range []string{"proc/pressure/cpu", "proc/meminfo"} {
			at := filepath.Join(h.root, name)
			_ = os.MkdirAll(filepath.Dir(at), 0o700)
			if err := os.WriteFile(at, []byte(pressure), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p, err := h.Pressure()
		if worst, _ := p.Worst(); err == nil && (worst < 0 || worst > 1 || math.IsNaN(worst)) {
			t.Fatalf("%+v of %q, %q, %q", p, pressure, group, load)
		}
		_, _, _ = h.Memory()
	})
}

func TestTheMemoryOfThisProcess(t *testing.T) {
	for promise, c := range map[string]struct {
		status    string
		now, peak model.Bytes
		malformed bool
	}{
		"is read":                             {"Name:\tema\nVmHWM:\t    300 kB\nVmRSS:\t    200 kB\n", 200 * model.KiB, 300 * model.KiB, false},
		"was never less than it is":           {"VmHWM:\t100 kB\nVmRSS:\t200 kB\n", 200 * model.KiB, 200 * model.KiB, false},
		"is its own peak where none is known": {"VmRSS:\t200 kB\n", 200 * model.KiB, 200 * model.KiB, false},
		"is an error where there is none":     {"Name:\tema\n", 0, 0, true},
		"is an error where it is no number":   {"VmRSS:\tmuch kB\n", 0, 0, true},
		"is an error where it is absurd":      {"VmRSS:\t9223372036854775807 kB\n", 0, 0, true},
	} {
		now, peak, err := machine(t, map[string]string{"proc/self/status": c.status}).Resident()
		if now != c.now || peak != c.peak || errors.Is(err, errMalformed) != c.malformed || (err != nil) != c.malformed {
			t.Errorf("it %s: %v, %v, %v", promise, now, peak, err)
		}
	}
	if now, peak, err := New("", 0).Resident(); err != nil || now < model.MiB || peak < now {
		t.Errorf("that of the test: %v, %v, %v", now, peak, err)
	}
}
