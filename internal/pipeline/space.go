package pipeline

import (
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

// reserve sets space aside for the missing files of a commit, or refuses to begin what cannot end: they
// must fit beside what other downloads will still take, with MinFree left over.
func (l *Line) reserve(id model.ID, commit string, missing []model.File) (*reservation, error) {
	r := &reservation{of: &l.reserved, need: map[string]model.Bytes{}}
	var need model.Bytes
	for _, f := range missing {
		_, allocated := l.Store.Resumable(id, f, commit)
		r.need[f.Path] = model.Bytes(max(0, f.Size-allocated))
		need += r.need[f.Path]
	}
	leave := l.LeaveFree()
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	free, err := l.Store.Free()
	if err != nil {
		return nil, err
	}
	var others model.Bytes
	for _, n := range r.of.pending {
		others += n
	}
	if short := need + others + leave - free; need > 0 && short > 0 {
		promised := ""
		if others > 0 {
			promised = fmt.Sprintf(", %s for downloads that run", others)
		}
		return nil, &model.Error{
			Op: "pull", Class: model.DiskFull, Model: id, File: l.Store.Path(), Short: short,
			Err:  fmt.Errorf("not enough space: %s to fetch%s and %s to leave free, but only %s are free, %s too few", need, promised, leave, free, short),
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
