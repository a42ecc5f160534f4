package api

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"ema/client"
)

// strangerEnv makes a process of this test say something to the socket that it names, as another user.
const strangerEnv = "EMA_TEST_SOCKET_OF_ANOTHER"

func TestTheSocketHearsNoOtherUser(t *testing.T) {
	if path := os.Getenv(strangerEnv); path != "" {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write([]byte("x")) // the other side may have hung up already
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Fatalf("it answered: %d, %v", n, err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	// A folder that everybody can enter, so that only the socket itself keeps others out.
	dir, err := os.MkdirTemp("", "ema-socket")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self := filepath.Join(dir, "test")
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, self: 0o755} {
		if path == self {
			err = os.WriteFile(path, program, mode)
		} else {
			err = os.Chmod(path, mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan error, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				heard <- err
				return
			}
			_, _ = io.WriteString(conn, "hello") // whoever is heard gets an answer
			_ = conn.Close()
		}
	}()
	ask := func(uid uint32) error {
		cmd := exec.Command(self, "-test.run=^TestTheSocketHearsNoOtherUser$")
		cmd.Env = append(os.Environ(), strangerEnv+"="+client.Socket(dir))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd.Run()
	}
	const nobody = 65534
	if ask(nobody) == nil {
		t.Error("another user could connect to a socket of mode 0600")
	}
	if err := os.Chmod(client.Socket(dir), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := ask(nobody); err != nil {
		t.Errorf("another user was heard once the mode let it connect: %v", err)
	}
	if ask(0) == nil {
		t.Error("our own user was not heard")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-heard
}
