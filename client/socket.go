package client

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// socketName is the daemon's socket in the state folder of its store.
const socketName = "daemon.sock"

// longestAddress is how long the path of a socket may be; the kernel's limit is 107 bytes.
const longestAddress = 100

// Socket is the path of the socket of the daemon whose state folder that is.
func Socket(stateDir string) string { return filepath.Join(stateDir, socketName) }

// Address is an address for the socket at path that fits into the kernel's bound, whatever the length of path: where it
// does not, it leads through the opened folder and is good until done is called. done is never nil unless err is not.
func Address(path string) (address string, done func(), err error) {
	if len(path) <= longestAddress {
		return path, func() {}, nil
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	address = "/proc/self/fd/" + strconv.Itoa(int(folder.Fd())) + "/" + filepath.Base(path)
	return address, func() { folder.Close() }, nil //nolint:errcheck // opened for reading: nothing can be lost
}

// dial connects to the socket at path.
func dial(ctx context.Context, path string) (net.Conn, error) {
	address, done, err := Address(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", address)
}
