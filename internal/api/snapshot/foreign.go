package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"maps"
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

// folders is what the last look saw of the store's folder. Of the zero value it saw nothing.
type folders struct {
	root  trace
	names map[string]bool
	racy  bool
}

// folders is what there is before anybody looks at the models: those that come later are new to the first look.
func (m *Models) folders() folders {
	names, _ := modelsIn(m.set.Store.Path()) //nolint:errcheck // the first look gets the same error
	f := folders{racy: true, names: map[string]bool{}}
	for _, name := range names {
		f.names[name] = true
	}
	return f
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
	if age < 2*lookEvery || m.hangs() {
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

// hangs reports whether the disk is slow: then nobody waits for a look, but takes what there is.
func (m *Models) hangs() bool {
	begun := time.Duration(m.looking.Load())
	return m.slow.Load() || begun > 0 && m.now()-begun >= lookPatience
}

// look sees what others have changed, and makes the page that shows it. Whoever asks meanwhile gets the page before.
func (m *Models) look(ctx context.Context, f *folders) {
	begun := m.now()
	m.looking.Store(int64(begun))
	if c := m.compare(f); c.all || len(c.dirty) > 0 {
		m.survey(ctx, c)
	}
	if p := m.page.Load(); m.ttl.Load() > 0 && (p == nil || p.changes < m.changes.Load()) {
		_, _ = m.fresh(ctx, m.wants()) //nolint:errcheck // the next request tries again, and says why it fails
	}
	m.replan(ctx)
	m.slow.Store(m.now()-begun >= lookPatience)
	m.looking.Store(0)
	m.looked.Store(int64(begun))
	m.rounds.Lock()
	close(m.rounds.over)
	m.rounds.over = make(chan struct{})
	m.rounds.Unlock()
	if ttl := time.Duration(m.ttl.Load()); ttl > 0 && begun-time.Duration(m.scanned.Load()) >= ttl {
		m.survey(ctx, news{all: true})
	}
}

// compare is the models whose folders are not what they were.
func (m *Models) compare(f *folders) news {
	found := news{dirty: map[model.ID]struct{}{}}
	p := m.page.Load()
	if p == nil {
		return found
	}
	at, root := time.Now(), traceOf(m.set.Store.Path())
	if root != f.root || f.racy {
		names, err := modelsIn(m.set.Store.Path())
		if err != nil {
			return news{all: true} // whoever asks next gets the reason
		}
		f.compare(names, &found)
		f.root, f.racy = root, (&stamp{stood: []trace{root}}).racy(at)
	}
	for _, one := range p.fragments {
		if h := one.facts.holding; h != nil && (h.racy || !h.mark.same()) {
			found.dirty[h.id] = struct{}{}
		}
	}
	return found
}

// compare finds the models whose folders have come or gone.
func (f *folders) compare(names []string, found *news) {
	now := make(map[string]bool, len(names))
	for _, name := range names {
		now[name] = true
		if f.names[name] {
			continue
		}
		// The folder of a URL or of a local folder does not tell whose it is: only a look at everything does.
		if id, ok := model.IDOfDir(name); ok && !strings.HasPrefix(id.Name, "url/") && !strings.HasPrefix(id.Name, "file/") {
			found.dirty[id] = struct{}{}
		} else {
			found.all = true
		}
	}
	for name := range f.names {
		found.all = found.all || !now[name]
	}
	f.names = now
}

// survey looks at these models, or at every file of the store, while requests are answered. What is told meanwhile is
// newer than what it sees.
func (m *Models) survey(ctx context.Context, these news) {
	m.marks.Lock()
	m.marks.since = &news{dirty: map[model.ID]struct{}{}}
	m.marks.Unlock()
	begun := m.now()
	seen, err := m.sight(ctx, these)
	select {
	case m.flight <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-m.flight }()
	m.marks.Lock()
	since := m.marks.since
	m.marks.since = nil
	m.marks.Unlock()
	if since.all {
		return // whoever asks looks at everything again, or has done so already
	}
	if err != nil {
		m.mark(model.ID{}) // the same, and gets the reason
		return
	}
	kept := seen
	if these.all {
		m.scanned.Store(int64(begun))
	} else {
		kept = maps.Clone(m.kept)
		maps.Copy(kept, seen)
	}
	for id := range since.dirty {
		delete(kept, id)
		if h := m.kept[id]; h != nil {
			kept[id] = h
		}
	}
	maps.DeleteFunc(kept, func(_ model.ID, h *holding) bool { return h == nil })
	if m.keep(kept) {
		m.changes.Add(1) // nobody makes a page meanwhile
	}
}

// sight is what the store holds of these models, or of all; nil of one of which it holds nothing.
func (m *Models) sight(ctx context.Context, these news) (map[model.ID]*holding, error) {
	if these.all {
		return m.scan(ctx)
	}
	seen := make(map[model.ID]*holding, len(these.dirty))
	for id := range these.dirty {
		h, err := m.examineOne(id)
		if err != nil {
			return nil, err
		}
		seen[id] = h
	}
	return seen, ctx.Err()
}
