package pipeline_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/fetch"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/source"
)

// remembering makes a line keep the hub's answers beside its store, as those of other processes do.
func (r *rig) remembering(t testing.TB, ttl time.Duration, change ...func(*source.Settings)) func(*pipeline.Line) {
	t.Helper()
	set := source.Settings{
		Endpoint: r.url, Patience: -1, ReadTimeout: 2 * time.Second,
		Answers: source.NewAnswers(source.AnswerSettings{Entries: 100, Folder: filepath.Join(filepath.Dir(r.set.Path), "answers"), TTL: ttl}, nil),
	}
	for _, f := range change {
		f(&set)
	}
	src, err := source.New(set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	return func(l *pipeline.Line) {
		l.Source, l.Memory = src, src
		l.Fetcher = fetch.New(fetch.Settings{Connections: 4, Retry: l.Retry}, src)
	}
}

// silent makes the hub's API fail, and its files stay.
func (r *rig) silent() { r.hub.Fault(demohub.Match{Kind: demohub.API}, demohub.Status(503), 0) }

func TestTheLastAnswerServesWhileTheHubIsSilent(t *testing.T) {
	for promise, c := range map[string]struct {
		ttl   time.Duration
		asked int64 // how often
		note  string
	}{
		"at once while it is fresh":                 {time.Hour, 1, ""},
		"after all attempts, when it has got stale": {time.Nanosecond, 3, ", which is stale"},
	} {
		t.Run(promise, func(t *testing.T) {
			entries := files()
			r := repo(t, parts(entries)...)
			if _, err := r.line(t, r.remembering(t, c.ttl)).Plan(t.Context(), request(), &pipeline.Progress{}); err != nil {
				t.Fatal(err)
			}
			r.silent()
			r.hub.ResetStats()
			res, err := r.line(t, r.remembering(t, c.ttl)).Pull(t.Context(), request(), &pipeline.Progress{})
			if err != nil {
				t.Fatal(err)
			}
			holds(t, res.Path, entries...)
			if n := r.asked(demohub.API); n != c.asked {
				t.Errorf("the hub was asked %d times, want %d", n, c.asked)
			}
			if note := strings.Join(res.Notes, "\n"); !strings.Contains(note, "the source could not be asked (") || !strings.Contains(note, "using its answer of "+time.Now().Format("15:")) ||
				!strings.HasSuffix(note, c.note) || c.note == "" && strings.Contains(note, "stale") {
				t.Errorf("notes: %q", note)
			}
		})
	}
}

func TestASilentHubIsNoAnswerForWhatNobodyHasAsked(t *testing.T) {
	r := repo(t, append(parts(files()), demohub.Tag("v1"))...)
	if _, err := r.line(t, r.remembering(t, time.Hour)).Plan(t.Context(), request(), &pipeline.Progress{}); err != nil {
		t.Fatal(err)
	}
	r.silent()
	req := request()
	req.Revision = "v1"
	if _, err := r.line(t, r.remembering(t, time.Hour)).Pull(t.Context(), req, &pipeline.Progress{}); model.ClassOf(err) != model.ServerError {
		t.Errorf("pull = %v", err)
	}
}

func TestWhatIsHereGoesBeforeWhatIsRemembered(t *testing.T) {
	r := repo(t, parts(files())...)
	first := r.pull(t, request(), r.remembering(t, time.Hour))
	if _, err := r.hub.Commit(acme.Name, "main", demohub.File("new.bin", 3*model.MiB)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.line(t, r.remembering(t, time.Hour)).Plan(t.Context(), request(), &pipeline.Progress{}); err != nil {
		t.Fatal(err)
	}
	r.silent()
	if res := r.pull(t, request(), r.remembering(t, time.Hour)); res.Path != first.Path || len(res.Notes) != 1 {
		t.Errorf("%s with notes %q, want %s", res.Path, res.Notes, first.Path)
	}
}

func TestABranchThatMovedIsSeenAtOnce(t *testing.T) {
	r := repo(t, parts(files())...)
	for range 2 {
		r.pull(t, request(), r.remembering(t, time.Hour))
	}
	moved, err := r.hub.Commit(acme.Name, "main", demohub.File("new.bin", 3*model.MiB))
	if err != nil {
		t.Fatal(err)
	}
	if res := r.pull(t, request(), r.remembering(t, time.Hour)); res.Commit != moved {
		t.Errorf("commit %s, want %s", res.Commit, moved)
	}
}

func TestWhatIsCompleteHereServesOfflineByTheLastAnswer(t *testing.T) {
	entries := files()
	r := repo(t, parts(entries)...)
	res := r.pull(t, request(), r.remembering(t, time.Hour))
	// Another tool tidies up: the contents stay, their names go.
	r.forgetNames(t)
	forbidden := func(s *source.Settings) { s.Offline = true }
	again := r.pull(t, request(), offline, r.remembering(t, time.Hour, forbidden))
	if again.Path != res.Path || again.Fetched != 0 {
		t.Errorf("%+v", again)
	}
	holds(t, again.Path, entries...)

	r.forgetNames(t)
	blobs, err := filepath.Glob(filepath.Join(r.set.Path, acme.DirName(), "blobs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	remove(t, blobs[0])
	_, err = r.line(t, offline, r.remembering(t, time.Hour, forbidden)).Pull(t.Context(), request(), &pipeline.Progress{})
	if model.ClassOf(err) != model.Offline || !strings.Contains(err.Error(), "it is not available on this machine and offline mode forbids the network") {
		t.Errorf("pull = %v", err)
	}
}

// forgetNames removes all but the blobs of the store, and what is known of them.
func (r *rig) forgetNames(t testing.TB) {
	t.Helper()
	for _, pattern := range []string{"snapshots", "refs", "trees"} {
		remove(t, filepath.Join(r.set.Path, acme.DirName(), pattern))
	}
	state, err := filepath.Glob(filepath.Join(filepath.Dir(r.set.Path), "ema", "*", "models"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range state {
		remove(t, dir)
	}
}

func TestAListingThatProvedWrongIsNotBelievedAgain(t *testing.T) {
	entries := files()
	r := repo(t, parts(entries)...)
	commit := r.hub.Head(acme.Name, "main")
	req := request()
	req.Revision = commit
	// The listing is kept while the hub serves other bytes than it lists.
	r.hub.Fault(demohub.Match{Kind: demohub.Bulk}, demohub.FlipByte(10), 0)
	if _, err := r.line(t, r.remembering(t, time.Hour)).Pull(t.Context(), req, &pipeline.Progress{}); model.ClassOf(err) != model.Integrity {
		t.Fatalf("pull = %v", err)
	}
	r.hub.ClearFaults()
	r.hub.ResetStats()
	r.pull(t, req, r.remembering(t, time.Hour))
	if r.asked(demohub.API) == 0 {
		t.Error("the listing that did not fit the files was believed again")
	}
}

func remove(t testing.TB, name string) {
	t.Helper()
	if err := os.RemoveAll(name); err != nil {
		t.Fatal(err)
	}
}
