package trust

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A site is a server with a page that tries everything, and with all that the page tries.
type site struct {
	address string
	report  chan map[string]string // what the page says became of it

	mu   sync.Mutex
	came map[string]int // requests that a handler has answered, by path
}

// openSite serves a site; guard stands before it unless it is nil.
func openSite(t *testing.T, guard *Guard) *site {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("testdata", "page.html"))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{report: make(chan map[string]string, 1), came: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	mux.HandleFunc("POST /report", func(_ http.ResponseWriter, r *http.Request) {
		var said map[string]string
		if err := json.NewDecoder(r.Body).Decode(&said); err != nil {
			t.Error(err)
		}
		s.report <- said
	})
	count := func(r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.came[r.URL.Path]++
	}
	mux.HandleFunc("/drive/", func(w http.ResponseWriter, r *http.Request) { count(r); fmt.Fprint(w, "driven") })
	mux.HandleFunc("GET /read/", func(w http.ResponseWriter, r *http.Request) {
		count(r)
		switch r.URL.Path {
		case "/read/image":
			w.Header().Set("Content-Type", "image/svg+xml")
			fmt.Fprint(w, `<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>`)
		case "/read/script":
			w.Header().Set("Content-Type", "text/javascript")
		case "/read/stream":
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: secret\n\n")
		default:
			fmt.Fprint(w, "secret")
		}
	})
	mux.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) {
		count(r)
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"ema"}, InsecureSkipVerify: true}) // the guard looks at the origin
		if err != nil {
			return
		}
		_ = conn.Write(r.Context(), websocket.MessageText, []byte("secret"))
		_ = conn.Close(websocket.StatusNormalClosure, "")
	})
	var h http.Handler = mux
	if guard != nil {
		h = guard.Wrap(mux)
	}
	l := listen(t, TLS{})
	serve(t, l, h, Patience{})
	s.address = l.Addr().String()
	return s
}

// seen are the paths that a handler has answered.
func (s *site) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.came))
}

// chromium is the path of a browser.
func chromium(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no chromium on this machine; .ci/run installs it")
		}
		t.Skip("there is no chromium on this machine")
	}
	return path
}

// browse shows an address in a fresh browser for as long as until takes.
func browse(t *testing.T, address string, until func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	folder := t.TempDir()
	browser := exec.CommandContext(ctx, chromium(t),
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--user-data-dir="+folder,
		// Every name is this machine, so that nothing goes out, and evil.example is what a rebound name is.
		"--host-resolver-rules=MAP * 127.0.0.1", address)
	browser.Env = append(os.Environ(), "HOME="+folder)
	browser.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its processes end together
	browser.Cancel = func() error { return syscall.Kill(-browser.Process.Pid, syscall.SIGKILL) }
	browser.WaitDelay = 10 * time.Second
	var said strings.Builder
	browser.Stderr = &said
	if err := browser.Start(); err != nil {
		t.Fatal(err)
	}
	until()
	stop()
	if err := browser.Wait(); err != nil && ctx.Err() == nil {
		t.Errorf("%v: %s", err, said.String())
	}
}

// visit shows the page of a site, which tries everything with target, and returns what the page says.
func (s *site) visit(t *testing.T, as string, query url.Values) (said map[string]string) {
	t.Helper()
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatal(err)
	}
	browse(t, "http://"+net.JoinHostPort(as, port)+"/page?"+query.Encode(), func() {
		select {
		case said = <-s.report:
		case <-time.After(90 * time.Second):
			t.Error("the page says nothing")
		}
	})
	return said
}

func everything() []string {
	return []string{
		"/drive/beacon", "/drive/delete", "/drive/form", "/drive/json", "/drive/text",
		"/read/fetch", "/read/frame", "/read/image", "/read/no-cors", "/read/script", "/read/stream", "/ws",
	}
}

func TestInABrowserAPageOfAnotherOriginCanNeitherReadNorDrive(t *testing.T) {
	evil := openSite(t, nil)
	for _, from := range []string{"127.0.0.1", "localhost", "evil.example"} {
		t.Run("from "+from, func(t *testing.T) {
			guard, err := New(Settings{Loopback: true})
			if err != nil {
				t.Fatal(err)
			}
			victim := openSite(t, guard)
			said := evil.visit(t, from, url.Values{"target": {"http://" + victim.address}})
			if came := victim.seen(); len(came) > 0 {
				t.Errorf("it got through to %q", came)
			}
			for try, result := range said {
				if strings.Contains(result, "secret") || strings.Contains(result, "driven") {
					t.Errorf("%s: it reads %q", try, result)
				}
			}
		})
	}
	// What the guard is for: without it the same page does both.
	victim := openSite(t, nil)
	said := evil.visit(t, "evil.example", url.Values{"target": {"http://" + victim.address}})
	for _, path := range []string{"/drive/beacon", "/drive/form", "/drive/text", "/read/fetch", "/read/frame", "/read/image", "/read/no-cors", "/read/script", "/ws"} {
		if !slices.Contains(victim.seen(), path) {
			t.Errorf("without a guard nothing reaches %s: this test proves nothing about it (the page says %v)", path, said)
		}
	}
	if said["socket"] != "ema secret" {
		t.Errorf("without a guard the page reads %q", said["socket"])
	}
}

func TestInABrowserANameThatWasMadeToPointHereIsRefused(t *testing.T) {
	guard, err := New(Settings{Loopback: true, Open: []string{"/page"}})
	if err != nil {
		t.Fatal(err)
	}
	inner := guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it got through") }))
	answered := make(chan int, 10)
	l := listen(t, TLS{})
	serve(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := &statusOf{ResponseWriter: w}
		inner.ServeHTTP(status, r)
		answered <- status.code
	}), Patience{})
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	browse(t, "http://evil.example:"+port+"/page", func() {
		select {
		case code := <-answered:
			if code != http.StatusForbidden {
				t.Errorf("answered %d", code)
			}
		case <-time.After(90 * time.Second):
			t.Error("the browser never came")
		}
	})
}

// statusOf remembers the status of an answer.
type statusOf struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter.
func (s *statusOf) WriteHeader(code int) { s.code = code; s.ResponseWriter.WriteHeader(code) }

func TestInABrowserOurOwnPageCanDoEverything(t *testing.T) {
	guard, err := New(Settings{Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	own := openSite(t, guard)
	said := own.visit(t, "localhost", nil)
	if came := own.seen(); !slices.Equal(came, everything()) {
		t.Errorf("it got through to %q; it says %v", came, said)
	}
	if said["read"] != "200 secret" || said["socket"] != "ema secret" || said["stream"] != "secret" {
		t.Errorf("it reads %v", said)
	}
}

func TestInABrowserOurOwnPageShowsItsKeyAlsoForAWebSocket(t *testing.T) {
	s := keyed()
	s.Open = []string{"/page", "/report"}
	guard, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	own := openSite(t, guard)
	said := own.visit(t, "127.0.0.1", url.Values{"key": {"useruser"}})
	if came := own.seen(); !slices.Equal(came, []string{"/drive/delete", "/drive/json", "/read/fetch", "/ws"}) {
		t.Errorf("with a key where one can be shown it got through to %q; it says %v", came, said)
	}
	if said["read"] != "200 secret" || said["post JSON"] != "200 driven" || said["socket"] != "ema secret" {
		t.Errorf("it reads %v", said)
	}
}

func TestInABrowserAListedOriginReadsAndDrives(t *testing.T) {
	board := openSite(t, nil)
	_, port, err := net.SplitHostPort(board.address)
	if err != nil {
		t.Fatal(err)
	}
	s := keyed()
	s.AllowedOrigins = []string{"http://board.example:" + port}
	guard, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	server := openSite(t, guard)
	said := board.visit(t, "board.example", url.Values{"target": {"http://" + server.address}, "key": {"useruser"}})
	if said["read"] != "200 secret" || said["post JSON"] != "200 driven" || said["delete"] != "200 driven" || said["socket"] != "ema secret" {
		t.Errorf("a listed origin reads %v", said)
	}
	if said["post text"] == "200 driven" || slices.Contains(server.seen(), "/drive/text") || slices.Contains(server.seen(), "/drive/form") {
		t.Errorf("without a key it got through to %q", server.seen())
	}
}
