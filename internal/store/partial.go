package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"ema/internal/model"
)

// writebackBlocks is how many adjacent blocks (1 MiB each) must be complete before their write-back
// is started, so that the sync at the end finds little left to do.
const writebackBlocks = 4

// A Partial is one blob while it is being filled. WriteAt, ReadAt, Written, Missing, Sync and
// Unsynced may be called concurrently, as long as no two goroutines write the same block at once.
type Partial struct {
	w    *Writer
	id   model.ID
	file model.File
	name string // path of the data file
	jour string // path of the journal

	lock, data, log File
	direct          File // data once more, to write past the page cache; nil where that cannot be

	syncing sync.Mutex // one Sync at a time
	mu      sync.Mutex // guards all below, and the order of writes to the journal
	j       *journal
	dirty   map[int]struct{} // blocks whose entry is not durable
	fresh   int64            // bytes written since the last Sync
	forgets int              // how often something was forgotten: tells a Sync that the ground moved
	named   bool             // the names of both files are durable
	failed  error            // set when the device lost bytes; nothing goes on after it
	closed  bool
}

// Missing lists the bytes that are not written yet, ascending and disjoint.
func (p *Partial) Missing() []model.Segment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.j.missing()
}

// Written is how far contiguous written bytes reach from off; off itself if there are none.
func (p *Partial) Written(off int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.j.reach(off)
}

// Unsynced is the number of bytes that a power loss might cost now.
func (p *Partial) Unsynced() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fresh
}

// ReadAt reads written bytes; it refuses a span that is not written completely.
func (p *Partial) ReadAt(b []byte, off int64) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if off < 0 || !p.covers(off, off+int64(len(b))) {
		return 0, p.misuse("read", fmt.Errorf("bytes %d to %d are not all written", off, off+int64(len(b))))
	}
	n, err := p.data.ReadAt(b, off)
	return n, p.error("read blob", err)
}

// covers reports whether all bytes from start to end are written. It looks at their blocks only: the
// hash asks for each piece of a file that may have a hundred thousand.
func (p *Partial) covers(start, end int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if end > p.j.size {
		return false
	}
	for i := start / BlockSize; i*BlockSize < end; i++ {
		if i*BlockSize+p.j.entries[i].len() < min(end, (i+1)*BlockSize) {
			return false
		}
	}
	return true
}

// WriteAt writes b at off: inside one block, exactly where that block's written bytes end. crc is b's
// CRC-32C, taken by the caller while b was in the processor's cache. When WriteAt returns, the bytes
// survive the death of this process; Sync makes them survive a power loss.
func (p *Partial) WriteAt(b []byte, off int64, crc uint32) error { return p.write(b, off, crc, false) }

func (p *Partial) write(b []byte, off int64, crc uint32, past bool) error {
	if len(b) == 0 {
		return nil
	}
	i := int(off / BlockSize)
	start := int64(i) * BlockSize
	p.mu.Lock()
	failed := p.failed
	var old entry
	inBlock := off >= 0 && off < p.j.size && off+int64(len(b)) <= start+blockLen(i, p.j.size)
	if inBlock {
		old = p.j.entries[i]
	}
	p.mu.Unlock()
	switch {
	case failed != nil:
		return failed
	case !inBlock:
		return p.misuse("write", fmt.Errorf("%d bytes at %d leave their block or the file of %d bytes", len(b), off, p.j.size))
	case off != start+old.len():
		return p.misuse("write", fmt.Errorf("bytes at %d do not continue those written up to %d", off, start+old.len()))
	}
	if old.len() > 0 {
		crc = crc32.Update(old.crc(), castagnoli, b)
	}
	// Data first, then the note about it: killed in between, we lose the note and not the truth.
	if err := p.store(b, off, past); err != nil {
		return p.error("write blob", err)
	}

	first, n, err := p.note(i, old, newEntry(crc, old.len()+int64(len(b))))
	if err == nil && n > 0 {
		err = p.data.StartWriteback(first, n) // not under the lock: a busy device makes it wait
	}
	return p.error("write blob", err)
}

// note replaces block i's entry, and returns the span whose write-back should start, if any.
func (p *Partial) note(i int, old, now entry) (first, n int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.j.entries[i]&^durableBit != old&^durableBit {
		return 0, 0, p.misuse("write", fmt.Errorf("block %d was changed while it was written", i))
	}
	p.j.entries[i] = now
	p.dirty[i] = struct{}{}
	p.fresh += now.len() - old.len()
	if err := p.writeEntry(i); err != nil {
		return 0, 0, err
	}
	if now.len() == blockLen(i, p.j.size) {
		first, n = p.group(i)
	}
	return first, n, nil
}

// group is the group of blocks around i, as offset and length, if the last write has completed it.
func (p *Partial) group(i int) (first, n int64) {
	from := i - i%writebackBlocks
	to := min(from+writebackBlocks, len(p.j.entries))
	for k := from; k < to; k++ {
		if p.j.entries[k].len() < blockLen(k, p.j.size) {
			return 0, 0
		}
	}
	first = int64(from) * BlockSize
	return first, min(int64(to)*BlockSize, p.j.size) - first
}

// writeEntry writes block i's entry to the journal; p.mu is held, or nobody else has p yet.
func (p *Partial) writeEntry(i int) error { return p.writeEntries([]int{i}) }

// writeEntries writes the entries of blocks to the journal, those of adjacent blocks in one call; p.mu
// is held, or nobody else has p yet.
func (p *Partial) writeEntries(blocks []int) error {
	slices.Sort(blocks)
	var buf []byte
	for k, i := range blocks {
		buf = binary.LittleEndian.AppendUint64(buf, uint64(p.j.entries[i]))
		if k+1 < len(blocks) && blocks[k+1] == i+1 {
			continue
		}
		first := i + 1 - len(buf)/entryLen
		if _, err := p.log.WriteAt(buf, entryOffset+int64(first)*entryLen); err != nil {
			return err
		}
		buf = buf[:0]
	}
	return nil
}

// Sync makes durable what was written before the call, and keeps state - the in-order hash's
// MarshalBinary after exactly the first upto bytes, nil if there is none - for the next run. Bytes
// may be written meanwhile. With durability "process" it only keeps the state.
//
// If the device reports that it lost bytes, everything that was not durable is missing again and
// the Partial does not go on: which of the bytes were lost, nobody knows.
func (p *Partial) Sync(state []byte, upto int64) error {
	p.syncing.Lock()
	defer p.syncing.Unlock()

	// 1. Remember which entries there are now: only their bytes are sure to be covered by step 2.
	p.mu.Lock()
	if p.failed != nil {
		p.mu.Unlock()
		return p.failed
	}
	if len(state) > maxState || upto < 0 || upto > p.j.reach(0) {
		p.mu.Unlock()
		return p.misuse("sync", fmt.Errorf("a state of %d bytes after %d bytes cannot be kept", len(state), upto))
	}
	type mark struct {
		block int
		e     entry
	}
	marks := make([]mark, 0, len(p.dirty))
	for i := range p.dirty {
		marks = append(marks, mark{i, p.j.entries[i]})
	}
	forgets, fresh, named := p.forgets, p.fresh, p.named
	p.mu.Unlock()

	if p.w.sync {
		// 2. The bytes, and once the names under which they are found.
		if err := p.data.Datasync(); err != nil {
			return p.lost(err)
		}
		if !named {
			if err := p.w.saveNames(); err != nil {
				return p.error("sync blob", err)
			}
		}
	}

	// 3. Only now may the notes say that the bytes are durable. What has grown meanwhile is left for
	// the next Sync; and if something was forgotten, the same entry need not mean the same write.
	p.mu.Lock()
	p.named = p.named || p.w.sync
	p.fresh = max(0, p.fresh-fresh)
	var err error
	if p.forgets == forgets {
		var durable []int
		for _, m := range marks {
			if p.w.sync && p.j.entries[m.block] == m.e {
				p.j.entries[m.block] |= durableBit
				delete(p.dirty, m.block)
				durable = append(durable, m.block)
			}
		}
		err = p.writeEntries(durable)
		if state != nil && upto > 0 {
			err = errors.Join(err, p.keep(state, upto))
		}
	}
	p.mu.Unlock()

	// 4. The notes themselves. Should they not arrive, the entries of the run before still hold.
	if err == nil && p.w.sync {
		err = p.log.Datasync()
	}
	return p.error("sync blob", err)
}

// keep writes a checkpoint over the older of the two.
func (p *Partial) keep(state []byte, upto int64) error {
	last := p.j.newest()
	c := checkpoint{seq: p.j.slots[last].seq + 1, upto: upto, state: bytes.Clone(state)}
	p.j.slots[1-last] = c
	_, err := p.log.WriteAt(c.slot(), slotOffset+int64(1-last)*slotLen)
	return err
}

// lost takes back everything that was not durable when the device failed to sync: the kernel reports
// such a failure once, and the pages may be gone from memory at the next read.
func (p *Partial) lost(cause error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = p.error("sync blob", cause)
	var entries []int
	for i := range p.dirty {
		p.j.entries[i] = 0
		entries = append(entries, i)
	}
	clear(p.dirty)
	slots := p.dropCheckpoints(p.j.reach(0))
	p.forgets++
	p.fresh = 0
	return errors.Join(p.failed, p.takeBack(entries, slots))
}

// dropCheckpoints empties the slots that cover bytes above from, and returns their indexes.
func (p *Partial) dropCheckpoints(from int64) (slots []int) {
	for i, c := range p.j.slots {
		if c.seq != 0 && c.upto > from {
			p.j.slots[i] = checkpoint{}
			slots = append(slots, i)
		}
	}
	return slots
}

// Checkpoint is the newest state given to Sync that still holds, and how many bytes it covers;
// (nil, 0) if there is none.
func (p *Partial) Checkpoint() (state []byte, upto int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.j.slots[p.j.newest()]
	return bytes.Clone(c.state), c.upto
}

// Forget says that the bytes of all blocks that seg touches are wrong: they are missing again, and
// so is every checkpoint that covers some of their bytes. It is durable when it returns, before new bytes may come.
func (p *Partial) Forget(seg model.Segment) error {
	if seg.Start < 0 || seg.End > p.j.size || seg.Len() <= 0 {
		return p.misuse("forget", fmt.Errorf("%v is not a part of a file of %d bytes", seg, p.j.size))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != nil {
		return p.failed
	}
	p.forgets++
	var entries []int
	first := seg.Start / BlockSize
	for i := int(first); int64(i)*BlockSize < seg.End; i++ {
		if p.j.entries[i] != 0 {
			p.j.entries[i] = 0
			delete(p.dirty, i)
			entries = append(entries, i)
		}
	}
	return p.error("forget", p.takeBack(entries, p.dropCheckpoints(first*BlockSize)))
}

// Stage declares the blob complete and its whole hash to be d, for Publish to make it visible. It
// refuses while something is missing, or if d is not the digest that was asked for. Afterwards the
// Staged owns the files, and closing the Partial does nothing.
func (p *Partial) Stage(d model.Digest) (*Staged, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != nil {
		return nil, p.failed
	}
	if p.closed {
		return nil, p.misuse("stage", fs.ErrClosed)
	}
	if at := p.j.reach(0); at < p.j.size {
		return nil, p.misuse("stage", fmt.Errorf("byte %d of %d is still missing", at, p.j.size))
	}
	if d.IsZero() || !p.file.Digest.IsZero() && d != p.file.Digest {
		return nil, &model.Error{
			Op: "stage", Class: model.Integrity, Model: p.id, File: p.file.Path,
			Err: fmt.Errorf("content is %v, want %v", d, p.file.Digest),
		}
	}
	crcs := make([]uint32, len(p.j.entries))
	for i, e := range p.j.entries {
		crcs[i] = e.crc()
	}
	if p.direct != nil {
		if err := p.direct.Close(); err != nil {
			return nil, p.error("stage", err)
		}
		p.direct = nil
	}
	p.closed = true
	return &Staged{
		id: p.id, digest: d, etag: p.j.etag, size: p.j.size, name: p.name, crcs: crcs,
		data: p.data, log: p.log, lock: p.lock, journal: p.jour,
	}, nil
}

// BlockCRC is the CRC-32C of a block as it was written, and whether all of the block is written.
func (p *Partial) BlockCRC(block int64) (crc uint32, written bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if block < 0 || block >= int64(len(p.j.entries)) {
		return 0, false
	}
	e := p.j.entries[block]
	return e.crc(), e.len() == blockLen(int(block), p.j.size)
}

// Close keeps everything for a later run and releases the blob's lock. Closing twice is harmless.
func (p *Partial) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return errors.Join(p.releaseFiles(), p.lock.Close())
}

// Discard removes everything and releases the blob's lock; after Close or Stage it does nothing.
func (p *Partial) Discard() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	err := errors.Join(p.releaseFiles(), p.w.remove(p.jour), p.w.remove(p.name))
	return p.error("discard blob", errors.Join(err, p.lock.Close()))
}

// releaseFiles closes data and journal if they are open.
func (p *Partial) releaseFiles() error {
	var err error
	for _, f := range []*File{&p.data, &p.direct, &p.log} {
		if *f != nil {
			err = errors.Join(err, (*f).Close())
			*f = nil
		}
	}
	return err
}

// path names the data file relative to the store, for messages.
func (p *Partial) path() string {
	if rel, err := filepath.Rel(p.w.path, p.name); err == nil {
		return rel
	}
	return p.name
}

func (p *Partial) error(op string, err error) error { return diskError(op, p.id, p.file.Path, err) }

// misuse is an error of the caller, not of the disk.
func (p *Partial) misuse(op string, err error) error {
	return &model.Error{Op: op + " " + p.path(), Class: model.Other, Model: p.id, File: p.file.Path, Err: err}
}

// ignoreMissing turns "does not exist" into nil.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
