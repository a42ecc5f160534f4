package tier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

// A rig is a Cache on a made-up machine: files have sizes and no content, and what is in memory is a
// table. Without a call of its own it drops nothing.
type rig struct {
	*Cache
	dir string

	mu        sync.Mutex
	files     map[model.ID][]string
	available model.Bytes
	blind     error             // what Memory answers
	resident  map[string]int64  // by the path of a file
	locked    map[string]int64  //
	refused   error             // what Lock answers
	read      []string          // what was read ahead, in this order
	mapped    map[string]bool   // how
	onStep    func(name string) // called before each MiB that is read, outside the lock
	looks     int               // of the memory and of residency
	idle      int               // tasks that run at idle priority now
	busiest   int               // the most of them
	told      []error
}

func newRig(t testing.TB, s CacheSettings) *rig {
	t.Helper()
	r := &rig{
		dir: t.TempDir(), files: map[model.ID][]string{}, available: model.TiB,
		resident: map[string]int64{}, locked: map[string]int64{}, mapped: map[string]bool{},
	}
	r.Cache = NewCache(CacheNeeds{
		Files: func(id model.ID) ([]string, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if names, ok := r.files[id]; ok {
				return names, nil
			}
			return nil, errors.New("there is no such model")
		},
		Memory: func() (model.Bytes, model.Bytes, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.looks++
			return model.TiB, r.available - sumOf(r.locked), r.blind
		},
		Pages: r,
		Idle: func(ctx context.Context, do func(context.Context) error) error {
			r.change(func() { r.idle++; r.busiest = max(r.busiest, r.idle) })
			defer r.change(func() { r.idle-- })
			return do(ctx)
		},
		Note: func(err error) { r.change(func() { r.told = append(r.told, err) }) },
	}, s)
	return r
}

func sumOf(table map[string]int64) model.Bytes {
	total := model.Bytes(0)
	for _, n := range table {
		total += model.Bytes(n)
	}
	return total
}

func (r *rig) change(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

// model makes a model of files of these sizes in MiB, or other files for it.
func (r *rig) model(t testing.TB, name string, sizes ...int) model.ID {
	t.Helper()
	id := model.ID{Scheme: model.Hub, Name: name}
	var names []string
	for i, size := range sizes {
		at := filepath.Join(r.dir, fmt.Sprintf("%s-%d", strings.ReplaceAll(name, "/", "-"), i))
		_ = os.Remove(at)
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(at, int64(size)*int64(model.MiB)); err != nil {
			t.Fatal(err)
		}
		names = append(names, at)
	}
	r.change(func() { r.files[id] = names })
	return id
}

func (r *rig) Open(name string) (io.ReadCloser, error) { return os.Open(name) }

// pieceOf is how a part of a file is called in what was read.
func pieceOf(name string, off int64) string {
	if off == 0 {
		return filepath.Base(name)
	}
	return fmt.Sprintf("%s+%d", filepath.Base(name), off/int64(model.MiB))
}

func (r *rig) Resident(name string, off, n int64) (int64, int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looks++
	return min(max(r.resident[name]-off, 0), n), n, nil
}

func (r *rig) fill(ctx context.Context, name string, off, n int64, step func(int64) error, each func(done int64)) error {
	if _, err := os.Stat(name); err != nil {
		return err
	}
	for done := int64(0); done < n; {
		if r.onStep != nil {
			r.onStep(name)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(done); err != nil {
			return err
		}
		done = min(n, done+int64(model.MiB))
		r.change(func() {
			r.resident[name] = max(r.resident[name], off+done)
			each(done)
		})
	}
	return nil
}

func (r *rig) Populate(ctx context.Context, name string, off, n int64, mapped bool, step func(int64) error) error {
	r.change(func() { r.read = append(r.read, pieceOf(name, off)); r.mapped[filepath.Base(name)] = mapped })
	return r.fill(ctx, name, off, n, step, func(int64) {})
}

func (r *rig) Lock(ctx context.Context, name string, off, n int64, step func(int64) error) (io.Closer, error) {
	r.change(func() { r.read = append(r.read, pieceOf(name, off)) })
	if r.refused != nil {
		return nil, r.refused
	}
	at := pieceOf(name, off)
	open := closing(func() error { r.change(func() { delete(r.locked, at) }); return nil })
	if err := r.fill(ctx, name, off, n, step, func(done int64) { r.locked[at] = done }); err != nil {
		return nil, errors.Join(err, open())
	}
	return open, nil
}

type closing func() error

func (c closing) Close() error { return c() }

// work reads all that is to be read.
func (r *rig) work(t testing.TB) {
	t.Helper()
	for i := 0; r.readNext(t.Context()); i++ {
		if i > 1000 {
			t.Fatal("there is always something to read")
		}
	}
}

func (r *rig) use(t testing.TB, id model.ID, times int) {
	t.Helper()
	for range times {
		if err := r.Used(id); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *rig) stays(id model.ID) bool {
	held, _ := r.places(id, func(*piece) bool { return true })
	return held != nil
}

// keeping are settings that have everything read.
func keeping(most model.Bytes) CacheSettings {
	return CacheSettings{Enabled: true, Max: most, Preload: true, Map: true, MapFrom: 100 * model.MiB}
}

func TestAModelUsedOftenOutlastsThoseUsedOnce(t *testing.T) {
	r := newRig(t, keeping(25*model.MiB))
	often := r.model(t, "a/often", 10)
	r.use(t, often, 8)
	for i := range 12 {
		r.use(t, r.model(t, fmt.Sprintf("a/once-%d", i), 10), 1)
		if !r.stays(often) {
			t.Fatalf("it had to go for the one after %d others", i)
		}
	}
}

func TestAModelOfThePastGoesForOneThatIsUsedNow(t *testing.T) {
	for _, uses := range []int{1, 5, 15, 1000} {
		r := newRig(t, keeping(6*model.GiB))
		past, now := r.model(t, "a/past", 5<<10), r.model(t, "a/now", 5<<10)
		r.use(t, past, uses)
		r.use(t, now, 40)
		stay := map[model.ID]model.Bytes{}
		kept, err := r.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range kept {
			stay[k.Model] = k.Bytes
		}
		if stay[now] < 4*model.GiB {
			t.Errorf("after %d uses of the one and 40 of the other, %v and %v of them stay", uses, stay[past], stay[now])
		}
	}
}

func TestTheLimit(t *testing.T) {
	set := keeping(40 * model.MiB)
	for promise, c := range map[string]struct {
		change func(*CacheSettings, *rig)
		want   model.Bytes
	}{
		"is max_size_gb": {func(*CacheSettings, *rig) {}, 40 * model.MiB},
		"is model_cache_size_gb where that is less":  {func(s *CacheSettings, _ *rig) { s.Cap = 30 * model.MiB }, 30 * model.MiB},
		"is not more by model_cache_size_gb":         {func(s *CacheSettings, _ *rig) { s.Cap = 50 * model.MiB }, 40 * model.MiB},
		"is half of the memory that is left":         {func(_ *CacheSettings, r *rig) { r.available = 24 * model.MiB }, 12 * model.MiB},
		"is nothing where nothing is left":           {func(_ *CacheSettings, r *rig) { r.available = -5 }, 0},
		"is nothing when it is switched off":         {func(s *CacheSettings, _ *rig) { s.Enabled = false }, 0},
		"stays when the memory is not known":         {func(_ *CacheSettings, r *rig) { r.blind = errors.New("no meminfo") }, 40 * model.MiB},
		"is not raised when the memory is not known": {func(s *CacheSettings, r *rig) { r.blind, s.Max = errors.New("no meminfo"), model.GiB }, 40 * model.MiB},
	} {
		t.Run(promise, func(t *testing.T) {
			r, s := newRig(t, set), set
			c.change(&s, r)
			r.Configure(s)
			r.Configure(s)
			if got := r.Stats().Limit; got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
			if want := min(1, len(r.told)); r.blind != nil && len(r.told) != 1 || len(r.told) != want {
				t.Errorf("told %v", r.told)
			}
		})
	}
}

func TestNeverMoreThanTheLimit(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := keeping(model.Bytes(rapid.IntRange(0, 60).Draw(rt, "max")) * model.MiB)
		s.Lock = rapid.Bool().Draw(rt, "lock")
		r := newRig(t, s)
		var ids []model.ID
		for i, size := range rapid.SliceOfN(rapid.IntRange(0, 40), 1, 8).Draw(rt, "sizes") {
			ids = append(ids, r.model(t, fmt.Sprintf("m/%d", i), size, i%3))
		}
		check := func() {
			st, bytes := r.Stats(), model.Bytes(0)
			pieces := 0
			for _, m := range r.models {
				for _, p := range m.pieces {
					bytes += model.Bytes(p.size)
					pieces++
				}
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			most := min(s.Max, max(0, r.available/2))
			if !s.Enabled {
				most = 0
			}
			if st.Limit > most || bytes > st.Limit || st.Bytes != bytes || sumOf(r.locked) > most || st.Locked > most {
				rt.Fatalf("%+v and %v locked; at most %v may be kept", st, sumOf(r.locked), most)
			}
			if r.policy.EstimatedSize() != pieces {
				rt.Fatalf("the policy keeps %d pieces, the cache %d", r.policy.EstimatedSize(), pieces)
			}
		}
		r.onStep = func(string) {
			if rapid.IntRange(0, 15).Draw(rt, "during") == 0 {
				r.change(func() { r.available = model.Bytes(rapid.IntRange(0, 200).Draw(rt, "available")) * model.MiB })
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"use": func(rt *rapid.T) {
				r.use(t, rapid.SampledFrom(ids).Draw(rt, "model"), rapid.IntRange(1, 20).Draw(rt, "times"))
			},
			"forget":   func(rt *rapid.T) { r.Forget(rapid.SampledFrom(ids).Draw(rt, "model")) },
			"remember": func(rt *rapid.T) { _ = r.Remember(rapid.SampledFrom(ids).Draw(rt, "model"), 3) },
			"read":     func(*rapid.T) { r.readNext(t.Context()) },
			"configure": func(rt *rapid.T) {
				s.Max = model.Bytes(rapid.IntRange(0, 60).Draw(rt, "max")) * model.MiB
				s.Enabled = rapid.IntRange(0, 9).Draw(rt, "enabled") > 0
				s.Lock, s.Headers = rapid.Bool().Draw(rt, "lock"), rapid.Bool().Draw(rt, "headers")
				r.Configure(s)
			},
			"": func(*rapid.T) {
				r.Cache.mu.Lock()
				r.relimit() // the memory may have changed
				r.Cache.mu.Unlock()
				check()
			},
		})
	})
}

func TestReadingStopsWhenTheMemoryGetsShort(t *testing.T) {
	for _, lock := range []bool{false, true} {
		s := keeping(100 * model.MiB)
		s.Lock = lock
		r := newRig(t, s)
		id := r.model(t, "a/b", 50, 30)
		r.onStep = func(name string) {
			if r.resident[name] == int64(20*model.MiB) {
				r.change(func() { r.available = 90 * model.MiB })
			}
		}
		r.use(t, id, 1)
		r.work(t)
		if got, st := sumOf(r.resident), r.Stats(); got > 60*model.MiB || st.Bytes > 45*model.MiB || st.Locked > 45*model.MiB || len(r.told) > 0 {
			t.Errorf("lock %t: %v are read, %v locked, told %v", lock, got, r.locked, r.told)
		}
	}
}

func TestWhatIsLockedDoesNotLowerItsOwnLimit(t *testing.T) {
	s := keeping(100 * model.MiB)
	s.Lock = true
	r := newRig(t, s)
	r.available = 100 * model.MiB
	id := r.model(t, "a/b", 20, 20)
	r.use(t, id, 1)
	r.work(t)
	if st := r.Stats(); !r.stays(id) || st.Locked != 40*model.MiB || sumOf(r.locked) != st.Locked || st.Limit != 50*model.MiB {
		t.Errorf("%+v", st)
	}
	r.Forget(id)
	if st := r.Stats(); len(r.locked) != 0 || st.Locked != 0 || st.Models != 0 {
		t.Errorf("afterwards %v are locked", sumOf(r.locked))
	}
}

func TestALockThatIsRefusedIsToldOnceAndTheModelReadAllTheSame(t *testing.T) {
	s := keeping(100 * model.MiB)
	s.Lock = true
	r := newRig(t, s)
	r.refused = errors.New("RLIMIT_MEMLOCK is too low")
	a, b := r.model(t, "a/a", 10), r.model(t, "a/b", 10)
	r.use(t, a, 1)
	r.use(t, b, 1)
	r.work(t)
	if st := r.Stats(); len(r.told) != 1 || !errors.Is(r.told[0], r.refused) || st.Resident != 20*model.MiB || st.Locked != 0 {
		t.Errorf("%+v, told %v", st, r.told)
	}
	r.refused = nil
	r.Configure(s) // asked for anew
	r.work(t)
	if st := r.Stats(); len(r.told) != 1 || st.Locked != 20*model.MiB {
		t.Errorf("%+v, told %v", st, r.told)
	}
	s.Lock = false
	r.Configure(s)
	if st := r.Stats(); len(r.locked) != 0 || st.Locked != 0 || st.Models != 2 {
		t.Errorf("%+v, locked %v", st, r.locked)
	}
}

func TestTheHitRateIsWhatUsesFoundInMemory(t *testing.T) {
	r := newRig(t, keeping(100*model.MiB))
	id := r.model(t, "a/b", 30, 10)
	if r.Stats().HitRate() != 0 {
		t.Error("there is a rate without any use")
	}
	r.resident[r.files[id][0]] = int64(10 * model.MiB)
	r.use(t, id, 1)
	if st := r.Stats(); st.Uses != 1 || st.Hits != 10*model.MiB || st.Misses != 30*model.MiB || st.HitRate() != 0.25 {
		t.Errorf("a quarter was there: %+v, %v", st, st.HitRate())
	}
	r.work(t)
	r.use(t, id, 1)
	if st := r.Stats(); st.HitRate() != 50.0/80 {
		t.Errorf("then all of it: %+v, %v", st, st.HitRate())
	}
	r.change(func() { clear(r.resident) }) // the kernel needs the memory; the cache still believes in it
	r.use(t, id, 1)
	if st := r.Stats(); st.HitRate() != 50.0/120 || st.Uses != 3 {
		t.Errorf("then nothing: %+v, %v", st, st.HitRate())
	}
	if err := r.Remember(id, 10); err != nil || r.Stats().Uses != 3 {
		t.Errorf("the past counts: %+v, %v", r.Stats(), err)
	}
}

func TestModelsAreReadOneAtATimeAtIdlePriorityTheHottestFirst(t *testing.T) {
	r := newRig(t, keeping(400*model.MiB))
	for i, uses := range []int{2, 14, 7} {
		if err := r.Remember(r.model(t, fmt.Sprintf("m/%d", i), 10+i, 100+i), uses); err != nil {
			t.Fatal(err)
		}
	}
	r.onStep = func(string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.idle != 1 {
			t.Errorf("%d tasks are idle", r.idle)
		}
	}
	if r.Stats().Resident != 0 {
		t.Error("something was read before its time")
	}
	hottest := r.order()
	r.work(t)
	var want []string
	for _, id := range hottest {
		for _, name := range r.files[id] {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			for off := int64(0); off < info.Size(); off += int64(pieceSize) {
				want = append(want, pieceOf(name, off))
			}
		}
	}
	if !slices.Equal(r.read, want) || r.busiest != 1 {
		t.Errorf("read %v, want %v; %d at once", r.read, want, r.busiest)
	}
	if st := r.Stats(); st.Resident != st.Bytes || st.Models != 3 || st.Uses != 0 {
		t.Errorf("%+v", st)
	}
	for name, mapped := range r.mapped {
		if mapped != strings.HasSuffix(name, "-1") {
			t.Errorf("%s: mapped %t", name, mapped)
		}
	}
}

func TestWithoutPreloadNothingIsReadAndResidencyCountsAllTheSame(t *testing.T) {
	s := keeping(100 * model.MiB)
	s.Preload = false
	r := newRig(t, s)
	id := r.model(t, "a/b", 10)
	r.use(t, id, 3)
	r.work(t)
	if st := r.Stats(); len(r.read) != 0 || st.Uses != 3 || !r.stays(id) {
		t.Errorf("read %v, %+v", r.read, st)
	}
	s.Preload, s.Map = true, false
	r.Configure(s)
	r.work(t)
	if len(r.read) != 1 || r.mapped["a-b-0"] {
		t.Errorf("read %v, mapped %v", r.read, r.mapped)
	}
}

func TestWithHeadersOnlyNothingElseIsKept(t *testing.T) {
	s := keeping(100 * model.MiB)
	s.Headers = true
	r := newRig(t, s)
	id := r.model(t, "a/b", 30, 10)
	head := append([]byte{0, 0, 3, 0, 0, 0, 0, 0}, "{}"...) // 196,608 bytes of JSON
	f, err := os.OpenFile(r.files[id][0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(head); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r.use(t, id, 1)
	if st := r.Stats(); st.Bytes != 2*model.MiB || st.Misses != 2*model.MiB {
		t.Errorf("before anything is read: %+v", st)
	}
	r.work(t)
	want := model.Bytes(8+196608) + model.MiB
	if st := r.Stats(); st.Bytes != want || st.Resident != want || sumOf(r.resident) != want {
		t.Errorf("%+v, want %v", st, want)
	}
	r.use(t, id, 1)
	if st := r.Stats(); st.Hits != want || st.Bytes != want {
		t.Errorf("the real length is forgotten: %+v", st)
	}
	s.Headers = false
	r.Configure(s)
	r.work(t)
	if st := r.Stats(); st.Bytes != 40*model.MiB || st.Resident != 40*model.MiB {
		t.Errorf("all of it is to stay now: %+v", st)
	}
	s.Headers = true
	r.Configure(s)
	r.work(t)
	if st := r.Stats(); st.Bytes != want {
		t.Errorf("only headers are to stay again: %+v", st)
	}
}

func TestOtherFilesOfAModelAreReadAnew(t *testing.T) {
	s := keeping(100 * model.MiB)
	s.Lock = true
	r := newRig(t, s)
	id := r.model(t, "a/b", 10)
	r.use(t, id, 1)
	r.work(t)
	r.model(t, "a/b", 20)
	r.change(func() { clear(r.resident) })
	r.use(t, id, 1)
	if len(r.locked) != 0 {
		t.Error("the file of before is still held")
	}
	r.work(t)
	if st := r.Stats(); st.Resident != 20*model.MiB || st.Locked != 20*model.MiB {
		t.Errorf("%+v", st)
	}
	if err := os.Remove(r.files[id][0]); err != nil {
		t.Fatal(err)
	}
	if err := r.Used(id); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "a/b") {
		t.Error(err)
	}
	if err := r.Used(model.ID{Scheme: model.Hub, Name: "no/such"}); err == nil {
		t.Error("a model that is not there was used")
	}
}

func TestAModelThatVanishesWhileItIsReadIsForgotten(t *testing.T) {
	r := newRig(t, keeping(100*model.MiB))
	id := r.model(t, "a/b", 1, 10)
	r.onStep = func(string) { _ = os.Remove(r.files[id][1]) }
	r.use(t, id, 1)
	r.work(t)
	if r.stays(id) || len(r.told) != 1 || !errors.Is(r.told[0], os.ErrNotExist) {
		t.Errorf("told %v", r.told)
	}
}

// run starts Run in a bubble, and ends it with the test.
func (r *rig) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || len(r.locked) != 0 {
			t.Errorf("ended with %v and %v locked", err, r.locked)
		}
	})
	synctest.Wait()
}

// later lets time pass, and all that happens then.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// looked is how often something was looked at.
func (r *rig) looked() (n int) {
	r.change(func() { n = r.looks })
	return n
}

func TestAnIdleCacheLooksAtNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := keeping(100 * model.MiB)
		s.Lock = true
		r := newRig(t, s)
		r.run(t)
		looks := r.looked()
		later(240 * time.Hour)
		if r.looked() != looks {
			t.Errorf("it looked %d times in ten days", r.looked()-looks)
		}
		id := r.model(t, "a/b", 10)
		r.use(t, id, 1)
		synctest.Wait()
		if st := r.Stats(); st.Locked != 10*model.MiB {
			t.Errorf("a use is not acted on at once: %+v", st)
		}
		looks = r.looked()
		later(24 * time.Hour)
		if n := r.looks - looks; n < 100 || n > 1000 {
			t.Errorf("it looked %d times in a day while something is kept", n)
		}
		r.Forget(id)
		later(lookEvery + time.Second)
		looks = r.looked()
		later(240 * time.Hour)
		if r.looked() != looks {
			t.Errorf("it looked %d times after all is forgotten", r.looked()-looks)
		}
		r.use(t, id, 1)
		later(time.Second) // what Run locks now, it must unlock at its end
		if r.Stats().Locked == 0 {
			t.Error("nothing is locked")
		}
	})
}

func TestWhatTheKernelDroppedIsReadAnewWithinMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, keeping(100*model.MiB))
		id, other := r.model(t, "a/b", 30), r.model(t, "a/c", 30)
		r.run(t)
		r.use(t, id, 1)
		r.use(t, other, 1)
		synctest.Wait()
		r.change(func() { r.read = nil; r.resident[r.files[id][0]] = int64(28 * model.MiB) })
		later(lookEvery + time.Second)
		if len(r.read) != 0 {
			t.Error("the loss of a fifteenth is no reason to read")
		}
		r.change(func() { r.resident[r.files[id][0]] = int64(20 * model.MiB) })
		later(lookEvery + time.Second)
		if !slices.Equal(r.read, []string{"a-b-0"}) {
			t.Errorf("read %v", r.read)
		}
		r.change(func() { clear(r.resident); r.available = 70 * model.MiB; r.read = nil })
		later(lookEvery + time.Second)
		if st := r.Stats(); st.Models != 1 || len(r.read) != 1 || st.Resident != 30*model.MiB {
			t.Errorf("with room for one left: %+v, read %v", st, r.read)
		}
		r.change(func() { r.available = model.TiB })
		for _, id := range []model.ID{id, other} {
			r.use(t, id, 1)
			_ = os.Remove(r.files[id][0])
		}
		later(lookEvery + time.Second)
		if st := r.Stats(); st.Models != 0 {
			t.Errorf("models without files are kept: %+v", st)
		}
	})
}

func TestReadingStopsAtOnce(t *testing.T) {
	for promise, stop := range map[string]func(r *rig, id model.ID, cancel func()){
		"when the model is forgotten":    func(r *rig, id model.ID, _ func()) { r.Forget(id) },
		"when the cache is switched off": func(r *rig, _ model.ID, _ func()) { r.Configure(CacheSettings{}) },
		"when preloading is":             func(r *rig, _ model.ID, _ func()) { r.Configure(CacheSettings{Enabled: true, Max: model.GiB}) },
		"when the limit falls":           func(r *rig, _ model.ID, _ func()) { r.Configure(keeping(20 * model.MiB)) },
		"when it ends":                   func(_ *rig, _ model.ID, cancel func()) { cancel() },
		"when another one has more right": func(r *rig, _ model.ID, _ func()) {
			for range 15 {
				_ = r.Used(model.ID{Scheme: model.Hub, Name: "a/other"})
			}
		},
	} {
		for _, lock := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/lock=%t", promise, lock), func(t *testing.T) {
				s := keeping(50 * model.MiB)
				s.Lock = lock
				r := newRig(t, s)
				id := r.model(t, "a/b", 10, 30)
				r.model(t, "a/other", 45)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				steps := 0
				r.onStep = func(name string) {
					if strings.Contains(name, "a-b") {
						if steps++; steps == 15 {
							stop(r, id, cancel)
						}
					}
				}
				r.use(t, id, 1)
				for r.readNext(ctx) {
				}
				if steps != 15 && !strings.Contains(promise, "preloading") || len(r.told) != 0 {
					t.Errorf("%d steps, told %v", steps, r.told)
				}
				if promise == "when it ends" {
					r.unlockAll() // as Run does then
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				for name := range r.locked {
					if strings.Contains(name, "a-b") && !r.stays(id) {
						t.Errorf("%s is still locked", name)
					}
				}
			})
		}
	}
}

func TestACacheMayBeAskedByMany(t *testing.T) {
	s := keeping(60 * model.MiB)
	r := newRig(t, s)
	var ids []model.ID
	for i := range 6 {
		ids = append(ids, r.model(t, fmt.Sprintf("m/%d", i), 10, 5+i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var readers, all sync.WaitGroup
	readers.Go(func() { _ = r.Run(ctx) })
	for i := range 4 {
		all.Go(func() {
			for n := range 50 {
				id := ids[(i*n+n)%len(ids)]
				_ = r.Used(id)
				switch (i + n) % 7 {
				case 0:
					r.Forget(id)
				case 1:
					s := s
					s.Lock, s.Headers = n%2 == 0, n%3 == 0
					r.Configure(s)
				case 2:
					if _, err := r.Look(ctx); err != nil {
						t.Error(err)
					}
				}
				if st := r.Stats(); st.Bytes > st.Limit {
					t.Errorf("%+v", st)
				}
			}
		})
	}
	all.Wait()
	cancel()
	readers.Wait()
	if len(r.locked) != 0 {
		t.Errorf("%v are locked", r.locked)
	}
}
