package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ema/internal/ledger/pgserver"
	"ema/internal/model"
)

// latestSchema is the version that this ema brings databases to.
const latestSchema = 6

// databases are empty ones, without tables, each opened as often as one likes.
func databases(t *testing.T) map[string]func(t *testing.T) (bare func() *Ledger, open func() (*Ledger, error)) {
	t.Helper()
	all := map[string]func(t *testing.T) (func() *Ledger, func() (*Ledger, error)){
		"sqlite": func(t *testing.T) (func() *Ledger, func() (*Ledger, error)) {
			path := filepath.Join(t.TempDir(), "ema.db")
			return func() *Ledger {
				l, err := bare(path)
				if err != nil {
					t.Fatal(err)
				}
				return l
			}, func() (*Ledger, error) { return Open(t.Context(), path) }
		},
	}
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s, err := pgserver.New(t.Context(), dir)
	if errors.Is(err, pgserver.ErrMissing) && os.Getenv("CI") == "" {
		t.Log(err)
		return all
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	n := 0
	all["postgresql"] = func(t *testing.T) (func() *Ledger, func() (*Ledger, error)) {
		n++
		url, err := s.Create(t.Context(), fmt.Sprintf("ema%d", n))
		if err != nil {
			t.Fatal(err)
		}
		return func() *Ledger {
			l, err := connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}, func() (*Ledger, error) { return OpenPostgres(t.Context(), url) }
	}
	return all
}

func exec(t *testing.T, l *Ledger, statement string, values ...any) {
	t.Helper()
	if _, err := l.db.ExecContext(t.Context(), statement, values...); err != nil {
		t.Fatal(err)
	}
}

// upTo makes the tables of an earlier version, with something in them.
func upTo(t *testing.T, l *Ledger, version int64) {
	t.Helper()
	steps, err := l.steps()
	if err != nil {
		t.Fatal(err)
	}
	if version > 0 {
		if _, err := steps.UpTo(t.Context(), version); err != nil {
			t.Fatal(err)
		}
	}
	if version >= 1 {
		values, err := row(model.Download{ID: "old", Model: model.ID{Name: "acme/a"}, State: model.Queued})
		if err != nil {
			t.Fatal(err)
		}
		exec(t, l, saveSQL(), values...)
	}
	if version >= 2 {
		values, err := auditRow(model.AuditEntry{At: time.Unix(1, 0), Who: "old"})
		if err != nil {
			t.Fatal(err)
		}
		exec(t, l, recordSQL, values...)
	}
	if version >= 3 {
		for _, values := range useRows(sums([][]model.Use{{oldUse(0), oldUse(0), oldUse(25 * time.Hour)}})) {
			exec(t, l, "INSERT INTO uses ("+useColumns+") VALUES "+places(len(values)), values...)
		}
	}
}

// oldUse is a use from before there were sums of days.
func oldUse(at time.Duration) model.Use {
	return model.Use{Model: model.ID{Name: "acme/a"}, At: time.Date(2026, 3, 29, 12, 20, 0, 0, time.UTC).Add(at), By: model.UseByAPI, OK: true, Duration: time.Second}
}

// whole judges that a database is of the newest version and has what upTo has put there.
func whole(t *testing.T, l *Ledger, from int64) {
	t.Helper()
	steps, err := l.steps()
	if err != nil {
		t.Fatal(err)
	}
	if s, err := l.schema(t.Context(), steps); err != nil || s != (Schema{latestSchema, latestSchema}) {
		t.Errorf("the schema is %+v, %v", s, err)
	}
	downloads, err := l.Downloads(t.Context())
	trail, err2 := l.Audit(t.Context(), 0, 0)
	first := DateOf(oldUse(0).At)
	sums, err3 := l.UsageSums(t.Context(), UsageQuestion{First: first, Last: first.Add(1), Zone: time.UTC})
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	has := func(version int64) int { return map[bool]int{true: 1}[from >= version] }
	if len(downloads) != has(1) || len(trail) != has(2) || len(sums) != has(3) {
		t.Errorf("there are %d downloads, %d lines of audit and the uses %+v", len(downloads), len(trail), sums)
	}
	if len(sums) == 1 && sums[0].Quarter != (Quarter{Times: 3, Timed: 3, Duration: 3_000_000}) {
		t.Errorf("the uses became %+v", sums[0])
	}
	var indexed int
	catalog := "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name = $1"
	if l.postgres() {
		catalog = "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass($1) AND indisvalid"
	}
	for _, i := range indexes() {
		if err := l.db.QueryRowContext(t.Context(), catalog, i.name).Scan(&indexed); err != nil || indexed != 1 {
			t.Errorf("the index %s: %d, %v", i.name, indexed, err)
		}
	}
	if err := l.RecordUses(t.Context(), []model.Use{oldUse(0)}); err != nil {
		t.Error(err)
	}
}

func TestEveryEarlierSchemaIsBroughtUpToDate(t *testing.T) {
	for name, begin := range databases(t) {
		for from := range int64(latestSchema + 1) {
			t.Run(fmt.Sprintf("%s from %d", name, from), func(t *testing.T) {
				bare, open := begin(t)
				l := bare()
				upTo(t, l, from)
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l, err := open()
				if err != nil {
					t.Fatal(err)
				}
				if from < 6 {
					whole(t, l, min(from, 3))
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Whatever stops a migration, at any of its steps, the next one ends it.
func TestAMigrationThatIsStoppedIsEndedByTheNext(t *testing.T) {
	for name, begin := range databases(t) {
		t.Run(name, func(t *testing.T) {
			stopped := 0
			for range 25 {
				bare, open := begin(t)
				l := bare()
				upTo(t, l, 3)
				ctx, end := context.WithTimeout(t.Context(), time.Duration(rand.IntN(80_000))*time.Microsecond)
				if l.migrate(ctx) != nil {
					stopped++
				}
				end()
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l, err := open()
				if err != nil {
					t.Fatal(err)
				}
				whole(t, l, 3)
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
			if stopped == 0 {
				t.Error("none was stopped")
			}
		})
	}
}

func TestAnIndexThatPostgreSQLHasGivenUpIsMadeAgain(t *testing.T) {
	begin, ok := databases(t)["postgresql"]
	if !ok {
		t.Skip("there is no PostgreSQL here")
	}
	bare, open := begin(t)
	l := bare()
	upTo(t, l, 4)
	exec(t, l, "CREATE INDEX idx_model_usage_composite ON model_usage (model_id, timestamp)")
	exec(t, l, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass('idx_model_usage_composite')")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := open()
	if err != nil {
		t.Fatal(err)
	}
	whole(t, l, 3)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzQuarters(f *testing.F) {
	var some [quartersOfDay]Quarter
	some[0], some[95] = Quarter{Times: 1}, Quarter{Times: 1 << 40, Failures: 3, Timed: 7, Duration: most}
	f.Add(encodeQuarters(&some))
	f.Add([]byte{0})
	f.Add([]byte{200, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var all [quartersOfDay]Quarter
		if decodeQuarters(raw, func(i int, q Quarter) { all[i] = q }) != nil {
			return
		}
		var again [quartersOfDay]Quarter
		if err := decodeQuarters(encodeQuarters(&all), func(i int, q Quarter) { again[i] = q }); err != nil || again != all {
			t.Errorf("%x became %v and then %v, %v", raw, all, again, err)
		}
	})
}
