package fetch

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"ema/internal/model"
	"ema/internal/source"
)

// Why we end a connection ourselves.
var (
	errCrawls  = errors.New("the connection was far slower than its siblings")
	errSilent  = errors.New("no byte came for too long")
	errTooMany = errors.New("there are too many connections")
)

// connection works on one task after the other until there is none. Its failures are its own: it
// waits them out while others take over what it left.
func (r *run) connection(ctx context.Context, worker int) error {
	var failing attempts
	lane := r.job.Progress.Watch.Lane()
	defer lane.End()
	ctx = source.WithLane(ctx, lane)
	for {
		lane.Enter(source.InIdle)
		t, more, err := r.plan.next(ctx, worker)
		if err != nil || !more {
			return err
		}
		r.job.Progress.Connections.Add(1)
		lane.Enter(source.InMemory)
		err = r.do(ctx, t, lane, &failing)
		r.job.Progress.Connections.Add(-1)
		if err == nil || errors.Is(err, errTooMany) {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		wait, final := r.judge(t, err, &failing)
		if final != nil {
			return final
		}
		r.retried(err, wait)
		r.job.Progress.note(fmt.Sprintf("%v; retrying", err))
		lane.Enter(source.InRetry)
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// do works on one task.
func (r *run) do(ctx context.Context, t task, lane *source.Lane, failing *attempts) error {
	buf, err := r.buffers.get(ctx)
	if t.claim == nil {
		if err == nil {
			err = r.smallFile(ctx, t.small, lane, buf, failing)
			r.buffers.put(buf)
		}
		r.plan.smallDone(t.small, err == nil)
		return err
	}
	defer r.plan.release(t.claim)
	t.claim.lane = lane
	if err == nil {
		buf, err = r.segment(ctx, t.claim, buf, failing)
		r.buffers.put(buf)
	}
	return err
}

// judge says how long to wait after a failed attempt, or that the job cannot go on.
func (r *run) judge(t task, err error, failing *attempts) (time.Duration, error) {
	class := model.ClassOf(err)
	if class == model.RateLimited || class == model.ServerError {
		r.plan.retreat()
	}
	var key any = t.small.Path
	progress := uint64(0)
	if t.claim != nil {
		key, progress = t.claim.blob, r.plan.progressOf(t.claim.blob)
	}
	return failing.next(r.retry(err), key, progress, err)
}

// retried tells of an attempt that failed and will be repeated.
func (r *run) retried(err error, wait time.Duration) {
	class := model.ClassOf(err)
	r.job.Progress.retried(class)
	if r.job.Retried != nil {
		r.job.Retried(hostOf(err), class, err, wait)
	}
}

// segment fetches a claim. What arrived before an error is written and counts. It returns the buffer that
// it has in the end, if any.
func (r *run) segment(ctx context.Context, c *claim, buf []byte, failing *attempts) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.plan.begin(c, cancel)

	want := r.plan.span(c)
	body, err := r.source.Open(ctx, r.job.Manifest, c.blob.file, want)
	if err != nil {
		return buf, because(ctx, err)
	}
	defer body.Close()
	r.plan.opened(c)
	if err := r.align(ctx, c, body, buf, want); err != nil {
		return buf, because(ctx, err)
	}
	r.plan.observe(body.FirstByte, 0)
	skipped, begun := c.received.Load(), time.Now()
	for {
		if r.durable(ctx, c) != nil {
			return buf, because(ctx, nil)
		}
		off, room := r.plan.room(c, int64(len(buf)))
		if room == 0 {
			break
		}
		n, crc, err := r.read(ctx, body, c, buf[:room], patience)
		if n > 0 {
			c.away.begin(r.since())
			given, werr := r.write(ctx, c, off, buf[:n], crc)
			if werr != nil {
				return buf, werr
			}
			failing.progressed(int64(n))
			if given {
				c.lane.Enter(source.InMemory)
				if buf, werr = r.buffers.get(ctx); werr != nil {
					return nil, because(ctx, werr)
				}
			}
			c.away.end(r.since())
			c.lane.Enter(source.InBody)
		}
		if err != nil {
			return buf, because(ctx, err)
		}
	}
	if took := time.Since(begun); took > 10*time.Millisecond {
		r.plan.observe(0, float64(c.received.Load()-skipped)/took.Seconds())
	}
	return buf, nil
}

// durable waits while too much of c's file is not durable.
func (r *run) durable(ctx context.Context, c *claim) error {
	limit := int64(r.settings().SyncBytes)
	if c.blob.sink.Unsynced() < limit/4*3 {
		return nil
	}
	defer c.lane.Enter(c.lane.Enter(source.InSync))
	c.away.begin(r.since())
	defer func() { c.away.end(r.since()) }()
	return r.plan.overdue(ctx, c.blob, limit)
}

// since is the time that the job has run.
func (r *run) since() time.Duration { return time.Since(r.begun) }

// align brings the answer's first byte to the claim's first byte. A server that ignores ranges sends
// the whole file: the first time that counts as a failed attempt, since one sick edge of a content
// network may do so; when ranges have never worked, the file is fetched by one connection, which
// skips what is here already.
func (r *run) align(ctx context.Context, c *claim, body *source.Body, buf []byte, want model.Segment) error {
	if body.Segment == want {
		r.plan.honoured(c.blob, want.Len() < c.blob.file.Size)
		return nil
	}
	if body.Segment.Start < want.Start && !r.plan.refusedRange(c) {
		return &model.Error{
			Op: "fetch", Class: model.RangeRefused, Model: r.job.Manifest.ID, File: c.blob.file.Path,
			Err: errors.New("the server sent the whole file although a range was asked for"),
		}
	}
	for skip := want.Start - body.Segment.Start; skip > 0; {
		n, _, err := r.read(ctx, body, c, buf[:min(skip, int64(len(buf)))], 0)
		skip -= int64(n)
		if err != nil && skip > 0 {
			return err
		}
	}
	return nil
}

// write puts a piece on file, tells everybody who waits for it, and reports whether the hash has kept
// the buffer. What the hash gets from memory nobody reads again soon: it is written past the page cache.
func (r *run) write(ctx context.Context, c *claim, off int64, p []byte, crc uint32) (given bool, err error) {
	c.lane.Enter(source.InHash)
	reserved := c.blob.order.reserve(ctx, off, int64(len(p)), r.plan.nearby())
	c.lane.Enter(source.InWrite)
	if reserved {
		err = c.blob.sink.WritePast(p, off, crc)
	} else {
		err = c.blob.sink.WriteAt(p, off, crc)
	}
	if err != nil {
		c.blob.order.unwritten(reserved)
		return false, err
	}
	r.plan.wrote(c, int64(len(p)))
	r.job.Progress.Written.Add(int64(len(p)))
	c.blob.written.Add(int64(len(p)))
	return c.blob.order.wrote(off, p, reserved), nil
}

// patience is how long a connection collects bytes before it writes them. A fast one fills its buffer
// in less; a slow one writes small pieces, so that little is lost when the process is killed.
const patience = 20 * time.Millisecond

// read fills p from the body, and takes its CRC-32C meanwhile; it returns with less when limit has
// passed since the first byte, or at an error. A limit of 0 is none. It keeps the time of the last byte.
// What the job's own limit makes it wait is not the connection's fault, and is counted apart.
func (r *run) read(ctx context.Context, body io.Reader, c *claim, p []byte, limit time.Duration) (n int, crc uint32, err error) {
	var first time.Time
	for n < len(p) {
		m, err := body.Read(p[n : n+r.piece(len(p)-n)])
		if m > 0 {
			crc = crc32.Update(crc, castagnoli(), p[n:n+m])
			n += m
			c.received.Add(int64(m))
			now := time.Now()
			r.job.Progress.LastByte.Store(now.UnixNano())
			r.job.Progress.Received.Add(int64(m))
			if r.job.Limit != nil {
				late, lerr := r.take(ctx, c, m, now)
				if lerr != nil {
					return n, crc, lerr
				}
				now = late
			}
			if first.IsZero() {
				first = now
			} else if limit > 0 && now.Sub(first) > limit && err == nil {
				return n, crc, nil
			}
		}
		if err != nil {
			if err == io.EOF && n == len(p) {
				err = nil
			}
			return n, crc, err
		}
	}
	return n, crc, nil
}

// piece is how many of most bytes to receive at once.
func (r *run) piece(most int) int {
	if r.job.Limit == nil {
		return most
	}
	return min(max(r.job.Limit.Piece(most), 1), most)
}

// take passes n bytes, which came at now, through the job's limit, and returns the time then.
func (r *run) take(ctx context.Context, c *claim, n int, now time.Time) (time.Time, error) {
	defer c.lane.Enter(c.lane.Enter(source.InLimiter))
	c.held.begin(now.Sub(r.begun))
	err := r.job.Limit.Take(ctx, n)
	after := time.Now()
	r.held.Add(int64(after.Sub(now)))
	c.held.end(after.Sub(r.begun))
	return after, err
}

// smallFile fetches a file of at most BlockSize by one request and proves it before handing it over.
func (r *run) smallFile(ctx context.Context, f model.File, lane *source.Lane, buf []byte, failing *attempts) error {
	content := buf[:f.Size]
	if f.Size > 0 {
		if err := r.receive(ctx, f, lane, model.Segment{End: f.Size}, content); err != nil {
			return err
		}
	}
	lane.Enter(source.InHash)
	h := f.Digest.NewHash(f.Size)
	h.Write(content)
	digest := f.Digest.Sum(h)
	if !f.Digest.IsZero() && digest != f.Digest {
		return mismatch(r.job.Manifest.ID, f, digest)
	}
	failing.progressed(f.Size)
	lane.Enter(source.InWrite)
	if err := r.job.Small(ctx, f, content, digest); err != nil {
		return err
	}
	r.job.Progress.Written.Add(f.Size)
	r.job.Progress.Hashed.Add(f.Size)
	r.job.Progress.FilesDone.Add(1)
	r.job.Progress.Here(f)
	return nil
}

// truncated is the error for a body that ended before its promised length.
func truncated(id model.ID, f model.File, err error) error {
	if err == nil || err == io.EOF {
		err = &model.Error{Op: "fetch", Class: model.Truncated, Model: id, File: f.Path, Err: io.ErrUnexpectedEOF}
	}
	return err
}

// mismatch is the error for bytes that are all there and not the promised ones.
func mismatch(id model.ID, f model.File, got model.Digest) error {
	return &model.Error{
		Op: "fetch", Class: model.Integrity, Model: id, File: f.Path,
		Err:  fmt.Errorf("the bytes that came hash to %s, promised was %s", got, f.Digest),
		Hint: "try again, or another endpoint: a proxy or mirror on the way changes bytes",
	}
}

// because names our own reason for ending a connection, where there is one.
func because(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, errCrawls) || errors.Is(cause, errSilent) {
		return &model.Error{Op: "fetch", Class: model.Timeout, Err: cause}
	}
	if cause != nil {
		return cause
	}
	return err
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
