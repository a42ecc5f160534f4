package tune

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A tree is what is below a folder: the content of each file and folder, with its mode.
type tree map[string]string

func treeOf(t testing.TB, root string) tree {
	t.Helper()
	all := tree{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			content = string(b)
			if strings.HasPrefix(name, filepath.Join(root, "etc")) { // the kernel's files have no times of their own
				content += " of " + info.ModTime().String()
			}
		}
		all[name] = info.Mode().String() + " " + content
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (was tree) same(t interface{ Errorf(string, ...any) }, now tree) {
	for name := range maps.Keys(now) {
		if _, ok := was[name]; !ok {
			t.Errorf("%s is new: %q", name, now[name])
		}
	}
	for name, content := range was {
		if now[name] != content {
			t.Errorf("%s was %q and is %q", name, content, now[name])
		}
	}
}

// made makes files below a root, each with its folders.
func made(t testing.TB, root string, all map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(all[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	mountinfo = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n31 22 259:1 / /fast\\040nvme rw,relatime - xfs /dev/nvme0n1p1 rw,attr2\n"
	fstab     = "# what is mounted\nUUID=1 / ext4 defaults 0 1\n/dev/nvme0n1p1\t/fast\\040nvme  xfs\tdefaults,nofail 0 2\nUUID=3 none swap sw 0 0"
)

// ordinary is a machine as it comes: 64 GiB, one disk of each kind, two processors, nothing tuned.
func ordinary() map[string]string {
	all := map[string]string{
		"proc/meminfo":              "MemTotal:       67108864 kB\nMemFree: 1 kB\n",
		"proc/self/mountinfo":       mountinfo,
		"proc/sys/kernel/osrelease": "6.1.0\n",
		"lib/modules/6.1.0/modules.dep": "kernel/net/ipv4/tcp_bbr.ko.zst:\nkernel/net/sched/sch_fq.ko:\n" +
			"kernel/net/sched/sch_fq_codel.ko: kernel/x.ko\n",
		"etc/fstab":       fstab,
		"etc/sysctl.conf": "# nothing\n",
	}
	for name, text := range map[string]string{
		"net.core.rmem_max": "212992", "net.core.wmem_max": "212992", "net.ipv4.tcp_rmem": "4096\t131072\t6291456",
		"net.ipv4.tcp_wmem": "4096\t16384\t4194304", "net.core.netdev_max_backlog": "1000", "net.core.default_qdisc": "pfifo_fast",
		congestion: "cubic", available: "reno cubic", allowed: "reno cubic", "vm.vfs_cache_pressure": "100",
		dirtyRatio: "20", backRatio: "10", dirtyBytes: "0", backBytes: "0",
	} {
		all[sysctlPath(name)] = text + "\n"
	}
	for name, queue := range map[string]map[string]string{
		"nvme0n1": {"scheduler": "none [mq-deadline] kyber bfq", "rotational": "0", "read_ahead_kb": "128", "nr_requests": "1023", "iosched/front_merges": "1"},
		"sda":     {"scheduler": "none mq-deadline kyber [bfq]", "rotational": "1", "read_ahead_kb": "128", "nr_requests": "256", "iosched/low_latency": "1"},
		"loop0":   {"scheduler": "[none] mq-deadline", "rotational": "0", "read_ahead_kb": "128"},
	} {
		for file, text := range queue {
			all[path.Join("sys/block", name, "queue", file)] = text + "\n"
		}
	}
	for _, cpu := range []string{"cpu0", "cpu1"} {
		dir := "sys/devices/system/cpu/" + cpu + "/cpufreq/"
		all[dir+"scaling_governor"] = "powersave\n"
		all[dir+"scaling_available_governors"] = "performance powersave\n"
	}
	return all
}

// A stand is a made-up machine with its backup.
type stand struct{ root, backup string }

func newStand(t testing.TB, all map[string]string) stand {
	t.Helper()
	dir := quickFolder(t)
	s := stand{filepath.Join(dir, "root"), filepath.Join(dir, "state", "tune")}
	if err := os.MkdirAll(s.root, 0o755); err != nil {
		t.Fatal(err)
	}
	made(t, s.root, all)
	return s
}

// quickFolder is a folder that is removed after the test: in memory where there is one, since each change waits for the
// disk, and these tests make thousands.
func quickFolder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ema-tune")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) // nothing depends on it
	return dir
}

func (s stand) open(t testing.TB) *Machine {
	t.Helper()
	m, err := Open(s.root, s.backup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() }) // only a folder that was read
	return m
}

func (s stand) read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func (s stand) write(t testing.TB, name, text string) {
	t.Helper()
	made(t, s.root, map[string]string{name: text})
}

// advice is what is advised about the machine.
func advice(m *Machine) []Setting {
	return Advise(m.Look([]string{"/fast nvme/models", "/var/models"}, Database{Postgres: true}))
}
