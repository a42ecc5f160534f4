package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ema/internal/demohub"
	"ema/internal/fetch"
	"ema/internal/model"
	"ema/internal/source"
	"ema/internal/store"
	"ema/internal/throttle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A rig is a hub over a socket, a store in a temporary folder, and a fetcher between them.
type rig struct {
	hub     *demohub.Hub
	store   *store.Store
	source  *source.Sources // patient, for resolving: the hub hashes its files then
	fetcher *fetch.Fetcher
	id      model.ID
	limit   fetch.Limit
}

var quick = fetch.Retry{Base: 5 * time.Millisecond, MaxDelay: 50 * time.Millisecond} //nolint:gochecknoglobals // constant

func newRig(t *testing.T, set fetch.Settings, opts ...demohub.Option) *rig {
	t.Helper()
	hub := demohub.New(opts...)
	srv := httptest.NewServer(hub)
	t.Cleanup(srv.Close)
	if set.Retry == (fetch.Retry{}) {
		set.Retry = quick
	}
	read := set.ReadTimeout
	if read == 0 {
		read = 10 * time.Second
	}
	sourceWith := func(patience time.Duration) *source.Sources {
		src, err := source.New(source.Settings{Endpoint: srv.URL, ReadTimeout: patience, HeaderTimeout: patience, MaxConnsPerHost: set.Connections})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { src.Close() })
		return src
	}
	return &rig{
		hub: hub, source: sourceWith(time.Minute), fetcher: fetch.New(set, sourceWith(read)), id: model.ID{Name: "acme/model"},
		store: store.New(store.Settings{Path: filepath.Join(t.TempDir(), "hub")}),
	}
}

// fetch brings all files into the store and publishes them; progress is returned also on failure.
func (r *rig) fetch(ctx context.Context, t *testing.T) (*model.Manifest, *fetch.Progress, error) {
	t.Helper()
	w, err := r.store.Own(ctx, "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	m, err := r.source.Resolve(context.WithoutCancel(ctx), r.id, "main")
	if err != nil {
		t.Fatal(err)
	}
	p := &fetch.Progress{}
	var mu sync.Mutex
	var staged []*store.Staged
	take := func(s *store.Staged, err error) error {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			staged = append(staged, s)
		}
		return err
	}
	err = r.fetcher.Fetch(ctx, fetch.Job{
		Manifest: m, Files: m.Files, Progress: p, Limit: r.limit,
		Open: func(ctx context.Context, f model.File) (fetch.Sink, error) { return w.Partial(ctx, r.id, f, "") },
		Large: func(_ context.Context, _ model.File, s fetch.Sink, d model.Digest) error {
			return take(s.(*store.Partial).Stage(d))
		},
		Small: func(_ context.Context, f model.File, content []byte, d model.Digest) error {
			return take(w.StageSmall(r.id, f, content, d))
		},
	})
	if perr := w.Publish(context.WithoutCancel(ctx), staged); perr != nil {
		t.Fatal(perr)
	}
	return m, p, err
}

// right fails the test unless every file's blob has the promised hash.
func (r *rig) right(t *testing.T, m *model.Manifest) {
	t.Helper()
	for _, f := range m.Files {
		blob, err := r.store.Blob(r.id, f.Digest)
		if err != nil {
			t.Fatalf("%s: %v", f.Path, err)
		}
		content, err := os.ReadFile(blob.Path)
		if err != nil {
			t.Fatal(err)
		}
		h := f.Digest.NewHash(f.Size)
		h.Write(content)
		if got := f.Digest.Sum(h); got != f.Digest {
			t.Fatalf("%s was published with hash %v, promised was %v", f.Path, got, f.Digest)
		}
	}
}

const size = 12 * model.MiB

func TestFilesOfAllSizesArriveWhole(t *testing.T) {
	r := newRig(t, fetch.Settings{}, demohub.Repo("acme/model",
		demohub.File("empty", 0), demohub.File("one", 1), demohub.File("block", model.MiB),
		demohub.File("block and one", model.MiB+1), demohub.File("ü/ñ%20 #?.bin", 3*model.MiB+17),
		demohub.File("large", 40*model.MiB+3), demohub.File("larger", 70*model.MiB)))
	m, p, err := r.fetch(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	r.right(t, m)
	if p.Written.Load() != int64(m.Bytes()) || p.Hashed.Load() != int64(m.Bytes()) || p.FilesDone.Load() != 7 {
		t.Fatalf("of %d bytes: %d written, %d hashed, %d files done", m.Bytes(), p.Written.Load(), p.Hashed.Load(), p.FilesDone.Load())
	}
}

// Each fault hits one bulk answer. The file must be right afterwards, and the fault must not cost
// more than what it hit.
func TestOneFaultCostsAtMostItsSegment(t *testing.T) {
	for promise, fault := range map[string]demohub.Fault{
		"a reset":                           demohub.ResetAfter(model.MiB + 100),
		"a reset before the headers":        demohub.ResetEarly(),
		"a body cut short":                  demohub.CutAfter(2*model.MiB + 7),
		"a stall":                           demohub.StallAfter(model.MiB, time.Minute),
		"silence before the headers":        demohub.Silence(time.Minute),
		"too many requests":                 demohub.RetryAfter(429, time.Second),
		"too many requests, as a date":      demohub.RetryAt(429, 2*time.Second),
		"too many requests, as a limit":     demohub.RateLimited(time.Second),
		"an internal error":                 demohub.Status(500),
		"a bad gateway":                     demohub.Status(502),
		"an unavailable server":             demohub.Status(503),
		"one answer that ignores the range": demohub.NoRanges(),
		"a range that begins elsewhere":     demohub.ShiftRange(512),
		"a wrong total":                     demohub.WrongTotal(5),
		"no Content-Range":                  demohub.NoContentRange(),
		"compressed bytes":                  demohub.Gzip(),
		"a web page":                        demohub.Portal(),
		"no length":                         demohub.Chunked(),
	} {
		t.Run(promise, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, fetch.Settings{ReadTimeout: time.Second, Connections: 3, Chunk: fetch.ChunkRule{Default: 2 * model.MiB, Fixed: true}},
				demohub.Repo("acme/model", demohub.File("large.bin", size)))
			r.hub.Next(demohub.Pass(), fault)
			m, p, err := r.fetch(t.Context(), t)
			if err != nil {
				t.Fatal(err)
			}
			r.right(t, m)
			if over := p.Received.Load() - int64(size); over > int64(4*model.MiB) {
				t.Errorf("the fault cost %s", model.Bytes(over))
			}
		})
	}
}

// The hub promises one hash for the whole file: a flipped byte is found by asking again, from the
// start to the bad block.
func TestAFlippedByteIsFoundAndReplaced(t *testing.T) {
	r := newRig(t, fetch.Settings{Connections: 2}, demohub.Repo("acme/model", demohub.File("large.bin", size)))
	r.hub.Next(demohub.FlipByte(3<<20 + 5))
	m, _, err := r.fetch(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	r.right(t, m)
}

func TestAServerWithoutRangesIsReadFromTheStart(t *testing.T) {
	r := newRig(t, fetch.Settings{Connections: 4}, demohub.Repo("acme/model", demohub.File("large.bin", size)))
	r.hub.Fault(demohub.Match{Kind: demohub.Bulk}, demohub.NoRanges(), 1000)
	m, _, err := r.fetch(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	r.right(t, m)
}

// What cannot be mended ends in an error of the right class, and nothing wrong is published.
func TestLastingFaultsFailClearly(t *testing.T) {
	for promise, c := range map[string]struct {
		fault demohub.Fault
		class model.Class
		first []demohub.Fault
	}{
		"wrong bytes for ever":   {demohub.FlipByte(3 << 20), model.Integrity, nil},
		"a changed file":         {demohub.NewETag(), model.Integrity, []demohub.Fault{demohub.Pass()}},
		"a server that is down":  {demohub.Status(503), model.ServerError, nil},
		"a server that hangs up": {demohub.ResetEarly(), model.Reset, nil},
		"forbidden":              {demohub.Status(403), model.Auth, nil},
		"wrong totals for ever":  {demohub.WrongTotal(7), model.Integrity, nil},
	} {
		t.Run(promise, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, fetch.Settings{Connections: 2}, demohub.Repo("acme/model", demohub.File("large.bin", size), demohub.File("small.bin", 4*model.KiB)))
			r.hub.Next(c.first...)
			r.hub.Fault(demohub.Match{Kind: demohub.Bulk, Path: "large.bin"}, c.fault, 10_000)
			m, _, err := r.fetch(t.Context(), t)
			if model.ClassOf(err) != c.class {
				t.Fatalf("error %v of class %v, want %v", err, model.ClassOf(err), c.class)
			}
			if _, err := r.store.Blob(r.id, m.Files[0].Digest); !errors.Is(err, os.ErrNotExist) {
				t.Fatal("the file was published all the same")
			}
		})
	}
}

// A cancelled job leaves what it has, and the next one asks for the rest only.
func TestACancelledJobGoesOnWhereItStopped(t *testing.T) {
	r := newRig(t, fetch.Settings{Connections: 4}, demohub.Repo("acme/model", demohub.File("large.bin", 64*model.MiB)), demohub.Rate(20*model.MiB))
	ctx, cancel := context.WithCancel(t.Context())
	half := make(chan struct{})
	go func() {
		defer close(half)
		for r.hub.Stats().Body < int64(32*model.MiB) {
			select {
			case <-time.After(5 * time.Millisecond):
			case <-t.Context().Done():
				return
			}
		}
		cancel()
	}()
	_, _, err := r.fetch(ctx, t)
	<-half
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled job returned %v", err)
	}
	m, p, err := r.fetch(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	r.right(t, m)
	if again := p.Received.Load(); again > int64(34*model.MiB) {
		t.Fatalf("the second run fetched %s of 64 MiB", model.Bytes(again))
	}
}

// A crawling connection is replaced although bytes still come.
func TestATrickleIsReplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t, fetch.Settings{Connections: 4, FixedParallel: true, Chunk: fetch.ChunkRule{Default: 16 * model.MiB, Fixed: true}},
		demohub.Repo("acme/model", demohub.File("large.bin", 52*model.MiB)), demohub.Rate(1*model.MiB))
	r.hub.Next(demohub.Pass(), demohub.Trickle(10*model.KiB))
	m, p, err := r.fetch(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	r.right(t, m)
	if n := p.ByClass[model.Timeout].Load(); n == 0 {
		t.Error("the trickle was read to its end")
	}
}

// Over real sockets: a hub that breaks down above five connections is not kept there. How long it takes
// to settle, and at which rate, is shown in simulated time; here it must happen at all.
func TestAHubThatBreaksDownIsLeftAlone(t *testing.T) {
	t.Parallel()
	const k, enough = 5, 100
	r := newRig(t, fetch.Settings{Connections: 16}, demohub.Repo("acme/model", demohub.File("large.bin", 256*model.MiB)),
		demohub.Rate(4*model.MiB), demohub.Collapse(k, 4*model.MiB))
	if _, err := r.source.Resolve(t.Context(), r.id, "main"); err != nil { // the hub hashes its file: it is not as far away as that
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		// calm are the looks in a row that saw no more connections than the hub bears, after it had seen more.
		for calm := 0; calm < enough && ctx.Err() == nil; calm++ {
			<-tick.C
			if s := r.hub.Stats(); s.MaxTransfers <= k || s.Transfers > k || s.Transfers == 0 {
				calm = 0
			}
		}
		cancel()
	})
	_, p, err := r.fetch(ctx, t)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("ended with %v before it had settled at %d connections or fewer", err, k)
	}
	if n := p.Retries.Load(); n != 0 {
		t.Errorf("%d retries", n)
	}
}

// Over real sockets: all that comes passes the limit, which is changed and lifted meanwhile, and
// connections are neither dropped nor multiplied for it.
func TestALimitHoldsOverSockets(t *testing.T) {
	t.Parallel()
	r := newRig(t, fetch.Settings{Connections: 8}, demohub.Repo("acme/model", demohub.File("large.bin", 48*model.MiB), demohub.File("small", 300*model.KiB)))
	limiter := throttle.New()
	share := limiter.Share(1, 0)
	defer share.Close()
	limiter.Set(6 * model.MiB)
	r.limit = share
	lifted := time.AfterFunc(4*time.Second, func() { limiter.Set(0) })
	defer lifted.Stop()
	begun := time.Now()
	m, p, err := r.fetch(t.Context(), t)
	took := time.Since(begun)
	if err != nil {
		t.Fatal(err)
	}
	r.right(t, m)
	if took < 3*time.Second { // a bound from below, which no busy machine breaks
		t.Errorf("48 MiB came in %v although only 6 MiB/s were allowed for 4 s", took)
	}
	if n := p.Retries.Load(); n != 0 {
		t.Errorf("%d retries", n)
	}
	if s := r.hub.Stats(); s.MaxTransfers > 8 {
		t.Errorf("%d connections", s.MaxTransfers)
	}
}

func TestContentIsWhatTheHubHas(t *testing.T) {
	content := bytes.Repeat([]byte("ema"), 1<<20)
	r := newRig(t, fetch.Settings{}, demohub.Repo("acme/model", demohub.Bytes("a.bin", content)))
	m, _, err := r.fetch(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := r.store.Blob(r.id, m.Files[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(blob.Path); err != nil || !bytes.Equal(got, content) {
		t.Fatal("other bytes than the hub's", err)
	}
}
