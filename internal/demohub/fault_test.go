package demohub_test

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// origin is a hub with one small and one large file, which is served by disk and by generator alike.
type origin struct {
	hub  *demohub.Hub
	url  string // of the large file, on the hub itself
	want string // its content
}

func eachOrigin(t *testing.T, run func(t *testing.T, o origin)) {
	t.Helper()
	large := demohub.File("model.bin", 3*model.MiB)
	want := string(content(t, large))
	path := filepath.Join(t.TempDir(), "model.bin")
	if err := os.WriteFile(path, []byte(want), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]demohub.Entry{"generated": large, "disk": demohub.Disk("model.bin", path)} {
		t.Run(name, func(t *testing.T) {
			hub := demohub.New(demohub.Repo("acme/tiny", e, demohub.Bytes("config.json", []byte("{}\n"))))
			run(t, origin{hub, serveHub(t, hub) + "/acme/tiny/resolve/main/model.bin", want})
		})
	}
}

// rawGet sends a request over a connection of its own and returns the answer's headers and all of the body
// that could be read, with the error that ended it.
func rawGet(t *testing.T, url string) (head, body string, err error) {
	t.Helper()
	addr, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, addr); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(conn)
	head, body, _ = strings.Cut(string(all), "\r\n\r\n")
	return head, body, err
}

func TestBrokenConnections(t *testing.T) {
	const size = 3 << 20
	promises := map[string]struct {
		fault  demohub.Fault
		length int // promised; negative: not even headers come
		sent   int // body bytes
		reset  bool
	}{
		"reset before headers":        {demohub.ResetEarly(), -1, 0, true},
		"reset after headers":         {demohub.ResetAfter(0), size, 0, true},
		"reset in the middle":         {demohub.ResetAfter(2*model.MiB + 7), size, 2<<20 + 7, true},
		"reset after all":             {demohub.ResetAfter(size), size, size, true},
		"a reset that comes too late": {demohub.ResetAfter(size + 1), size, size, false},
		"cut after headers":           {demohub.CutAfter(0), size, 0, false},
		"cut in the middle":           {demohub.CutAfter(model.MiB + 1), size, 1<<20 + 1, false},
		"more promised than there is": {demohub.WrongLength(100), size + 100, size, false},
		"less promised than there is": {demohub.WrongLength(-100), size - 100, size - 100, false},
		"nothing promised but all":    {demohub.WrongLength(-1 << 40), 0, 0, false},
	}
	eachOrigin(t, func(t *testing.T, o origin) {
		for promise, c := range promises {
			t.Run(promise, func(t *testing.T) {
				o.hub.ResetStats()
				o.hub.Next(c.fault)
				head, body, err := rawGet(t, o.url)
				if c.reset != errors.Is(err, syscall.ECONNRESET) || !c.reset && err != nil {
					t.Errorf("the connection ended with %v", err)
				}
				if want := fmt.Sprintf("Content-Length: %d\r\n", c.length); c.length >= 0 && !strings.Contains(head, want) || c.length < 0 && head != "" {
					t.Errorf("headers, want %s:\n%s", want, head)
				}
				if body != o.want[:c.sent] {
					t.Errorf("%d body bytes, want the first %d", len(body), c.sent)
				}
				if stats := o.hub.Stats(); stats.Body != int64(c.sent) {
					t.Errorf("%d bytes counted, want %d", stats.Body, c.sent)
				}
			})
		}
	})
}

func TestBentAnswers(t *testing.T) {
	const ask10 = "bytes=1000-1009"
	promises := map[string]struct {
		fault   demohub.Fault
		ranged  string
		status  int
		headers []string
		body    func(want string) string // nil: not looked at
	}{
		"pass":               {demohub.Pass(), ask10, 206, []string{"Content-Range", "bytes 1000-1009/3145728"}, func(w string) string { return w[1000:1010] }},
		"ranges are ignored": {demohub.NoRanges(), ask10, 200, []string{"Content-Range", "", "Content-Length", "3145728", "Accept-Ranges", ""}, func(w string) string { return w }},
		"another range":      {demohub.ShiftRange(5), ask10, 206, []string{"Content-Range", "bytes 1005-1014/3145728"}, func(w string) string { return w[1005:1015] }},
		"an earlier range":   {demohub.ShiftRange(-1005), ask10, 206, []string{"Content-Range", "bytes 0-4/3145728"}, func(w string) string { return w[:5] }},
		"a wrong total":      {demohub.WrongTotal(-1), ask10, 206, []string{"Content-Range", "bytes 1000-1009/3145727"}, func(w string) string { return w[1000:1010] }},
		"no Content-Range":   {demohub.NoContentRange(), ask10, 206, []string{"Content-Range", ""}, func(w string) string { return w[1000:1010] }},
		"a flipped byte":     {demohub.FlipByte(1003), ask10, 206, nil, func(w string) string { return w[1000:1003] + string(w[1003]^0xff) + w[1004:1010] }},
		"a flip elsewhere":   {demohub.FlipByte(3), ask10, 206, nil, func(w string) string { return w[1000:1010] }},
		"chunks":             {demohub.Chunked(), "", 200, []string{"Content-Length", ""}, func(w string) string { return w }},
		"500":                {demohub.Status(500), "", 500, nil, nil},
		"503":                {demohub.Status(503), "", 503, []string{"Retry-After", ""}, nil},
		"429 without a word": {demohub.Status(429), "", 429, []string{"Retry-After", "", "RateLimit", ""}, nil},
		"429 for seconds":    {demohub.RetryAfter(429, 1500*time.Millisecond), "", 429, []string{"Retry-After", "2"}, nil},
		"429 with RateLimit": {demohub.RateLimited(30 * time.Second), "", 429, []string{"RateLimit", `"resolvers";r=0;t=30`, "RateLimit-Policy", `"fixed window";"resolvers";q=3000;w=300`}, nil},
		"403":                {demohub.Status(403), "", 403, []string{"X-Error-Code", ""}, nil},
		"an expired URL":     {demohub.Expired(), "", 403, []string{"Content-Type", "application/xml", "X-Error-Code", ""}, nil},
		"a captive portal":   {demohub.Portal(), ask10, 200, []string{"Content-Type", "text/html; charset=utf-8", "ETag", ""}, nil},
		"a redirect loop":    {demohub.RedirectLoop(), "", 302, []string{"Location", "/acme/tiny/resolve/main/model.bin"}, nil},
		"another scheme":     {demohub.RedirectTo("file:///etc/hostname"), "", 302, []string{"Location", "file:///etc/hostname"}, nil},
		"another commit":     {demohub.Header("X-Repo-Commit", "0"), ask10, 206, []string{"X-Repo-Commit", "0"}, nil},
		"a missing header":   {demohub.Header("X-Repo-Commit", ""), ask10, 206, []string{"X-Repo-Commit", ""}, nil},
	}
	eachOrigin(t, func(t *testing.T, o origin) {
		for promise, c := range promises {
			t.Run(promise, func(t *testing.T) {
				o.hub.ResetStats()
				o.hub.Next(c.fault)
				var headers []string
				if c.ranged != "" {
					headers = []string{"Range", c.ranged}
				}
				res := ask(t, "GET", o.url, headers...)
				if res.StatusCode != c.status {
					t.Fatalf("%s: %.100q", res.Status, res.body)
				}
				wantHeaders(t, res, c.headers...)
				if c.body != nil && res.body != c.body(o.want) {
					t.Errorf("%d bytes that are not the right ones", len(res.body))
				}
				if rows := o.hub.Log(); len(rows) != 1 || rows[0].Fault != c.fault.String() || rows[0].Status != c.status {
					t.Errorf("the log says %+v", rows)
				}
				honest := ask(t, "GET", o.url, "Range", ask10)
				if honest.StatusCode != http.StatusPartialContent || honest.body != o.want[1000:1010] {
					t.Errorf("the next answer is %s", honest.Status)
				}
				again, err := demohub.ParseFault(c.fault.String())
				if err != nil || again.String() != c.fault.String() {
					t.Errorf("%q is read as %q, %v", c.fault, again, err)
				}
			})
		}
	})
}

func TestGzipAlthoughIdentityWasAsked(t *testing.T) {
	small := demohub.File("small.bin", 100*model.KiB)
	hub := demohub.New(demohub.Repo("acme/tiny", small))
	hub.Next(demohub.Gzip())
	res := ask(t, "GET", serveHub(t, hub)+"/acme/tiny/resolve/main/small.bin", "Range", "bytes=5-9", "Accept-Encoding", "identity")
	wantHeaders(t, res, "Content-Encoding", "gzip", "Content-Length", "", "Content-Range", "")
	if !strings.HasPrefix(res.Header.Get("ETag"), `W/"`) || res.StatusCode != http.StatusOK {
		t.Errorf("%s, ETag %s", res.Status, res.Header.Get("ETag"))
	}
	if got := hub.Stats().Body; got != int64(len(res.body)) {
		t.Errorf("%d bytes counted, %d came", got, len(res.body))
	}
	plain, err := gzip.NewReader(strings.NewReader(res.body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(plain); err != nil || string(got) != string(content(t, small)) {
		t.Errorf("%d bytes unpacked, %v", len(got), err)
	}
}

func TestRetryAtGivesADate(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.Bytes("f", nil)))
	hub.Fault(demohub.Match{}, demohub.RetryAt(503, time.Minute), 1)
	res := ask(t, "GET", serveHub(t, hub)+"/api/models/acme/tiny")
	at, err := http.ParseTime(res.Header.Get("Retry-After"))
	if left := time.Until(at); err != nil || left < 50*time.Second || left > 62*time.Second || res.StatusCode != 503 {
		t.Errorf("%s, Retry-After %q: in %v, %v", res.Status, res.Header.Get("Retry-After"), left, err)
	}
}

func TestANewETagStaysTheSame(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.File("model.bin", 2*model.MiB)))
	url := withCDN(t, hub) + "/acme/tiny/resolve/main/model.bin"
	old := ask(t, "HEAD", url)
	hub.Fault(demohub.Match{}, demohub.NewETag(), 0)
	hop := ask(t, "HEAD", url)
	linked := hop.Header.Get("X-Linked-Etag")
	if linked == old.Header.Get("X-Linked-Etag") || len(linked) != 66 || linked != ask(t, "HEAD", url).Header.Get("X-Linked-Etag") {
		t.Errorf("X-Linked-ETag was %s and is %s", old.Header.Get("X-Linked-Etag"), linked)
	}
	before := ask(t, "HEAD", hop.Header.Get("Location")).Header.Get("ETag")
	hub.ClearFaults()
	if after := ask(t, "HEAD", hop.Header.Get("Location")).Header.Get("ETag"); before == after || len(before) != len(after) {
		t.Errorf("the CDN's ETag was %s and is %s", before, after)
	}
}

func TestRulesChooseRequests(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.Bytes("a.bin", []byte("a")), demohub.Bytes("sub/b.bin", []byte("b")), demohub.Bytes("c.json", []byte("c"))))
	base := serveHub(t, hub)
	status := func(method, path string) int { t.Helper(); return ask(t, method, base+path).StatusCode }
	hub.Fault(demohub.Match{Path: "*.bin", Method: "GET"}, demohub.Status(503), 2)
	hub.Fault(demohub.Match{Kind: demohub.API}, demohub.Status(500), 1)
	hub.Fault(demohub.Match{Kind: demohub.Resolve}, demohub.Status(502), 1)
	hub.Next(demohub.Status(504), demohub.Pass())
	for i, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/acme/tiny/resolve/main/c.json", 504}, // Next comes first, in order
		{"GET", "/acme/tiny/resolve/main/a.bin", 200},  // Pass
		{"GET", "/acme/tiny/resolve/main/c.json", 200},
		{"HEAD", "/acme/tiny/resolve/main/a.bin", 502},
		{"HEAD", "/acme/tiny/resolve/main/a.bin", 200},
		{"GET", "/acme/tiny/resolve/main/a.bin", 503},
		{"GET", "/acme/tiny/resolve/main/sub/b.bin", 503},
		{"GET", "/acme/tiny/resolve/main/a.bin", 200}, // twice were asked for
		{"GET", "/api/models/acme/tiny", 500},
		{"GET", "/api/models/acme/tiny", 200},
	} {
		if got := status(c.method, c.path); got != c.want {
			t.Errorf("request %d, %s %s: %d, want %d", i, c.method, c.path, got, c.want)
		}
	}
	hub.Fault(demohub.Match{Path: "*/revision/*"}, demohub.Portal(), 0)
	for range 3 {
		if res := ask(t, "GET", base+"/api/models/acme/tiny/revision/main"); !strings.HasPrefix(res.body, "<!doctype html>") {
			t.Errorf("a rule for good was used up: %s", res.body)
		}
	}
	hub.ClearFaults()
	if got := status("GET", "/api/models/acme/tiny/revision/main"); got != 200 {
		t.Errorf("after ClearFaults: %d", got)
	}
}

func TestParseFaultRefusesNonsense(t *testing.T) {
	for _, text := range []string{"", "explode", "reset-after", "reset-after=x", "reset-after=1,2", "status=200", "stall-after=1MiB", "silence=-1s", "no-ranges=1", "retry-after=429"} {
		if f, err := demohub.ParseFault(text); err == nil {
			t.Errorf("ParseFault(%q) = %s", text, f)
		}
	}
}

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

func TestBrokenChunksNeverLookComplete(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.File("small.bin", 100*model.KiB)))
	gone := filepath.Join(t.TempDir(), "gone.bin")
	if err := os.WriteFile(gone, make([]byte, 5000), 0o666); err != nil {
		t.Fatal(err)
	}
	hub.Set(demohub.Files(demohub.Disk("gone.bin", gone)))
	if err := os.Truncate(gone, 100); err != nil { // the file breaks off while it is sent
		t.Fatal(err)
	}
	hub.Next(demohub.Chunked())
	_, body, err := try(t, "GET", serveHub(t, hub)+"/files/gone.bin")
	if err == nil || len(body) > 100 {
		t.Errorf("%d bytes and %v, want an error", len(body), err)
	}
}

func TestCountersAndLog(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.File("model.bin", 2*model.MiB)))
	first, second := httptest.NewServer(hub), httptest.NewServer(hub.CDN())
	hub.Set(demohub.ViaCDN(second.URL))
	base := first.URL
	var info any
	getJSON(t, base+"/api/models/acme/tiny", &info)
	hop := ask(t, "GET", base+"/acme/tiny/resolve/main/model.bin", "Authorization", "Bearer hf_x")
	ask(t, "GET", hop.Header.Get("Location"), "Range", "bytes=0-99", "Accept-Encoding", "identity")
	ask(t, "GET", hop.Header.Get("Location"), "Accept-Encoding", "gzip, br", "Authorization", "leaked")
	ask(t, "HEAD", hop.Header.Get("Location"))
	first.Close() // waits for the handlers, so that all has been counted
	second.Close()
	stats := hub.Stats()
	stats.Hub.MaxBusy, stats.CDN.MaxBusy, stats.MaxTransfers = 1, 1, 1 // one or two: see Stats
	want := demohub.Stats{
		Requests: map[demohub.Kind]int64{demohub.API: 1, demohub.Resolve: 2, demohub.Bulk: 2},
		Body:     2<<20 + 100, Paths: map[string]int64{"model.bin": 2<<20 + 100},
		Ranged: 1, Encoded: 1, MaxTransfers: 1,
		Hub: demohub.Side{Requests: 2, Authorization: 1, Connections: 2, MaxBusy: 1},
		CDN: demohub.Side{Requests: 3, Authorization: 1, Connections: 3, MaxBusy: 1},
	}
	if fmt.Sprint(stats) != fmt.Sprint(want) {
		t.Errorf("counted %+v\nwant    %+v", stats, want)
	}
	rows := hub.Log()
	if len(rows) != 5 || rows[2].Range != "bytes=0-99" || rows[2].Sent != 100 || rows[2].Status != 206 || !rows[2].CDN || rows[2].Path != "model.bin" ||
		!rows[3].Authorization || rows[3].Encoding != "gzip, br" || rows[1].Kind != demohub.Resolve || rows[4].Method != "HEAD" {
		t.Errorf("the log is %+v", rows)
	}
	hub.ResetStats()
	if s := hub.Stats(); s.Body != 0 || len(s.Requests) != 0 || len(hub.Log()) != 0 {
		t.Errorf("after ResetStats: %+v", s)
	}
}

func TestKeepAliveIsOneConnection(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.File("small.bin", 100*model.KiB)), demohub.Rate(100*model.MiB))
	addr := strings.TrimPrefix(serveHub(t, hub), "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range 3 {
		if _, err := fmt.Fprintf(conn, "GET /acme/tiny/resolve/main/small.bin HTTP/1.1\r\nHost: %s\r\n\r\n", addr); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, res.Body); n != 100<<10 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		errorless(t, res)
	}
	if s := hub.Stats(); s.Hub.Connections != 1 || s.Hub.Requests != 3 {
		t.Errorf("%d connections for %d requests", s.Hub.Connections, s.Hub.Requests)
	}
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
