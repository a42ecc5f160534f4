package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ema/client"
	"ema/internal/bench"
	"ema/internal/model"
)

// A measured is a daemon that measures.
type measured struct {
	t       *testing.T
	environ []string
	home    string
	*process
	c *client.Client
}

func measures(ctx context.Context, t *testing.T) *measured {
	t.Helper()
	_, environ := quickHub(t)
	m := &measured{t: t, environ: environ, home: strings.TrimPrefix(environ[0], "HOME=")}
	m.starts(ctx)
	return m
}

func (m *measured) starts(ctx context.Context) {
	m.t.Helper()
	m.process = serving(ctx, m.t, m.environ)
	c, err := client.New(m.address(m.t), client.Options{})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(c.Close)
	m.c = c
}

// left are the folders of benchmarks that lie in the store.
func (m *measured) left() []string {
	m.t.Helper()
	all, err := filepath.Glob(filepath.Join(m.home, ".cache/huggingface/hub/.ema-benchmark-*"))
	if err != nil {
		m.t.Fatal(err)
	}
	return all
}

// until asks how a benchmark stands until it is as it should be.
func (m *measured) until(ctx context.Context, id, what string, is func(client.Benchmark) bool) client.Benchmark {
	m.t.Helper()
	for {
		b, err := m.c.Benchmark(ctx, id)
		if err != nil {
			m.t.Fatal(err)
		}
		if is(b) {
			return b
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			m.t.Fatalf("it is never %s: %+v", what, b)
		}
	}
}

// A benchmarkTelling is what a benchmark_progress says.
type benchmarkTelling struct {
	Type    string   `json:"type"`
	ID      string   `json:"benchmark_id"`
	Status  string   `json:"status"`
	Suite   string   `json:"suite"`
	Step    string   `json:"step"`
	Percent float64  `json:"progress_percent"`
	Left    *float64 `json:"eta_seconds"`
}

func TestABenchmarkOfTheDaemonIsFollowedToItsEndAndRead(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	m := measures(ctx, t)
	url := strings.Replace(m.address(t), "http", "ws", 1) + "/ws?types=benchmark_progress"
	conn, _, err := websocket.Dial(ctx, url, nil) //nolint:bodyclose // of the connection
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	events, err := m.c.Events(ctx, client.Interest{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()

	began, err := m.c.StartBenchmark(ctx, client.BenchmarkRequest{Suites: []string{"api", "storage", "system"}, SizeMB: 4, Repeats: 2, Generate: true})
	if err != nil || !began.Success || began.State != client.BenchmarkRunning || !strings.Contains(began.Message, "it takes ") || time.Until(began.Estimated) <= 0 {
		t.Fatalf("%+v, %v", began, err)
	}
	var told []benchmarkTelling
	for len(told) == 0 || told[len(told)-1].Status == client.BenchmarkRunning {
		_, text, err := conn.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var batch struct{ Messages []benchmarkTelling }
		if err := json.Unmarshal(text, &batch); err != nil {
			t.Fatal(err)
		}
		told = append(told, batch.Messages...)
	}
	last := 0.0
	for i, f := range told {
		if f.Type != "benchmark_progress" || f.ID != began.ID || f.Percent < last || (f.Status == client.BenchmarkRunning) != (f.Suite != "" && f.Left != nil) && i > 0 {
			t.Errorf("message %d of %d: %+v", i, len(told), f)
		}
		last = f.Percent
	}
	if end := told[len(told)-1]; end.Status != client.BenchmarkCompleted || end.Percent != 100 || len(told) < 2 {
		t.Errorf("told: %+v", told)
	}
	for {
		e, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
		if e.Benchmark != nil && e.Benchmark.State != client.BenchmarkRunning {
			if e.Benchmark.ID != began.ID || e.Benchmark.State != client.BenchmarkCompleted || e.Benchmark.ProgressPercent != 100 {
				t.Errorf("%+v", e.Benchmark)
			}
			break
		}
	}

	b, err := m.c.Benchmark(ctx, began.ID)
	if err != nil || b.State != client.BenchmarkCompleted || b.Ended == nil || b.Estimated != nil || b.Error != "" || b.Report == nil {
		t.Fatalf("%+v, %v", b, err)
	}
	r := b.Report
	if r.Metrics["storage.hot.write_buffered"].Repeats != 2 || len(r.Metrics["system.sha256"].Samples) != 2 || r.Results.API["/api/v1/models/health"].Requests != 100 ||
		len(r.Results.Storage) != 1 || r.Results.System == nil || r.Results.Downloads != nil || r.Unknown["downloads"] != "not asked for" || r.Version == "" {
		t.Errorf("%+v", r)
	}
	if left := m.left(); len(left) > 0 {
		t.Errorf("%v is left", left)
	}

	// It has left a baseline, for the command and for the next one.
	next, err := m.c.StartBenchmark(ctx, client.BenchmarkRequest{Suites: []string{"system"}, SizeMB: 4, Repeats: 1, Compare: true})
	if err != nil {
		t.Fatal(err)
	}
	b = m.until(ctx, next.ID, "over", func(b client.Benchmark) bool { return b.State != client.BenchmarkRunning })
	if b.State != client.BenchmarkCompleted || b.Report.Comparison == nil || b.Report.Comparison.Compared != 3 || !strings.HasSuffix(b.Report.Comparison.Baseline, baselineFile) {
		t.Errorf("%+v", b)
	}
	if _, err = m.c.StartBenchmark(ctx, client.BenchmarkRequest{Suites: []string{"system"}, SizeMB: 8, Compare: true}); !refusedWith(err, client.Invalid, http.StatusUnprocessableEntity) {
		t.Errorf("another size than that of the baseline: %v", err)
	}

	m.ends(t)
	m.starts(ctx)
	all, err := m.c.Benchmarks(ctx)
	if err != nil || len(all.Benchmarks) != 2 || all.Benchmarks[0].ID != next.ID || all.Benchmarks[1].ID != began.ID || all.Benchmarks[0].Report != nil {
		t.Errorf("after a restart: %+v, %v", all, err)
	}
	if again, err := m.c.Benchmark(ctx, began.ID); err != nil || again.Report == nil || !reflect.DeepEqual(*again.Report, *r) {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
	m.ends(t)
}

func refusedWith(err error, code client.Code, status int) bool {
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Code == code && e.Status == status
}

func TestABenchmarkOfTheDaemonIsAloneAndLeavesNothingWhenItIsCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	m := measures(ctx, t)
	if _, err := m.c.Benchmark(ctx, "bm_0"); !refusedWith(err, client.NoBenchmark, http.StatusNotFound) {
		t.Errorf("one that there is not: %v", err)
	}
	if _, err := m.c.StartBenchmark(ctx, client.BenchmarkRequest{Compare: true}); !refusedWith(err, client.NoBenchmark, http.StatusNotFound) {
		t.Errorf("without a baseline: %v", err)
	}
	for _, step := range []string{"downloads: one", "api: /api/v1/models/health", "storage: hot, repeat 1"} {
		suite, _, _ := strings.Cut(step, ":")
		began, err := m.c.StartBenchmark(ctx, client.BenchmarkRequest{Suites: []string{suite}, SizeMB: 64, Repeats: 1000})
		if err != nil {
			t.Fatal(err)
		}
		m.until(ctx, began.ID, "at "+step, func(b client.Benchmark) bool {
			return strings.HasPrefix(b.Step, suite) && b.Suite == suite && len(m.left()) > 0
		})
		_, err = m.c.StartBenchmark(ctx, client.BenchmarkRequest{})
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.BenchmarkTaken || e.Status != http.StatusConflict || e.Benchmark != began.ID {
			t.Errorf("a second one: %+v", err)
		}
		b, err := m.c.CancelBenchmark(ctx, began.ID)
		if err != nil || b.State != client.BenchmarkCancelled || b.Ended == nil || b.Report != nil || b.Error != "" || b.Percent >= 100 {
			t.Errorf("%s: %+v, %v", step, b, err)
		}
		if left := m.left(); len(left) > 0 {
			t.Errorf("%s: %v is left", step, left)
		}
		if _, err := m.c.CancelBenchmark(ctx, began.ID); !refusedWith(err, client.WrongState, http.StatusConflict) {
			t.Errorf("%s: cancelled twice: %v", step, err)
		}
	}

	began, err := m.c.StartBenchmark(ctx, client.BenchmarkRequest{Suites: []string{"api"}, Repeats: 1000})
	if err != nil {
		t.Fatal(err)
	}
	m.until(ctx, began.ID, "at its daemon", func(b client.Benchmark) bool { return strings.HasPrefix(b.Step, "api: /") })
	m.ends(t)
	if left := m.left(); len(left) > 0 {
		t.Errorf("the daemon has left %v", left)
	}
	m.starts(ctx)
	if b, err := m.c.Benchmark(ctx, began.ID); err != nil || b.State != client.BenchmarkCancelled || b.Error != daemonStopped {
		t.Errorf("of a daemon that was stopped: %+v, %v", b, err)
	}
	m.ends(t)
}

func TestTheLastTenBenchmarksAreRememberedAndOneThatWasCutOffHasFailed(t *testing.T) {
	d, _ := quietDaemon(t)
	b := newBenchmarks(d)
	for i := range 12 {
		one := client.Benchmark{ID: fmt.Sprintf("bm_%02d", i), State: client.BenchmarkCompleted, Begun: time.Unix(int64(i), 0).UTC()}
		if i == 11 {
			one.State = client.BenchmarkRunning
		}
		b.keep(one)
	}
	if err := os.WriteFile(filepath.Join(b.folder(), "bm_broken.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.log = slog.New(slog.DiscardHandler)
	all := newBenchmarks(d).List()
	if len(all) != 10 || all[0].ID != "bm_11" || all[0].State != client.BenchmarkFailed || all[0].Error != daemonKilled || all[9].ID != "bm_02" {
		t.Errorf("%+v", all)
	}
	if left, err := filepath.Glob(filepath.Join(b.folder(), "bm_??.json")); err != nil || len(left) != 10 || slices.Contains(left, filepath.Join(b.folder(), "bm_01.json")) {
		t.Errorf("%v, %v", left, err)
	}
	if again, err := newBenchmarks(d).Get("bm_11"); err != nil || again.State != client.BenchmarkFailed {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := newBenchmarks(d).Get("bm_01"); model.ClassOf(err) != model.NotFound {
		t.Errorf("one that is forgotten: %v", err)
	}
}

// full sets all that v holds to something else than nothing.
func full(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		full(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				full(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		full(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		value := reflect.New(v.Type().Elem()).Elem()
		full(value)
		v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), value)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(7.5)
	default:
		panic("there is a " + v.Kind().String())
	}
}

func TestTheReportOfTheAPIHasAllThatTheCommandPrints(t *testing.T) {
	var a bench.Assessment
	full(reflect.ValueOf(&a).Elem())
	r, err := reportOf(a)
	if err != nil {
		t.Fatal(err)
	}
	same := make([]any, 2)
	for i, one := range []any{a, r} {
		raw, err := json.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &same[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(same[0], same[1]) {
		t.Errorf("the command prints %v, and the API %v", same[0], same[1])
	}
}
