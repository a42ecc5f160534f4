package source

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ema/internal/model"
)

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

func TestOpenFindsTheLocationOnceForManySegments(t *testing.T) {
	r, s, m := opened(t)
	f := fileOf(t, m, big)
	first := *m // by a file that is elsewhere the source learns that files are
	first.ID.Name += "-other"
	if _, err := readSegment(t, s, &first, big, model.Segment{End: 1}); err != nil {
		t.Fatal(err)
	}
	asked := r.count("resolve")
	release := make(chan struct{})
	r.resolve = func(http.ResponseWriter, *http.Request) bool { <-release; return false }
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
	if n := r.count("resolve") - asked; n > 2 { // the cancelled one may have been the first
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
		p := newPlaces().of(&model.Manifest{}, model.File{})
		p.now = &location{renew: time.Now()}
		at, settle, err := p.find(t.Context())
		if at != nil || err != nil {
			t.Fatalf("find = %v, %v; want the duty to look again", at, err)
		}
		settle(nil)
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
		"of nothing, with a weak ETag":       {[]string{"ETag", `W/"a"`}, []string{"ETag", `W/"a"`}, false},
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
				if len(c.before) > 0 && strings.HasPrefix(c.before[1], "W/") && len(r.ifRanges) > 0 {
					t.Errorf("weak ETags went into If-Range: %q", r.ifRanges)
				}
				return
			}
			classIs(t, err, model.Integrity)
			mentions(t, err, "changed while downloading")
		})
	}
}
