package metrics

import (
	"context"
	"errors"
	"time"

	"ema/internal/event"
	"ema/internal/model"
)

// A life is what must be known of a download until it is over.
type life struct {
	queued  time.Time // since when it waits for its first start; zero when it does not
	started time.Time // for the first time; zero before
}

// Run counts what is told on bus until ctx ends, and returns ctx's cause. It may be called once.
func (m *Metrics) Run(ctx context.Context, bus *event.Bus) error {
	want := event.Want{Since: m.settings.Since, Filter: counts, Queue: m.backlog}
	for {
		sub, err := bus.Subscribe(want)
		if errors.Is(err, event.ErrGone) {
			m.losses.Inc()
			m.settings.Log.Warn("events were told faster than they were counted; counters of downloads are too low from here on")
			want.Since = 0
			if sub, err = bus.Subscribe(want); err == nil {
				m.look() // after subscribing: whatever changes meanwhile is heard
			}
		}
		if err != nil {
			return err
		}
		want.Since, err = m.follow(ctx, sub, want.Since)
		sub.Close()
		if !errors.Is(err, event.ErrSlow) {
			return err
		}
	}
}

// counts picks the events that are counted. Progress, of which there is most, is not.
func counts(e event.Event) bool { return e.Kind == event.KindState || e.Kind == event.KindRetry }

// follow counts what sub collects, and returns the number of the last event that it has counted.
func (m *Metrics) follow(ctx context.Context, sub *event.Subscription, since uint64) (uint64, error) {
	for {
		events, err := sub.Next(ctx)
		if err != nil {
			return since, err
		}
		for _, e := range events {
			switch what := e.Data.(type) {
			case event.Change:
				m.change(e.Download, what.To, e.At)
			case event.Retry:
				m.retried(what.Class)
			}
			since = e.Seq
		}
	}
}

// look forgets what is known of downloads and reads how they stand now.
func (m *Metrics) look() {
	m.lives = map[string]life{}
	if m.settings.Active == nil {
		return
	}
	for _, d := range m.settings.Active() {
		l := life{started: d.Started}
		if d.State == model.Queued && d.Started.IsZero() {
			l.queued = d.Created
		}
		m.lives[d.ID] = l
	}
}

// change counts a step of a download.
func (m *Metrics) change(id string, to model.State, at time.Time) {
	l := m.lives[id]
	switch to {
	case model.Queued:
		if l.started.IsZero() {
			l.queued = at
		}
	case model.Paused:
		l.queued = time.Time{} // who is paused does not wait for a turn
	case model.Resolving:
		if !l.queued.IsZero() {
			m.waited.Observe(elapsed(l.queued, at))
			l.queued = time.Time{}
		}
		if l.started.IsZero() {
			l.started = at
		}
	case model.Completed:
		m.successes.Inc()
		if !l.started.IsZero() {
			m.duration.Observe(elapsed(l.started, at))
		}
	case model.Failed:
		m.failures.Inc()
	}
	if to.Final() {
		delete(m.lives, id)
		return
	}
	m.lives[id] = l
}

func (m *Metrics) retried(c model.Class) {
	if int(c) >= classes { // has no name either
		c = model.Other
	}
	m.retries[c].Inc()
}

// elapsed is the time between two moments in seconds. The wall's clock, by which a download of an earlier day began, may
// have been set back meanwhile; a histogram's sum may not fall.
func elapsed(from, to time.Time) float64 { return max(0, to.Sub(from).Seconds()) }
