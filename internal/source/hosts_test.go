package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// A stage is a hub with its storage host in a bubble, whose network can fail.
type stage struct {
	t      *testing.T
	hub    *demohub.Hub
	source *Sources
	begin  time.Time

	mu     sync.Mutex
	down   error  // what a dial fails with; nil = it works
	only   string // the one address whose dials fail; empty = all
	hangs  bool   // a dial gets no answer at all
	dials  []time.Duration
	served []time.Duration // when requests arrived, at the hub
	stored []time.Duration // and at its storage host
	told   []string
}

func onStage(t *testing.T, set Settings, test func(t *testing.T, s *stage), opts ...demohub.Option) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t, begin: time.Now()}
		s.hub = demohub.New(append(opts, demohub.Repo("acme/demo", demohub.File("big.bin", 12*model.MiB)), demohub.ViaCDN("http://cdn.test"))...)
		front, back := demohub.NewPipeListener(), demohub.NewPipeListener()
		for l, h := range map[*demohub.PipeListener]http.Handler{front: s.hub, back: s.hub.CDN()} {
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s.mu.Lock()
				if l == front {
					s.served = append(s.served, time.Since(s.begin))
				} else {
					s.stored = append(s.stored, time.Since(s.begin))
				}
				s.mu.Unlock()
				h.ServeHTTP(w, r)
			})}
			go func() { _ = srv.Serve(l) }()
			defer srv.Close()
		}
		to := demohub.DialHosts(map[string]*demohub.PipeListener{"hub.test:80": front, "cdn.test:80": back, "edge.test:80": back})
		set.Endpoint = "http://hub.test"
		set.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			s.mu.Lock()
			s.dials = append(s.dials, time.Since(s.begin))
			down, hangs := s.down, s.hangs
			s.mu.Unlock()
			if hangs {
				ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
				defer cancel()
				<-ctx.Done()
				return nil, &net.OpError{Op: "dial", Net: network, Err: ctx.Err()}
			}
			if down != nil && (s.only == "" || s.only == address) {
				return nil, down
			}
			return to(ctx, network, address)
		}
		set.Tell = func(host string, err error, wait time.Duration) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.told = append(s.told, fmt.Sprintf("%s %v %v", host, model.ClassOf(err), wait))
		}
		src, err := New(set)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		s.source = src
		test(t, s)
	})
}

// fails makes all further dials fail with err, and breaks the connections there are.
func (s *stage) fails(err error) {
	s.mu.Lock()
	s.down, s.dials = err, nil
	s.mu.Unlock()
	s.source.wire.idle()
}

func (s *stage) dialled() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.dials)
}

// next bends the next answers to questions about models.
func (s *stage) next(f demohub.Fault) { s.hub.Fault(demohub.Match{Kind: demohub.API}, f, 1) }

func (s *stage) now() time.Duration { return time.Since(s.begin) }

var demo = model.ID{Scheme: model.Hub, Name: "acme/demo"}

// apart fails unless all times lie at least gap apart.
func apart(t *testing.T, times []time.Duration, gap time.Duration) {
	t.Helper()
	for i := 1; i < len(times); i++ {
		if times[i]-times[i-1] < gap {
			t.Fatalf("%v and %v are less than %v apart, among %v", times[i-1], times[i], gap, times)
		}
	}
}

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

func TestALimitedHostGetsNoRequestBeforeItsTime(t *testing.T) {
	for promise, fault := range map[string]demohub.Fault{
		"after 429":                    demohub.RetryAfter(429, 2*time.Minute),
		"after 503":                    demohub.RetryAfter(503, 2*time.Minute),
		"after the hub's own headers":  demohub.RateLimited(119 * time.Second), // one is added
		"although a date was given":    demohub.RetryAt(429, 2*time.Minute),
		"of 200 files, not even twice": demohub.RetryAfter(429, 2*time.Minute),
	} {
		t.Run(promise, func(t *testing.T) {
			onStage(t, Settings{MaxConnsPerHost: 4}, func(t *testing.T, s *stage) {
				m := resolved(t, s.source, demo, "")
				if _, err := readSegment(t, s.source, m, "big.bin", model.Segment{End: 5}); err != nil { // finds out where it is
					t.Fatal(err)
				}
				s.hub.Next(fault)
				_, err := readSegment(t, s.source, m, "big.bin", model.Segment{End: 5})
				if c := model.ClassOf(err); c != model.RateLimited && c != model.ServerError {
					t.Fatal(err)
				}
				until := s.now() + 2*time.Minute
				asked := len(s.stored)
				callers := 16
				if strings.Contains(promise, "200") {
					callers = 200
				}
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() {
						if _, err := readSegment(t, s.source, m, "big.bin", model.Segment{End: 5}); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				for _, at := range s.stored[asked:] {
					if at < until {
						t.Fatalf("asked at %v, although it wants nothing before %v", at, until)
					}
				}
				if s.now() > until+5*time.Second {
					t.Errorf("all done at %v only, the limit ended at %v", s.now(), until)
				}
				if len(s.told) != 1 || !strings.HasPrefix(s.told[0], "cdn.test:80 rate_limited 2m") {
					t.Errorf("told %q", s.told)
				}
			})
		})
	}
}

func TestAfterALimitTheFirstGoesAlone(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		resolved(t, s.source, demo, "")
		s.next(demohub.RetryAfter(429, time.Minute))
		_, err := s.source.Resolve(t.Context(), demo, "")
		classIs(t, err, model.RateLimited)
		s.next(demohub.RetryAfter(429, time.Minute)) // it has not had enough yet
		before := len(s.served)
		var wg sync.WaitGroup
		var refused atomic.Int32
		for range 16 {
			wg.Go(func() {
				if _, err := s.source.Resolve(t.Context(), demo, ""); err != nil {
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		if got := refused.Load(); got != 1 {
			t.Errorf("%d of 16 got the second refusal, want the one that went ahead", got)
		}
		after := s.served[before:]
		if len(after) != 17 && len(after) != 16 || after[0] < time.Minute || after[1] < 2*time.Minute {
			t.Errorf("asked at %v", after)
		}
	})
}

func TestAnAnswerToAnEarlierRequestLiftsNoLimit(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		resolved(t, s.source, demo, "")
		s.next(demohub.Silence(10 * time.Second))
		var wg sync.WaitGroup
		wg.Go(func() { resolved(t, s.source, demo, "") })
		<-time.After(time.Second)
		s.next(demohub.RetryAfter(429, time.Minute))
		_, err := s.source.Resolve(t.Context(), demo, "")
		classIs(t, err, model.RateLimited)
		wg.Wait()
		resolved(t, s.source, demo, "")
		if at := s.served[len(s.served)-1]; at < time.Minute+time.Second {
			t.Errorf("asked at %v", at)
		}
	})
}

func TestWhoStopsWaitsNoLonger(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		resolved(t, s.source, demo, "")
		s.next(demohub.RetryAfter(429, 4*time.Minute))
		_, err := s.source.Resolve(t.Context(), demo, "")
		classIs(t, err, model.RateLimited)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := s.now()
		_, err = s.source.Resolve(ctx, demo, "")
		classIs(t, err, model.Cancelled)
		if took := s.now() - begin; took != time.Second {
			t.Errorf("stopped after %v", took)
		}
	})
}

func TestALongLimitIsToldInsteadOfWaitedFor(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		resolved(t, s.source, demo, "")
		s.next(demohub.RetryAfter(429, time.Hour))
		_, err := s.source.Resolve(t.Context(), demo, "")
		classIs(t, err, model.RateLimited)
		<-time.After(10 * time.Minute)
		asked := len(s.served)
		_, err = s.source.Resolve(t.Context(), demo, "")
		if e := classIs(t, err, model.RateLimited); e.After != 50*time.Minute || len(s.served) != asked {
			t.Errorf("After = %v, %d requests", e.After, len(s.served)-asked)
		}
		st := s.source.Hosts()
		if len(st) != 1 || time.Until(st[0].Until) != 50*time.Minute || model.ClassOf(st[0].Err) != model.RateLimited {
			t.Errorf("the status is %+v", st)
		}
	})
}

func TestADeadHostIsNotHammered(t *testing.T) {
	for promise, down := range map[string]error{
		"that refuses":       errRefused,
		"without a name":     &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "server misbehaving", Name: "hub.test", IsTemporary: true}},
		"that cannot be had": &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ENETUNREACH},
	} {
		t.Run(promise, func(t *testing.T) {
			onStage(t, Settings{}, func(t *testing.T, s *stage) {
				m := resolved(t, s.source, demo, "")
				s.fails(down)
				var wg sync.WaitGroup
				var done atomic.Int32
				for i := range 50 {
					wg.Go(func() {
						<-time.After(time.Duration(i+1) * 10 * time.Millisecond)
						if i%2 == 0 {
							_, _ = s.source.Resolve(t.Context(), demo, "")
						} else if _, err := readSegment(t, s.source, m, "big.bin", model.Segment{End: 5}); err != nil {
							t.Error(err)
						}
						done.Add(1)
					})
				}
				<-time.After(5 * time.Minute)
				if n := len(s.dialled()); done.Load() != 0 || n < 55 || n > 61 {
					t.Errorf("%d calls have ended; %d dials in five minutes, want one every 5 s", done.Load(), n)
				}
				apart(t, s.dialled(), probeEvery)
				st := s.source.Hosts()
				if away := time.Since(st[0].Away); away < 4*time.Minute || away > 6*time.Minute || st[0].Err == nil {
					t.Errorf("the status is %+v", st)
				}
				s.fails(nil)
				back := s.now()
				wg.Wait()
				if took := s.now() - back; took > 10*time.Second {
					t.Errorf("went on %v after it was back", took)
				}
				if len(s.told) != 1 || s.told[0] != "hub.test:80 reset 15m0s" {
					t.Errorf("told %q", s.told)
				}
			})
		})
	}
}

func TestANetworkThatSwallowsEverythingIsNoticedWhenItIsBack(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		resolved(t, s.source, demo, "")
		s.source.wire.idle()
		s.mu.Lock()
		s.hangs = true
		s.mu.Unlock()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := s.source.Resolve(t.Context(), demo, ""); err != nil {
					t.Error(err)
				}
			})
		}
		<-time.After(5*time.Minute + time.Second) // in the middle of an attempt
		s.mu.Lock()
		s.hangs = false
		s.mu.Unlock()
		back := s.now()
		wg.Wait()
		if took := s.now() - back; took > probeConnect {
			t.Errorf("went on after %v, want it within that of one probe", took)
		}
	})
}

func TestAHostThatNeverAnsweredFailsFast(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		s.fails(errRefused)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 6 { // the ordinary attempts
					_, err := s.source.Resolve(t.Context(), demo, "")
					classIs(t, err, model.Reset)
					if !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("%v does not say why", err)
					}
					<-time.After(2 * time.Second)
				}
			})
		}
		wg.Wait()
		if s.now() != 12*time.Second {
			t.Errorf("took %v, want no longer than the callers themselves", s.now())
		}
		if n := len(s.dialled()); n != 2 && n != 3 {
			t.Errorf("%d dials", n)
		}
		apart(t, s.dialled(), probeEvery)
		s.fails(nil)
		<-time.After(probeEvery)
		resolved(t, s.source, demo, "")
	})
}

func TestADaemonWaitsForItsOwnNetworkAndForNoMistake(t *testing.T) {
	noServer := &net.OpError{Op: "dial", Err: &net.DNSError{Err: "connection refused", Name: "hub.test", IsTemporary: true}}
	noRoute := &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}
	noName := &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "hub.test", IsNotFound: true}}
	for name, c := range map[string]struct {
		err       error
		steadfast bool
		waits     bool
	}{
		"no name server answers": {noServer, true, true},
		"there is no route":      {noRoute, true, true},
		"there is no such name":  {noName, true, false},
		"the host refuses":       {errRefused, true, false},
		"a person waits":         {noServer, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, Settings{Steadfast: c.steadfast}, func(t *testing.T, s *stage) {
				s.fails(c.err)
				back := make(chan time.Duration, 1)
				go func() {
					<-time.After(5 * time.Minute)
					s.fails(nil)
					back <- s.now()
				}()
				_, err := s.source.Resolve(t.Context(), demo, "")
				took := s.now()
				if was := <-back; c.waits && (err != nil || took < was || took-was > 10*time.Second) || !c.waits && (err == nil || took > time.Second) {
					t.Errorf("ended after %v with %v, while the network was back after %v", took, err, was)
				}
			})
		})
	}
}

func TestAStorageHostThatIsGoneIsWaitedForThroughTheHub(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		m := resolved(t, s.source, demo, "")
		read := func() error {
			_, err := readSegment(t, s.source, m, "big.bin", model.Segment{End: 5})
			return err
		}
		if err := read(); err != nil {
			t.Fatal(err)
		}
		s.only = "cdn.test:80"
		s.fails(errRefused)
		classIs(t, read(), model.Reset) // where it was known to be
		asked := len(s.served)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := read(); err != nil {
					t.Error(err)
				}
			})
		}
		<-time.After(5 * time.Minute)
		if n := len(s.dialled()); n > 70 { // one every 5 s, and some to the hub
			t.Errorf("%d dials in five minutes", n)
		}
		if n := len(s.served) - asked; n > 80 {
			t.Errorf("the hub was asked %d times meanwhile", n)
		}
		s.fails(nil)
		back := s.now()
		wg.Wait()
		if took := s.now() - back; took > 10*time.Second {
			t.Errorf("went on %v after it was back", took)
		}
	})
}

func TestAnotherStorageHostIsTakenWhenTheHubNamesOne(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		m := resolved(t, s.source, demo, "")
		if _, err := readSegment(t, s.source, m, "big.bin", model.Segment{End: 5}); err != nil {
			t.Fatal(err)
		}
		s.only = "cdn.test:80"
		s.fails(errRefused)
		_, err := readSegment(t, s.source, m, "big.bin", model.Segment{End: 5})
		classIs(t, err, model.Reset)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := readSegment(t, s.source, m, "big.bin", model.Segment{End: 5}); err != nil {
				t.Error(err)
			}
		})
		<-time.After(time.Minute)
		s.hub.Set(demohub.ViaCDN("http://edge.test"))
		change := s.now()
		wg.Wait()
		if took := s.now() - change; took > 10*time.Second {
			t.Errorf("went there after %v", took)
		}
	})
}

func TestPatienceEnds(t *testing.T) {
	onStage(t, Settings{Patience: time.Minute}, func(t *testing.T, s *stage) {
		resolved(t, s.source, demo, "")
		s.fails(errRefused)
		begin := s.now()
		_, err := s.source.Resolve(t.Context(), demo, "")
		classIs(t, err, model.Reset)
		if took := s.now() - begin; took < time.Minute || took > time.Minute+probeEvery {
			t.Errorf("gave up after %v", took)
		}
		begin = s.now()
		_, err = s.source.Resolve(t.Context(), demo, "")
		classIs(t, err, model.Reset)
		if took := s.now() - begin; took > probeEvery {
			t.Errorf("gave up again after %v", took)
		}
	})
}

func TestOneSilentAnswerDoesNotMakeAHostDead(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		m := resolved(t, s.source, demo, "")
		read := func() error {
			_, err := readSegment(t, s.source, m, "big.bin", model.Segment{End: 5})
			return err
		}
		if err := read(); err != nil {
			t.Fatal(err)
		}
		s.hub.Next(demohub.Silence(time.Hour))
		var wg sync.WaitGroup
		wg.Go(func() {
			classIs(t, read(), model.Timeout)
		})
		for range 120 {
			<-time.After(time.Second)
			if err := read(); err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if len(s.told) != 0 || s.now() != 2*time.Minute {
			t.Errorf("after %v: told %q", s.now(), s.told)
		}
	})
}

func TestSleepingCountsAsWaiting(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		var slept atomic.Int64
		s.source.wire.hosts.now = func() time.Time { return time.Now().Add(time.Duration(slept.Load())) }
		resolved(t, s.source, demo, "")
		s.next(demohub.RetryAfter(429, 4*time.Minute))
		_, err := s.source.Resolve(t.Context(), demo, "")
		classIs(t, err, model.RateLimited)
		var wg sync.WaitGroup
		begin := s.now()
		wg.Go(func() { resolved(t, s.source, demo, "") })
		<-time.After(5 * time.Second)
		slept.Store(int64(time.Hour)) // the machine; its timers know nothing of it
		wg.Wait()
		if took := s.now() - begin; took > 5*time.Second+lookAgain {
			t.Errorf("waited %v, of which it should have slept nearly all", took)
		}
	})
}

func TestSuccessRateIsOfTheLastAttemptsAtTheHost(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		m := resolved(t, s.source, demo, "")
		var last error
		if _, known := s.source.SuccessRate(errors.New("no host")); known {
			t.Error("an error about nothing has a rate")
		}
		read := func(fault demohub.Fault) {
			s.hub.ClearFaults()
			s.hub.Fault(demohub.Match{Kind: demohub.Bulk}, fault, 0)
			b, err := s.source.Open(t.Context(), m, fileOf(t, m, "big.bin"), model.Segment{End: 1000})
			if err != nil {
				last = err
				return
			}
			if _, err = io.Copy(io.Discard, b); err != nil {
				last = err
			}
			_ = b.Close()
		}
		for range 4 {
			read(demohub.Pass())
			read(demohub.CutAfter(10))
		}
		rate, known := s.source.SuccessRate(last)
		if !known || rate != 0.5 {
			t.Errorf("half of 8 bodies were cut: %v, %v", rate, known)
		}
		for range 32 {
			read(demohub.Status(500))
		}
		if rate, known = s.source.SuccessRate(last); !known || rate != 0 {
			t.Errorf("32 refusals: %v, %v", rate, known)
		}
		for range 24 {
			read(demohub.Pass())
		}
		if rate, _ = s.source.SuccessRate(last); rate != 0.75 {
			t.Errorf("24 of 32: %v", rate)
		}
	})
}
