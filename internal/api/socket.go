package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// socketName is the daemon's socket in the state folder of its store.
const socketName = "daemon.sock"

// longestAddress is how long the path of a socket may be; the kernel's limit is 107 bytes.
const longestAddress = 100

// Socket is the path of the socket of the daemon whose state folder that is.
func Socket(stateDir string) string { return filepath.Join(stateDir, socketName) }

// Listen makes the socket of a daemon. Only processes of the same user, and of root, can talk through it. What a
// killed daemon left is replaced, so the caller must own the store. Closing the listener removes the socket.
func Listen(stateDir string) (net.Listener, error) {
	path := Socket(stateDir)
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	address, done, err := short(fresh)
	if err != nil {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	l.SetUnlinkOnClose(false) // it gets another name
	err = os.Chmod(fresh, 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for commands: %w", err), l.Close())
	}
	return &guarded{l, path}, nil
}

// short is an address for the socket at path, whatever the length of path: through the opened folder, until done.
func short(path string) (address string, done func(), err error) {
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
	address, done, err := short(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", address)
}

// A guarded listener hears no other users.
type guarded struct {
	*net.UnixListener
	path string
}

// Accept waits for the next process that may talk to us.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		conn, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(conn); err == nil && (uid == 0 || uid == uint32(os.Geteuid())) {
			return conn, nil
		}
		_ = conn.Close() //nolint:errcheck // nothing was said yet
	}
}

// Close stops listening and removes the socket.
func (g *guarded) Close() error {
	err := os.Remove(g.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, g.UnixListener.Close())
}

// peer is the user at the other end.
func peer(conn *net.UnixConn) (uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
