package pipeline

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/internal/store"
)

// Bounds of a batch: how many files share one durability barrier at most, how many of them may be large
// ones, of which each has three files open until it is published, and how long a finished file waits for
// company. Files, not bytes: large ones are durable nearly to their end already.
const (
	batchFiles = 256
	batchLarge = 32
	batchWait  = time.Second
)

// A publisher makes finished files visible in batches, beside the fetching: thousands of small files
// are bound by requests then, not by syncs.
type publisher struct {
	writer *store.Writer
	small  chan *store.Staged
	large  chan *store.Staged // without room: who has finished a large file waits until it is wanted
}

func newPublisher(w *store.Writer) *publisher {
	return &publisher{writer: w, small: make(chan *store.Staged, batchFiles), large: make(chan *store.Staged)}
}

// add hands a finished file over; it is visible when during has returned without an error, or before.
func (p *publisher) add(ctx context.Context, to chan<- *store.Staged, s *store.Staged) error {
	select {
	case to <- s:
		return nil
	case <-ctx.Done():
		_ = s.Close() // it serves a later run; why this one ends is what to report
		return context.Cause(ctx)
	}
}

// during publishes what work adds, and returns when all of it is visible. When work fails, what it
// had finished is published all the same: it is proven, and need not be fetched again.
func (p *publisher) during(ctx context.Context, work func(context.Context) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(p.large)
		defer close(p.small)
		return work(gctx)
	})
	g.Go(func() error {
		for {
			batch := p.collect(batchWait)
			if len(batch) == 0 {
				return nil
			}
			if err := p.writer.Publish(context.WithoutCancel(ctx), batch); err != nil {
				for _, s := range batch {
					_ = s.Close() // releases what is not published
				}
				return err
			}
		}
	})
	err := g.Wait()
	for s := range p.small { // there are some only when publishing failed
		_ = s.Close()
	}
	return err
}

// collect waits for a first file, and then for more until the batch is full, wait is over, or nothing
// more will come. An empty batch is the end.
func (p *publisher) collect(wait time.Duration) []*store.Staged {
	var batch []*store.Staged
	var late <-chan time.Time
	small, large := p.small, p.large
	for larges := 0; len(batch) < batchFiles && larges < batchLarge; {
		var s *store.Staged
		var more bool
		select {
		case s, more = <-small:
			if !more {
				small = nil
			}
		case s, more = <-large:
			if larges++; !more {
				large = nil
			}
		case <-late:
			return batch
		}
		switch {
		case small == nil && large == nil:
			return batch
		case more:
			batch = append(batch, s)
		}
		if late == nil && len(batch) > 0 {
			t := time.NewTimer(wait)
			defer t.Stop()
			late = t.C
		}
	}
	return batch
}
