package source

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

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
			if c.status == 429 {
				return // nobody asks before the time
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
