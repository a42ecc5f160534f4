package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

// atOnce is how long a cancelled pull may take to return: what is promised, and as much again for a
// machine that is busy with other things.
const atOnce = 2 * time.Second

func mixed() []demohub.Entry {
	entries := []demohub.Entry{demohub.File("a/large.bin", 6*model.MiB+3), demohub.File("b/large.bin", 4*model.MiB), demohub.File("empty.bin", 0)}
	for i := range 12 {
		entries = append(entries, demohub.File(fmt.Sprintf("small%02d.bin", i), model.Bytes(1+i*i*5000)))
	}
	return entries
}

func TestACancelledPullReturnsAtOnceAndTheNextOneGoesOn(t *testing.T) {
	t.Parallel()
	entries := mixed()
	var size int64
	for _, e := range entries {
		size += e.Size()
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for round := range 3 {
		r := repo(t, parts(entries)...)
		r.hub.Set(demohub.Rate(10*model.MiB), demohub.Latency(time.Millisecond))
		l := r.line(t) // one process, which must not keep anything that hinders the next pull
		var fetched, written int64
		for attempt := 0; ; attempt++ {
			ctx, cancel := context.WithCancel(t.Context())
			after := time.Duration(rnd.IntN(250)) * time.Millisecond
			var at atomic.Int64
			timer := time.AfterFunc(after, func() { at.Store(time.Now().UnixNano()); cancel() })
			p := &pipeline.Progress{}
			res, err := l.Pull(ctx, request(), p)
			took := time.Duration(time.Now().UnixNano() - at.Load())
			cancelled := !timer.Stop()
			cancel()
			fetched += p.Received.Load()
			written = p.Written.Load()
			if err == nil {
				holds(t, res.Path, entries...)
				break
			}
			if !cancelled || !errors.Is(err, context.Canceled) || model.ClassOf(err) != model.Cancelled {
				t.Fatalf("round %d: %v after %v", round, err, after)
			}
			if took > atOnce {
				t.Errorf("round %d: returned %v after it was cancelled", round, took)
			}
			if attempt > 100 {
				t.Fatalf("round %d: no end after %d attempts, %d bytes", round, attempt, written)
			}
		}
		if over := fetched - size; over > size/2 {
			t.Errorf("round %d: %d bytes came for %d", round, fetched, size)
		}
	}
}

func TestACancelledQuestionReturnsAtOnce(t *testing.T) {
	r := repo(t, parts(mixed())...)
	r.hub.Fault(demohub.Match{Kind: demohub.API}, demohub.Silence(0), 0)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	begun := time.Now()
	if _, err := r.line(t).Pull(ctx, request(), &pipeline.Progress{}); !errors.Is(err, context.Canceled) || time.Since(begun) > atOnce {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

func TestACancelledVerifyReturnsAtOnce(t *testing.T) {
	r := repo(t, parts(mixed())...)
	res := r.pull(t, request())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.line(t).Verify(ctx, acme, res.Commit, &pipeline.Progress{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

// heldRename is a disk on which blobs get their names only when somebody permits it.
type heldRename struct {
	store.OS
	begun  chan struct{} // closed when the first one is due
	permit chan struct{} // closed to let all go on
	once   *sync.Once
}

func (d heldRename) Rename(from, to string) error {
	if filepath.Base(filepath.Dir(to)) == "blobs" {
		d.once.Do(func() { close(d.begun) })
		<-d.permit
	}
	return d.OS.Rename(from, to)
}

// A file that is finished while others are published, when the pull is stopped, is held by nobody.
func TestWhatIsFinishedWhenAPullIsStoppedIsLetGo(t *testing.T) {
	t.Parallel()
	entries := []demohub.Entry{noise("a.bin", 2<<20, 1), noise("b.bin", 3<<20, 2)}
	r := repo(t, parts(entries)...)
	r.hub.Fault(demohub.Match{Kind: demohub.Bulk, Path: "b.bin"}, demohub.StallAfter(model.MiB, 1500*time.Millisecond), 1)
	disk := heldRename{begun: make(chan struct{}), permit: make(chan struct{}), once: new(sync.Once)}
	r.set.Disk = disk
	l := r.line(t, func(l *pipeline.Line) { l.Waiting = func(o store.Owner) { t.Errorf("it waits for %v", o) } })
	ctx, cancel := context.WithCancel(t.Context())
	p := &pipeline.Progress{}
	done := make(chan error, 1)
	go func() {
		_, err := l.Pull(ctx, request(), p)
		done <- err
	}()
	<-disk.begun
	until(t.Context(), func() bool { return p.Hashed.Load() == 5<<20 })
	<-time.After(100 * time.Millisecond) // it is handed over, and nobody takes it
	cancel()
	close(disk.permit)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	res, err := l.Pull(ctx, request(), &pipeline.Progress{})
	if err != nil {
		t.Fatal(err)
	}
	if holds(t, res.Path, entries...); res.Fetched != 0 {
		t.Errorf("%d bytes were fetched again", res.Fetched)
	}
}

func TestWhoAsksForTheSameWaitsAndFetchesNothing(t *testing.T) {
	entries := mixed()
	r := repo(t, parts(entries)...)
	r.hub.Set(demohub.Rate(20 * model.MiB))
	var paths [3]string
	var fetched, waited atomic.Int64
	var wg sync.WaitGroup
	for i := range paths {
		l := r.line(t, func(l *pipeline.Line) { l.Waiting = func(store.Owner) { waited.Add(1) } })
		wg.Go(func() {
			res, err := l.Pull(t.Context(), request(), &pipeline.Progress{})
			if err != nil {
				t.Error(err)
				return
			}
			paths[i] = res.Path
			if res.Fetched > 0 {
				fetched.Add(1)
			}
		})
	}
	wg.Wait()
	if paths[0] != paths[1] || paths[0] != paths[2] || fetched.Load() != 1 || waited.Load() < 1 {
		t.Errorf("%v; %d fetched, %d waited", paths, fetched.Load(), waited.Load())
	}
	holds(t, paths[0], entries...)
}

func TestWhoDoesNotWantToWaitIsToldWhoHasTheStore(t *testing.T) {
	r := repo(t, parts(mixed())...)
	w, err := store.New(r.set).Own(t.Context(), "ema pull other/model", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_, err = r.line(t).Pull(t.Context(), request(), &pipeline.Progress{})
	if model.ClassOf(err) != model.Busy || r.asked(demohub.Bulk) != 0 {
		t.Errorf("error = %v", err)
	}
}
