package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ema/client"
	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/store"
)

// A world is a store and a queue in memory. Its folder is there, and empty.
type world struct {
	path string
	bus  *event.Bus

	mu        sync.Mutex
	models    map[model.ID]store.Model
	downloads []model.Download
	figures   map[string]Figures
	failed    []model.Download
	tiers     []Tier
	uses      map[model.ID]Use
	moves     []client.ModelMove
	plan      store.Removal
	broken    error         // of every look at the store
	gate      chan struct{} // when there is one, looks at everything wait for it

	scans, plans atomic.Int64
	used         atomic.Uint64
}

func newWorld(tb testing.TB) *world {
	w := &world{
		path: tb.TempDir(), bus: event.New(0), models: map[model.ID]store.Model{}, figures: map[string]Figures{},
		uses: map[model.ID]Use{},
	}
	w.tiers = []Tier{{Tier: model.Hot, Path: w.path, State: client.TierReady, Volume: Volume{
		Total: 100 * model.GiB, Used: 25 * model.GiB, Available: 75 * model.GiB, Reserve: 5 * model.GiB,
	}}}
	return w
}

func (w *world) Path() string { return w.path }

func (w *world) Snapshot(id model.ID, commit string) string {
	return "/hub/" + id.DirName() + "/" + commit
}

func (w *world) Models(context.Context) ([]store.Model, error) {
	w.scans.Add(1)
	w.mu.Lock()
	gate := w.gate
	w.mu.Unlock()
	if gate != nil {
		<-gate
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []store.Model
	for _, m := range w.models {
		all = append(all, m)
	}
	return all, w.broken
}

func (w *world) Model(id model.ID) (store.Model, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, ok := w.models[id]
	if !ok {
		return m, fs.ErrNotExist
	}
	return m, w.broken
}

func (w *world) PlanCollect(time.Duration, time.Time) (store.Removal, error) {
	w.plans.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.plan, nil
}

func (w *world) List() []model.Download {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.downloads)
}

func (w *world) Use(id model.ID) Use {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.uses[id]
}

func (w *world) Uses() uint64 { return w.used.Load() }

// use counts a use of a model.
func (w *world) use(id model.ID, u Use) {
	w.do(func() { w.uses[id] = u })
	w.used.Add(1)
}

// do changes the world without a word.
func (w *world) do(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// put stores a model, and tells.
func (w *world) put(m store.Model) {
	w.do(func() {
		w.models[m.ID] = m
		w.forgive(m.ID)
	})
	w.bus.Tell(event.Event{Kind: event.KindStored, Model: m.ID, Data: event.Stored{Why: "repaired"}})
}

// drop removes a model, and tells.
func (w *world) drop(id model.ID) {
	w.do(func() {
		delete(w.models, id)
		w.forgive(id)
	})
	w.bus.Tell(event.Event{Kind: event.KindStored, Model: id, Data: event.Stored{Why: "removed"}})
}

func (w *world) forgive(id model.ID) {
	w.failed = slices.DeleteFunc(w.failed, func(d model.Download) bool { return d.Model == id })
}

// move puts a download into the queue, or takes a final one out, and tells.
func (w *world) move(d model.Download) {
	w.do(func() {
		w.downloads = slices.DeleteFunc(w.downloads, func(other model.Download) bool { return other.ID == d.ID })
		w.forgive(d.Model)
		if !d.State.Final() {
			w.downloads = append(w.downloads, d)
		} else if d.State == model.Failed {
			w.failed = append(w.failed, d)
		}
	})
	w.bus.Tell(event.Event{Kind: event.KindState, Download: d.ID, Model: d.Model, Data: event.Change{To: d.State, Reason: d.Reason}})
}

// settings are of a Models that looks at this world.
func (w *world) settings(ttl time.Duration) Settings {
	return Settings{
		Store: w, Downloads: w, Events: w.bus, Caching: ttl > 0, TTL: ttl,
		Figures: func(id string) (Figures, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			f, ok := w.figures[id]
			return f, ok
		},
		Tiers: func() ([]Tier, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.tiers), nil
		},
		Uses: w,
		Moves: func() []client.ModelMove {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.moves)
		},
		Refuse: refuse,
	}
}

// naive is an answer that was computed from nothing but the world as it is.
func (w *world) naive() *Models {
	set := w.settings(0)
	w.do(func() { set.Failed = slices.Clone(w.failed) })
	return New(set)
}

func refuse(w http.ResponseWriter, _ *http.Request, err error) {
	status := http.StatusInternalServerError
	if model.ClassOf(err) == model.NotFound {
		status = http.StatusNotFound
	}
	http.Error(w, err.Error(), status)
}

// start runs m until stop, within a bubble.
func start(m *Models) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			panic(err)
		}
	}
}

// answered is what a handler answers to a request with these headers, in pairs.
func answered(serve http.HandlerFunc, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	serve(w, r)
	return w
}

// ask is the decoded answer.
func ask[T any](tb testing.TB, serve http.HandlerFunc) (v T) {
	tb.Helper()
	w := answered(serve)
	if w.Code != http.StatusOK {
		tb.Fatalf("answered %d: %s", w.Code, w.Body)
	}
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		tb.Fatal(err)
	}
	return v
}

// availability is how a model is said to stand; "" when it is not listed.
func availability(tb testing.TB, m *Models, id model.ID) string {
	tb.Helper()
	return ask[client.Statuses](tb, m.ServeStatus).Models[id.Public()].Availability
}

func hub(name string) model.ID { return model.ID{Name: name} }

func commit(n int) string { return fmt.Sprintf("%040x", n) }

// stored is a model with one revision, whose files are in these states, 1 MiB each.
func stored(id model.ID, state store.State, states ...store.State) store.Model {
	r := store.Revision{Commit: commit(1), Refs: []string{"main"}, State: state}
	m := store.Model{ID: id}
	for i, s := range states {
		f := store.FileState{File: model.File{Path: fmt.Sprintf("%d.safetensors", i), Size: int64(model.MiB)}, State: s}
		r.Files = append(r.Files, f)
		if s != store.Incomplete {
			r.Size += model.MiB
			m.Size += model.MiB
		}
	}
	m.Revisions = []store.Revision{r}
	return m
}

func whole(id model.ID) store.Model {
	return stored(id, store.Available, store.Available, store.Available)
}

func dl(id string, of model.ID, s model.State) model.Download {
	return model.Download{ID: id, Model: of, State: s, Size: 8 * model.MiB, Done: 2 * model.MiB}
}

// many is a world of n models.
func many(tb testing.TB, n int) *world {
	w := newWorld(tb)
	for i := range n {
		m := stored(hub(fmt.Sprintf("some-org/some-model-%04d", i)), store.Available, slices.Repeat([]store.State{store.Available}, 5)...)
		w.models[m.ID] = m
	}
	return w
}

func names[T any](all map[string]T) string {
	var s []string
	for name := range all {
		s = append(s, name)
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}
