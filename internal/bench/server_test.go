package bench

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"ema/internal/demohub"
)

// A server answers as ema does, and notes what it is asked.
type server struct {
	answer    func(w http.ResponseWriter, r *http.Request) bool // bends an answer, once the test has begun; false = as ever
	analytics bool
	described string // /openapi.json; empty = there is none
	key       string // that is asked for

	mu       sync.Mutex
	seen     []seen
	running  map[string]bool // downloads
	began    time.Time
	setup    int // requests before the test
	inflight int
	busiest  int
}

type seen struct {
	route string // GET /path, or the action of a download
	model string
	at    time.Duration // since the first request that is no preparation
}

func newServer() *server { return &server{analytics: true, running: map[string]bool{}} }

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var manage manageRequest
	_ = json.Unmarshal(body, &manage)
	if s.key != "" && r.Header.Get("Authorization") != "Bearer "+s.key {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Header.Get("Accept-Encoding") != "" { // what is measured are the bytes that clients of the API get
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	row := seen{route: r.Method + " " + r.URL.Path, model: manage.ModelID}
	if manage.Action != "" {
		row.route = manage.Action
	}
	s.mu.Lock()
	// The list of active downloads is what a test that starts any asks for last before it begins, and again after it.
	loads := !s.began.IsZero() && r.URL.Path != activePath && manage.Action != "cancel" && r.URL.Path != "/openapi.json"
	switch {
	case loads:
		row.at = time.Since(s.began)
	case r.URL.Path == activePath && s.began.IsZero():
		s.began, s.setup = time.Now(), len(s.seen)+1
	}
	s.seen = append(s.seen, row)
	s.inflight++
	s.busiest = max(s.busiest, s.inflight)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inflight--
	}()
	if loads && s.answer != nil && s.answer(w, r) {
		return
	}
	switch row.route {
	case "GET /api/v1/models/status/detailed":
		io.WriteString(w, `{"models":{},"summary":{}}`)
	case "start":
		s.run(manage.ModelID, true)
		io.WriteString(w, `{"success":true,"message":"","new_status":"QUEUED"}`)
	case "cancel":
		s.run(manage.ModelID, false)
		io.WriteString(w, `{"success":true,"message":"","new_status":"CANCELLED"}`)
	case "POST " + managePath:
		w.WriteHeader(http.StatusUnprocessableEntity)
	case "GET " + activePath:
		json.NewEncoder(w).Encode(map[string]any{"active_downloads": s.active()})
	case "GET /api/v1/models/analytics":
		if !s.analytics {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, `{"models":{},"summary":{}}`)
	case "GET /openapi.json":
		if s.described == "" {
			http.NotFound(w, r)
			return
		}
		if s.described == "secret" {
			w.WriteHeader(http.StatusForbidden)
		}
		io.WriteString(w, s.described)
	default:
		http.NotFound(w, r)
	}
}

func (s *server) run(id string, runs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[id] = runs
}

func (s *server) active() []map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []map[string]string{}
	for id, runs := range s.running {
		if runs {
			all = append(all, map[string]string{"model_id": id})
		}
	}
	return all
}

// runs reports whether a download of that model goes on.
func (s *server) runs(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[id]
}

// loaded are the requests of the test itself, in the order in which they came.
func (s *server) loaded() []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.seen[s.setup:]), func(r seen) bool {
		return r.route == "GET "+activePath || r.route == "cancel"
	})
}

func (s *server) count(route string) int {
	n := 0
	for _, r := range s.loaded() {
		if r.route == route {
			n++
		}
	}
	return n
}

// did reports whether the server was asked for that at any time.
func (s *server) did(route string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.seen, func(r seen) bool { return r.route == route })
}

// onSocket serves it on loopback and points the settings there.
func (s *server) onSocket(t *testing.T, settings LoadSettings) LoadSettings {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	settings.URL = srv.URL
	return settings
}

// onPipe serves it over pipes, for a synctest bubble, and points the settings there.
func onPipe(t *testing.T, h http.Handler, settings LoadSettings) LoadSettings {
	t.Helper()
	pipes := demohub.NewPipeListener()
	srv := &http.Server{Handler: h}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(pipes) })
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil { // it waits for answers that nobody reads any more
			t.Error(err)
		}
		serving.Wait()
	})
	settings.URL, settings.Dial = "http://localhost:8000", pipes.Dial
	return settings
}
