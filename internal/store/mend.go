package store

import (
	"context"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"ema/internal/model"
)

// Mend opens a Partial for the repair of a published blob: a private copy, sharing storage where the
// file system can, in which everything counts as written but the blocks that bad touches. Blocks
// that turn out to differ from their checksums while they are copied are missing as well. The blob
// stays as it is, for whoever reads it, until the mended one is published over it.
//
// It needs the blob's block checksums (Blocks), and waits for its lock as Partial does.
func (w *Writer) Mend(ctx context.Context, id model.ID, f model.File, bad []model.Segment) (*Partial, error) {
	fail := func(err error) (*Partial, error) { return nil, diskError("mend", id, f.Path, err) }
	who, crcs, err := w.sidecar(id, f.Digest)
	if err != nil {
		return fail(err)
	}
	if who.size != f.Size || f.Size <= BlockSize {
		return fail(&model.Error{
			Op: "mend", Class: model.Usage, Model: id, File: f.Path,
			Err: fmt.Errorf("a file of %d bytes with checksums of %d bytes is to be fetched as a whole", f.Size, who.size),
		})
	}
	name, err := filepath.EvalSymlinks(w.blobPath(id, f.Digest.Hex())) // it may lie in a colder tier
	if err != nil {
		return fail(err)
	}
	blob, err := w.disk.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return fail(err)
	}
	defer blob.Close() // opened for reading: nothing can be lost
	p, err := w.lockedPartial(ctx, id, f, "")
	if err != nil {
		return fail(err)
	}
	if err = p.begin(); err == nil {
		p.openDirect()
		err = p.copyGood(ctx, blob, crcs, bad)
	}
	if err != nil {
		return fail(errors.Join(err, p.Discard()))
	}
	return p, nil
}

// copyGood fills p with what is good of a blob.
func (p *Partial) copyGood(ctx context.Context, blob File, crcs []uint32, bad []model.Segment) error {
	cloned := p.data.Clone(blob)
	if cloned != nil && !errors.Is(cloned, errors.ErrUnsupported) {
		return cloned
	}
	if cloned == nil {
		info, err := p.data.Stat()
		if err == nil && info.Size() != p.j.size {
			err = p.resize(info.Size())
		}
		if err != nil {
			return err
		}
	}
	wrong := make([]bool, len(crcs))
	for _, seg := range bad {
		for i := max(0, seg.Start/BlockSize); i*BlockSize < min(seg.End, p.j.size); i++ {
			wrong[i] = true
		}
	}
	// What is written goes to the disk while the next block is read and hashed. The hash ends where the first bad block begins:
	// whoever fetches that goes on from there.
	type block struct {
		b   []byte
		off int64
	}
	free, full := make(chan []byte, 2), make(chan block, 2)
	for range cap(free) {
		free <- alignedBlock()
	}
	writing, ctx := errgroup.WithContext(ctx)
	writing.Go(func() error {
		for f := range full {
			if err := p.store(f.b, f.off, true); err != nil {
				return err
			}
			free <- f.b[:BlockSize]
		}
		return nil
	})
	h, hashed := p.file.Digest.NewHash(p.j.size), int64(0)
	for i, crc := range crcs {
		if wrong[i] {
			continue
		}
		var b []byte
		select {
		case b = <-free:
		case <-ctx.Done():
		}
		if ctx.Err() != nil { // stopped, or the disk takes no more
			break
		}
		b = b[:blockLen(i, p.j.size)]
		off := int64(i) * BlockSize
		// A block that cannot be read, or is not what it was, is one more that is missing.
		if n, err := blob.ReadAt(b, off); n < len(b) && err != nil || crc32.Checksum(b, castagnoli) != crc {
			free <- b[:BlockSize]
			continue
		}
		p.j.entries[i] = newEntry(crc, int64(len(b)))
		p.dirty[i] = struct{}{}
		p.fresh += int64(len(b))
		if hashed == off {
			h.Write(b)
			hashed += int64(len(b))
		}
		if cloned == nil {
			free <- b[:BlockSize]
		} else {
			full <- block{b, off}
		}
	}
	close(full)
	stopped := ctx.Err() // Wait ends it in any case
	if err := writing.Wait(); err != nil {
		return err
	}
	if stopped != nil {
		return stopped
	}
	all := make([]byte, 0, entryLen*len(crcs))
	for _, e := range p.j.entries {
		all = binary.LittleEndian.AppendUint64(all, uint64(e))
	}
	if err := p.w.write(p.log, all, entryOffset); err != nil {
		return err
	}
	state, err := hashState(h)
	if err != nil {
		return err
	}
	return p.Sync(state, hashed)
}

// hashState is what a hash has to remember to go on later.
func hashState(h hash.Hash) ([]byte, error) {
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return nil, nil // it begins anew
	}
	return m.MarshalBinary()
}
