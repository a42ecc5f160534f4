package ledger_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ema/internal/ledger"
	"ema/internal/model"
)

func open(t testing.TB, path string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTheEmbeddedDatabase(t *testing.T) {
	conformance(t, func(t *testing.T) func() *ledger.Ledger {
		path := filepath.Join(t.TempDir(), "state", "ema.db")
		return func() *ledger.Ledger { return open(t, path) }
	})
}

func TestAnyFolderNameWillDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#d%20e&f=g;模", "ema.db")
	l := open(t, path)
	save(t, l, download("a"))
	shut(t, l)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestTheDatabaseIsItsOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ema.db")
	l := open(t, path)
	defer shut(t, l)
	save(t, l, download("a"))
	for _, name := range []string{path, path + "-wal"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestWhatWasAcknowledgedSurvivesAKill(t *testing.T) {
	const rounds = 20
	path := filepath.Join(t.TempDir(), "ema.db")
	acknowledged := map[string]bool{}
	for round := range rounds {
		for _, id := range saveUntilKilled(t, path, round) {
			acknowledged[id] = true
		}
		l := open(t, path)
		if l.Note != "" {
			t.Fatalf("round %d: %s", round, l.Note)
		}
		there, err := l.Downloads(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		shut(t, l)
		found := map[string]bool{}
		for _, d := range there {
			found[d.ID] = true
		}
		for id := range acknowledged {
			if !found[id] {
				t.Fatalf("round %d: %s was acknowledged and is gone", round, id)
			}
		}
	}
	if len(acknowledged) < rounds {
		t.Errorf("only %d saves in %d rounds: too few to mean anything", len(acknowledged), rounds)
	}
}

// saveUntilKilled has a child save, kills it after some of its saves, and returns what it said was saved.
func saveUntilKilled(t *testing.T, path string, round int) (saved []string) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), saveInChild+"="+path, fmt.Sprintf("%s_ROUND=%d", saveInChild, round))
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	enough := 1 + rand.IntN(40)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) { // what a kill cut off was not said
			break
		}
		if err != nil || !strings.HasPrefix(line, "dl_") {
			t.Fatalf("the child said %q, %v", line, err)
		}
		saved = append(saved, strings.TrimSpace(line))
		if len(saved) == enough {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = child.Wait() // it was killed
	return saved
}

func TestADamagedDatabaseIsKeptAsideAndAFreshOneBegun(t *testing.T) {
	for damage, spoil := range map[string]func(t *testing.T, path string){
		"overwritten by something else": func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 500)), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a page in its middle is noise": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			noise := make([]byte, 4096)
			for i := range noise {
				noise[i] = byte(i*7 + 1)
			}
			for at := int64(4096); at < info.Size(); at += 3 * 4096 {
				if _, err := f.WriteAt(noise, at); err != nil {
					t.Fatal(err)
				}
			}
		},
		"cut in half": func(t *testing.T, path string) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, info.Size()/2); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(damage, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ema.db")
			l := open(t, path)
			for i := range 100 {
				d := download(fmt.Sprint(i))
				d.Reason = strings.Repeat("why ", 200)
				save(t, l, d)
			}
			shut(t, l)
			spoil(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}

			l = open(t, path)
			defer shut(t, l)
			aside, err := filepath.Glob(path + ".broken-*Z")
			if err != nil || len(aside) != 1 || !strings.Contains(l.Note, aside[0]) {
				t.Fatalf("aside are %v, %v; the note is %q", aside, err, l.Note)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || string(kept) != string(before) {
				t.Errorf("what was moved aside is not what was there: %v", err)
			}
			save(t, l, download("a"))
			if all, err := l.Downloads(t.Context()); err != nil || len(all) != 1 {
				t.Errorf("the fresh one has %d downloads, %v", len(all), err)
			}
		})
	}
}

func TestADatabaseOfANewerEmaIsRefusedAndLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ema.db")
	l := open(t, path)
	save(t, l, download("a"))
	shut(t, l)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = ledger.Open(t.Context(), path)
	if model.ClassOf(err) != model.Usage || !strings.Contains(fmt.Sprint(err), "9999") {
		t.Errorf("got %v", err)
	}
	if aside, _ := filepath.Glob(path + ".broken*"); len(aside) > 0 {
		t.Errorf("it was moved aside: %v", aside)
	}
}

func TestWhatCannotBeOpenedIsAnErrorAndNotDamage(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "ema.db"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Open(t.Context(), filepath.Join(dir, "ema.db")); model.ClassOf(err) != model.DiskError {
		t.Errorf("a folder in its place: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Open(t.Context(), filepath.Join(dir, "file", "ema.db")); model.ClassOf(err) != model.DiskError {
		t.Errorf("a file in place of its folder: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := ledger.Open(ended, filepath.Join(dir, "other.db")); model.ClassOf(err) != model.Cancelled {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestNothingIsSavedAfterClose(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ema.db"))
	shut(t, l)
	if err := l.Save(t.Context(), download("a")); err == nil {
		t.Error("saved")
	}
}

func BenchmarkSave(b *testing.B) {
	for _, savers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("savers=%d", savers), func(b *testing.B) {
			l := open(b, filepath.Join(b.TempDir(), "ema.db"))
			defer shut(b, l)
			work := make(chan model.Download)
			ended := make(chan error)
			for range savers {
				go func() {
					var err error
					for d := range work {
						err = errors.Join(err, l.Save(context.Background(), d))
					}
					ended <- err
				}()
			}
			n := 0
			for b.Loop() {
				work <- download(fmt.Sprint(n))
				n++
			}
			close(work)
			for range savers {
				if err := <-ended; err != nil {
					b.Error(err)
				}
			}
		})
	}
}
