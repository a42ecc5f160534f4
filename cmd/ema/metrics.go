package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"ema/internal/api/trust"
	"ema/internal/config"
	"ema/internal/metrics"
	"ema/internal/model"
	"ema/internal/pipeline"
)

// measure makes the metrics of this daemon. Its downloads must be loaded, and none may run yet.
func (d *daemon) measure(ctx context.Context) *metrics.Metrics {
	built := currentBuild()
	return metrics.New(metrics.Settings{
		Version: built.Version, Commit: built.Commit,
		Active: d.queue.List, Since: d.bus.Seq(), Limit: d.limiter.Rate,
		Storage:     func() (used, free model.Bytes, err error) { return d.stock(ctx) },
		Health:      d.clinic.count,
		Regressions: func() int { return d.gauge.watchman.open() },
		History: func() metrics.History {
			s := d.history.State()
			return metrics.History{Waiting: s.Waiting, Written: s.Written, Dropped: s.Dropped, Away: s.Away != nil}
		},
		WebSocket: func() metrics.WebSocket {
			s := d.network.hub.Stats()
			return metrics.WebSocket{Clients: s.Clients, Sent: s.Sent, Superseded: s.Dropped, ClosedSlow: s.ClosedSlow}
		},
		Log: d.log,
	})
}

// stock is what the models take, and what may still be filled.
func (d *daemon) stock(ctx context.Context) (used, free model.Bytes, err error) {
	models, err := d.line.Store.Models(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, m := range models {
		used += m.Size + m.Incomplete
	}
	free, err = d.line.Store.Free()
	return used, max(0, free-d.line.LeaveFree()), err
}

// openMetrics listens where Prometheus will ask; nil where it shall not. The usual port may well be taken, by Prometheus
// itself or by the daemon of another store: when nobody has asked for just that one, the daemon does without.
func (d *daemon) openMetrics(ctx context.Context, e *config.Effective) (net.Listener, error) {
	if e.Server.MetricsListen == "" {
		return nil, nil
	}
	l, err := metrics.Listen(ctx, e.Server.MetricsListen)
	if err == nil {
		d.log.Info("metrics", "listen", l.Addr().String())
		return l, nil
	}
	if e.Origin("server.metrics_listen") == (config.Origin{}) && errors.Is(err, syscall.EADDRINUSE) {
		fmt.Fprintln(d.app.stderr, "ema: note: no metrics: "+err.Error())
		return nil, nil
	}
	return nil, err
}

// shut closes l unless it is nil.
func shut(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// showMetrics answers Prometheus on l until ctx ends. Pages of others are shut out here too; nobody needs a key.
func (d *daemon) showMetrics(ctx context.Context, l net.Listener) error {
	guard, err := trust.New(trust.Settings{
		AllowedHosts: d.network.server.AllowedHosts, Loopback: trust.Loopback(l), Insecure: true, Open: metrics.Paths(),
	})
	if err != nil {
		return err
	}
	return d.metrics.Serve(ctx, l, guard.Wrap)
}

// countVerified counts a verification within the daemon.
func countVerified(m *metrics.Metrics, report *pipeline.Report, err error) {
	switch {
	case m == nil:
	case err != nil || report.Whole() && !report.OK():
		m.Verified(metrics.Unverified)
	case report.OK():
		m.Verified(metrics.Whole)
	default:
		m.Verified(metrics.Damaged)
	}
}

// countRepaired counts a repair within the daemon, and what it has fetched.
func (a *app) countRepaired(id model.ID, res *pipeline.Result, received int64, err error) {
	if a.metrics == nil {
		return
	}
	a.metrics.Received(id.Scheme, received)
	switch {
	case err != nil:
		a.metrics.Repaired(metrics.NotMended)
	case res == nil:
		a.metrics.Repaired(metrics.NothingToMend)
	default:
		a.metrics.Repaired(metrics.Mended)
	}
}
