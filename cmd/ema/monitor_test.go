package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/api"
	"ema/internal/event"
	"ema/internal/host"
	"ema/internal/ledger"
	"ema/internal/model"
	"ema/internal/throttle"
	"ema/internal/tune"
)

// A tuned daemon answers over its socket, and its history is made up: downloads become slower, the more of them run.
type tuned struct {
	*daemon
	t      *testing.T
	client *client.Client
	now    time.Time
	speed  func(atOnce int) float64
	told   *event.Subscription
}

func newTuned(t *testing.T, environ ...string) *tuned {
	t.Helper()
	d, _ := quietDaemon(t, append([]string{"EMA_OPTIMIZATION_PROFILE=high_throughput", "EMA_SERVER__LISTEN=127.0.0.1:0"}, environ...)...)
	ctx, stop := context.WithCancel(t.Context())
	d.host = host.New("", 2)
	d.limiter, d.cache = throttle.New(), d.newCache(d.settingsNow())
	d.keeper = throttle.NewKeeper(d.limiter, d.limitChanged)
	d.janitor, d.flight = newJanitor(d.host.Memory), newFlight(t.TempDir(), d.log)
	var err error
	if d.models, err = d.answers(ctx); err != nil {
		t.Fatal(err)
	}
	if d.network, err = d.openNetwork(ctx, d.settings, false); err != nil {
		t.Fatal(err)
	}
	d.gauge = newGauge(d)
	c := &tuned{daemon: d, t: t, now: time.Now().Truncate(5 * time.Minute), speed: func(n int) float64 { return 300 / (1 + 0.2*float64(n)) }}
	c.restart()
	d.api = d.server()
	socket, err := api.Listen(d.line.Store.StateDir())
	if err != nil {
		t.Fatal(err)
	}
	c.client = client.Local(d.line.Store.StateDir())
	if c.told, err = d.bus.Subscribe(event.Want{Filter: func(e event.Event) bool { return e.Kind == event.KindOptimization }}); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 2)
	go func() { over <- d.history.Run(ctx) }()
	go func() { over <- d.api.Run(ctx, socket) }()
	t.Cleanup(func() {
		c.told.Close()
		c.client.Close()
		stop()
		<-over
		<-over
		if err := d.network.listener.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range 10 { // a decline
		c.passes(max(1, 1.5-0.1*float64(i)))
	}
	return c
}

// restart has it remember what it has stored, and nothing else.
func (c *tuned) restart() {
	c.t.Helper()
	fresh, err := newMonitor(c.daemon)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.monitor == nil {
		c.monitor = fresh
	}
	c.monitor.mu.Lock()
	defer c.monitor.mu.Unlock()
	c.monitor.trials, c.monitor.looked = fresh.trials, fresh.looked
}

func (c *tuned) atOnce() int {
	c.t.Helper()
	facts, err := c.app.machine()
	if err != nil {
		c.t.Fatal(err)
	}
	return c.settingsNow().Downloads.AtOnce(facts)
}

// passes lets an interval pass, with so many times the usual speed.
func (c *tuned) passes(times float64) {
	n := c.atOnce()
	var some []model.Sample
	for i := range 3 {
		at := c.now.Add(time.Duration(10*i+1) * time.Second)
		some = append(some, model.Sample{Series: "downloads.average_speed_mbps", At: at, Value: times * c.speed(n) * (1 + 0.01*float64(i))}, model.Sample{Series: "downloads.active_count", At: at, Value: float64(n)})
	}
	c.history.Tell(ledger.Batch{Samples: some})
	c.now = c.now.Add(5 * time.Minute)
}

func (c *tuned) look() {
	c.t.Helper()
	if err := c.monitor.look(c.t.Context(), c.now); err != nil {
		c.t.Fatal(err)
	}
}

func (c *tuned) list() client.Optimizations {
	c.t.Helper()
	all, err := c.client.Optimizations(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

// becomes lets time pass until the newest change is in a status.
func (c *tuned) becomes(status string) client.Optimization {
	c.t.Helper()
	for range 60 {
		c.look()
		if all := c.list().Optimizations; len(all) > 0 && all[0].Status == status {
			return all[0]
		}
		c.passes(1)
	}
	c.t.Fatalf("never %s: %+v", status, c.list())
	return client.Optimization{}
}

// heard is the next thing that was told.
func (c *tuned) heard() event.Optimization {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patient)
	defer cancel()
	for {
		some, err := c.told.Next(ctx)
		if err != nil {
			c.t.Fatal(err)
		}
		if len(some) > 0 {
			return some[len(some)-1].Data.(event.Optimization)
		}
	}
}

// ema runs a command in this process.
func (c *tuned) ema(args ...string) (string, error) {
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &out, environ: c.app.environ}
	err := perform(c.t.Context(), a, rootCommand(a), args)
	return out.String(), err
}

const key = "downloads.max_concurrent_downloads"

// stored is what is stored of changed settings.
func (c *tuned) stored() string {
	c.t.Helper()
	raw, err := os.ReadFile(c.changedFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(raw)), "")
}

func TestASettingIsChangedMeasuredAndKept(t *testing.T) {
	c := newTuned(t, "EMA_MONITORING__AUTO_APPLY=true")
	o := c.becomes("measuring")
	if o.Setting != key || o.From != "8" || o.To != "6" || c.atOnce() != 6 || c.stored() != `{"downloads":{"max_concurrent_downloads":6}}` {
		t.Fatalf("%+v; %d at once, stored %s", o, c.atOnce(), c.stored())
	}
	if told := c.heard(); told.Status != "measuring" || told.Key != key || told.To != "6" {
		t.Errorf("told: %+v", told)
	}
	c.restart() // in the middle of it
	if c.becomes("checking"); c.atOnce() != 8 || c.stored() != "{}" {
		t.Errorf("while it is checked: %d at once, stored %s", c.atOnce(), c.stored())
	}
	c.restart()
	c.becomes("confirming")
	o = c.becomes("kept")
	if c.atOnce() != 6 || o.Better == nil || *o.Better < 5 || *o.Before >= *o.After || o.Undo == nil {
		t.Errorf("kept: %+v", o)
	}
	if told := c.heard(); told.Status != "kept" || told.Better < 0.05 {
		t.Errorf("told: %+v", told)
	}
	trail, err := c.ledger.Audit(t.Context(), 0, 0)
	if err != nil || len(trail) != 3 || trail[0].Who != "ema" || trail[0].Action != "optimize" || trail[0].Target != key+" 6" {
		t.Errorf("audit: %+v, %v", trail, err)
	}

	out, err := c.ema("optimizations")
	if err != nil || !strings.Contains(out, key) || !strings.Contains(out, "kept") || !strings.Contains(out, "+") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err = c.ema("optimizations", "undo", o.ID, "--json"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var done client.OptimizationUndone
	if err := json.Unmarshal([]byte(out), &done); err != nil || done.Optimization.Status != "undone_by_user" || c.atOnce() != 8 || c.stored() != "{}" {
		t.Errorf("%v: %s; stored %s", err, out, c.stored())
	}
	if told := c.heard(); told.Status != "undone_by_user" {
		t.Errorf("told: %+v", told)
	}
	_, err = c.client.UndoOptimization(t.Context(), o.ID)
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != http.StatusConflict {
		t.Errorf("twice: %v", err)
	}
	_, err = c.client.UndoOptimization(t.Context(), "99")
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != http.StatusNotFound {
		t.Errorf("one that there is not: %v", err)
	}
}

func TestASettingThatDoesNotHelpIsUndone(t *testing.T) {
	c := newTuned(t, "EMA_MONITORING__AUTO_APPLY=true")
	c.speed = func(int) float64 { return 120 }
	c.becomes("measuring")
	if o := c.becomes("undone"); c.atOnce() != 8 || c.stored() != "{}" || o.Undo != nil {
		t.Errorf("%+v; stored %s", o, c.stored())
	}
	for range 20 {
		c.passes(1)
		c.look()
	}
	if all := c.list().Optimizations; len(all) != 1 {
		t.Errorf("it is tried again at once: %+v", all)
	}
}

func TestWithoutAutoApplyItIsOnlyRecommended(t *testing.T) {
	c := newTuned(t)
	c.look()
	all := c.list()
	if len(all.Optimizations) != 0 || all.AutoApply || c.atOnce() != 8 || c.stored() != "" {
		t.Errorf("%+v; stored %s", all, c.stored())
	}
	out, err := c.ema("optimizations")
	if err != nil || !strings.Contains(out, "auto_apply is off") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWhatAPersonHasSetStays(t *testing.T) {
	t.Run("meanwhile, and undo refuses", func(t *testing.T) {
		c := newTuned(t, "EMA_MONITORING__AUTO_APPLY=true")
		o := c.becomes("measuring")
		if _, err := c.ema("config", "set", key, "5"); err != nil {
			t.Fatal(err)
		}
		out, err := c.ema("optimizations", "undo", o.ID)
		if err == nil || !strings.Contains(out, "was set to something else since") {
			t.Errorf("undo: %v, %s", err, out)
		}
		c.passes(1)
		c.look()
		if o := c.list().Optimizations[0]; o.Status != "superseded" || c.atOnce() != 5 {
			t.Errorf("%+v, %d at once", o, c.atOnce())
		}
	})
	t.Run("before, in the environment", func(t *testing.T) {
		c := newTuned(t, "EMA_MONITORING__AUTO_APPLY=true", "EMA_DOWNLOADS__MAX_CONCURRENT_DOWNLOADS=8")
		c.look()
		if all := c.list(); len(all.Optimizations) != 0 || c.atOnce() != 8 {
			t.Errorf("%+v", all)
		}
		f, err := c.signs(t.Context(), c.now)
		if err != nil {
			t.Fatal(err)
		}
		if all := tune.Recommend(c.now, tune.Trials{}, f); len(all) != 1 || !strings.Contains(all[0].Held, "EMA_DOWNLOADS__MAX_CONCURRENT_DOWNLOADS") {
			t.Errorf("recommended: %+v", all)
		}
	})
}

// Whatever a crash leaves between what is decided and what is done, the next daemon goes on with it.
func TestACrashInTheMiddleOfAChangeForgetsNothing(t *testing.T) {
	for promise, crash := range map[string]func(c *tuned, a tune.Act) error{
		"before it is set":                   func(*tuned, tune.Act) error { return nil },
		"after it is set, before it is told": func(c *tuned, a tune.Act) error { return c.monitor.set(c.t.Context(), a) },
	} {
		t.Run(promise, func(t *testing.T) {
			c := newTuned(t, "EMA_MONITORING__AUTO_APPLY=true")
			f, err := c.signs(t.Context(), c.now)
			if err != nil {
				t.Fatal(err)
			}
			next, acts := tune.Decide(c.now, tune.Trials{}, f)
			if len(acts) != 1 {
				t.Fatalf("acts: %+v", acts)
			}
			if err := errors.Join(c.monitor.keep(next), crash(c, acts[0])); err != nil {
				t.Fatal(err)
			}
			c.restart()
			c.look()
			if c.atOnce() != 6 || len(c.list().Optimizations) != 1 || c.heard().Status != "measuring" {
				t.Errorf("%d at once: %+v", c.atOnce(), c.list())
			}
			if _, err := c.ema("optimizations", "undo", "1"); err != nil || c.stored() != "{}" || c.atOnce() != 8 {
				t.Errorf("undo: %v, stored %s", err, c.stored())
			}
		})
	}
}

func TestADamagedNoteOfChangesIsNamed(t *testing.T) {
	d, _ := quietDaemon(t)
	name := filepath.Join(d.line.Store.StateDir(), trialsFile)
	if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newMonitor(d); err == nil || !strings.Contains(err.Error(), name) {
		t.Error(err)
	}
}
