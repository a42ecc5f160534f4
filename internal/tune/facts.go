package tune

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"ema/internal/ledger"
	"ema/internal/model"
)

// Facts are what is known of a machine. What could not be read says why in place of a value.
type Facts struct {
	Memory  model.Bytes // 0 = nobody knows
	Sysctl  map[string]Reading
	Later   map[string]string // by the name of a sysctl: the file that sets it too, and wins over ema's own at the next start
	Modules string            // names of what the kernel has or could load, in lines; "" = nobody knows
	Disks   []Disk
	CPUs    []CPU
	Battery bool
	Mounts  []MountPoint // of the folders that were asked about, each once
	Fstab   Reading
	Trim    bool // unused blocks are told to disks by a timer
	// Database is where the analytics are kept; it is not looked at.
	Database Database
}

// A Reading is the content of a file, or why there is none.
type Reading struct {
	Text     string
	ReadOnly bool // nobody may write to it
	Err      error
}

// value is the reading without the space around it.
func (r Reading) value() string { return strings.TrimSpace(r.Text) }

// A Disk is one that this machine itself sees; those that are made of others are not looked at.
type Disk struct {
	Name       string
	Rotational Reading
	Scheduler  Reading
	ReadAhead  Reading
	tunables   []string // files of the kernel that change with the scheduler
}

// A CPU is one whose speed can be governed.
type CPU struct {
	Name      string
	Governor  Reading
	Available Reading
}

// A MountPoint is where a file system is mounted.
type MountPoint struct {
	Point, Type, Device string
	Options             []string
}

// Database is where the analytics are kept.
type Database struct {
	Postgres bool // else they are in the store's own file
	Remote   bool // on another machine, as far as its address tells
	// Server is what it says of itself; nil when it was not asked, or did not answer: then Problem says why.
	Server  *ledger.ServerState
	Problem string
}

// files is what reading the facts needs of a folder.
type files interface {
	read(name string) (string, fs.FileMode, error)
	list(name string) ([]string, error)
}

// look reads the facts of the machine whose files these are, with the mount points of those folders.
func look(from files, folders []string) Facts {
	f := Facts{Sysctl: map[string]Reading{}, Later: map[string]string{}}
	f.Memory = memory(from)
	for _, name := range sysctlNames() {
		f.Sysctl[name] = reading(from, sysctlPath(name))
	}
	f.Later = later(from)
	f.Modules = modules(from, reading(from, "proc/sys/kernel/osrelease").value())
	disks, _ := from.list("sys/block") // a machine without is one without disks
	for _, name := range disks {
		if !physical(name) {
			continue
		}
		queue := path.Join("sys/block", name, "queue")
		d := Disk{
			Name: name, Rotational: reading(from, queue+"/rotational"), Scheduler: reading(from, queue+"/scheduler"),
			ReadAhead: reading(from, queue+"/read_ahead_kb"), tunables: []string{queue + "/nr_requests", queue + "/wbt_lat_usec"},
		}
		own, _ := from.list(queue + "/iosched") // a scheduler need not have any
		for _, name := range own {
			d.tunables = append(d.tunables, path.Join(queue, "iosched", name))
		}
		f.Disks = append(f.Disks, d)
	}
	f.CPUs = cpus(from)
	supplies, _ := from.list("sys/class/power_supply")
	f.Battery = slices.ContainsFunc(supplies, func(name string) bool { return strings.HasPrefix(name, "BAT") })
	f.Mounts = mountPoints(from, folders)
	f.Fstab = reading(from, fstabFile)
	for _, wants := range []string{"etc/systemd/system/timers.target.wants", "usr/lib/systemd/system/timers.target.wants"} {
		timers, _ := from.list(wants)
		f.Trim = f.Trim || slices.Contains(timers, "fstrim.timer")
	}
	return f
}

// reading reads one file.
func reading(from files, name string) Reading {
	text, mode, err := from.read(name)
	return Reading{Text: text, ReadOnly: mode.Perm()&0o222 == 0, Err: err}
}

// trouble says why a setting cannot be told.
func (r Reading) trouble() string {
	if errors.Is(r.Err, fs.ErrNotExist) {
		return "this machine does not have it"
	}
	if errors.Is(r.Err, fs.ErrPermission) {
		return "this user may not read it"
	}
	return "it cannot be read: " + r.Err.Error()
}

// memory is the size of the machine's memory; 0 where it cannot be read.
func memory(from files) model.Bytes {
	text, _, err := from.read("proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "MemTotal:")
		if fields := strings.Fields(rest); ok && len(fields) == 2 {
			kb, err := strconv.ParseInt(fields[0], 10, 48)
			if err != nil || kb < 0 || fields[1] != "kB" {
				return 0
			}
			return model.Bytes(kb) * model.KiB
		}
	}
	return 0
}

// physical reports whether a block device is a disk, and not made of files, of memory or of other disks.
func physical(name string) bool {
	for _, made := range []string{"loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "drbd", "zd", "bcache"} {
		if strings.HasPrefix(name, made) {
			return false
		}
	}
	return true
}

// cpus are the processors whose speed can be governed, by their numbers.
func cpus(from files) []CPU {
	var all []CPU
	names, _ := from.list("sys/devices/system/cpu")
	names = slices.DeleteFunc(names, func(name string) bool { return number(name) < 0 })
	slices.SortFunc(names, func(a, b string) int { return number(a) - number(b) })
	for _, name := range names {
		dir := path.Join("sys/devices/system/cpu", name, "cpufreq")
		governor := reading(from, dir+"/scaling_governor")
		if errors.Is(governor.Err, fs.ErrNotExist) {
			continue
		}
		all = append(all, CPU{Name: name, Governor: governor, Available: reading(from, dir+"/scaling_available_governors")})
	}
	return all
}

// number is the number in "cpu12"; -1 when it is no such name.
func number(name string) int {
	digits, ok := strings.CutPrefix(name, "cpu")
	n, err := strconv.ParseUint(digits, 10, 31)
	if !ok || err != nil {
		return -1
	}
	return int(n)
}

// modules are the names of what that release of the kernel has built in or could load, in lines.
func modules(from files, release string) string {
	if release == "" || strings.Contains(release, "/") {
		return ""
	}
	var all strings.Builder
	for _, dir := range []string{"lib/modules", "usr/lib/modules"} {
		for _, name := range []string{"modules.builtin", "modules.dep"} {
			if text, _, err := from.read(path.Join(dir, release, name)); err == nil {
				all.WriteString(text + "\n")
			}
		}
		if all.Len() > 0 { // the one folder often is the other
			break
		}
	}
	return all.String()
}

// hasModule reports whether the kernel has that module built in or could load it.
func (f Facts) hasModule(name string) bool {
	for line := range strings.Lines(f.Modules) {
		file, _, _ := strings.Cut(strings.TrimSpace(line), ":") // what it needs follows
		base, _, _ := strings.Cut(path.Base(file), ".")
		if base == name {
			return true
		}
	}
	return false
}

// later are the sysctls that files set which are read after ema's own at the start of the machine.
func later(from files) map[string]string {
	found, seen := map[string]string{}, map[string]bool{}
	look := func(file string) {
		text, _, err := from.read(file)
		if err != nil {
			return
		}
		for key := range sysctlLines(text) {
			found[key] = file
		}
	}
	type drop struct{ base, file string }
	var drops []drop
	for _, dir := range []string{"etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d"} {
		names, _ := from.list(dir)
		for _, name := range names {
			if strings.HasSuffix(name, ".conf") && name > path.Base(sysctlFile) && !seen[name] {
				seen[name] = true // the first folder hides the others
				drops = append(drops, drop{name, path.Join(dir, name)})
			}
		}
	}
	slices.SortFunc(drops, func(a, b drop) int { return strings.Compare(a.base, b.base) })
	for _, d := range drops {
		look(d.file)
	}
	look("etc/sysctl.conf")
	return found
}

// sysctlLines are the settings in a file of sysctl.d, the last of each name.
func sysctlLines(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		key = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(key), "-"))
		if dot, slash := strings.IndexByte(key, '.'), strings.IndexByte(key, '/'); slash >= 0 && (dot < 0 || slash < dot) {
			key = strings.ReplaceAll(key, "/", ".") // both forms are allowed
		}
		if key != "" {
			all[key] = strings.TrimSpace(value)
		}
	}
	return all
}

// sysctlPath is where the kernel has a sysctl.
func sysctlPath(name string) string { return "proc/sys/" + strings.ReplaceAll(name, ".", "/") }

// counts reads counts that are separated by space, as the kernel writes them.
func counts(text string, want int) ([]int64, error) {
	fields := strings.Fields(text)
	if len(fields) != want {
		return nil, fmt.Errorf("%w: %q", errMalformed, text)
	}
	all := make([]int64, want)
	for i, field := range fields {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%w: %q", errMalformed, text)
		}
		all[i] = n
	}
	return all, nil
}
