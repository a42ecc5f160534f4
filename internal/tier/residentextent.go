package tier

import (
	"fmt"
	"os"
	"slices"

	"ema/internal/model"
)

// An extent is the beginning of a file, as much of it as is to stay in memory.
type extent struct {
	name   string
	size   int64
	header bool        // size is the real length of a header
	file   os.FileInfo // by which another file of the same name is told
}

// same reports whether both are the same part of the same file.
func (e extent) same(o extent) bool { return e.sameFile(o) && e.size == o.size }

func (e extent) sameFile(o extent) bool {
	return e.name == o.name && os.SameFile(e.file, o.file) && e.file.Size() == o.file.Size() && e.file.ModTime().Equal(o.file.ModTime())
}

func sum(extents []extent) model.Bytes {
	total := model.Bytes(0)
	for _, e := range extents {
		total += model.Bytes(e.size)
	}
	return total
}

// examine says what of a model may stay by the settings, which it returns too. It reads no file: where
// only headers stay, one whose length Run has not yet found counts as the first MiB.
func (c *Cache) examine(id model.ID) ([]extent, CacheSettings, error) {
	c.mu.Lock()
	s := c.settings
	var known []extent
	if r := c.models[id]; r != nil {
		known = slices.Clone(r.extents)
	}
	c.mu.Unlock()
	if !s.Enabled {
		return nil, s, nil
	}
	names, err := c.Files(id)
	var extents []extent
	for _, name := range names {
		if slices.ContainsFunc(extents, func(e extent) bool { return e.name == name }) {
			continue // the same content under two names
		}
		info, e := os.Stat(name)
		if e != nil {
			err = e
			break
		}
		next := extent{name, info.Size(), false, info}
		if s.Headers {
			next.size = min(next.size, headerUnknown)
			if i := slices.IndexFunc(known, next.sameFile); i >= 0 && known[i].header {
				next.size, next.header = known[i].size, true
			}
		}
		extents = append(extents, next)
	}
	if err != nil {
		return nil, s, fmt.Errorf("keep %s in memory: %w", id, err)
	}
	return extents, s, nil
}

// measure is how much of the extents is in memory.
func (c *Cache) measure(extents []extent) (model.Bytes, error) {
	found := model.Bytes(0)
	for _, e := range extents {
		n, _, err := c.Pages.Resident(e.name, 0, e.size)
		if err != nil {
			return 0, err
		}
		found += model.Bytes(n)
	}
	return found, nil
}

// places is a model and those of its pieces that are wanted, in the order of their bytes.
func (c *Cache) places(id model.ID, wanted func(*piece) bool) (*resident, []place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.models[id]
	if r == nil {
		return nil, nil
	}
	var all []place
	for _, e := range r.extents {
		for off := int64(0); off < e.size; off += int64(pieceSize) {
			at := place{id, e.name, off}
			if p := r.pieces[at]; p != nil && wanted(p) {
				all = append(all, at)
			}
		}
	}
	return r, all
}

// inspect measures how much of a piece is in memory, and takes note of it. It reports whether all is.
func (c *Cache) inspect(r *resident, at place) (bool, error) {
	c.mu.Lock()
	p := r.pieces[at]
	c.mu.Unlock()
	if p == nil {
		return false, nil
	}
	found, _, err := c.Pages.Resident(at.file, at.off, p.size)
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.found = found
	return found == p.size, nil
}
