package verify

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"ema/internal/model"
)

// A Reader is an open blob.
type Reader interface {
	io.ReaderAt
	io.Closer
}

// An Item is one blob to be verified.
type Item struct {
	Model  model.ID
	Path   string // in the model, for messages
	Digest model.Digest
	Size   int64
	// Blocks are the checksums kept of the blob; nil when there are none.
	Blocks []uint32
	// Open gives the blob's bytes. It is called once, when the item's turn comes, so that no more
	// files are open than are being read.
	Open func() (Reader, error)
	// Progress, if not nil, is called with the number of bytes checked since the last call, from
	// the goroutine that reads this item.
	Progress func(n int64)
}

// Workers say how items are verified together.
type Workers struct {
	Parallel int // so many at once; 0 means one per processor
	// Run runs what reads and hashes one item, on a thread or at a priority of its choice, and returns what that returns; nil
	// runs it right away.
	Run func(context.Context, func(context.Context) error) error
	// Ahead and Locate are as in Options. What reads ahead does not run where Run says.
	Ahead, Locate bool
}

// Files verifies items as w says. It calls each as items
// come to their end, in any order but never two at a time, with the Result or with what kept the
// item from being verified: *model.Error that names model and file. Only the end of ctx stops it
// before the last item; items that this cuts short are not reported, and Files returns ctx.Err().
func Files(ctx context.Context, items []Item, w Workers, each func(Item, Result, error)) error {
	parallel := w.Parallel
	if parallel <= 0 {
		parallel = runtime.GOMAXPROCS(0)
	}
	run := w.Run
	if run == nil {
		run = func(ctx context.Context, do func(context.Context) error) error { return do(ctx) }
	}
	var g errgroup.Group
	g.SetLimit(parallel)
	var telling sync.Mutex
	for _, item := range items {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			var res Result
			err := run(ctx, func(ctx context.Context) (err error) {
				res, err = verifyItem(ctx, item, Options{Progress: item.Progress, Ahead: w.Ahead, Locate: w.Locate})
				return err
			})
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return err
			}
			telling.Lock()
			defer telling.Unlock()
			each(item, res, err)
			return nil
		})
	}
	_ = g.Wait() // its only error is ctx's
	return ctx.Err()
}

// verifyItem opens and verifies one item, and makes errors name it.
func verifyItem(ctx context.Context, item Item, opts Options) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	f, err := item.Open()
	if err != nil {
		return Result{}, named(item, err)
	}
	defer f.Close() // it was only read; nothing is lost if this fails
	res, err := Blob(ctx, f, item.Size, item.Digest, item.Blocks, opts)
	if err != nil && ctx.Err() == nil {
		err = named(item, err)
	}
	return res, err
}

// named puts model and file into err, and keeps its class and hint if it has them.
func named(item Item, err error) error {
	e := &model.Error{Op: "verify", Class: model.DiskError, Model: item.Model, File: item.Path, Err: err}
	if inner, ok := errors.AsType[*model.Error](err); ok {
		e.Class, e.Hint, e.Err = inner.Class, inner.Hint, inner.Err
	} else if errors.Is(err, fs.ErrNotExist) {
		e.Class = model.NotFound
	}
	return e
}
