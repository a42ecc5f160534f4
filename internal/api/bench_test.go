package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ema/internal/api/trust"
	"ema/internal/model"
)

// prepared answers with bytes that are there already, as snapshots do.
type prepared struct{ body []byte }

func (p prepared) ServeStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header()["Content-Type"] = []string{"application/json"}
	_, _ = w.Write(p.body) //nolint:errcheck // a recorder takes all
}

func (p prepared) ServeModel(w http.ResponseWriter, r *http.Request, _ model.ID) { p.ServeStatus(w, r) }

func (p prepared) ServeStorage(w http.ResponseWriter, r *http.Request) { p.ServeStatus(w, r) }

// discard is an answer that nobody reads.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

func BenchmarkRequest(b *testing.B) {
	for _, path := range []string{"/models/status/detailed", "/models/status/detailed/acme/here", "/models/download/active"} {
		b.Run("path="+strings.Trim(strings.ReplaceAll(path, "/", "."), "."), func(b *testing.B) {
			s, _, _ := whole(b)
			s.Models = prepared{make([]byte, 9<<10)}
			h := s.Handler()
			r := httptest.NewRequestWithContext(b.Context(), "GET", Base+path, nil)
			r = r.WithContext(trust.With(r.Context(), trust.Identity{Role: trust.User}))
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(&discard{http.Header{}}, r)
			}
		})
	}
}

// BenchmarkGuarded is the same through the guard, as somebody on this machine asks over the network.
func BenchmarkGuarded(b *testing.B) {
	s, _, _ := whole(b)
	s.Models = prepared{make([]byte, 9<<10)}
	guard, err := trust.New(trust.Settings{Loopback: true, Refuse: s.Refuse, Open: Open()})
	if err != nil {
		b.Fatal(err)
	}
	h := guard.Wrap(s.Handler())
	r := httptest.NewRequestWithContext(b.Context(), "GET", Base+"/models/status/detailed", http.NoBody)
	r.Host, r.RemoteAddr = "127.0.0.1:8000", "127.0.0.1:40000"
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(&discard{http.Header{}}, r)
	}
}
