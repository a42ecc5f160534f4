package main

import (
	"context"
	"sync"
	"time"

	"ema/internal/model"
	"ema/internal/source"
)

// reach is the way to all sources, as the newest settings make it: changing them does not disturb what is on its way.
type reach struct {
	mu  sync.RWMutex
	now *source.Sources
}

func newReach(s source.Settings) (*reach, error) {
	now, err := source.New(s)
	if err != nil {
		return nil, err
	}
	return &reach{now: now}, nil
}

// change has later requests made as s says. Connections that nobody uses are closed; the others end with what they
// fetch. What was learnt about hosts is learnt anew.
func (r *reach) change(s source.Settings) error {
	next, err := source.New(s)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err = r.now.Close()
	r.now = next
	return err
}

func (r *reach) sources() *source.Sources {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.now
}

// Resolve and the other methods are those of source.Sources.
func (r *reach) Resolve(ctx context.Context, id model.ID, rev string) (*model.Manifest, error) {
	return r.sources().Resolve(ctx, id, rev)
}

func (r *reach) Recall(ctx context.Context, id model.ID, rev string) *model.Manifest {
	return r.sources().Recall(ctx, id, rev)
}

func (r *reach) Fresh(id model.ID, rev string) bool { return r.sources().Fresh(id, rev) }

func (r *reach) Forget(ctx context.Context, m *model.Manifest) { r.sources().Forget(ctx, m) }

func (r *reach) Open(ctx context.Context, m *model.Manifest, f model.File, seg model.Segment) (*source.Body, error) {
	return r.sources().Open(ctx, m, f, seg)
}

func (r *reach) SuccessRate(err error) (rate float64, known bool) {
	return r.sources().SuccessRate(err)
}

func (r *reach) RoundTrip() (now, least time.Duration) { return r.sources().RoundTrip() }

func (r *reach) Links() []source.Link { return r.sources().Links() }

func (r *reach) Hosts() []source.HostStatus { return r.sources().Hosts() }

// Close gives up idle connections.
func (r *reach) Close() error { return r.sources().Close() }
