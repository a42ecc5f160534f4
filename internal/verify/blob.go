package verify

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"ema/internal/model"
)

// BlockSize is the span of a blob that one checksum covers, and so the least that a repair fetches
// again; the last block of a blob may be shorter.
const BlockSize = int64(model.MiB)

// readSize is how much Blob reads at a time: small enough to stay in the processor's cache between
// the hash and the checksum, large enough that system calls do not matter.
const readSize = 256 << 10

// Options changes how Blob goes about its work. The zero Options changes nothing.
type Options struct {
	// Progress is called after every read with the number of bytes checked since the last call.
	Progress func(n int64)
	// Ahead reads in a goroutine of its own while what was read before is hashed, which makes use of a second processor and of the
	// time that a disk takes. r is then read there, and not after Blob has returned.
	Ahead bool
	// Locate compares the checksums alone first, which takes a fraction of the time that the hash takes, and leaves a blob that is
	// damaged by these unhashed: its Digest stays zero. It is for who wants damage mended, not proven. A blob of more than 8 GiB is
	// read once all the same.
	Locate bool
}

// locatable is the size up to which a blob may be read twice: it likely stays in memory in between.
const locatable = int64(8 * model.GiB)

// A Result is what a blob came to.
type Result struct {
	// Digest of the first size bytes, or of all if there are fewer.
	Digest model.Digest
	// OK means that the blob has exactly the promised bytes: its hash is the wanted one, and it ends
	// where it should. It is false when no digest was wanted, since nothing is proven then.
	OK bool
	// Blocks are the checksums as they are now, one for every BlockSize that was read; never nil
	// without an error.
	Blocks []uint32
	// Damaged are the segments to fetch again, in order and merged: blocks whose checksum is not the
	// given one, and what is missing at the end. It is nil when OK, and when there was nothing to
	// compare with. An empty Damaged of a blob that is not OK means that the damage is older than
	// the checksums: only the whole blob can be fetched again.
	Damaged []model.Segment
	// Read is the number of bytes that were read; less than size if the file is cut short.
	Read int64
	// Longer means that the file goes on after its size; the rest can be cut off.
	Longer bool
}

// Blob reads the size bytes of r once, in order, and compares them with the digest want and with
// the checksums blocks, one CRC-32C per BlockSize. Blocks may be nil; if their number does not fit
// size, they are those of another blob and are left out of account. A zero want is computed as sha256.
//
// A blob that is damaged, too short or too long is a Result, not an error. Errors are ctx.Err(),
// within one read of 256 KiB, and *model.Error of class DiskError when the bytes cannot be read.
// Safe for concurrent use.
func Blob(ctx context.Context, r io.ReaderAt, size int64, want model.Digest, blocks []uint32, opts Options) (Result, error) {
	if size < 0 {
		return Result{}, &model.Error{Op: "verify", Class: model.Usage, Err: fmt.Errorf("a blob of %d bytes", size)}
	}
	if opts.Locate && size > 0 && size <= locatable && int64(len(blocks)) == blocksOf(size) {
		if res, err := locate(ctx, r, size, blocks); err != nil || len(res.Damaged) > 0 {
			if opts.Progress != nil {
				opts.Progress(res.Read)
			}
			return res, err
		}
	}
	res := Result{}
	h := want.NewHash(size)
	from := &summing{r: r, size: size, blocks: []uint32{}}
	next := from.inTurn()
	if opts.Ahead && size > readSize {
		var stop func()
		next, stop = from.ahead(ctx)
		defer stop()
	}
	for res.Read < size {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		p, err := next()
		if err != nil {
			return res, err
		}
		if len(p) == 0 {
			break // the file is cut short
		}
		h.Write(p)
		res.Read += int64(len(p))
		if opts.Progress != nil {
			opts.Progress(int64(len(p)))
		}
	}
	res.Blocks = from.blocks
	longer, err := goesOn(r, size)
	if err != nil {
		return res, err
	}
	res.Longer = longer && res.Read == size
	res.Digest = want.Sum(h)
	res.OK = res.Digest == want && res.Read == size && !res.Longer
	if !res.OK && int64(len(blocks)) == blocksOf(size) && size > 0 {
		res.Damaged = damaged(res, size, blocks)
	}
	return res, nil
}

// locate finds the blocks whose checksums are not the given ones.
func locate(ctx context.Context, r io.ReaderAt, size int64, blocks []uint32) (Result, error) {
	from := &summing{r: r, size: size, blocks: []uint32{}}
	next := from.inTurn()
	for from.at < size {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		p, err := next()
		if err != nil {
			return Result{}, err
		}
		if len(p) == 0 {
			break
		}
	}
	res := Result{Read: from.at, Blocks: from.blocks}
	res.Damaged = damaged(res, size, blocks)
	return res, nil
}

// A summing reads the bytes of a blob in order and makes the checksums of its blocks.
type summing struct {
	r        io.ReaderAt
	size, at int64
	sum      uint32 // of the block that has begun
	blocks   []uint32
}

// into reads what comes next into buf, and returns that part of it; nothing when there is no more.
func (s *summing) into(buf []byte) ([]byte, error) {
	castagnoli := crc32.MakeTable(crc32.Castagnoli) // made once by the package; processors have an instruction for it
	n, err := s.r.ReadAt(buf[:min(s.size-s.at, int64(len(buf)))], s.at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, &model.Error{
			Op: "verify", Class: model.DiskError, Hint: "check the disk",
			Err: fmt.Errorf("reading at byte %d: %w", s.at, err),
		}
	}
	for p := buf[:n]; len(p) > 0; {
		part := p[:min(int64(len(p)), BlockSize-s.at%BlockSize)]
		s.sum = crc32.Update(s.sum, castagnoli, part)
		p = p[len(part):]
		if s.at += int64(len(part)); s.at%BlockSize == 0 || s.at == s.size {
			s.blocks, s.sum = append(s.blocks, s.sum), 0
		}
	}
	if n == 0 && s.at%BlockSize != 0 {
		s.blocks, s.sum = append(s.blocks, s.sum), 0 // what there is of the last one
	}
	return buf[:n], nil
}

// inTurn returns what reads the next part, which is good until the next call.
func (s *summing) inTurn() func() ([]byte, error) {
	buf := make([]byte, min(s.size, readSize))
	return func() ([]byte, error) { return s.into(buf) }
}

// ahead is inTurn, and reads the parts that follow meanwhile. stop ends that, and waits for it.
func (s *summing) ahead(ctx context.Context) (next func() ([]byte, error), stop func()) {
	const parts = 4
	type part struct {
		bytes []byte
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	full, free := make(chan part, parts), make(chan []byte, parts)
	for range parts {
		free <- make([]byte, readSize)
	}
	go func() {
		defer close(full) // whoever has received that may look at s
		for s.at < s.size {
			var buf []byte
			select {
			case buf = <-free:
			case <-ctx.Done():
				return
			}
			p, err := s.into(buf)
			full <- part{p, err} // never waits: there are no more buffers than places
			if err != nil || len(p) == 0 {
				return
			}
		}
	}()
	var last []byte
	next = func() ([]byte, error) {
		if last != nil {
			free <- last[:readSize]
		}
		p := <-full
		if p.bytes == nil && p.err == nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		last = p.bytes
		return p.bytes, p.err
	}
	return next, func() {
		cancel()
		for range full {
		}
	}
}

// goesOn reports whether there is a byte behind the first size ones.
func goesOn(r io.ReaderAt, size int64) (bool, error) {
	var one [1]byte
	n, err := r.ReadAt(one[:], size)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, &model.Error{
			Op: "verify", Class: model.DiskError, Hint: "check the disk",
			Err: fmt.Errorf("reading at byte %d: %w", size, err),
		}
	}
	return n == 1, nil
}

// blocksOf is how many blocks a blob of size bytes has.
func blocksOf(size int64) int64 {
	n := size / BlockSize
	if size%BlockSize != 0 {
		n++
	}
	return n
}

// damaged compares what was read with the checksums kept. It is never nil.
func damaged(res Result, size int64, blocks []uint32) []model.Segment {
	segs := []model.Segment{}
	for i, kept := range blocks {
		seg := model.Segment{Start: int64(i) * BlockSize, End: min(int64(i+1)*BlockSize, size)}
		if seg.End <= res.Read && kept == res.Blocks[i] {
			continue
		}
		if last := len(segs) - 1; last >= 0 && segs[last].End == seg.Start {
			segs[last].End = seg.End
			continue
		}
		segs = append(segs, seg)
	}
	return segs
}
