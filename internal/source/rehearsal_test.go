package source

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ema/internal/model"
)

const (
	commit1 = "1111111111111111111111111111111111111111"
	commit2 = "2222222222222222222222222222222222222222"
)

// A rehearsal is a small hub and its storage host, both real servers on loopback, whose every
// answer a test can replace. The complete hub is package demohub; this one can also be wrong in
// ways that no fault of that one covers.
type rehearsal struct {
	t        *testing.T
	files    map[string][]byte // content by path; above 1 KiB it is LFS, on the storage host
	pageSize int               // of the tree

	api     func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	resolve func(w http.ResponseWriter, r *http.Request) bool
	bulk    func(w http.ResponseWriter, r *http.Request) bool

	hub, storage *httptest.Server

	mu       sync.Mutex
	calls    map[string]int
	bearers  map[string][]string // Authorization by server
	ifRanges []string
}

func newRehearsal(t *testing.T, files map[string][]byte) *rehearsal {
	r := &rehearsal{t: t, files: files, pageSize: 1000, calls: map[string]int{}, bearers: map[string][]string{}}
	r.storage = httptest.NewServer(http.HandlerFunc(r.serveBulk))
	t.Cleanup(r.storage.Close)
	r.hub = httptest.NewServer(http.HandlerFunc(r.serveHub))
	t.Cleanup(r.hub.Close)
	return r
}

func (r *rehearsal) saw(kind, server string, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls[kind]++
	if a := req.Header.Get("Authorization"); a != "" {
		r.bearers[server] = append(r.bearers[server], a)
	}
	if v := req.Header.Get("If-Range"); v != "" {
		r.ifRanges = append(r.ifRanges, v)
	}
}

func (r *rehearsal) count(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[kind]
}

func (r *rehearsal) serveHub(w http.ResponseWriter, req *http.Request) {
	parts := strings.SplitN(strings.TrimPrefix(req.URL.EscapedPath(), "/"), "/", 7)
	switch {
	case len(parts) >= 6 && parts[0] == "api" && (parts[4] == "revision" || parts[4] == "tree"):
		r.saw(parts[4], "hub", req)
		if r.api != nil && r.api(w, req) {
			return
		}
		if parts[4] == "tree" {
			r.serveTree(w, req)
		} else {
			r.serveInfo(w)
		}
	case len(parts) >= 5 && parts[2] == "resolve":
		r.saw("resolve", "hub", req)
		if r.resolve != nil && r.resolve(w, req) {
			return
		}
		name, err := url.PathUnescape(strings.Join(parts[4:], "/"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.serveResolve(w, req, name)
	default:
		http.NotFound(w, req)
	}
}

func (r *rehearsal) serveInfo(w http.ResponseWriter) {
	var siblings []map[string]any
	for _, p := range slices.Sorted(maps.Keys(r.files)) {
		b := r.files[p]
		s := map[string]any{"rfilename": p, "size": len(b), "blobId": model.SumGitBlob(b).Hex()}
		if isLFS(b) {
			s["lfs"] = map[string]any{"sha256": model.SumSHA256(b).Hex(), "size": len(b), "pointerSize": 127}
		}
		siblings = append(siblings, s)
	}
	writeJSON(w, map[string]any{"id": "acme/tiny", "sha": commit1, "gated": "auto", "siblings": siblings, "cardData": nil})
}

func (r *rehearsal) serveTree(w http.ResponseWriter, req *http.Request) {
	paths := slices.Sorted(maps.Keys(r.files))
	from, _ := strconv.Atoi(req.URL.Query().Get("cursor"))
	to := min(from+r.pageSize, len(paths))
	page := []map[string]any{{"type": "directory", "path": "onnx", "oid": commit2, "size": 0}}
	for _, p := range paths[from:to] {
		b := r.files[p]
		e := map[string]any{"type": "file", "path": p, "size": len(b), "oid": model.SumGitBlob(b).Hex()}
		if isLFS(b) {
			e["lfs"] = map[string]any{"oid": model.SumSHA256(b).Hex(), "size": len(b), "pointerSize": 127}
		}
		page = append(page, e)
	}
	if to < len(paths) {
		next := fmt.Sprintf("%s?recursive=true&cursor=%d", req.URL.Path, to)
		if to%2 == 0 { // both forms occur
			next = r.hub.URL + next
		}
		w.Header().Add("Link", `<https://elsewhere.test/>; rel="prev"`)
		w.Header().Add("Link", "<"+next+`>; rel="next"`)
	}
	writeJSON(w, page)
}

func (r *rehearsal) serveResolve(w http.ResponseWriter, req *http.Request, path string) {
	b, ok := r.files[path]
	w.Header().Set("X-Repo-Commit", commit1)
	if !ok {
		w.Header().Set("X-Error-Code", "EntryNotFound")
		http.Error(w, "Entry not found", http.StatusNotFound)
		return
	}
	if !isLFS(b) {
		w.Header().Set("ETag", `"`+model.SumGitBlob(b).Hex()+`"`)
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(b))
		return
	}
	w.Header().Set("X-Linked-Size", strconv.Itoa(len(b)))
	w.Header().Set("X-Linked-ETag", `"`+model.SumSHA256(b).Hex()+`"`)
	http.Redirect(w, req, r.storage.URL+"/"+url.PathEscape(path)+"?Signature=s3cret", http.StatusFound)
}

func (r *rehearsal) serveBulk(w http.ResponseWriter, req *http.Request) {
	r.saw("bulk", "storage", req)
	if e := req.Header.Values("Accept-Encoding"); req.URL.Path != "/api" && (len(e) != 1 || e[0] != "identity") {
		r.t.Errorf("%s is asked for in the encodings %q, want identity alone", req.URL.Path, e)
	}
	if r.bulk != nil && r.bulk(w, req) {
		return
	}
	b := r.files[strings.TrimPrefix(req.URL.Path, "/")]
	w.Header().Set("ETag", `"`+hex.EncodeToString(sha256.New().Sum(nil))+`"`) // 64 digits that are not the content's
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(b))
}

func isLFS(b []byte) bool { return len(b) > 1024 }

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
}

// sources makes Sources that speak to the rehearsal.
func (r *rehearsal) sources(change ...func(*Settings)) *Sources {
	r.t.Helper()
	s := Settings{Endpoint: r.hub.URL + "/"}
	for _, c := range change {
		c(&s)
	}
	src, err := New(s)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = src.Close() })
	return src
}

// noise is content that repeats nowhere, so that a wrong offset shows.
func noise(n int) []byte {
	b := make([]byte, 0, n+32)
	for i := 0; len(b) < n; i++ {
		sum := sha256.Sum256([]byte(strconv.Itoa(i)))
		b = append(b, sum[:]...)
	}
	return b[:n]
}

var tiny = model.ID{Scheme: model.Hub, Name: "acme/tiny"}

func resolved(t *testing.T, s Source, id model.ID, rev string) *model.Manifest {
	t.Helper()
	m, err := s.Resolve(t.Context(), id, rev)
	if err != nil {
		t.Fatalf("Resolve(%v, %q) = %v", id, rev, err)
	}
	return m
}

func fileOf(t *testing.T, m *model.Manifest, path string) model.File {
	t.Helper()
	i := slices.IndexFunc(m.Files, func(f model.File) bool { return f.Path == path })
	if i < 0 {
		t.Fatalf("%s is not in the manifest", path)
	}
	return m.Files[i]
}

func readSegment(t *testing.T, s Source, m *model.Manifest, path string, seg model.Segment) ([]byte, error) {
	t.Helper()
	b, err := s.Open(t.Context(), m, fileOf(t, m, path), seg)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.Segment != seg {
		t.Fatalf("body covers %v, want %v", b.Segment, seg)
	}
	return io.ReadAll(b)
}

func classIs(t *testing.T, err error, want model.Class) *model.Error {
	t.Helper()
	e, ok := errors.AsType[*model.Error](err)
	if !ok || e.Class != want {
		t.Fatalf("error = %v (class %v), want class %v", err, model.ClassOf(err), want)
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Fatalf("the error quotes a secret: %v", err)
	}
	return e
}

func mentions(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not mention %q", err, w)
		}
	}
}

// answers makes a handler step that writes one fixed answer.
func answers(status int, body string, headers ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Add(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
}
