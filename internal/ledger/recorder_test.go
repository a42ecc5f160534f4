package ledger_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ema/internal/ledger"
	"ema/internal/model"
)

// recording runs a Recorder until the function that it returns is called.
func recording(t *testing.T, r *ledger.Recorder) (stop func()) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		end()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func flush(t *testing.T, r *ledger.Recorder) {
	t.Helper()
	ctx, end := context.WithTimeout(t.Context(), time.Minute)
	defer end()
	if err := r.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// counted is how many uses are in a database, as the hours and as the records themselves have them.
func counted(t *testing.T, l *ledger.Ledger) (sums, records int) {
	t.Helper()
	for _, u := range usesSince(t, l, time.Time{}) {
		sums += u.Times
	}
	if err := l.RawUses(t.Context(), time.Unix(0, 0), noon().Add(1000*time.Hour), func(model.Use) error { records++; return nil }); err != nil {
		t.Fatal(err)
	}
	return sums, records
}

func TestWhatIsToldIsWrittenSoonAndAtTheEnd(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ema.db"))
	defer shut(t, l)
	r := ledger.NewRecorder(l, "", filepath.Join(t.TempDir(), "unwritten.json"), 1000)
	stop := recording(t, r)
	for i := range 100 {
		r.Tell(ledger.Batch{Uses: []model.Use{use("a", time.Duration(i)*time.Second)}})
	}
	flush(t, r)
	if sums, records := counted(t, l); sums != 100 || records != 100 {
		t.Errorf("after a flush %d are summed up and %d are there", sums, records)
	}
	r.Tell(ledger.Batch{Uses: []model.Use{use("b", 0)}})
	stop()
	if _, records := counted(t, l); records != 101 {
		t.Errorf("at the end %d are there", records)
	}
	if s := r.State(); s.Written != 101 || s.Waiting != 0 || s.Dropped != 0 || s.Away != nil {
		t.Errorf("%+v", s)
	}
}

func TestOneRecordThatNoDatabaseTakesKeepsNoOtherBack(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ema.db"))
	defer shut(t, l)
	r := ledger.NewRecorder(l, "", filepath.Join(t.TempDir(), "unwritten.json"), 1000)
	recording(t, r)
	bad := use("b", 0)
	bad.Model = model.ID{}
	r.Tell(ledger.Batch{Uses: []model.Use{use("a", 0), bad, use("c", 0), use("d", 0), use("e", 0)}, Events: []model.Incident{{At: noon(), Kind: "k"}}})
	flush(t, r)
	events, err := l.Incidents(t.Context(), 0, 0)
	if _, records := counted(t, l); records != 4 || len(events) != 1 || err != nil {
		t.Errorf("%d uses and %d events are there, %v", records, len(events), err)
	}
	if s := r.State(); s.Refused != 1 || s.Written != 5 || s.Away != nil {
		t.Errorf("%+v", s)
	}
}

func TestADatabaseThatIsAwayLosesNothingButWhatIsCounted(t *testing.T) {
	const room = 500
	s := postgres(t)
	kept := open(t, filepath.Join(t.TempDir(), "ema.db"))
	defer shut(t, kept)
	spool := filepath.Join(t.TempDir(), "unwritten.json")
	r := ledger.NewRecorder(kept, s.URL(), spool, room)
	stop := recording(t, r)
	told := 0
	tell := func(n int) {
		for range n {
			r.Tell(ledger.Batch{Uses: []model.Use{use("a", time.Duration(told)*time.Second)}})
			told++
		}
	}
	away := func(want bool) { // waits until it is so
		t.Helper()
		ctx, end := context.WithTimeout(t.Context(), time.Minute)
		defer end()
		for tick := time.NewTicker(time.Millisecond); (r.State().Away != nil) != want; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("away: %t is wanted: %+v", want, r.State())
			}
		}
	}
	away(false)
	for range 4 { // killed while records come, with some under way
		tell(100)
		go func() { _ = r.Flush(t.Context()) }()
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		tell(50)
		away(true)
		if err := r.Flush(t.Context()); model.ClassOf(err) != model.Timeout {
			t.Errorf("while it is away: %v", err)
		}
		if _, err := r.Database(); model.ClassOf(err) != model.Timeout {
			t.Errorf("while it is away there is a database: %v", err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		away(false)
		flush(t, r)
	}
	db, err := r.Database()
	if err != nil {
		t.Fatal(err)
	}
	if sums, records := counted(t, db); sums != told || records != told || r.State().Dropped != 0 {
		t.Fatalf("of %d there are %d, and %d as sums: %+v", told, records, sums, r.State())
	}

	// More than there is room for is dropped, and counted; what is in memory at the end outlives the process.
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	tell(room + 200)
	stop()
	dropped := int(r.State().Dropped)
	if dropped != 200 {
		t.Errorf("%d were dropped, want 200", dropped)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = ledger.NewRecorder(kept, s.URL(), spool, room)
	stop = recording(t, r)
	away(false)
	flush(t, r)
	if db, err = r.Database(); err != nil {
		t.Fatal(err)
	}
	if sums, records := counted(t, db); sums != told-dropped || records != told-dropped {
		t.Errorf("of %d less %d there are %d, and %d as sums", told, dropped, records, sums)
	}
	if _, err := os.Stat(spool); err == nil {
		t.Error("the file with what was not written is still there")
	}
	stop()
	if sums, records := counted(t, kept); sums+records != 0 {
		t.Errorf("the embedded database has %d and %d", sums, records)
	}
}

// A crash between writing what an earlier process has kept and forgetting the file must not count it twice.
func TestWhatWasKeptIsWrittenOnce(t *testing.T) {
	s := postgres(t)
	kept := open(t, filepath.Join(t.TempDir(), "ema.db"))
	defer shut(t, kept)
	spool := filepath.Join(t.TempDir(), "unwritten.json")
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	r := ledger.NewRecorder(kept, s.URL(), spool, 1000)
	stop := recording(t, r)
	r.Tell(ledger.Batch{Uses: []model.Use{use("a", 0), use("b", 0)}})
	stop()
	content, err := os.ReadFile(spool)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := os.WriteFile(spool, content, 0o600); err != nil {
			t.Fatal(err)
		}
		r := ledger.NewRecorder(kept, s.URL(), spool, 1000)
		recording(t, r)()
	}
	db := openPostgres(t, s.URL())
	defer shut(t, db)
	if sums, records := counted(t, db); sums != 2 || records != 2 {
		t.Errorf("%d are summed up and %d are there, want 2", sums, records)
	}
}
