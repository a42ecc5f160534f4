package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"ema/client"
	"ema/internal/api"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/store"
)

// prober is what the daemon can be asked about its own condition, part by part.
func (d *daemon) prober() map[string]func(context.Context) client.PartHealth {
	return map[string]func(context.Context) client.PartHealth{
		client.PartDownloads: d.downloadsHealth,
		client.PartStorage:   d.storageHealth,
		client.PartModels:    d.modelsHealth,
		client.PartDatabase:  d.databaseHealth,
	}
}

// usable is why the daemon cannot serve, or nil: its store and its database answer.
func (d *daemon) usable(ctx context.Context) error {
	if _, err := d.ledger.LastOrder(ctx); err != nil {
		return err
	}
	if _, err := d.history.Database(); err != nil {
		return err
	}
	_, err := d.line.Store.Free()
	return err
}

// condition is healthy when nothing is wrong, else of that status.
func condition(figures map[string]float64, fine, otherwise string, issues ...string) client.PartHealth {
	h := client.PartHealth{Status: client.HealthHealthy, Message: fine, Issues: issues, Figures: figures}
	if len(issues) > 0 {
		h.Status, h.Message = otherwise, issues[0]
	} else {
		h.Issues = []string{}
	}
	return h
}

func (d *daemon) downloadsHealth(context.Context) client.PartHealth {
	count := map[string]float64{"running": 0, "queued": 0, "paused": 0, "retrying": 0}
	var issues []string
	for _, dl := range d.queue.List() {
		switch {
		case runs(dl.State):
			count["running"]++
		default:
			count[string(dl.State)]++
		}
		if dl.State == model.Paused && dl.Pause == model.BySpace {
			issues = append(issues, dl.Model.Public()+" waits for space: "+dl.Reason)
		}
	}
	return condition(count, "downloads run as they should", client.HealthDegraded, issues...)
}

func (d *daemon) storageHealth(ctx context.Context) client.PartHealth {
	total, free, err := host.Volume(ctx, d.line.Store.Path())
	if err != nil {
		return condition(nil, "", client.HealthUnhealthy, fmt.Sprintf("the store %s cannot be looked at: %v", d.line.Store.Path(), err))
	}
	leave := d.line.LeaveFree()
	figures := map[string]float64{"total_gb": gib(total), "free_gb": gib(free), "min_free_gb": float64(leave) / float64(model.GiB)}
	if model.Bytes(free) < leave {
		return condition(figures, "", client.HealthDegraded, fmt.Sprintf(`%s are free and %s are to be left free: see "ema gc --dry-run"`, model.Bytes(free), leave))
	}
	return condition(figures, "there is room", client.HealthHealthy)
}

func (d *daemon) modelsHealth(ctx context.Context) client.PartHealth {
	models, err := d.line.Store.Models(ctx)
	if err != nil {
		return condition(nil, "", client.HealthUnhealthy, err.Error())
	}
	figures := map[string]float64{"models": float64(len(models)), "revisions": 0, "revisions_not_whole": 0}
	var issues []string
	for _, m := range models {
		for _, r := range m.Revisions {
			figures["revisions"]++
			if r.State == store.Incomplete || r.State == store.Damaged {
				figures["revisions_not_whole"]++
				issues = append(issues, fmt.Sprintf(`%s is not whole (%s): "ema repair %s" fetches what is missing`, spelled(m.ID, r), r.State, shellWord(m.ID.Public())))
			}
		}
	}
	return condition(figures, "all models are whole", client.HealthDegraded, issues...)
}

func (d *daemon) databaseHealth(ctx context.Context) client.PartHealth {
	begun := time.Now()
	_, err := d.ledger.LastOrder(ctx)
	state := d.history.State()
	figures := map[string]float64{
		"answered_after_ms": float64(time.Since(begun).Microseconds()) / 1000,
		"records_waiting":   float64(state.Waiting), "records_written": float64(state.Written), "records_dropped": float64(state.Dropped), "records_refused": float64(state.Refused),
	}
	if err != nil {
		return condition(figures, "", client.HealthUnhealthy, err.Error())
	}
	var issues []string
	if d.ledger.Note != "" {
		issues = append(issues, d.ledger.Note)
	}
	if state.Away != nil {
		issues = append(issues, fmt.Sprintf("history is kept in memory since %s, because its database cannot be used: %v", state.Since.UTC().Format(time.RFC3339), state.Away))
	}
	if state.Dropped > 0 {
		issues = append(issues, fmt.Sprintf("%d records of history were dropped while the database was away", state.Dropped))
	}
	return condition(figures, "the database answers", client.HealthDegraded, issues...)
}

// resources is what the daemon takes, and what the machine has.
func (d *daemon) resources(ctx context.Context) (client.Resources, error) {
	u, err := d.meter.Look(ctx)
	if err != nil {
		return client.Resources{}, err
	}
	var heap runtime.MemStats
	runtime.ReadMemStats(&heap)
	r := client.Resources{
		At: time.Now().UTC(),
		Process: client.ProcessResources{
			PID: os.Getpid(), CPUPercent: known(u.ProcessCPU, 1), ResidentMB: known(u.Resident, float64(model.MiB)),
			HeapMB: float64(heap.HeapAlloc) / float64(model.MiB), Goroutines: runtime.NumGoroutine(),
			Threads: counted(u.Threads), OpenFiles: counted(u.OpenFiles),
		},
		Machine: client.MachineResources{
			CPUs: d.app.processors(), CPUPercent: known(u.MachineCPU, 1), Load1: known(u.Load1, 1),
			MemoryTotalMB: known(u.Memory, float64(model.MiB)), MemoryAvailableMB: known(u.Available, float64(model.MiB)),
			NetworkMBps: known(u.Network, float64(model.MiB)),
		},
		Disks: []client.DiskResources{}, Limits: d.limits(), ModelCache: d.inMemory(ctx),
	}
	if u.Memory > 0 && u.Available >= 0 {
		r.Machine.MemoryPercent = known(100*(u.Memory-u.Available)/u.Memory, 1)
	}
	if open, _, err := host.OpenFiles(); err == nil {
		r.Process.MaxOpenFiles = counted(open)
	}
	if total, free, err := host.Volume(ctx, d.line.Store.Path()); err == nil && total > 0 {
		r.Disks = append(r.Disks, client.DiskResources{
			Path: d.line.Store.Path(), TotalGB: gib(total), AvailableGB: gib(free), UsagePercent: 100 * (1 - float64(free)/float64(total)),
		})
	}
	return r, nil
}

func gib(bytes uint64) float64 { return float64(bytes) / float64(model.GiB) }

// known is a figure in units of unit; null when it could not be read.
func known(v, unit float64) *float64 {
	if v < 0 {
		return nil
	}
	v /= unit
	return &v
}

func counted(n int) *int {
	if n < 0 {
		return nil
	}
	return &n
}

// server is what answers about this daemon, over its socket and over the network.
func (d *daemon) server() *api.Server {
	s := &api.Server{
		Queue: d.queue, History: d.ledger, Events: d.bus, Figures: d.figures, Limit: d.limit, MaxRetries: d.maxRetries,
		Models: d.models, Repair: d.repairs.begin, Remove: d.removeModel, Live: d.network.hub, Tiers: d.moves, Use: d.use, Clean: d.clean, Wellbeing: d.clinic, Analyst: &analyst{d: d}, Observer: d.gauge, Optimizer: d.monitor, Assessor: d.benchmarks, Updater: d.updates, StandIns: d.standIns,
		Reload: d.reload, Settings: board{d}, Execute: d.execute, Trail: d.ledger,
		Health: d.prober(), Ready: d.usable, Resources: d.resources, Measure: d.metrics.Observe, Memory: d.host.Resident, Recorded: d.flight.write, Slow: d.flight.answered,
		Version: d.version(), Log: d.log,
	}
	if d.settings.Server.AccessLog {
		s.Access = d.log
	}
	if d.settings.Server.ServerHeader {
		s.Banner = "ema/" + s.Version.Version
	}
	return s
}
