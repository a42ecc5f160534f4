package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

const big = "model.safetensors"

// opened is a rehearsal with one large file, resolved.
func opened(t *testing.T, change ...func(*Settings)) (*rehearsal, *Sources, *model.Manifest) {
	t.Helper()
	r := newRehearsal(t, map[string][]byte{big: noise(100_000), "small.json": []byte(`{"a":1}`)})
	s := r.sources(change...)
	return r, s, resolved(t, s, tiny, "")
}

func TestOpenRefusesRangeAnswersThat(t *testing.T) {
	seg := model.Segment{Start: 1000, End: 3000}
	content := noise(100_000)
	part := string(content[1000:3000])
	for promise, c := range map[string]struct {
		status  int
		body    string
		headers []string
		class   model.Class
		says    string
	}{
		"begin elsewhere":           {206, part, []string{"Content-Range", "bytes 1001-3000/100000"}, model.RangeRefused, "[1001, 3001)"},
		"end early":                 {206, part[:1999], []string{"Content-Range", "bytes 1000-2998/100000"}, model.RangeRefused, "[1000, 2999)"},
		"have another total":        {206, part, []string{"Content-Range", "bytes 1000-2999/100001"}, model.Integrity, "100001"},
		"hide the total":            {206, part, []string{"Content-Range", "bytes 1000-2999/*"}, model.RangeRefused, "/*"},
		"have no Content-Range":     {206, part, nil, model.RangeRefused, "Content-Range"},
		"come in several parts":     {206, part, []string{"Content-Type", "multipart/byteranges; boundary=x"}, model.RangeRefused, "Content-Range"},
		"announce another length":   {206, part[:1990], []string{"Content-Range", "bytes 1000-2999/100000"}, model.Integrity, "1990"},
		"are compressed":            {206, part, []string{"Content-Range", "bytes 1000-2999/100000", "Content-Encoding", "gzip"}, model.Integrity, "gzip"},
		"are whole, but shorter":    {200, part, nil, model.Integrity, "2000"},
		"are whole, but compressed": {200, part, []string{"Content-Encoding", "gzip"}, model.Integrity, "gzip"},
		"are a web page":            {200, "<html>log in</html>", []string{"Content-Type", "text/html"}, model.ServerError, "web page"},
		"say 416":                   {416, "", []string{"Content-Range", "bytes */5"}, model.RangeRefused, "416"},
		"say 429":                   {429, "", []string{"Retry-After", "9"}, model.RateLimited, "429"},
		"say 404 at an edge":        {404, "", nil, model.ServerError, "404"},
		"say 503":                   {503, "", nil, model.ServerError, "503"},
		"say 204":                   {204, "", nil, model.Other, "204"},
		"say 403":                   {403, "<Error/>", nil, model.Expired, "no longer accepted"},
		"say 401":                   {401, "", nil, model.Expired, "no longer accepted"},
		"say 400":                   {400, "", nil, model.Expired, "no longer accepted"},
		"say 410":                   {410, "", nil, model.Expired, "no longer accepted"},
	} {
		t.Run(promise, func(t *testing.T) {
			r, s, m := opened(t)
			r.bulk = answers(c.status, c.body, c.headers...)
			_, err := readSegment(t, s, m, big, seg)
			e := classIs(t, err, c.class)
			mentions(t, err, c.says, big)
			if c.status == 429 && e.After != 9*time.Second {
				t.Errorf("After = %v", e.After)
			}
			r.bulk = nil // and it works again at once, without anything remembered
			if got, err := readSegment(t, s, m, big, seg); err != nil || string(got) != part {
				t.Errorf("afterwards: %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestOpenTakesTheWholeFileWhenRangesAreIgnored(t *testing.T) {
	for promise, chunked := range map[string]bool{"of announced length": false, "chunked": true} {
		t.Run(promise, func(t *testing.T) {
			r, s, m := opened(t)
			r.bulk = func(w http.ResponseWriter, _ *http.Request) bool {
				if !chunked {
					w.Header().Set("Content-Length", strconv.Itoa(len(r.files[big])))
				}
				w.WriteHeader(200)
				_, _ = w.Write(r.files[big])
				return true
			}
			f := fileOf(t, m, big)
			b, err := s.Open(t.Context(), m, f, model.Segment{Start: 10, End: 20})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			got, err := io.ReadAll(b)
			if b.Segment != (model.Segment{End: f.Size}) || err != nil || !bytes.Equal(got, r.files[big]) {
				t.Errorf("covers %v, %d bytes, %v; want the whole file", b.Segment, len(got), err)
			}
		})
	}
}

func TestOpenLeavesOutIfRangeWhereItIsMisunderstood(t *testing.T) {
	r, s, m := opened(t)
	r.bulk = func(w http.ResponseWriter, req *http.Request) bool {
		w.Header().Set("ETag", `"same"`)
		if req.Header.Get("If-Range") != "" {
			req.Header.Del("Range")
		}
		req.Header.Del("If-Range")
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(r.files[big]))
		return true
	}
	f := fileOf(t, m, big)
	for i, whole := range []bool{false, true, false, false} {
		b, err := s.Open(t.Context(), m, f, model.Segment{Start: 5, End: 50})
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Segment.Len() == f.Size; got != whole {
			t.Errorf("request %d: covers %v", i, b.Segment)
		}
		_ = b.Close()
	}
}

func TestBodyTellsHowItEnded(t *testing.T) {
	raw := func(r *rehearsal, answer string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			c, buf, err := w.(http.Hijacker).Hijack()
			if err != nil {
				r.t.Error(err)
				return true
			}
			defer c.Close()
			_, _ = buf.WriteString(answer)
			_ = buf.Flush()
			return true
		}
	}
	const head = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/100000\r\n"
	for promise, c := range map[string]struct {
		answer string
		class  model.Class
		says   string
	}{
		"cut by the connection":             {head + "Content-Length: 10\r\n\r\n01234", model.Truncated, "5 bytes early"},
		"cut inside of a chunk":             {head + "Transfer-Encoding: chunked\r\n\r\n5\r\n01234", model.Truncated, "5 bytes early"},
		"ended properly, but early":         {head + "Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n0\r\n\r\n", model.Truncated, "5 bytes early"},
		"ended by closing, early":           {head + "Connection: close\r\n\r\n01234", model.Truncated, "5 bytes early"},
		"with more bytes than it should":    {head + "Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789X\r\n0\r\n\r\n", model.Integrity, "more bytes"},
		"with more bytes before closing":    {head + "Connection: close\r\n\r\n0123456789X", model.Integrity, "more bytes"},
		"with chunks that are none":         {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", model.Reset, "chunk"},
		"before the headers were complete":  {head, model.Truncated, "ended early"},
		"without any answer":                {"", model.Reset, "closed the connection"},
		"with something that is not HTTP":   {"SSH-2.0-OpenSSH_9.6\r\n", model.Reset, "malformed"},
		"after the right number (chunked)":  {head + "Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n", 255, ""},
		"after the right number (by close)": {head + "Connection: close\r\n\r\n0123456789", 255, ""},
	} {
		t.Run(promise, func(t *testing.T) {
			r, s, m := opened(t)
			r.bulk = raw(r, c.answer)
			got, err := readSegment(t, s, m, big, model.Segment{End: 10})
			if c.class == 255 {
				if err != nil || string(got) != "0123456789" {
					t.Fatalf("%q, %v", got, err)
				}
				return
			}
			classIs(t, err, c.class)
			mentions(t, err, c.says)
			if len(got) > 10 {
				t.Errorf("delivered %d bytes of 10", len(got))
			}
		})
	}
}

func TestBodyGivesUpASilentConnection(t *testing.T) {
	gone := make(chan struct{})
	silent := func(w http.ResponseWriter, req *http.Request) bool {
		w.Header().Set("Content-Range", "bytes 0-9/100000")
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(206)
		_, _ = w.Write([]byte("01234"))
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done() // ends when the client has closed the connection
		close(gone)
		return true
	}
	t.Run("after the read timeout", func(t *testing.T) {
		r, s, m := opened(t, func(s *Settings) { s.ReadTimeout = 50 * time.Millisecond })
		r.bulk = silent
		got, err := readSegment(t, s, m, big, model.Segment{End: 10})
		classIs(t, err, model.Timeout)
		mentions(t, err, "no byte came for 50ms")
		if string(got) != "01234" {
			t.Errorf("read %q before", got)
		}
		<-gone
	})
	t.Run("at once when the caller stops", func(t *testing.T) {
		gone = make(chan struct{})
		r, s, m := opened(t)
		r.bulk = silent
		ctx, cancel := context.WithCancel(t.Context())
		b, err := s.Open(ctx, m, fileOf(t, m, big), model.Segment{End: 10})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if _, err := io.ReadFull(b, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		cancel()
		_, err = b.Read(make([]byte, 5))
		classIs(t, err, model.Cancelled)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v does not wrap context.Canceled", err)
		}
		<-gone
	})
	t.Run("but not a slow reader", func(t *testing.T) {
		_, s, m := opened(t, func(s *Settings) { s.ReadTimeout = 30 * time.Millisecond })
		b, err := s.Open(t.Context(), m, fileOf(t, m, big), model.Segment{End: 100_000})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if _, err := io.ReadFull(b, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond) // the reader is busy for three times the limit
		if rest, err := io.ReadAll(b); err != nil || len(rest) != 99_990 {
			t.Errorf("then read %d bytes, %v", len(rest), err)
		}
	})
	t.Run("that never sends headers", func(t *testing.T) {
		r, s, m := opened(t, func(s *Settings) { s.HeaderTimeout = 50 * time.Millisecond })
		r.bulk = func(_ http.ResponseWriter, req *http.Request) bool {
			<-req.Context().Done()
			return true
		}
		_, err := readSegment(t, s, m, big, model.Segment{End: 10})
		classIs(t, err, model.Timeout)
	})
	t.Run("in the middle of metadata and of refusals", func(t *testing.T) {
		r := newRehearsal(t, nil)
		s := r.sources(func(s *Settings) { s.ReadTimeout = 50 * time.Millisecond })
		for _, status := range []int{200, 500} {
			r.api = func(w http.ResponseWriter, req *http.Request) bool {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				_, _ = w.Write([]byte(`{"sha":"`))
				_ = http.NewResponseController(w).Flush()
				<-req.Context().Done()
				return true
			}
			_, err := s.Resolve(t.Context(), tiny, "")
			classIs(t, err, map[int]model.Class{200: model.Timeout, 500: model.ServerError}[status])
		}
	})
}

// connections counts the connections that requests of ctx used, and how many of them were new.
func connections(ctx context.Context) (_ context.Context, fresh func() int) {
	var mu sync.Mutex
	n := 0
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			mu.Lock()
			defer mu.Unlock()
			if !i.Reused {
				n++
			}
		}}), func() int {
			mu.Lock()
			defer mu.Unlock()
			return n
		}
}

func TestBodyReturnsItsConnectionOnlyWhenReadToTheEnd(t *testing.T) {
	_, s, m := opened(t)
	ctx, fresh := connections(t.Context())
	f := fileOf(t, m, big)
	open := func() *Body {
		b, err := s.Open(ctx, m, f, model.Segment{Start: 1, End: 90_000})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for range 4 {
		b := open()
		if _, err := io.Copy(io.Discard, b); err != nil {
			t.Fatal(err)
		}
		_ = b.Close()
	}
	if fresh() != 2 { // one to the hub, one to the storage host
		t.Fatalf("four bodies read to the end took %d connections, want 2", fresh())
	}
	b := open()
	if _, err := b.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	if _, err := b.Read(make([]byte, 10)); err == nil {
		t.Error("a closed body can be read")
	}
	b = open()
	_ = b.Close()
	if fresh() != 3 {
		t.Errorf("after an early close: %d connections, want a third", fresh())
	}
}

// Whatever the sizes of reads and of the server's pieces, a body delivers its segment exactly.
func TestBodyDeliversExactlyItsSegment(t *testing.T) {
	r, s, m := opened(t)
	content := r.files[big]
	var piece int
	r.bulk = func(w http.ResponseWriter, req *http.Request) bool {
		got, err := parseContentRange(strings.Replace(req.Header.Get("Range"), "=", " ", 1) + "/100000")
		if err != nil || piece == 0 {
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/100000", got.covers.Start, got.covers.End-1))
		w.WriteHeader(206) // chunked
		for b := content[got.covers.Start:got.covers.End]; len(b) > 0; {
			n := min(piece, len(b))
			_, _ = w.Write(b[:n])
			_ = http.NewResponseController(w).Flush()
			b = b[n:]
		}
		return true
	}
	rapid.Check(t, func(rt *rapid.T) {
		start := rapid.Int64Range(0, 99_998).Draw(rt, "start")
		seg := model.Segment{Start: start, End: rapid.Int64Range(start+1, min(start+5000, 100_000)).Draw(rt, "end")}
		piece = rapid.SampledFrom([]int{0, 700, 4096}).Draw(rt, "piece")
		b, err := s.Open(t.Context(), m, fileOf(t, m, big), seg)
		if err != nil {
			rt.Fatal(err)
		}
		defer b.Close()
		var got []byte
		for {
			p := make([]byte, rapid.IntRange(0, 3000).Draw(rt, "read"))
			n, err := b.Read(p)
			got = append(got, p[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				rt.Fatal(err)
			}
		}
		if !bytes.Equal(got, content[seg.Start:seg.End]) {
			rt.Fatalf("segment %v came as %d bytes", seg, len(got))
		}
		if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			rt.Fatalf("after the end: %d, %v", n, err)
		}
	})
}

func TestOpenFindsTheLocationOnceForManySegments(t *testing.T) {
	r, s, m := opened(t)
	release := make(chan struct{})
	r.resolve = func(http.ResponseWriter, *http.Request) bool { <-release; return false }
	f := fileOf(t, m, big)
	var wg sync.WaitGroup
	for i := range int64(8) {
		wg.Go(func() {
			b, err := s.Open(t.Context(), m, f, model.Segment{Start: i * 1000, End: (i + 1) * 1000})
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close()
			if _, err := io.Copy(io.Discard, b); err != nil {
				t.Error(err)
			}
			u, _ := url.Parse(r.storage.URL)
			if b.Host != u.Host || b.FirstByte <= 0 {
				t.Errorf("host %q after %v, want the storage host %s", b.Host, b.FirstByte, u.Host)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Open(ctx, m, f, model.Segment{End: 1}) // while the location is looked for, or soon after
	classIs(t, err, model.Cancelled)
	close(release)
	wg.Wait()
	if n := r.count("resolve"); n > 2 { // the cancelled one may have been the first
		t.Errorf("asked the hub %d times where the file is", n)
	}
	for _, v := range r.ifRanges {
		if v == "" || strings.HasPrefix(v, "W/") {
			t.Errorf("If-Range: %q", v)
		}
	}
	if len(r.ifRanges) < 6 {
		t.Errorf("%d of 8 requests carried If-Range, want all but the first", len(r.ifRanges))
	}
}

func TestOpenRenewsSignedLinks(t *testing.T) {
	seg := model.Segment{Start: 5, End: 50}
	signed := func(r *rehearsal, query string, date time.Time) {
		r.resolve = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header()["Date"] = []string{date.UTC().Format(http.TimeFormat)}
			w.Header().Set("Location", r.storage.URL+"/"+big+"?"+query)
			w.WriteHeader(302)
			return true
		}
	}
	open := func(t *testing.T, s *Sources, m *model.Manifest) {
		t.Helper()
		if _, err := readSegment(t, s, m, big, seg); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	for promise, c := range map[string]struct {
		query    string
		date     time.Time
		resolves int
	}{
		"kept while it is valid (CloudFront)": {fmt.Sprint("Expires=", now.Add(time.Hour).Unix()), now, 1},
		"kept while it is valid (S3)":         {"X-Amz-Date=" + now.UTC().Format("20060102T150405Z") + "&X-Amz-Expires=3600", now, 1},
		"kept when our clock is a day off":    {fmt.Sprint("Expires=", now.Add(-23*time.Hour).Unix()), now.Add(-24 * time.Hour), 1},
		"kept when it never expires":          {"Signature=x", now, 1},
		"kept when its date makes no sense":   {"Expires=soon", now, 1},
		"kept when it seems expired already":  {fmt.Sprint("Expires=", now.Add(-time.Hour).Unix()), now, 1},
	} {
		t.Run(promise, func(t *testing.T) {
			r, s, m := opened(t)
			signed(r, c.query, c.date)
			open(t, s, m)
			open(t, s, m)
			if n := r.count("resolve"); n != c.resolves {
				t.Errorf("asked %d times, want %d", n, c.resolves)
			}
		})
	}
	t.Run("a little before it expires, without an error", func(t *testing.T) {
		begin := time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC)
		date := http.Header{"Date": {begin.Format(http.TimeFormat)}}
		for query, want := range map[string]time.Duration{
			"Expires=" + strconv.FormatInt(begin.Unix()+3600, 10):  3570 * time.Second,
			"Expires=" + strconv.FormatInt(begin.Unix()+8, 10):     6 * time.Second,
			"X-Amz-Date=20260820T120000Z&X-Amz-Expires=3600":       3570 * time.Second,
			"X-Goog-Date=20260820T115900Z&X-Goog-Expires=120":      45 * time.Second,
			"X-Amz-Date=20260820T110000Z&X-Amz-Expires=60&Expires": -1,
		} {
			u := &url.URL{RawQuery: query}
			local := begin.Add(17 * time.Minute) // our clock does not matter
			got := renewal(u, date, local)
			if want < 0 != got.IsZero() || want > 0 && got.Sub(local) != want {
				t.Errorf("%s: renew after %v, want %v", query, got.Sub(local), want)
			}
		}
		p := &place{turn: make(chan struct{}, 1), now: &location{renew: time.Now()}}
		if at, err := p.find(t.Context()); at != nil || err != nil {
			t.Errorf("find = %v, %v; want the duty to look again", at, err)
		}
		p.settle(nil)
	})
	t.Run("after it was refused once, which is an error of class Expired", func(t *testing.T) {
		r, s, m := opened(t)
		open(t, s, m)
		r.bulk = func(w http.ResponseWriter, _ *http.Request) bool {
			r.bulk = nil
			return answers(403, "<Error><Code>AccessDenied</Code></Error>", "Content-Type", "application/xml")(w, nil)
		}
		_, err := readSegment(t, s, m, big, seg)
		classIs(t, err, model.Expired)
		open(t, s, m)
		if n := r.count("resolve"); n != 2 {
			t.Errorf("asked %d times where the file is, want again after the refusal", n)
		}
	})
	t.Run("when its edge is gone", func(t *testing.T) {
		r, s, m := opened(t)
		edge := httptest.NewServer(http.HandlerFunc(r.serveBulk))
		defer edge.Close()
		r.resolve = func(w http.ResponseWriter, req *http.Request) bool {
			http.Redirect(w, req, edge.URL+"/"+big, http.StatusFound)
			return true
		}
		open(t, s, m)
		edge.Close()
		r.resolve = nil
		_, err := readSegment(t, s, m, big, seg)
		classIs(t, err, model.Reset)
		open(t, s, m) // from the other edge
	})
}

func TestOpenNoticesAChange(t *testing.T) {
	seg := model.Segment{Start: 5, End: 50}
	tagged := func(r *rehearsal, headers ...string) {
		r.bulk = func(w http.ResponseWriter, req *http.Request) bool {
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(r.files[big]))
			return true
		}
	}
	for promise, c := range map[string]struct {
		before, after []string
		changed       bool
	}{
		"of the ETag":                        {[]string{"ETag", `"a"`}, []string{"ETag", `"b"`}, true},
		"of a weak ETag":                     {[]string{"ETag", `W/"a"`}, []string{"ETag", `W/"b"`}, true},
		"of the date when there is no ETag":  {[]string{"Last-Modified", "Thu, 20 Aug 2026 12:01:30 GMT"}, []string{"Last-Modified", "Thu, 20 Aug 2026 12:01:31 GMT"}, true},
		"but not of an ETag that got weaker": {[]string{"ETag", `"a"`}, []string{"ETag", `W/"a"`}, false},
		"but not of a missing ETag":          {[]string{"ETag", `"a"`}, nil, false},
		"but not when nothing is known":      {nil, nil, false},
	} {
		t.Run(promise, func(t *testing.T) {
			r, s, m := opened(t)
			tagged(r, c.before...)
			if _, err := readSegment(t, s, m, big, seg); err != nil {
				t.Fatal(err)
			}
			tagged(r, c.after...)
			_, err := s.Open(t.Context(), m, fileOf(t, m, big), seg)
			if !c.changed {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			classIs(t, err, model.Integrity)
			mentions(t, err, "changed while downloading")
		})
	}
}

func TestOpenNoticesThatTheHubDisagreesWithItsListing(t *testing.T) {
	other := strings.Repeat("e", 64)
	for promise, c := range map[string]struct {
		path    string
		headers []string
		says    string
	}{
		"about the commit":           {big, []string{"X-Repo-Commit", commit2}, commit2},
		"about the size":             {big, []string{"X-Linked-Size", "7"}, `"7"`},
		"about the hash":             {big, []string{"X-Linked-ETag", `"` + other + `"`}, other},
		"about a small file's hash":  {"small.json", []string{"ETag", `"` + commit2 + `"`}, commit2},
		"about a weakly tagged file": {"small.json", []string{"ETag", `W/"` + commit2 + `"`}, commit2},
	} {
		t.Run(promise, func(t *testing.T) {
			r, s, m := opened(t)
			r.resolve = func(w http.ResponseWriter, req *http.Request) bool {
				for i := 0; i < len(c.headers); i += 2 {
					w.Header().Set(c.headers[i], c.headers[i+1])
				}
				if c.path == big {
					http.Redirect(w, req, r.storage.URL+"/"+big, http.StatusFound)
				} else {
					http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(r.files[c.path]))
				}
				return true
			}
			f := fileOf(t, m, c.path)
			_, err := s.Open(t.Context(), m, f, model.Segment{End: f.Size})
			classIs(t, err, model.Integrity)
			mentions(t, err, c.says, c.path, "listing")
			if r.count("bulk") != 0 {
				t.Error("bytes were asked for all the same")
			}
		})
	}
	t.Run("but not when a mirror tags files by another hash", func(t *testing.T) {
		r, s, m := opened(t)
		r.resolve = func(w http.ResponseWriter, req *http.Request) bool {
			w.Header().Set("ETag", `"`+commit2+`"`) // a plain sha1 of a large file
			http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(r.files[big]))
			return true
		}
		if _, err := readSegment(t, s, m, big, model.Segment{End: 10}); err != nil {
			t.Error(err)
		}
	})
}

func TestOpenNeedsNoNetworkForEmptyFilesAndNonsense(t *testing.T) {
	r, s, m := opened(t)
	b, err := s.Open(t.Context(), m, model.File{Path: "empty"}, model.Segment{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); len(got) != 0 || err != nil || b.Close() != nil {
		t.Errorf("empty file: %d bytes, %v", len(got), err)
	}
	f := fileOf(t, m, big)
	for _, seg := range []model.Segment{{}, {Start: 5, End: 5}, {Start: -1, End: 5}, {Start: 5, End: 4}, {End: 100_001}} {
		_, err := s.Open(t.Context(), m, f, seg)
		classIs(t, err, model.Usage)
	}
	_, err = s.Open(t.Context(), &model.Manifest{ID: tiny, Commit: "main"}, f, model.Segment{End: 1})
	classIs(t, err, model.Usage)
	_, err = s.Resolve(t.Context(), model.ID{}, "")
	classIs(t, err, model.Usage)
	_, err = s.Resolve(t.Context(), model.ID{Scheme: "s3", Name: "s3://x/y"}, "")
	classIs(t, err, model.Usage)
	if r.count("resolve")+r.count("bulk") != 0 {
		t.Error("the network was used")
	}
}

func TestParseContentRange(t *testing.T) {
	for h, want := range map[string]contentRange{
		"bytes 0-0/1":                    {model.Segment{Start: 0, End: 1}, 1},
		"bytes 5-9/100":                  {model.Segment{Start: 5, End: 10}, 100},
		"bytes 0-99/100":                 {model.Segment{Start: 0, End: 100}, 100},
		"bytes 0-9/*":                    {},
		"bytes */100":                    {},
		"bytes 9-5/100":                  {},
		"bytes 0-100/100":                {},
		"bytes=0-9/100":                  {},
		"bytes 0-9":                      {},
		"bytes -9/100":                   {},
		"bytes 0-/100":                   {},
		"bytes +1-9/100":                 {},
		"bytes 0-9/1_00":                 {},
		"bytes 0 - 9/100":                {},
		"items 0-9/100":                  {},
		"BYTES 0-9/100":                  {},
		"":                               {},
		"bytes 0-9/100, x":               {},
		"bytes 0-9/99999999999999999999": {},
		"bytes 9223372036854775806-9223372036854775807/9223372036854775807": {},
	} {
		got, err := parseContentRange(h)
		if got != want || (err == nil) != (want.total > 0) {
			t.Errorf("%q = %+v, %v; want %+v", h, got, err, want)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 0-9/100")
	f.Add("bytes */100")
	f.Fuzz(func(t *testing.T, h string) {
		r, err := parseContentRange(h)
		if err != nil {
			return
		}
		if r.covers.Start < 0 || r.covers.Len() < 1 || r.covers.End > r.total {
			t.Fatalf("%q = %+v", h, r)
		}
		again, err := parseContentRange(fmt.Sprintf("bytes %d-%d/%d", r.covers.Start, r.covers.End-1, r.total))
		if err != nil || again != r {
			t.Fatalf("%q = %+v, but written again %+v, %v", h, r, again, err)
		}
	})
}

func TestNextLink(t *testing.T) {
	for h, want := range map[string]string{
		`<https://hub.test/a?x=1>; rel="next"`:                       "https://hub.test/a?x=1",
		`</a?cursor=b>; rel=next`:                                    "/a?cursor=b",
		`<https://hub.test/a,b;c>; rel="next"`:                       "https://hub.test/a,b;c",
		`<a>; rel="prev", <b>; rel="next"`:                           "b",
		`<a>; title="x, <c>; rel=next"; rel="prev", <b>; rel="next"`: "b",
		`<a>; title="say \"rel=next\""; REL="last Next"`:             "a",
		`<a>;rel="xet-auth",<b>;rel="xet-reconstruction-info"`:       "",
		`<a>; rel="prev"; rel="next"`:                                "",
		`<a; rel="next"`:                                             "",
		`a; rel="next"`:                                              "",
		`<>; rel="next"`:                                             "",
		`<a>`:                                                        "",
		``:                                                           "",
	} {
		if got := nextLink([]string{`<z>; rel="first"`, h}); got != want {
			t.Errorf("%s = %q, want %q", h, got, want)
		}
	}
}

func FuzzNextLink(f *testing.F) {
	f.Add(`<https://hub.test/a?x=1>; rel="next"`, `<a>; title="\"x, <c>"; rel="prev"`)
	f.Fuzz(func(t *testing.T, one, two string) {
		if got := nextLink([]string{one, two}); got != "" && !strings.Contains(one, got) && !strings.Contains(two, got) {
			t.Fatalf("%q came from nowhere", got)
		}
	})
}
