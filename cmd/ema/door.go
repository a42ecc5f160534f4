package main

import (
	"context"
	"sync"

	"ema/internal/model"
)

// A door keeps downloads and removals apart, which one process does at once: what a download has published and nothing
// names yet would look like something that nobody needs.
type door struct {
	mu     sync.Mutex
	inside map[model.ID]int // downloads of each model
	closed chan struct{}    // while something is being removed; closed when it is open again
}

// enter begins a download of a model. It waits while something is being removed.
func (d *door) enter(ctx context.Context, id model.ID) (leave func(), err error) {
	for {
		d.mu.Lock()
		closed := d.closed
		if closed == nil {
			if d.inside == nil {
				d.inside = map[model.ID]int{}
			}
			d.inside[id]++
			d.mu.Unlock()
			return func() { d.leave(id) }, nil
		}
		d.mu.Unlock()
		select {
		case <-closed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (d *door) leave(id model.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside[id]--; d.inside[id] == 0 {
		delete(d.inside, id)
	}
}

// shut begins a removal, one at a time: no download begins until open is called. busy are the models that are being
// downloaded meanwhile, and must not be touched.
func (d *door) shut(ctx context.Context) (busy map[model.ID]bool, open func(), err error) {
	for {
		d.mu.Lock()
		closed := d.closed
		if closed == nil {
			mine := make(chan struct{})
			d.closed = mine
			busy = map[model.ID]bool{}
			for id := range d.inside {
				busy[id] = true
			}
			d.mu.Unlock()
			return busy, func() {
				d.mu.Lock()
				d.closed = nil
				d.mu.Unlock()
				close(mine)
			}, nil
		}
		d.mu.Unlock()
		select {
		case <-closed:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}
