package bench

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/model"
)

func mustLoad(t *testing.T, s LoadSettings) LoadReport {
	t.Helper()
	r, err := Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// near reports whether a figure is what it should be, to the thousandth that a histogram knows.
func near(got, want float64) bool { return got >= want*0.998 && got <= want*1.002 }

func TestTheMixIsExact(t *testing.T) {
	s := newServer()
	r := mustLoad(t, s.onSocket(t, LoadSettings{Requests: 1000, Users: 8, Seed: 7}))
	for route, want := range map[string]int{
		"GET /api/v1/models/status/detailed": 600, "start": 200, "GET /api/v1/models/analytics": 200,
	} {
		if got := s.count(route); got != want {
			t.Errorf("%s: %d requests, want %d", route, got, want)
		}
	}
	if r.Total.Requests != 1000 || r.Total.Errors != 0 || r.Total.Statuses["2xx"] != 1000 || r.Total.Bytes == 0 || r.Total.Latency.P999 <= 0 {
		t.Errorf("total: %+v", r.Total)
	}
	if len(r.Endpoints) != 3 || r.Endpoints[0].Requests != 600 || r.Endpoints[1].Requests != 200 || r.Mix != UsualMix() {
		t.Errorf("endpoints: %+v", r.Endpoints)
	}
	if s.busiest > 8 || r.Connections != 8 {
		t.Errorf("%d at once over %d connections, want 8", s.busiest, r.Connections)
	}
}

func TestOneSeedIsOneOrder(t *testing.T) {
	order := func(seed uint64) string {
		s := newServer()
		mustLoad(t, s.onSocket(t, LoadSettings{Requests: 50, Users: 1, Seed: seed}))
		var all []string
		for _, r := range s.loaded() {
			all = append(all, r.route)
		}
		return strings.Join(all, " ")
	}
	if one := order(1); one != order(1) || one == order(2) {
		t.Error("the order of calls is not a matter of the seed")
	}
}

func TestWhatTheServerHasNotIsLeftOutAndTheRestKeepsItsWeight(t *testing.T) {
	s := newServer()
	s.analytics = false
	r := mustLoad(t, s.onSocket(t, LoadSettings{Requests: 400, Users: 2}))
	if len(r.LeftOut) != 1 || r.LeftOut[0] != (Left{"analytics", "the server has no GET /api/v1/models/analytics"}) {
		t.Errorf("left out: %+v", r.LeftOut)
	}
	if s.count("GET /api/v1/models/status/detailed") != 300 || s.count("start") != 100 || s.count("GET /api/v1/models/analytics") != 0 || len(r.Endpoints) != 2 {
		t.Errorf("endpoints: %+v", r.Endpoints)
	}
}

func TestLookingForEndpointsStartsNothing(t *testing.T) {
	described := `{"openapi":"3.1.0","paths":{"` + managePath + `":{"post":{},"parameters":[]}}}`
	for promise, document := range map[string]string{
		"without a description of the API": "",
		"with one":                         described,
		"with one that says less":          `{"paths":{}}`,
		"with none that can be read":       `<html>`,
		"with one for others":              "secret",
	} {
		s := newServer()
		s.described = document
		settings := s.onSocket(t, LoadSettings{Requests: 1, Mix: Mix{Status: 1, Start: 1000}})
		d := &door{}
		settings, err := settings.complete()
		if err == nil {
			d, err = newDoor(settings)
		}
		if err != nil {
			t.Fatal(err)
		}
		m, left, err := d.survey(t.Context(), settings.Mix)
		d.close()
		if err != nil || m.Start != 1000 || len(left) != 0 || s.did("start") {
			t.Errorf("%s: mix %+v, left out %v, started %v, %v", promise, m, left, s.did("start"), err)
		}
		if asked := s.did("POST " + managePath); asked == (document == described) {
			t.Errorf("%s: asked the endpoint itself: %v", promise, asked)
		}
	}
}

func TestAConstantRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(http.ResponseWriter, *http.Request) bool { time.Sleep(30 * time.Millisecond); return false }
		r := mustLoad(t, onPipe(t, s, LoadSettings{Rate: 100, Duration: 3 * time.Second}))
		for i, got := range s.loaded() {
			if want := time.Duration(i) * 10 * time.Millisecond; got.at != want {
				t.Fatalf("request %d left at %v, want %v", i, got.at, want)
			}
		}
		if n := len(s.loaded()); n != 300 || r.Total.Requests != 300 || r.Missed != 0 || !near(r.Total.PerSecond, 100*3/3.02) {
			t.Errorf("%d requests, report %+v", n, r.Total)
		}
		if l := r.Total.Latency; !near(l.Min, 30) || !near(l.Avg, 30) || !near(l.Max, 30) {
			t.Errorf("latency %+v, want 30 ms", l)
		}
	})
}

func TestALatencyCountsFromWhenItsRequestWasDue(t *testing.T) {
	due := time.Unix(1e9, 0)
	for name, c := range map[string]struct{ ready, left, want time.Duration }{
		"in time":                               {-time.Second, 0, 0},
		"a timer that fires late":               {-time.Second, time.Millisecond, time.Millisecond},
		"a machine that stands still":           {-time.Second, time.Second, timerSlack},
		"a connection that became free late":    {time.Second, time.Second + time.Millisecond, 0},
		"a timer cut short by the end":          {-time.Second, -time.Millisecond, 0},
		"a user, who is due whenever she comes": {0, time.Microsecond, 0},
	} {
		if got := beginOf(due, due.Add(c.ready), due.Add(c.left)).Sub(due); got != c.want {
			t.Errorf("%s: counts from %v after it was due, want %v", name, got, c.want)
		}
	}
}

// stall stops all answers for a second, two seconds after the beginning; each takes 10 ms otherwise.
func stall(began time.Time) func(http.ResponseWriter, *http.Request) bool {
	return func(http.ResponseWriter, *http.Request) bool {
		from := began.Add(2 * time.Second)
		if now := time.Now(); !now.Before(from) && now.Before(from.Add(time.Second)) {
			time.Sleep(time.Until(from.Add(time.Second)))
			return false
		}
		time.Sleep(10 * time.Millisecond)
		return false
	}
}

func TestAStallIsSeenByAConstantRateAndHiddenFromAClosedLoop(t *testing.T) {
	for name, c := range map[string]struct {
		settings LoadSettings
		sees     func(LoadReport) bool
	}{
		"constant rate":                        {LoadSettings{Rate: 50}, func(r LoadReport) bool { return r.Total.Latency.P99 > 800 }},
		"constant rate that runs out of lines": {LoadSettings{Rate: 50, Connections: 2}, func(r LoadReport) bool { return r.Total.Latency.P99 > 800 }},
		"closed loop": {LoadSettings{Users: 1}, func(r LoadReport) bool {
			return near(r.Total.Latency.P99, 10) && near(r.Total.Latency.Max, 1000) && r.Total.Corrected == nil
		}},
		"closed loop, corrected":                 {LoadSettings{Users: 1, Expected: 10 * time.Millisecond}, func(r LoadReport) bool { return r.Total.Corrected.P99 > 800 && near(r.Total.Latency.P99, 10) }},
		"each endpoint of a corrected one alone": {LoadSettings{Users: 1, Expected: 10 * time.Millisecond, Mix: Mix{Status: 1000, Start: 1}}, func(r LoadReport) bool { return r.Endpoints[0].Corrected.P99 > 800 }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				s.answer = stall(time.Now())
				c.settings.Duration = 10 * time.Second
				if r := mustLoad(t, onPipe(t, s, c.settings)); !c.sees(r) {
					t.Errorf("latency %+v, corrected %+v", r.Total.Latency, r.Total.Corrected)
				}
			})
		})
	}
}

func TestWhatWasDueAndNeverLeftIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(http.ResponseWriter, *http.Request) bool { time.Sleep(100 * time.Millisecond); return false }
		r := mustLoad(t, onPipe(t, s, LoadSettings{Rate: 100, Connections: 1, Duration: 2 * time.Second, FailOn: mustLimits(t, "missed>0,p99<1s")}))
		if r.Total.Requests != 20 || r.Missed != 180 {
			t.Errorf("%d requests, %d missed", r.Total.Requests, r.Missed)
		}
		// The twentieth was due after 190 ms, left after 1.9 s and was answered after 2 s.
		if !near(r.Total.Latency.Max, 1810) || len(r.Violations) != 1 || r.Violations[0] != "missed>0: 180" {
			t.Errorf("latency %+v, violations %v", r.Total.Latency, r.Violations)
		}
	})
}

func TestTheWarmUpIsNotMeasured(t *testing.T) {
	for name, settings := range map[string]LoadSettings{"rate": {Rate: 10}, "users": {Users: 1}} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer()
			began := time.Now()
			s.answer = func(w http.ResponseWriter, _ *http.Request) bool {
				time.Sleep(100 * time.Millisecond)
				if time.Since(began) > 5*time.Second {
					return false
				}
				w.WriteHeader(http.StatusInternalServerError)
				return true
			}
			settings.Warmup, settings.Duration = 5*time.Second, 10*time.Second
			r := mustLoad(t, onPipe(t, s, settings))
			if r.Total.Requests != 100 || r.Total.Errors != 0 || len(s.loaded()) != 150 || !near(r.Total.PerSecond, 10) || !r.Started.Equal(began.Add(5*time.Second)) {
				t.Errorf("%s: %d requests in all, measured %+v", name, len(s.loaded()), r.Total)
			}
			if r.Endpoints[0].Requests != 60 {
				t.Errorf("%s: what is measured is not a whole number of rounds: %+v", name, r.Endpoints)
			}
		})
	}
}

func TestUsersThinkAndDoNotMarchInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		mustLoad(t, onPipe(t, s, LoadSettings{Users: 50, WaitMin: time.Second, WaitMax: 3 * time.Second, Duration: 100 * time.Second}))
		if n := len(s.loaded()); n < 2300 || n > 2700 {
			t.Errorf("%d requests of 50 users in 100 s, want about 2500", n)
		}
		first := 0
		for _, r := range s.loaded() {
			if r.at < 500*time.Millisecond {
				first++
			}
		}
		if first == 0 || first > 20 {
			t.Errorf("%d of 50 users begin in the first half second of three", first)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		mustLoad(t, onPipe(t, s, LoadSettings{Users: 1, WaitMin: 2 * time.Second, WaitMax: 2 * time.Second, Requests: 10}))
		rows := s.loaded()
		for i := range rows[1:] {
			if wait := rows[i+1].at - rows[i].at; wait != 2*time.Second {
				t.Errorf("waited %v, want 2 s", wait)
			}
		}
	})
}

func TestARateIsToldByTheTimeThatWasPlanned(t *testing.T) {
	for name, s := range map[string]LoadSettings{"duration": {Duration: 10 * time.Second}, "requests": {Requests: 10}} {
		synctest.Test(t, func(t *testing.T) {
			s.Rate = 1 // the last answer comes after nine seconds
			if r := mustLoad(t, onPipe(t, newServer(), s)); r.Total.Requests != 10 || r.Total.PerSecond != 1 {
				t.Errorf("%s: %d requests, %v per second", name, r.Total.Requests, r.Total.PerSecond)
			}
		})
	}
}

// A counted connection tells when it is closed.
type counted struct {
	net.Conn
	closed chan<- struct{}
	once   sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.closed <- struct{}{} })
	return c.Conn.Close()
}

func TestConnectionsAreFewAndKeptAndClosedInTheEnd(t *testing.T) {
	s := newServer()
	var dialled atomic.Int64
	closed := make(chan struct{}, 100)
	settings := s.onSocket(t, LoadSettings{Users: 20, Connections: 3, Requests: 1000})
	settings.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		dialled.Add(1)
		return &counted{Conn: c, closed: closed}, nil
	}
	r := mustLoad(t, settings)
	if n := dialled.Load(); n > 3 || s.busiest > 3 || r.Total.Errors != 0 {
		t.Errorf("%d connections, %d of them busy at once, %+v", n, s.busiest, r.Total)
	}
	for n := range dialled.Load() {
		select {
		case <-closed:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d of %d connections are still open", dialled.Load()-n, dialled.Load())
		}
	}
}

func TestATestThatIsOverDoesNotWaitForThoseWhoThink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		mustLoad(t, onPipe(t, newServer(), LoadSettings{Users: 3, WaitMin: time.Hour, WaitMax: time.Hour, Duration: time.Second}))
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestEveryFailureIsCountedByItsKind(t *testing.T) {
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request) bool
		kind   Kind
		status string // class of the answers
		timed  bool
	}{
		"server error": {status(503), ServerError, "5xx", true},
		"client error": {status(404), ClientError, "4xx", true},
		"limited":      {status(429), RateLimited, "429", true},
		"redirect":     {status(302), Unexpected, "3xx", true},
		"silence":      {func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, TimedOut, "", true},
		"half an answer": {func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(200)
			io.WriteString(w, "{")
			return true
		}, Broken, "2xx", true},
		"no answer": {func(w http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) }, Broken, "", false},
		"a page": {func(w http.ResponseWriter, _ *http.Request) bool {
			io.WriteString(w, "<html>")
			return true
		}, Unexpected, "2xx", true},
		"another API": {func(w http.ResponseWriter, _ *http.Request) bool { io.WriteString(w, `{"models":[]}`); return true }, Unexpected, "2xx", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				s.answer = c.answer
				r := mustLoad(t, onPipe(t, s, LoadSettings{Users: 1, Requests: 1, Mix: Mix{Status: 1, Start: 1}, Timeout: 5 * time.Second}))
				f := r.Total
				if f.Requests != 1 || f.Errors != 1 || f.ErrorRate != 1 || f.Kinds[c.kind] != 1 || len(f.Kinds) != 1 {
					t.Errorf("kinds %v, want %s: %+v", f.Kinds, c.kind, r.Examples)
				}
				if c.status != "" && f.Statuses[c.status] != 1 || c.status == "" && len(f.Statuses) != 0 {
					t.Errorf("statuses %v, want %s", f.Statuses, c.status)
				}
				if measured := f.Latency.Max > 0; c.kind == TimedOut && !near(f.Latency.Max, 5000) || !c.timed && measured {
					t.Errorf("latency %+v", f.Latency)
				}
			})
		})
	}
}

func TestAServerThatGoesAwayIsRefusalsAndNoSpinning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		settings := onPipe(t, s, LoadSettings{Users: 2, Duration: 2 * time.Second, Mix: Mix{Status: 1, Start: 1}})
		began, dial := time.Now(), settings.Dial
		settings.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if time.Since(began) >= time.Second {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
			}
			return dial(ctx, network, address)
		}
		s.answer = func(http.ResponseWriter, *http.Request) bool {
			time.Sleep(100 * time.Millisecond)
			if time.Since(began) >= time.Second {
				panic(http.ErrAbortHandler)
			}
			return false
		}
		r := mustLoad(t, settings)
		if n := r.Total.Kinds[Refused]; n < 100 || n > 300 || r.Total.Statuses["2xx"] < 16 {
			t.Errorf("kinds %v, statuses %v", r.Total.Kinds, r.Total.Statuses)
		}
	})
}

func TestAFaultOfTheConnectionIsToldInWords(t *testing.T) {
	got := failed(&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)})
	if got.kind != Unconnected || !strings.Contains(got.because, "too many open files") || got.timed() {
		t.Errorf("%+v", got)
	}
}

func TestAWrongAnswerIsNoticedInALongTest(t *testing.T) {
	s := newServer()
	var n atomic.Int64
	s.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		if n.Add(1) <= 50 {
			return false
		}
		io.WriteString(w, `{"summary":{}}`)
		return true
	}
	r := mustLoad(t, s.onSocket(t, LoadSettings{Users: 1, Requests: 1000, Mix: Mix{Status: 1000, Start: 1}}))
	if r.Endpoints[0].Kinds[Unexpected] != 9 || r.Examples[Unexpected] != `the answer to GET /api/v1/models/status/detailed has no field "models"` {
		t.Errorf("kinds %v, examples %v", r.Total.Kinds, r.Examples)
	}
}

func TestAServerThatIsNotEmaIsRefusedInOneSentence(t *testing.T) {
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html>")
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		class   model.Class
		text    string
	}{
		"a web site":  {page, model.NotFound, "load test: the answer to GET /api/v1/models/status/detailed is no JSON object but text/html (http://localhost:8000); this is not how ema answers; is it the address of the right server?"},
		"nothing":     {http.NotFound, model.NotFound, "none of the endpoints is there: the server has no GET /api/v1/models/status/detailed, the server has no POST"},
		"a redirect":  {http.RedirectHandler("http://elsewhere/?token=x", http.StatusFound).ServeHTTP, model.NotFound, `is redirected to "http://elsewhere/"`},
		"no entrance": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, model.Auth, "401 Unauthorized (http://localhost:8000/api/v1/models/status/detailed); pass a key of this server"},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, err := Load(t.Context(), onPipe(t, c.handler, LoadSettings{Requests: 10}))
			if model.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

func TestAServerThatIsNotThereIsOneSentence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = Load(t.Context(), LoadSettings{URL: "http://" + l.Addr().String()})
	if err == nil || !strings.HasPrefix(err.Error(), "load test: dial tcp "+l.Addr().String()+": connect: connection refused") || !strings.HasSuffix(err.Error(), "is the server running, and is this its address?") {
		t.Errorf("%v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		_, err := Load(t.Context(), onPipe(t, silent, LoadSettings{}))
		if model.ClassOf(err) != model.Timeout || !strings.Contains(err.Error(), "no answer in 10s") {
			t.Errorf("%v", err)
		}
	})
}

func TestOnlyTheDownloadThatTheTestStartedIsCancelled(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*server, *LoadSettings)
		want    Trace
		runs    bool // afterwards
	}{
		"its own":            {func(*server, *LoadSettings) {}, Trace{"acme/big", "cancelled", ""}, false},
		"somebody else's":    {func(s *server, _ *LoadSettings) { s.run("acme/big", true) }, Trace{"acme/big", "existed", ""}, true},
		"another model's":    {func(s *server, _ *LoadSettings) { s.run("test-model", true) }, Trace{"acme/big", "cancelled", ""}, false},
		"its own, when kept": {func(_ *server, l *LoadSettings) { l.Keep = true }, Trace{"acme/big", "kept", ""}, true},
		"one that has ended": {func(s *server, _ *LoadSettings) {
			s.answer = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(507); return true }
		}, Trace{"acme/big", "over", ""}, false},
	} {
		s := newServer()
		settings := s.onSocket(t, LoadSettings{Requests: 10, Model: "acme/big"})
		c.prepare(s, &settings)
		r := mustLoad(t, settings)
		if r.Download == nil || *r.Download != c.want || s.runs("acme/big") != c.runs || s.did("cancel") != (c.want.Outcome == "cancelled") {
			t.Errorf("%s: %+v, running %v", name, r.Download, s.runs("acme/big"))
		}
	}
	s := newServer()
	if r := mustLoad(t, s.onSocket(t, LoadSettings{Requests: 10, Mix: Mix{Status: 1}})); r.Download != nil || s.did("GET "+activePath) {
		t.Errorf("a test that starts nothing looks after downloads: %+v", r.Download)
	}
}

func TestADownloadOfUnknownOriginIsLeftAlone(t *testing.T) {
	s := newServer()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == activePath {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		s.ServeHTTP(w, r)
	})
	synctest.Test(t, func(t *testing.T) {
		r := mustLoad(t, onPipe(t, h, LoadSettings{Requests: 10}))
		if want := (Trace{"test-model", "unknown", "GET /api/v1/models/download/active: 500 Internal Server Error"}); *r.Download != want || s.did("cancel") {
			t.Errorf("%+v", r.Download)
		}
	})
}

func TestATestThatIsStoppedReportsWhatThereIs(t *testing.T) {
	for name, settings := range map[string]LoadSettings{"users": {Users: 4}, "rate": {Rate: 40}} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer()
			s.answer = func(http.ResponseWriter, *http.Request) bool { time.Sleep(100 * time.Millisecond); return false }
			ctx, cancel := context.WithTimeoutCause(t.Context(), 1950*time.Millisecond, nil)
			defer cancel()
			settings.Duration = time.Hour
			r, err := Load(ctx, onPipe(t, s, settings))
			if !errors.Is(err, context.DeadlineExceeded) || !r.Interrupted || r.Total.Errors != 0 || r.Total.Requests < 70 || r.Total.Requests > 76 || !near(r.Seconds, 1.95) || r.Missed != 0 {
				t.Errorf("%s: %v, %+v", name, err, r)
			}
			if r.Download.Outcome != "cancelled" || s.runs("test-model") {
				t.Errorf("%s: left behind: %+v", name, r.Download)
			}
		})
	}
}

func TestAStopAfterTheLastAnswerLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newServer()
		var looks atomic.Int64
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == activePath && looks.Add(1) == 2 {
				cancel()
			}
			s.ServeHTTP(w, r)
		})
		r, err := Load(ctx, onPipe(t, h, LoadSettings{Requests: 10}))
		if err != nil || r.Interrupted || r.Total.Requests != 10 || r.Download.Outcome != "cancelled" {
			t.Errorf("%v, %+v", err, r)
		}
	})
}

func TestAStopWaitsOnlyAMomentForAStartThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		r, err := Load(ctx, onPipe(t, s, LoadSettings{Users: 1, Mix: Mix{Start: 1}, Timeout: time.Minute, Duration: time.Hour}))
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != 2*time.Second || r.Total.Requests != 0 || r.Seconds != 1 {
			t.Errorf("%v after %v: %+v", err, took, r.Total)
		}
	})
}

func TestTheKeyIsSentAndToldToNobody(t *testing.T) {
	const key = "ema-very-secret"
	s := newServer()
	s.key = key
	r := mustLoad(t, s.onSocket(t, LoadSettings{Requests: 20, Key: key}))
	b, err := json.Marshal(r)
	if err != nil || strings.Contains(string(b), key) || r.Total.Errors != 0 {
		t.Errorf("%s, %v", b, err)
	}
	s.key = "another"
	if _, err := Load(t.Context(), s.onSocket(t, LoadSettings{Key: key})); model.ClassOf(err) != model.Auth || strings.Contains(err.Error(), key) {
		t.Errorf("%v", err)
	}
}

func TestAReportSurvivesJSON(t *testing.T) {
	s := newServer()
	s.analytics = false
	var n atomic.Int64
	s.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		if n.Add(1)%10 != 0 {
			return false
		}
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	r := mustLoad(t, s.onSocket(t, LoadSettings{Requests: 100, Expected: time.Second, FailOn: mustLimits(t, "errors>1%")}))
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again LoadReport
	if err := json.Unmarshal(b, &again); err != nil || !reflect.DeepEqual(r, again) {
		t.Errorf("%v\n%+v\n%+v", err, r, again)
	}
	if r.Total.Kinds[RateLimited] != 10 || len(r.Violations) != 1 || r.Violations[0] != "errors>1%: 10%" {
		t.Errorf("kinds %v, violations %v", r.Total.Kinds, r.Violations)
	}
}

func TestProgressIsToldEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []LoadProgress
		mustLoad(t, onPipe(t, newServer(), LoadSettings{Rate: 10, Warmup: 1500 * time.Millisecond, Duration: 3 * time.Second, Progress: func(p LoadProgress) { all = append(all, p) }}))
		if len(all) != 4 || !all[0].Warmup || all[0].Elapsed != time.Second || all[1].Warmup || all[1].Elapsed != 500*time.Millisecond || all[3].PerSecond != 10 || all[3].Errors != 0 {
			t.Errorf("%+v", all)
		}
	})
}

func TestOtherMachinesAreNotLoadedByMistake(t *testing.T) {
	for _, url := range []string{"http://192.0.2.1", "http://localhost.example:80", "https://[2001:db8::1]:8000", "http://0.0.0.0:1"} {
		if _, err := Load(t.Context(), LoadSettings{URL: url}); !errors.Is(err, ErrRemote) || model.ClassOf(err) != model.Usage {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, url := range []string{"http://127.0.0.1:8000/ema/", "http://LOCALHOST", "https://[::1]:8000", "http://127.9.9.9"} {
		if _, err := parseBase(url, false); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	// A name of this machine that leads to another one.
	if err := dialGuard(false)(t.Context(), "tcp", "192.0.2.1:80", nil); !errors.Is(err, ErrRemote) {
		t.Errorf("%v", err)
	}
	settings, err := LoadSettings{URL: "http://localhost"}.complete()
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDoor(settings)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.transport.DialContext(t.Context(), "tcp", "192.0.2.1:80"); !errors.Is(err, ErrRemote) {
		t.Errorf("%v", err)
	}
	if dialGuard(true)(t.Context(), "tcp", "192.0.2.1:80", nil) != nil || dialGuard(false)(t.Context(), "tcp", "[::1]:80", nil) != nil {
		t.Error("refused what is allowed")
	}
}

func TestAllMistakesInTheSettingsAreToldAtOnce(t *testing.T) {
	_, err := Load(t.Context(), LoadSettings{URL: "http://localhost", Users: 5, Rate: 10, WaitMax: time.Second, Expected: time.Second, Model: "a/b/c", Connections: -1})
	for _, text := range []string{"exclude each other", "leave the wait out", "no correction", "more than one slash", "-1 connections"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in: %v", text, err)
		}
	}
	if model.ClassOf(err) != model.Usage {
		t.Errorf("class %v", model.ClassOf(err))
	}
	for url, text := range map[string]string{
		"":                     "want http://host:port",
		"localhost:8000":       "want http://host:port",
		"http://u:secret@h":    "user and password",
		"http://localhost/?a":  "without anything after",
		"http://[::1":          "cannot be read",
		"http://localhost#top": "without anything after",
	} {
		if _, err := Load(t.Context(), LoadSettings{URL: url}); model.ClassOf(err) != model.Usage || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestTheDefaultModelIsOne(t *testing.T) {
	s, err := LoadSettings{}.complete()
	if err != nil || s.Model != "test-model" {
		t.Errorf("%q, %v", s.Model, err)
	}
}

func TestATallyTakesNoMoreMemoryTheLongerItCounts(t *testing.T) {
	tl := newTally(time.Millisecond)
	now := time.Now()
	tl.add(outcome{status: 200}, 0, now)
	tl.add(outcome{kind: TimedOut}, 2*time.Hour, now)
	i := 0
	if n := testing.AllocsPerRun(10_000, func() {
		i++
		tl.add(outcome{status: 200, bytes: 5}, time.Duration(i)*50*time.Microsecond, now)
	}); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
	if f := tl.figures(1); f.Requests != 10_003 || !near(f.Latency.Max, float64(time.Hour/time.Millisecond)) || f.Errors != 1 {
		t.Errorf("%+v", f)
	}
}
