package host

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An inode tells files apart that have several names.
type inode struct{ device, number uint64 }

// FilesInUse are the files that other processes had open or mapped at one moment.
type FilesInUse struct {
	open   map[inode]bool
	mapped map[uint64][]string // paths by inode: maps of some file systems name a device that no file has
	blind  bool                // there are processes that may not be looked at
}

// LookForFilesInUse looks once which files other processes have open or mapped. It is for many questions at once; what is opened
// later it does not see.
func LookForFilesInUse() (*FilesInUse, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	o := &FilesInUse{open: map[inode]bool{}, mapped: map[uint64][]string{}}
	self := os.Getpid()
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == self {
			continue
		}
		if err := o.look(filepath.Join("/proc", e.Name())); err != nil && !gone(err) {
			o.blind = true
		}
	}
	return o, nil
}

// gone reports whether a process has ended while it was looked at.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// look notes what one process has open and mapped.
func (o *FilesInUse) look(proc string) error {
	dir := filepath.Join(proc, "fd")
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, f.Name()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			o.open[inode{st.Dev, st.Ino}] = true
		}
	}
	f, err := os.Open(filepath.Join(proc, "maps"))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		o.mapping(lines.Text())
	}
	return lines.Err()
}

// mapping notes a line of maps: address, mode, offset, device, inode, path; see proc_pid_maps(5).
func (o *FilesInUse) mapping(line string) {
	part := strings.Fields(line)
	if len(part) < 6 {
		return
	}
	at := strings.Index(line, "/")
	number, err := strconv.ParseUint(part[4], 10, 64)
	major, minor, ok := strings.Cut(part[3], ":")
	if err != nil || !ok || at < 0 || number == 0 {
		return
	}
	high, errHigh := strconv.ParseUint(major, 16, 32)
	low, errLow := strconv.ParseUint(minor, 16, 32)
	if errHigh == nil && errLow == nil {
		o.open[inode{unix.Mkdev(uint32(high), uint32(low)), number}] = true
	}
	o.mapped[number] = append(o.mapped[number], line[at:])
}

// Sees reports whether a process that may be looked at had a file open or mapped.
func (o *FilesInUse) Sees(path string) bool {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return false // it is not there
	}
	if o.open[inode{st.Dev, st.Ino}] {
		return true
	}
	if len(o.mapped[st.Ino]) == 0 {
		return false
	}
	real, err := filepath.EvalSymlinks(path)
	return err == nil && slices.Contains(o.mapped[st.Ino], real)
}

// Has reports whether a process had a file open or mapped, or may have had. Of processes that may not be looked at, a lease
// tells (fcntl(2)): the kernel grants it only where nobody, this process included, has the file open. What nobody can tell
// counts as open.
func (o *FilesInUse) Has(path string) bool {
	if o.Sees(path) {
		return true
	}
	var st unix.Stat_t
	return o.blind && unix.Stat(path, &st) == nil && !leased(path)
}

// leased reports whether the kernel grants a lease of a file, which it gives back at once: then nobody has it open.
func leased(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return err == nil
}
