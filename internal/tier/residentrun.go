package tier

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"ema/internal/model"
)

// errGone ends the reading of a model that is no longer to stay, or no longer as it was.
var errGone = errors.New("the model is not to stay in memory as it was")

// Run reads into memory what is to stay there, one model at a time, the one most likely to stay first, until
// ctx ends. While nothing is used and nothing kept it sleeps; while something is kept it looks every
// few minutes whether it still is in memory. When it has returned, nothing is locked.
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
			c.note(c.restore(ctx))
			look.Reset(lookEvery)
		}
	}
}

// restore has what the kernel has dropped read anew. It lets go of models whose files are no longer
// what they were.
func (c *Cache) restore(ctx context.Context) error {
	c.mu.Lock()
	c.relimit()
	ids := c.order()
	c.mu.Unlock()
	for _, id := range ids {
		r, known := c.held(id)
		if extents, _, err := c.examine(id); r != nil && (err != nil || !slices.EqualFunc(known, extents, extent.same)) {
			c.Forget(id)
		}
	}
	err := c.look(ctx, func(_ model.ID, r *resident) {
		r.ready = r.ready && r.found >= r.bytes-r.bytes/lost
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *Cache) unlockAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.models {
		c.note(r.unlock())
		r.ready = false
	}
}

// readNext reads the next model that is not all in memory, and reports whether there was one.
func (c *Cache) readNext(ctx context.Context) bool {
	id, r, s := c.next()
	if r == nil || ctx.Err() != nil {
		return false
	}
	err := c.Idle(ctx, func(ctx context.Context) error { return c.read(ctx, id, r, s) })
	switch {
	case ctx.Err() != nil:
		return false
	case errors.Is(err, errGone):
		return true
	case errors.Is(err, fs.ErrNotExist):
		c.Forget(id)
	}
	c.note(err)
	_, extents := c.held(id)
	found, err := c.measure(extents)
	c.note(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.models[id] == r && c.settings == s {
		r.found, r.ready = found, true // also after an error: the next use is the next try
	}
	return true
}

// next is the model that is to be read next, if there is one, and by which settings.
func (c *Cache) next() (model.ID, *resident, CacheSettings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settings.Preload || c.locks() {
		for _, id := range c.order() {
			if r := c.models[id]; !r.ready {
				return id, r, c.settings
			}
		}
	}
	return model.ID{}, nil, c.settings
}

// still is the error that ends the reading of a model that is not to stay, or by other settings. It
// looks at the memory there is, too.
func (c *Cache) still(id model.ID, r *resident, s CacheSettings, locked model.Bytes) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.models[id] == r {
		r.locked = locked
		c.relimit()
	}
	if c.models[id] != r || c.settings != s {
		return errGone
	}
	return nil
}

// read brings a model into memory, and locks it where that is wished and can be.
func (c *Cache) read(ctx context.Context, id model.ID, r *resident, s CacheSettings) error {
	if s.Headers {
		if err := c.learn(ctx, id, r, s); err != nil {
			return err
		}
	}
	_, extents := c.held(id)
	c.mu.Lock()
	locks := c.locks()
	c.mu.Unlock()
	if locks {
		err := c.lock(ctx, id, r, s, extents)
		if err == nil || ctx.Err() != nil || errors.Is(err, errGone) || errors.Is(err, fs.ErrNotExist) {
			return err
		}
		c.mu.Lock()
		c.unlocked = true
		c.mu.Unlock()
		c.Note(err)
		if !s.Preload {
			return nil
		}
	}
	for _, e := range extents {
		if n, _, err := c.Pages.Resident(e.name, e.size); err == nil && n == e.size {
			continue
		}
		mapped := s.Map && model.Bytes(e.file.Size()) >= s.MapFrom
		err := c.Pages.Populate(ctx, e.name, e.size, mapped, func(int64) error { return c.still(id, r, s, 0) })
		if err != nil {
			return err
		}
	}
	return nil
}

// lock locks all extents of a model, or none.
func (c *Cache) lock(ctx context.Context, id model.ID, r *resident, s CacheSettings, extents []extent) error {
	c.mu.Lock()
	locked := r.locks != nil
	c.mu.Unlock()
	if locked {
		return nil
	}
	var all resident
	for _, e := range extents {
		before := all.locked
		l, err := c.Pages.Lock(ctx, e.name, e.size, func(done int64) error { return c.still(id, r, s, before+model.Bytes(done)) })
		if err != nil {
			_ = c.still(id, r, s, 0) // there is an error already
			return errors.Join(err, all.unlock())
		}
		all.locks, all.locked = append(all.locks, l), before+model.Bytes(e.size)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.models[id] != r || c.settings != s {
		return errors.Join(errGone, all.unlock())
	}
	r.locks, r.locked = all.locks, all.locked
	c.relimit()
	return nil
}

// learn finds the real length of headers, which is read for that.
func (c *Cache) learn(ctx context.Context, id model.ID, r *resident, s CacheSettings) error {
	_, extents := c.held(id)
	for i, e := range extents {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !e.header {
			n, err := c.headerLength(e)
			if err != nil {
				return err
			}
			extents[i].size, extents[i].header = n, true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.models[id] != r || c.settings != s {
		return errGone
	}
	before := weight(r.bytes)
	r.extents, r.bytes = extents, sum(extents)
	if weight(r.bytes) != before { // telling the policy counts as a use
		c.policy.Set(id, r.bytes)
		c.settle()
	}
	if c.models[id] != r {
		return errGone
	}
	return nil
}
