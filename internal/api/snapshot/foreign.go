package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ema/internal/model"
)

// settles is how long a file system may keep giving the same time to changes, with room to spare.
const settles = time.Second

// A stamp is how the folders and refs of a model stood when somebody looked. Whatever adds, removes or renames a file
// there changes it; what writes into a file that stays does not.
type stamp struct {
	paths []string
	stood []trace
}

// A trace is what tells one state of a file or folder from another; zero where there is none.
type trace struct {
	changed int64 // nanoseconds of Unix
	inode   uint64
}

func traceOf(path string) trace {
	var st unix.Stat_t
	for {
		err := unix.Lstat(path, &st)
		if err == nil {
			return trace{st.Mtim.Nano(), st.Ino}
		}
		if !errors.Is(err, unix.EINTR) {
			return trace{}
		}
	}
}

// stampOf is the stamp of a model's folder.
func stampOf(dir string) stamp {
	s := stamp{paths: []string{filepath.Join(dir, "blobs")}}
	s.below(filepath.Join(dir, "snapshots"), false)
	s.below(filepath.Join(dir, "refs"), true)
	s.stood = s.now()
	return s
}

// below adds a folder and what is in it: revisions are as deep as folders of theirs go, refs as deep as their names.
func (s *stamp) below(dir string, deep bool) {
	s.paths = append(s.paths, dir)
	entries, _ := os.ReadDir(dir) //nolint:errcheck // what cannot be read is seen when it can be
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if deep && e.IsDir() {
			s.below(path, deep)
		} else {
			s.paths = append(s.paths, path)
		}
	}
}

// now is how all that stands now.
func (s *stamp) now() []trace {
	stands := make([]trace, len(s.paths))
	for i, path := range s.paths {
		stands[i] = traceOf(path)
	}
	return stands
}

// same reports whether nothing has changed since.
func (s *stamp) same() bool {
	for i, path := range s.paths {
		if traceOf(path) != s.stood[i] {
			return false
		}
	}
	return true
}

// racy reports whether a change right after a look at that time might leave the stamp as it is.
func (s *stamp) racy(at time.Time) bool {
	for _, t := range s.stood {
		age := at.UnixNano() - t.changed
		if age < int64(settles) && age > -int64(2*settles) { // farther in the future, it is another machine's clock
			return true
		}
	}
	return false
}

// folder is where a model lies. The layout is the Hugging Face cache's.
func (m *Models) folder(id model.ID) string { return filepath.Join(m.set.Store.Path(), id.DirName()) }

// modelsIn is the names of the models' folders below path.
func modelsIn(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &model.Error{Op: "list models", File: path, Err: err}
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "models--") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// stampAll is the stamps of all models by the names of their folders.
func stampAll(path string) (map[string]stamp, error) {
	names, err := modelsIn(path)
	if err != nil {
		return nil, err
	}
	all := make(map[string]stamp, len(names))
	for _, name := range names {
		all[name] = stampOf(filepath.Join(path, name))
	}
	return all, nil
}

// folders is what the last look saw of the store's folder.
type folders struct {
	root  trace
	names map[string]bool
	racy  bool
}

// ask makes Run look at the store's folders when that is some time ago. Who comes after a long time waits for the look.
func (m *Models) ask(ctx context.Context) {
	age := m.now() - time.Duration(m.looked.Load())
	if age < lookEvery {
		return
	}
	m.rounds.Lock()
	over := m.rounds.over
	m.rounds.Unlock()
	select {
	case m.wanted <- struct{}{}:
	default:
	}
	if age < 2*lookEvery {
		return
	}
	patience := time.NewTimer(lookPatience)
	defer patience.Stop()
	select {
	case <-over:
	case <-patience.C:
	case <-ctx.Done():
	}
}

// look marks what others have changed, and makes the page that shows it.
func (m *Models) look(ctx context.Context, f *folders) {
	begun := m.now()
	m.compare(f)
	if p := m.page.Load(); m.ttl.Load() > 0 && (p == nil || p.changes < m.changes.Load()) {
		_, _ = m.fresh(ctx, m.wants()) //nolint:errcheck // the next request tries again, and says why it fails
	}
	m.looked.Store(int64(begun))
	m.rounds.Lock()
	close(m.rounds.over)
	m.rounds.over = make(chan struct{})
	m.rounds.Unlock()
	if ttl := time.Duration(m.ttl.Load()); ttl > 0 && begun-time.Duration(m.scanned.Load()) >= ttl {
		m.rescan(ctx)
	}
}

// compare marks the models whose folders are not what they were.
func (m *Models) compare(f *folders) {
	p := m.page.Load()
	if p == nil {
		return
	}
	at, root := time.Now(), traceOf(m.set.Store.Path())
	if root != f.root || f.racy {
		names, err := modelsIn(m.set.Store.Path())
		if err != nil {
			m.mark(model.ID{}) // whoever asks next gets the reason
			return
		}
		m.compareNames(f, names)
		f.root, f.racy = root, (&stamp{stood: []trace{root}}).racy(at)
	}
	for _, one := range p.fragments {
		if h := one.facts.holding; h != nil && (h.racy || !h.mark.same()) {
			m.mark(h.id)
		}
	}
}

// compareNames marks the models whose folders have come or gone.
func (m *Models) compareNames(f *folders, names []string) {
	now := make(map[string]bool, len(names))
	for _, name := range names {
		now[name] = true
	}
	first := f.names == nil
	for name := range now {
		if first || f.names[name] {
			continue
		}
		// The folder of a URL or of a local folder does not tell whose it is: only a look at everything does.
		id, ok := model.IDOfDir(name)
		if !ok || strings.HasPrefix(id.Name, "url/") || strings.HasPrefix(id.Name, "file/") {
			id = model.ID{}
		}
		m.mark(id)
	}
	for name := range f.names {
		if !now[name] {
			m.mark(model.ID{})
		}
	}
	f.names = now
}

// rescan looks at every file of the store while requests are answered. What is told meanwhile is newer than what it sees.
func (m *Models) rescan(ctx context.Context) {
	m.marks.Lock()
	m.marks.since = map[model.ID]struct{}{}
	m.marks.Unlock()
	begun := m.now()
	seen, err := m.scan(ctx)
	select {
	case m.flight <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-m.flight }()
	m.marks.Lock()
	since, all := m.marks.since, m.marks.all
	m.marks.since = nil
	m.marks.Unlock()
	if all {
		return // whoever asks next looks at everything again
	}
	if err != nil {
		m.mark(model.ID{}) // the same, and gets the reason
		return
	}
	for id := range since {
		delete(seen, id)
		if h, there := m.kept[id]; there {
			seen[id] = h
		}
	}
	m.scanned.Store(int64(begun))
	if m.keep(seen) {
		m.changes.Add(1) // nobody makes a page meanwhile
	}
}
