package pipeline

import (
	"context"
	"fmt"
	"sync"

	"ema/internal/model"
)

// reservations are the bytes that running downloads will still take from the disk: what one of them
// found free must not be promised to the next.
type reservations struct {
	mu      sync.Mutex
	pending map[*reservation]model.Bytes
}

// A reservation is one download's part. Bytes leave it when the disk has them: a large file when it is
// preallocated, a small one when it is written.
type reservation struct {
	of   *reservations
	need map[string]model.Bytes // by path
}

// Room is what downloads may still take.
type Room struct {
	Left model.Bytes // less than nothing when too much is taken already
	Why  string      // it is no more, to follow "and" in a sentence
}

// Room is what downloads that have not begun may take together with those that run: the disk keeps what is to be left
// free, and the hot tier stays within its bound.
func (l *Line) Room(ctx context.Context) (Room, error) {
	l.configured.RLock()
	leave, most := l.MinFree, l.MostHot
	l.configured.RUnlock()
	free, err := l.Store.Free()
	if err != nil {
		return Room{}, err
	}
	room := Room{free - leave, fmt.Sprintf("%s to leave free, but only %s are free", leave, free)}
	if most == 0 {
		return room, nil
	}
	models, err := l.Store.Models(ctx)
	if err != nil {
		return Room{}, err
	}
	var held model.Bytes
	for _, m := range models {
		held += m.Tiers[model.Hot] + m.Incomplete
	}
	if most-held < room.Left {
		room = Room{most - held, fmt.Sprintf("%s in the hot tier, which may hold only %s (storage_tiers.hot.max_size_gb)", held, most)}
	}
	return room, nil
}

// reserve sets space aside for the missing files of a commit, or refuses to begin what cannot end: they
// must fit beside what other downloads will still take.
func (l *Line) reserve(ctx context.Context, id model.ID, commit string, missing []model.File) (*reservation, error) {
	r := &reservation{of: &l.reserved, need: map[string]model.Bytes{}}
	var need model.Bytes
	for _, f := range missing {
		_, allocated := l.Store.Resumable(id, f, commit)
		r.need[f.Path] = model.Bytes(max(0, f.Size-allocated))
		need += r.need[f.Path]
	}
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	room, err := l.Room(ctx)
	if err != nil {
		return nil, err
	}
	var others model.Bytes
	for _, n := range r.of.pending {
		others += n
	}
	if short := need + others - room.Left; need > 0 && short > 0 {
		promised := ""
		if others > 0 {
			promised = fmt.Sprintf(", %s for downloads that run", others)
		}
		return nil, &model.Error{
			Op: "pull", Class: model.DiskFull, Model: id, File: l.Store.Path(), Short: short,
			Err:  fmt.Errorf("not enough space: %s to fetch%s and %s, %s too few", need, promised, room.Why, short),
			Hint: `see what could go with "ema gc --dry-run" and "ema ls"`,
		}
	}
	if r.of.pending == nil {
		r.of.pending = map[*reservation]model.Bytes{}
	}
	r.of.pending[r] = need
	return r, nil
}

// taken says that the disk has the bytes of a file now.
func (r *reservation) taken(path string) {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	if _, open := r.of.pending[r]; open {
		r.of.pending[r] -= r.need[path]
		delete(r.need, path)
	}
}

// end gives back what was not used.
func (r *reservation) end() {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	delete(r.of.pending, r)
}

// Reserved is the space that running downloads will still take.
func (l *Line) Reserved() (sum model.Bytes) {
	l.reserved.mu.Lock()
	defer l.reserved.mu.Unlock()
	for _, n := range l.reserved.pending {
		sum += n
	}
	return sum
}
