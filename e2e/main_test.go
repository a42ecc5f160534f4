// Package e2e tests the promises through the doors: real binaries, real processes, real clients.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// binary is the ema that all tests run; TestMain builds it.
var binary string

func TestMain(m *testing.M) {
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "build ema:", err)
		code = 1
	}
	os.Exit(code)
}

func build(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "ema-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "ema")
	out, err := exec.Command("go", "build", "-o", binary, "ema/cmd/ema").CombinedOutput()
	if err != nil {
		return 1, fmt.Errorf("%w\n%s", err, out)
	}
	return m.Run(), nil
}

// inFlight is the send buffer of the hub's connections: what is in it when a client dies counts as sent.
const inFlight = 64 << 10

// A world is a hub over sockets, and a home with a cache for processes that pull from it.
type world struct {
	hub  *demohub.Hub
	url  string
	home string
}

func newWorld(t testing.TB, opts ...demohub.Option) *world {
	t.Helper()
	hub := demohub.New(opts...)
	if err := hub.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(hub)
	srv.Listener = buffered{srv.Listener}
	srv.Start()
	t.Cleanup(srv.Close)
	return &world{hub: hub, url: srv.URL, home: t.TempDir()}
}

// buffered accepts connections with a small send buffer.
type buffered struct{ net.Listener }

func (b buffered) Accept() (net.Conn, error) {
	conn, err := b.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		err = errors.Join(err, tcp.SetWriteBuffer(inFlight))
	}
	return conn, err
}

func (w *world) cache() string { return filepath.Join(w.home, "hub") }

// A process is one run of ema.
type process struct {
	*exec.Cmd
	out, err buffer
}

// buffer is what a process prints, readable while it runs.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// command prepares ema in this world, with nothing of the user's own environment. It is killed when
// the test ends.
func (w *world) command(t testing.TB, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.CommandContext(t.Context(), binary, args...)}
	p.Env = []string{"HOME=" + w.home, "HF_HUB_CACHE=" + w.cache(), "HF_ENDPOINT=" + w.url, "PATH=" + os.Getenv("PATH"), "NO_COLOR=1"}
	p.Stdout, p.Stderr = &p.out, &p.err
	p.WaitDelay = 10 * time.Second
	return p
}

func (w *world) start(t testing.TB, args ...string) *process {
	t.Helper()
	p := w.command(t, args...)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// end waits for a process and returns its exit code; -1 when a signal ended it.
func (p *process) end(t testing.TB) int {
	t.Helper()
	err := p.Wait()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		t.Fatalf("%v\n%s", err, p.err.String())
	}
	return p.ProcessState.ExitCode()
}

// run runs ema to its end and returns what it prints; another exit code than want fails the test.
func (w *world) run(t testing.TB, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	p := w.start(t, args...)
	if code := p.end(t); code != want {
		t.Fatalf("ema %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, p.out.String(), p.err.String())
	}
	return p.out.String(), p.err.String()
}

// pull pulls a model and returns the path that was printed.
func (w *world) pull(t testing.TB, args ...string) string {
	t.Helper()
	out, _ := w.run(t, 0, append([]string{"pull"}, args...)...)
	path, ok := strings.CutSuffix(out, "\n")
	if !ok || !filepath.IsAbs(path) || strings.Contains(path, "\n") {
		t.Fatalf("pull printed %q, want one path", out)
	}
	return path
}

// holds fails the test unless a snapshot has exactly these files, by hashes that are computed here.
func holds(t testing.TB, dir string, entries []demohub.Entry) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return err
	})
	if err != nil || n != len(entries) {
		t.Errorf("%d files, want %d; %v", n, len(entries), err)
	}
	for _, e := range entries {
		want, err := e.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := hashOf(filepath.Join(dir, e.Path), want); err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", e.Path, got, err, want)
		}
	}
}

func hashOf(name string, like model.Digest) (model.Digest, error) {
	f, err := os.Open(name)
	if err != nil {
		return model.Digest{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return model.Digest{}, err
	}
	h := like.NewHash(info.Size())
	_, err = io.Copy(h, f)
	return like.Sum(h), err
}

func sizeOf(entries []demohub.Entry) (sum int64) {
	for _, e := range entries {
		sum += e.Size()
	}
	return sum
}

func parts(entries []demohub.Entry) []demohub.Part {
	all := make([]demohub.Part, len(entries))
	for i, e := range entries {
		all[i] = e
	}
	return all
}

func generate(t testing.TB, spec string) []demohub.Entry {
	t.Helper()
	entries, err := demohub.Generate(spec)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// until waits for a condition, and fails the test when it does not come.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// lock takes the lock by which other tools say that they fetch a blob.
func (w *world) lock(t testing.TB, id model.ID, e demohub.Entry) (unlock func()) {
	t.Helper()
	d, err := e.Digest()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(w.cache(), ".locks", id.DirName(), d.Hex()+".lock")
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
