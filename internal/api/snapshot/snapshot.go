// Package snapshot answers how all models stand, from bytes that were encoded before anybody asked.
//
// An answer is made once and given to everybody until something happens that makes it wrong. What it costs does
// therefore not depend on how many ask: a request compares two numbers and writes prepared bytes. Of an answer that
// is out of date only the models that changed are encoded again; the others' bytes are copied.
//
// # Never stale
//
// An answer is never older than what ema itself has told before the request came:
//
//   - The state of a download, and what the store holds of a model (event.KindState and event.KindStored): a request
//     that begins after Bus.Tell has returned sees it.
//   - How far a download is: as of its newest event.KindProgress, or of the one 200 ms before.
//   - What other tools do in the store's folder - models, revisions, refs and files that come and go: within 2
//     seconds, also for the first request after a quiet night. Nobody looks while nobody asks.
//   - What they do inside of files that ema knows: within Settings.TTL while somebody asks.
//
// When the disk does not answer within a tenth of a second, the last two wait for the next request.
package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/store"
)

const (
	progressEvery = 200 * time.Millisecond // mere progress is encoded this often at most
	lookEvery     = time.Second            // the store's folders are looked at this often while somebody asks
	lookPatience  = 100 * time.Millisecond // a request waits so long for the first look after a quiet time
	mostFailures  = 100                    // models that are remembered because their last download failed
)

// shelf is what answers need of the store; *store.Store satisfies it.
type shelf interface {
	Path() string
	Snapshot(id model.ID, commit string) string
	Models(ctx context.Context) ([]store.Model, error)
	Model(id model.ID) (store.Model, error)
	PlanCollect(olderThan time.Duration, now time.Time) (store.Removal, error)
}

// line is the downloads that are not over; *queue.Queue satisfies it.
type line interface{ List() []model.Download }

// Figures are how a running download stands.
type Figures struct {
	Done, Total model.Bytes   // Total is 0 while unknown
	Rate        float64       // bytes per second; 0 is unknown
	ETA         time.Duration // 0 is unknown
}

// Settings are what answers are made of. All fields but Failed are required.
type Settings struct {
	Store     shelf
	Downloads line
	// Figures are of a running download; false when there are none.
	Figures func(download string) (Figures, bool)
	// Volume is the size of the volume where the store lies, and what this user may still fill of it.
	Volume func() (total, free model.Bytes, err error)
	// Events tell what changes. It is called back from within Bus.Tell, so that what was told is never overlooked.
	Events *event.Bus
	// Failed are downloads of the history that failed lately, newest last; those that fail from now on are remembered.
	Failed []model.Download
	// Refuse answers with an error.
	Refuse func(w http.ResponseWriter, r *http.Request, err error)
	// Caching keeps answers; without it every one is made anew from the store and the queue.
	Caching bool
	// TTL is the longest time between two looks at every file of the store, while somebody asks. 0 keeps no answer.
	TTL time.Duration
}

// Models knows how all models stand. It is safe for concurrent use.
type Models struct {
	set   Settings
	begun time.Time
	ttl   atomic.Int64 // 0 keeps no answer

	following atomic.Bool // events are heard: before and after, no answer can be kept
	page      atomic.Pointer[page]
	tags      atomic.Uint64 // of the newest answer
	boot      string        // tells this process's tags from those of others

	changes atomic.Uint64 // grows with each change that must be seen at once
	moves   atomic.Uint64 // grows with each progress
	marks   struct {      // what events say must be looked at again; changes grows under its lock
		sync.Mutex
		news
		since   map[model.ID]struct{} // marked since the scan began that is under way; nil without one
		spoiled map[model.ID]struct{} // marked since the plan of a collection was made
		failed  map[model.ID]string   // why the last download failed
		order   []model.ID            // of failed, oldest first; may name some that are no longer there
	}

	flight chan struct{} // holds one while somebody makes a page
	kept   map[model.ID]*holding
	held   uint64 // grows with each change of kept; both are the flight's

	looked  atomic.Int64 // when the last look began, in nanoseconds since begun
	scanned atomic.Int64 // the same of the last look at everything
	wanted  chan struct{}
	rounds  struct {
		sync.Mutex
		over chan struct{} // closed when the next look is over
	}

	storage keeping
}

// news are models of which it is not known how they stand in the store.
type news struct {
	all   bool
	dirty map[model.ID]struct{}
}

// New makes a Models that keeps no answer until Run is called.
func New(set Settings) *Models {
	m := &Models{
		set: set, begun: time.Now(), boot: bootName(), flight: make(chan struct{}, 1), wanted: make(chan struct{}, 1),
		kept: map[model.ID]*holding{}, storage: newKeeping(),
	}
	m.marks.dirty, m.marks.spoiled, m.marks.failed = map[model.ID]struct{}{}, map[model.ID]struct{}{}, map[model.ID]string{}
	m.rounds.over = make(chan struct{})
	for _, d := range set.Failed {
		m.remember(d.Model, d.Reason)
	}
	m.Configure(set.Caching, set.TTL)
	return m
}

// Configure changes whether and how long answers are kept, as Settings say.
func (m *Models) Configure(caching bool, ttl time.Duration) {
	if !caching {
		ttl = 0
	}
	m.ttl.Store(int64(ttl))
}

// Run keeps answers true until ctx ends: it follows the events and, while somebody asks, looks at the store's folders.
// Call it once.
func (m *Models) Run(ctx context.Context) error {
	// The filter hears each event before its teller goes on, so that no request can come in between. It wants
	// none: nothing waits in the subscription, and it can never be too slow.
	sub, err := m.set.Events.Subscribe(event.Want{Filter: m.hear})
	if err != nil {
		return err
	}
	defer sub.Close()
	m.mark(model.ID{})
	m.following.Store(true)
	defer m.following.Store(false)
	if m.ttl.Load() > 0 {
		_, _ = m.fresh(ctx, m.wants()) //nolint:errcheck // the first request tries again, and says why it fails
	}
	var f folders
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wanted:
		}
		m.look(ctx, &f)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookEvery):
		}
	}
}

// hear notes what an event makes wrong. It is called while the bus is locked.
func (m *Models) hear(e event.Event) bool {
	switch e.Kind {
	case event.KindProgress, event.KindRetry:
		m.moves.Add(1)
	case event.KindStored:
		m.mark(e.Model)
	case event.KindState:
		if c, ok := e.Data.(event.Change); ok && c.To == model.Failed {
			m.remember(e.Model, c.Reason)
		} else {
			m.forgive(e.Model)
		}
		m.mark(e.Model)
	}
	return false
}

// mark says that nobody knows any more what the store holds of a model, or with the zero ID of any.
func (m *Models) mark(id model.ID) {
	m.marks.Lock()
	defer m.marks.Unlock()
	if id.IsZero() {
		m.marks.all = true
	} else {
		m.marks.dirty[id] = struct{}{}
		m.marks.spoiled[id] = struct{}{}
		if m.marks.since != nil {
			m.marks.since[id] = struct{}{}
		}
	}
	m.changes.Add(1)
}

// remember notes that a model's last download failed. The oldest of too many is forgotten.
func (m *Models) remember(id model.ID, why string) {
	m.marks.Lock()
	defer m.marks.Unlock()
	if why == "" {
		why = "its last download failed"
	}
	if _, there := m.marks.failed[id]; !there {
		m.marks.order = append(m.marks.order, id)
	}
	m.marks.failed[id] = why
	for len(m.marks.order) > mostFailures {
		delete(m.marks.failed, m.marks.order[0])
		m.marks.order = m.marks.order[1:]
	}
}

// forgive forgets that a model's last download failed, since there is another.
func (m *Models) forgive(id model.ID) {
	m.marks.Lock()
	defer m.marks.Unlock()
	if _, there := m.marks.failed[id]; !there {
		return
	}
	delete(m.marks.failed, id)
	for i, other := range m.marks.order {
		if other == id {
			m.marks.order = append(m.marks.order[:i:i], m.marks.order[i+1:]...)
			break
		}
	}
}

// now is the time since the beginning, which no change of the clock disturbs.
func (m *Models) now() time.Duration { return time.Since(m.begun) }

// want is what a page must know to answer a request that came at that time.
type want struct {
	changes, moves uint64
	at             time.Duration
}

func (m *Models) wants() want {
	return want{changes: m.changes.Load(), moves: m.moves.Load(), at: m.now()}
}

// knows reports whether p answers what is wanted. Progress may be a little older.
func (p *page) knows(w want) bool {
	return p != nil && p.changes >= w.changes && (p.moves >= w.moves || w.at-p.at < progressEvery)
}

// current is the page that answers a request which comes now.
func (m *Models) current(ctx context.Context) (*page, error) {
	if m.ttl.Load() == 0 || !m.following.Load() {
		return m.anew(ctx)
	}
	m.ask(ctx)
	w := m.wants()
	if p := m.page.Load(); p.knows(w) {
		return p, nil
	}
	return m.fresh(ctx, w)
}

// fresh makes a page that knows what is wanted, unless somebody else has just done so.
func (m *Models) fresh(ctx context.Context, w want) (*page, error) {
	select {
	case m.flight <- struct{}{}:
	default:
		if p := m.page.Load(); p != nil && p.changes >= w.changes {
			return p, nil // somebody is encoding the newest progress: nobody has to wait for that
		}
		select {
		case m.flight <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer func() { <-m.flight }()
	old := m.page.Load()
	if old.knows(w) {
		return old, nil
	}
	// Others wait for this page too, whatever becomes of the request that makes it.
	p, err := m.make(context.WithoutCancel(ctx), old)
	if err != nil {
		return nil, err
	}
	m.page.Store(p)
	return p, nil
}

// make looks at what is marked and makes a page of it. The caller has the flight.
func (m *Models) make(ctx context.Context, old *page) (*page, error) {
	// The numbers are read before the facts: what happens in between is in the page or makes it out of date, mostly both.
	m.marks.Lock()
	p := &page{changes: m.changes.Load(), moves: m.moves.Load(), at: m.now(), failed: m.failures()}
	todo := m.marks.news
	m.marks.news = news{dirty: map[model.ID]struct{}{}}
	m.marks.Unlock()
	if err := m.examine(ctx, todo); err != nil {
		m.marks.Lock()
		m.marks.all = true
		m.marks.Unlock()
		return nil, err
	}
	p.held = m.held
	return p, m.assemble(p, m.kept, old)
}

// failures is a copy of what failed. The caller holds the lock of marks.
func (m *Models) failures() map[model.ID]string {
	failed := make(map[model.ID]string, len(m.marks.failed))
	for id, why := range m.marks.failed {
		failed[id] = why
	}
	return failed
}

// examine looks at what is to be looked at again.
func (m *Models) examine(ctx context.Context, todo news) error {
	if todo.all {
		at := m.now()
		kept, err := m.scan(ctx)
		if err != nil {
			return err
		}
		m.kept = kept
		m.held++
		m.scanned.Store(int64(at))
		return nil
	}
	for id := range todo.dirty {
		h, err := m.examineOne(id)
		if err != nil {
			return err
		}
		if h != nil {
			m.kept[id] = h
			m.held++
		} else if _, was := m.kept[id]; was {
			delete(m.kept, id)
			m.held++
		}
	}
	return nil
}

// examineOne is what the store holds of one model; nil when that is nothing.
func (m *Models) examineOne(id model.ID) (*holding, error) {
	at, mark := time.Now(), stampOf(m.folder(id)) // before the look: what comes in between is seen by the next
	found, err := m.set.Store.Model(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return m.hold(found, mark, at), nil
}

// scan looks at everything.
func (m *Models) scan(ctx context.Context) (map[model.ID]*holding, error) {
	at := time.Now()
	stamps, err := stampAll(m.set.Store.Path())
	if err != nil {
		return nil, err
	}
	models, err := m.set.Store.Models(ctx)
	if err != nil {
		return nil, err
	}
	kept := make(map[model.ID]*holding, len(models))
	for _, found := range models {
		kept[found.ID] = m.hold(found, stamps[found.ID.DirName()], at)
	}
	return kept, nil
}

// anew makes a page from nothing that was kept. Only tags of bytes that are the same again stay.
func (m *Models) anew(ctx context.Context) (*page, error) {
	kept, err := m.scan(ctx)
	if err != nil {
		return nil, err
	}
	m.marks.Lock()
	p := &page{failed: m.failures()}
	m.marks.Unlock()
	old := m.page.Load()
	if err := m.assemble(p, kept, old); err != nil {
		return nil, err
	}
	if !m.following.Load() || m.ttl.Load() == 0 {
		m.page.CompareAndSwap(old, p) // its numbers are 0: it is never taken for one that knows something
	}
	return p, nil
}
