package demohub_test

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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
