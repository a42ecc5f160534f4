package pipeline_test

import (
	"bytes"
	"context"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ema/internal/demohub"
	"ema/internal/fetch"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/source"
	"ema/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var acme = model.ID{Name: "acme/model"} //nolint:gochecknoglobals // constant

// A rig is a hub over a socket, and a folder for a store that pulls from it.
type rig struct {
	hub *demohub.Hub
	url string
	set store.Settings
}

func newRig(t testing.TB, opts ...demohub.Option) *rig {
	t.Helper()
	hub := demohub.New(opts...)
	srv := httptest.NewServer(hub)
	t.Cleanup(srv.Close)
	return &rig{hub: hub, url: srv.URL, set: store.Settings{Path: filepath.Join(t.TempDir(), "hub")}}
}

// repo is a rig whose hub has acme/model with these parts.
func repo(t testing.TB, parts ...demohub.Part) *rig {
	t.Helper()
	return newRig(t, demohub.Repo(acme.Name, parts...))
}

// line is a pipeline as a process of its own would have it: nothing is shared with others but the
// folder. change may alter it before it is used.
func (r *rig) line(t testing.TB, change ...func(*pipeline.Line)) *pipeline.Line {
	t.Helper()
	retry := fetch.Retry{Max: 2, Base: 2 * time.Millisecond, MaxDelay: 20 * time.Millisecond}
	src, err := source.New(source.Settings{Endpoint: r.url, ReadTimeout: 2 * time.Second, HeaderTimeout: 2 * time.Second, MaxConnsPerHost: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &pipeline.Line{
		Store: store.New(r.set), Source: src, Retry: retry, Command: t.Name(),
		Fetcher: fetch.New(fetch.Settings{Connections: 4, Retry: retry, SyncInterval: 20 * time.Millisecond}, src),
	}
	for _, f := range change {
		f(l)
	}
	return l
}

// offline forbids the network to a line.
func offline(l *pipeline.Line) { l.Offline = true }

// pull pulls by a line of its own, and fails the test if that fails.
func (r *rig) pull(t testing.TB, req pipeline.Request, change ...func(*pipeline.Line)) *pipeline.Result {
	t.Helper()
	res, err := r.line(t, change...).Pull(t.Context(), req, &pipeline.Progress{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// main is a request for all of acme/model.
func request() pipeline.Request { return pipeline.Request{ID: acme} }

// asked counts requests of a kind since the hub's counters were reset.
func (r *rig) asked(kind demohub.Kind) int64 { return r.hub.Stats().Requests[kind] }

// holds fails the test unless a folder has exactly these files, byte for byte as the hub has them.
func holds(t testing.TB, dir string, entries ...demohub.Entry) {
	t.Helper()
	want := map[string]demohub.Entry{}
	for _, e := range entries {
		want[e.Path] = e
	}
	err := filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if _, ok := want[rel]; !ok {
			t.Errorf("%s is there and was not asked for", rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, e := range want {
		got, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, content(t, e)) {
			t.Errorf("%s has %d bytes, not the hub's %d", path, len(got), e.Size())
		}
	}
}

// content is what the hub has.
func content(t testing.TB, e demohub.Entry) []byte {
	t.Helper()
	f, err := e.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, e.Size())
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, e.Size()), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// hashOf is the digest of a file, of the same kind as like.
func hashOf(name string, like model.Digest) (model.Digest, error) {
	f, err := os.Open(name)
	if err != nil {
		return model.Digest{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return model.Digest{}, err
	}
	h := like.NewHash(info.Size())
	_, err = io.Copy(h, f)
	return like.Sum(h), err
}

func digest(t testing.TB, e demohub.Entry) model.Digest {
	t.Helper()
	d, err := e.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// parts makes parts of entries.
func parts(entries []demohub.Entry) []demohub.Part {
	all := make([]demohub.Part, len(entries))
	for i, e := range entries {
		all[i] = e
	}
	return all
}

// empty fails the test if a store's folder shows anything of a model.
func empty(t testing.TB, r *rig) {
	t.Helper()
	for _, pattern := range []string{"models--*/blobs/*", "models--*/snapshots/*", "models--*/refs/*", "models--*/trees/*"} {
		found, err := filepath.Glob(filepath.Join(r.set.Path, pattern))
		if err != nil || len(found) > 0 {
			t.Errorf("half-installed: %v, %v", found, err)
		}
	}
}

// until calls f every few milliseconds until it returns true, or the test ends.
func until(ctx context.Context, f func() bool) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
