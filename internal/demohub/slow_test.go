package demohub_test

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// inBubble runs a hub and its CDN over pipes in a bubble of fake time, and a client without keep-alive.
func inBubble(t *testing.T, opts []demohub.Option, run func(t *testing.T, hub *demohub.Hub, client *http.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hub := demohub.New(append(opts, demohub.ViaCDN("http://cdn.test"))...)
		listeners := map[string]*demohub.PipeListener{"hub.test:80": demohub.NewPipeListener(), "cdn.test:80": demohub.NewPipeListener()}
		done := make(chan error, 2)
		servers := []*http.Server{{Handler: hub}, {Handler: hub.CDN()}}
		for i, name := range []string{"hub.test:80", "cdn.test:80"} {
			go func() { done <- servers[i].Serve(listeners[name]) }()
		}
		transport := &http.Transport{DialContext: demohub.DialHosts(listeners), DisableCompression: true}
		run(t, hub, &http.Client{Transport: transport})
		transport.CloseIdleConnections()
		for _, s := range servers {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		for range servers {
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		}
	})
}

func bulkRepo() demohub.Option {
	return demohub.Repo("acme/tiny", demohub.File("model.bin", 2*model.MiB), demohub.File("small.bin", 100*model.KiB), demohub.File("tiny.bin", 5*model.KiB))
}

const (
	largeURL = "http://hub.test/acme/tiny/resolve/main/model.bin"
	smallURL = "http://hub.test/acme/tiny/resolve/main/small.bin"
)

// fetch reads a body to its end and says how long that took, in the bubble's time.
func fetch(t *testing.T, client *http.Client, url string) (n int64, took time.Duration, err error) {
	t.Helper()
	begin := time.Now()
	res, err := client.Get(url)
	if err != nil {
		return 0, time.Since(begin), err
	}
	n, err = io.Copy(io.Discard, res.Body)
	return n, time.Since(begin), errors.Join(err, res.Body.Close())
}

func near(got, want time.Duration) bool {
	return got > want-want/50 && got < want+want/50
}

func TestSlowness(t *testing.T) {
	second := time.Second
	for promise, c := range map[string]struct {
		opts  []demohub.Option
		fault demohub.Fault
		url   string
		want  time.Duration
	}{
		"a rate":                     {[]demohub.Option{demohub.Rate(100 * model.KiB)}, demohub.Pass(), largeURL, 20480 * time.Millisecond},
		"a high rate":                {[]demohub.Option{demohub.Rate(100 * model.MiB)}, demohub.Pass(), largeURL, 20 * time.Millisecond},
		"a trickle":                  {nil, demohub.Trickle(1000), smallURL, 102400 * time.Millisecond},
		"a thinner trickle":          {nil, demohub.Trickle(10), "http://hub.test/acme/tiny/resolve/main/tiny.bin", 512 * second},
		"silence":                    {nil, demohub.Silence(5 * time.Minute), smallURL, 5 * time.Minute},
		"a stall":                    {nil, demohub.StallAfter(50*model.KiB, time.Hour), smallURL, time.Hour},
		"latency of both hosts":      {[]demohub.Option{demohub.Latency(50 * time.Millisecond)}, demohub.Pass(), largeURL, 100 * time.Millisecond},
		"a total, with one transfer": {[]demohub.Option{demohub.Collapse(0, 10*model.KiB)}, demohub.Pass(), smallURL, 10 * second},
		"no collapse with one":       {[]demohub.Option{demohub.Collapse(1, 10*model.KiB), demohub.Rate(100 * model.KiB)}, demohub.Pass(), smallURL, second},
	} {
		t.Run(promise, func(t *testing.T) {
			inBubble(t, append(c.opts, bulkRepo()), func(t *testing.T, hub *demohub.Hub, client *http.Client) {
				hub.Next(c.fault)
				n, took, err := fetch(t, client, c.url)
				if err != nil || !near(took, c.want) || n != hub.Stats().Body {
					t.Errorf("%d bytes (%d counted) in %v, want %v; %v", n, hub.Stats().Body, took, c.want, err)
				}
			})
		})
	}
}

func TestCollapseAboveTheThreshold(t *testing.T) {
	opts := []demohub.Option{bulkRepo(), demohub.Rate(100 * model.KiB), demohub.Collapse(2, 30*model.KiB)}
	for conns, want := range map[int]time.Duration{2: time.Second, 3: 10 * time.Second} {
		inBubble(t, opts, func(t *testing.T, hub *demohub.Hub, client *http.Client) {
			done := make(chan time.Duration, conns)
			for range conns {
				go func() {
					_, took, err := fetch(t, client, smallURL)
					if err != nil {
						t.Error(err)
					}
					done <- took
				}()
			}
			longest := time.Duration(0)
			for range conns {
				longest = max(longest, <-done)
			}
			if longest < want-want/20 || longest > want+want/20 {
				t.Errorf("%d transfers took %v, want %v", conns, longest, want)
			}
			if got := hub.Stats().MaxTransfers; got != conns {
				t.Errorf("%d transfers at once, want %d", got, conns)
			}
		})
	}
}

func TestStallsEndWithTheClient(t *testing.T) {
	for promise, fault := range map[string]demohub.Fault{
		"a stall in the body":       demohub.StallAfter(10*model.KiB, 0),
		"silence":                   demohub.Silence(0),
		"a trickle that never ends": demohub.Trickle(1),
	} {
		t.Run(promise, func(t *testing.T) {
			inBubble(t, []demohub.Option{bulkRepo()}, func(t *testing.T, hub *demohub.Hub, client *http.Client) {
				hub.Next(fault)
				client.Timeout = time.Minute
				if _, took, err := fetch(t, client, smallURL); err == nil || took != time.Minute {
					t.Errorf("ended after %v with %v, want the client's own timeout", took, err)
				}
				client.Timeout = 0
				synctest.Wait()
				if rows := hub.Log(); !rows[0].Done {
					t.Errorf("the answer is not over: %+v", rows[0])
				}
				if n, _, err := fetch(t, client, smallURL); n != 100<<10 || err != nil {
					t.Errorf("then %d bytes, %v", n, err)
				}
			})
		})
	}
}

func TestQuotasRefuseUntilTheWindowIsOver(t *testing.T) {
	opts := []demohub.Option{bulkRepo(), demohub.ResolveQuota(2, 5*time.Minute), demohub.APIQuota(1, time.Minute)}
	inBubble(t, opts, func(t *testing.T, hub *demohub.Hub, client *http.Client) {
		get := func(url string) *http.Response {
			t.Helper()
			res, err := client.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Fatal(err)
			}
			return errorless(t, res)
		}
		limits := func(res *http.Response, status int, want string) {
			t.Helper()
			if got := res.Header.Get("RateLimit"); res.StatusCode != status || got != want {
				t.Errorf("%s, RateLimit %s; want %d and %s", res.Status, got, status, want)
			}
		}
		limits(get(smallURL), 200, `"resolvers";r=1;t=300`)
		get(largeURL) // one for the hub, none for the CDN
		limits(get(smallURL), 429, `"resolvers";r=0;t=300`)
		limits(get("http://hub.test/api/models/acme/tiny"), 200, `"api";r=0;t=60`)
		refused := get("http://hub.test/api/models/acme/tiny")
		limits(refused, 429, `"api";r=0;t=60`)
		if policy := refused.Header.Get("RateLimit-Policy"); policy != `"fixed window";"api";q=1;w=60` {
			t.Errorf("RateLimit-Policy %s", policy)
		}
		<-time.After(time.Minute)
		limits(get("http://hub.test/api/models/acme/tiny"), 200, `"api";r=0;t=60`)
		limits(get(smallURL), 429, `"resolvers";r=0;t=240`)
		<-time.After(4 * time.Minute)
		limits(get(smallURL), 200, `"resolvers";r=1;t=300`)
		if got := hub.Stats().Limited; got != 3 {
			t.Errorf("%d refusals counted, want 3", got)
		}
	})
}

func errorless(t *testing.T, res *http.Response) *http.Response {
	t.Helper()
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
	return res
}

func TestSignedURLsExpireWithTime(t *testing.T) {
	inBubble(t, []demohub.Option{bulkRepo(), demohub.SignedFor(5 * time.Second)}, func(t *testing.T, hub *demohub.Hub, client *http.Client) {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		hop, err := client.Get(largeURL)
		if err != nil {
			t.Fatal(err)
		}
		errorless(t, hop)
		for _, c := range []struct {
			wait time.Duration
			want int
		}{{4999 * time.Millisecond, 206}, {time.Millisecond, 403}} {
			<-time.After(c.wait)
			req, err := http.NewRequest("GET", hop.Header.Get("Location"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Range", "bytes=0-9")
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if errorless(t, res); res.StatusCode != c.want {
				t.Errorf("%v later: %s, want %d", c.wait, res.Status, c.want)
			}
		}
	})
}

func TestBreaksOverPipes(t *testing.T) {
	inBubble(t, []demohub.Option{bulkRepo()}, func(t *testing.T, hub *demohub.Hub, client *http.Client) {
		for _, c := range []struct {
			fault demohub.Fault
			want  int64
		}{{demohub.ResetAfter(1000), 1000}, {demohub.CutAfter(2000), 2000}, {demohub.ResetEarly(), 0}} {
			hub.Next(c.fault, c.fault, c.fault) // net/http itself repeats a GET whose connection broke early
			if n, _, err := fetch(t, client, smallURL); n != c.want || err == nil {
				t.Errorf("%s: %d bytes, %v", c.fault, n, err)
			}
			hub.ClearFaults()
		}
	})
}

func TestBytesThatCouldNotBeSentAreNotCounted(t *testing.T) {
	inBubble(t, []demohub.Option{bulkRepo()}, func(t *testing.T, hub *demohub.Hub, client *http.Client) {
		res, err := client.Get(smallURL)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, res.Body, 1000); err != nil {
			t.Fatal(err)
		}
		errorless(t, res)
		synctest.Wait()
		if got := hub.Stats().Body; got < 1000 || got >= 100<<10 {
			t.Errorf("%d bytes counted for a client that left after 1000", got)
		}
		if rows := hub.Log(); rows[0].Sent != hub.Stats().Body || !rows[0].Done {
			t.Errorf("the log says %+v", rows[0])
		}
	})
}
