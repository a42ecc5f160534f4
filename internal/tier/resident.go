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
	Resident(name string, off, n int64) (resident, of int64, err error)
	Populate(ctx context.Context, name string, off, n int64, mapped bool, step func(done int64) error) error
	Lock(ctx context.Context, name string, off, n int64, step func(done int64) error) (io.Closer, error)
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
	// share is what is taken of the memory that can be had: one of so many parts is for models that
	// are kept, the rest for the programs that use them.
	share = 2
	// pieceSize is what the policy decides about at once. With whole models, of which a few
	// fill the memory, it would never try a new one against those that have been used twice: it
	// protects up to four fifths of what it keeps, and that is all where few models are kept. And a
	// large model would push out many small ones by winning against the first.
	pieceSize = 32 * model.MiB
	// mostUses is how far the policy counts.
	mostUses = 15
	// lookEvery is how often it is looked whether the kernel has dropped what is to stay.
	lookEvery = 5 * time.Minute
	// lost is the part of a model that may be missing before it is read anew: one of so many.
	lost = 10
)

// A Cache keeps the bytes of models in memory: in the kernel's page cache, where every program that
// loads a model finds them. What stays is decided by how lately and how often models are used
// (W-TinyLFU), within a limit that falls when the machine has less memory to give. Where there is no
// room for all of a model, a part of it may stay. What must go is only no longer read ahead and no
// longer locked: its bytes are left to the kernel, which drops them when something needs the memory,
// and until then they still serve.
//
// It is safe for concurrent use. It reads nothing ahead before Run.
type Cache struct {
	CacheNeeds
	woken chan struct{} // holds an element when there may be something to do for Run

	mu       sync.Mutex
	settings CacheSettings
	policy   *otter.Cache[place, int64] // decides what stays; weighs in MiB
	models   map[model.ID]*resident     // of which something does
	evicted  []place                    // by the policy, and perhaps still in models
	limit    model.Bytes
	locking  model.Bytes // of the piece that is being locked
	blind    bool        // the memory could not be read; it has been said
	unlocked bool        // nothing can be locked; it has been said
	stats    CacheStats
}

// A place is where a piece begins.
type place struct {
	model model.ID
	file  string
	off   int64
}

// A resident is a model of which something is to stay in memory.
type resident struct {
	extents []extent
	pieces  map[place]*piece
}

// A piece is a part of a file that is to stay in memory.
type piece struct {
	size  int64
	found int64 // in memory, when last looked at
	ready bool  // there is nothing to read ahead
	lock  io.Closer
}

// CacheStats is what a Cache has done so far, and what it holds.
type CacheStats struct {
	Models   int         // of which something is to stay in memory
	Bytes    model.Bytes // that are to stay
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

// Residence is a model of which something is to stay in memory, as it was found.
type Residence struct {
	Model    model.ID
	Size     model.Bytes // of all of it; of its headers, where only they stay
	Bytes    model.Bytes // that are to stay
	Resident model.Bytes // of these, in memory
	Locked   model.Bytes // of these, that nothing can push out
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
	c.limit = c.allowed()
	c.policy = otter.Must(&otter.Options[place, int64]{
		MaximumWeight: math.MaxInt64, // until the limit is set below
		// The policy weighs the last ten uses for each piece that there is room for, and halves all
		// counts after that. With a longer history, all pieces could get to the most it counts, and then no
		// new one would get beyond them; with a shorter one it would begin anew while it fills.
		InitialCapacity: int(min(max(c.limit/pieceSize, 1), 1<<16)),
		Weigher:         func(_ place, size int64) uint32 { return weight(size) },
		Executor:        func(do func()) { do() }, // decisions are made at once, by whoever holds the lock
		OnDeletion: func(e otter.DeletionEvent[place, int64]) {
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
func weight(size int64) uint32 { return uint32((size + int64(model.MiB) - 1) / int64(model.MiB)) }

// Used tells of a use of a model. It measures first how much of it is in memory, so it should be
// called before the use has got far; nothing of its own is read before. Then the policy decides
// what of it stays, and what goes for it.
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
	c.admit(id, extents, 1)
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
	c.admit(id, extents, uses)
	return nil
}

// Forget lets go of a model whose files are removed, moved or changed.
func (c *Cache) Forget(id model.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(id)
}

// Configure makes other settings hold at once, also for what is just being read.
func (c *Cache) Configure(s CacheSettings) {
	c.mu.Lock()
	was := c.settings
	c.settings, c.unlocked = s, false
	c.relimit()
	for _, r := range c.models {
		r.unready()
		if !s.Lock {
			c.unlock(r)
		}
	}
	ids := c.order()
	c.mu.Unlock()
	c.wake()
	if s.Headers == was.Headers {
		return
	}
	// What may stay of each is something else now. The first is told last: it is the one to stay.
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
	for id, r := range c.models {
		k := r.kept(id)
		s.Bytes += k.Bytes
		s.Resident += k.Resident
		s.Locked += k.Locked
	}
	return s
}

// Look measures how much of what is to stay is in memory now. The model that is most likely to stay
// comes first.
func (c *Cache) Look(ctx context.Context) ([]Residence, error) {
	var all []Residence
	err := c.look(ctx, func(id model.ID, r *resident) { all = append(all, r.kept(id)) })
	return all, err
}

// look measures each model and, holding the lock, calls each with those that still stay.
func (c *Cache) look(ctx context.Context, each func(model.ID, *resident)) error {
	c.mu.Lock()
	ids := c.order()
	c.mu.Unlock()
	for _, id := range ids {
		r, places := c.places(id, func(*piece) bool { return true })
		for _, at := range places {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := c.inspect(r, at); err != nil {
				return err
			}
		}
		c.mu.Lock()
		if r != nil && c.models[id] == r {
			each(id, r)
		}
		c.mu.Unlock()
	}
	return nil
}

func (r *resident) kept(id model.ID) Residence {
	k := Residence{Model: id, Size: sum(r.extents)}
	for _, p := range r.pieces {
		k.Bytes += model.Bytes(p.size)
		k.Resident += model.Bytes(p.found)
		if p.lock != nil {
			k.Locked += model.Bytes(p.size)
		}
	}
	return k
}

func (r *resident) unready() {
	for _, p := range r.pieces {
		p.ready = false
	}
}

// order is the models of which something stays, the one most likely to stay first.
func (c *Cache) order() []model.ID {
	var ids []model.ID
	seen := map[model.ID]bool{}
	for e := range c.policy.Hottest() {
		if !seen[e.Key.model] {
			seen[e.Key.model] = true
			ids = append(ids, e.Key.model)
		}
	}
	return ids
}

// admit tells the policy of uses, and does what it decides.
func (c *Cache) admit(id model.ID, extents []extent, uses int) {
	r := c.models[id]
	if r == nil || !slices.EqualFunc(r.extents, extents, extent.same) {
		c.forget(id)
		r = &resident{extents: extents, pieces: map[place]*piece{}}
		c.models[id] = r
	}
	r.unready() // what is in memory all the same is not read
	c.relimit() // before, so that nothing is sent away for which there is room
	for range min(uses, mostUses) {
		c.offer(id, r)
	}
	c.wake()
}

// offer has the policy decide about each piece of a model, as for one use.
func (c *Cache) offer(id model.ID, r *resident) {
	for _, e := range r.extents {
		for off := int64(0); off < e.size; off += int64(pieceSize) {
			at, size := place{id, e.name, off}, min(int64(pieceSize), e.size-off)
			if p := r.pieces[at]; p == nil || p.size != size {
				c.release(at)
				r.pieces[at] = &piece{size: size}
				c.models[id] = r // the piece released may have been the last
			}
			c.policy.Set(at, size)
			c.settle()
		}
	}
	if len(r.pieces) == 0 {
		delete(c.models, id)
	}
}

// locks reports whether what stays is to be locked, and can be.
func (c *Cache) locks() bool { return c.settings.Lock && !c.unlocked }

// relimit works out the limit anew, and lets go of what is beyond it.
func (c *Cache) relimit() {
	c.limit = c.allowed()
	c.policy.SetMaximum(uint64(c.limit / model.MiB))
	c.settle()
}

// settle lets go of what the policy has sent away.
func (c *Cache) settle() {
	c.policy.CleanUp()
	for _, at := range c.evicted {
		if _, back := c.policy.GetEntryQuietly(at); !back {
			c.release(at)
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
	available += c.locking
	for id, r := range c.models {
		available += r.kept(id).Locked
	}
	return max(0, min(limit, available/share))
}

// forget lets go of all of a model, if something of it is there.
func (c *Cache) forget(id model.ID) {
	if r := c.models[id]; r != nil {
		c.unlock(r)
		for at := range r.pieces {
			c.policy.Invalidate(at)
		}
		delete(c.models, id)
	}
}

// release lets go of a piece, if it is there.
func (c *Cache) release(at place) {
	r := c.models[at.model]
	if r == nil || r.pieces[at] == nil {
		return
	}
	c.note(r.pieces[at].unlock())
	if delete(r.pieces, at); len(r.pieces) == 0 {
		delete(c.models, at.model)
	}
}

// unlock leaves the bytes of a model to the kernel.
func (c *Cache) unlock(r *resident) {
	for _, p := range r.pieces {
		c.note(p.unlock())
	}
}

func (p *piece) unlock() (err error) {
	if p.lock != nil {
		err = p.lock.Close()
		p.lock = nil
	}
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

// errGone ends the reading of what is not to stay, or not as it was.
var errGone = errors.New("it is no longer to stay in memory as it was")
