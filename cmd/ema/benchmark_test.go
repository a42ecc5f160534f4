package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ema/internal/bench"
)

// A benchmarker runs ema benchmark as a process, with a store in a folder of its own.
type benchmarker struct {
	t   *testing.T
	dir string
}

func newBenchmarker(t *testing.T) benchmarker {
	b := benchmarker{t, t.TempDir()}
	for _, sub := range []string{"home", "hub"} {
		if err := os.Mkdir(filepath.Join(b.dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b benchmarker) path(name string) string { return filepath.Join(b.dir, name) }

func (b benchmarker) command(args ...string) *exec.Cmd {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	c := exec.CommandContext(b.t.Context(), self)
	c.Args = append([]string{"ema", "benchmark", "--size", "4", "--repeats", "3"}, args...)
	c.Env = append(os.Environ(), "HOME="+b.path("home"), "EMA_STORE__PATH="+b.path("hub"), "EMA_STORE__STATE_DIR="+b.path("state"), "GORACE="+noRest)
	return c
}

// run returns the exit code.
func (b benchmarker) run(args ...string) (code int, stdout, stderr string) {
	b.t.Helper()
	c := b.command(args...)
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); c.ProcessState == nil {
		b.t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String(), said.String()
}

// clean fails when something is left in the store.
func (b benchmarker) clean() {
	b.t.Helper()
	if left, err := os.ReadDir(b.path("hub")); err != nil || len(left) > 0 {
		b.t.Errorf("the store holds %v, %v", left, err)
	}
}

func TestABenchmarkReportsWhatIsPromisedAndLeavesNothing(t *testing.T) {
	b := newBenchmarker(t)
	code, out, said := b.run("--output-report", b.path("report.json"), "--output-report", b.path("report.html"), "--generate-baseline")
	if code != 0 || !strings.Contains(said, "this takes ") || !strings.Contains(said, "\nstorage: hot, repeat 1\n") || !strings.Contains(out, "downloads.single_download_time") {
		t.Fatalf("exit code %d\n%s%s", code, out, said)
	}
	b.clean()
	raw, err := os.ReadFile(b.path("report.json"))
	if err != nil {
		t.Fatal(err)
	}
	if page, err := os.ReadFile(b.path("report.html")); err != nil || !bytes.Contains(page, []byte("single_download_time")) || bytes.Count(page, []byte("<svg")) < 15 {
		t.Errorf("the page: %v, %d bytes", err, len(page))
	}
	kept, err := os.ReadFile(b.path("state/baseline.json"))
	if err != nil || !bytes.Equal(raw, kept) {
		t.Errorf("the baseline is another than the report: %v", err)
	}
	var r struct {
		Timestamp *float64
		Results   struct {
			Downloads struct {
				Single     float64   `json:"single_download_time"`
				Concurrent []float64 `json:"concurrent_download_times"`
				Retry      struct {
					Time   float64 `json:"download_time"`
					Rate   float64 `json:"success_rate"`
					Faults int
				} `json:"retry_performance"`
			}
			API     map[string]map[string]float64
			Storage []map[string]any
			System  map[string]any
		}
		Recommendations []string
		Unknown         map[string]string
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	d := r.Results.Downloads
	if r.Timestamp == nil || r.Recommendations == nil || d.Single <= 0 || len(d.Concurrent) != 4 || d.Retry.Time <= 0 || d.Retry.Rate != 1 || d.Retry.Faults != 3 {
		t.Errorf("%s", raw)
	}
	for _, endpoint := range []string{"/api/v1/models/status/detailed", "/api/v1/models/health", "/api/v1/models/analytics"} {
		e := r.Results.API[endpoint]
		if e["requests"] != 100 || !(0 < e["min_ms"] && e["min_ms"] <= e["median_ms"] && e["median_ms"] <= e["p95_ms"] && e["p95_ms"] <= e["max_ms"] && e["average_ms"] > 0) {
			t.Errorf("%s: %v", endpoint, e)
		}
	}
	if len(r.Results.API) != 3 || len(r.Results.Storage) != 1 || r.Results.System["cpus"] == nil || r.Results.System["sha256_mb_per_second"] == nil {
		t.Errorf("%s", raw)
	}
}

// doctor makes another baseline of a report: one that is so many times as good.
func (b benchmarker) doctor(from, to string, better float64) {
	b.t.Helper()
	r, err := readBaseline(b.path(from))
	if err != nil {
		b.t.Fatal(err)
	}
	for name, m := range r.Metrics {
		if m.MAD = 0; m.Better == bench.Higher {
			m.Median *= better
		} else {
			m.Median /= better
		}
		r.Metrics[name] = m
	}
	if err := writeReport(b.path(to), *r); err != nil {
		b.t.Fatal(err)
	}
}

func TestARegressionIsExitCode6(t *testing.T) {
	b := newBenchmarker(t)
	if code, _, said := b.run("--suite", "system", "--compare"); code != 3 || !strings.Contains(said, "there is no baseline; make one with: ema benchmark --generate-baseline") {
		t.Fatalf("without a baseline: exit code %d: %s", code, said)
	}
	if code, out, said := b.run("--suite", "system", "--generate-baseline", "--quiet"); code != 0 || said != "" {
		t.Fatalf("exit code %d\n%s%s", code, out, said)
	}
	b.doctor("state/baseline.json", "slow.json", 0.001)
	b.doctor("state/baseline.json", "state/baseline.json", 1000)
	if code, out, said := b.run("--suite", "system", "--compare", b.path("slow.json")); code != 0 || !strings.Contains(out, "3 metrics, 0 regressions") {
		t.Errorf("much better than the baseline: exit code %d\n%s%s", code, out, said)
	}
	code, out, said := b.run("--suite", "system", "--compare")
	if code != 6 || !strings.Contains(out, "3 metrics, 3 regressions") || !strings.Contains(said, "slower than the baseline") || !strings.Contains(said, "system.sha256 by 1") {
		t.Errorf("much worse than the baseline: exit code %d\n%s%s", code, out, said)
	}
	code, out, _ = b.run("--suite", "system", "--compare="+b.path("state/baseline.json"), "--json")
	var r bench.Assessment
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 6 || r.Comparison == nil || len(r.Comparison.Regressions) != 3 {
		t.Errorf("exit code %d, %v\n%s", code, err, out)
	}
	for _, args := range [][]string{{"--compare", b.path("slow.json"), "--size", "8"}, {"--suite", "x"}, {"x"}, {"--full-assessment", "--suite", "api"}} {
		if code, out, said := b.run(args...); code != 2 {
			t.Errorf("%q: exit code %d\n%s%s", args, code, out, said)
		}
	}
	b.clean()
}

func TestAnInterruptedBenchmarkLeavesNothing(t *testing.T) {
	for _, when := range []string{"downloads: 4 at once", "api: /api/v1/models/health", "storage: hot, repeat 1"} {
		b := newBenchmarker(t)
		c := b.command("--output-report", b.path("report.json"))
		said, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var rest []string
		for lines := bufio.NewScanner(said); lines.Scan(); {
			rest = append(rest, lines.Text())
			if lines.Text() == when {
				if err := c.Process.Signal(syscall.SIGINT); err != nil {
					t.Error(err)
				}
			}
		}
		if _ = c.Wait(); c.ProcessState.ExitCode() != 130 || rest[len(rest)-1] != "ema: interrupted" { //nolint:errcheck // the exit code says it
			t.Errorf("%s: exit code %d: %q", when, c.ProcessState.ExitCode(), rest)
		}
		b.clean()
		if _, err := os.Stat(b.path("report.json")); err == nil {
			t.Errorf("%s: there is a report", when)
		}
	}
}
