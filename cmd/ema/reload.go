package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ema/client"
	"ema/internal/config"
	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/queue"
	"ema/internal/throttle"
)

// reload reads the settings again and acts on what has changed. When any of them is wrong, all stay as they were.
func (d *daemon) reload(context.Context) (client.Reloaded, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	next, err := d.app.daemonSettings(d.changedFile())
	if err != nil {
		return client.Reloaded{}, err
	}
	return d.apply(next)
}

// apply lets other settings act, or none of them when any cannot. d.reloading must be held.
func (d *daemon) apply(next *config.Effective) (client.Reloaded, error) {
	facts, err := d.app.machine()
	if err != nil {
		return client.Reloaded{}, err
	}
	if _, err := schedule(next.BandwidthManagement); err != nil {
		return client.Reloaded{}, err
	}
	if err := d.moves.pinsFit(next.StorageTiers); err != nil {
		return client.Reloaded{}, err
	}
	memory, err := d.heapRule(next.Config)
	if err != nil {
		return client.Reloaded{}, err
	}
	d.mu.Lock()
	before := d.settings
	d.mu.Unlock()
	if err := d.network.configure(next.Config, d.api); err != nil {
		return client.Reloaded{}, &model.Error{Op: "configuration", Class: model.Usage, Err: err}
	}
	if err := d.line.configure(next, facts); err != nil {
		return client.Reloaded{}, errors.Join(err, d.network.configure(before.Config, d.api))
	}
	d.mu.Lock()
	d.settings = next
	d.mu.Unlock()
	d.queue.Configure(queueSettings(next.Config, facts))
	d.lookAtPartials()
	d.models.Configure(next.API.ResponseCaching, next.API.CacheTTLSeconds.Duration())
	if err := d.configureBandwidth(next.Config); err != nil {
		return client.Reloaded{}, err
	}
	d.mu.Lock()
	for _, r := range d.running {
		r.share.Set(smaller(r.limit, d.perDownload()))
	}
	d.mu.Unlock()

	d.moves.reconsider()
	d.monitor.reconsider()
	d.cache.Configure(cacheSettings(next.Config))
	d.pools.configure(next.CPUOptimization)
	d.keepMemory(memory)
	d.flight.configure(next.Monitoring.FlightRecorder)
	acting, restart := config.Changes(before, next)
	for _, w := range next.Warnings {
		d.log.Warn("configuration", "key", w.Key, "warning", w.Text)
	}
	d.log.Info("configuration reloaded", "changed", acting, "after a restart", restart)
	return client.Reloaded{
		Success: true, Updated: slices.Concat([]string{}, acting, restart),
		RestartRequired: len(restart) > 0, RestartKeys: append([]string{}, restart...),
	}, nil
}

// settingsNow are those that hold now.
func (d *daemon) settingsNow() config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settings.Config
}

// queueSettings are the keys about how many downloads run, wait and try again.
func queueSettings(c config.Config, facts config.Facts) queue.Settings {
	r := retry(c.RetryOptimization)
	return queue.Settings{
		Concurrent: c.Downloads.AtOnce(facts), Size: c.Downloads.Waiting(facts),
		Retry: queue.RetryPolicy{Max: r.Max, Base: r.Base, Factor: r.Factor, MaxDelay: r.MaxDelay, NoJitter: r.NoJitter},
	}
}

// maxRetries is how often a download is tried again, as configured now.
func (d *daemon) maxRetries() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settings.RetryOptimization.MaxRetries
}

// configureBandwidth sets the limits that c describes.
func (d *daemon) configureBandwidth(c config.Config) error {
	s, err := schedule(c.BandwidthManagement)
	if err != nil {
		return err
	}
	d.keeper.Configure(s, adapt(c.BandwidthManagement.AdaptiveLimiting))
	return nil
}

// adapt is the section adaptive_limiting as the throttle knows it.
func adapt(a config.AdaptiveLimiting) throttle.Adapt {
	return throttle.Adapt{Enabled: a.Enabled, MonitorLoad: a.MonitorSystemLoad, Reduce: a.ReduceOnHighLoad, Threshold: a.LoadThreshold}
}

// offHours is the window that holds outside all others.
const offHours = "off_hours"

// schedule is the section bandwidth_management as the throttle knows it. All its mistakes come at once.
func schedule(b config.BandwidthManagement) (throttle.Schedule, error) {
	s := throttle.Schedule{Global: b.GlobalLimitMbps.PerSecond()}
	var wrong []error
	for name, w := range b.TimeBasedLimits {
		if name == offHours && w.Start == "" && w.End == "" {
			s.OffHours = w.LimitMbps.PerSecond()
			continue
		}
		window, err := windowOf(name, w)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("bandwidth_management.time_based_limits.%s: %w", name, err))
			continue
		}
		s.Windows = append(s.Windows, window)
	}
	slices.SortFunc(s.Windows, func(a, b throttle.Window) int { return strings.Compare(a.Name, b.Name) })
	if err := errors.Join(append(wrong, s.Check())...); err != nil {
		return s, &model.Error{Op: "configuration", Class: model.Usage, Err: err}
	}
	return s, nil
}

func windowOf(name string, w config.Window) (throttle.Window, error) {
	start, err := throttle.ParseClock(w.Start)
	if err != nil {
		return throttle.Window{}, fmt.Errorf("start: %w", err)
	}
	end, err := throttle.ParseClock(w.End)
	if err != nil {
		return throttle.Window{}, fmt.Errorf("end: %w", err)
	}
	zone := time.Local
	if w.Timezone != "" {
		if zone, err = time.LoadLocation(w.Timezone); err != nil {
			return throttle.Window{}, fmt.Errorf("timezone: %w", err)
		}
	}
	var days []time.Weekday
	names := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	for _, day := range w.Days {
		days = append(days, time.Weekday(slices.Index(names, day)))
	}
	return throttle.Window{Name: name, Start: start, End: end, Days: days, Zone: zone, Limit: w.LimitMbps.PerSecond()}, nil
}

// limitChanged is told by the keeper of each new limit.
func (d *daemon) limitChanged(perSecond model.Bytes, why string) {
	d.mu.Lock()
	d.limited = why
	if d.limitedTo != nil && *d.limitedTo != perSecond {
		d.limitedSince = time.Now()
	}
	d.limitedTo = &perSecond
	d.mu.Unlock()
	d.bus.Tell(event.Event{Kind: event.KindLimit, Data: event.Limit{Rate: perSecond, Why: why}})
	limit := "none"
	if perSecond > 0 {
		limit = perSecond.String() + "/s"
	}
	d.log.Info("bandwidth", "limit", limit, "why", why)
}

// limit is the one that holds now, and why.
func (d *daemon) limit() (model.Bytes, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limiter.Rate(), d.limited
}

// facts are what adaptive limiting decides by.
func (d *daemon) facts() throttle.Facts {
	f := d.line.facts(d.host)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.running {
		if !r.over() {
			f.Rate += model.Bytes(r.figures().Rate)
		}
	}
	return f
}
