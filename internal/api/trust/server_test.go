package trust

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// door is the server of a daemon on loopback, with what a test needs behind the guard.
func door(t testing.TB, s Settings) http.Handler {
	t.Helper()
	g, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /body", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil {
			http.Error(w, "the body ended early", http.StatusRequestTimeout)
			return
		}
		fmt.Fprint(w, n)
	})
	mux.HandleFunc("GET /models/{model...}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PathValue("model")) })
	mux.Handle("GET /files/", http.StripPrefix("/files/", http.FileServerFS(fstest.MapFS{"inside.txt": {Data: []byte("inside")}})))
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		select { // longer than any patience for bodies
		case <-time.After(300 * time.Millisecond):
			fmt.Fprint(w, "slow")
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /slow", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(300 * time.Millisecond):
			fmt.Fprint(w, "slow")
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("GET /endless", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	return g.Wrap(mux)
}

const head = " HTTP/1.1\r\nHost: 127.0.0.1\r\n"

func TestWhoSendsSlowlyOrNothingLosesTheConnection(t *testing.T) {
	l := listen(t, TLS{})
	serve(t, l, door(t, Settings{Loopback: true}), Patience{Header: 100 * time.Millisecond, Body: 100 * time.Millisecond, Idle: 100 * time.Millisecond})
	for what, c := range map[string]struct {
		text, drip string
		want       []int
	}{
		"nothing":                   {"", "", []int{0}},
		"half a head":               {"GET /models/a" + head, "X: y\r\n", []int{0}},
		"half a body":               {"POST /body" + head + "Content-Length: 10000\r\n\r\n", "x", []int{408}},
		"half a chunked body":       {"POST /body" + head + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", []int{408}},
		"a body that nobody reads":  {"POST /none" + head + "Content-Length: 10000\r\n\r\n", "x", []int{404}},
		"nothing after one request": {"GET /models/a" + head + "\r\n", "", []int{200}},
	} {
		t.Run(what, func(t *testing.T) {
			conn := dial(t, l)
			begin := time.Now()
			over := make(chan struct{})
			go func() { // a byte now and then, which must not buy more time
				defer close(over)
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for range tick.C {
					if _, err := io.WriteString(conn, c.drip); err != nil || time.Since(begin) > 5*time.Second || c.drip == "" {
						return
					}
				}
			}()
			got := say(t, conn, c.text)
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays")
			}
			if took := time.Since(begin); got != c.want[0] || took > 3*time.Second {
				t.Errorf("answered %d, ended after %v", got, took)
			}
			_ = conn.Close()
			<-over
		})
	}
}

func TestWhoReadsSlowlyLosesTheConnection(t *testing.T) {
	l := listen(t, TLS{})
	ended := make(chan struct{})
	inner := door(t, Settings{Loopback: true})
	serve(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		inner.ServeHTTP(w, r)
	}), Patience{Answer: 100 * time.Millisecond})
	conn := dial(t, l)
	if _, err := io.WriteString(conn, "GET /endless"+head+"\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the handler writes on and on")
	}
}

func TestASlowAnswerIsNotCutByThePatienceForBodies(t *testing.T) {
	l := listen(t, TLS{})
	serve(t, l, door(t, Settings{Loopback: true}), Patience{Header: 50 * time.Millisecond, Body: 50 * time.Millisecond})
	conn := dial(t, l)
	for _, request := range []string{"GET /slow" + head + "\r\n", "POST /slow" + head + "Content-Length: 2\r\n\r\nxx", "GET /slow" + head + "\r\n"} {
		if got := say(t, conn, request); got != 200 {
			t.Errorf("%.10q is answered %d", request, got)
		}
	}
}

func TestWhatIsTooLargeIsRefused(t *testing.T) {
	l := listen(t, TLS{})
	serve(t, l, door(t, Settings{Loopback: true}), Patience{})
	for what, c := range map[string]struct {
		text string
		want int
	}{
		"a body of 1 MiB":        {"POST /body" + head + "Content-Length: 1048576\r\n\r\n" + strings.Repeat("x", 1<<20), 200},
		"one byte more":          {"POST /body" + head + "Content-Length: 1048577\r\n\r\n" + strings.Repeat("x", 1<<20+1), 413},
		"a chunked body of more": {"POST /body" + head + "Transfer-Encoding: chunked\r\n\r\n100001\r\n" + strings.Repeat("x", 1<<20+1) + "\r\n0\r\n\r\n", 413},
		"a header of 60 KiB":     {"GET /models/a" + head + "X: " + strings.Repeat("x", 60<<10) + "\r\n\r\n", 200},
		"a header of 80 KiB":     {"GET /models/a" + head + "X: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", 431},
		"many headers":           {"GET /models/a" + head + strings.Repeat("X: y\r\n", 20<<10) + "\r\n", 431},
		"a path of 80 KiB":       {"GET /" + strings.Repeat("x", 80<<10) + head + "\r\n", 431},
	} {
		if got := say(t, dial(t, l), c.text); got != c.want {
			t.Errorf("%s is answered %d, want %d", what, got, c.want)
		}
	}
}

func TestNoPathLeadsOutside(t *testing.T) {
	l := listen(t, TLS{})
	s := keyed()
	s.Open = []string{"/files/"}
	serve(t, l, door(t, s), Patience{})
	for target, want := range map[string]int{
		"/files/inside.txt": 200, "/files/../files/inside.txt": 400, "/files/../../etc/passwd": 400, "/../../etc/passwd": 400, "/files/..%2f..%2fetc/passwd": 400,
		"/files/%2e%2e/%2e%2e/etc/passwd": 400, "/files/..%5c..%5cetc/passwd": 400, "/files/%2e%2e%2fmodels/a": 400, "//files/inside.txt": 401,
		"/files/%2fetc%2fpasswd": 404, "/files/inside.txt%00": 400, "/files//etc/passwd": 307, "/models/org%2Fname": 401, "/%66iles/inside.txt": 404,
		"http://127.0.0.1/files/inside.txt": 200, "http://evil.example/files/inside.txt": 403, "/%zz": 400, "*": 401, "": 400,
	} {
		if got := say(t, dial(t, l), "GET "+target+head+"Connection: close\r\n\r\n"); got != want {
			t.Errorf("GET %s is answered %d, want %d", target, got, want)
		}
	}
	for target, want := range map[string]string{"/models/org%2Fname": "org/name", "/models/org/name": "org/name", "/models/a..b": "a..b"} {
		conn := dial(t, l)
		if _, err := io.WriteString(conn, "GET "+target+head+"Authorization: Bearer useruser\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 200") || !strings.HasSuffix(string(all), "\r\n\r\n"+want) {
			t.Errorf("%s: %q, %v", target, all, err)
		}
	}
	for _, hosts := range []string{"", "Host: 127.0.0.1\r\nHost: evil.example\r\n", "Host: evil.example\r\n"} {
		if got := say(t, dial(t, l), "GET /files/inside.txt HTTP/1.1\r\n"+hosts+"\r\n"); got != 400 && got != 403 {
			t.Errorf("%q is answered %d", hosts, got)
		}
	}
}

// serveUntilStdinEnds is a daemon's door in a process of its own. It prints its address.
func serveUntilStdinEnds() error {
	l, err := Listen(context.Background(), "127.0.0.1:0", TLS{}, false, false)
	if err != nil {
		return err
	}
	g, err := New(Settings{Loopback: true})
	if err != nil {
		return err
	}
	s := HTTPServer(g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") })), Patience{}, quiet())
	fmt.Println(l.Addr())
	over := make(chan error, 1)
	go func() { over <- s.Serve(l) }()
	_, err = io.Copy(io.Discard, os.Stdin)
	err = errors.Join(err, s.Close())
	if served := <-over; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// resident is how much memory a process has, in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kB, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

func TestTenThousandIdleConnectionsCostBoundedMemoryAndHinderNobody(t *testing.T) {
	most := 48 << 10 // bytes for each: about twice what they cost
	if raceDetector {
		most = 192 << 10
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	connections := 10_000
	if room := max(int(limit.Cur)-othersFiles, int(limit.Cur)/2) - 50; room < connections {
		t.Logf("the limit of open files is %d: tested with %d connections", limit.Cur, room)
		connections = room
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	server := exec.CommandContext(t.Context(), self)
	server.Env = append(os.Environ(), asServer+"=yes")
	server.Stderr = os.Stderr
	stdin, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(stdin.Close(), server.Wait()); err != nil {
			t.Error(err)
		}
	}()
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimSpace(address)
	ask := func(conn net.Conn) error {
		if _, err := io.WriteString(conn, "GET /"+head+"\r\n"); err != nil {
			return err
		}
		answer := make([]byte, 4096)
		n, err := conn.Read(answer) // small enough to come at once
		if err == nil && !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 200") {
			err = fmt.Errorf("answered %q", answer[:n])
		}
		return err
	}
	before := resident(t, server.Process.Pid)
	all := make([]net.Conn, connections)
	for i := range all {
		var d net.Dialer
		if all[i], err = d.DialContext(t.Context(), "tcp", address); err == nil {
			defer all[i].Close() //nolint:errcheck // nothing is lost with it
			err = errors.Join(all[i].SetDeadline(time.Now().Add(90*time.Second)), ask(all[i]))
		}
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	after := resident(t, server.Process.Pid)
	t.Logf("%d idle connections: %d KiB each, %d MiB in all", connections, (after-before)/connections>>10, after>>20)
	if after-before > connections*most {
		t.Errorf("%d idle connections cost %d KiB each", connections, (after-before)/connections>>10)
	}
	for _, conn := range []net.Conn{all[0], all[connections/2], all[connections-1]} {
		if err := ask(conn); err != nil {
			t.Errorf("one of them asks again: %v", err)
		}
	}
	begin := time.Now()
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + address + "/")
	if err != nil {
		t.Fatalf("who comes meanwhile: %v", err)
	}
	if err := res.Body.Close(); err != nil || time.Since(begin) > 5*time.Second {
		t.Errorf("who comes meanwhile waits %v: %v", time.Since(begin), err)
	}
}
