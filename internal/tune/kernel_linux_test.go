package tune

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideEnv names the root that the process inside of a network of its own works in.
const insideEnv = "EMA_TEST_TUNE_ROOT"

// The real kernel, without touching what others on this machine use: a process in a network of its own has sysctls of its
// own, and sees them below a made-up root.
func TestARealKernelIsTakenBack(t *testing.T) {
	if root := os.Getenv(insideEnv); root != "" {
		inside(t, root)
		return
	}
	s := newStand(t, map[string]string{"etc/fstab": fstab, "proc/meminfo": ordinary()["proc/meminfo"]})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestARealKernelIsTakenBack$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"="+s.root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	switch {
	case cmd.Process == nil:
		t.Skipf("no network of its own can be had here: %v", err)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skip(string(out))
	case err != nil || !strings.Contains(string(out), "--- PASS"):
		t.Fatalf("%v\n%s", err, out)
	}
}

func inside(t *testing.T, root string) {
	net := filepath.Join(root, "proc/sys/net")
	if err := os.MkdirAll(net, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skipf("mounts cannot be made private: %v", err)
	}
	if err := unix.Mount("/proc/sys/net", net, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Skipf("/proc/sys/net cannot be mounted elsewhere: %v", err)
	}
	own := []string{"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}
	for _, name := range own { // as small as they come, so that there is something to advise
		if err := os.WriteFile(filepath.Join(root, sysctlPath(name)), []byte("4096 16384 4194304\n"), 0); err != nil {
			t.Skipf("%s cannot be written: %v", name, err)
		}
	}
	values := func() (all []string) {
		for _, name := range sysctlNames() {
			b, err := os.ReadFile(filepath.Join(root, sysctlPath(name)))
			all = append(all, fmt.Sprintf("%s %q %v", name, b, err))
		}
		return all
	}
	was := values()
	s := stand{root, filepath.Join(t.TempDir(), "tune")}
	m := s.open(t)
	changed, err := m.Apply(t.Context(), advice(m), false)
	if err != nil || len(changed) < 3 {
		t.Fatalf("%v, %v", changed, err)
	}
	if now := s.read(t, sysctlPath(own[0])); now != "4096\t87380\t134217728\n" {
		t.Errorf("the kernel has %q", now)
	}
	for _, one := range advice(m) {
		if one.Status == Advised {
			t.Errorf("still advised: %+v", one)
		}
	}
	if _, err := m.Rollback(t.Context(), Areas(), false); err != nil {
		t.Fatal(err)
	}
	if now := values(); !slices.Equal(was, now) {
		t.Errorf("was %v\nis %v", was, now)
	}
	if entries, err := os.ReadDir(filepath.Join(root, "etc")); err != nil || len(entries) != 1 {
		t.Errorf("in etc: %v, %v", entries, err)
	}
}
