package host

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// holdFile is what the test's own program does as a child: it has a file open, or only mapped, until its input ends.
func holdFile(how, path string) int {
	f, err := os.Open(path)
	if err == nil && how == "mapped" {
		_, err = unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ, unix.MAP_PRIVATE)
		_ = f.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1)) // ends with the test
	return 0
}

func TestWhatAnotherProcessHasOpenOrMappedIsSeen(t *testing.T) {
	for _, how := range []string{"open", "mapped"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			path, link, other := filepath.Join(dir, "a file"), filepath.Join(dir, "link"), filepath.Join(dir, "other")
			for _, name := range []string{path, other} {
				if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(path, link); err != nil {
				t.Fatal(err)
			}
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			child := exec.CommandContext(t.Context(), self)
			child.Env = append(os.Environ(), "EMA_HOST_HOLD="+how, "EMA_HOST_FILE="+path)
			in, err := child.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := child.StdoutPipe()
			if err == nil {
				err = child.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fscanln(out, new(string)); err != nil {
				t.Fatal(err)
			}
			open, err := LookForFilesInUse()
			if err != nil {
				t.Fatal(err)
			}
			blind, sees := FilesInUse{blind: true}, FilesInUse{open: map[inode]bool{}, mapped: map[uint64][]string{}}
			if !open.Has(path) || !open.Sees(link) || open.Has(filepath.Join(dir, "none")) {
				t.Errorf("%v, by its link %v, what is not there %v", open.Has(path), open.Sees(link), open.Has(filepath.Join(dir, "none")))
			}
			if blind.Has(filepath.Join(dir, "none")) {
				t.Error("a file that is not there has a lease")
			}
			if how == "open" && !blind.Has(path) {
				t.Error("a lease does not tell that the file is open")
			}
			if err := in.Close(); err != nil {
				t.Error(err)
			}
			if err := child.Wait(); err != nil {
				t.Error(err)
			}
			mine, err := os.Open(other)
			if err != nil {
				t.Fatal(err)
			}
			if err := sees.look("/proc/self"); err != nil || !sees.Sees(other) || sees.Sees(path) {
				t.Errorf("looking at this process finds %v, %v, %v", sees.Sees(other), sees.Sees(path), err)
			}
			if err := mine.Close(); err != nil {
				t.Error(err)
			}
			if open, err := LookForFilesInUse(); err != nil || open.Has(path) || open.Has(other) {
				t.Errorf("when it has ended: %v, %v, %v", open.Has(path), open.Has(other), err)
			}
			if blind.Has(path) {
				t.Error("a lease is not granted of what nobody has open")
			}
		})
	}
}
