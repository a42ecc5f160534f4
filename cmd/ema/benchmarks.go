package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ema/client"
	"ema/internal/api"
	"ema/internal/bench"
	"ema/internal/event"
	"ema/internal/model"
)

const (
	benchmarksFolder = "benchmarks" // of the store's state
	mostBenchmarks   = 10           // that are remembered
	benchmarkTold    = time.Second  // how often it is told how far one is
	benchmarkEnding  = ".json"      // of a benchmark that is remembered
	daemonStopped    = "the daemon was stopped"
	daemonKilled     = "the daemon was killed, or the machine has failed; folders named .ema-benchmark- may be left in the tiers"
)

// benchmarks are those of the daemon: one at a time, on behalf of others. It works as ema benchmark does. Its methods are safe for
// concurrent use; run once.
type benchmarks struct {
	d    *daemon
	todo chan *benchmarking

	mu   sync.Mutex
	list []client.Benchmark // the newest first; of the one that runs it is how it began
	now  *benchmarking      // nil while none runs
}

// A benchmarking is a benchmark that is to begin, or runs.
type benchmarking struct {
	measurement
	id   string
	over chan struct{} // closed when it is

	// Guarded by the lock of the benchmarks.
	cancelled bool
	cancel    context.CancelFunc // nil before it begins
}

// newBenchmarks remembers those of which the state folder tells.
func newBenchmarks(d *daemon) *benchmarks {
	b := &benchmarks{d: d, todo: make(chan *benchmarking, 1)}
	entries, err := os.ReadDir(b.folder())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("benchmarks", "error", err.Error())
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), benchmarkEnding) || strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		var one client.Benchmark
		raw, err := os.ReadFile(filepath.Join(b.folder(), entry.Name()))
		if err = errors.Join(err, json.Unmarshal(raw, &one)); err != nil || one.ID+benchmarkEnding != entry.Name() {
			d.log.Warn("a benchmark that cannot be read is left out", "file", entry.Name())
			continue
		}
		if one.State == client.BenchmarkRunning {
			one.State, one.Error, one.Estimated = client.BenchmarkFailed, daemonKilled, nil
			b.keep(one)
		}
		b.list = append(b.list, one)
	}
	slices.SortFunc(b.list, func(x, y client.Benchmark) int { return y.Begun.Compare(x.Begun) })
	b.forget()
	return b
}

func (b *benchmarks) folder() string {
	return filepath.Join(b.d.line.Store.StateDir(), benchmarksFolder)
}

// keep remembers how one stands, over a restart too.
func (b *benchmarks) keep(one client.Benchmark) {
	raw, err := json.Marshal(one)
	if err == nil {
		err = writeWhole(filepath.Join(b.folder(), one.ID+benchmarkEnding), raw)
	}
	if err != nil {
		b.d.log.Warn("a benchmark will not be remembered", "id", one.ID, "error", err.Error())
	}
}

// forget leaves the newest. The caller holds mu, or is the only one who knows b.
func (b *benchmarks) forget() {
	for len(b.list) > mostBenchmarks {
		oldest := b.list[len(b.list)-1]
		b.list = b.list[:len(b.list)-1]
		if err := os.Remove(filepath.Join(b.folder(), oldest.ID+benchmarkEnding)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			b.d.log.Warn("benchmarks", "error", err.Error())
		}
	}
}

// Start begins one; see the API.
func (b *benchmarks) Start(ctx context.Context, ask client.BenchmarkRequest) (started client.BenchmarkStarted, err error) {
	if id := b.running(); id != "" {
		return started, &api.MeasuringError{ID: id}
	}
	wanted := benchmark{full: ask.Full, generate: ask.Generate, suites: slices.Clone(ask.Suites), size: ask.SizeMB, repeats: ask.Repeats}
	if ask.Compare {
		wanted.compare = keptBaseline
	}
	b.d.mu.Lock()
	e := b.d.settings
	b.d.mu.Unlock()
	m, err := wanted.prepare(b.d.app.environ, e, b.d.line.Store)
	if err != nil {
		return started, err
	}
	if err := m.Fits(ctx); err != nil {
		return started, err
	}
	least, most, err := m.Estimate()
	if err != nil {
		return started, err
	}
	if len(m.Suites) == 0 {
		m.Suites = bench.Suites()
	}
	one := &benchmarking{measurement: m, id: "bm_" + strings.ToLower(rand.Text()[:16]), over: make(chan struct{})}
	begun := time.Now().UTC()
	latest := begun.Add(most)
	began := client.Benchmark{ID: one.id, State: client.BenchmarkRunning, Suites: m.Suites, Begun: begun, Estimated: &latest}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now != nil {
		return started, &api.MeasuringError{ID: b.now.id}
	}
	b.now, b.list = one, slices.Insert(b.list, 0, began)
	b.keep(began)
	b.forget()
	b.todo <- one // which has room: there is no other one
	return client.BenchmarkStarted{
		Success: true, Message: "it takes " + estimate(least, most), ID: one.id, State: began.State, Least: least.Seconds(), Most: most.Seconds(), Estimated: latest,
	}, nil
}

// running is the id of the one that runs; empty when none does.
func (b *benchmarks) running() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now == nil {
		return ""
	}
	return b.now.id
}

// List is the newest first; see the API.
func (b *benchmarks) List() []client.Benchmark {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]client.Benchmark, len(b.list))
	for i := range b.list {
		all[i] = b.stands(b.list[i])
		all[i].Report = nil
	}
	return all
}

// Get is one of them; see the API.
func (b *benchmarks) Get(id string) (client.Benchmark, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.list, func(one client.Benchmark) bool { return one.ID == id })
	if i < 0 {
		return client.Benchmark{}, &model.Error{Op: "benchmark", Class: model.NotFound, Err: errors.New("nobody knows of one by that id"), Hint: fmt.Sprintf("the last %d are remembered", mostBenchmarks)}
	}
	return b.stands(b.list[i]), nil
}

// stands is one with how far it is. The caller holds mu.
func (b *benchmarks) stands(one client.Benchmark) client.Benchmark {
	if b.now == nil || b.now.id != one.ID {
		return one
	}
	return progressed(one, b.now.Course.Stand(time.Now()))
}

// progressed is one that is so far.
func progressed(one client.Benchmark, at bench.Stand) client.Benchmark {
	one.Step, one.Percent, one.Elapsed = at.What, math.Floor(at.Part*1000)/10, at.Took.Seconds()
	if len(at.Legs) > 0 && at.Part < 1 {
		one.Suite = at.Legs[at.At].Suite
	}
	return one
}

// Cancel ends one; see the API.
func (b *benchmarks) Cancel(ctx context.Context, id string) (was, is client.Benchmark, err error) {
	if was, err = b.Get(id); err != nil {
		return was, is, err
	}
	b.mu.Lock()
	one := b.now
	if one == nil || one.id != id {
		b.mu.Unlock()
		is, err = b.Get(id)
		return is, is, err
	}
	one.cancelled = true
	if one.cancel != nil {
		one.cancel()
	}
	b.mu.Unlock()
	select {
	case <-one.over:
	case <-ctx.Done():
	}
	is, err = b.Get(id)
	return was, is, err
}

// run measures what is asked for until ctx ends.
func (b *benchmarks) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case one := <-b.todo:
			b.measure(ctx, one)
		}
	}
}

// measure does one, and tells how far it is.
func (b *benchmarks) measure(ctx context.Context, one *benchmarking) {
	defer b.d.heap.work()()
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	b.mu.Lock()
	one.cancel = cancel
	if one.cancelled {
		cancel()
	}
	b.mu.Unlock()
	b.d.log.Info("benchmark", "id", one.id, "suites", strings.Join(one.Suites, ","))

	over, told := make(chan struct{}), sync.WaitGroup{}
	told.Go(func() {
		tick := time.NewTicker(benchmarkTold)
		defer tick.Stop()
		for {
			b.tell(one, client.BenchmarkRunning, "")
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	})
	one.Progress = func(string) { b.tell(one, client.BenchmarkRunning, "") }
	found, err := one.measurement.measure(own)
	close(over)
	told.Wait()

	b.mu.Lock()
	state, why := client.BenchmarkCompleted, ""
	switch {
	case found.Seconds == 0 && own.Err() != nil:
		state = client.BenchmarkCancelled
		if !one.cancelled {
			why = daemonStopped
		}
		if left := bench.LeftBehind(err); left != nil {
			why = strings.TrimPrefix(why+"; not all could be removed that it had made: "+left.Error(), "; ")
		}
	case err != nil:
		state, why = client.BenchmarkFailed, err.Error()
	}
	b.mu.Unlock()
	report, converted := reportOf(found)
	if converted != nil {
		state, why = client.BenchmarkFailed, converted.Error()
	}
	b.end(one, state, why, report)
	b.d.log.Info("benchmark is over", "id", one.id, "state", state, "seconds", found.Seconds, "error", why)
}

// end remembers how one has ended, and says so.
func (b *benchmarks) end(one *benchmarking, state, why string, report *client.BenchmarkReport) {
	b.mu.Lock()
	for i := range b.list {
		if b.list[i].ID != one.id {
			continue
		}
		it := progressed(b.list[i], one.Course.Stand(time.Now()))
		it.State, it.Error, it.Report, it.Suite, it.Step, it.Estimated, it.Ended = state, why, report, "", "", nil, new(time.Now().UTC())
		b.list[i] = it
		b.keep(it)
	}
	b.now = nil
	b.mu.Unlock()
	b.tell(one, state, why)
	close(one.over)
}

// tell says to those who listen how far one is.
func (b *benchmarks) tell(one *benchmarking, state, why string) {
	at := one.Course.Stand(time.Now())
	e := event.Benchmark{ID: one.id, State: state, Part: at.Part, Took: at.Took, Error: why}
	if state == client.BenchmarkRunning {
		e.Step, e.Left = at.What, at.Left
		if len(at.Legs) > 0 {
			e.Suite = at.Legs[at.At].Suite
		}
	}
	b.d.bus.Tell(event.Event{Kind: event.KindBench, Data: e})
}

// reportOf is an assessment on the wire; nil when nothing was measured.
func reportOf(found bench.Assessment) (*client.BenchmarkReport, error) {
	if found.Seconds == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(found)
	if err != nil {
		return nil, err
	}
	r := &client.BenchmarkReport{}
	return r, json.Unmarshal(raw, r)
}
