package tier

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"ema/internal/model"
)

// Run reads into memory what is to stay there, one model at a time, the one most likely to stay first,
// until ctx ends. While nothing is used and nothing kept it sleeps; while something is kept it looks
// every few minutes whether that still is in memory. When it has returned, nothing is locked.
func (c *Cache) Run(ctx context.Context) error {
	defer c.unlockAll()
	look := time.NewTimer(lookEvery)
	defer look.Stop()
	looks := true
	for {
		for c.readNext(ctx) {
		}
		holds := c.Stats().Models > 0
		if looks && !holds {
			look.Stop()
		} else if holds && !looks {
			look.Reset(lookEvery)
		}
		looks = holds
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.woken:
		case <-look.C:
			c.restore(ctx)
			look.Reset(lookEvery)
		}
	}
}

func (c *Cache) unlockAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.models {
		c.unlock(r)
		r.unready()
	}
}

// restore has what the kernel has dropped read anew. It lets go of models whose files are no longer
// what they were.
func (c *Cache) restore(ctx context.Context) {
	c.mu.Lock()
	c.relimit()
	known := map[model.ID][]extent{}
	for id, r := range c.models {
		known[id] = slices.Clone(r.extents)
	}
	c.mu.Unlock()
	for id, before := range known {
		if extents, _, err := c.examine(id); err != nil || !slices.EqualFunc(before, extents, extent.same) {
			c.Forget(id)
		}
	}
	err := c.look(ctx, func(id model.ID, r *resident) {
		if k := r.kept(id); k.Resident < k.Bytes-k.Bytes/lost {
			r.unready()
		}
	})
	if ctx.Err() == nil {
		c.note(err)
	}
}

// readNext reads the next model that is not all in memory, and reports whether there was one.
func (c *Cache) readNext(ctx context.Context) bool {
	id, r, s := c.next()
	if r == nil || ctx.Err() != nil {
		return false
	}
	err := c.Idle(ctx, func(ctx context.Context) error { return c.read(ctx, id, r, s) })
	if ctx.Err() != nil {
		return false
	}
	if errors.Is(err, errGone) {
		return true
	}
	c.note(err)
	if errors.Is(err, fs.ErrNotExist) {
		c.Forget(id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil { // the next use is the next try
		for _, p := range r.pieces {
			p.ready = true
		}
	}
	return true
}

// next is the model that is to be read next, if there is one, and by which settings.
func (c *Cache) next() (model.ID, *resident, CacheSettings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settings.Preload || c.locks() {
		for e := range c.policy.Hottest() {
			id := e.Key.model
			if r := c.models[id]; !r.pieces[e.Key].ready {
				return id, r, c.settings
			}
		}
	}
	return model.ID{}, nil, c.settings
}

// read brings those pieces of a model into memory that are to stay, and locks them where that is
// wished and can be.
func (c *Cache) read(ctx context.Context, id model.ID, r *resident, s CacheSettings) error {
	if s.Headers {
		if err := c.learn(ctx, id, r, s); err != nil {
			return err
		}
	}
	held, places := c.places(id, func(p *piece) bool { return !p.ready })
	if held != r {
		return errGone
	}
	for _, at := range places {
		err := c.bring(ctx, r, at, s)
		if err != nil && !errors.Is(err, errGone) || c.still(r, at, s) != nil && !c.same(id, r, s) {
			return errors.Join(err, ctx.Err())
		}
	}
	return nil
}
