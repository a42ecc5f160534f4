package tier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"ema/internal/model"
)

// CacheSettings say what a Cache may keep.
type CacheSettings struct {
	Enabled bool
	Max     model.Bytes // for the bytes of all models together
	Cap     model.Bytes // one more upper bound; 0 is none
	Preload bool        // read what is to stay into memory, and not only take note when others do
	Headers bool        // keep only the headers of files
	Lock    bool        // lock what is kept, so that nothing else can push it out; it is read for that

	Map     bool        // read files from MapFrom on through a mapping
	MapFrom model.Bytes // size of a file
}

// Pages is the kernel's cache of the content of files, as a Cache needs it. host.PageCache is one.
type Pages interface {
	Open(name string) (io.ReadCloser, error)
	Resident(name string, n int64) (resident, of int64, err error)
	Populate(ctx context.Context, name string, n int64, mapped bool, step func(done int64) error) error
	Lock(ctx context.Context, name string, n int64, step func(done int64) error) (io.Closer, error)
}

// CacheNeeds is what a Cache must be given. None of it may call the Cache.
type CacheNeeds struct {
	Files  func(model.ID) ([]string, error) // where the content of a model lies
	Memory func() (total, available model.Bytes, err error)
	Pages  Pages
	Idle   func(context.Context, func(context.Context) error) error // runs something at idle I/O priority; nil: as everything else
	Note   func(error)                                              // hears what went wrong and stops nothing; nil: nobody does
}

const (
	// share is what is left of the memory that can be had: one of so many parts is for models that
	// are kept, the rest for the programs that use them.
	share = 2
	// history is how many models the policy believes there are at first: it weighs the last ten uses
	// for each. It counts to fifteen uses of a model and halves all counts when the history is full; with a
	// longer one, a few models of the past could all get to fifteen, and no new one beyond them.
	// When it holds more than eight models, it lengthens its history by itself.
	history  = 3
	mostUses = 15 // that the policy counts
	// lookEvery is how often it is looked whether the kernel has dropped what is to stay.
	lookEvery = 5 * time.Minute
	// lost is the part of a model that may be missing before it is read anew: one of so many.
	lost = 10
)

// A Cache keeps the bytes of models in memory: in the kernel's page cache, where every program that
// loads a model finds them. Who stays is decided by how lately and how often models are used
// (W-TinyLFU), within a limit that falls when the machine has less memory to give. Whoever must go
// is only no longer read ahead and no longer locked: its bytes are left to the kernel, which drops
// them when something needs the memory, and until then they still serve.
//
// It is safe for concurrent use. It reads nothing ahead before Run.
type Cache struct {
	CacheNeeds
	woken chan struct{} // holds an element when there may be something to do for Run

	mu       sync.Mutex
	settings CacheSettings
	policy   *otter.Cache[model.ID, model.Bytes] // decides who stays; counts in MiB
	models   map[model.ID]*resident              // those who do
	evicted  []model.ID                          // by the policy, and perhaps still in models
	limit    model.Bytes
	blind    bool // the memory could not be read; it has been said
	unlocked bool // nothing can be locked; it has been said
	stats    CacheStats
}

// A resident is a model that is to stay in memory.
type resident struct {
	extents []extent
	bytes   model.Bytes // of all extents
	found   model.Bytes // in memory, when last looked at
	ready   bool        // there is nothing to read ahead
	locks   []io.Closer
	locked  model.Bytes
}

// CacheStats is what a Cache has done so far, and what it holds.
type CacheStats struct {
	Models   int         // that are to stay in memory
	Bytes    model.Bytes // of them
	Resident model.Bytes // of these, in memory when last looked at
	Locked   model.Bytes // of these, that nothing can push out
	Limit    model.Bytes // for Bytes, as it was last worked out

	Uses   int64       // of models, of which it was measured what was in memory
	Hits   model.Bytes // that uses found in memory
	Misses model.Bytes // that uses did not find there
}

// HitRate is the part of the bytes of used models that were in memory already; 0 without any use.
func (s CacheStats) HitRate() float64 {
	return float64(s.Hits) / float64(max(1, s.Hits+s.Misses))
}

// Kept is a model that is to stay in memory, as it was found.
type Kept struct {
	Model    model.ID
	Bytes    model.Bytes // that are to stay
	Resident model.Bytes // of them, in memory
	Locked   bool
}

// NewCache makes a cache that holds nothing.
func NewCache(needs CacheNeeds, s CacheSettings) *Cache {
	if needs.Idle == nil {
		needs.Idle = func(ctx context.Context, do func(context.Context) error) error { return do(ctx) }
	}
	if needs.Note == nil {
		needs.Note = func(error) {}
	}
	c := &Cache{CacheNeeds: needs, settings: s, woken: make(chan struct{}, 1), models: map[model.ID]*resident{}}
	c.policy = otter.Must(&otter.Options[model.ID, model.Bytes]{
		MaximumWeight:   math.MaxInt32, // until the next line but some
		InitialCapacity: history,
		Weigher:         func(_ model.ID, b model.Bytes) uint32 { return weight(b) },
		Executor:        func(do func()) { do() }, // decisions are made at once, by whoever holds the lock
		OnDeletion: func(e otter.DeletionEvent[model.ID, model.Bytes]) {
			if e.WasEvicted() {
				c.evicted = append(c.evicted, e.Key)
			}
		},
	})
	c.relimit()
	return c
}

// weight is a size in MiB, rounded up: then all weights within a limit that is rounded down are
// bytes within it.
func weight(b model.Bytes) uint32 {
	return uint32(min(max(1, (b+model.MiB-1)/model.MiB), math.MaxUint32))
}

// Used tells of a use of a model. It measures first how much of it is in memory, so it should be
// called before the use has got far; nothing of its own is read before. Then the policy decides
// whether the model stays, and who goes for it.
func (c *Cache) Used(id model.ID) error {
	extents, s, err := c.examine(id)
	if err != nil || !s.Enabled {
		return err
	}
	found, err := c.measure(extents)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.stats.Uses++
		c.stats.Hits += found
		c.stats.Misses += sum(extents) - found
	}
	c.admit(id, extents, found, 1)
	return err // what cannot be measured can be kept all the same
}

// Remember tells of uses of a model in the past. The model used last should be told last.
func (c *Cache) Remember(id model.ID, uses int) error {
	extents, s, err := c.examine(id)
	if err != nil || !s.Enabled {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.admit(id, extents, 0, uses)
	return nil
}

// Forget lets go of a model whose files are removed, moved or changed.
func (c *Cache) Forget(id model.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policy.Invalidate(id)
	c.release(id)
}

// Configure makes other settings hold at once, also for a model that is just being read.
func (c *Cache) Configure(s CacheSettings) {
	c.mu.Lock()
	was := c.settings
	c.settings, c.unlocked = s, false
	c.relimit()
	for _, r := range c.models {
		if !s.Lock {
			c.note(r.unlock())
		}
		r.ready = false
	}
	ids := c.order()
	c.mu.Unlock()
	c.wake()
	if s.Headers == was.Headers {
		return
	}
	// What is kept of each is something else now. The first is told last: it is the one to stay.
	for _, id := range slices.Backward(ids) {
		if err := c.Remember(id, 1); err != nil {
			c.Note(err)
		}
	}
}

// Stats is what the cache has done and holds. It looks at nothing anew; Look does.
func (c *Cache) Stats() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Models, s.Limit = len(c.models), c.limit
	for _, r := range c.models {
		s.Bytes += r.bytes
		s.Resident += r.found
		s.Locked += r.locked
	}
	return s
}

// Look measures how much of each model that is to stay is in memory now. The one that is most likely
// to stay comes first.
func (c *Cache) Look(ctx context.Context) ([]Kept, error) {
	var kept []Kept
	err := c.look(ctx, func(id model.ID, r *resident) {
		kept = append(kept, Kept{id, r.bytes, r.found, r.locks != nil})
	})
	return kept, err
}

// look measures each model and, holding the lock, calls each with those that still stay.
func (c *Cache) look(ctx context.Context, each func(model.ID, *resident)) error {
	c.mu.Lock()
	ids := c.order()
	c.mu.Unlock()
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, extents := c.held(id)
		if r == nil {
			continue
		}
		found, err := c.measure(extents)
		if err != nil {
			return err
		}
		c.mu.Lock()
		if c.models[id] == r {
			r.found = found
			each(id, r)
		}
		c.mu.Unlock()
	}
	return nil
}

// held is a model that stays, and what of it.
func (c *Cache) held(id model.ID) (*resident, []extent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.models[id]; r != nil {
		return r, slices.Clone(r.extents)
	}
	return nil, nil
}

// order is the models that stay, the one most likely to stay first.
func (c *Cache) order() []model.ID {
	ids := make([]model.ID, 0, len(c.models))
	for e := range c.policy.Hottest() {
		ids = append(ids, e.Key)
	}
	return ids
}

// admit tells the policy of uses, and does what it decides.
func (c *Cache) admit(id model.ID, extents []extent, found model.Bytes, uses int) {
	r := c.models[id]
	if r == nil || !slices.EqualFunc(r.extents, extents, extent.same) {
		c.release(id)
		r = &resident{extents: extents, bytes: sum(extents)}
		c.models[id] = r
	}
	r.found = found
	r.ready = found >= r.bytes && (r.locked > 0 || !c.locks())
	c.relimit() // before, so that nobody is sent away who has room
	for range min(uses, mostUses) {
		c.policy.Set(id, r.bytes)
	}
	c.settle()
	c.wake()
}

// locks reports whether what stays is to be locked, and can be.
func (c *Cache) locks() bool { return c.settings.Lock && !c.unlocked }

// relimit works out the limit anew, and lets go of whoever is beyond it.
func (c *Cache) relimit() {
	c.limit = c.allowed()
	c.policy.SetMaximum(uint64(c.limit / model.MiB))
	c.settle()
}

// settle lets go of those whom the policy has sent away.
func (c *Cache) settle() {
	c.policy.CleanUp()
	for _, id := range c.evicted {
		if _, back := c.policy.GetEntryQuietly(id); !back {
			c.release(id)
		}
	}
	c.evicted = c.evicted[:0]
}

// allowed is the limit by the settings and by the memory there is. The page cache counts as memory to
// be had, so what is kept lowers it only when it is locked.
func (c *Cache) allowed() model.Bytes {
	s := c.settings
	if !s.Enabled {
		return 0
	}
	limit := min(s.Max, cmp.Or(s.Cap, s.Max))
	_, available, err := c.Memory()
	if err != nil {
		if !c.blind {
			c.Note(fmt.Errorf("what models take in memory may not grow: %w", err))
		}
		c.blind = true
		return min(limit, c.limit)
	}
	c.blind = false
	for _, r := range c.models {
		available += r.locked
	}
	return max(0, min(limit, available/share))
}

// release lets go of a model, if it is there.
func (c *Cache) release(id model.ID) {
	if r := c.models[id]; r != nil {
		delete(c.models, id)
		c.note(r.unlock())
	}
}

// unlock leaves the bytes of a model to the kernel.
func (r *resident) unlock() error {
	var err error
	for _, l := range r.locks {
		err = errors.Join(err, l.Close())
	}
	r.locks, r.locked = nil, 0
	return err
}

func (c *Cache) note(err error) {
	if err != nil {
		c.Note(err)
	}
}

func (c *Cache) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}
