package ledger_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ema/internal/ledger"
	"ema/internal/model"
)

func TestACheckTellsWhatADatabaseIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ema.db")
	server := postgres(t)
	for kind, d := range map[string]struct {
		l    *ledger.Ledger
		path string
		url  string
	}{
		"sqlite":     {open(t, path), path, ""},
		"postgresql": {openPostgres(t, server.URL()), "", server.URL()},
	} {
		write(t, d.l, ledger.Batch{Uses: []model.Use{use("a", 0), use("a", 1)}})
		shut(t, d.l)
		c, err := ledger.Check(t.Context(), d.path, d.url)
		if err != nil || c.Kind != kind || c.Version == "" || c.Schema.Has != c.Schema.Wants || c.Size < 10*model.KiB || c.Answer <= 0 || c.Commit <= 0 || c.Problems != nil {
			t.Errorf("%s: %+v, %v", kind, c, err)
		}
		if kind == "sqlite" && c.Records["model_usage"] != 2 { // the other counts when it has time
			t.Errorf("the records are %v", c.Records)
		}
	}
}

func TestACheckFindsDamageThatAStartDoesNotLookFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ema.db")
	l := open(t, path)
	var checks []model.HealthCheck
	issues := []string{strings.Repeat("x", 3500)}
	for range 20_000 { // each has a page of its own
		checks = append(checks, model.HealthCheck{Model: model.ID{Name: "acme/a"}, At: time.Unix(1, 0), Kind: "full", Overall: model.Corrupted, Issues: issues})
	}
	write(t, l, ledger.Batch{Checks: checks})
	shut(t, l)
	content, err := os.ReadFile(path)
	if err != nil || len(content) < 64<<20 {
		t.Fatalf("it has %d bytes, %v", len(content), err)
	}
	spoilt := slices.Index(content[len(content)/2:], 'x') + len(content)/2
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 3*4096), int64(spoilt)/4096*4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, path) // it has all that the daemon cannot work without
	if l.Note != "" {
		t.Errorf("a note: %s", l.Note)
	}
	shut(t, l)
	if c, err := ledger.Check(t.Context(), path, ""); err != nil || len(c.Problems) == 0 {
		t.Errorf("a check found %+v, %v", c, err)
	}
	// Once the damage was met, the next start looks for it.
	if err := os.WriteFile(path+".suspect", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l = open(t, path)
	defer shut(t, l)
	if l.Note == "" {
		t.Error("there is no note")
	}
	if _, err := os.Stat(path + ".suspect"); err == nil {
		t.Error("the new database is suspected of damage")
	}
}
