package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// madeUp is a root with some files of the kernel.
func madeUp(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLinksThatAreUpAndTellTheirSpeedCount(t *testing.T) {
	for promise, c := range map[string]struct {
		files map[string]string
		want  float64
	}{
		"no card":                    {nil, 0},
		"one of a gigabit":           {map[string]string{"sys/class/net/eth0/operstate": "up\n", "sys/class/net/eth0/speed": "1000\n"}, 125e6},
		"one that is down":           {map[string]string{"sys/class/net/eth0/operstate": "down\n", "sys/class/net/eth0/speed": "1000\n"}, 0},
		"one that does not tell":     {map[string]string{"sys/class/net/eth0/operstate": "up\n", "sys/class/net/eth0/speed": "-1\n"}, 0},
		"one that tells nonsense":    {map[string]string{"sys/class/net/eth0/operstate": "up\n", "sys/class/net/eth0/speed": "fast\n"}, 0},
		"two, and one without speed": {map[string]string{"sys/class/net/a/operstate": "up", "sys/class/net/a/speed": "100", "sys/class/net/b/operstate": "up", "sys/class/net/b/speed": "1000", "sys/class/net/c/operstate": "up"}, 137.5e6},
	} {
		if got := New(madeUp(t, c.files), 1).LinkSpeed(); got != c.want {
			t.Errorf("%s: %g, want %g", promise, got, c.want)
		}
	}
}

func TestMemoryOfGraphicsCardsIsAddedUp(t *testing.T) {
	for promise, c := range map[string]struct {
		files       map[string]string
		used, total float64
	}{
		"no card":  {nil, 0, 0},
		"two":      {map[string]string{"sys/class/drm/card0/device/mem_info_vram_total": "1000\n", "sys/class/drm/card0/device/mem_info_vram_used": "10\n", "sys/class/drm/card1/device/mem_info_vram_total": "500", "sys/class/drm/card1/device/mem_info_vram_used": "5"}, 15, 1500},
		"half":     {map[string]string{"sys/class/drm/card0/device/mem_info_vram_total": "1000\n"}, 0, 0},
		"nonsense": {map[string]string{"sys/class/drm/card0/device/mem_info_vram_total": "much", "sys/class/drm/card0/device/mem_info_vram_used": "10\n"}, 0, 0},
	} {
		if used, total := New(madeUp(t, c.files), 1).GPUMemory(); used != c.used || total != c.total {
			t.Errorf("%s: %g of %g, want %g of %g", promise, used, total, c.used, c.total)
		}
	}
}

// What a device has done is what the kernel's own table says, between a look before and one after.
func TestADeviceHasDoneWhatTheKernelSays(t *testing.T) {
	dir := t.TempDir()
	before, err := DeviceOf(t.Context(), dir)
	if err != nil {
		t.Skipf("temporary files lie on no disk here: %v", err)
	}
	bytes := fromTable(t, before.Name)
	after, err := DeviceOf(t.Context(), dir)
	if err != nil || bytes < before.Bytes || bytes > after.Bytes || after.Operations < before.Operations || after.Busy < before.Busy {
		t.Errorf("%+v, by hand %g bytes, then %+v, %v", before, bytes, after, err)
	}
	if _, err := DeviceOf(t.Context(), filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("a folder that is not there: %v", err)
	}
	if _, err := DeviceOf(t.Context(), "/proc"); err == nil {
		t.Error("/proc lies on a device")
	}
}

// fromTable is what a device has read and written, by /proc/diskstats.
func fromTable(t *testing.T, name string) float64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		var major, minor, reads, merged, readSectors, readTime, writes, mergedWrites, writtenSectors float64
		var found string
		if n, _ := fmt.Sscan(line, &major, &minor, &found, &reads, &merged, &readSectors, &readTime, &writes, &mergedWrites, &writtenSectors); n == 10 && found == name { //nolint:errcheck // n says it
			return 512 * (readSectors + writtenSectors)
		}
	}
	t.Fatalf("no line of %s", name)
	return 0
}
