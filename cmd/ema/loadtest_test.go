package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ema/internal/bench"
)

// TestScriptsOfTheLoadTest runs the scripts of ema load-test. Each has a small API at $API that answers as the daemon
// does but for the analytics, and an address $NOBODY where nobody listens. Their commands:
//
//	api-key KEY       let in only who has that key
//	api-fails N       answer with 500 from now on, after N more requests
//	api-await N       wait for that many requests
func TestScriptsOfTheLoadTest(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "load"),
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exit-code": exitsWith,
			"api-key":   func(ts *testscript.TestScript, _ bool, args []string) { apiOf(ts).demand(args[0]) },
			"api-fails": func(ts *testscript.TestScript, _ bool, args []string) { apiOf(ts).failAfter(ts, args[0]) },
			"api-await": func(ts *testscript.TestScript, _ bool, args []string) { apiOf(ts).await(ts, args[0]) },
		},
		Setup: func(env *testscript.Env) error {
			api := &smallAPI{asked: make(chan struct{}, 1), left: -1}
			srv := httptest.NewServer(api)
			gone := httptest.NewServer(http.NotFoundHandler())
			gone.Close()
			env.Defer(srv.Close)
			env.Values[smallAPIKey{}] = api
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("API", srv.URL)
			env.Setenv("NOBODY", gone.URL)
			env.Setenv("GORACE", noRest)
			return os.MkdirAll(home, 0o700)
		},
	})
}

// A smallAPI answers as the daemon does, as far as a load test asks.
type smallAPI struct {
	asked chan struct{}

	mu       sync.Mutex
	key      string
	left     int // requests that go well yet; negative = all
	requests int
	running  bool
}

type smallAPIKey struct{}

func apiOf(ts *testscript.TestScript) *smallAPI { return ts.Value(smallAPIKey{}).(*smallAPI) }

func (s *smallAPI) demand(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = key
}

func (s *smallAPI) failAfter(ts *testscript.TestScript, n string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	s.left, err = strconv.Atoi(n)
	ts.Check(err)
}

func (s *smallAPI) await(ts *testscript.TestScript, n string) {
	want, err := strconv.Atoi(n)
	ts.Check(err)
	for {
		s.mu.Lock()
		enough := s.requests >= want
		s.mu.Unlock()
		if enough {
			return
		}
		<-s.asked
	}
}

func (s *smallAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	select {
	case s.asked <- struct{}{}:
	default:
	}
	if s.left == 0 {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	s.left--
	var ask struct{ Action string }
	_ = json.Unmarshal(body, &ask)
	switch {
	case s.key != "" && r.Header.Get("Authorization") != "Bearer "+s.key:
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/api/v1/models/status/detailed":
		io.WriteString(w, `{"models":{},"summary":{}}`)
	case r.URL.Path == "/api/v1/models/download/active" && s.running:
		io.WriteString(w, `{"active_downloads":[{"model_id":"test-model"}]}`)
	case r.URL.Path == "/api/v1/models/download/active":
		io.WriteString(w, `{"active_downloads":[]}`)
	case r.URL.Path == "/api/v1/models/download/manage" && ask.Action != "":
		s.running = ask.Action == "start"
		io.WriteString(w, `{"success":true,"message":"","new_status":"QUEUED"}`)
	case r.URL.Path == "/api/v1/models/download/manage":
		w.WriteHeader(http.StatusUnprocessableEntity)
	case strings.HasPrefix(r.URL.Path, "/page/"):
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html>")
	default:
		http.NotFound(w, r)
	}
}

func TestTheLineOfALoadTestIsNewEverySecondOrEveryFive(t *testing.T) {
	show := func(l *loadLine) string {
		var b strings.Builder
		l.out = &b
		l.show(bench.LoadProgress{Elapsed: time.Second, Warmup: true})
		for i := range 5 {
			l.show(bench.LoadProgress{Elapsed: time.Duration(i+1) * time.Second, Requests: 10, PerSecond: 2.4, Errors: 1})
		}
		l.end()
		return b.String()
	}
	if got := show(&loadLine{total: " of 10.0 s"}); got != "4.0 s of 10.0 s: 10 requests, 2 per second, 1 error\n" {
		t.Errorf("%q", got)
	}
	if got := show(&loadLine{live: true}); strings.Count(got, "\r\x1b[K") != 7 || strings.Contains(got, "\n") || !strings.HasPrefix(got, "\r\x1b[Kwarming up for 1.0 s") || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("%q", got)
	}
	(&loadLine{}).show(bench.LoadProgress{})
	for range 5 { // quiet, also when a line would be due
		(&loadLine{lines: 4 * time.Second}).show(bench.LoadProgress{})
	}
}

func TestTheRemarksSayWhatTheTableDoesNot(t *testing.T) {
	var b strings.Builder
	err := printRemarks(&b, bench.LoadReport{
		Endpoints: []bench.EndpointLoad{{Name: "status", Figures: bench.Figures{
			Errors: 15, Kinds: map[bench.Kind]int64{bench.TimedOut: 3, bench.RateLimited: 12}, Statuses: map[string]int64{"2xx": 5, "429": 12},
		}}},
		Examples: map[bench.Kind]string{bench.Unconnected: "too many open files"},
		Missed:   1,
		LeftOut:  []bench.Left{{Endpoint: "analytics", Reason: "the server has no GET /x"}},
		Download: &bench.Trace{Model: "a/b", Outcome: "failed", Why: "503"},
	})
	want := `
errors of status: 12 rate_limited, 3 timeout; answers: 12 429, 5 2xx
the first unconnected: too many open files
the server did not keep up: 1 request was due and never sent, since every connection was busy
left out: analytics; the server has no GET /x
the download of a/b could not be cancelled: 503
`
	if err != nil || b.String() != want {
		t.Errorf("%s%v", b.String(), err)
	}
}
