package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/demohub"
	"ema/internal/model"
)

// keeping are settings that keep answers in a folder of the test.
func keeping(t testing.TB, change ...func(*AnswerSettings)) AnswerSettings {
	t.Helper()
	s := AnswerSettings{Entries: 1000, Memory: 16 * model.MiB, Folder: filepath.Join(t.TempDir(), "answers"), TTL: time.Hour}
	for _, c := range change {
		c(&s)
	}
	return s
}

// with makes sources use answers of their own, as another process would.
func with(t testing.TB, s AnswerSettings) func(*Settings) {
	t.Helper()
	return func(set *Settings) {
		set.Patience = -1
		set.Answers = NewAnswers(s, func(err error) { t.Errorf("answers: %v", err) })
	}
}

// many are so many files that the hub lists them in pages.
func many(n int) map[string][]byte {
	files := make(map[string][]byte, n)
	for i := range n {
		files[fmt.Sprintf("d%d/f%04d.txt", i%7, i)] = fmt.Append(nil, i)
	}
	return files
}

// noNetwork counts attempts to leave this process.
func noNetwork(dials *atomic.Int64) func(*Settings) {
	return func(s *Settings) {
		s.Offline = true
		s.Dial = func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			return nil, errors.New("no network in this test")
		}
	}
}

func TestWhatIsAboutACommitIsAskedForOnce(t *testing.T) {
	for promise, change := range map[string]func(*AnswerSettings){
		"in memory and on disk": func(*AnswerSettings) {},
		"compressed":            func(s *AnswerSettings) { s.Compress = true },
		"on disk alone":         func(s *AnswerSettings) { s.Memory = 0 },
	} {
		t.Run(promise, func(t *testing.T) {
			r := newRehearsal(t, many(2500))
			set := keeping(t, change)
			s := r.sources(with(t, set))
			first := resolved(t, s, tiny, commit1)
			if len(first.Files) != 2500 || r.count("revision") != 1 || r.count("tree") != 3 {
				t.Fatalf("%d files after %d and %d calls", len(first.Files), r.count("revision"), r.count("tree"))
			}
			r.hub.Close()
			var dials atomic.Int64
			for who, again := range map[string]Source{
				"the same process":  s,
				"another process":   r.sources(with(t, set)),
				"one that may not":  r.sources(with(t, set), noNetwork(&dials)),
				"one with no cache": nil,
			} {
				if again == nil {
					if _, err := r.sources().Resolve(t.Context(), tiny, commit1); err == nil {
						t.Error("the hub still answers, so this test shows nothing")
					}
					continue
				}
				m := resolved(t, again, tiny, commit1)
				if len(m.Files) != 2500 || m.Commit != commit1 || m.Files[77] != first.Files[77] || !m.Resolved.Equal(first.Resolved) || m.Answer != 0 {
					t.Errorf("%s sees %d files of %s at %v", who, len(m.Files), m.Commit, m.Resolved)
				}
			}
			_, err := r.sources(with(t, set), noNetwork(&dials)).Resolve(t.Context(), tiny, "main")
			classIs(t, err, model.Offline)
			if n := dials.Load(); n != 0 {
				t.Errorf("offline, %d connections were tried", n)
			}
		})
	}
}

func TestABranchIsAskedAboutEachTimeAndRepeatedOnlyWhenItMoved(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.Bytes("a.json", []byte("{}"))))
	srv := httptest.NewServer(hub)
	defer srv.Close()
	var last atomic.Value
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		hub.ServeHTTP(rec, r)
		last.Store(rec.Code)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	}))
	defer front.Close()
	set := keeping(t)
	open := func() *Sources {
		s := Settings{Endpoint: front.URL}
		with(t, set)(&s)
		src, err := New(s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = src.Close() })
		return src
	}
	s := open()
	for step, want := range []int{http.StatusOK, http.StatusNotModified, http.StatusNotModified} {
		before := time.Now()
		m := resolved(t, s, tiny, "")
		if code := last.Load(); code != want || m.Commit != hub.Head("acme/tiny", "main") || m.Resolved.Before(before) || m.Answer == 0 {
			t.Errorf("step %d: answered %v, want %d; resolved %+v", step, code, want, m)
		}
	}
	if m := resolved(t, open(), tiny, "main"); last.Load() != http.StatusNotModified || len(m.Files) != 1 {
		t.Errorf("another process is answered %v", last.Load())
	}
	moved, err := hub.Commit("acme/tiny", "main", demohub.Bytes("b.json", []byte("{}")))
	if err != nil {
		t.Fatal(err)
	}
	if m := resolved(t, s, tiny, ""); m.Commit != moved || last.Load() != http.StatusOK || len(m.Files) != 1 {
		t.Errorf("after the branch has moved: %s with %d files, answered %v", m.Commit, len(m.Files), last.Load())
	}
}

func TestTheLastAnswerIsRecalledAndKnowsItsAge(t *testing.T) {
	r := newRehearsal(t, many(1200))
	set := keeping(t)
	s := r.sources(with(t, set))
	if m := s.Recall(t.Context(), tiny, ""); m != nil {
		t.Error("recalls what nobody has said")
	}
	first := resolved(t, s, tiny, "")
	r.hub.Close()
	if _, err := s.Resolve(t.Context(), tiny, ""); err == nil {
		t.Error("a branch is known without asking")
	}
	for promise, other := range map[string]struct {
		s     *Sources
		fresh bool
	}{
		"the same process":      {s, true},
		"another process":       {r.sources(with(t, set)), true},
		"when it is long since": {r.sources(with(t, AnswerSettings{Entries: 1000, Folder: set.Folder, TTL: time.Nanosecond})), false},
	} {
		m, fresh := other.s.Recall(t.Context(), tiny, "main"), other.s.Fresh(tiny, "")
		if m == nil || fresh != other.fresh || len(m.Files) != 1200 || !m.Resolved.Equal(first.Resolved) {
			t.Errorf("%s: %v, fresh %v", promise, m, fresh)
		}
	}
	if m := s.Recall(t.Context(), tiny, "next"); m != nil || s.Fresh(tiny, "next") {
		t.Error("recalls another branch")
	}
	if m := s.Recall(t.Context(), model.ID{Scheme: model.Folder, Name: "/x"}, ""); m != nil {
		t.Error("recalls a folder")
	}
	if m := r.sources().Recall(t.Context(), tiny, ""); m != nil {
		t.Error("recalls without keeping anything")
	}
	if m := r.sources(with(t, AnswerSettings{Folder: set.Folder})).Recall(t.Context(), tiny, ""); m != nil {
		t.Error("recalls where nothing is to be kept")
	}
}

func TestADenialIsNeverKeptAndEndsWhatWas(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound} {
		r := newRehearsal(t, many(3))
		set := keeping(t)
		s := r.sources(with(t, set))
		r.api = answers(status, `{"error":"no"}`)
		if _, err := s.Resolve(t.Context(), tiny, ""); err == nil || kepts(t, set.Folder) != 0 {
			t.Fatalf("%d: %v, %d files", status, err, kepts(t, set.Folder))
		}
		r.api = nil
		resolved(t, s, tiny, "") // at once
		r.api = answers(http.StatusServiceUnavailable, "")
		if _, err := s.Resolve(t.Context(), tiny, ""); model.ClassOf(err) != model.ServerError {
			t.Fatal(err)
		}
		if m := s.Recall(t.Context(), tiny, ""); m == nil {
			t.Errorf("after a failure of the hub nothing is known any more")
		}
		r.api = answers(status, `{"error":"no"}`)
		if _, err := s.Resolve(t.Context(), tiny, ""); err == nil {
			t.Fatal("resolved")
		}
		for _, s := range []*Sources{s, r.sources(with(t, set))} {
			if m := s.Recall(t.Context(), tiny, ""); m != nil {
				t.Errorf("%d: what the hub denies is recalled", status)
			}
		}
	}
}

// kepts counts the files of a folder of answers.
func kepts(t testing.TB, folder string) (n int) {
	t.Helper()
	err := filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return ignoreGone(err)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAnswersBelongToTheirTokenAndHoldNoSecret(t *testing.T) {
	r := newRehearsal(t, many(1100))
	set := keeping(t)
	own := func(s *Settings) { s.Token = token }
	resolved(t, r.sources(own, with(t, set)), tiny, "")
	for who, change := range map[string]func(*Settings){"nobody": func(*Settings) {}, "somebody else": func(s *Settings) { s.Token = "hf_other" }} {
		if m := r.sources(change, with(t, set)).Recall(t.Context(), tiny, ""); m != nil {
			t.Errorf("%s sees what the token's owner was told", who)
		}
	}
	if m := r.sources(own, with(t, set)).Recall(t.Context(), tiny, ""); m == nil {
		t.Error("the token's owner does not")
	}
	if kepts(t, set.Folder) == 0 {
		t.Fatal("nothing is kept")
	}
	err := filepath.WalkDir(set.Folder, func(name string, e fs.DirEntry, err error) error {
		info, infoErr := e.Info()
		if err != nil || infoErr != nil {
			return errors.Join(err, infoErr)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is for others to read: %v", name, info.Mode())
		}
		if e.IsDir() {
			return nil
		}
		raw, err := os.ReadFile(name)
		for _, secret := range []string{token, "Bearer"} {
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s holds %q", name, secret)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLinksThatMayBeSignedAreNotKept(t *testing.T) {
	for promise, api := range map[string]func(r *rehearsal) func(http.ResponseWriter, *http.Request) bool{
		"where the next page has a signature": func(*rehearsal) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, req *http.Request) bool {
				if strings.Contains(req.URL.Path, "/tree/") && req.URL.Query().Get("cursor") == "" {
					w.Header().Set("Link", "<"+req.URL.Path+`?cursor=2&X-Amz-Signature=s3cret>; rel="next"`)
					writeJSON(w, []any{})
					return true
				}
				return false
			}
		},
		"where another host answers": func(r *rehearsal) func(http.ResponseWriter, *http.Request) bool {
			other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if strings.Contains(req.URL.Path, "/tree/") {
					r.serveTree(w, req)
					return
				}
				r.serveInfo(w)
			}))
			r.t.Cleanup(other.Close)
			return func(w http.ResponseWriter, req *http.Request) bool {
				http.Redirect(w, req, other.URL+req.URL.Path+"?Signature=s3cret", http.StatusFound)
				return true
			}
		},
		"where another host answers without any": func(r *rehearsal) func(http.ResponseWriter, *http.Request) bool {
			other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				w.Header().Set("Link", "</s3cret>; rel=\"prev\", </api/models/acme/s3cret/tree/x?cursor=s3cret>; rel=\"next\"")
				if strings.Contains(req.URL.Path, "s3cret") {
					w.Header().Del("Link")
				}
				if strings.Contains(req.URL.Path, "/tree/") {
					writeJSON(w, []any{})
					return
				}
				r.serveInfo(w)
			}))
			r.t.Cleanup(other.Close)
			return func(w http.ResponseWriter, req *http.Request) bool {
				http.Redirect(w, req, other.URL+req.URL.Path, http.StatusFound)
				return true
			}
		},
	} {
		t.Run(promise, func(t *testing.T) {
			r := newRehearsal(t, many(1100))
			r.pageSize = 5000
			r.api = api(r)
			set := keeping(t, func(s *AnswerSettings) { s.Memory = 0 })
			resolved(t, r.sources(with(t, set)), tiny, commit1)
			err := filepath.WalkDir(set.Folder, func(name string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return ignoreGone(err)
				}
				raw, err := os.ReadFile(name)
				if bytes.Contains(raw, []byte("s3cret")) {
					t.Errorf("%s", raw[:100])
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestWhatProvedUntrueIsAskedForAgain(t *testing.T) {
	r := newRehearsal(t, many(1500))
	set := keeping(t)
	s := r.sources(with(t, set))
	m := resolved(t, s, tiny, commit1)
	if resolved(t, s, tiny, ""); r.count("tree") != 2 {
		t.Fatalf("%d pages", r.count("tree"))
	}
	s.Forget(t.Context(), m)
	if m := s.Recall(t.Context(), tiny, commit1); m != nil {
		t.Error("the commit is still known")
	}
	if kepts(t, set.Folder) != 1 { // the branch
		t.Errorf("%d answers are left", kepts(t, set.Folder))
	}
	resolved(t, s, tiny, commit1)
	if r.count("tree") != 4 {
		t.Errorf("%d pages were asked for", r.count("tree"))
	}
}

func TestAListingThatCannotBeIsCorrectedByTheHub(t *testing.T) {
	r := newRehearsal(t, many(1500))
	set := keeping(t)
	s := r.sources(with(t, set))
	r.api = func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.Contains(req.URL.Path, "/tree/") {
			return false
		}
		return answers(200, `[{"type":"file","path":"a","size":1},{"type":"file","path":"a/b","size":1}]`, "Content-Type", "application/json")(w, req)
	}
	if _, err := s.Resolve(t.Context(), tiny, commit1); model.ClassOf(err) != model.Integrity {
		t.Fatal(err)
	}
	r.api = nil
	if m := resolved(t, s, tiny, commit1); len(m.Files) != 1500 {
		t.Errorf("%d files", len(m.Files))
	}
}

func TestOneQuestionIsAskedOnceByAllWhoHaveIt(t *testing.T) {
	r := newRehearsal(t, many(3))
	arrived, reply := make(chan struct{}, 100), make(chan struct{})
	r.api = func(http.ResponseWriter, *http.Request) bool {
		arrived <- struct{}{}
		<-reply
		return false
	}
	s := r.sources(with(t, keeping(t)))
	leaving, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := s.Resolve(leaving, tiny, ""); model.ClassOf(err) != model.Cancelled {
			t.Errorf("who left got %v", err)
		}
	})
	<-arrived
	for range 50 {
		all.Go(func() {
			if m, err := s.Resolve(t.Context(), tiny, ""); err != nil || len(m.Files) != 3 {
				t.Errorf("%v", err)
			}
		})
	}
	leave() // the others must not suffer from it
	<-arrived
	close(reply)
	all.Wait()
	if n := r.count("revision"); n > 3 { // whoever begins after an answer has come asks anew
		t.Errorf("%d requests for 50 who ask at once", n)
	}
}

func TestAFailureIsToldToAllWhoWait(t *testing.T) {
	r := newRehearsal(t, many(3))
	arrived, reply := make(chan struct{}, 100), make(chan struct{})
	r.api = func(w http.ResponseWriter, req *http.Request) bool {
		arrived <- struct{}{}
		<-reply
		return answers(http.StatusNotFound, "", "X-Error-Code", "RevisionNotFound")(w, req)
	}
	s := r.sources(with(t, keeping(t)))
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			_, err := s.Resolve(t.Context(), tiny, "v9")
			if e := classIs(t, err, model.NotFound); e.Model != tiny {
				t.Errorf("%v", e)
			}
		})
		if i == 0 {
			<-arrived
		}
	}
	close(reply)
	all.Wait()
}

func TestWhoWaitsGetsAFailureOfHisOwn(t *testing.T) {
	a := NewAnswers(keeping(t), nil)
	q, _ := anAnswer(1, 1)
	f, mine := a.join(q)
	if _, again := a.join(q); !mine || again {
		t.Fatal("two have begun")
	}
	failure := &model.Error{Op: "resolve", Class: model.ServerError, Err: errors.New("x")}
	a.land(q, f, nil, failure)
	_, again, err := f.wait(t.Context())
	if e := classIs(t, err, model.ServerError); again || e == failure || e.Err != failure.Err {
		t.Errorf("waited for %v, again %v", err, again)
	}
	if _, mine := a.join(q); !mine {
		t.Error("after it has landed nobody can begin")
	}
}

func TestATornFileIsAMissAndNeverALie(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := &kept{
			asked: "https://hub.test/api/models/" + rapid.String().Draw(t, "name"), etag: rapid.String().Draw(t, "etag"),
			link: rapid.String().Draw(t, "link"), body: rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "body"),
		}
		k.at = rapid.SampledFrom([]string{k.asked, "https://hub.test/other"}).Draw(t, "at")
		raw := encodeKept(k, rapid.Bool().Draw(t, "compress"))
		same := func(got *kept) bool {
			return got.asked == k.asked && got.at == k.at && got.etag == k.etag && got.link == k.link && bytes.Equal(got.body, k.body)
		}
		if strings.ToValidUTF8(k.asked+k.etag+k.link, "") != k.asked+k.etag+k.link {
			return // header values and URLs are text
		}
		if got := decodeKept(raw); got == nil || !same(got) {
			t.Fatalf("read back: %+v", got)
		}
		if cut := rapid.IntRange(0, len(raw)-1).Draw(t, "cut"); decodeKept(raw[:cut]) != nil {
			t.Errorf("the first %d of %d bytes are taken for a whole answer", cut, len(raw))
		}
		at := rapid.IntRange(0, len(raw)-1).Draw(t, "at")
		bad := bytes.Clone(raw)
		bad[at] ^= rapid.ByteRange(1, 255).Draw(t, "flip")
		if decodeKept(bad) != nil {
			t.Errorf("with byte %d changed it is taken for an answer", at)
		}
		zeros := append(bytes.Clone(raw[:at]), make([]byte, len(raw)-at)...) // what a power loss leaves
		if got := decodeKept(zeros); got != nil && !same(got) {
			t.Error("with zeros at its end it is taken for another answer")
		}
	})
	r := newRehearsal(t, many(3))
	set := keeping(t, func(s *AnswerSettings) { s.Memory = 0 })
	s := r.sources(with(t, set))
	resolved(t, s, tiny, commit1)
	files, err := filepath.Glob(set.Folder + "/*/*")
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[0], 40); err != nil {
		t.Fatal(err)
	}
	if m := resolved(t, s, tiny, commit1); len(m.Files) != 3 || r.count("revision") != 2 {
		t.Errorf("%d files after %d calls", len(m.Files), r.count("revision"))
	}
}

// anAnswer is what the hub may say to the i-th question.
func anAnswer(i, size int) (inquiry, *kept) {
	u := fmt.Sprintf("https://hub.test/api/models/acme/m%d/revision/%s?blobs=true", i, commit1)
	return newInquiry(parsed(u), ""), &kept{asked: u, at: u, body: bytes.Repeat([]byte{'x'}, size), said: time.Now()}
}

func TestNoMoreIsKeptThanIsAllowed(t *testing.T) {
	t.Run("on disk", func(t *testing.T) {
		for _, most := range []int{0, 1, 10, 1000} {
			set := keeping(t, func(s *AnswerSettings) { s.Entries, s.Memory = most, 0 })
			a := NewAnswers(set, func(err error) { t.Error(err) })
			peak := 0
			for i := range 3 * max(most, 2) {
				q, k := anAnswer(i, 10)
				k.said = time.Unix(int64(1e9+i), 0)
				a.keep(q, k)
				if i%50 == 0 || most < 50 {
					peak = max(peak, kepts(t, set.Folder))
				}
			}
			if slack := most / 20; peak > most+slack || peak < most/2 {
				t.Errorf("at most %d: there were %d", most, peak)
			}
			if most == 0 {
				continue
			}
			newest, k := anAnswer(3*max(most, 2)-1, 10)
			oldest, _ := anAnswer(0, 10)
			if a.find(newest, parsed(k.asked)) == nil || fileIsThere(shelf(set).file(oldest)) {
				t.Errorf("at most %d: the newest went, or the oldest stayed", most)
			}
		}
	})
	t.Run("in memory", func(t *testing.T) {
		for promise, c := range map[string]struct {
			set  AnswerSettings
			size int
			most int
		}{
			"by number":       {AnswerSettings{Entries: 10, Memory: 16 * model.MiB}, 10, 10},
			"by size":         {AnswerSettings{Entries: 1000, Memory: model.MiB}, 100_000, 10},
			"none":            {AnswerSettings{Entries: 0, Memory: model.MiB}, 10, 0},
			"none by size":    {AnswerSettings{Entries: 10, Memory: 0}, 10, 0},
			"one too large":   {AnswerSettings{Entries: 10, Memory: model.MiB}, int(2 * model.MiB), 0},
			"an odd division": {AnswerSettings{Entries: 3, Memory: 10 * model.KiB}, 10, 3},
		} {
			a := NewAnswers(c.set, nil)
			here := 0
			var all []inquiry
			for i := range 100 {
				q, k := anAnswer(i, c.size)
				a.keep(q, k)
				all = append(all, q)
			}
			for _, q := range all {
				if a.memory != nil {
					if _, ok := a.memory.GetIfPresent(q); ok {
						here++
					}
				}
			}
			if here > c.most || here < c.most/2 {
				t.Errorf("%s: %d are kept, want at most %d", promise, here, c.most)
			}
		}
	})
}

func fileIsThere(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func TestWhatWasNeverFinishedGoesInTime(t *testing.T) {
	set := keeping(t, func(s *AnswerSettings) { s.Entries = 5 })
	old, young := filepath.Join(set.Folder, "aa", "new.1"), filepath.Join(set.Folder, "aa", "new.2")
	if err := os.MkdirAll(filepath.Dir(old), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{old, young} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-2*abandoned)); err != nil {
		t.Fatal(err)
	}
	a := NewAnswers(set, func(err error) { t.Error(err) })
	for i := range 10 {
		a.keep(anAnswer(i, 10))
	}
	if fileIsThere(old) || !fileIsThere(young) {
		t.Errorf("old %v, young %v", fileIsThere(old), fileIsThere(young))
	}
}

func TestSettingsOfAnswersChangeWhileTheyAreUsed(t *testing.T) {
	set := keeping(t)
	a := NewAnswers(set, func(err error) { t.Error(err) })
	q, k := anAnswer(1, 10)
	u := parsed(k.asked)
	a.keep(q, k)
	set.Memory *= 2
	a.Configure(set)
	if _, ok := a.memory.GetIfPresent(q); !ok {
		t.Error("with more memory, what is kept is gone")
	}
	a.Configure(AnswerSettings{Entries: set.Entries, Folder: set.Folder})
	if a.memory != nil || a.find(q, u) == nil {
		t.Error("without memory it is not found on disk")
	}
	a.Configure(AnswerSettings{Folder: set.Folder})
	if a.find(q, u) != nil {
		t.Error("found although nothing is to be kept")
	}
	a.keep(q, k)
	a.Configure(set)
	if a.find(q, u) == nil {
		t.Error("what was on disk is gone")
	}
}

func TestAFolderThatCannotBeUsedCostsNothingButQuestions(t *testing.T) {
	r := newRehearsal(t, many(3))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var told []error
	set := AnswerSettings{Entries: 10, Folder: filepath.Join(file, "answers")}
	s := r.sources(func(s *Settings) { s.Answers = NewAnswers(set, func(err error) { told = append(told, err) }) })
	for range 2 {
		resolved(t, s, tiny, commit1)
	}
	if len(told) == 0 || model.ClassOf(told[0]) != model.DiskError || r.count("revision") != 2 {
		t.Errorf("told %v after %d calls", told, r.count("revision"))
	}
}

func TestProcessesShareAFolder(t *testing.T) {
	r := newRehearsal(t, many(300))
	set := keeping(t, func(s *AnswerSettings) { s.Entries = 20 })
	var all sync.WaitGroup
	for p := range 4 {
		s := r.sources(with(t, set))
		all.Go(func() {
			for i := range 40 {
				m, err := s.Resolve(t.Context(), tiny, fmt.Sprintf("branch-%d", (i+p)%30))
				if err != nil || len(m.Files) != 300 {
					t.Errorf("%v", err)
				}
			}
		})
	}
	all.Wait()
}

func parsed(raw string) *url.URL {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	return u
}

// A hit costs a look into memory; after a start, one into a file.
func BenchmarkAnswers(b *testing.B) {
	const entries = 10_000
	set := keeping(b, func(s *AnswerSettings) { s.Entries, s.Memory = 2*entries, 256*model.MiB })
	full := NewAnswers(set, nil)
	var all []inquiry
	var urls []*url.URL
	for i := range entries {
		q, k := anAnswer(i, 2000)
		full.keep(q, k)
		all, urls = append(all, q), append(urls, parsed(k.asked))
	}
	b.Run("hit=memory", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if full.find(all[i%entries], urls[i%entries]) == nil {
				b.Fatal("a miss")
			}
		}
	})
	for _, compress := range []bool{false, true} {
		b.Run(fmt.Sprintf("hit=disk/zstd=%v", compress), func(b *testing.B) {
			cold := NewAnswers(AnswerSettings{Entries: set.Entries, Folder: b.TempDir(), Compress: compress}, nil)
			for i := range all[:100] {
				_, k := anAnswer(i, 2000)
				cold.keep(all[i], k)
			}
			for i := 0; b.Loop(); i++ {
				if cold.find(all[i%100], urls[i%100]) == nil {
					b.Fatal("a miss")
				}
			}
		})
	}
	b.Run("start/entries=10000", func(b *testing.B) {
		for b.Loop() {
			cold := NewAnswers(set, nil)
			if cold.find(all[0], urls[0]) == nil {
				b.Fatal("a miss")
			}
		}
	})
	b.Run("start-and-all/entries=10000", func(b *testing.B) {
		for b.Loop() {
			cold := NewAnswers(set, nil)
			for i := range all {
				if cold.find(all[i], urls[i]) == nil {
					b.Fatal("a miss")
				}
			}
		}
	})
}
