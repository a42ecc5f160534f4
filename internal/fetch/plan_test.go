package fetch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

// nothing is a sink that only says what is missing.
type nothing struct {
	Sink
	missing []model.Segment
}

func (n nothing) Missing() []model.Segment { return n.missing }

func (n nothing) Checkpoint() (state []byte, upto int64) { return nil, 0 }

// planOf is the plan of the only job of a fetcher.
func planOf(s Settings) *plan {
	set := s.withDefaults()
	b := &budget{total: set.Total}
	p := newPlan(b, set, 0, 0)
	b.join(p)
	return p
}

// However connections take, steal, fail, and are cut, each byte is written exactly once, no two
// connections ever hold the same block, and the plan ends.
func TestPlanHandsOutEachByteOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := planOf(Settings{Connections: rapid.IntRange(1, 9).Draw(t, "connections"), FixedParallel: true, Chunk: ChunkRule{}})
		p.answer = time.Duration(rapid.IntRange(0, 100).Draw(t, "answer ms")) * time.Millisecond
		p.rate = rapid.Float64Range(0, 1e9).Draw(t, "rate")
		var want int64
		var blobs []*blob
		for range rapid.IntRange(1, 3).Draw(t, "files") {
			size := rapid.Int64Range(BlockSize+1, 50*BlockSize).Draw(t, "size")
			// An earlier run left holes: each begins anywhere in a block and ends at a block's border.
			var missing []model.Segment
			for at := int64(0); at < size; {
				start := min(at+rapid.Int64Range(0, 20*BlockSize).Draw(t, "written"), size)
				end := min(alignUp(start+1)+BlockSize*rapid.Int64Range(0, 60).Draw(t, "hole"), size)
				if start < end {
					missing = append(missing, model.Segment{Start: start, End: end})
				}
				at = end + 1
				at = alignUp(at)
			}
			b := newBlob(model.File{Path: "f", Size: size}, nothing{missing: missing})
			for _, s := range missing {
				want += s.Len()
			}
			blobs = append(blobs, b)
			p.add(b)
		}
		p.noMoreFiles()
		written := map[*blob][]model.Segment{}
		var got int64
		held := []*claim{}
		for step := 0; ; step++ {
			if step > 100_000 {
				t.Fatal("the plan does not end")
			}
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2:
				if p.busy >= p.target {
					break
				}
				p.mu.Lock()
				task, ok := p.take(0)
				if ok {
					p.started(p)
					task.claim.blob.writing.Add(1)
				}
				p.mu.Unlock()
				if ok {
					held = append(held, task.claim)
				}
			case 3:
				if len(held) > 0 {
					i := rapid.IntRange(0, len(held)-1).Draw(t, "fails")
					p.release(held[i])
					held = append(held[:i], held[i+1:]...)
				}
			case 4:
				p.setTarget(rapid.IntRange(1, p.settings.Connections).Draw(t, "target"), false)
			default:
				for i := 0; i < len(held); i++ {
					c := held[i]
					off, n := p.room(c, rapid.Int64Range(1, int64(bufferSize)).Draw(t, "read"))
					if n == 0 {
						p.release(c)
						held = append(held[:i], held[i+1:]...)
						i--
						continue
					}
					if off/BlockSize != (off+n-1)/BlockSize {
						t.Fatalf("a read of %d at %d crosses a block", n, off)
					}
					for _, before := range written[c.blob] {
						if off < before.End && before.Start < off+n {
							t.Fatalf("%d bytes at %d are written twice", n, off)
						}
					}
					written[c.blob] = insert(written[c.blob], model.Segment{Start: off, End: off + n})
					p.wrote(c, n)
					got += n
				}
			}
			blocks := map[*blob]map[int64]bool{}
			for _, c := range held {
				if blocks[c.blob] == nil {
					blocks[c.blob] = map[int64]bool{}
				}
				if at := c.pos / BlockSize; c.pos < c.end && blocks[c.blob][at] {
					t.Fatalf("two connections in block %d", at)
				} else if c.pos < c.end {
					blocks[c.blob][at] = true
				}
			}
			if got == want {
				break
			}
		}
		for _, b := range blobs {
			select {
			case <-b.filled:
			default:
				t.Fatalf("all is written but %d bytes are said to be left", b.left)
			}
		}
	})
}

func TestAnIdleConnectionTakesHalfOfTheLargestRest(t *testing.T) {
	p := planOf(Settings{Connections: 2, FixedParallel: true, Chunk: ChunkRule{Default: 1 << 30, Fixed: true}})
	b := newBlob(model.File{Size: 64 * BlockSize}, nothing{missing: []model.Segment{{End: 64 * BlockSize}}})
	p.add(b)
	first := p.takeLarge()
	for len(b.free) > 0 { // whoever comes first gets a share, the rest is claimed one after the other
		first.end, b.free = b.free[0].End, b.free[1:]
	}
	thief := p.takeLarge()
	if first.end != 32*BlockSize || thief.pos != 32*BlockSize || thief.end != 64*BlockSize {
		t.Fatalf("first [%d, %d), thief [%d, %d) blocks, want the halves", first.pos>>20, first.end>>20, thief.pos>>20, thief.end>>20)
	}
}

func TestRequestsAreAsLongAsTheOriginIsFar(t *testing.T) {
	for _, c := range []struct {
		answer   time.Duration
		rate     float64
		from, to model.Bytes
		answers  int
	}{
		{0, 0, 2 * model.MiB, 5 * model.MiB, 0},                                         // unknown: little, until the first answer tells
		{8 * time.Millisecond, 20e6, 16 * model.MiB, 16 * model.MiB, firstAnswers},      // not far: the chunk for this size
		{8 * time.Millisecond, 20e6, 2 * model.MiB, 5 * model.MiB, 1},                   // while all are dialled, who knows
		{50 * time.Millisecond, 20e6, 95 * model.MiB, 100 * model.MiB, firstAnswers},    // a hundred times what a round trip costs
		{300 * time.Millisecond, 100e6, 128 * model.MiB, 128 * model.MiB, firstAnswers}, // never so long that the hash is left behind
		{500 * time.Microsecond, 0, 2 * model.MiB, 5 * model.MiB, firstAnswers},         // beside us: what waits for the hash fits into memory
	} {
		p := planOf(Settings{Connections: 8, FixedParallel: true, Chunk: ChunkRule{}})
		p.answer, p.rate, p.answers = c.answer, c.rate, c.answers
		p.add(newBlob(model.File{Size: 4 << 30}, nothing{missing: []model.Segment{{End: 4 << 30}}}))
		claim := p.takeLarge()
		if n := model.Bytes(claim.end - claim.pos); n < c.from || n > c.to {
			t.Errorf("answer after %v, %.0f MB/s: request of %v, want %v to %v", c.answer, c.rate/1e6, n, c.from, c.to)
		}
	}
}

// A machine that is busy answers late, and is not farther away for that. One that moved is.
func TestTheShortestAnswerOfTheLastWhileSaysHowFarAnOriginIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := planOf(Settings{Connections: 8})
		p.observe(time.Millisecond, 0)
		for range 200 {
			p.observe(40*time.Millisecond, 0)
		}
		if p.answer != time.Millisecond {
			t.Errorf("after late answers the origin is %v away, want 1ms", p.answer)
		}
		for range 3 {
			time.Sleep(windowLength + time.Second)
			p.observe(40*time.Millisecond, 0)
		}
		if p.answer != 40*time.Millisecond {
			t.Errorf("long after the last short answer the origin is %v away, want 40ms", p.answer)
		}
	})
}

// From an origin nearby connections wait for the hash for a moment even when it has nothing to do: what
// they would bring could not wait in memory. They do not wait for a connection that is late.
func TestNobodyRunsFarAheadOfAHashThatWaitsForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := planOf(Settings{Connections: 2})
		f := New(Settings{}, nil)
		r := &run{Fetcher: f, plan: p, kept: f.buffers.keep(), begun: time.Now(), job: Job{Progress: &Progress{}}}
		b := newBlob(model.File{Size: 64 * BlockSize}, nothing{missing: []model.Segment{{End: 64 * BlockSize}}})
		var err error
		if b.order, err = newOrder(b, r); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { _, err := b.order.follow(ctx); ended <- err }()
		synctest.Wait()
		if !b.order.behind(ahead, true) || b.order.behind(0, true) || b.order.behind(ahead, false) {
			t.Error("at first, who is near and far ahead is to wait, and nobody else")
		}
		time.Sleep(soon + time.Millisecond)
		if b.order.behind(ahead, true) || b.order.reserve(ctx, ahead-1, BlockSize, true) != true {
			t.Error("a late connection holds up the others")
		}
		cancel()
		if err := <-ended; err == nil {
			t.Error("follow returned no error although its context ended")
		}
	})
}

// A small piece neither takes one of the few buffers that may wait for a hash, nor waits for one.
func TestSmallPiecesAreNotKeptForTheHash(t *testing.T) {
	p := planOf(Settings{Connections: 2})
	f := New(Settings{}, nil)
	r := &run{Fetcher: f, plan: p, kept: f.buffers.keep(), begun: time.Now(), job: Job{Progress: &Progress{}}}
	o, err := newOrder(newBlob(model.File{Size: 64 * BlockSize}, nothing{missing: []model.Segment{{End: 64 * BlockSize}}}), r)
	if err != nil {
		t.Fatal(err)
	}
	if o.reserve(t.Context(), 0, 1000, true) || o.reserve(t.Context(), BlockSize, 1000, true) || r.kept.n != 0 {
		t.Error("a piece of 1000 bytes was given a buffer's room")
	}
	for i := range ahead / BlockSize {
		if !o.reserve(t.Context(), i*BlockSize/2, BlockSize/2-1, true) {
			t.Errorf("there was no room for piece %d", i)
		}
	}
	if o.reserve(t.Context(), 11*BlockSize, BlockSize/2-1, true) {
		t.Error("more is kept than there is room for")
	}
}

// On a slow network it takes minutes until a connection has done a claim: its rate is known before.
func TestTheRateOfASlowNetworkIsKnownBeforeTheFirstClaimIsDone(t *testing.T) {
	p := planOf(Settings{Connections: 2})
	p.add(newBlob(model.File{Size: 64 * BlockSize}, nothing{missing: []model.Segment{{End: 64 * BlockSize}}}))
	for range 2 {
		c := p.takeLarge()
		p.begin(c, func(error) { t.Error("a connection was ended") })
		p.opened(c)
	}
	for second := range 3 {
		for _, c := range p.blobs[0].claims {
			c.received.Add(10_000)
		}
		p.replace(time.Duration(second)*time.Second, time.Minute)
	}
	if p.rate != 10_000 || p.near() {
		t.Errorf("the rate of a connection is %.0f, want 10000", p.rate)
	}
}

func TestWaitingForWorkEndsWithTheContext(t *testing.T) {
	p := planOf(Settings{Connections: 1, FixedParallel: true})
	ctx, cancel := context.WithCancel(t.Context())
	defer context.AfterFunc(ctx, p.wake)()
	ended := make(chan error)
	go func() { _, _, err := p.next(ctx, 0); ended <- err }()
	cancel()
	if err := <-ended; err == nil {
		t.Fatal("next returned no error although its context ended")
	}
}
