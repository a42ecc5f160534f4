package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"ema/client"
	"ema/internal/api"
	"ema/internal/api/snapshot"
	"ema/internal/config"
	"ema/internal/event"
	"ema/internal/host"
	"ema/internal/ledger"
	"ema/internal/metrics"
	"ema/internal/model"
	"ema/internal/queue"
	"ema/internal/store"
	"ema/internal/throttle"
	"ema/internal/tier"
	"ema/internal/webhook"
)

func serveCommand(a *app) *cobra.Command {
	var insecure, demo bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon: a queue of downloads over one store",
		Long: "Owns the store and downloads what other commands ask for: pull, ps, pause, resume, cancel, prioritize and top talk to\n" +
			"it when it runs, and programs by its HTTP API, which /docs describes. SIGTERM and Ctrl-C stop it within seconds; what\n" +
			"was under way goes on when it starts again. SIGHUP reads the configuration again.",
		Example: "  ema serve\n  ema serve --store /models/hub --log-level debug\n  ema serve --demo",
		RunE: func(cmd *cobra.Command, _ []string) error {
			serve := func(ctx context.Context) error { return a.serve(ctx, insecure) }
			if demo {
				return a.demo(cmd.Context(), serve)
			}
			return serve(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&a.listen, "listen", "", "`HOST:PORT` of the API (default: server.listen, 127.0.0.1:8000)")
	cmd.Flags().BoolVar(&demo, "demo", false, "bring models from a sample hub on this machine, to try everything offline")
	cmd.Flags().BoolVar(&insecure, "insecure-no-auth", false, "without API keys, let everybody who reaches the API do everything, also from other machines")
	return cmd
}

// daemonCommand is how the daemon is called where others wait for it.
const daemonCommand = "ema serve"

// stopping is how long everything that runs may take to end, once the daemon is told to stop. Whatever still hangs
// then - a disk, mostly - is left behind: the store is such that a process may end at any time.
const stopping = 4500 * time.Millisecond

// A daemon is what one store's downloads need while it runs.
type daemon struct {
	app        *app
	line       *line
	ledger     *journal
	history    *ledger.Recorder
	bus        *event.Bus
	queue      *queue.Queue
	limiter    *throttle.Limiter
	keeper     *throttle.Keeper
	host       *host.Host
	door       door
	network    *network
	api        *api.Server
	metrics    *metrics.Metrics
	models     *snapshot.Models
	repairs    *repairs
	standIns   *standIns
	updates    *updates
	benchmarks *benchmarks
	clinic     *clinic
	gauge      *gauge
	monitor    *monitor
	webhooks   *webhook.Sender
	habits     *habits
	moves      *moves
	cache      *tier.Cache // of models in memory
	pools      *pools
	janitor    *janitor
	flight     *flight
	meter      host.Meter
	heap       heap
	rested     chan struct{} // holds one when a download has ended
	tidying    chan struct{} // holds one when files of interrupted downloads are to be looked at
	log        *slog.Logger

	reloading sync.Mutex // held while the settings change

	mu           sync.Mutex // guards what follows
	settings     *config.Effective
	limited      string       // why the limit that holds does
	limitedSince time.Time    // when another limit came; zero when none did since the start
	limitedTo    *model.Bytes // the limit that was told last; nil before the first
	running      map[string]*running
	active       int      // of running, those that are not over
	ended        []string // of running, those that are over, oldest first
}

// serve runs the daemon until ctx ends. It reads as the story of a start.
func (a *app) serve(ctx context.Context, insecure bool) (err error) {
	e, err := a.daemonSettings("")
	if err != nil {
		return err
	}
	a.effective = e
	l, err := a.line(daemonCommand, false, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.end()) }()
	for _, w := range e.Warnings {
		l.log.Warn("configuration", "key", w.Key, "warning", w.Text)
	}

	// Who owns the store may change it, and replace the socket that a killed daemon left.
	l.Writer, err = l.Store.Own(ctx, daemonCommand, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Writer.Close()) }()
	// Another tool, or a second download of ours with other patterns, may be fetching the same blob.
	l.Writer.Patient(func(o store.Owner) { l.log.Info("waiting for a blob", "of", o.String()) })
	state := l.Store.StateDir()
	socket, err := api.Listen(state) // before anything slow: a command that finds it waits until it is answered
	if err != nil {
		return err
	}
	kept, err := ledger.Open(ctx, filepath.Join(state, ledgerFile))
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	if kept.Note != "" {
		l.log.Warn("ledger", "note", kept.Note)
		fmt.Fprintln(a.stderr, "ema: note: "+kept.Note)
	}

	history := ledger.NewRecorder(kept, e.Database.URL, filepath.Join(state, unwrittenFile), mostUnwritten)
	noted := &journal{Ledger: kept}
	if e.Database.URL != "" {
		noted.copies = history
	}
	d := &daemon{
		app: a, line: l, ledger: noted, history: history, log: l.log, bus: event.New(0), limiter: throttle.New(), host: host.New("", a.processors()),
		settings: e, running: map[string]*running{}, rested: make(chan struct{}, 1), tidying: make(chan struct{}, 1), heap: heap{collectAt: a.collectAt},
	}
	if wanted, given := a.workers(e.CPUOptimization); wanted > given {
		l.log.Warn("one process: cpu_optimization's worker_processes and worker_threads_per_process together are bounded by the processors", "wanted", wanted, "given", given)
	}
	a.collectAt(heapOfAnswers)
	d.janitor = newJanitor(d.host.Memory)
	d.flight = newFlight(filepath.Join(state, tracesFolder), l.log)
	tell := d.hostWaits
	l.waits.Store(&tell)
	d.keeper = throttle.NewKeeper(d.limiter, d.limitChanged)
	facts, err := a.machine()
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	d.queue = queue.New(queueSettings(e.Config, facts), noted, d.bring, d.bus)
	if err := d.configureBandwidth(e.Config); err != nil {
		return errors.Join(err, socket.Close())
	}
	if err := d.queue.Load(ctx); err != nil {
		return errors.Join(err, socket.Close())
	}
	if err := d.beginPartials(ctx); err != nil {
		return errors.Join(err, socket.Close())
	}
	d.pools = newPools(e.CPUOptimization, func(problem string) { d.log.Warn("threads", "problem", problem) })
	l.Run, l.hashing = d.pools.io.Do, d.pools.download.Do
	if err := l.configure(e, facts); err != nil { // so that downloads are hashed there
		return errors.Join(err, socket.Close())
	}
	memory, err := d.heapRule(e.Config)
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	d.keepMemory(memory)
	d.repairs, d.moves, d.cache, d.clinic = newRepairs(d), newMoves(d), d.newCache(e.Config), newClinic(d)
	d.updates, d.benchmarks = newUpdates(d), newBenchmarks(d)
	if d.standIns, err = newStandIns(d); err != nil {
		return errors.Join(err, socket.Close())
	}
	if d.monitor, err = newMonitor(d); err != nil {
		return errors.Join(err, socket.Close())
	}
	d.webhooks = webhook.New(nil, d.log)
	if d.habits, err = d.recall(ctx, e.StorageTiers); err != nil {
		return errors.Join(err, socket.Close())
	}
	if d.models, err = d.answers(ctx); err != nil {
		return errors.Join(err, socket.Close())
	}
	if d.network, err = d.openNetwork(ctx, e, insecure); err != nil {
		return errors.Join(err, socket.Close())
	}
	d.metrics, d.gauge = d.measure(ctx), newGauge(d)
	noted.took = d.metrics.ObserveDatabase
	shown, err := d.openMetrics(ctx, e)
	if err != nil {
		return errors.Join(err, d.network.listener.Close(), socket.Close())
	}
	d.api = d.server()
	if err := d.network.configure(e.Config, d.api); err != nil {
		return errors.Join(err, shut(shown), d.network.listener.Close(), socket.Close())
	}
	return d.work(ctx, socket, shown)
}

// daemonSettings are the settings of a daemon. file has the changed ones; empty = those of the store that the others name.
func (a *app) daemonSettings(file string) (*config.Effective, error) {
	if file == "" {
		e, err := a.loadOver(a.configFile, &config.Overlay{})
		if err != nil {
			return nil, err
		}
		file = overlayFile(e.Config)
	}
	over, err := readOverlay(file) // which it must be able to, unlike other commands
	if err != nil {
		return nil, err
	}
	return a.daemonSettingsOver(over)
}

// daemonSettingsOver are those with these changes.
func (a *app) daemonSettingsOver(o config.Overlay) (*config.Effective, error) {
	e, err := a.loadOver(a.configFile, &o)
	return talkative(e), err
}

// talkative lets a daemon log more than a command does.
func talkative(e *config.Effective) *config.Effective {
	if e == nil {
		return nil
	}
	if e.Log.Level == "" {
		e.Log.Level = "info"
	}
	return e
}

// work runs all that lives as long as the daemon, and returns when it has ended. shown is for Prometheus, or nil.
func (d *daemon) work(ctx context.Context, socket, shown net.Listener) error {
	endHistory := d.keepHistory(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.chronicle(ctx) })
	g.Go(func() error { return d.metrics.Run(ctx, d.bus) })
	if shown != nil {
		g.Go(func() error { return d.showMetrics(ctx, shown) })
	}
	g.Go(func() error { return d.models.Run(ctx) })
	g.Go(func() error { return d.gauge.run(ctx) })
	g.Go(func() error { return d.gauge.watchman.run(ctx) })
	g.Go(func() error { return d.monitor.run(ctx) })
	g.Go(func() error { return d.api.Run(ctx, socket) })
	g.Go(func() error { return d.network.run(ctx, d.api) })
	g.Go(func() error { return d.catchUp(ctx) })
	g.Go(func() error { return d.repairs.run(ctx) })
	g.Go(func() error { return d.clinic.run(ctx) })
	g.Go(func() error { return d.updates.run(ctx) })
	g.Go(func() error { return d.benchmarks.run(ctx) })
	g.Go(func() error { return d.standIns.run(ctx) })
	g.Go(func() error { return d.webhooks.Run(ctx) })
	g.Go(func() error { return d.moves.run(ctx) })
	g.Go(func() error { return d.moves.rule(ctx) })
	g.Go(func() error { return d.keepModels(ctx) })
	g.Go(func() error { return d.watchUses(ctx) })
	g.Go(func() error { return d.janitor.run(ctx, &d.heap) })
	d.flight.configure(d.settingsNow().Monitoring.FlightRecorder)
	g.Go(func() error { return d.flight.run(ctx, (&stallWatch{d: d}).look) })
	g.Go(func() error { return d.queue.Run(ctx) })
	g.Go(func() error { return d.keeper.Run(ctx, d.facts) })
	g.Go(func() error { return d.watchSpace(ctx) })
	g.Go(func() error { return watchTiers(ctx, d.line.Store.Tiers, d.tierChanged) })
	g.Go(func() error { return d.sizeQueue(ctx) })
	g.Go(func() error { return d.forget(ctx) })
	g.Go(func() error { return d.rest(ctx) })
	g.Go(func() error { return d.hearEnds(ctx) })
	g.Go(func() error { return d.tidyPartials(ctx) })
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // before anybody is told that it may be sent
	defer signal.Stop(hangups)
	g.Go(func() error { return d.reloadOn(ctx, hangups) })
	d.ready()

	ended := make(chan error, 1)
	go func() {
		err := g.Wait()
		ended <- errors.Join(err, endHistory()) // what the others have told is written
	}()
	select {
	case err := <-ended: // something failed
		return d.over(ctx, err)
	case <-ctx.Done():
	}
	if err := d.app.notify("STOPPING=1"); err != nil {
		d.log.Warn("service manager", "error", err.Error())
	}
	d.log.Info("stopping")
	patience := time.NewTimer(stopping)
	defer patience.Stop()
	select {
	case err := <-ended:
		return d.over(ctx, err)
	case <-patience.C:
		return &model.Error{Op: "stop the daemon", Err: fmt.Errorf("something still hangs after %v and is left behind", stopping), Hint: "check the disk; nothing that was stored is lost"}
	}
}

// over tells an end that was asked for from a failure.
func (d *daemon) over(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && model.ClassOf(err) == model.Cancelled {
		err = nil
	}
	if err == nil {
		d.log.Info("stopped")
	}
	return err
}

// ready says that commands are answered.
func (d *daemon) ready() {
	paused, waiting := 0, 0
	for _, dl := range d.queue.List() {
		if dl.State == model.Paused {
			paused++
		} else {
			waiting++
		}
	}
	kept := d.line.Store
	fmt.Fprintf(d.app.stderr, "ema: serving the store %s at %s and %s: %s queued, %d paused\n", kept.Path(), client.Socket(kept.StateDir()), d.network.url(), count(waiting, "download", "downloads"), paused)
	if err := d.app.notify("READY=1"); err != nil {
		d.log.Warn("service manager", "error", err.Error())
	}
}

// version is what the daemon says of itself.
func (d *daemon) version() client.Version {
	b := currentBuild()
	return client.Version{
		Version: b.Version, Commit: b.Commit, Go: runtime.Version(), Platform: b.Platform,
		PID: os.Getpid(), Since: time.Now().UTC(), Store: d.line.Store.Path(),
	}
}

// rest gives back to the system what downloads needed of its memory, soon after the last one has ended: a daemon that
// waits for work should cost next to nothing.
func (d *daemon) rest(ctx context.Context) error {
	for {
		select {
		case <-d.rested:
		case <-ctx.Done():
			return nil
		}
		if pause(ctx, 2*time.Second) != nil {
			return nil
		}
		d.mu.Lock()
		idle := d.active == 0
		d.mu.Unlock()
		if idle {
			d.line.Fetcher.Rest()
			debug.FreeOSMemory()
		}
	}
}

// reloadOn reads the settings again whenever a signal asks for it.
func (d *daemon) reloadOn(ctx context.Context, hangups <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			if _, err := d.reload(ctx); err != nil {
				d.log.Error("configuration not reloaded; the settings stay as they were", "error", err.Error())
			}
		}
	}
}
