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
//   - How far a download is, and whatever else of it no event tells: as it was 200 ms before, or 400 ms while somebody
//     encodes what is newer. How models are used: the same, since there may be hundreds of uses a second.
//   - That a move begins or ends, and that a model is pinned (event.KindMove and event.KindStored): at once, as with downloads.
//     How far a move is: as it was a second before.
//   - What other tools do in the store's folder - models, revisions, refs and files that come and go: within 2
//     seconds, also for the first request after a quiet night. Nobody looks while nobody asks.
//   - What they do inside of files that ema knows: within Settings.TTL while somebody asks.
//
// No request waits for a look at the whole store, unless an event has said that nobody knows how it stands: what others
// do is looked at while requests get the answer before. The first one after a quiet night waits a tenth of a second for
// it at most; when the disk is slower than that, nobody waits, and a later request sees what others did.
package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ema/client"
	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/store"
)

const (
	progressEvery = 200 * time.Millisecond // downloads are looked at this often at most, unless an event says that one changed
	lookEvery     = time.Second            // the store's folders are looked at this often while somebody asks
	lookPatience  = 100 * time.Millisecond // a request waits so long for the first look after a quiet time
	mostFailures  = 100                    // models that are remembered because their last download failed
	usesAge       = time.Minute            // uses per day change while nobody uses anything, since days pass
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

// A Tier is how the folder of a tier stands, and the file system where it lies.
type Tier struct {
	Tier    model.Tier
	Path    string
	State   string      // client.TierReady and its like
	Problem string      // in words; "" when it is ready
	Max     model.Bytes // that its models may take together; 0 is no bound
	Device  uint64      // of two tiers with the same one, which is not 0, the file system counts once
	Volume
}

// A Volume is a file system; the zero Volume is one of which nothing is known.
type Volume struct {
	Total, Used model.Bytes // Used by whomever
	Available   model.Bytes // to this user
	Reserve     model.Bytes // of Available, what downloads leave free
}

// A Use is what is known of how a model is used.
type Use struct {
	Last   time.Time // zero is never, as far as anybody knows
	PerDay float64   // over the last 30 days
	Pinned bool
	Latest string // the commit that the source had when it was asked last; "" when nobody knows
	Wellbeing
}

// A Wellbeing is how a model was found last. It is comparable; what nobody knows is -1, or the zero time.
type Wellbeing struct {
	Checked     time.Time // by any check
	Performance float64   // 0 to 1
	Average     float64   // seconds of a use
}

// habits are how models are used.
type habits interface {
	// Use is quick: it is asked about every model for each answer that is made.
	Use(id model.ID) Use
	// Uses is a number that is another one after each use.
	Uses() uint64
}

// Settings are what answers are made of. Store, Downloads, Figures, Tiers, Events and Refuse are required.
type Settings struct {
	Store     shelf
	Downloads line
	// Figures are of a running download; false when there are none.
	Figures func(download string) (Figures, bool)
	// Tiers tells how the tiers stand, the hot one first. It measures file systems and reads nothing else.
	Tiers func() ([]Tier, error)
	// Uses knows how models are used. Whoever pins a model tells it as event.Stored. Nil knows nothing.
	Uses habits
	// Moves are the models that are on their way to another tier; nil is none. Whoever moves them tells it as event.Move.
	Moves func() []client.ModelMove
	// Advise says what could go, and why; nil advises what no revision needs.
	Advise func(ctx context.Context) (client.CleanupSuggestions, error)
	// Events tell what changes. Models hears them from within Bus.Tell, so that what was told is never overlooked.
	Events *event.Bus
	// Failed are downloads of the history that failed and were not repeated, oldest first; those that fail from now on
	// are remembered.
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
	marks   struct {      // what events say must be looked at again; changes grows under its lock
		sync.Mutex
		news
		since  *news               // marked since the survey began that is under way; nil without one
		failed map[model.ID]string // why the last download failed
		order  []model.ID          // of failed, oldest first
	}

	flight chan struct{} // holds one while somebody makes a page; what follows is the flight's
	kept   map[model.ID]*holding
	held   uint64 // grows with each change of kept
	broken failure

	looked  atomic.Int64 // when the last look began, in nanoseconds since begun
	scanned atomic.Int64 // the same of the last look at everything
	looking atomic.Int64 // when the look began that is under way; 0 without one
	slow    atomic.Bool  // the last look took longer than a request waits
	wanted  chan struct{}
	rounds  struct {
		sync.Mutex
		over chan struct{} // closed when the next look is over
	}

	storage struct {
		flight chan struct{} // holds one while somebody makes a report
		newest atomic.Pointer[report]
		asked  atomic.Bool // since what could go was planned last
	}
}

// A failure is a page that could not be made.
type failure struct {
	begun time.Duration
	err   error // nil when there was none
}

// news are models of which it is not known how they stand in the store.
type news struct {
	all   bool
	dirty map[model.ID]struct{}
	told  bool // the store has changed, though perhaps in nothing that is told of a model
}

// add adds a model, or with the zero ID all.
func (n *news) add(id model.ID) {
	if id.IsZero() {
		n.all = true
	} else {
		n.dirty[id] = struct{}{}
	}
}

// New makes a Models that keeps no answer until Run is called.
func New(set Settings) *Models {
	m := &Models{
		set: set, begun: time.Now(), boot: bootName(), flight: make(chan struct{}, 1), wanted: make(chan struct{}, 1),
		kept: map[model.ID]*holding{},
	}
	m.storage.flight = make(chan struct{}, 1)
	m.looked.Store(-int64(2 * lookEvery)) // nobody has looked yet
	m.marks.dirty, m.marks.failed = map[model.ID]struct{}{}, map[model.ID]string{}
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
	m.mark(model.ID{}) // meanwhile nobody may have looked at what is kept
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
	f := m.folders() // before the first look: what comes in between is new to the second
	m.following.Store(true)
	defer m.following.Store(false)
	if m.ttl.Load() > 0 {
		_, _ = m.fresh(ctx, m.wants()) //nolint:errcheck // the first request tries again, and says why it fails
	}
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
	case event.KindStored:
		m.forgive(e.Model) // something was done about it
		m.marks.Lock()
		m.marks.told = true
		m.marks.Unlock()
		m.mark(e.Model)
	case event.KindMove:
		if d, ok := e.Data.(event.Move); ok && d.State != event.MoveMoving {
			m.marks.Lock()
			m.marks.told = true // the list of moves is another
			m.marks.Unlock()
			m.mark(e.Model)
		}
	case event.KindTier:
		m.mark(model.ID{}) // whatever has a part there has lost it, or has it again
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
	m.marks.add(id)
	if m.marks.since != nil {
		m.marks.since.add(id)
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
	m.marks.order = slices.DeleteFunc(m.marks.order, func(other model.ID) bool { return other == id })
}

// now is the time since the beginning, which no change of the clock disturbs.
func (m *Models) now() time.Duration { return time.Since(m.begun) }

// want is what a page must know to answer a request that came at that time.
type want struct {
	changes, uses uint64
	at            time.Duration
}

func (m *Models) wants() want { return want{changes: m.changes.Load(), uses: m.uses(), at: m.now()} }

// uses is the number of uses so far.
func (m *Models) uses() uint64 {
	if m.set.Uses == nil {
		return 0
	}
	return m.set.Uses.Uses()
}

// knows reports whether p answers what is wanted. What no event tells of downloads and of uses may be so old.
func (p *page) knows(w want, old time.Duration) bool {
	if p == nil || p.changes < w.changes {
		return false
	}
	age := w.at - p.at
	return age < old || !p.moving && p.uses == w.uses && (!p.dated || age < usesAge)
}

// current is the page that answers a request which comes now.
func (m *Models) current(ctx context.Context) (*page, error) {
	if m.ttl.Load() == 0 || !m.following.Load() {
		return m.anew(ctx)
	}
	m.ask(ctx)
	w := m.wants()
	if p := m.page.Load(); p.knows(w, progressEvery) {
		return p, nil
	}
	return m.fresh(ctx, w)
}

// fresh makes a page that knows what is wanted, unless somebody else has just done so.
func (m *Models) fresh(ctx context.Context, w want) (*page, error) {
	select {
	case m.flight <- struct{}{}:
	default:
		if p := m.page.Load(); p.knows(w, 2*progressEvery) {
			return p, nil // somebody encodes the newest progress: nobody else has to wait for that
		}
		select {
		case m.flight <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer func() { <-m.flight }()
	old := m.page.Load()
	if old.knows(w, progressEvery) {
		return old, nil
	}
	if m.broken.err != nil && m.broken.begun >= w.at {
		return nil, m.broken.err // of an attempt that began after this request: another would be no better
	}
	begun := m.now()
	// Others wait for this page too, whatever becomes of the request that makes it.
	p, err := m.make(context.WithoutCancel(ctx), old)
	m.broken = failure{begun: begun, err: err}
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
	p := &page{changes: m.changes.Load(), uses: m.uses(), at: m.now(), dated: m.set.Uses != nil}
	failures := maps.Clone(m.marks.failed)
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
	return p, m.assemble(p, m.kept, failures, old)
}

// examine looks at what is to be looked at again.
func (m *Models) examine(ctx context.Context, todo news) error {
	if todo.told {
		m.held++
	}
	if todo.all {
		at := m.now()
		kept, err := m.scan(ctx)
		if err != nil {
			return err
		}
		m.keep(kept)
		m.scanned.Store(int64(at))
		return nil
	}
	for id := range todo.dirty {
		h, err := m.examineOne(id)
		if err != nil {
			return err
		}
		was := m.kept[id]
		if !h.same(was) {
			m.held++
		}
		if h != nil {
			m.kept[id] = h
		} else {
			delete(m.kept, id)
		}
	}
	return nil
}

// keep replaces what is kept, and reports whether the new tells anything else than the old. The caller has the flight.
func (m *Models) keep(kept map[model.ID]*holding) bool {
	same := maps.EqualFunc(m.kept, kept, (*holding).same)
	m.kept = kept
	if !same {
		m.held++
	}
	return !same
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
	failures := maps.Clone(m.marks.failed)
	m.marks.Unlock()
	p, old := &page{}, m.page.Load()
	if err := m.assemble(p, kept, failures, old); err != nil {
		return nil, err
	}
	if !m.following.Load() || m.ttl.Load() == 0 {
		m.page.CompareAndSwap(old, p) // its numbers are 0: it is never taken for one that knows something
	}
	return p, nil
}
