package ledger

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ema/internal/model"
)

func TestAGlanceTellsUsesAndPinsWhoeverHasTheDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ema.db")
	l, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	used, pinned := model.ID{Name: "org/used"}, model.ID{Name: "org/pinned"}
	at := time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)
	if err := l.RecordUses(t.Context(), []model.Use{{Model: used, At: at, OK: true}}); err != nil {
		t.Fatal(err)
	}
	if err := l.SetPin(t.Context(), pinned, true); err != nil {
		t.Fatal(err)
	}
	for _, open := range []bool{true, false} {
		g, err := Look(t.Context(), path)
		if err != nil || len(g.Last) != 1 || !g.Last[used].Equal(at) || len(g.Pinned) != 1 || !g.Pinned[pinned] {
			t.Errorf("open elsewhere: %t: %+v, %v", open, g, err)
		}
		if open {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAGlanceMakesNoDatabaseAndMendsNone(t *testing.T) {
	dir := t.TempDir()
	if g, err := Look(t.Context(), filepath.Join(dir, "none.db")); err != nil || len(g.Last)+len(g.Pinned) != 0 {
		t.Errorf("without a database: %+v, %v", g, err)
	}
	broken := filepath.Join(dir, "broken.db")
	if err := os.WriteFile(broken, []byte("this is no database, and is long enough to be looked at as one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Look(t.Context(), broken); model.ClassOf(err) != model.DiskError {
		t.Errorf("a file that is none: %v", err)
	}
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if g, err := Look(t.Context(), empty); err != nil || len(g.Last) != 0 {
		t.Errorf("without tables: %+v, %v", g, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"broken.db", "empty.db"}) {
		t.Errorf("afterwards there are %v", names)
	}
}
