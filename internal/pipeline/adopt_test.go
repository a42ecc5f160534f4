package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ema/internal/demohub"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

// another is another tool at work in the same cache.
type another struct {
	t    testing.TB
	home string // of acme/model
}

func (r *rig) another(t testing.TB) another {
	return another{t, filepath.Join(r.set.Path, "models--acme--model")}
}

func (a another) write(name string, content []byte) {
	a.t.Helper()
	name = filepath.Join(a.home, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o777), os.WriteFile(name, content, 0o666)); err != nil {
		a.t.Fatal(err)
	}
}

func (a another) link(target, name string) {
	a.t.Helper()
	name = filepath.Join(a.home, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o777), os.Symlink(target, name)); err != nil {
		a.t.Fatal(err)
	}
}

func blob(t testing.TB, e demohub.Entry) string { return "blobs/" + digest(t, e).Hex() }

// What another tool left is worth what it really is: right blobs are adopted, wrong ones replaced.
func TestAModelHalfThereIsCompleted(t *testing.T) {
	t.Parallel()
	large, small := demohub.File("large.bin", 3*model.MiB+5), demohub.File("small.bin", 2000)
	wrongLarge, wrongSmall := demohub.File("wrong.bin", 2*model.MiB+5), demohub.File("wrong.txt", 300)
	short, missing, plain := demohub.File("short.bin", 2*model.MiB+7), demohub.File("sub/missing.bin", 2*model.MiB+9), demohub.File("plain.bin", 500)
	all := []demohub.Entry{large, small, wrongLarge, wrongSmall, short, missing, plain}
	r := repo(t, parts(all)...)
	a, commit := r.another(t), r.hub.Head(acme.Name, "main")
	a.write(blob(t, large), content(t, large))
	a.write(blob(t, small), content(t, small))
	a.write(blob(t, wrongLarge), bytes.Repeat([]byte("x"), int(wrongLarge.Size())))
	a.write(blob(t, wrongSmall), bytes.Repeat([]byte("y"), int(wrongSmall.Size())))
	a.write(blob(t, short), content(t, short)[:model.MiB])
	a.write(blob(t, missing)+".incomplete", content(t, missing)[:1000]) // of an older tool
	a.write("refs/main", []byte(commit))
	for _, e := range []demohub.Entry{large, small, wrongLarge} {
		a.link("../../"+blob(t, e), "snapshots/"+commit+"/"+e.Path)
	}
	a.write("snapshots/"+commit+"/"+plain.Path, content(t, plain)) // where no links can be made
	a.write("snapshots/"+commit+"/notes.txt", []byte("mine"))      // and something of the user's own

	res := r.pull(t, request())
	holds(t, res.Path, append(all, demohub.Bytes("notes.txt", []byte("mine")))...)
	for _, e := range []demohub.Entry{large, small} {
		if sent := r.hub.Stats().Paths[e.Path]; sent != 0 {
			t.Errorf("%s was here, and %d bytes of it were sent", e.Path, sent)
		}
	}
	for _, e := range []demohub.Entry{wrongLarge, wrongSmall, short, missing} {
		if sent := r.hub.Stats().Paths[e.Path]; sent != e.Size() {
			t.Errorf("%s: %d bytes of %d were sent", e.Path, sent, e.Size())
		}
	}
	if left, err := os.ReadFile(filepath.Join(a.home, blob(t, missing)+".incomplete")); err != nil || len(left) != 1000 {
		t.Errorf("another tool's partial file: %d bytes, %v", len(left), err)
	}
	for _, e := range all {
		if b, err := store.New(r.set).Blob(acme, digest(t, e)); err != nil || b.Proof != store.Proven {
			t.Errorf("%s is %v, %v", e.Path, b.Proof, err)
		}
	}
}

// A blob that was proven once and touched since is read again before anything is built on it.
func TestABlobThatWasTouchedIsReadAgain(t *testing.T) {
	e := demohub.File("large.bin", 3*model.MiB)
	r := repo(t, e)
	first := r.pull(t, request())
	name := filepath.Join(r.another(t).home, blob(t, e))
	if err := os.WriteFile(name, content(t, e), 0o666); err != nil { // the same bytes, at another time
		t.Fatal(err)
	}
	r.hub.ResetStats()
	r.pull(t, request())
	if r.asked(demohub.Bulk) != 0 {
		t.Error("the right bytes were fetched again")
	}
	wrong := content(t, e)
	wrong[model.MiB]++
	if err := os.WriteFile(name, wrong, 0o666); err != nil {
		t.Fatal(err)
	}
	if store.New(r.set).Available(acme, first.Commit, []model.File{{Path: e.Path, Size: e.Size(), Digest: digest(t, e)}}) {
		t.Error("a changed file counts as available")
	}
	holds(t, r.pull(t, request()).Path, e)
}

// lockBlob holds the lock by which other tools say that they fetch a blob.
func (r *rig) lockBlob(t testing.TB, e demohub.Entry) (unlock func()) {
	t.Helper()
	name := filepath.Join(r.set.Path, ".locks", "models--acme--model", digest(t, e).Hex()+".lock")
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAnotherToolThatFetchesTheSameFileIsWaitedFor(t *testing.T) {
	for promise, c := range map[string]struct {
		bring func(a another, e demohub.Entry)
		sent  int64
	}{
		"and spares the fetch when it brings it": {func(a another, e demohub.Entry) { a.write(blob(a.t, e), content(a.t, e)) }, 0},
		"and is not believed": {func(a another, e demohub.Entry) {
			a.write(blob(a.t, e), bytes.Repeat([]byte("x"), int(e.Size())))
		}, int64(3 * model.MiB)},
		"and may give up": {func(another, demohub.Entry) {}, int64(3 * model.MiB)},
	} {
		t.Run(promise, func(t *testing.T) {
			e := demohub.File("large.bin", 3*model.MiB)
			r := repo(t, e)
			unlock := r.lockBlob(t, e)
			var told string
			res := r.pull(t, request(), func(l *pipeline.Line) {
				l.Waiting = func(o store.Owner) {
					told = o.String()
					c.bring(r.another(t), e)
					unlock()
				}
			})
			holds(t, res.Path, e)
			if sent := r.hub.Stats().Body; sent != c.sent || !strings.Contains(told, "another program") {
				t.Errorf("%d bytes were sent, want %d; told of %q", sent, c.sent, told)
			}
			if left, err := filepath.Glob(filepath.Join(r.set.Path, "*", "blobs", "*.incomplete")); err != nil || len(left) > 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
		})
	}
}

func TestWaitingForAnotherToolEndsWithTheContext(t *testing.T) {
	e := demohub.File("large.bin", 3*model.MiB)
	r := repo(t, e)
	defer r.lockBlob(t, e)()
	ctx, cancel := context.WithCancel(t.Context())
	l := r.line(t, func(l *pipeline.Line) { l.Waiting = func(store.Owner) { cancel() } })
	if _, err := l.Pull(ctx, request(), &pipeline.Progress{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	if _, err := r.line(t).Pull(t.Context(), request(), &pipeline.Progress{}); model.ClassOf(err) != model.Busy {
		t.Errorf("who does not want to wait gets %v", err)
	}
}

// What a killed run left of a small file, before another one published it, goes; but not while somebody
// is at it.
func TestLeftoversOfAPublishedFileGo(t *testing.T) {
	e := demohub.File("small.bin", 1000)
	r := repo(t, e)
	res := r.pull(t, request())
	a := r.another(t)
	left := blob(t, e) + ".0123abcd.incomplete"
	a.write(left, content(t, e)[:500])
	again := func() bool {
		if err := os.RemoveAll(res.Path); err != nil {
			t.Fatal(err)
		}
		holds(t, r.pull(t, request()).Path, e)
		_, err := os.Stat(filepath.Join(a.home, left))
		return err == nil
	}
	unlock := r.lockBlob(t, e)
	if !again() {
		t.Error("it went while somebody was at it")
	}
	unlock()
	if again() {
		t.Error("it stays")
	}
}
