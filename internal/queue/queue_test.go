package queue_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A memory is a ledger that forgets with its process. It takes a moment for each save, as disks do.
type memory struct {
	mu     sync.Mutex
	byID   map[string]model.Download
	broken error // what saves fail with
	saves  int
}

func (m *memory) Save(ctx context.Context, d model.Download) error {
	time.Sleep(time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return m.broken
	}
	m.saves++
	m.byID[d.ID] = d
	return ctx.Err()
}

func (m *memory) Download(_ context.Context, id string) (model.Download, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d, ok := m.byID[id]; ok {
		return d, nil
	}
	return model.Download{}, &model.Error{Op: "read", Class: model.NotFound}
}

func (m *memory) Downloads(_ context.Context, states ...model.State) (found []model.Download, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.byID {
		if slices.Contains(states, d.State) {
			found = append(found, d)
		}
	}
	slices.SortFunc(found, func(a, b model.Download) int { return int(a.Order - b.Order) })
	return found, nil
}

func (m *memory) LastOrder(context.Context) (last int64, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.byID {
		last = max(last, d.Order)
	}
	return last, nil
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

// copied is what another process would find after a crash at this moment.
func (m *memory) copied() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memory{byID: maps.Clone(m.byID)}
}

// A job is a download that runs, under the hand of the test.
type job struct {
	ctx context.Context
	d   model.Download
	r   queue.Reporter
	end chan error
}

// A bench is a queue with what is around it.
type bench struct {
	t    rapid.TB
	keep *memory
	q    *queue.Queue
	stop func() // ends Run and waits for it

	lingers time.Duration // how long a job takes to end when it is told to

	mu     sync.Mutex
	jobs   map[string]*job
	begun  []string // models, in the order in which they were started
	events []event.Event
}

// newBench has a queue that does not run yet.
func newBench(t rapid.TB, s queue.Settings, keep *memory) *bench {
	if keep == nil {
		keep = &memory{byID: map[string]model.Download{}}
	}
	b := &bench{t: t, keep: keep, jobs: map[string]*job{}}
	s.Retry.NoJitter = true
	b.q = queue.New(s, keep, b.run, b)
	return b
}

// start runs a queue until the test ends or stop is called.
func start(t testing.TB, s queue.Settings) *bench {
	b := newBench(t, s, nil)
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *bench) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.q.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			b.t.Errorf("Run returned %v", err)
		}
	})
	synctest.Wait()
}

func (b *bench) run(ctx context.Context, d model.Download, r queue.Reporter) error {
	j := &job{ctx: ctx, d: d, r: r, end: make(chan error)}
	b.mu.Lock()
	if b.jobs[d.Model.Name] != nil {
		b.t.Errorf("%s runs twice at once", d.Model.Name)
	}
	b.jobs[d.Model.Name] = j
	b.begun = append(b.begun, d.Model.Name)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.jobs, d.Model.Name)
	}()
	select {
	case err := <-j.end:
		return err
	case <-ctx.Done():
		time.Sleep(b.lingers)
		return context.Cause(ctx)
	}
}

// Tell proves of each event that what it tells is stored.
func (b *bench) Tell(e event.Event) {
	if c, ok := e.Data.(event.Change); ok {
		if stored, err := b.keep.Download(context.Background(), e.Download); err != nil || stored.State != c.To {
			b.t.Errorf("told that %s is %s, stored is %q, %v", e.Download, c.To, stored.State, err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

// settle waits until nothing happens any more without time passing further than saves take.
func settle() {
	time.Sleep(time.Second / 10)
	synctest.Wait()
}

func (b *bench) add(name string, p model.Priority) model.Download {
	b.t.Helper()
	d, was, err := b.q.Add(context.Background(), model.Download{Model: model.ID{Name: name}, Priority: p})
	if err != nil || was {
		b.t.Fatalf("add %s: %v, there already: %t", name, err, was)
	}
	settle()
	return d
}

func (b *bench) job(name string) *job {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.jobs[name]
	if j == nil {
		b.t.Fatalf("%s does not run", name)
	}
	return j
}

func (b *bench) end(name string, err error) {
	b.t.Helper()
	b.job(name).end <- err
	settle()
}

func (b *bench) running() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.jobs))
}

// stands is the whole queue in a line: "a:downloading b:paused(user)".
func (b *bench) stands() string { return stands(b.q.List()) }

func stands(downloads []model.Download) string {
	var all []string
	for _, d := range downloads {
		s := d.Model.Name + ":" + string(d.State)
		if d.Pause != "" {
			s += "(" + string(d.Pause) + ")"
		}
		all = append(all, s)
	}
	return strings.Join(all, " ")
}

func (b *bench) expect(want string) {
	b.t.Helper()
	if got := b.stands(); got != want {
		b.t.Errorf("got  %s\nwant %s", got, want)
	}
}

func (b *bench) stored(id string) model.Download {
	b.t.Helper()
	d, err := b.keep.Download(context.Background(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refused fails the test unless err says that the action is not for this state.
func refused(t testing.TB, err error, s model.State, allowed ...string) {
	t.Helper()
	e, ok := errors.AsType[*queue.StateError](err)
	if !ok || e.State != s || !slices.Equal(e.Allowed, allowed) || !strings.Contains(err.Error(), string(s)) {
		t.Errorf("got %v; want a StateError of %s that allows %v", err, s, allowed)
	}
}

func inBubble(t *testing.T, promise string, f func(t *testing.T)) {
	t.Run(promise, func(t *testing.T) { synctest.Test(t, f) })
}

var (
	reset    = &model.Error{Op: "fetch", Class: model.Reset, URL: "https://hub.example/x?secret", Err: io.ErrUnexpectedEOF}
	diskFull = &model.Error{Op: "fetch", Class: model.DiskFull, Err: errors.New("14.2 GiB needed, 3.0 GiB free")}
)

func TestADownloadGoesThroughItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, queue.Settings{})
		d := b.add("a", model.NormalPriority)
		if d.ID == "" || d.Order != 1 || d.Created.IsZero() || d.State != model.Queued {
			t.Errorf("added as %+v", d)
		}
		j := b.job("a")
		j.r.Resolved("c0ffee", 100)
		j.r.Stage(model.Downloading)
		j.r.Stage(model.Downloading) // a repetition is no step
		j.r.Progress(60)
		if now, _ := b.q.Get(d.ID); now.Done != 60 || now.Size != 100 || now.State != model.Downloading || now.Tries != 1 || now.Started.IsZero() {
			t.Errorf("in the middle it is %+v", now)
		}
		j.r.Stage(model.Verifying)
		j.r.Stage(model.Completed) // that is for the queue to say
		j.r.Completed("/store/a")
		b.end("a", nil)
		j.r.Progress(7)
		j.r.Stage(model.Downloading)
		b.expect("")
		if got := b.stored(d.ID); got.State != model.Completed || got.Path != "/store/a" || got.Done != 100 || got.Commit != "c0ffee" || got.Ended.IsZero() {
			t.Errorf("stored as %+v", got)
		}
		var told []string
		for _, e := range b.events {
			c := e.Data.(event.Change)
			told = append(told, fmt.Sprintf("%s>%s", c.From, c.To))
		}
		if got := strings.Join(told, " "); got != ">queued queued>resolving resolving>downloading downloading>verifying verifying>completed" {
			t.Errorf("told: %s", got)
		}
	})
}

func TestWhatIsHereAlreadyCompletesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, queue.Settings{})
		d := b.add("a", 0)
		b.job("a").r.Progress(9)
		b.end("a", nil)
		if got := b.stored(d.ID); got.State != model.Completed || got.Done != 9 {
			t.Errorf("it is %+v", got)
		}
	})
}

func TestWhatWaitsIsSizedAndToldOfAShortage(t *testing.T) {
	inBubble(t, "before its turn", func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1})
		running, waiting := b.add("a", 0), b.add("b", 0)
		b.job("a")
		if d, err := b.q.Sized(t.Context(), waiting.ID, 100, 30); err != nil || d.Size != 100 || d.Done != 30 || b.stored(waiting.ID).Size != 100 {
			t.Errorf("sized: %+v, %v", d, err)
		}
		if d, err := b.q.Sized(t.Context(), waiting.ID, 7, 7); err != nil || d.Size != 100 {
			t.Errorf("what is known was replaced: %+v, %v", d, err)
		}
		if _, err := b.q.Sized(t.Context(), running.ID, 100, 0); err == nil {
			t.Error("one that runs was sized from outside")
		}
		if err := b.q.Short(t.Context(), running.ID, io.ErrShortWrite); err == nil {
			t.Error("one that runs was paused from outside")
		}
		if err := b.q.Short(t.Context(), waiting.ID, errors.New("1 GiB too few")); err != nil {
			t.Fatal(err)
		}
		if d := b.stored(waiting.ID); d.State != model.Paused || d.Pause != model.BySpace || d.Reason != "1 GiB too few" || d.Class != model.DiskFull.String() {
			t.Errorf("short: %+v", d)
		}
		b.q.SpaceBack()
		b.end("a", nil)
		b.job("b")
		if err := b.q.Short(t.Context(), "nobody", io.EOF); err == nil {
			t.Error("one that does not exist was paused")
		}
	})
}

func TestTheSameIsAddedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1})
		b.add("busy", model.HighPriority)
		want := model.Download{Model: model.ID{Name: "a"}, Revision: "v1", Include: []string{"x", "y"}}
		var all sync.WaitGroup
		added := make(chan string, 20)
		fresh := make(chan bool, 20)
		for i := range 20 {
			all.Go(func() {
				d := want
				if i%2 == 0 {
					d.Include = []string{"y", "x", "y"} // the same set
				}
				got, was, err := b.q.Add(t.Context(), d)
				if err != nil {
					t.Error(err)
				}
				added <- got.ID
				if !was {
					fresh <- true
				}
			})
		}
		all.Wait()
		if len(fresh) != 1 {
			t.Errorf("%d of 20 were new", len(fresh))
		}
		first := <-added
		for range 19 {
			if id := <-added; id != first {
				t.Errorf("two of them: %s, %s", first, id)
			}
		}
		for _, other := range []model.Download{
			{Model: model.ID{Name: "a"}},
			{Model: model.ID{Name: "a"}, Revision: "v1"},
			{Model: model.ID{Name: "a"}, Revision: "v1", Exclude: []string{"x", "y"}},
			{Model: model.ID{Name: "a", Scheme: model.Folder}, Revision: "v1", Include: []string{"x", "y"}},
		} {
			if _, was, err := b.q.Add(t.Context(), other); was || err != nil {
				t.Errorf("%+v is taken for the same (%v)", other, err)
			}
		}
		want.Priority = model.LowPriority
		if d, was, err := b.q.Add(t.Context(), want); !was || err != nil || d.Priority != model.NormalPriority {
			t.Errorf("asked for with less: %v, %t, %v", d.Priority, was, err)
		}
		want.Priority = model.HighPriority
		if d, was, err := b.q.Add(t.Context(), want); !was || err != nil || d.Priority != model.HighPriority || b.stored(d.ID).Priority != model.HighPriority {
			t.Errorf("asked for with more: %v, %t, %v", d.Priority, was, err)
		}
		if _, err := b.q.Cancel(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		if d, was, err := b.q.Add(t.Context(), want); was || err != nil || d.ID == first {
			t.Errorf("what is over is answered with: %v, %t, %v", d.ID, was, err)
		}
	})
}

func TestAFullQueueRefusesAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1, Size: 3})
		for _, name := range []string{"runs", "a", "b", "c"} {
			b.add(name, 0)
		}
		_, _, err := b.q.Add(t.Context(), model.Download{Model: model.ID{Name: "d"}})
		e, ok := errors.AsType[*model.Error](err)
		if !errors.Is(err, queue.ErrFull) || !ok || e.Class != model.RateLimited || e.After <= 0 {
			t.Errorf("got %v", err)
		}
		if _, was, err := b.q.Add(t.Context(), model.Download{Model: model.ID{Name: "a"}}); !was || err != nil {
			t.Errorf("what waits already: %t, %v", was, err)
		}
		b.expect("runs:resolving a:queued b:queued c:queued")
		b.end("runs", nil)
		b.add("d", 0)
	})
}

func TestAFullQueueIsFullAlsoForThoseThatComeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, queue.Settings{Size: 3}, nil)
		errs := make([]error, 20)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() {
				_, _, errs[i] = b.q.Add(t.Context(), model.Download{Model: model.ID{Name: fmt.Sprint(i)}})
			})
		}
		all.Wait()
		full := 0
		for _, err := range errs {
			if errors.Is(err, queue.ErrFull) {
				full++
			}
		}
		if full != 17 || len(b.q.List()) != 3 {
			t.Errorf("%d were refused, %d are there", full, len(b.q.List()))
		}
	})
}

func TestRequestsThatMakeNoSenseAreRefused(t *testing.T) {
	b := newBench(t, queue.Settings{}, nil)
	a := model.ID{Name: "a"}
	for _, d := range []model.Download{{}, {Model: a, Limit: -1}, {Model: a, Connections: -1}, {Model: a, MaxRetries: -2}, {Model: a, Priority: 3}, {Model: a, Priority: -2}} {
		if _, _, err := b.q.Add(t.Context(), d); model.ClassOf(err) != model.Usage {
			t.Errorf("%+v: %v", d, err)
		}
	}
	if _, err := b.q.Limit(t.Context(), -1, queue.All); model.ClassOf(err) != model.Usage {
		t.Errorf("limit: %v", err)
	}
	if _, err := b.q.Prioritize(t.Context(), 9, queue.All); model.ClassOf(err) != model.Usage {
		t.Errorf("priority: %v", err)
	}
	if _, err := b.q.Pause(t.Context(), "dl_unknown"); model.ClassOf(err) != model.NotFound {
		t.Errorf("unknown: %v", err)
	}
	if became, err := b.q.Cancel(t.Context()); became != nil || err != nil {
		t.Errorf("nobody named: %v, %v", became, err)
	}
}

func TestOrderIsPriorityThenArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1})
		b.add("first", 0)
		b.add("low", model.LowPriority)
		b.add("n1", 0)
		b.add("high", model.HighPriority)
		b.add("n2", 0)
		b.expect("first:resolving high:queued n1:queued n2:queued low:queued")
		must[[]model.Download](t)(b.q.Prioritize(t.Context(), model.HighPriority, b.q.List()[3].ID)) // n2
		for _, name := range []string{"first", "high", "n2", "n1", "low"} {
			b.end(name, nil)
		}
		if got := strings.Join(b.begun, " "); got != "first high n2 n1 low" {
			t.Errorf("ran in the order %s", got)
		}
	})
}

func TestALowOneIsNotStarvedByThoseThatCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1, Ageing: 30 * time.Minute})
		b.add("high-0", model.HighPriority)
		b.add("low", model.LowPriority)
		begun := time.Now()
		for i := 1; ; i++ { // each takes a minute, and another one comes meanwhile
			b.add(fmt.Sprintf("high-%d", i), model.HighPriority)
			time.Sleep(time.Minute)
			b.end(b.running()[0], nil)
			if b.running()[0] == "low" {
				break
			}
			if i > 200 {
				t.Fatal("it never ran")
			}
		}
		if waited := time.Since(begun); waited < 59*time.Minute || waited > 65*time.Minute {
			t.Errorf("it waited %v, want about two spans of ageing", waited)
		}
	})
}

func TestAgeNeverMakesCritical(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1, Ageing: time.Minute})
		b.add("runs", 0)
		b.add("old", 0)
		time.Sleep(24 * time.Hour)
		b.expect("runs:resolving old:queued") // and makes nobody give way
		must[[]model.Download](t)(b.q.Prioritize(t.Context(), model.CriticalPriority, b.q.List()[0].ID))
		b.add("critical", model.CriticalPriority)
		b.expect("runs:resolving critical:queued old:queued")
	})
}

func TestACriticalOneMakesTheLowestYoungestGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 3})
		b.lingers = 500 * time.Millisecond
		b.add("high", model.HighPriority)
		b.add("n1", 0)
		b.add("n2", 0)
		b.add("n3", 0)
		c, _, err := b.q.Add(t.Context(), model.Download{Model: model.ID{Name: "critical"}, Priority: model.CriticalPriority})
		if err != nil {
			t.Fatal(err)
		}
		settle()
		b.expect("high:resolving n1:resolving critical:queued n2:paused(preempted) n3:queued")
		if got := b.running(); len(got) != 3 {
			t.Errorf("a place was given away before it was free: %v run", got)
		}
		time.Sleep(b.lingers)
		settle()
		b.expect("critical:resolving high:resolving n1:resolving n2:paused(preempted) n3:queued")
		second, _, err := b.q.Add(t.Context(), model.Download{Model: model.ID{Name: "critical2"}, Priority: model.CriticalPriority})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		b.expect("critical:resolving critical2:resolving high:resolving n1:paused(preempted) n2:paused(preempted) n3:queued")
		b.end("critical", nil)
		b.expect("critical2:resolving high:resolving n1:resolving n2:paused(preempted) n3:queued")
		b.end("critical2", nil)
		b.expect("high:resolving n1:resolving n2:resolving n3:queued")
		if b.stored(c.ID).State != model.Completed || b.stored(second.ID).State != model.Completed {
			t.Error("the critical ones have not completed")
		}
	})
}

func TestCriticalOnesWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1})
		b.add("c1", model.CriticalPriority)
		b.add("c2", model.CriticalPriority)
		b.expect("c1:resolving c2:queued")
	})
}

func TestControl(t *testing.T) {
	ctx := context.Background()
	inBubble(t, "what is paused stays so until it is resumed", func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1})
		a, c := b.add("a", 0), b.add("c", 0)
		got := must[[]model.Download](t)(b.q.Pause(ctx, a.ID))
		if stands(got) != "a:paused(user)" {
			t.Errorf("answered %s", stands(got))
		}
		settle()
		b.expect("c:resolving a:paused(user)")
		_, err := b.q.Pause(ctx, a.ID)
		refused(t, err, model.Paused, "resume", "cancel", "prioritize", "limit")
		must[[]model.Download](t)(b.q.Pause(ctx, c.ID))
		time.Sleep(time.Hour)
		b.expect("a:paused(user) c:paused(user)")
		must[[]model.Download](t)(b.q.Resume(ctx, c.ID))
		settle()
		b.expect("c:resolving a:paused(user)")
		if d, _ := b.q.Get(c.ID); d.Tries != 2 {
			t.Errorf("started %d times", d.Tries)
		}
	})
	inBubble(t, "of two resumes at once one acts and the other is told", func(t *testing.T) {
		b := start(t, queue.Settings{})
		a := b.add("a", 0)
		must[[]model.Download](t)(b.q.Pause(ctx, a.ID))
		errs := make([]error, 2)
		var both sync.WaitGroup
		for i := range errs {
			both.Go(func() { _, errs[i] = b.q.Resume(ctx, a.ID) })
		}
		both.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("they answered %v and %v", errs[0], errs[1])
		}
		refused(t, errors.Join(errs...), model.Queued, "pause", "cancel", "prioritize", "limit")
		settle()
		b.expect("a:resolving")
	})
	inBubble(t, "what runs cannot be resumed and runs on", func(t *testing.T) {
		b := start(t, queue.Settings{})
		a := b.add("a", 0)
		b.job("a").r.Stage(model.Downloading)
		_, err := b.q.Resume(ctx, a.ID)
		refused(t, err, model.Downloading, "pause", "cancel", "prioritize", "limit")
		settle()
		b.expect("a:downloading")
	})
	inBubble(t, "a pause while verifying stops it, and what it says afterwards counts for nothing", func(t *testing.T) {
		b := start(t, queue.Settings{})
		b.lingers = 900 * time.Millisecond
		a := b.add("a", 0)
		j := b.job("a")
		j.r.Stage(model.Verifying)
		must[[]model.Download](t)(b.q.Pause(ctx, a.ID))
		synctest.Wait()
		if j.ctx.Err() == nil {
			t.Error("it was not told to stop")
		}
		j.r.Stage(model.Downloading)
		j.r.Progress(5)
		j.r.Resolved("late", 5)
		must[[]model.Download](t)(b.q.Resume(ctx, a.ID)) // while it is still ending: must not run twice
		settle()
		b.expect("a:queued")
		time.Sleep(time.Second)
		b.expect("a:resolving")
		if d, _ := b.q.Get(a.ID); d.Done != 0 || d.Commit != "" {
			t.Errorf("it listened: %+v", d)
		}
	})
	inBubble(t, "a run that completes in the moment of its pause is paused", func(t *testing.T) {
		b := start(t, queue.Settings{})
		a := b.add("a", 0)
		j := b.job("a")
		go func() { _, _ = b.q.Pause(ctx, a.ID) }()
		synctest.Wait() // being stored
		j.end <- nil
		settle()
		b.expect("a:paused(user)")
	})
	inBubble(t, "a cancel while resolving, queued, paused or retrying ends it for good", func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 2})
		retrying, resolving := b.add("retrying", 0), b.add("resolving", 0)
		b.end("retrying", reset)
		paused := b.add("paused", 0)
		must[[]model.Download](t)(b.q.Pause(ctx, paused.ID))
		b.add("busy", model.HighPriority)
		queued := b.add("queued", 0)
		for _, d := range []model.Download{resolving, queued, paused, retrying} {
			must[[]model.Download](t)(b.q.Cancel(ctx, d.ID))
			if got := b.stored(d.ID); got.State != model.Stopped || got.Ended.IsZero() || got.Pause != "" || !got.NextTry.IsZero() {
				t.Errorf("%s is stored as %+v", d.Model.Name, got)
			}
		}
		time.Sleep(time.Hour)
		b.expect("busy:resolving")
		for _, act := range []func(context.Context, ...string) ([]model.Download, error){b.q.Cancel, b.q.Pause, b.q.Resume} {
			_, err := act(ctx, paused.ID)
			refused(t, err, model.Stopped)
		}
		_, err := b.q.Prioritize(ctx, model.HighPriority, paused.ID)
		refused(t, err, model.Stopped)
		_, err = b.q.Limit(ctx, 5, paused.ID)
		refused(t, err, model.Stopped)
	})
	inBubble(t, "what is cancelled and asked for anew waits until the old run has ended", func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 2})
		b.lingers = time.Second
		a := b.add("a", 0)
		must[[]model.Download](t)(b.q.Cancel(ctx, a.ID))
		b.add("a", 0)
		b.expect("a:queued")
		time.Sleep(time.Second)
		settle()
		b.expect("a:resolving")
	})
	inBubble(t, "all are paused and resumed at once", func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 2})
		for i := range 100 {
			b.add(fmt.Sprintf("m%02d", i), 0)
		}
		before, begun := b.stands(), len(b.begun)
		if got := must[[]model.Download](t)(b.q.Pause(ctx, queue.All)); len(got) != 100 {
			t.Errorf("%d were paused", len(got))
		}
		if got := must[[]model.Download](t)(b.q.Pause(ctx, queue.All)); len(got) != 0 {
			t.Errorf("%d were paused twice", len(got))
		}
		settle()
		if len(b.running()) > 0 || len(b.begun) != begun {
			t.Errorf("%v run, %d were started meanwhile", b.running(), len(b.begun)-begun)
		}
		must[[]model.Download](t)(b.q.Resume(ctx, queue.All))
		settle()
		if got := b.stands(); got != before {
			t.Errorf("got  %s\nwant %s", got, before)
		}
	})
	inBubble(t, "of several ids the good ones are done and the bad ones named", func(t *testing.T) {
		b := start(t, queue.Settings{})
		a := b.add("a", 0)
		got, err := b.q.Pause(ctx, "dl_x", a.ID, a.ID, "dl_y")
		if stands(got) != "a:paused(user)" || model.ClassOf(err) != model.NotFound || !strings.Contains(err.Error(), "dl_x") || !strings.Contains(err.Error(), "dl_y") {
			t.Errorf("got %s, %v", stands(got), err)
		}
	})
	inBubble(t, "limits and priorities reach the one who runs", func(t *testing.T) {
		b := start(t, queue.Settings{})
		a := b.add("a", 0)
		var heard []string
		b.job("a").r.Follow(func(d model.Download) { heard = append(heard, fmt.Sprintf("%d %v", d.Limit, d.Priority)) })
		must[[]model.Download](t)(b.q.Limit(ctx, 7, a.ID))
		must[[]model.Download](t)(b.q.Prioritize(ctx, model.HighPriority, a.ID))
		b.job("a").r.Stage(model.Downloading)
		b.end("a", nil)
		if got := strings.Join(heard, ", "); got != "0 normal, 7 normal, 7 high" {
			t.Errorf("heard %s", got)
		}
	})
	inBubble(t, "an action whose context has ended changes nothing", func(t *testing.T) {
		b := start(t, queue.Settings{})
		a := b.add("a", 0)
		ended, end := context.WithCancel(ctx)
		end()
		if _, err := b.q.Pause(ended, a.ID); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if _, _, err := b.q.Add(ended, model.Download{Model: model.ID{Name: "b"}}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		b.expect("a:resolving")
	})
	inBubble(t, "an action whose context ends while it is stored goes through", func(t *testing.T) {
		b := start(t, queue.Settings{})
		a := b.add("a", 0)
		ended, end := context.WithTimeout(ctx, time.Millisecond/2) // a save takes longer
		defer end()
		if _, err := b.q.Pause(ended, a.ID); err != nil || ended.Err() == nil {
			t.Errorf("got %v", err)
		}
		b.expect("a:paused(user)")
		if got := b.stored(a.ID); got.State != model.Paused {
			t.Errorf("stored is %s", got.State)
		}
		ended, end = context.WithTimeout(ctx, time.Millisecond/2)
		defer end()
		if _, _, err := b.q.Add(ended, model.Download{Model: model.ID{Name: "c"}}); err != nil || ended.Err() == nil {
			t.Errorf("got %v", err)
		}
	})
	inBubble(t, "what comes while a change is stored counts", func(t *testing.T) {
		b := start(t, queue.Settings{})
		a := b.add("a", 0)
		j := b.job("a")
		j.r.Progress(1)
		go j.r.Stage(model.Downloading)
		synctest.Wait() // being stored
		j.r.Progress(2)
		settle()
		if d, _ := b.q.Get(a.ID); d.State != model.Downloading || d.Done != 2 {
			t.Errorf("it is %+v", d)
		}
	})
	inBubble(t, "a model is found by its revision, or by any when none is named", func(t *testing.T) {
		b := start(t, queue.Settings{})
		id := model.ID{Name: "a"}
		if _, _, err := b.q.Add(ctx, model.Download{Model: id, Revision: "v1"}); err != nil {
			t.Fatal(err)
		}
		for revision, want := range map[string]bool{"": true, "v1": true, "v2": false} {
			if d, ok := b.q.Find(id, revision); ok != want || ok && d.Revision != "v1" {
				t.Errorf("%q: %v, %t", revision, d, ok)
			}
		}
		if _, ok := b.q.Find(model.ID{Name: "b"}, ""); ok {
			t.Error("found what is not there")
		}
	})
}

func TestFailures(t *testing.T) {
	for class := model.Other; class <= model.Offline; class++ {
		inBubble(t, class.String(), func(t *testing.T) {
			b := start(t, queue.Settings{})
			a := b.add("a", 0)
			b.end("a", &model.Error{Op: "fetch", Class: class, Err: io.ErrUnexpectedEOF})
			want := model.Failed
			switch class {
			case model.Timeout, model.Reset, model.Truncated, model.ServerError, model.RateLimited, model.Other:
				want = model.Retrying
			case model.DiskFull:
				want = model.Paused
			}
			got := b.stored(a.ID)
			if got.State != want || got.Class != class.String() || !strings.Contains(got.Reason, "unexpected EOF") || got.Ended.IsZero() == got.State.Final() {
				t.Errorf("it is %+v, want %s", got, want)
			}
		})
	}
	inBubble(t, "tries again later and later, and gives up after so many tries without progress", func(t *testing.T) {
		b := start(t, queue.Settings{Retry: queue.RetryPolicy{Max: 3, Base: time.Second, Factor: 10, MaxDelay: 50 * time.Second}})
		a := b.add("a", 0)
		for i, wait := range []time.Duration{time.Second, 10 * time.Second, 50 * time.Second} {
			b.job("a").end <- reset
			time.Sleep(10 * time.Millisecond)
			d, _ := b.q.Get(a.ID)
			if d.State != model.Retrying || d.Retries != i+1 {
				t.Fatalf("try %d: %+v", i, d)
			}
			time.Sleep(wait - 20*time.Millisecond)
			b.expect("a:retrying")
			settle()
			b.expect("a:resolving")
		}
		b.end("a", reset)
		if got := b.stored(a.ID); got.State != model.Failed || got.Tries != 4 {
			t.Errorf("it is %+v", got)
		}
		retries := 0
		for _, e := range b.events {
			if r, ok := e.Data.(event.Retry); ok {
				retries++
				if r.Host != "hub.example" || r.Class != model.Reset || strings.Contains(r.Error, "secret") {
					t.Errorf("told %+v", r)
				}
			}
		}
		if retries != 3 {
			t.Errorf("%d retries were told", retries)
		}
	})
	inBubble(t, "counts anew after progress", func(t *testing.T) {
		b := start(t, queue.Settings{Retry: queue.RetryPolicy{Max: 1}})
		a := b.add("a", 0)
		for i := range 10 {
			b.job("a").r.Progress(model.Bytes(i + 1))
			b.end("a", reset)
			time.Sleep(time.Second)
			if d, _ := b.q.Get(a.ID); d.State != model.Resolving || d.Retries != 1 {
				t.Fatalf("try %d: %+v", i, d)
			}
		}
		b.end("a", reset)
		if got := b.stored(a.ID); got.State != model.Failed {
			t.Errorf("it is %+v", got)
		}
	})
	inBubble(t, "waits as long as the server asks", func(t *testing.T) {
		b := start(t, queue.Settings{Retry: queue.RetryPolicy{MaxDelay: time.Second}})
		b.add("a", 0)
		b.job("a").end <- &model.Error{Op: "fetch", Class: model.RateLimited, After: time.Hour}
		time.Sleep(time.Hour)
		b.expect("a:retrying")
		settle()
		b.expect("a:resolving")
	})
	inBubble(t, "does not try again when asked not to", func(t *testing.T) {
		b := start(t, queue.Settings{})
		d, _, err := b.q.Add(t.Context(), model.Download{Model: model.ID{Name: "a"}, MaxRetries: -1})
		if err != nil {
			t.Fatal(err)
		}
		settle()
		b.end("a", reset)
		if got := b.stored(d.ID); got.State != model.Failed {
			t.Errorf("it is %s", got.State)
		}
	})
	inBubble(t, "gives its place to others while it waits, and a resume ends the wait", func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1, Retry: queue.RetryPolicy{Base: time.Hour, MaxDelay: time.Hour}})
		a := b.add("a", 0)
		b.add("b", 0)
		b.end("a", reset)
		b.expect("b:resolving a:retrying")
		must[[]model.Download](t)(b.q.Resume(t.Context(), a.ID))
		if d, _ := b.q.Get(a.ID); d.State != model.Queued || d.Retries != 0 {
			t.Errorf("it is %+v", d)
		}
	})
	inBubble(t, "waits for space with the figures, and goes on when it is back", func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 2})
		a := b.add("a", 0)
		u := b.add("u", 0)
		must[[]model.Download](t)(b.q.Pause(t.Context(), u.ID))
		b.end("a", diskFull)
		b.expect("a:paused(no space) u:paused(user)")
		if got := b.stored(a.ID); !strings.Contains(got.Reason, "14.2 GiB needed") {
			t.Errorf("the reason is %q", got.Reason)
		}
		time.Sleep(time.Hour)
		b.expect("a:paused(no space) u:paused(user)")
		b.q.SpaceBack()
		settle()
		b.expect("a:resolving u:paused(user)")
		b.end("a", diskFull)
		b.expect("a:paused(no space) u:paused(user)") // SpaceBack is not remembered
		must[[]model.Download](t)(b.q.Pause(t.Context(), a.ID))
		b.q.SpaceBack()
		settle()
		b.expect("a:paused(user) u:paused(user)")
	})
}

func TestSettingsActAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1})
		b.add("n1", 0)
		b.add("low", model.LowPriority)
		b.add("n2", 0)
		b.add("high", model.HighPriority)
		b.q.Configure(queue.Settings{Concurrent: 4})
		settle()
		b.expect("high:resolving n1:resolving n2:resolving low:resolving")
		b.q.Configure(queue.Settings{Concurrent: 2})
		settle()
		b.expect("high:resolving n1:resolving n2:queued low:queued")
		if got := b.running(); !slices.Equal(got, []string{"high", "n1"}) {
			t.Errorf("%v run", got)
		}
		time.Sleep(20 * time.Minute)
		b.add("n3", 0)
		b.expect("high:resolving n1:resolving n2:queued n3:queued low:queued")
		b.q.Configure(queue.Settings{Concurrent: 2, Ageing: time.Minute})
		b.expect("high:resolving n1:resolving n2:queued low:queued n3:queued")
	})
}

func TestAFailingLedger(t *testing.T) {
	broken := errors.New("disk on fire")
	inBubble(t, "refuses actions, and nothing changes", func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1})
		a, c := b.add("a", 0), b.add("c", 0)
		told := len(b.events)
		b.keep.fail(broken)
		for name, act := range map[string]func() ([]model.Download, error){
			"pause":      func() ([]model.Download, error) { return b.q.Pause(t.Context(), a.ID) },
			"cancel":     func() ([]model.Download, error) { return b.q.Cancel(t.Context(), c.ID) },
			"prioritize": func() ([]model.Download, error) { return b.q.Prioritize(t.Context(), 2, c.ID) },
			"all":        func() ([]model.Download, error) { return b.q.Pause(t.Context(), queue.All) },
		} {
			if got, err := act(); !errors.Is(err, broken) || len(got) > 0 {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
		if _, _, err := b.q.Add(t.Context(), model.Download{Model: model.ID{Name: "x"}}); !errors.Is(err, broken) {
			t.Errorf("add: %v", err)
		}
		settle()
		b.expect("a:resolving c:queued")
		if len(b.events) != told {
			t.Errorf("told %+v", b.events[told:])
		}
		b.keep.fail(nil)
		b.add("x", 0)
		b.expect("a:resolving c:queued x:queued")
	})
	inBubble(t, "delays what happens by itself until it can be stored", func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1})
		a := b.add("a", 0)
		b.add("c", 0)
		b.keep.fail(broken)
		b.end("a", nil)
		b.ended("a")
		time.Sleep(10 * time.Minute)
		b.expect("a:resolving c:queued")
		b.keep.fail(nil)
		time.Sleep(30 * time.Second)
		settle()
		if got := b.stored(a.ID); got.State != model.Completed {
			t.Errorf("it is %s", got.State)
		}
		b.expect("c:resolving")
	})
	inBubble(t, "delays starts, retries and pre-emption", func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1})
		b.add("n", 0)
		b.end("n", reset)
		b.keep.fail(broken)
		time.Sleep(time.Minute)
		b.expect("n:retrying")
		b.keep.fail(nil)
		time.Sleep(time.Minute)
		b.expect("n:resolving")
		c := b.add("c", 0)
		must[[]model.Download](t)(b.q.Prioritize(t.Context(), model.CriticalPriority, c.ID))
		b.keep.fail(broken)
		time.Sleep(time.Minute)
		b.keep.fail(nil)
		time.Sleep(time.Minute)
		b.expect("c:resolving n:paused(preempted)")
	})
	inBubble(t, "does not make it forget that space is back", func(t *testing.T) {
		b := start(t, queue.Settings{})
		b.add("a", 0)
		b.end("a", diskFull)
		b.keep.fail(broken)
		b.q.SpaceBack()
		time.Sleep(time.Minute)
		b.expect("a:paused(no space)")
		b.keep.fail(nil)
		time.Sleep(time.Minute)
		b.expect("a:resolving")
	})
	inBubble(t, "does not keep Run from ending", func(t *testing.T) {
		b := start(t, queue.Settings{Concurrent: 1})
		b.add("a", 0)
		b.keep.fail(broken)
		b.stop()
		b.keep.fail(nil)
	})
}

// ended fails the test if a model still runs.
func (b *bench) ended(name string) {
	b.t.Helper()
	if slices.Contains(b.running(), name) {
		b.t.Errorf("%s still runs", name)
	}
}

// reopened is a queue over what another one left, loaded and not yet running.
func reopened(t testing.TB, keep *memory, s queue.Settings) *bench {
	b := newBench(t, s, keep)
	if err := b.q.Load(context.Background()); err != nil {
		t.Fatal(err)
	}
	return b
}

// variety is a queue with a download in every unfinished state.
func variety(t testing.TB) *bench {
	b := start(t, queue.Settings{Concurrent: 3, Retry: queue.RetryPolicy{Base: time.Hour, MaxDelay: time.Hour}})
	ctx := context.Background()
	b.add("retrying", 0)
	b.end("retrying", reset)
	b.add("full", 0)
	b.end("full", diskFull)
	b.add("verifying", 0)
	b.job("verifying").r.Stage(model.Verifying)
	b.add("downloading", model.HighPriority)
	b.job("downloading").r.Resolved("c0ffee", 100)
	b.job("downloading").r.Stage(model.Downloading)
	preempted := b.add("preempted", model.LowPriority)
	user := b.add("user", 0)
	must[[]model.Download](t)(b.q.Pause(ctx, user.ID))
	b.add("low", model.LowPriority)
	b.add("critical", model.CriticalPriority)
	settle()
	if d, _ := b.q.Get(preempted.ID); d.Pause != model.ByPreemption {
		t.Fatalf("not what was meant: %s", b.stands())
	}
	return b
}

const varietyAgain = "critical:queued downloading:queued retrying:queued full:queued verifying:queued preempted:queued low:queued user:paused(user)"

func TestRunEndsCleanlyAndAnotherGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := variety(t)
		b.lingers = 700 * time.Millisecond
		begun := time.Now()
		b.stop()
		if took := time.Since(begun); took < b.lingers || took > time.Second {
			t.Errorf("it took %v", took)
		}
		if got := b.running(); len(got) > 0 {
			t.Errorf("%v still run", got)
		}
		b.expect("critical:queued downloading:queued verifying:queued preempted:paused(preempted) low:queued retrying:retrying full:paused(no space) user:paused(user)")
		again := reopened(t, b.keep, queue.Settings{Concurrent: 1})
		again.expect(varietyAgain)
		if d, ok := again.q.Find(model.ID{Name: "downloading"}, ""); !ok || d.Commit != "c0ffee" || d.Size != 100 || d.Priority != model.HighPriority {
			t.Errorf("it forgot: %+v", d)
		}
		again.start()
		defer func() { again.stop() }()
		for _, name := range []string{"critical", "downloading", "retrying", "full", "verifying", "preempted", "low"} {
			settle()
			again.end(name, nil)
		}
		again.expect("user:paused(user)")
		if d := again.add("new", 0); d.Order <= 8 {
			t.Errorf("a new one has order %d", d.Order)
		}
	})
}

func TestACrashAtAnyMomentLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := variety(t)
		reopened(t, b.keep.copied(), queue.Settings{}).expect(varietyAgain)
	})
}

func TestActionsWorkBeforeAndAfterRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, queue.Settings{}, nil)
		a := b.add("a", 0)
		c := b.add("c", 0)
		must[[]model.Download](t)(b.q.Pause(t.Context(), a.ID))
		b.start()
		settle()
		b.expect("c:resolving a:paused(user)")
		b.stop()
		b.add("d", 0)
		must[[]model.Download](t)(b.q.Cancel(t.Context(), c.ID))
		b.expect("d:queued a:paused(user)")
	})
}
