package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

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
	if b.ReadCloser.(*counted).cause() == nil {
		t.Error("a closed body's request lives on")
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
