package fetch

import (
	"context"
	"errors"
	"hash/crc32"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"ema/internal/model"
	"ema/internal/source"
)

// errFound ends an audit's round when a block turned out to be different.
var errFound = errors.New("a different block was found")

// audit looks for the bytes that are wrong in a file whose hash did not match. Hubs promise one hash
// for a whole file, so nothing but a second look can tell which block it is: the file is asked for
// again from the start, each block is compared by its CRC-32C, and as soon as a different one was
// replaced the whole hash decides anew. A bad block thus costs the file up to it, instead of all of
// it and all that is on the disk.
func (r *run) audit(ctx context.Context, b *blob, got model.Digest) (model.Digest, error) {
	r.job.Progress.note(b.file.Path + ": the hash does not match; looking for the bad block")
	r.retried(mismatch(r.job.Manifest.ID, b.file, got), 0)
	blocks := (b.file.Size + BlockSize - 1) / BlockSize
	var next atomic.Int64
	for next.Load() < blocks {
		changed, err := r.auditRound(ctx, b, blocks, &next)
		if err != nil {
			return model.Digest{}, err
		}
		if !changed {
			break
		}
		if got, err = r.rehash(ctx, b); err != nil || got == b.file.Digest {
			return got, err
		}
	}
	// Every block came twice and was the same, or nothing helped: the source itself has other bytes
	// than it promises. None of them may stay, or the next run would trust them.
	if err := b.sink.Forget(model.Segment{End: b.file.Size}); err != nil {
		return model.Digest{}, err
	}
	return model.Digest{}, mismatch(r.job.Manifest.ID, b.file, got)
}

// auditRound compares blocks from next on until one differs; it reports whether one was replaced.
func (r *run) auditRound(ctx context.Context, b *blob, blocks int64, next *atomic.Int64) (bool, error) {
	g, gctx := errgroup.WithContext(ctx)
	var replacing sync.Mutex
	for range min(int64(r.plan.load(0).most), blocks-next.Load()) {
		g.Go(func() error {
			buf, err := r.buffers.get(gctx)
			if err != nil {
				return err
			}
			defer r.buffers.put(buf)
			for {
				i := next.Add(1) - 1
				if i >= blocks {
					return nil
				}
				seg := model.Segment{Start: i * BlockSize, End: min((i+1)*BlockSize, b.file.Size)}
				fresh := buf[:seg.Len()]
				err = again(gctx, r.retry, r.retried, func(ctx context.Context) error {
					return r.receive(ctx, b.file, nil, seg, fresh)
				})
				if err != nil {
					return err
				}
				crc := crc32.Checksum(fresh, castagnoli())
				if was, ok := b.sink.BlockCRC(i); ok && was == crc {
					continue
				}
				replacing.Lock()
				defer replacing.Unlock()
				if err := b.sink.Forget(seg); err != nil {
					return err
				}
				if err := b.sink.WriteAt(fresh, seg.Start, crc); err != nil {
					return err
				}
				return errFound
			}
		})
	}
	err := g.Wait()
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// receive fetches exactly seg into p.
func (r *run) receive(ctx context.Context, f model.File, lane *source.Lane, seg model.Segment, p []byte) error {
	c := &claim{lane: lane}
	body, err := r.source.Open(ctx, r.job.Manifest, f, seg)
	if err != nil {
		return err
	}
	defer body.Close()
	r.plan.observe(body.FirstByte, 0)
	for skip := seg.Start - body.Segment.Start; skip > 0; { // the server ignored the range
		n, _, err := r.read(ctx, body, c, p[:min(skip, int64(len(p)))], 0)
		if skip -= int64(n); err != nil {
			return err
		}
	}
	if n, _, err := r.read(ctx, body, c, p, 0); n < len(p) {
		return truncated(r.job.Manifest.ID, f, err)
	}
	return nil
}

// rehash computes the hash of the whole file anew.
func (r *run) rehash(ctx context.Context, b *blob) (model.Digest, error) {
	buf, err := r.buffers.get(ctx)
	if err != nil {
		return model.Digest{}, err
	}
	defer r.buffers.put(buf)
	h := b.file.Digest.NewHash(b.file.Size)
	for off := int64(0); off < b.file.Size; {
		if ctx.Err() != nil {
			return model.Digest{}, context.Cause(ctx)
		}
		p := buf[:min(scratchSize, b.file.Size-off)]
		if _, err := b.sink.ReadAt(p, off); err != nil {
			return model.Digest{}, err
		}
		h.Write(p)
		off += int64(len(p))
	}
	return b.file.Digest.Sum(h), nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // cached by the package
