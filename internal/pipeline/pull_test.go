package pipeline_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

func files() []demohub.Entry {
	return []demohub.Entry{
		demohub.Bytes("config.json", []byte("{}\n")), demohub.File("empty.bin", 0), demohub.File("small.bin", 100*model.KiB),
		demohub.Safetensors("model.safetensors", 4, 5*model.MiB+3), demohub.File("sub/other.bin", 2*model.MiB+1),
	}
}

func TestAPullMakesTheModelAvailableInTheCacheLayout(t *testing.T) {
	entries := files()
	r := repo(t, append(parts(entries), demohub.Tag("v1"))...)
	p := &pipeline.Progress{}
	l := r.line(t)
	res, err := l.Pull(t.Context(), request(), p)
	if err != nil {
		t.Fatal(err)
	}
	commit := r.hub.Head(acme.Name, "main")
	home := filepath.Join(r.set.Path, "models--acme--model")
	if res.Path != filepath.Join(home, "snapshots", commit) || res.Commit != commit || res.Revision != "main" || res.Files != len(entries) || len(res.Notes) > 0 {
		t.Errorf("result = %+v", res)
	}
	holds(t, res.Path, entries...)
	if ref, err := os.ReadFile(filepath.Join(home, "refs", "main")); err != nil || string(ref) != commit {
		t.Errorf("ref = %q, %v", ref, err)
	}
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(res.Path, e.Path))
		want := strings.Repeat("../", 2+strings.Count(e.Path, "/")) + "blobs/" + digest(t, e).Hex()
		if err != nil || link != want {
			t.Errorf("%s is a link to %q, %v; want %q", e.Path, link, err, want)
		}
	}
	var tree struct {
		Version int `json:"format_version"`
		Files   map[string]struct {
			Size int64
			LFS  string `json:"lfs_sha256"`
		}
	}
	raw, err := os.ReadFile(filepath.Join(home, "trees", commit+".json"))
	if err := errors.Join(err, json.Unmarshal(raw, &tree)); err != nil || tree.Version != 1 || len(tree.Files) != len(entries) {
		t.Fatalf("tree = %s, %v", raw, err)
	}
	if f := tree.Files["model.safetensors"]; f.Size != entries[3].Size() || f.LFS != digest(t, entries[3]).Hex() {
		t.Errorf("model.safetensors in the tree is %+v", f)
	}
	rec, err := l.Store.Record(acme, commit)
	if err != nil || rec.Revision != "main" || len(rec.Files) != len(entries) || rec.CompletedAt.IsZero() {
		t.Errorf("record = %+v, %v", rec, err)
	}
	if s := p.Stage(); s.Name != "done" || s.Files != len(entries) || int64(s.Bytes) != p.Written.Load() || s.Here != 0 {
		t.Errorf("progress = %+v, %d written", s, p.Written.Load())
	}
	left, err := filepath.Glob(filepath.Join(home, "blobs", "*.incomplete"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestASecondPullFetchesNothing(t *testing.T) {
	entries := files()
	r := repo(t, append(parts(entries), demohub.Tag("v1"))...)
	first := r.pull(t, request())
	commit := first.Commit
	for promise, req := range map[string]pipeline.Request{
		"of the same revision":      request(),
		"of the branch by its name": {ID: acme, Revision: "main"},
		"of the commit":             {ID: acme, Revision: commit},
		"of a tag":                  {ID: acme, Revision: "v1"},
		"of some of the files":      {ID: acme, Select: pipeline.Selection{Include: []string{"*.json"}}},
	} {
		r.hub.ResetStats()
		res := r.pull(t, req)
		if res.Path != first.Path || res.Fetched != 0 || r.asked(demohub.Bulk) != 0 || r.asked(demohub.API) > 1 {
			t.Errorf("%s: %+v after requests %v", promise, res, r.hub.Stats().Requests)
		}
	}
}

func TestAMovedBranchComesBesideTheOldCommitAndSharesItsBlobs(t *testing.T) {
	old := files()
	r := repo(t, parts(old)...)
	first := r.pull(t, request())
	now := append(files()[1:], demohub.Bytes("config.json", []byte("{\"new\": true}\n")), demohub.File("more.bin", 3*model.MiB))
	if _, err := r.hub.Commit(acme.Name, "main", now...); err != nil {
		t.Fatal(err)
	}
	r.hub.ResetStats()
	second := r.pull(t, request())
	if second.Commit == first.Commit {
		t.Fatal("the branch did not move")
	}
	holds(t, first.Path, old...)
	holds(t, second.Path, now...)
	if got, want := r.hub.Stats().Body, int64(3*model.MiB)+int64(len("{\"new\": true}\n")); got != want {
		t.Errorf("%d bytes came, want the %d that are new", got, want)
	}
	if err := r.hub.Move(acme.Name, "main", first.Commit); err != nil {
		t.Fatal(err)
	}
	r.hub.ResetStats()
	if back := r.pull(t, request()); back.Path != first.Path || r.asked(demohub.Bulk) != 0 {
		t.Errorf("moved back: %+v", back)
	}
	if c, ok := store.New(r.set).Ref(acme, "main"); !ok || c != first.Commit {
		t.Errorf("main = %s, want %s", c, first.Commit)
	}
}

func TestEqualContentIsFetchedOnce(t *testing.T) {
	entries := []demohub.Entry{
		demohub.SeededFile("a.bin", 2*model.MiB, 7), demohub.SeededFile("b/b.bin", 2*model.MiB, 7),
		demohub.SeededFile("c.bin", model.KiB, 8), demohub.SeededFile("d.bin", model.KiB, 8),
		demohub.File("e.bin", 0), demohub.File("f.bin", 0),
	}
	r := repo(t, parts(entries)...)
	holds(t, r.pull(t, request()).Path, entries...)
	if got, want := r.hub.Stats().Body, int64(2*model.MiB+model.KiB); got != want {
		t.Errorf("%d bytes came, want %d", got, want)
	}
}

func TestEachFileIsFollowedWhileItComes(t *testing.T) {
	entries := []demohub.Entry{
		demohub.SeededFile("a.bin", 4*model.MiB, 7), demohub.SeededFile("b/b.bin", 4*model.MiB, 7),
		demohub.SeededFile("c.bin", model.KiB, 8), demohub.File("d.bin", 0), demohub.File("e.bin", 3*model.MiB),
	}
	r := repo(t, parts(entries)...)
	at := func(p *pipeline.Progress) map[string]int64 {
		written := map[string]int64{}
		for _, f := range p.Files() {
			written[f.Path] = f.Written
		}
		return written
	}
	r.pull(t, pipeline.Request{ID: acme, Select: pipeline.Selection{Include: []string{"e.bin"}}})

	// Interrupted while the large content comes slowly: what is written of it counts for both of its names, and again
	// when the next pull goes on with it.
	r.hub.Set(demohub.Rate(4 * model.MiB))
	ctx, cancel := context.WithCancel(t.Context())
	p := &pipeline.Progress{}
	ended := make(chan error, 1)
	go func() {
		_, err := r.line(t).Pull(ctx, request(), p)
		ended <- err
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for at(p)["a.bin"] < int64(model.MiB) {
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("it ended before that: %v", err)
		}
	}
	cancel()
	<-ended
	before := at(p)
	if n := before["a.bin"]; n != before["b/b.bin"] || n >= int64(4*model.MiB) || before["e.bin"] != int64(3*model.MiB) {
		t.Errorf("interrupted at %v", before)
	}
	r.hub.Set(demohub.Rate(0))
	again := &pipeline.Progress{}
	if again.Files() != nil {
		t.Error("files are known before anybody has looked")
	}
	if _, err := r.line(t).Pull(t.Context(), request(), again); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*pipeline.Progress{again, pulled(t, r)} { // one that goes on, and one that finds all here
		for i, f := range p.Files() {
			if f.Written != f.Size || f.Size != entries[i].Size() || f.Path != entries[i].Path {
				t.Errorf("at the end: %+v", f)
			}
		}
		if len(p.Files()) != len(entries) {
			t.Errorf("%d files at the end", len(p.Files()))
		}
	}
}

func pulled(t *testing.T, r *rig) *pipeline.Progress {
	t.Helper()
	p := &pipeline.Progress{}
	if _, err := r.line(t).Pull(t.Context(), request(), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNamesOfAllKindsArrive(t *testing.T) {
	entries := []demohub.Entry{
		demohub.File("with space.bin", 10), demohub.File("ü/ñ/模型.safetensors", 11), demohub.File("100%.bin", 12),
		demohub.File("%41#?&=+;.bin", 13), demohub.File("sub/"+strings.Repeat("long", 50)+"/x.bin", 2*model.MiB),
		demohub.File(strings.Repeat("d/", 40)+"deep.bin", 15), demohub.File(".hidden", 16), demohub.File("-dash", 17),
		demohub.File("ab:b|c*d\"e.bin", 18), demohub.File("blobs", 19), demohub.File("refs/main", 20),
	}
	holds(t, repo(t, parts(entries)...).pull(t, request()).Path, entries...)
}

func TestThousandsOfFilesCostOneRequestEach(t *testing.T) {
	n := 5000
	if raceDetector {
		n = 1500 // it makes all of this ten times slower
	}
	var entries []demohub.Entry
	for i := range n {
		entries = append(entries, demohub.File(fmt.Sprintf("part%d/%05d.bin", i/100, i), model.Bytes(1+i%300)))
	}
	r := repo(t, parts(entries)...)
	res := r.pull(t, request(), func(l *pipeline.Line) {
		set := r.set
		set.Process = true
		l.Store = store.New(set)
	})
	holds(t, res.Path, entries...)
	var bytes int64
	for _, e := range entries {
		bytes += e.Size()
	}
	s := r.hub.Stats()
	if s.Requests[demohub.API] > 7 || s.Requests[demohub.Bulk] != int64(n) || s.Requests[demohub.Resolve] != 0 || s.Body != bytes {
		t.Errorf("requests %v and %d bytes for %d files of %d bytes", s.Requests, s.Body, n, bytes)
	}
	for path, sent := range s.Paths {
		if e, ok := r.hub.Entry(acme.Name, "main", path); !ok || sent != e.Size() {
			t.Errorf("%s: %d bytes sent", path, sent)
		}
	}
}

func TestAFileThatMustNotExistIsRefusedWithNothingInstalled(t *testing.T) {
	for why, entries := range demohub.HostileNames() {
		if why == "differs from another by case alone" {
			continue // these are two files here
		}
		t.Run(why, func(t *testing.T) {
			r := repo(t, parts(append(entries, demohub.File("fine.bin", 10)))...)
			_, err := r.line(t).Pull(t.Context(), request(), &pipeline.Progress{})
			if model.ClassOf(err) != model.Integrity || r.asked(demohub.Bulk) != 0 {
				t.Errorf("%v after requests %v", err, r.hub.Stats().Requests)
			}
			empty(t, r)
			if _, err := os.Lstat(filepath.Join(filepath.Dir(r.set.Path), "outside.bin")); err == nil {
				t.Error("it was written outside")
			}
		})
	}
}

func TestNamesThatOnlyLookDangerousArrive(t *testing.T) {
	entries := append(demohub.HostileNames()["differs from another by case alone"], demohub.File("model.bin -> ..", 10), demohub.File("...", 3))
	holds(t, repo(t, parts(entries)...).pull(t, request()).Path, entries...)
}

func TestALieOfTheHubIsNeverInstalled(t *testing.T) {
	other := strings.Repeat("ab", 32)
	for lie, e := range map[string]demohub.Entry{
		"a large file that is shorter than listed": demohub.File("x.bin", 3*model.MiB).Claim(int64(3*model.MiB) + 1),
		"a large file that is longer than listed":  demohub.File("x.bin", 3*model.MiB).Claim(int64(3*model.MiB) - 1),
		"a small file that is shorter than listed": demohub.File("x.bin", 100).Claim(101),
		"a small file that is longer than listed":  demohub.File("x.bin", 100).Claim(99),
		"a file that is listed as empty":           demohub.File("x.bin", 100).Claim(0),
		"an absurd size":                           demohub.File("x.bin", 100).Claim(1 << 62),
		"another hash of a large file":             demohub.File("x.bin", 2*model.MiB).Sum(other),
		"another hash of a small file":             demohub.File("x.bin", 100).LFS().Sum(other),
		"no hash at all":                           demohub.File("x.bin", 2*model.MiB).Masked(),
	} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			r := repo(t, e, demohub.File("right.bin", 10))
			_, err := r.line(t).Pull(t.Context(), request(), &pipeline.Progress{})
			if class := model.ClassOf(err); class != model.Integrity && class != model.Truncated && class != model.Auth && class != model.ServerError {
				t.Fatalf("%v of class %v", err, class)
			}
			if !strings.Contains(err.Error(), "x.bin") {
				t.Errorf("%v does not name the file", err)
			}
			if s, err := os.ReadDir(filepath.Join(r.set.Path, "models--acme--model", "snapshots")); err == nil && len(s) > 0 {
				t.Error("a snapshot is there")
			}
			if _, ok := store.New(r.set).Ref(acme, "main"); ok {
				t.Error("a ref is there")
			}
		})
	}
}

func TestAGatedModelSaysWhatToDo(t *testing.T) {
	r := repo(t, demohub.File("x.bin", 2*model.MiB).Masked(), demohub.Gated())
	_, err := r.line(t).Pull(t.Context(), request(), &pipeline.Progress{})
	if model.ClassOf(err) != model.Auth || !strings.Contains(err.Error(), "accept") {
		t.Errorf("error = %v", err)
	}
	empty(t, r)
}

func TestWhatMatchesNothingIsNotFound(t *testing.T) {
	r := repo(t, parts(files())...)
	req := request()
	req.Select.Include = []string{"*.gguf"}
	_, err := r.line(t).Pull(t.Context(), req, &pipeline.Progress{})
	if model.ClassOf(err) != model.NotFound || !strings.Contains(err.Error(), "none of its 5 files") {
		t.Errorf("error = %v", err)
	}
	empty(t, r)
}

func TestPartsOfAModelAddUp(t *testing.T) {
	entries := files()
	r := repo(t, parts(entries)...)
	only := func(pattern string) pipeline.Request {
		return pipeline.Request{ID: acme, Select: pipeline.Selection{Include: []string{pattern}}}
	}
	res := r.pull(t, only("*.json"))
	holds(t, res.Path, entries[0])
	// A part must not pass for the whole when nobody can be asked.
	if _, err := r.line(t, offline).Pull(t.Context(), request(), &pipeline.Progress{}); model.ClassOf(err) != model.Offline {
		t.Errorf("a part passes for the whole: %v", err)
	}
	r.pull(t, only("*.safetensors"))
	holds(t, res.Path, entries[0], entries[3])
	report, err := r.line(t).Verify(t.Context(), acme, res.Commit, &pipeline.Progress{})
	if err != nil || len(report.Files) != 2 || !report.OK() {
		t.Errorf("both parts are to be verified: %+v, %v", report, err)
	}
	for _, pattern := range []string{"*.json", "*.safetensors", "*f*"} {
		res, err := r.line(t, offline).Pull(t.Context(), only(pattern), &pipeline.Progress{})
		if err != nil || res.Files == 0 {
			t.Errorf("%s, which is here: %v", pattern, err)
		}
	}
	r.hub.ResetStats()
	holds(t, r.pull(t, request()).Path, entries...)
	if got, want := r.hub.Stats().Body, entries[2].Size()+entries[4].Size(); got != want {
		t.Errorf("the rest cost %d bytes, want %d", got, want)
	}
	r.pull(t, only("*.json"))
	if res, err := r.line(t, offline).Pull(t.Context(), request(), &pipeline.Progress{}); err != nil || res.Files != len(entries) {
		t.Errorf("the whole is forgotten: %+v, %v", res, err)
	}
}

func TestAPlanSaysWhatAPullDoes(t *testing.T) {
	entries := append(files(), demohub.File("sub/copy.bin", 0))
	r := repo(t, parts(entries)...)
	plan := func() *pipeline.Plan {
		t.Helper()
		p, err := r.line(t).Plan(t.Context(), request(), &pipeline.Progress{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var all model.Bytes
	for _, e := range entries {
		all += model.Bytes(e.Size())
	}
	if p := plan(); p.Bytes != all || p.Missing != all || p.Partial != 0 || len(p.Files) != len(entries) || p.Free <= 0 {
		t.Errorf("before: %+v", p)
	}
	if _, err := os.Stat(r.set.Path); !errors.Is(err, os.ErrNotExist) {
		t.Error("planning made the store")
	}
	r.pull(t, request())
	if p := plan(); p.Missing != 0 || !p.Files[0].Here {
		t.Errorf("after: %+v", p)
	}
}

func TestTooLittleSpaceIsSaidBeforeTheFirstByte(t *testing.T) {
	r := repo(t, parts(files())...)
	_, err := r.line(t, func(l *pipeline.Line) { l.MinFree = 1 << 60 }).Pull(t.Context(), request(), &pipeline.Progress{})
	if model.ClassOf(err) != model.DiskFull || r.asked(demohub.Bulk) != 0 {
		t.Errorf("%v after requests %v", err, r.hub.Stats().Requests)
	}
	r.pull(t, request())
	if err := os.RemoveAll(filepath.Join(r.set.Path, "models--acme--model", "refs")); err != nil {
		t.Fatal(err)
	}
	r.pull(t, request(), func(l *pipeline.Line) { l.MinFree = 1 << 60 }) // nothing is to be fetched, so nothing is too large
}

func TestAContentThatAnotherModelHereHasIsNotFetched(t *testing.T) {
	weights := demohub.File("model.safetensors", 5*model.MiB)
	r := newRig(t, demohub.Repo(acme.Name, weights), demohub.Repo("acme/twin", weights, demohub.Bytes("config.json", []byte("{}\n"))))
	r.pull(t, request())
	before := r.hub.Stats().Body
	req := request()
	req.ID = model.ID{Name: "acme/twin"}
	res := r.pull(t, req)
	if got := r.hub.Stats().Body - before; got > 64<<10 {
		t.Errorf("%d bytes were sent for it", got)
	}
	if report, err := r.line(t).Verify(t.Context(), req.ID, res.Commit, &pipeline.Progress{}); err != nil || !report.OK() {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestTheHotTierIsNotFilledBeyondItsBound(t *testing.T) {
	r := repo(t, parts(files())...)
	r.pull(t, request())
	m, err := store.New(r.set).Model(acme)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(r.set.Path, "models--acme--model")); err != nil {
		t.Fatal(err)
	}
	before := r.asked(demohub.Bulk)
	_, err = r.line(t, func(l *pipeline.Line) { l.MostHot = m.Size - 1 }).Pull(t.Context(), request(), &pipeline.Progress{})
	if e, ok := errors.AsType[*model.Error](err); !ok || e.Class != model.DiskFull || e.Short != 1 || r.asked(demohub.Bulk) != before {
		t.Errorf("%v after requests %v", err, r.hub.Stats().Requests)
	}
	r.pull(t, request(), func(l *pipeline.Line) { l.MostHot = m.Size })
}

func TestAnUnreachableHubDoesNotTakeAwayWhatIsHere(t *testing.T) {
	entries := files()
	for promise, break_ := range map[string]func(r *rig){
		"a hub that is down":        func(r *rig) { r.url = closedURL() },
		"a hub that fails":          func(r *rig) { r.hub.Fault(demohub.Match{}, demohub.Status(503), 0) },
		"a hub that has enough":     func(r *rig) { r.hub.Fault(demohub.Match{}, demohub.RateLimited(0), 0) },
		"a network's login page":    func(r *rig) { r.hub.Fault(demohub.Match{}, demohub.Portal(), 0) },
		"a hub that never answers":  func(r *rig) { r.hub.Fault(demohub.Match{}, demohub.Silence(0), 0) },
		"an answer that is cut off": func(r *rig) { r.hub.Fault(demohub.Match{}, demohub.CutAfter(20), 0) },
	} {
		t.Run(promise, func(t *testing.T) {
			t.Parallel()
			r := repo(t, parts(entries)...)
			first := r.pull(t, request())
			break_(r)
			r.hub.ResetStats()
			for _, rev := range []string{"", "main", first.Commit} {
				res := r.pull(t, pipeline.Request{ID: acme, Revision: rev})
				if res.Path != first.Path || res.Fetched != 0 {
					t.Errorf("%q: %+v", rev, res)
				}
				if rev != first.Commit && (len(res.Notes) != 1 || !strings.Contains(res.Notes[0], first.Commit[:12])) {
					t.Errorf("%q: %+v", rev, res)
				}
			}
			if n := r.asked(demohub.API); n > 2 {
				t.Errorf("%d questions before pulls of what is here", n)
			}
			if _, err := r.line(t).Pull(t.Context(), pipeline.Request{ID: acme, Revision: "other"}, &pipeline.Progress{}); err == nil {
				t.Error("a branch that was never here is served")
			}
		})
	}
	t.Run("but a model that is gone is gone", func(t *testing.T) {
		r := repo(t, parts(entries)...)
		r.pull(t, request())
		r.hub.Fault(demohub.Match{}, demohub.Status(404), 0)
		if _, err := r.line(t).Pull(t.Context(), request(), &pipeline.Progress{}); model.ClassOf(err) != model.NotFound {
			t.Errorf("error = %v", err)
		}
	})
}

func closedURL() string {
	srv := httptest.NewServer(nil)
	srv.Close()
	return srv.URL
}

func TestOfflineAsksNobody(t *testing.T) {
	entries := files()
	r := repo(t, parts(entries)...)
	first := r.pull(t, request())
	r.hub.ResetStats()
	for _, rev := range []string{"", "main", first.Commit} {
		if res := r.pull(t, pipeline.Request{ID: acme, Revision: rev}, offline); res.Path != first.Path {
			t.Errorf("%q: %+v", rev, res)
		}
	}
	for _, req := range []pipeline.Request{{ID: acme, Revision: "other"}, {ID: model.ID{Name: "acme/none"}}} {
		if _, err := r.line(t, offline).Pull(t.Context(), req, &pipeline.Progress{}); model.ClassOf(err) != model.Offline {
			t.Errorf("%+v: %v", req, err)
		}
	}
	if err := os.Remove(filepath.Join(first.Path, "config.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.line(t, offline).Pull(t.Context(), request(), &pipeline.Progress{}); model.ClassOf(err) != model.Offline {
		t.Errorf("an incomplete model is served: %v", err)
	}
	if s := r.hub.Stats(); s.Hub.Requests != 0 || s.Hub.Connections != 0 {
		t.Errorf("offline mode made requests %v", s.Requests)
	}
}

func TestACopyInAPlainFolder(t *testing.T) {
	entries := files()
	r := repo(t, parts(entries)...)
	req := request()
	req.To = filepath.Join(t.TempDir(), "plain")
	for range 2 {
		if res := r.pull(t, req); res.Path != req.To {
			t.Errorf("result = %+v", res)
		}
		holds(t, req.To, entries...)
	}
	if info, err := os.Lstat(filepath.Join(req.To, "config.json")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("config.json is %v, %v", info, err)
	}
}

func TestARenamedModelSaysSo(t *testing.T) {
	r := newRig(t, demohub.Repo("acme/new", parts(files())...), demohub.Renamed("acme/model", "acme/new"))
	res := r.pull(t, request())
	if len(res.Notes) != 1 || !strings.Contains(res.Notes[0], "acme/new") || !strings.Contains(res.Path, "models--acme--model") {
		t.Errorf("result = %+v", res)
	}
}

// A file that could do harm is kept from whoever loads the model, as long as that is the policy.
func TestADangerousFileIsPutAside(t *testing.T) {
	t.Parallel()
	pickle := demohub.Bytes("evil.pkl", []byte("cposix\nsystem\n(S'id'\ntR."))
	fine := demohub.File("fine.bin", 2*model.MiB)
	r := repo(t, pickle, fine)
	guarded := func(l *pipeline.Line) { l.Quarantine.Store(true) }
	res := r.pull(t, request(), guarded)
	holds(t, res.Path, fine)
	if len(res.Notes) != 1 || !strings.Contains(res.Notes[0], "evil.pkl: quarantined") {
		t.Errorf("notes = %v", res.Notes)
	}
	rec, err := store.New(r.set).Record(acme, res.Commit)
	if err != nil || len(rec.Quarantined) != 1 || rec.Quarantined[0].Path != "evil.pkl" || rec.Quarantined[0].Why == "" {
		t.Errorf("record = %+v, %v", rec.Quarantined, err)
	}
	r.hub.ResetStats()
	again := r.pull(t, request(), guarded)
	if len(again.Notes) != 1 || r.hub.Stats().Body != 0 {
		t.Errorf("again: %v, and %d bytes were sent", again.Notes, r.hub.Stats().Body)
	}
	r.pull(t, request(), guarded, offline)
	if report, err := r.line(t, guarded).Verify(t.Context(), acme, res.Commit, &pipeline.Progress{}); err != nil || !report.OK() || len(report.Files) != 1 {
		t.Errorf("verified: %+v, %v", report, err)
	}
	holds(t, r.pull(t, request()).Path, fine, pickle) // without the policy
	holds(t, r.pull(t, request(), guarded).Path, fine, pickle)

	alone := repo(t, pickle)
	if _, err := alone.line(t, guarded).Pull(t.Context(), request(), &pipeline.Progress{}); model.ClassOf(err) != model.Integrity {
		t.Errorf("a model of nothing else: %v", err)
	}
}

func TestASuspiciousFileIsAvailableAndSaysSo(t *testing.T) {
	broken := bytes.Repeat([]byte{0xff}, 100)
	r := repo(t, demohub.Bytes("model.safetensors", broken), demohub.Safetensors("fine.safetensors", 2, model.MiB))
	res := r.pull(t, request())
	if len(res.Notes) == 0 || !strings.Contains(res.Notes[0], "model.safetensors") {
		t.Errorf("notes = %v", res.Notes)
	}
	for _, n := range res.Notes {
		if strings.Contains(n, "fine") {
			t.Errorf("a healthy file is blamed: %s", n)
		}
	}
}
