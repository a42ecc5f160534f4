package fetch

import (
	"context"
	"encoding"
	"fmt"
	"hash"
	"math"
	"slices"
	"sync"
	"time"

	"ema/internal/model"
)

// scratchSize is one read from the page cache: it stays in the processor's cache until it is hashed.
const scratchSize = 256 << 10

// soon is how long the hash waits for bytes before a connection counts as late. A block takes a few
// milliseconds from an origin nearby; the rest is for busy processors and disks.
const soon = 200 * time.Millisecond

// order hashes one file in the order of its bytes while connections write it in any order. What is
// next in line comes from the connection's own buffer where there is room to keep it, and from the
// file, that is from the page cache, where there is none. Only what an earlier run wrote and had not
// hashed when it was killed may have to come from the disk.
type order struct {
	blob *blob
	run  *run

	mu      sync.Mutex
	changed sync.Cond
	h       hash.Hash
	pos     int64            // bytes hashed
	written []model.Segment  // what is on file, ascending, disjoint; begins at or before pos
	waiting map[int64][]byte // buffers by their offset, all at or after pos
	idle    bool             // the hash waits for bytes
	stuck   bool             // it has waited for longer than it takes to schedule a connection
	late    *time.Timer      // sets stuck
	waited  float64          // seconds waited for bytes, of those spent lately
	spent   float64          // seconds waited and hashed, the older ones fading away
	ended   bool             // nobody follows any more
	hashing sync.Mutex       // held while h is being fed
}

func newOrder(b *blob, r *run) (*order, error) {
	o := &order{blob: b, run: r, h: b.file.Digest.NewHash(b.file.Size), waiting: map[int64][]byte{}}
	o.changed.L = &o.mu
	o.late = time.AfterFunc(soon, o.tooLate)
	o.late.Stop()
	if state, upto := b.sink.Checkpoint(); upto > 0 {
		if err := o.h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
			return nil, fmt.Errorf("hash state of %s: %w", b.file.Path, err)
		}
		o.pos = upto
		r.job.Progress.Hashed.Add(upto)
	}
	at := int64(0)
	for _, missing := range append(slices.Clone(b.free), model.Segment{Start: b.file.Size, End: b.file.Size}) {
		if at < missing.Start {
			o.written = append(o.written, model.Segment{Start: at, End: missing.Start})
		}
		at = missing.End
	}
	return o, nil
}

// reserve asks whether the piece of n bytes at off, which is about to be written, is to be given to the hash from
// memory: then it need not go through the page cache. Every reservation is followed by wrote
// or unwritten.
//
// When the hash has work and all room is taken, reserve waits: to receive faster than the slowest step
// only means to read again from the page cache what was in memory just now. It does not wait for a
// connection: not for the piece that is next in line, and not when the hash itself waits for bytes,
// except that it gives one to an origin nearby a moment: it was only not scheduled, or the disk is busy.
// Nor is a small piece waited for, or kept: it would take a whole buffer, and comes from a slow connection,
// or under a limit, where to read it again costs little.
func (o *order) reserve(ctx context.Context, off, n int64, near bool) bool {
	if n < BlockSize/4 {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for off >= o.pos && off-o.pos < ahead && !o.ended && ctx.Err() == nil {
		if o.run.kept.hold(off == o.pos) {
			return true
		}
		if n < BlockSize/2 || o.idle && (o.stuck || !near) {
			return false
		}
		o.changed.Wait()
	}
	return false
}

// wrote tells that p is on file at off; reserved says what reserve had answered. true means that the
// hash has kept p: it is no longer the caller's.
func (o *order) wrote(off int64, p []byte, reserved bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.written = insert(o.written, model.Segment{Start: off, End: off + int64(len(p))})
	kept := reserved && !o.ended
	if kept {
		o.waiting[off] = p
	} else if reserved {
		o.run.kept.unhold()
	}
	o.changed.Broadcast()
	return kept
}

// unwritten takes a reservation back, since the write failed.
func (o *order) unwritten(reserved bool) {
	if reserved {
		o.run.kept.unhold()
	}
}

// follow hashes until the whole file has passed and returns its digest.
func (o *order) follow(ctx context.Context) (model.Digest, error) {
	stop := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		o.changed.Broadcast()
		o.mu.Unlock()
	})
	defer stop()
	defer o.drop()
	// Not one of the shared buffers: connections may hold all of these while they wait for the hash.
	scratch := make([]byte, scratchSize)
	for last := time.Now(); ; {
		p, fromFile, err := o.wait(ctx, scratch)
		begun := time.Now()
		if err != nil {
			return model.Digest{}, err
		}
		if p == nil {
			break
		}
		if fromFile {
			if _, err := o.blob.sink.ReadAt(p, o.pos); err != nil {
				return model.Digest{}, err
			}
		}
		read := time.Now()
		o.hashing.Lock()
		o.h.Write(p)
		done := time.Now()
		o.run.job.Progress.Hashing.Add(int64(done.Sub(read)))
		o.mu.Lock()
		// Faded over seconds: catching up with what came out of order for a moment does not count.
		fade := math.Exp(-done.Sub(last).Seconds() / 5)
		o.waited = o.waited*fade + begun.Sub(last).Seconds()
		o.spent = o.spent*fade + done.Sub(last).Seconds()
		last = done
		o.pos += int64(len(p))
		if !fromFile {
			o.run.kept.unhold()
			o.run.buffers.put(p)
		}
		o.changed.Broadcast() // connections that wait for room
		o.mu.Unlock()
		o.hashing.Unlock()
		o.run.job.Progress.Hashed.Add(int64(len(p)))
		o.run.plan.hashed()
	}
	return o.blob.file.Digest.Sum(o.h), nil
}

// wait returns the next bytes in line: a kept buffer, or a part of scratch to be read from the file.
// nil means that the whole file has passed.
func (o *order) wait(ctx context.Context, scratch []byte) (p []byte, fromFile bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
		if o.pos == o.blob.file.Size {
			return nil, false, nil
		}
		if p, ok := o.waiting[o.pos]; ok {
			delete(o.waiting, o.pos)
			o.busy()
			return p, false, nil
		}
		if n := o.readable(); n > 0 {
			o.busy()
			return scratch[:min(n, scratchSize)], true, nil
		}
		if !o.idle {
			o.idle = true
			o.late.Reset(soon)
			o.changed.Broadcast() // those who wait for room need not
			o.mu.Unlock()         // the plan's lock comes before this one
			o.run.plan.hashed()
			o.mu.Lock()
			continue
		}
		o.changed.Wait()
	}
}

// busy ends the hash's wait for bytes.
func (o *order) busy() {
	if o.idle {
		o.idle, o.stuck = false, false
		o.late.Stop()
	}
}

// tooLate notes that the hash waits for a connection that is late, and wakes those who waited with it.
func (o *order) tooLate() {
	o.mu.Lock()
	o.stuck = o.idle
	o.changed.Broadcast()
	o.mu.Unlock()
	o.run.plan.hashed()
}

// readable is how many bytes from pos on are on file before the next kept buffer.
func (o *order) readable() int64 {
	if len(o.written) == 0 || o.written[0].Start > o.pos || o.written[0].End <= o.pos {
		return 0
	}
	n := o.written[0].End - o.pos
	for off := range o.waiting {
		if off > o.pos {
			n = min(n, off-o.pos)
		}
	}
	return n
}

// behind reports whether bytes at off need not be asked for yet: off is farther ahead than what may wait
// for the hash in memory, and to wait is cheap, since the hash is the slowest step and has work, or a
// request costs next to nothing (near) and no connection is late.
func (o *order) behind(off int64, near bool) bool {
	const claim = 4 * BlockSize // about what such a request covers
	o.mu.Lock()
	defer o.mu.Unlock()
	return off-o.pos > ahead-claim && !o.ended && (near && !o.stuck || o.slowest() && !o.idle)
}

// bound reports whether the hash, and not the network, is what takes the time.
func (o *order) bound() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.slowest()
}

// slowest reports whether the hash has spent less than 60 % of its time waiting for bytes.
func (o *order) slowest() bool { return o.spent > 0 && o.waited < 0.6*o.spent }

// checkpoint returns the hash's state and how many bytes it stands for, all of them written.
func (o *order) checkpoint() (state []byte, upto int64) {
	o.hashing.Lock()
	defer o.hashing.Unlock()
	state, err := o.h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, 0
	}
	return state, o.pos
}

// drop gives back the buffers that were kept for a hash that will not come.
func (o *order) drop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.late.Stop()
	o.changed.Broadcast()
	for off, p := range o.waiting {
		o.run.kept.unhold()
		o.run.buffers.put(p)
		delete(o.waiting, off)
	}
}
