package fetch

import (
	"context"
	"errors"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ema/internal/model"
	"ema/internal/source"
)

// An origin is a source in memory, of files full of zeros. In a synctest bubble, minutes with it take
// no time.
type origin struct {
	answer  time.Duration                   // before each answer
	perConn func(running int) float64       // bytes per second that each of so many connections gets; nil: no limit
	before  func(ctx context.Context) error // called by each Open; nil: nothing
	asked   func(n int)                     // told how much each read asks for; nil: nobody
	bend    byte                            // what each piece of the first answer begins with

	mu      sync.Mutex
	opened  int
	running int
	most    int // running at once
	broken  int // bodies closed before their end
}

func (o *origin) Open(ctx context.Context, _ *model.Manifest, _ model.File, seg model.Segment) (*source.Body, error) {
	if o.before != nil {
		if err := o.before(ctx); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, o.answer); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened++
	o.running++
	o.most = max(o.most, o.running)
	b := &body{origin: o, ctx: ctx, left: seg.Len()}
	if o.opened == 1 {
		b.fill = o.bend
	}
	return &source.Body{ReadCloser: b, Segment: seg, FirstByte: max(o.answer, time.Microsecond)}, nil
}

func (o *origin) now() (running, most int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.running, o.most
}

type body struct {
	*origin
	ctx  context.Context
	left int64
	fill byte
}

func (b *body) Read(p []byte) (int, error) {
	if b.asked != nil {
		b.asked(len(p))
	}
	n := int(min(int64(len(p)), b.left))
	if b.perConn != nil {
		running, _ := b.now()
		rate := b.perConn(running)
		n = min(n, max(2<<10, int(rate/200))) // what comes in 5 ms
		if err := pause(b.ctx, time.Duration(float64(n)/rate*float64(time.Second))); err != nil {
			return 0, err
		}
	}
	if err := b.ctx.Err(); err != nil {
		return 0, context.Cause(b.ctx)
	}
	clear(p[:n])
	if b.fill != 0 {
		p[0] = b.fill
	}
	if b.left -= int64(n); b.left == 0 {
		return n, io.EOF
	}
	return n, nil
}

func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running--
	if b.left > 0 {
		b.broken++
	}
	return nil
}

// memory is a sink that keeps checksums only; its bytes are zeros.
type memory struct {
	size int64

	mu       sync.Mutex
	unsynced int64
	crcs     map[int64]uint32
}

func newMemory(size int64) *memory { return &memory{size: size, crcs: map[int64]uint32{}} }

func (m *memory) Missing() []model.Segment { return []model.Segment{{End: m.size}} }

func (m *memory) WriteAt(p []byte, off int64, _ uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unsynced += int64(len(p))
	m.crcs[off/BlockSize] = crc32.Update(m.crcs[off/BlockSize], castagnoli(), p)
	return nil
}

func (m *memory) WritePast(p []byte, off int64, crc uint32) error { return m.WriteAt(p, off, crc) }

func (m *memory) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

func (m *memory) Checkpoint() (state []byte, upto int64) { return nil, 0 }

func (m *memory) Sync([]byte, int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unsynced = 0
	return nil
}

func (m *memory) Unsynced() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unsynced
}

func (m *memory) Forget(seg model.Segment) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for at := seg.Start; at < seg.End; at += BlockSize {
		delete(m.crcs, at/BlockSize)
	}
	return nil
}

func (m *memory) BlockCRC(block int64) (crc uint32, written bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	crc, written = m.crcs[block]
	return crc, written
}

func (m *memory) Close() error { return nil }

// jobOf is a job of files of these sizes.
func jobOf(sizes ...model.Bytes) Job {
	job := Job{
		Manifest: &model.Manifest{}, Progress: &Progress{},
		Open:  func(_ context.Context, f model.File) (Sink, error) { return newMemory(f.Size), nil },
		Large: func(context.Context, model.File, Sink, model.Digest) error { return nil },
		Small: func(context.Context, model.File, []byte, model.Digest) error { return nil },
	}
	for i, size := range sizes {
		job.Files = append(job.Files, model.File{Path: string(rune('a' + i)), Size: int64(size)})
	}
	return job
}

// begin runs a job; the returned function waits for its end.
func begin(ctx context.Context, f *Fetcher, job Job) (end func() error) {
	done := make(chan error, 1)
	go func() { done <- f.Fetch(ctx, job) }()
	return func() error { return <-done }
}

// whole fails the test unless job has ended well and has written everything.
func whole(t *testing.T, job Job, err error) {
	t.Helper()
	var want int64
	for _, f := range job.Files {
		want += f.Size
	}
	if p := job.Progress; err != nil || p.Written.Load() != want || p.Hashed.Load() != want || p.FilesDone.Load() != int64(len(job.Files)) {
		t.Fatalf("%v; of %d bytes %d written, %d hashed; %d files done", err, want, p.Written.Load(), p.Hashed.Load(), p.FilesDone.Load())
	}
}

var errStopped = errors.New("stopped by the test")

// oneSlow gives 1 KiB per second to the connection that comes second.
type oneSlow struct {
	*origin
	n atomic.Int64
}

func (o *oneSlow) Open(ctx context.Context, m *model.Manifest, f model.File, seg model.Segment) (*source.Body, error) {
	b, err := o.origin.Open(ctx, m, f, seg)
	if err == nil && o.n.Add(1) == 2 {
		inner := b.ReadCloser.(*body)
		crawling := &origin{perConn: func(int) float64 { return 1 << 10 }}
		b.ReadCloser = &body{origin: crawling, ctx: inner.ctx, left: inner.left}
	}
	return b, err
}
