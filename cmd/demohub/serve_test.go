package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"ema/internal/demohub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs the command until the test ends, and returns its URL and a function that stops it at once.
func start(t *testing.T, args ...string) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	cmd := command(in)
	cmd.SetArgs(append(args, "--once-ready-print"))
	done := make(chan error, 1)
	go func() {
		err := cmd.ExecuteContext(ctx)
		_ = in.CloseWithError(err)
		done <- err
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !ok {
		t.Errorf("the first line is %q", line)
	}
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return url, stop
}

func do(t *testing.T, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if closeErr := res.Body.Close(); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
	return res.StatusCode, string(body)
}

func TestServesAMadeUpModelAndAFolder(t *testing.T) {
	dir, statsFile := t.TempDir(), filepath.Join(t.TempDir(), "stats.json")
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	url, stop := start(t, "--cdn", "--model", "acme/demo", "--files", "3x4KiB-1MiB,1x2MiB", "--dir", "acme/local="+dir, "--web", dir,
		"--small-via-redirect", "--send-buffer", "65536", "--stats-file", statsFile, "--latency", "1ms", "--rate-mbps", "1000",
		"--collapse", "100:1GiB", "--api-quota", "100/1m", "--resolve-quota", "100/1m")
	for path, size := range map[string]int{
		"/acme/local/resolve/main/config.json": 3, "/files/config.json": 3,
		"/acme/demo/resolve/main/model2-00001-of-00001.safetensors": 2 << 20,
	} {
		if status, body := do(t, "GET", url+path); status != http.StatusOK || len(body) != size {
			t.Errorf("%s: %d, %d bytes", path, status, len(body))
		}
	}
	var live, last demohub.Stats
	_, text := do(t, "GET", url+"/_stats")
	if err := json.Unmarshal([]byte(text), &live); err != nil || live.Body != 2<<20+6 || live.CDN.Requests != 1 {
		t.Errorf("counters are %s, %v", text, err)
	}
	if _, text := do(t, "GET", url+"/_log"); !strings.Contains(text, "config.json") {
		t.Errorf("the log is %s", text)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(statsFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &last); err != nil || last.Body != live.Body {
		t.Errorf("the file says %s, %v", b, err)
	}
}

func TestFaultsAreArmedFromOutside(t *testing.T) {
	url, _ := start(t, "--files", "1x4KiB")
	file := url + "/demo/model/resolve/main/part1/00001.bin"
	status := func() int { t.Helper(); s, _ := do(t, "GET", file); return s }
	post := func(method, query string, want int) {
		t.Helper()
		if got, text := do(t, method, url+query); got != want {
			t.Errorf("%s %s: %d %s, want %d", method, query, got, text, want)
		}
	}
	post("POST", "/_next?fault=status=503&fault=pass&fault=status=500", 200)
	post("POST", "/_fault?fault=status=502&kind=bulk&path=*.bin&method=GET&times=1", 200)
	for i, want := range []int{503, 200, 500, 502, 200} {
		if got := status(); got != want {
			t.Errorf("request %d: %d, want %d", i, got, want)
		}
	}
	post("POST", "/_fault?fault=status=501", 200)
	if got := status(); got != 501 {
		t.Errorf("a fault for good: %d", got)
	}
	post("DELETE", "/_fault", 200)
	if got := status(); got != 200 {
		t.Errorf("after DELETE: %d", got)
	}
	for _, wrong := range []string{"/_fault", "/_fault?fault=explode", "/_fault?fault=pass&kind=none", "/_fault?fault=pass&times=0", "/_next?fault=status"} {
		post("POST", wrong, 400)
	}
	post("GET", "/_none", 404)
	post("POST", "/_reset", 200)
	if _, text := do(t, "GET", url+"/_log"); text != "[]\n" {
		t.Errorf("after the reset the log is %s", text)
	}
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	for promise, args := range map[string][]string{
		"files":          {"--files", "many"},
		"a folder":       {"--dir", "acme/none"},
		"no such folder": {"--dir", "acme/none=" + filepath.Join(t.TempDir(), "none")},
		"no such web":    {"--web", filepath.Join(t.TempDir(), "none")},
		"a collapse":     {"--collapse", "16"},
		"a quota":        {"--api-quota", "20"},
		"a rate":         {"--rate-bytes", "-1"},
		"two rates":      {"--rate-bytes", "1", "--rate-mbps", "1"},
		"an argument":    {"acme/tiny"},
		"an address":     {"--listen", "nowhere:-1"},
	} {
		cmd := command(io.Discard)
		cmd.SetArgs(args)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); err == nil {
			t.Errorf("%s: %v is no mistake", promise, args)
		}
	}
}
