package snapshot

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"ema/internal/model"
)

// nowhere takes an answer and keeps nothing of it.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) WriteHeader(int)             {}
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkServe is what a request costs that is answered with prepared bytes, without the network.
func BenchmarkServe(b *testing.B) {
	for _, n := range []int{10, 1000} {
		m := New(many(b, n).settings(time.Hour))
		m.following.Store(true)
		m.looked.Store(1 << 62) // nobody is there to look
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		w := nowhere{http.Header{}}
		m.ServeStatus(w, r)
		b.Run(fmt.Sprintf("models=%d/status=200", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.ServeStatus(w, r)
			}
		})
		again := r.Clone(b.Context())
		again.Header.Set("If-None-Match", w.header.Get("Etag"))
		b.Run(fmt.Sprintf("models=%d/status=304", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.ServeStatus(w, again)
			}
		})
	}
}

// BenchmarkEncode is what the first request after a change costs: all of it anew, one model that has changed in the
// store, and one download that went on.
func BenchmarkEncode(b *testing.B) {
	for _, n := range []int{10, 1000} {
		w := many(b, n)
		w.downloads = []model.Download{dl("dl_1", hub("org/name"), model.Downloading)}
		m := New(w.settings(time.Hour))
		first, err := m.make(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		for what, change := range map[string]func(){
			"all":      func() { m.mark(model.ID{}) },
			"model":    func() { m.mark(hub("some-org/some-model-0001")) },
			"progress": func() { w.downloads[0].Done = (w.downloads[0].Done + 10*model.KiB) % w.downloads[0].Size },
		} {
			b.Run(fmt.Sprintf("models=%d/changed=%s", n, what), func(b *testing.B) {
				b.ReportAllocs()
				old := first
				for b.Loop() {
					change()
					if what == "all" {
						old = nil
					}
					if old, err = m.make(b.Context(), old); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(len(old.body)), "bytes")
			})
		}
	}
}

// BenchmarkStorage is what a request about storage costs: when the answer is there, and when it has to be made because a second
// has passed or the store has changed.
func BenchmarkStorage(b *testing.B) {
	const n = 10_000
	w := many(b, n)
	for i, id := range slices.Collect(maps.Keys(w.models)) {
		one := w.models[id]
		one.Tiers = map[model.Tier]model.Bytes{model.Tiers()[i%3]: one.Size}
		w.models[id] = one
		w.uses[id] = Use{Last: time.Unix(int64(i), 0), PerDay: float64(i) / 7}
	}
	m := New(w.settings(time.Hour))
	p, err := m.make(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	p.held = 1
	m.following.Store(true)
	m.looked.Store(1 << 62) // nobody is there to look
	m.page.Store(p)
	r, rw := httptest.NewRequest(http.MethodGet, "/", http.NoBody), nowhere{http.Header{}}
	m.ServeStorage(rw, r)
	for what, before := range map[string]func(){
		"kept":     func() {},
		"measured": func() { m.storage.newest.Load().measured -= measureEvery },
		"used": func() {
			w.use(hub("some-org/some-model-0001"), Use{Last: time.Now()})
			m.page.Load().at -= progressEvery
			m.storage.newest.Load().measured -= measureEvery
		},
	} {
		b.Run(fmt.Sprintf("models=%d/answer=%s", n, what), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				before()
				m.ServeStorage(rw, r)
			}
		})
	}
}
