package fetch

import (
	"sync/atomic"

	"ema/internal/model"
)

// A FileProgress is how far one file is. Written goes up to Size, which says that its bytes are all here, not that they
// are proven.
type FileProgress struct {
	Path          string
	Size, Written int64
}

// tracking counts file by file. Files of the same content share a counter: the content is fetched once.
type tracking struct {
	files    []model.File
	counters map[string]*atomic.Int64 // by path
}

// Follow begins to count file by file, for a job about files. Call it before Fetch, which fetches some of them, or none.
func (p *Progress) Follow(files []model.File) {
	t := &tracking{files: files, counters: make(map[string]*atomic.Int64, len(files))}
	same := map[model.Digest]*atomic.Int64{}
	for _, f := range files {
		n := same[f.Digest]
		if n == nil || f.Digest.IsZero() {
			n = &atomic.Int64{}
			same[f.Digest] = n
		}
		t.counters[f.Path] = n
	}
	p.tracking.Store(t)
}

// Here says that a file is here, with all of its bytes.
func (p *Progress) Here(f model.File) { p.counter(f.Path).Store(f.Size) }

// Files is how far each file is of which Follow was told, in that order; nil before that. It may be called at any time.
func (p *Progress) Files() []FileProgress {
	t := p.tracking.Load()
	if t == nil {
		return nil
	}
	all := make([]FileProgress, 0, len(t.files))
	for _, f := range t.files {
		all = append(all, FileProgress{Path: f.Path, Size: f.Size, Written: min(t.counters[f.Path].Load(), f.Size)})
	}
	return all
}

// counter is that of the file at path. Where nobody follows it leads nowhere.
func (p *Progress) counter(path string) *atomic.Int64 {
	if t := p.tracking.Load(); t != nil {
		if n := t.counters[path]; n != nil {
			return n
		}
	}
	return &atomic.Int64{}
}
