package ledger

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"ema/internal/model"
)

func fresh(t *testing.T) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), filepath.Join(t.TempDir(), "ema.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// gather begins a save of each id while nothing can be written, waits until all wait for the next
// commit, and returns where their results will come.
func gather(t *testing.T, ctx func(id string) context.Context, l *Ledger, ids ...string) map[string]chan error {
	t.Helper()
	results := map[string]chan error{}
	for i, id := range ids {
		done := make(chan error, 1)
		results[id] = done
		go func() { done <- l.Save(ctx(id), model.Download{ID: id, State: model.Queued}) }()
		for waiting := 0; waiting <= i; runtime.Gosched() {
			l.saves.mu.Lock()
			if l.saves.next != nil {
				waiting = len(l.saves.next.records)
			}
			l.saves.mu.Unlock()
		}
	}
	return results
}

func background(string) context.Context { return context.Background() }

func names(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("dl_%d", i))
	}
	return ids
}

func TestAllWhoWaitForACommitShareTheNext(t *testing.T) {
	l := fresh(t)
	l.writing.Lock()
	results := gather(t, background, l, names(50)...)
	if b := l.saves.next; len(b.records) != 50 {
		t.Errorf("%d are in the next commit", len(b.records))
	}
	l.writing.Unlock()
	for id, done := range results {
		if err := <-done; err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if _, err := l.Download(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func TestOneThatCannotBeSavedFailsAlone(t *testing.T) {
	l := fresh(t)
	if _, err := l.db.ExecContext(t.Context(), "CREATE TRIGGER refuse BEFORE INSERT ON downloads WHEN NEW.id = 'dl_7' BEGIN SELECT RAISE(ABORT, 'refused'); END"); err != nil {
		t.Fatal(err)
	}
	l.writing.Lock()
	results := gather(t, background, l, names(20)...)
	l.writing.Unlock()
	for id, done := range results {
		err := <-done
		if (id == "dl_7") != (err != nil) {
			t.Errorf("%s: %v", id, err)
		}
		if _, missing := l.Download(t.Context(), id); (missing != nil) != (err != nil) {
			t.Errorf("%s was answered %v and is there: %v", id, err, missing)
		}
	}
}

func TestWhoStopsWaitingDoesNotStopTheOthers(t *testing.T) {
	l := fresh(t)
	stopped, stop := context.WithCancel(t.Context())
	l.writing.Lock()
	results := gather(t, func(id string) context.Context {
		if id == "dl_0" || id == "dl_2" { // who commits for all, and one who only waits
			return stopped
		}
		return t.Context()
	}, l, names(4)...)
	stop()
	if err := <-results["dl_2"]; !errors.Is(err, context.Canceled) {
		t.Errorf("who stopped waiting got %v", err)
	}
	l.writing.Unlock()
	for _, id := range []string{"dl_0", "dl_1", "dl_3"} {
		if err := <-results[id]; err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestAFullDiskRefusesAndKeepsWhatWasSaved(t *testing.T) {
	l := fresh(t)
	l.db.SetMaxOpenConns(1) // the bound below is a connection's own
	limit := func(pages int) {
		if _, err := l.db.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	big := func(i int) model.Download {
		return model.Download{ID: fmt.Sprint(i), State: model.Queued, Reason: strings.Repeat("x", 10_000)}
	}
	limit(100)
	saved := 0
	var err error
	for ; err == nil; saved++ {
		err = l.Save(t.Context(), big(saved))
	}
	saved--
	if model.ClassOf(err) != model.DiskFull {
		t.Errorf("after %d: %v", saved, err)
	}
	if all, err := l.Downloads(t.Context()); err != nil || len(all) != saved || saved == 0 {
		t.Errorf("%d of %d are there: %v", len(all), saved, err)
	}
	limit(400)
	if err := l.Save(t.Context(), big(saved)); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

func TestEveryConnectionMakesItsCommitsDurable(t *testing.T) {
	l := fresh(t)
	for range connections {
		c, err := l.db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() // at the end, so that each turn opens another one
		var journal string
		var synchronous int
		if err := c.QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&journal); err != nil {
			t.Fatal(err)
		}
		if err := c.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&synchronous); err != nil {
			t.Fatal(err)
		}
		if journal != "wal" || synchronous != 2 {
			t.Errorf("the journal is %q, synchronous is %d; want wal and 2 (full)", journal, synchronous)
		}
	}
}
