package pipeline_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"ema/internal/demohub"
	"ema/internal/model"
	"ema/internal/pipeline"
)

// web is a rig whose hub serves entries as a plain web server, and below list.ema.json their list.
func web(t testing.TB, withSums bool, entries ...demohub.Entry) (*rig, pipeline.Request) {
	t.Helper()
	type file struct {
		Path   string `json:"path"`
		URL    string `json:"url"`
		SHA256 string `json:"sha256,omitempty"`
	}
	var list struct {
		Files []file `json:"files"`
	}
	for _, e := range entries {
		f := file{Path: e.Path, URL: e.Path}
		if withSums {
			f.SHA256 = model.SumSHA256(content(t, e)).Hex()
		}
		list.Files = append(list.Files, f)
	}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, demohub.Files(append(entries, demohub.Bytes("list.ema.json", text))...))
	return r, pipeline.Request{ID: parse(t, r.url+"/files/list.ema.json")}
}

func parse(t testing.TB, s string) model.ID {
	t.Helper()
	id, err := model.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestAModelBehindURLsIsPulledAndStaysPulled(t *testing.T) {
	entries := []demohub.Entry{
		demohub.File("large.bin", 3*model.MiB+1), demohub.SeededFile("large2.bin", 2*model.MiB, 5), demohub.SeededFile("large3.bin", 2*model.MiB, 5),
		demohub.File("sub/small.bin", 700), demohub.SeededFile("a.txt", 50, 6), demohub.SeededFile("b.txt", 50, 6), demohub.File("empty", 0),
	}
	for name, sums := range map[string]bool{"with promised hashes": true, "with nothing promised": false} {
		t.Run(name, func(t *testing.T) {
			r, req := web(t, sums, entries...)
			first := r.pull(t, req)
			holds(t, first.Path, entries...)
			rec, err := r.line(t).Store.Record(req.ID, first.Commit)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range rec.Files {
				if f.Digest.Algo() != model.SHA256 {
					t.Errorf("%s is recorded with %v", f.Path, f.Digest)
				}
			}
			r.hub.ResetStats()
			if res := r.pull(t, req); res.Path != first.Path || res.Fetched != 0 || r.hub.Stats().Paths["large.bin"]+r.hub.Stats().Paths["sub/small.bin"] != 0 {
				t.Errorf("second pull: %+v, sent %v", res, r.hub.Stats().Paths)
			}
			if plan, err := r.line(t).Plan(t.Context(), req, &pipeline.Progress{}); err != nil || plan.Missing != 0 {
				t.Errorf("plan = %+v, %v", plan, err)
			}
			if res := r.pull(t, req, offline); res.Path != first.Path {
				t.Errorf("offline: %+v", res)
			}
			some := req
			some.Select.Include = []string{"*.txt"}
			if res := r.pull(t, some); res.Files != 2 || res.Fetched != 0 {
				t.Errorf("a part of it: %+v", res)
			}
			report, err := r.line(t).Verify(t.Context(), req.ID, first.Commit, &pipeline.Progress{})
			if err != nil || !report.OK() || len(report.Files) != len(entries) {
				t.Errorf("report = %+v, %v", report, err)
			}
		})
	}
}

func TestASingleURLIsAModelOfOneFile(t *testing.T) {
	for _, size := range []model.Bytes{0, 900, 3*model.MiB + 2} {
		e := demohub.File("model.gguf", size)
		r := newRig(t, demohub.Files(e))
		req := pipeline.Request{ID: parse(t, r.url+"/files/model.gguf")}
		first := r.pull(t, req)
		holds(t, first.Path, e)
		r.hub.ResetStats()
		if res := r.pull(t, req); res.Path != first.Path || r.hub.Stats().Body != 0 {
			t.Errorf("second pull: %+v, %d bytes", res, r.hub.Stats().Body)
		}
		now := demohub.SeededFile("model.gguf", size, 99)
		r.hub.Set(demohub.Files(now))
		if size == 0 {
			continue
		}
		second := r.pull(t, req)
		if second.Path == first.Path {
			t.Fatal("changed content has the same commit")
		}
		holds(t, second.Path, now)
		holds(t, first.Path, e)
	}
}

// Equal contents are discovered only when they are here; many of them at once must not hurt each other.
func TestManyEqualFilesWithoutHashes(t *testing.T) {
	var entries []demohub.Entry
	for i := range 700 {
		entries = append(entries, demohub.SeededFile(fmt.Sprintf("%03d.bin", i), 10, uint64(i%2)))
	}
	r, req := web(t, false, entries...)
	holds(t, r.pull(t, req).Path, entries...)
}

func TestAFolderIsAModel(t *testing.T) {
	entries := []demohub.Entry{demohub.File("large.bin", 3*model.MiB+1), demohub.File("sub/small.bin", 700), demohub.File("empty", 0)}
	dir := t.TempDir()
	for _, e := range entries {
		name := filepath.Join(dir, e.Path)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, content(t, e), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t)
	req := pipeline.Request{ID: parse(t, "file://"+dir)}
	first := r.pull(t, req)
	holds(t, first.Path, entries...)
	if res := r.pull(t, req); res.Path != first.Path || res.Fetched != 0 {
		t.Errorf("second pull: %+v", res)
	}
	if err := os.WriteFile(filepath.Join(dir, "empty"), []byte("now"), 0o666); err != nil {
		t.Fatal(err)
	}
	second := r.pull(t, req)
	holds(t, second.Path, entries[0], entries[1], demohub.Bytes("empty", []byte("now")))
	if second.Fetched != 3 {
		t.Errorf("%d bytes were read for 3 new ones", second.Fetched)
	}
	holds(t, first.Path, entries...)
	if s := r.hub.Stats(); s.Hub.Requests != 0 {
		t.Errorf("a folder was asked for at the hub: %v", s.Requests)
	}
	if _, err := r.line(t).Pull(t.Context(), pipeline.Request{ID: parse(t, "file://"+dir+"/none")}, &pipeline.Progress{}); model.ClassOf(err) != model.NotFound {
		t.Errorf("error = %v", err)
	}
}

// A URL whose content changes between question and fetch is refused.
func TestAURLThatChangesWhileItIsFetchedIsRefused(t *testing.T) {
	e := demohub.File("model.gguf", 9*model.MiB)
	r := newRig(t, demohub.Files(e))
	req := pipeline.Request{ID: parse(t, r.url+"/files/model.gguf")}
	r.hub.Next(demohub.Pass())
	r.hub.Fault(demohub.Match{Kind: demohub.Bulk}, demohub.NewETag(), 0)
	_, err := r.line(t).Pull(t.Context(), req, &pipeline.Progress{})
	if model.ClassOf(err) != model.Integrity {
		t.Errorf("error = %v", err)
	}
}
