// Package pgserver runs a real PostgreSQL server in a temporary folder, for tests and benchmarks.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrMissing says that the server's programs are not on this machine.
var ErrMissing = errors.New("the programs of a PostgreSQL server are not here; Debian has them in its package postgresql")

// A Server is a database cluster of its own. Its methods are not for concurrent use.
type Server struct {
	bin, data string
	port      int
	as        *syscall.Credential
	running   *exec.Cmd
}

// New makes a cluster in dir, which must be empty, and starts it. dir is removed by whoever made it, after Close. Without the
// server's programs the error is ErrMissing.
func New(ctx context.Context, dir string) (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, data: filepath.Join(dir, "cluster")}
	if err := s.beSomebodyElse(dir); err != nil {
		return nil, err
	}
	init := s.command(ctx, "initdb", "--pgdata", s.data, "--username", "ema", "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync")
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	if s.port, err = freePort(ctx); err != nil {
		return nil, err
	}
	return s, s.Start(ctx)
}

// programs is the folder with the server's programs, the newest where there are several.
func programs() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.Join(ErrMissing, err)
	}
	slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(found[len(found)-1]), nil
}

// version is the major version in the path of a program; 0 when there is none.
func version(path string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	if err != nil {
		return 0
	}
	return n
}

// beSomebodyElse finds another user for the server, which refuses to run as root, and lets that one into dir.
func (s *Server) beSomebodyElse(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		if who, err = user.Lookup("nobody"); err != nil {
			return err
		}
	}
	uid, err := strconv.Atoi(who.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(who.Gid)
	if err != nil {
		return err
	}
	s.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for above := filepath.Dir(dir); above != "/" && strings.HasPrefix(above, os.TempDir()+"/"); above = filepath.Dir(above) {
		if info, err := os.Stat(above); err != nil || info.Mode().Perm()&0o001 == 0 {
			if err := os.Chmod(above, 0o755); err != nil && !errors.Is(err, fs.ErrPermission) {
				return err
			}
		}
	}
	return os.Chown(dir, uid, gid)
}

// command is one of the server's programs, as the user that it runs as.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	c.Dir = filepath.Dir(s.data)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return c
}

// freePort is one that nobody listens at now.
func freePort(ctx context.Context) (int, error) {
	var set net.ListenConfig
	l, err := set.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// URL is the address of the server's own database.
func (s *Server) URL() string { return s.Database("postgres") }

// Database is the address of one of its databases.
func (s *Server) Database(name string) string {
	return fmt.Sprintf("postgres://ema@127.0.0.1:%d/%s?sslmode=disable", s.port, name)
}

// Create makes a database, and returns its address.
func (s *Server) Create(ctx context.Context, name string) (string, error) {
	c, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return "", err
	}
	_, err = c.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	return s.Database(name), errors.Join(err, c.Close(ctx))
}

// Start runs the server after Kill or Stop, and returns when it answers.
func (s *Server) Start(ctx context.Context) error {
	// Its own life: ctx is about starting.
	c := s.command(context.WithoutCancel(ctx), "postgres", "-D", s.data, "-h", "127.0.0.1", "-p", strconv.Itoa(s.port),
		"-c", "unix_socket_directories=", "-c", "max_connections=40", "-c", "shared_buffers=64MB")
	log, err := os.OpenFile(filepath.Join(filepath.Dir(s.data), "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the server has its own
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return err
	}
	s.running = c
	ctx, end := context.WithTimeout(ctx, time.Minute)
	defer end()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.URL())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			said, _ := os.ReadFile(log.Name()) // it only adds to the error
			return errors.Join(fmt.Errorf("the server does not answer: %w: %s", err, said), s.Kill())
		}
	}
}

// PID is the process of the server.
func (s *Server) PID() int { return s.running.Process.Pid }

// Kill ends the server at once, as a crash would.
func (s *Server) Kill() error { return s.end(syscall.SIGQUIT) }

// Close stops the server, also if it does not run.
func (s *Server) Close() error { return s.end(syscall.SIGINT) }

// end tells the server to end, and waits for it.
func (s *Server) end(sig os.Signal) error {
	if s.running == nil {
		return nil
	}
	err := s.running.Process.Signal(sig)
	_ = s.running.Wait() // by what it was told, it fails
	s.running = nil
	return err
}
