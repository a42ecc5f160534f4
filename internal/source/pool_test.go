package source

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// A counter counts what reaches servers: connections and requests, now and at most at once.
type counter struct {
	mu                  sync.Mutex
	conns, requests     int
	mostConns, mostReqs int
	made                int
	protocols           map[string]int
}

func (c *counter) conn(_ net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s {
	case http.StateNew:
		c.made++
		c.conns++
		c.mostConns = max(c.mostConns, c.conns)
	case http.StateClosed, http.StateHijacked:
		c.conns--
	}
}

func (c *counter) request(r *http.Request, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests += n
	c.mostReqs = max(c.mostReqs, c.requests)
	if c.protocols == nil {
		c.protocols = map[string]int{}
	}
	c.protocols[r.Proto]++
}

// fileServer serves one file of 100 kB and counts.
func fileServer(t *testing.T, c *counter, secure bool) *httptest.Server {
	t.Helper()
	content := noise(100_000)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.request(r, 1)
		defer c.request(r, -1)
		<-time.After(time.Millisecond) // so that requests overlap
		w.Header().Set("ETag", `"x"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	srv.Config.ConnState = c.conn
	if srv.EnableHTTP2 = secure; secure {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return srv
}

// reader resolves the file of a server and returns how to read a piece of it.
func reader(t *testing.T, s *Sources, srv *httptest.Server) func(ctx context.Context) (*Body, error) {
	t.Helper()
	m := resolved(t, s, model.ID{Scheme: model.HTTPS, Name: srv.URL + "/a.bin"}, "")
	return func(ctx context.Context) (*Body, error) {
		return s.Open(ctx, m, m.Files[0], model.Segment{Start: 1, End: 50_000})
	}
}

func sources(t *testing.T, set Settings) *Sources {
	t.Helper()
	s, err := New(set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func drain(b *Body, err error) error {
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, b)
	_ = b.Close()
	return err
}

func inPool(s *Sources) int {
	s.wire.pool.mu.Lock()
	defer s.wire.pool.mu.Unlock()
	return len(s.wire.pool.open)
}

func TestOneHostGetsNoMoreConnectionsThanItsCap(t *testing.T) {
	for promise, set := range map[string]Settings{
		"over HTTP/1.1":           {MaxConnsPerHost: 3},
		"over HTTP/2, as streams": {MaxConnsPerHost: 3, HTTP2Bulk: true},
	} {
		t.Run(promise, func(t *testing.T) {
			var c counter
			srv := fileServer(t, &c, set.HTTP2Bulk)
			if set.HTTP2Bulk {
				set.CertFiles = []string{certOf(t, srv)}
			}
			set.NoHTTP2 = !set.HTTP2Bulk
			s := sources(t, set)
			open := reader(t, s, srv)
			s.wire.idle() // the one for metadata
			var wg sync.WaitGroup
			for range 4 { // downloads
				for range 5 {
					wg.Go(func() {
						for range 3 {
							if err := drain(open(t.Context())); err != nil {
								t.Error(err)
							}
						}
					})
				}
			}
			wg.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.mostReqs > 3 || c.mostConns > 3+1 || c.mostReqs < 2 { // one of metadata may be closing still
				t.Errorf("%d requests over %d connections at once", c.mostReqs, c.mostConns)
			}
			if got := c.protocols["HTTP/2.0"] > 0; got != set.HTTP2Bulk {
				t.Errorf("protocols %v", c.protocols)
			}
		})
	}
}

func TestAllHostsTogetherGetNoMoreConnectionsThanTheirCap(t *testing.T) {
	var a, b counter
	one, two := fileServer(t, &a, false), fileServer(t, &b, false)
	s := sources(t, Settings{MaxConns: 4, NoHTTP2: true, IdleTimeout: time.Hour})
	fromOne, fromTwo := reader(t, s, one), reader(t, s, two)
	var held []*Body
	for range 4 {
		body, err := fromOne(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := fromTwo(ctx)
	classIs(t, err, model.Cancelled)
	if s.Hosts()[0].Open+s.Hosts()[1].Open != 4 {
		t.Errorf("open: %+v", s.Hosts())
	}
	for _, body := range held {
		if err := drain(body, nil); err != nil {
			t.Fatal(err)
		}
	}
	// Four connections to the one are idle now. They make room, or nobody would ever get to the other.
	for range 4 {
		body, err := fromTwo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
	}
	if n := inPool(s); n > 4 {
		t.Errorf("%d connections are open", n)
	}
	_ = s.Close()
}

func TestAllHostsShareTheirConnectionsUnderLoad(t *testing.T) {
	var a, b counter
	s := sources(t, Settings{MaxConns: 5, MaxConnsPerHost: 4, NoHTTP2: true})
	var most atomic.Int64
	dial := s.wire.bulk.DialContext
	s.wire.bulk.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		s.wire.pool.mu.Lock()
		defer s.wire.pool.mu.Unlock()
		most.Store(max(most.Load(), int64(len(s.wire.pool.open))))
		return c, err
	}
	var wg sync.WaitGroup
	for _, srv := range []*httptest.Server{fileServer(t, &a, false), fileServer(t, &b, false)} {
		open := reader(t, s, srv)
		for i := range 10 {
			wg.Go(func() {
				for j := range 10 {
					body, err := open(t.Context())
					if err == nil && (i+j)%3 == 0 {
						_ = body.Close() // early: its connection is lost
						continue
					}
					if err := drain(body, err); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if n := most.Load(); n > 5 || n < 2 {
		t.Errorf("%d connections at once", n)
	}
}

func TestUnusedConnectionsAreClosed(t *testing.T) {
	for promise, c := range map[string]struct {
		set  Settings
		open map[time.Duration]int // after the last use
	}{
		"after half a minute":                   {Settings{}, map[time.Duration]int{29 * time.Second: 2, 31 * time.Second: 0}},
		"after as long as is set":               {Settings{IdleTimeout: 5 * time.Second}, map[time.Duration]int{4 * time.Second: 2, 6 * time.Second: 0}},
		"soon when they need not be persistent": {Settings{NoPersistence: true}, map[time.Duration]int{500 * time.Millisecond: 2, 1500 * time.Millisecond: 0}},
		"at once when they are not to be used again": {
			Settings{NoKeepAlive: true}, map[time.Duration]int{time.Millisecond: 0},
		},
	} {
		t.Run(promise, func(t *testing.T) {
			onStage(t, c.set, func(t *testing.T, s *stage) {
				m := resolved(t, s.source, demo, "")
				if _, err := readSegment(t, s.source, m, "big.bin", model.Segment{End: 1000}); err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				for _, after := range []time.Duration{time.Millisecond, 500 * time.Millisecond, 1500 * time.Millisecond, 4 * time.Second, 6 * time.Second, 29 * time.Second, 31 * time.Second} {
					<-time.After(after - time.Since(begin))
					want, asked := c.open[after]
					if n := inPool(s.source); asked && n != want {
						t.Errorf("after %v: %d connections are open, want %d", after, n, want)
					}
				}
			})
		})
	}
}

func TestReuseOfConnections(t *testing.T) {
	for promise, c := range map[string]struct {
		set  Settings
		want int
	}{
		"is the default":                     {Settings{NoHTTP2: true}, 2}, // one of them for metadata
		"is for segments in persistence too": {Settings{NoHTTP2: true, NoPersistence: true}, 2},
		"is not for who does not want it":    {Settings{NoKeepAlive: true, NoPersistence: true}, 6},
	} {
		t.Run(promise, func(t *testing.T) {
			var seen counter
			open := reader(t, sources(t, c.set), fileServer(t, &seen, false))
			for range 5 {
				if err := drain(open(t.Context())); err != nil {
					t.Fatal(err)
				}
			}
			seen.mu.Lock()
			defer seen.mu.Unlock()
			if seen.made != c.want {
				t.Errorf("%d connections for 6 requests, want %d", seen.made, c.want)
			}
		})
	}
}

func TestMetadataAloneIsCompressed(t *testing.T) {
	for _, none := range []bool{false, true} {
		hub := demohub.New(demohub.Repo("acme/demo", demohub.File("big.bin", model.MiB)))
		var mu sync.Mutex
		encodings := map[bool]string{}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			encodings[strings.HasPrefix(r.URL.Path, "/api/")] = r.Header.Get("Accept-Encoding")
			mu.Unlock()
			hub.ServeHTTP(w, r)
		}))
		defer srv.Close()
		s := sources(t, Settings{Endpoint: srv.URL, NoCompression: none})
		m := resolved(t, s, demo, "")
		if _, err := readSegment(t, s, m, "big.bin", model.Segment{End: 10}); err != nil {
			t.Fatal(err)
		}
		if meta := encodings[true]; (meta == "gzip") == none || encodings[false] != "identity" {
			t.Errorf("compression off: %t; asked for metadata in %q, for bytes in %q", none, meta, encodings[false])
		}
	}
}

func TestRoundTripIsThatOfOpenConnections(t *testing.T) {
	var c counter
	srv := fileServer(t, &c, false)
	s := sources(t, Settings{})
	if now, least := s.RoundTrip(); now != 0 || least != 0 {
		t.Errorf("without connections: %v, %v", now, least)
	}
	open := reader(t, s, srv)
	body, err := open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	now, least := s.RoundTrip()
	if now <= 0 || least <= 0 || least > now || now > time.Minute {
		t.Errorf("%v, at least %v", now, least)
	}
	st := s.Hosts()
	if len(st) != 1 || st[0].Open != 1 || st[0].RTT <= 0 || st[0].SuccessRate != 1 || !strings.HasSuffix(srv.URL, st[0].Host) {
		t.Errorf("the status is %+v", st)
	}
	if m := median([]time.Duration{5, 1, 9}); m != 5 {
		t.Errorf("median %v", m)
	}
}
