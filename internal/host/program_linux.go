package host

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ForgetProgram tells the kernel that what it has mapped of the program's own code and constants isn't needed at the moment. The kernel
// maps whatever lies around a page that is touched, so what ran once, at the start, counts as the process's memory until it ends.
// What is needed again comes back from the page cache. Only what nothing can have written to is let go of.
func ForgetProgram() error {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		var may string
		if !strings.HasSuffix(line, " "+self+"\n") {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &may); err != nil || strings.Contains(may, "w") {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("let go of the program's pages: %w", errno)
		}
	}
	return nil
}
