package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime/trace"
	"slices"
	"strings"
	"sync"
	"time"

	"ema/internal/api"
	"ema/internal/model"
)

const (
	flightWindow = 10 * time.Second // that the recorder remembers, as far as these bytes reach
	flightMemory = 16 * model.MiB
	traceEvery   = time.Minute     // at most one trace is kept in so long
	mostTraces   = 5               // that are kept, of which the oldest goes first
	stallAfter   = 5 * time.Second // without a byte a download stands still; less than the window, so that its last byte is in there
	tracesFolder = "traces"        // of the store's state
	traceEnding  = ".trace"
)

// A flight remembers what the daemon did in the last seconds, and writes it down when something was slow. Its methods may be
// called concurrently; run once.
type flight struct {
	folder string // of the traces that are kept
	log    *slog.Logger
	slow   chan string // holds why a trace is to be kept
	turned chan bool   // holds whether it records, since run has looked last

	mu       sync.Mutex            // held while a trace is written too, since only one can be
	recorder *trace.FlightRecorder // nil while nothing is recorded
	kept     time.Time             // when a trace was kept last
}

func newFlight(folder string, log *slog.Logger) *flight {
	return &flight{folder: folder, log: log, slow: make(chan string, 1), turned: make(chan bool, 1)}
}

// configure begins to record, or ends it.
func (f *flight) configure(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case on && f.recorder == nil:
		r := trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: flightWindow, MaxBytes: uint64(flightMemory)})
		if err := r.Start(); err != nil {
			f.log.Warn("the flight recorder does not run", "error", err.Error())
			return
		}
		f.recorder = r
	case !on && f.recorder != nil:
		f.recorder.Stop()
		f.recorder = nil
	}
	select {
	case <-f.turned: // who configures last is heard
	default:
	}
	f.turned <- f.recorder != nil
}

// write writes what was recorded lately, for "go tool trace".
func (f *flight) write(w io.Writer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.recorder == nil {
		return api.ErrNotRecording
	}
	_, err := f.recorder.WriteTo(w)
	return err
}

// answered is told of answers that took long. It does not wait.
func (f *flight) answered(operation string, _ time.Duration) { f.tell(operation) }

// tell has a trace kept soon, unless another one is to be.
func (f *flight) tell(why string) {
	select {
	case f.slow <- why:
	default:
	}
}

// run keeps traces until ctx ends. stalls tells why one is to be kept, or nothing; it is asked every second while there is a recorder, and
// a daemon without one does not wake up for it.
func (f *flight) run(ctx context.Context, stalls func(now time.Time) string) error {
	defer f.configure(false)
	tick := time.NewTicker(time.Second)
	tick.Stop()
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case on := <-f.turned:
			if tick.Stop(); on {
				tick.Reset(time.Second)
			}
		case why := <-f.slow:
			f.keep(time.Now(), why)
		case now := <-tick.C:
			if why := stalls(now); why != "" {
				f.keep(now, why)
			}
		}
	}
}

// keep writes a trace into the folder, unless nothing is recorded or one was kept within the last minute.
func (f *flight) keep(now time.Time, why string) {
	f.mu.Lock()
	due := f.recorder != nil && (f.kept.IsZero() || now.Sub(f.kept) >= traceEvery)
	if due {
		f.kept = now
	}
	f.mu.Unlock()
	if !due {
		return
	}
	file := filepath.Join(f.folder, now.UTC().Format("20060102-150405")+"-"+why+traceEnding)
	if err := errors.Join(f.writeFile(file), f.forget()); err != nil {
		f.log.Warn("trace not kept", "why", why, "error", err.Error())
		return
	}
	f.log.Info("trace kept: something was slow", "what", why, "file", file)
}

func (f *flight) writeFile(name string) error {
	if err := os.MkdirAll(f.folder, 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.write(file), file.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// forget removes the oldest traces, if there are too many.
func (f *flight) forget() error {
	entries, err := os.ReadDir(f.folder) // by name, and so by age
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !strings.HasSuffix(e.Name(), traceEnding) })
	for _, e := range entries[:max(0, len(entries)-mostTraces)] {
		err = errors.Join(err, os.Remove(filepath.Join(f.folder, e.Name())))
	}
	return err
}

// A stallWatch finds downloads that stand still. One goroutine uses it.
type stallWatch struct {
	d    *daemon
	told map[string]time.Time // of those that were told of, by download: since when
}

// look is "stall" when a download stands still of which that was not told yet, else nothing.
func (s *stallWatch) look(now time.Time) (why string) {
	s.d.mu.Lock()
	all := maps.Clone(s.d.running)
	s.d.mu.Unlock()
	told := map[string]time.Time{}
	for id, r := range all {
		if r.over() {
			continue
		}
		since, still := r.silent(now)
		if !still {
			continue
		}
		if told[id] = since; !s.told[id].Equal(since) {
			why = "stall"
		}
	}
	s.told = told
	return why
}

// silent is since when no byte has come of what is being fetched, if that is long.
func (r *running) silent(now time.Time) (since time.Time, still bool) {
	stage := r.show.stageNow()
	since = time.Unix(0, r.show.progress.LastByte.Load())
	if since.Before(stage.Begun) {
		since = stage.Begun
	}
	return since, stage.Name == "fetching" && now.Sub(since) >= stallAfter
}
