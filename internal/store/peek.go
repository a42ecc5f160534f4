package store

import "golang.org/x/sys/unix"

// peek reads the beginning of a small file of ours into buf. A listing reads thousands of them, and
// os.Open makes more than twice as many system calls, to find out whether it could poll the file.
func peek(name string, buf []byte) ([]byte, error) {
	var fd int
	err := retried(func() (err error) {
		fd, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) // opened for reading: nothing can be lost
	n := 0
	err = retried(func() (err error) {
		n, err = unix.Read(fd, buf) // of a regular file, only its end cuts a read short
		return err
	})
	return buf[:max(0, n)], err
}
