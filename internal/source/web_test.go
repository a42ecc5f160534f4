package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ema/internal/model"
)

// A site is an ordinary web server with some files and a list of them.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
	list  string
	etag  func(p string) string
	step  func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	log   []string                                          // method and path of each request
}

func newSite(t *testing.T, list string, files map[string][]byte) *site {
	s := &site{list: list, files: files, etag: func(p string) string { return `"v1-` + path.Base(p)[:1] + `"` }}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log = append(s.log, r.Method+" "+r.URL.Path)
		if r.Header.Get("Authorization") != "" {
			t.Errorf("%s %s carries a token", r.Method, r.URL)
		}
		if s.step != nil && s.step(w, r) {
			return
		}
		if r.URL.Path == "/m/manifest.json" {
			_, _ = io.WriteString(w, s.list)
			return
		}
		b, ok := s.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if e := s.etag(r.URL.Path); e != "" {
			w.Header().Set("ETag", e)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) id(p string) model.ID { return model.ID{Scheme: model.HTTPS, Name: s.URL + p} }

func (s *site) seen(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.log {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

// sources has a token and the site as its endpoint: it must not get the token all the same.
func (s *site) sources(t *testing.T) *Sources {
	t.Helper()
	src, err := New(Settings{Endpoint: s.URL, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	return src
}

func TestWebServesOneFile(t *testing.T) {
	content := noise(50_000)
	for promise, step := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"by HEAD": nil,
		"by a GET of one byte where HEAD is refused": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusForbidden)
			}
			return r.Method == http.MethodHead
		},
		"by a GET of one byte where HEAD hides the length": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.Header().Set("Transfer-Encoding", "chunked")
				w.WriteHeader(200)
			}
			return r.Method == http.MethodHead
		},
		"from where it redirects to": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.RawQuery == "" {
				http.Redirect(w, r, r.URL.Path+"?there", http.StatusFound)
			}
			return r.URL.RawQuery == ""
		},
	} {
		t.Run(promise, func(t *testing.T) {
			w := newSite(t, "", map[string][]byte{"/dir/my model.gguf": content})
			w.step = step
			s := w.sources(t)
			m := resolved(t, s, w.id("/dir/my%20model.gguf"), "")
			f := fileOf(t, m, "my model.gguf")
			if !model.IsCommit(m.Commit) || m.Revision != "main" || f.Size != 50_000 || !f.Digest.IsZero() {
				t.Errorf("manifest = %+v", m)
			}
			for _, seg := range []model.Segment{{End: 50_000}, {Start: 3, End: 4444}} {
				got, err := readSegment(t, s, m, f.Path, seg)
				if err != nil || !bytes.Equal(got, content[seg.Start:seg.End]) {
					t.Errorf("%v: %d bytes, %v", seg, len(got), err)
				}
			}
			if again := resolved(t, s, m.ID, m.Commit); again.Commit != m.Commit {
				t.Errorf("resolved again: %s, before %s", again.Commit, m.Commit)
			}
		})
	}
}

func TestWebServesAList(t *testing.T) {
	a, b := noise(2000), []byte("{}")
	other := newSite(t, "", map[string][]byte{"/b": b, "/empty": {}})
	sum := model.SumSHA256(a)
	w := newSite(t, "", map[string][]byte{"/m/weights/a.bin": a})
	w.list = fmt.Sprintf(`{"id":"org/name","files":[
		{"path":"weights/a.bin","url":"weights/a.bin?sig=s3cret","size":2000,"sha256":%q},
		{"path":"b.json","url":"%s/b"},
		{"path":"empty","url":"%[2]s/empty","size":0}]}`, sum.Hex(), other.URL)
	s := w.sources(t)
	id := w.id("/m/manifest.json")
	m := resolved(t, s, id, "main")
	if m.ID != id || m.Canonical.Name != "org/name" || len(m.Files) != 3 || fileOf(t, m, "weights/a.bin").Digest != sum {
		t.Fatalf("manifest = %+v", m)
	}
	if n := w.seen("HEAD"); n != 0 {
		t.Errorf("asked for what the list says: %q", w.log)
	}
	for p, want := range map[string][]byte{"weights/a.bin": a, "b.json": b, "empty": nil} {
		got, err := readSegment(t, s, m, p, model.Segment{End: int64(len(want))})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}

	t.Run("whose URLs are found again after a restart, once", func(t *testing.T) {
		s := w.sources(t)
		before := w.seen("GET /m/manifest.json")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := readSegment(t, s, m, "b.json", model.Segment{End: 2}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := w.seen("GET /m/manifest.json") - before; n != 1 {
			t.Errorf("fetched the list %d times", n)
		}
	})
	t.Run("that must be the same after a restart", func(t *testing.T) {
		other.mu.Lock()
		other.files["/b"] = []byte("[]")
		other.etag = func(string) string { return `"v2"` }
		other.mu.Unlock()
		_, err := readSegment(t, s, m, "b.json", model.Segment{End: 2}) // this one remembers the old ETag
		classIs(t, err, model.Integrity)
		_, err = readSegment(t, w.sources(t), m, "b.json", model.Segment{End: 2})
		classIs(t, err, model.Integrity)
		mentions(t, err, "changed since it was resolved")
		_, err = s.Resolve(t.Context(), id, m.Commit)
		classIs(t, err, model.NotFound)
		if !errors.Is(err, ErrRevisionNotFound) {
			t.Errorf("%v", err)
		}
	})
	t.Run("that has no branches", func(t *testing.T) {
		_, err := s.Resolve(t.Context(), id, "v2")
		classIs(t, err, model.NotFound)
		mentions(t, err, "no branches")
	})
}

func TestWebCommitFollowsTheContent(t *testing.T) {
	content := []byte("abc")
	w := newSite(t, "", map[string][]byte{"/a.bin": content})
	s := w.sources(t)
	commit := func() string { return resolved(t, s, w.id("/a.bin"), "").Commit }
	seen := []string{commit()}
	if commit() != seen[0] {
		t.Error("the same file has two commits")
	}
	dated := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Last-Modified", "Thu, 20 Aug 2026 12:01:30 GMT")
		return false
	}
	for _, c := range []struct {
		what   string
		change func()
	}{
		{"another ETag", func() { w.etag = func(string) string { return `"x"` } }},
		{"no ETag", func() { w.etag = func(string) string { return "" } }},
		{"a date instead", func() { w.step = dated }},
		{"a longer file", func() { w.files["/a.bin"] = []byte("abcd") }},
	} {
		c.change()
		if now := commit(); slices.Contains(seen, now) {
			t.Errorf("%s: the commit stays %s", c.what, now)
		} else {
			seen = append(seen, now)
		}
	}
}

func TestWebExplainsFailures(t *testing.T) {
	for promise, c := range map[string]struct {
		status int
		class  model.Class
		says   string
	}{
		"not there":      {404, model.NotFound, "check the URL"},
		"gone":           {410, model.NotFound, "check the URL"},
		"login needed":   {401, model.Auth, "permission"},
		"forbidden":      {403, model.Auth, "signed"},
		"too often":      {429, model.RateLimited, "429"},
		"server trouble": {503, model.ServerError, "503"},
		"bad range":      {416, model.Other, "size"},
		"something else": {418, model.Other, "418"},
	} {
		t.Run(promise, func(t *testing.T) {
			w := newSite(t, "", nil)
			w.step = answers(c.status, "words", "Retry-After", "4")
			for _, p := range []string{"/a.bin?sig=s3cret", "/m/manifest.json?sig=s3cret"} {
				_, err := w.sources(t).Resolve(t.Context(), w.id(p), "")
				if p[1] == 'm' && c.status == 416 {
					classIs(t, err, model.RangeRefused)
					continue
				}
				e, ok := errors.AsType[*model.Error](err)
				if !ok || e.Class != c.class {
					t.Fatalf("%v, want class %v", err, c.class)
				}
				mentions(t, err, c.says)
				if c.class == model.RateLimited && e.After != 4*time.Second {
					t.Errorf("After = %v", e.After)
				}
			}
		})
	}
	t.Run("a link that expires behind a redirect", func(t *testing.T) {
		w := newSite(t, "", map[string][]byte{"/a.bin": noise(100), "/signed": noise(100)})
		w.etag = func(string) string { return "" }
		valid := true
		w.step = func(rw http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Path == "/a.bin":
				http.Redirect(rw, r, "/signed?sig=s3cret", http.StatusFound)
				return true
			case !valid:
				rw.WriteHeader(http.StatusForbidden)
				return true
			}
			return false
		}
		s := w.sources(t)
		m := resolved(t, s, w.id("/a.bin"), "")
		open := func() error { _, err := readSegment(t, s, m, "a.bin", model.Segment{Start: 1, End: 2}); return err }
		if err := open(); err != nil {
			t.Fatal(err)
		}
		valid = false
		classIs(t, open(), model.Expired)
		valid = true
		before := w.seen("GET /a.bin")
		if err := open(); err != nil || w.seen("GET /a.bin") != before+1 {
			t.Errorf("%v; the link was not asked for again", err)
		}
	})
	t.Run("a list and a server that disagree about a size", func(t *testing.T) {
		w := newSite(t, `{"files":[{"path":"a","url":"a","size":5}]}`, map[string][]byte{"/m/a": []byte("abc")})
		_, err := w.sources(t).Resolve(t.Context(), w.id("/m/manifest.json"), "")
		classIs(t, err, model.Integrity)
		mentions(t, err, "3 bytes", "says 5", ": a:")
	})
	t.Run("a server that does not tell the size", func(t *testing.T) {
		w := newSite(t, "", nil)
		w.step = func(rw http.ResponseWriter, _ *http.Request) bool {
			_ = http.NewResponseController(rw).Flush()
			return true
		}
		_, err := w.sources(t).Resolve(t.Context(), w.id("/a.bin"), "")
		classIs(t, err, model.Other)
		mentions(t, err, "does not tell its size")
	})
	t.Run("an empty file where HEAD is refused", func(t *testing.T) {
		w := newSite(t, "", map[string][]byte{"/a.bin": {}})
		w.step = func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				rw.WriteHeader(405)
				return true
			}
			return answers(416, "", "Content-Range", "bytes */0")(rw, r)
		}
		if m := resolved(t, w.sources(t), w.id("/a.bin"), ""); m.Files[0].Size != 0 {
			t.Errorf("%+v", m.Files)
		}
	})
}

func TestURLListErrorsNameTheField(t *testing.T) {
	for list, says := range map[string]string{
		`{}`:             "files: it lists no file",
		`{"files":[]}`:   "files: it lists no file",
		`{"files":null}`: "files: it lists no file",
		`{"files":{}}`:   "files: found",
		`[]`:             "expected",
		`{"file":[]}`:    "file: this field is unknown",
		`{"files":[{"path":"a","url":"a"},{"path":"b"}]}`:               "files[1].url: it is missing",
		`{"files":[{"url":"a"}]}`:                                       "files[0].path: it is missing",
		`{"files":[{"path":"a","url":"a","sha265":"x"}]}`:               "files[0].sha265: this field is unknown",
		`{"files":[{"path":"a","url":"a","sha256":"abc"}]}`:             `files[0].sha256: "abc" is not 64`,
		`{"files":[{"path":"a","url":"a","sha256":"` + commit1 + `"}]}`: "files[0].sha256",
		`{"files":[{"path":"a","url":"a","size":"5"}]}`:                 "files[0].size: want a number of bytes",
		`{"files":[{"path":"a","url":"a","size":-5}]}`:                  "files[0].size: want a number of bytes",
		`{"files":[{"path":"a","url":"a","size":5.5}]}`:                 "files[0].size: want a number of bytes",
		`{"files":[{"path":"a","url":17}]}`:                             "files[0].url: want a text",
		`{"files":[{"path":"a","url":"ftp://x/y?s3cret"}]}`:             "files[0].url: it is neither",
		`{"files":[{"path":"a","url":"https://u:s3cret@x/y"}]}`:         "files[0].url: a user",
		`{"files":[{"path":"a","url":""}]}`:                             "files[0].url: it is neither",
		`{"files":[{"path":"a","url":"a","path":"b"}]}`:                 `files[0]: the field "path" is there twice`,
		`{"id":"a/b/c","files":[{"path":"a","url":"a"}]}`:               "id: model",
		`{"id":"https://x/y","files":[{"path":"a","url":"a"}]}`:         "id:",
		`{"files":[{"path":"a","url":"a"}]} x`:                          "wrong",
		`{"files":[{"path":"a","url":"a"}`:                              "ends too early",
	} {
		w := newSite(t, list, nil)
		_, err := w.sources(t).Resolve(t.Context(), w.id("/m/manifest.json"), "")
		classIs(t, err, model.Other)
		mentions(t, err, says, "list of files")
	}
	for _, p := range []string{`../x`, `/x`, `a\\b`, `a\u0000`} {
		w := newSite(t, `{"files":[{"path":"`+p+`","url":"a"}]}`, nil)
		_, err := w.sources(t).Resolve(t.Context(), w.id("/m/manifest.json"), "")
		classIs(t, err, model.Integrity)
		mentions(t, err, "files[0].path: unsafe file name")
	}
	w := newSite(t, `{"files":[{"path":"a","url":"a","size":1,"sha256":"`+strings.Repeat("a", 64)+`"},{"path":"a/b","url":"a","size":1,"sha256":"`+strings.Repeat("a", 64)+`"}]}`, nil)
	_, err := w.sources(t).Resolve(t.Context(), w.id("/m/manifest.json"), "")
	classIs(t, err, model.Integrity)
}

func FuzzURLList(f *testing.F) {
	f.Add([]byte(`{"id":"org/name","files":[{"path":"a/b","url":"../x?y","size":3,"sha256":"` + strings.Repeat("a", 64) + `"}]}`))
	f.Add([]byte(`{"files":[{"path":"a","url":"https://h/x"},{"url":"b","path":"c"}]}`))
	base := &url.URL{Scheme: "https", Host: "base.test", Path: "/m/manifest.json"}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var list *urlList
		err := decodeWhole(bytes.NewReader(doc), func(dec *json.Decoder) (err error) {
			list, err = readURLList(dec, base)
			return err
		})
		if err != nil {
			return
		}
		if !json.Valid(doc) || len(list.files) == 0 {
			t.Fatalf("%q was accepted", doc)
		}
		for _, f := range list.files {
			if model.CheckPath(f.Path) != nil || f.url.Host == "" || f.url.User != nil || f.Size < model.SizeUnknown {
				t.Fatalf("%q gave %+v", doc, f)
			}
		}
	})
}
