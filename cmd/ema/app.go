package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"ema/internal/config"
	"ema/internal/host"
	"ema/internal/metrics"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/source"
)

// An app is what all commands share: streams, environment, global flags and the settings that come of them. It is used
// by one command at a time.
type app struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	environ []string

	configFile string // --config
	storeDir   string // --store
	endpoint   string // --endpoint
	server     string // --server: another daemon than that of the store; empty = EMA_SERVER, if any
	logLevel   string // --log-level
	listen     string // --listen of serve
	json       bool   // --json: results and errors as JSON on stdout
	quiet      bool   // --quiet: no progress
	cpus       int    // threads that may run at once; 0 = as many as Go allows itself

	args        []string // the command line, without the program's name
	connections string   // --connections of a command that fetches; empty = as configured

	effective *config.Effective             // loaded by settings
	within    *line                         // the daemon's own line, when a command runs inside the daemon; else nil
	columns   int                           // within the daemon: of the terminal that stderr leads to; 0 is none
	changed   func(id model.ID, why string) // within the daemon: tells that the store holds something else of a model; else nil
	metrics   *metrics.Metrics              // within the daemon; else nil
	// examined and mended are told within the daemon what a check and a repair of one commit have found; else nil.
	examined func(id model.ID, commit, kind string, report *pipeline.Report, took time.Duration)
	mended   func(id model.ID, commit string, before *pipeline.Report, res *pipeline.Result, took time.Duration, err error)
	busy     map[model.ID]bool // within the daemon: models that are being downloaded, of which nothing may be removed
	running  bool              // the command line was understood, and its command has begun
}

// newApp is the app of this process.
func newApp() *app {
	return &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()}
}

// getenv is os.Getenv on the app's own environment.
func (a *app) getenv(name string) string {
	value := ""
	for _, pair := range a.environ {
		if rest, ok := strings.CutPrefix(pair, name+"="); ok {
			value = rest
		}
	}
	return value
}

// settings are the effective settings, loaded when first asked for. store.path and the hub's endpoint are never empty
// in them, unless not even HOME is known.
func (a *app) settings() (*config.Effective, error) {
	if a.effective != nil {
		return a.effective, nil
	}
	e, err := a.load(a.configFile)
	if err != nil {
		return nil, err
	}
	a.effective = e
	return e, nil
}

// load reads the settings with that configuration file; empty = the one that is found.
func (a *app) load(file string) (*config.Effective, error) { return a.loadOver(file, nil) }

// loadOver is load with those changes instead of the stored ones; nil = the stored ones.
func (a *app) loadOver(file string, over *config.Overlay) (*config.Effective, error) {
	flags, err := a.flagSettings()
	if err != nil {
		return nil, err
	}
	ambient, err := a.ambientSettings()
	if err != nil {
		return nil, err
	}
	facts, err := a.machine()
	if err != nil {
		return nil, err
	}
	r := config.Request{File: file, Environ: a.environ, Flags: flags, Ambient: ambient, Facts: facts}
	e, err := config.Load(r) // which says where changes lie, and they never say that
	if err != nil {
		return nil, err
	}
	var foreign []config.Warning
	if over == nil {
		file := overlayFile(e.Config)
		stored, err := readOverlay(file)
		if errors.Is(err, fs.ErrPermission) { // of a store that several users share, the daemon's user has changed them
			stored, err = config.Overlay{}, nil
			foreign = []config.Warning{{Key: file, Text: "is not for this user to read, so what was changed there does not hold here"}}
		}
		if err != nil {
			return nil, err
		}
		over = &stored
	}
	if r.Overlay = *over; !over.Empty() {
		e, err = config.Load(r)
		if wrong, ok := errors.AsType[*model.Error](err); ok {
			told := *wrong
			told.Hint = `without changed settings it is right: take one back with "ema config unset KEY"`
			err = &told
		}
		if err != nil {
			return nil, err
		}
	}
	e.Warnings = append(e.Warnings, foreign...)
	open, _, err := host.OpenFiles()
	if err != nil {
		return nil, err
	}
	boundConnections(e, open)
	return e, nil
}

// fewerConnections is the key of the warning that boundConnections gives.
const fewerConnections = "connection_settings"

// boundConnections lowers the connections to what the limit of open files leaves room for, and says so. Files need their
// share of it too: the most that are open at once are a batch that is being published.
func boundConnections(e *config.Effective, open int) {
	const files = 256
	c := &e.ConnectionSettings
	most := max(4, (open-files)/2)
	if c.ConnectionPoolSize <= most && c.MaxConnectionsPerHost <= most {
		return
	}
	e.Warnings = append(e.Warnings, config.Warning{
		Key:  fewerConnections,
		Text: fmt.Sprintf("lowered to %d connections, since this process may have %d files open; raise the limit (ulimit -n, LimitNOFILE)", most, open),
	})
	c.ConnectionPoolSize, c.MaxConnectionsPerHost = min(c.ConnectionPoolSize, most), min(c.MaxConnectionsPerHost, most)
}

// flagSettings are the settings that global flags make.
func (a *app) flagSettings() ([]config.Setting, error) {
	var all []config.Setting
	if a.storeDir != "" {
		dir, err := filepath.Abs(a.storeDir)
		if err != nil {
			return nil, fmt.Errorf("--store %s: %w", a.storeDir, err)
		}
		all = append(all, config.Setting{Key: "store.path", Value: dir, Where: "--store"})
	}
	if a.endpoint != "" {
		all = append(all, config.Setting{Key: "sources.huggingface.endpoint", Value: a.endpoint, Where: "--endpoint"})
	}
	if a.listen != "" {
		all = append(all, config.Setting{Key: "server.listen", Value: a.listen, Where: "--listen"})
	}
	if a.logLevel != "" {
		all = append(all, config.Setting{Key: "log.level", Value: a.logLevel, Where: "--log-level"})
	}
	return append(all, connectionSettings(a.connections)...), nil
}

// ambientSettings are what the user's environment says to all tools of the hub.
func (a *app) ambientSettings() ([]config.Setting, error) {
	var all []config.Setting
	add := func(key, value, from string) {
		if from == "" {
			from = config.Origin{}.String()
		}
		all = append(all, config.Setting{Key: key, Value: value, Where: from})
	}
	if dir, from := source.CacheDirFromEnv(a.getenv); dir != "" {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
		add("store.path", dir, from)
	}
	endpoint, from := source.EndpointFromEnv(a.getenv)
	add("sources.huggingface.endpoint", endpoint, from)
	return all, nil
}

// processors is how many threads may run at once, which Go bounds by the limits of a container.
func (a *app) processors() int { return cmp.Or(a.cpus, runtime.GOMAXPROCS(0)) }

// spareThreads lets two more threads run Go code than there are processors, unless GOMAXPROCS says otherwise. A thread
// that waits for the disk counts as running until Go notices, 20 us to 10 ms later: with direct writes a processor was
// idle meanwhile, and a pull of 2 GiB took 6 % longer.
func (a *app) spareThreads() {
	a.cpus = runtime.GOMAXPROCS(0)
	if a.getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(a.cpus + 2)
	}
}

// machine is what automatic settings depend on.
func (a *app) machine() (config.Facts, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return config.Facts{}, fmt.Errorf("read the size of the memory: %w", err)
	}
	memory := uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // narrower on other architectures
	return config.Facts{CPUs: a.processors(), Memory: model.Bytes(memory)}, nil
}

// result prints what a command found: v as one JSON document with --json, else what text writes.
func (a *app) result(v any, text func(io.Writer) error) error {
	if a.json {
		return a.printJSON(v)
	}
	return a.print(text)
}

// print hands what text writes to stdout at once: a table is many small writes.
func (a *app) print(text func(io.Writer) error) error {
	w := bufio.NewWriter(a.stdout)
	return errors.Join(text(w), w.Flush())
}

// printJSON prints one JSON document on a line of its own.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// interactive reports whether a person watches that stream: then there may be live bars.
func interactive(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colored reports whether a stream may have colours: on a terminal, unless NO_COLOR says no (no-color.org).
func (a *app) colored(stream any) bool {
	return interactive(stream) && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
}

// logger writes as the log keys say; level holds where log.level is empty. The returned function closes the log.
func (a *app) logger(log config.Log, level slog.Level) (*slog.Logger, func() error, error) {
	if log.Level != "" {
		if err := level.UnmarshalText([]byte(log.Level)); err != nil {
			return nil, nil, fmt.Errorf("log.level: %w", err)
		}
	}
	out, closeLog := a.stderr, func() error { return nil }
	if log.File != "" {
		f, err := os.OpenFile(log.File, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, nil, &model.Error{Op: "open the log", Class: model.DiskError, File: log.File, Err: err, Hint: "set log.file to a place where ema may write"}
		}
		out, closeLog = f, f.Close
	}
	options := &slog.HandlerOptions{Level: level}
	if log.Format == "json" {
		return slog.New(slog.NewJSONHandler(out, options)), closeLog, nil
	}
	return slog.New(slog.NewTextHandler(out, options)), closeLog, nil
}

// tell says to those who listen to the daemon, if this runs within it, that the store holds something else of a model.
func (a *app) tell(id model.ID, why string) {
	if a.changed != nil {
		a.changed(id, why)
	}
}

// note prints what the user should know about a model that is here all the same.
func (a *app) note(id model.ID, text string) {
	fmt.Fprintf(a.stderr, "ema: note: %s: %s\n", id.Public(), text)
}

// eachOf does one thing after the other. One that fails does not keep the others, unless ctx has ended; all failures are
// printed, and the first one decides the exit code.
func eachOf[T any](ctx context.Context, a *app, all []T, do func(T) error) error {
	var failed error
	for _, one := range all {
		err := do(one)
		switch {
		case err == nil:
		case ctx.Err() != nil || len(all) == 1:
			return err
		case failed == nil:
			failed = &reportedError{err}
			fallthrough
		default:
			a.report(err, false)
		}
	}
	return failed
}
