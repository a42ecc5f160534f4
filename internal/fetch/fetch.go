// Package fetch brings the bytes of a manifest's files here, over many connections with one budget,
// and proves each file's hash while its bytes arrive.
//
// It reads top to bottom in this order: fetch.go (a job, and who runs in it), plan.go (which bytes
// are whose), budget.go (which job gets a connection), connection.go (one connection's work), order.go
// (the hash that follows behind), audit.go (a hash that did not match), climb.go (how many
// connections), stall.go (connections that are replaced), chunk.go (how much at once), retry.go (what
// an error costs), buffers.go (memory).
package fetch

import (
	"context"
	"errors"
	"log/slog"
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
	Connections   int           // most connections of one job at once; default 8
	Total         int           // most connections of all jobs together; default: no such limit. More jobs than this take turns.
	ReadTimeout   time.Duration // no byte for this long: the connection is replaced; default 10 s
	LargeFiles    int           // files above BlockSize filled at once; default 2; holds for jobs that begin later
	Chunk         ChunkRule     // how much of a large file a connection asks for at once
	Buffers       model.Bytes   // all buffers of all jobs together; default 128 MiB, at least one per connection of one job
	SyncInterval  time.Duration // longest time between durability points; default 2 s; holds for files that begin later
	SyncBytes     model.Bytes   // most bytes of one file not yet durable; default 64 MiB
	Retry         Retry         // attempts and delays
	FixedParallel bool          // use Connections from the start and never adapt (measurements)
	Log           *slog.Logger  // told at debug level why a chunk is as large as it is; nil: nobody
	// Run runs what hashes a large file, from its beginning to its end, on a thread or at a priority of its choice, and returns what
	// that returns; nil runs it as everything else.
	Run func(context.Context, func(context.Context) error) error
}

func (s *Settings) run(ctx context.Context, do func(context.Context) error) error {
	if s.Run == nil {
		return do(ctx)
	}
	return s.Run(ctx, do)
}

func (s Settings) withDefaults() *Settings {
	s.Connections = def(s.Connections, 8)
	s.ReadTimeout = def(s.ReadTimeout, 10*time.Second)
	s.LargeFiles = def(s.LargeFiles, 2)
	s.Buffers = def(s.Buffers, 128*model.MiB)
	s.SyncInterval = def(s.SyncInterval, 2*time.Second)
	s.SyncBytes = def(s.SyncBytes, 64*model.MiB)
	s.Chunk = s.Chunk.withDefaults()
	s.Retry = s.Retry.withDefaults()
	return &s
}

// opener is what the engine needs of a source. It makes one attempt; *source.Sources satisfies it.
type opener interface {
	Open(ctx context.Context, m *model.Manifest, f model.File, seg model.Segment) (*source.Body, error)
}

// A Limit makes bytes wait; *throttle.Share satisfies it. Its methods are called concurrently, for every
// byte that comes.
type Limit interface {
	// Piece is how many bytes, of at most most, to receive at once so that the limit holds smoothly; most when
	// nothing limits.
	Piece(most int) int
	// Take waits until the n bytes that have come are within the limit, or until ctx ends.
	Take(ctx context.Context, n int) error
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

	// Limit is what the job's bytes have to pass; nil: nothing.
	Limit Limit
	// Connections caps the connections of this job, below Settings.Connections; 0: no cap of its own.
	Connections int
	// Retried is told of each attempt that failed and will be repeated after wait; nil: nobody is. host is empty
	// when the failure was no host's. Called concurrently; it must not wait.
	Retried func(host string, class model.Class, err error, wait time.Duration)

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
	Hashing     atomic.Int64 // nanoseconds for which the in-order hashes have worked, added up
	Watch       source.Watch // where the time of the connections goes

	// ByClass is Retries by what had failed: the index is a model.Class.
	ByClass [classes]atomic.Int64

	tracking atomic.Pointer[tracking] // see Follow
}

const classes = int(model.Offline) + 1

func (p *Progress) note(s string) { p.Note.Store(s) }

// retried counts a failed attempt that will be repeated.
func (p *Progress) retried(c model.Class) {
	p.Retries.Add(1)
	if int(c) >= classes {
		c = model.Other
	}
	p.ByClass[c].Add(1)
}

// A Fetcher fetches jobs. It is safe for concurrent use. Jobs share its memory and, if there is a Total, its
// connections.
type Fetcher struct {
	source  opener
	buffers *buffers
	budget  *budget
	current atomic.Pointer[Settings]
}

// New makes a Fetcher on a source. It starts nothing.
func New(s Settings, src opener) *Fetcher {
	set := s.withDefaults()
	f := &Fetcher{source: src, buffers: newBuffers(int64(set.Buffers), set.Connections), budget: &budget{total: set.Total}}
	f.current.Store(set)
	return f
}

// Configure replaces the settings, also of the jobs that run. It acts at once: connections above a lowered limit end
// after the block that they are in, those below a raised one begin.
func (f *Fetcher) Configure(s Settings) {
	set := s.withDefaults()
	f.current.Store(set)
	f.buffers.resize(int64(set.Buffers), set.Connections)
	f.budget.configure(set)
}

// settings are those that hold now.
func (f *Fetcher) settings() *Settings { return f.current.Load() }

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
	job   Job
	plan  *plan
	kept  *kept
	begun time.Time
	// held is how long, in nanoseconds, connections have waited in the job's limit.
	held atomic.Int64
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
	set := f.settings()
	p := newPlan(f.budget, set, job.Connections, job.Manifest.Answer)
	for _, file := range job.Files {
		if file.Size > BlockSize {
			large = append(large, file)
		} else {
			p.small = append(p.small, file)
		}
	}
	f.budget.join(p)
	defer f.budget.leave(p)
	g, ctx := errgroup.WithContext(ctx)
	r := &run{
		Fetcher: f, job: job, plan: p, kept: f.buffers.keep(), begun: time.Now(), group: g,
		open: make(chan struct{}, set.LargeFiles+unproven),
	}
	defer r.kept.end()
	wake := context.AfterFunc(ctx, p.wake)
	defer wake()

	queue := make(chan model.File, len(large))
	for _, file := range large {
		queue <- file
	}
	close(queue)
	var feeders sync.WaitGroup
	for range min(set.LargeFiles, len(large)) {
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
	g.Go(func() error {
		feeders.Wait()
		p.noMoreFiles()
		return nil
	})
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	g.Go(func() error {
		defer stopWatching()
		r.connect(ctx)
		return nil
	})
	g.Go(func() error { r.watch(watching); return nil })
	g.Go(func() error { r.climb(watching); return nil })
	return g.Wait()
}

// connect keeps as many connections as may be busy, until there is nothing left to fetch. When the
// settings allow more it adds them; those above a lowered number just find no work.
func (r *run) connect(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	done, finish := context.WithCancel(ctx)
	defer finish()
	for n := 0; ; {
		for most := r.plan.load(0).most; n < most; n++ {
			worker := n
			workers.Add(1)
			r.group.Go(func() error {
				defer workers.Done()
				defer finish() // one ends when all work is done, or none can go on
				return r.connection(ctx, worker)
			})
		}
		select {
		case <-r.plan.grown:
		case <-done.Done():
			return
		}
	}
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
		r.job.Progress.Here(file)
		return nil
	}
	b := newBlob(file, sink)
	b.written = r.job.Progress.counter(file.Path)
	b.written.Store(file.Size - b.left)
	if b.order, err = newOrder(b, r); err != nil {
		return errors.Join(err, sink.Close())
	}
	r.job.Progress.Written.Add(file.Size - b.left)
	r.group.Go(func() error { return r.finish(ctx, b) }) // the next file does not wait for this one's hash
	r.logChunk(r.plan.add(b))
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
	var digest model.Digest
	err := r.settings().run(ctx, func(ctx context.Context) (err error) {
		digest, err = b.order.follow(ctx)
		return err
	})
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
	tick := time.NewTicker(r.settings().SyncInterval)
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
