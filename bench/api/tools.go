package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// report is the end of a script of wrk: it prints what was measured as a line of JSON.
const report = `
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\nmeasured {"requests":%d,"microseconds":%d,"bytes":%d,"errors":%d,"p50":%d,"p99":%d,"most":%d}\n',
    summary.requests, summary.duration, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
`

// think is how long each connection of a modest load waits between its requests.
const think = 20 * time.Millisecond

// scripts writes those of wrk.
func (b *bench) scripts() error {
	wait := fmt.Sprintf("function delay() return %d end\n", think.Milliseconds())
	return errors.Join(
		os.WriteFile(filepath.Join(b.dir, "full.lua"), []byte(report), 0o600),
		os.WriteFile(filepath.Join(b.dir, "modest.lua"), []byte(wait+report), 0o600),
	)
}

// An outcome is what wrk measured.
type outcome struct {
	Requests     float64 `json:"requests"`
	Microseconds float64 `json:"microseconds"`
	Bytes        float64 `json:"bytes"`
	Errors       int     `json:"errors"`
	P50          float64 `json:"p50"` // microseconds, like the others
	P99          float64 `json:"p99"`
	Most         float64 `json:"most"`
}

func (o outcome) rate() float64 { return o.Requests / o.Microseconds * 1e6 }

// A loaded run is a wrk that runs.
type loaded struct {
	cmd         *exec.Cmd
	out, errors strings.Builder
}

// wrk asks for url without a pause from so many connections, or modestly. With a tag it asks for what has changed.
func (b *bench) wrk(ctx context.Context, url, tag string, connections int, modest bool, d time.Duration) (*loaded, error) {
	script := "full.lua"
	if modest {
		script = "modest.lua"
	}
	args := []string{"-t2", fmt.Sprintf("-c%d", connections), fmt.Sprintf("-d%ds", int(d.Seconds())), "--timeout", "10s", "-s", filepath.Join(b.dir, script)}
	if tag != "" {
		args = append(args, "-H", "If-None-Match: "+tag)
	}
	w := &loaded{cmd: exec.CommandContext(ctx, "wrk", append(args, url)...)}
	w.cmd.Stdout, w.cmd.Stderr = &w.out, &w.errors
	return w, w.cmd.Start()
}

// outcome waits until it ends.
func (w *loaded) outcome() (outcome, error) {
	if err := w.cmd.Wait(); err != nil {
		return outcome{}, fmt.Errorf("wrk: %w: %s", err, w.errors.String())
	}
	return parseOutcome(w.out.String())
}

// interrupt ends it early.
func (w *loaded) interrupt() (outcome, error) {
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		return outcome{}, err
	}
	return w.outcome()
}

func parseOutcome(text string) (o outcome, err error) {
	_, line, found := strings.Cut(text, "\nmeasured ")
	if !found {
		return o, fmt.Errorf("wrk does not say what it measured: %s", text)
	}
	if err := json.NewDecoder(strings.NewReader(line)).Decode(&o); err != nil {
		return o, err
	}
	if o.Errors > 0 || o.Requests == 0 {
		return o, fmt.Errorf("%d of %.0f requests failed", o.Errors, o.Requests)
	}
	return o, nil
}

// ab makes 1,000 requests from 10 connections, each over a connection of its own, and says in milliseconds within what
// time 95 in 100 were answered.
func (b *bench) ab(ctx context.Context, url string) (p95 float64, err error) {
	file := filepath.Join(b.dir, "ab.csv")
	out, err := exec.CommandContext(ctx, "ab", "-q", "-n", "1000", "-c", "10", "-e", file, url).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("ab: %w: %s", err, out)
	}
	if !strings.Contains(string(out), "Complete requests:      1000") || strings.Contains(string(out), "Non-2xx") {
		return 0, fmt.Errorf("ab was not answered: %s", out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return percentileOf(string(text), "95")
}

// percentileOf reads one line of ab's table of percentages and milliseconds.
func percentileOf(text, percent string) (float64, error) {
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		return 0, err
	}
	for _, r := range rows {
		if r[0] == percent {
			return strconv.ParseFloat(r[1], 64)
		}
	}
	return 0, fmt.Errorf("ab does not say what %s %% took", percent)
}
