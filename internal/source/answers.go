package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"ema/internal/model"
)

// largestKept bounds one kept answer. The hub's pages have a thousand files, some 300 KiB; what is
// larger than this is asked for again.
const largestKept = 8 * model.MiB

// AnswerSettings say how many of the hub's answers are kept, and where.
type AnswerSettings struct {
	// Entries is how many are kept, in memory and in Folder each; 0 = none.
	Entries int
	// Memory is what they may take there; 0 = none are kept there.
	Memory model.Bytes
	// Folder is where they outlive this process, and are shared with others; empty = nowhere.
	Folder string
	// Compress makes those in Folder smaller.
	Compress bool
	// TTL is how long an answer counts as fresh; see Sources.Fresh.
	TTL time.Duration
}

// Answers keeps what the hub has said, for several Sources one after the other or at once.
//
// What is about a commit never changes, and is not asked for again. All else is asked for each time,
// but the hub need not repeat what is kept; and what it said last can be recalled when it is silent.
// Neither errors are kept nor anything of other hosts, whose links may be signed.
type Answers struct {
	told func(error)

	mu      sync.Mutex // guards what follows
	set     AnswerSettings
	memory  *otter.Cache[inquiry, *kept] // nil = none
	flights map[inquiry]*flight
	room    int // how many more may be kept on disk for certain; others may fill it meanwhile
}

// NewAnswers makes an empty memory; what Folder has is read when it is asked for. told hears of a
// folder that cannot be used, which costs nothing but questions; nil = nobody does.
func NewAnswers(s AnswerSettings, told func(error)) *Answers {
	a := &Answers{told: told, flights: make(map[inquiry]*flight)}
	a.Configure(s)
	return a
}

// Configure changes the settings; what is kept in memory stays as far as it fits.
func (a *Answers) Configure(s AnswerSettings) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s == a.set {
		return
	}
	before := a.memory
	if before == nil || s.Entries != a.set.Entries || s.Memory != a.set.Memory {
		a.memory = newMemory(s)
		if before != nil && a.memory != nil {
			for q, k := range before.All() {
				a.memory.Set(q, k)
			}
		}
	}
	a.set, a.room = s, 0
}

// newMemory is bounded by the weight of its entries, in KiB. Each weighs at least its share of the
// whole, so that their number is bounded too.
func newMemory(s AnswerSettings) *otter.Cache[inquiry, *kept] {
	entries, most := uint64(max(s.Entries, 0)), uint64(max(s.Memory, 0)/model.KiB)
	if entries == 0 || most == 0 {
		return nil
	}
	share := min((most+entries-1)/entries, 1<<31)
	return otter.Must(&otter.Options[inquiry, *kept]{
		MaximumWeight: most,
		Weigher: func(_ inquiry, k *kept) uint32 {
			return uint32(max(share, uint64(len(k.body)+len(k.at)+len(k.link))/uint64(model.KiB)+1))
		},
		Executor: func(f func()) { f() }, // a goroutine for it would have no owner
	})
}

// An inquiry is what an answer is kept by: the hash of a URL and of the token that goes with it, since
// others may not see what its owner sees.
type inquiry [sha256.Size]byte

func newInquiry(u *url.URL, token string) inquiry {
	secret := sha256.Sum256([]byte(token))
	return sha256.Sum256([]byte("GET " + u.String() + "\n" + hex.EncodeToString(secret[:])))
}

// A kept answer is what the hub said, as far as it is needed again. It is not changed once it is kept.
type kept struct {
	asked string // the URL that was asked for
	at    string // the one that answered in the end
	etag  string
	link  string // to the page that follows; empty = none
	body  []byte
	said  time.Time // when the hub last stood by it
}

// find is what is kept for q, or nil.
func (a *Answers) find(q inquiry, u *url.URL) *kept {
	memory, set := a.now()
	if set.Entries == 0 {
		return nil
	}
	if memory != nil {
		if k, ok := memory.GetIfPresent(q); ok {
			return k
		}
	}
	k, err := shelf(set).read(q)
	a.tell(err)
	if k == nil || k.asked != u.String() {
		return nil
	}
	if memory != nil {
		memory.Set(q, k)
	}
	return k
}

// keep keeps k for q, unless it may not be kept.
func (a *Answers) keep(q inquiry, k *kept) {
	memory, set := a.now()
	if set.Entries == 0 {
		return
	}
	if memory != nil {
		memory.Set(q, k)
	}
	if err := shelf(set).write(q, k); err != nil {
		a.tell(err)
		return
	}
	if a.hasRoom() {
		return
	}
	room, err := shelf(set).tidyAround(q)
	a.tell(err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.room = room
}

// hasRoom reports whether one more may be kept on disk for certain, and counts it.
func (a *Answers) hasRoom() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.room == 0 {
		return false
	}
	a.room--
	return true
}

// renew notes that the hub stands by k at this moment.
func (a *Answers) renew(q inquiry, k *kept) *kept {
	again := *k
	again.said = time.Now()
	memory, set := a.now()
	if memory != nil {
		memory.Set(q, &again)
	}
	a.tell(shelf(set).renew(q, again.said))
	return &again
}

// forget removes what is kept for q.
func (a *Answers) forget(q inquiry) {
	memory, set := a.now()
	if memory != nil {
		memory.Invalidate(q)
	}
	a.tell(shelf(set).remove(q))
}

func (a *Answers) now() (*otter.Cache[inquiry, *kept], AnswerSettings) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.memory, a.set
}

func (a *Answers) tell(err error) {
	if err != nil && a.told != nil {
		a.told(err)
	}
}

// A flight is an inquiry that is on its way. Whoever has the same one waits for its answer.
type flight struct {
	done   chan struct{}
	answer *kept // nil when it cannot be shared
	err    error
}

// join begins a flight for q, or finds the one that has begun: then mine is false.
func (a *Answers) join(q inquiry) (f *flight, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.flights[q]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	a.flights[q] = f
	return f, true
}

// land ends a flight.
func (a *Answers) land(q inquiry, f *flight, k *kept, err error) {
	a.mu.Lock()
	delete(a.flights, q)
	a.mu.Unlock()
	f.answer, f.err = k, err
	close(f.done)
}

// wait waits for somebody else's flight. again says that it told nothing about the inquiry: who began
// it went away.
func (f *flight) wait(ctx context.Context) (k *kept, again bool, err error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, false, &model.Error{Op: "resolve", Class: model.Cancelled, Err: context.Cause(ctx)}
	}
	if model.ClassOf(f.err) == model.Cancelled {
		return nil, true, nil
	}
	if e, ok := errors.AsType[*model.Error](f.err); ok { // each completes its own
		mine := *e
		return nil, false, &mine
	}
	return f.answer, false, f.err
}

// Recall is what the hub said when it was asked last, without asking it; nil when that is not known,
// or not all of it. Its time is in Resolved.
func (s *Sources) Recall(ctx context.Context, id model.ID, rev string) *model.Manifest {
	h, ok := s.byScheme[id.Scheme].(*hub)
	if !ok || s.wire.answers == nil {
		return nil
	}
	m, err := h.resolve(ctx, id, rev, true)
	if err != nil {
		return nil
	}
	return m
}

// Fresh reports whether the hub's last answer about rev is known, and younger than AnswerSettings.TTL.
func (s *Sources) Fresh(id model.ID, rev string) bool {
	h, ok := s.byScheme[id.Scheme].(*hub)
	if !ok || s.wire.answers == nil {
		return false
	}
	u, err := h.infoURL(id, cmp.Or(rev, defaultRevision))
	if err != nil {
		return false
	}
	k := s.wire.answers.find(newInquiry(u, h.wire.token), u)
	_, set := s.wire.answers.now()
	return k != nil && time.Since(k.said) < set.TTL
}

// Forget has the hub asked again about m, whatever is kept: something of it was not true.
func (s *Sources) Forget(ctx context.Context, m *model.Manifest) {
	if h, ok := s.byScheme[m.ID.Scheme].(*hub); ok {
		h.forget(ctx, m)
	}
}

// forget removes what is kept about m; its commit may be unknown. What was believed must not stand in
// the way of its correction.
func (h *hub) forget(ctx context.Context, m *model.Manifest) {
	all := h.wire.answers
	if all == nil {
		return
	}
	known := *m
	if info, err := h.info(ctx, m.ID, m.Revision, true); known.Commit == "" && err == nil {
		known.Commit = info.commit
		known.Canonical = model.ID{Scheme: model.Hub, Name: info.id}
	}
	for _, rev := range []string{m.Revision, known.Commit} {
		if u, err := h.infoURL(m.ID, rev); err == nil {
			all.forget(newInquiry(u, h.wire.token))
		}
	}
	u, err := h.treeURL(name(&known), known.Commit)
	for err == nil && known.Commit != "" {
		q := newInquiry(u, h.wire.token)
		k := all.find(q, u)
		all.forget(q)
		if k == nil || k.link == "" {
			return
		}
		u, err = u.Parse(k.link)
	}
}

// plainQuery reports whether a URL carries nothing but what questions about a model carry: no key, no
// signature, no name.
func plainQuery(u *url.URL) bool {
	for name := range u.Query() {
		if !slices.Contains([]string{"blobs", "recursive", "expand", "limit", "cursor"}, name) {
			return false
		}
	}
	return u.User == nil && u.Fragment == ""
}
