// Package fetch brings the bytes of a manifest's files here, over many connections with one budget,
// and proves each file's hash while its bytes arrive.
//
// It reads top to bottom in this order: fetch.go (a job, and who runs in it), plan.go (which bytes
// are whose), connection.go (one connection's work), order.go (the hash that follows behind),
// audit.go (a hash that did not match), climb.go (how many connections), stall.go (connections that
// are replaced), retry.go (what an error costs), buffers.go (memory).
package fetch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/internal/model"
	"ema/internal/source"
)

// BlockSize is the unit of checksums, of stealing and of resuming: 1 MiB. Files up to this size are
// small: fetched by one request into one buffer, and handed over whole.
const BlockSize = int64(model.MiB)

// Settings are the limits of a Fetcher. The zero value of each field means its default.
type Settings struct {
	Connections   int           // most connections at once, per host; default 8
	ReadTimeout   time.Duration // no byte for this long: the connection is replaced; default 10 s
	LargeFiles    int           // files above BlockSize filled at once; default 2
	Chunk         ChunkRule     // smallest request for large files
	Buffers       model.Bytes   // all buffers together; default 128 MiB, at least one per connection
	SyncInterval  time.Duration // longest time between durability points; default 2 s
	SyncBytes     model.Bytes   // most bytes of one file not yet durable; default 64 MiB
	Retry         Retry         // attempts and delays
	FixedParallel bool          // use Connections from the start and never adapt (measurements)
}

// opener is what the engine needs of a source. It makes one attempt; *source.Sources satisfies it.
type opener interface {
	Open(ctx context.Context, m *model.Manifest, f model.File, seg model.Segment) (*source.Body, error)
}

// A Sink is a large file being filled; *store.Partial satisfies it. Its methods are called
// concurrently, but never two writes for the same block.
type Sink interface {
	Missing() []model.Segment                        // what is not written yet, ascending
	WriteAt(p []byte, off int64, crc uint32) error   // continues a block's written prefix, inside one block; crc is p's CRC-32C
	WritePast(p []byte, off int64, crc uint32) error // the same, for bytes that nobody reads again soon
	ReadAt(p []byte, off int64) (int, error)         // fills p with bytes already written
	Checkpoint() (state []byte, upto int64)          // a trusted hash state over the first upto bytes
	Sync(state []byte, upto int64) error             // durability point
	Unsynced() int64                                 // bytes written since the last Sync
	Forget(seg model.Segment) error                  // these blocks are missing again
	BlockCRC(block int64) (crc uint32, written bool) // CRC-32C of a completely written block
	Close() error                                    // keeps what is written for a later run
}

// A Job is one manifest's files to be fetched, and what to do with each.
type Job struct {
	Manifest *model.Manifest
	Files    []model.File

	// Open prepares a large file. It may wait (for another process that fetches the same blob), and
	// returns nil when the file turned out to be here already. Called from up to LargeFiles goroutines.
	Open func(ctx context.Context, f model.File) (Sink, error)
	// Large takes over a file whose bytes are all written and whose hash matched (or was computed,
	// when the manifest gave none).
	Large func(ctx context.Context, f model.File, s Sink, d model.Digest) error
	// Small takes over the proven content of a small file; it is valid only during the call.
	Small func(ctx context.Context, f model.File, content []byte, d model.Digest) error

	// Progress is where the job counts; never nil.
	Progress *Progress
}

// Progress counts what a running job has done. All counters only grow.
type Progress struct {
	Written     atomic.Int64 // bytes that are in files and need no second fetch
	Received    atomic.Int64 // bytes that came over the network, also those fetched twice
	Hashed      atomic.Int64 // bytes of this job that the in-order hash has passed
	FilesDone   atomic.Int64 // files handed over
	Retries     atomic.Int64 // attempts that failed and were repeated
	Connections atomic.Int64 // connections busy now (the one value that also falls)
	LastByte    atomic.Int64 // when the newest byte came, in Unix nanoseconds
	Note        atomic.Value // string: the newest reason for waiting or changing course
}

func (p *Progress) note(s string) { p.Note.Store(s) }

// A Fetcher fetches jobs. It is safe for concurrent use; each job has its own connections.
type Fetcher struct {
	settings Settings
	source   opener
	buffers  *buffers
}

// New makes a Fetcher on a source. It starts nothing.
func New(s Settings, src opener) *Fetcher {
	s.Connections = def(s.Connections, 8)
	s.ReadTimeout = def(s.ReadTimeout, 10*time.Second)
	s.LargeFiles = def(s.LargeFiles, 2)
	s.Buffers = def(s.Buffers, 128*model.MiB)
	s.SyncInterval = def(s.SyncInterval, 2*time.Second)
	s.SyncBytes = def(s.SyncBytes, 64*model.MiB)
	s.Chunk = s.Chunk.withDefaults()
	s.Retry = s.Retry.withDefaults()
	return &Fetcher{settings: s, source: src, buffers: newBuffers(int64(s.Buffers), s.Connections)}
}

func def[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// A run is one job on its way.
type run struct {
	*Fetcher
	job  Job
	plan *plan
	// group holds all goroutines of the job.
	group *errgroup.Group
	// open has an element for each large file that is open.
	open chan struct{}
}

// Fetch runs job to its end: all files handed over, or the first error that no retry mends. What was
// written stays for a later resume. When ctx ends it returns ctx's error after everything that it
// started has stopped.
func (f *Fetcher) Fetch(ctx context.Context, job Job) error {
	var large []model.File
	p := newPlan(f.settings, job.Manifest.Answer)
	for _, file := range job.Files {
		if file.Size > BlockSize {
			large = append(large, file)
		} else {
			p.small = append(p.small, file)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	r := &run{Fetcher: f, job: job, plan: p, group: g, open: make(chan struct{}, f.settings.LargeFiles+unproven)}
	wake := context.AfterFunc(ctx, p.wake)
	defer wake()

	queue := make(chan model.File, len(large))
	for _, file := range large {
		queue <- file
	}
	close(queue)
	var feeders sync.WaitGroup
	for range min(f.settings.LargeFiles, len(large)) {
		feeders.Add(1)
		g.Go(func() error {
			defer feeders.Done()
			for file := range queue {
				if err := r.fill(ctx, file); err != nil {
					return err
				}
			}
			return nil
		})
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	g.Go(func() error {
		feeders.Wait()
		p.noMoreFiles()
		return nil
	})
	var workers sync.WaitGroup
	for i := range f.settings.Connections {
		workers.Add(1)
		g.Go(func() error {
			defer workers.Done()
			return r.connection(ctx, i)
		})
	}
	g.Go(func() error {
		workers.Wait()
		stopWatching()
		return nil
	})
	g.Go(func() error { r.watch(watching); return nil })
	if !f.settings.FixedParallel {
		g.Go(func() error { r.climb(watching); return nil })
	}
	return g.Wait()
}

// unproven is how many large files may be open besides those being filled: their hash follows behind, or
// whoever takes them over is busy. Each costs the process a few open files.
const unproven = 6

// fill opens one large file, lets the connections fill it and returns when its last byte is written.
func (r *run) fill(ctx context.Context, file model.File) error {
	select {
	case r.open <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	sink, err := r.job.Open(ctx, file)
	if err != nil {
		return err
	}
	if sink == nil {
		<-r.open
		r.job.Progress.Written.Add(file.Size)
		r.job.Progress.FilesDone.Add(1)
		return nil
	}
	b := newBlob(file, sink)
	if b.order, err = newOrder(b, r); err != nil {
		return errors.Join(err, sink.Close())
	}
	r.job.Progress.Written.Add(file.Size - b.left)
	r.group.Go(func() error { return r.finish(ctx, b) }) // the next file does not wait for this one's hash
	r.plan.add(b)
	select {
	case <-b.filled:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finish proves a large file while it is being filled, and hands it over; or it closes the file, so
// that what is there serves a later run.
func (r *run) finish(ctx context.Context, b *blob) error {
	defer func() { <-r.open }()
	err := r.prove(ctx, b)
	if err != nil {
		r.plan.abandon(b)
		b.writing.Wait() // connections write what they have before they give up
		return errors.Join(err, b.sink.Close())
	}
	r.job.Progress.FilesDone.Add(1)
	return nil
}

// prove follows a file with its hash, keeps it durable meanwhile, and hands it over when the hash
// matches.
func (r *run) prove(ctx context.Context, b *blob) error {
	syncing, stop := context.WithCancel(ctx)
	var syncer errgroup.Group
	syncer.Go(func() error { return r.keepDurable(syncing, b) })
	digest, err := b.order.follow(ctx)
	stop()
	if late := syncer.Wait(); err == nil {
		err = late
	}
	if err != nil {
		// What the hash has passed need not be hashed again by the run that resumes.
		if state, upto := b.order.checkpoint(); upto > 0 {
			_ = b.sink.Sync(state, upto) //nolint:errcheck // the first error is the one to report
		}
		return err
	}
	if want := b.file.Digest; !want.IsZero() && digest != want {
		if digest, err = r.audit(ctx, b, digest); err != nil {
			return err
		}
	}
	return r.job.Large(ctx, b.file, b.sink, digest)
}

// keepDurable makes what is written durable every SyncInterval, or when most of SyncBytes waits, so
// that a power loss costs at most SyncBytes of a file.
func (r *run) keepDurable(ctx context.Context, b *blob) error {
	tick := time.NewTicker(r.settings.SyncInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-b.syncNow:
		}
		if b.sink.Unsynced() == 0 {
			continue
		}
		if err := b.sink.Sync(b.order.checkpoint()); err != nil {
			return err
		}
		r.plan.wake() // connections that waited for this
	}
}
