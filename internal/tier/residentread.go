package tier

import (
	"context"
	"errors"
	"io/fs"

	"ema/internal/model"
)

// still is the error that ends the reading of a piece that is not to stay, or by other settings. It looks at the memory there
// is, too.
func (c *Cache) still(r *resident, at place, s CacheSettings) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.relimit()
	if c.models[at.model] != r || r.pieces[at] == nil || c.settings != s {
		return errGone
	}
	return nil
}

// same reports whether something of a model is still to stay, by the same settings.
func (c *Cache) same(id model.ID, r *resident, s CacheSettings) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.models[id] == r && c.settings == s
}

// bring brings a piece into memory, and locks it where that is wished and can be.
func (c *Cache) bring(ctx context.Context, r *resident, at place, s CacheSettings) error {
	c.mu.Lock()
	p, locks := r.pieces[at], c.locks()
	c.mu.Unlock()
	if p == nil {
		return errGone
	}
	if locks {
		err := c.lock(ctx, r, at, p, s)
		if ctx.Err() != nil || errors.Is(err, errGone) || errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err != nil {
			c.mu.Lock()
			c.unlocked = true
			c.mu.Unlock()
			c.Note(err)
		}
	}
	whole, err := c.inspect(r, at)
	if err != nil || !whole && s.Preload {
		if err := c.Pages.Populate(ctx, at.file, at.off, p.size, c.maps(r, at, s), func(int64) error { return c.still(r, at, s) }); err != nil {
			return err
		}
		if _, err := c.inspect(r, at); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.ready = true
	return nil
}

// maps reports whether the file of a piece is read through a mapping.
func (c *Cache) maps(r *resident, at place, s CacheSettings) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range r.extents {
		if e.name == at.file {
			return s.Map && model.Bytes(e.file.Size()) >= s.MapFrom
		}
	}
	return false
}

// lock locks a piece, unless it is.
func (c *Cache) lock(ctx context.Context, r *resident, at place, p *piece, s CacheSettings) error {
	c.mu.Lock()
	locked := p.lock != nil
	c.mu.Unlock()
	if locked {
		return nil
	}
	l, err := c.Pages.Lock(ctx, at.file, at.off, p.size, func(done int64) error {
		c.mu.Lock()
		c.locking = model.Bytes(done)
		c.mu.Unlock()
		return c.still(r, at, s)
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.locking = 0
	if err != nil {
		return err
	}
	if c.models[at.model] != r || r.pieces[at] != p || c.settings != s {
		return errors.Join(errGone, l.Close())
	}
	p.lock = l
	c.relimit()
	return nil
}

// learn finds the real length of headers, which is read for that.
func (c *Cache) learn(ctx context.Context, id model.ID, r *resident, s CacheSettings) error {
	c.mu.Lock()
	extents := append([]extent(nil), r.extents...)
	c.mu.Unlock()
	changed := false
	for i, e := range extents {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !e.header {
			n, err := c.headerLength(e)
			if err != nil {
				return err
			}
			changed = changed || n != e.size
			extents[i].size, extents[i].header = n, true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.models[id] != r || c.settings != s {
		return errGone
	}
	if r.extents = extents; changed {
		c.offer(id, r)
	}
	if c.models[id] != r {
		return errGone
	}
	return nil
}
