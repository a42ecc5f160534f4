package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"ema/client"
)

// Listen makes the socket of a daemon. Only processes of the same user, and of root, can talk through it. What a
// killed daemon left is replaced, so the caller must own the store. Closing the listener removes the socket.
func Listen(stateDir string) (net.Listener, error) {
	path := client.Socket(stateDir)
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	address, done, err := client.Address(fresh)
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
