package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/ledger"
	"ema/internal/model"
)

// download is one in the queue, with something in every field that has a zero value of its own.
func download(id string) model.Download {
	return model.Download{
		ID: id, Model: model.ID{Name: "acme/" + id}, State: model.Queued,
		Created: time.Date(2026, 3, 29, 1, 30, 0, 123456789, time.UTC),
	}
}

// conformance is what every database must hold. open opens the same database again and again; what
// it opens is closed by who asked for it.
func conformance(t *testing.T, open func(t *testing.T) func() *ledger.Ledger) {
	promises := map[string]func(*testing.T, func() *ledger.Ledger){
		"gives back every field of what was saved, also after a restart": givesBackEveryField,
		"replaces what has the same id":                                  replacesTheSame,
		"lists by state, in the order of arrival":                        listsByState,
		"shows what is over, the newest first, page by page":             showsHistory,
		"forgets only what was over before a time":                       prunes,
		"knows the greatest order, also of what is over":                 knowsTheGreatestOrder,
		"saves from many goroutines at once, readable when answered":     savesAtOnce,
		"answers a save whose context ended with an error, never half":   savesWholeOrNot,
		"refuses a download without an id":                               refusesNoID,
		"keeps the audit trail, also after a restart, the newest first":  keepsTheTrail,
		"forgets only what was audited before a time":                    prunesTheTrail,
		"records from many goroutines at once, readable when answered":   recordsAtOnce,
		"keeps no link's secrets and no more than is of use of an entry": trimsTheTrail,
		"sums up uses by model, hour and source, also after a restart":   sumsUpUses,
		"adds up uses as one would by hand":                              addsUpUses,
		"survives figures that no use can have":                          survivesTallTales,
		"forgets old uses, and never when a model was last used":         prunesUses,
		"counts every use that many tell of at once":                     countsUsesAtOnce,
		"keeps pins, also after a restart":                               keepsPins,
		"keeps moves, those that are over the newest first":              keepsMoves,
		"forgets only moves that were over before a time":                prunesMoves,
		"answers how models were used as one would by hand":              answersAsOneWouldByHand,
		"refuses questions about days that are none":                     refusesDaysThatAreNone,
		"keeps what checks of models found, the newest first":            keepsChecks,
		"sums up samples by the minute and the hour":                     sumsUpSamples,
		"keeps what happened, the newest first":                          keepsIncidents,
		"writes a batch once, also when it is told again":                writesABatchOnce,
		"writes all of a batch or nothing":                               writesABatchWholeOrNot,
		"forgets history that is older than it is kept":                  prunesHistory,
		"opens what is current already, once more and unchanged":         opensAgain,
	}
	for promise, keeps := range promises {
		t.Run(promise, func(t *testing.T) { keeps(t, open(t)) })
	}
}

func save(t testing.TB, l *ledger.Ledger, downloads ...model.Download) {
	t.Helper()
	for _, d := range downloads {
		if err := l.Save(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
}

func shut(t testing.TB, l *ledger.Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func ids(downloads []model.Download) (ids []string) {
	for _, d := range downloads {
		ids = append(ids, d.ID)
	}
	return ids
}

func givesBackEveryField(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	n := 0
	text := rapid.OneOf(rapid.Just(""), rapid.SampledFrom([]string{"'; DROP TABLE downloads; --", "ü / 模型", "\"", "https://h/a?sig=1%20&b", "$1 ?"}), rapid.String().Filter(func(s string) bool {
		return !strings.Contains(s, "\x00") // PostgreSQL has no such text, and nothing of ours contains it
	}))
	moments := rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "none") {
			return time.Time{}
		}
		return time.Unix(rapid.Int64Range(1, 1<<33).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
	})
	var want []model.Download
	rapid.Check(t, func(t *rapid.T) {
		n++
		d := rapid.Custom(func(t *rapid.T) model.Download {
			return model.Download{
				ID: fmt.Sprintf("dl_%d", n),
				Model: model.ID{
					Scheme: rapid.SampledFrom([]model.Scheme{model.Hub, model.HTTPS, model.Folder}).Draw(t, "scheme"),
					Name:   text.Draw(t, "name"),
				},
				Revision: text.Draw(t, "revision"), Include: rapid.SliceOf(text).Draw(t, "include"), Exclude: rapid.SliceOf(text).Draw(t, "exclude"),
				Priority: model.Priority(rapid.Int8Range(-1, 2).Draw(t, "priority")), Limit: model.Bytes(rapid.Int64().Draw(t, "limit")),
				Connections: rapid.IntRange(0, 64).Draw(t, "connections"), MaxRetries: rapid.IntRange(-1, 9).Draw(t, "max retries"),
				State: rapid.SampledFrom([]model.State{model.Queued, model.Paused, model.Failed}).Draw(t, "state"),
				Pause: rapid.SampledFrom([]model.Pause{"", model.ByUser, model.BySpace}).Draw(t, "pause"), Reason: text.Draw(t, "reason"), Class: text.Draw(t, "class"),
				NextTry: moments.Draw(t, "next"), Retries: rapid.IntRange(0, 9).Draw(t, "retries"), Tries: rapid.IntRange(0, 9).Draw(t, "tries"),
				Commit: text.Draw(t, "commit"), Path: text.Draw(t, "path"), Size: model.Bytes(rapid.Int64().Draw(t, "size")), Done: model.Bytes(rapid.Int64().Draw(t, "done")),
				Order: int64(n), Created: moments.Draw(t, "created"), Started: moments.Draw(t, "started"), Ended: moments.Draw(t, "ended"),
			}
		}).Draw(t, "download")
		if err := l.Save(context.Background(), d); err != nil {
			t.Fatal(err)
		}
		want = append(want, d)
	})
	shut(t, l)
	l = open()
	defer shut(t, l)
	got, err := l.Downloads(t.Context())
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d of %d are there: %v", len(got), len(want), err)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("got  %#v\nwant %#v", got[i], want[i])
		}
	}
}

func replacesTheSame(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	d := download("a")
	save(t, l, d)
	d.State, d.Reason, d.Done, d.Include = model.Paused, "no space", 7, []string{"*.gguf"}
	save(t, l, d)
	if got, err := l.Download(t.Context(), "a"); err != nil || !reflect.DeepEqual(got, d) {
		t.Errorf("got %+v, %v", got, err)
	}
	if all, err := l.Downloads(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%d downloads, %v", len(all), err)
	}
	if _, err := l.Download(t.Context(), "b"); model.ClassOf(err) != model.NotFound {
		t.Errorf("of an unknown one: %v", err)
	}
}

func listsByState(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	for i, s := range []model.State{model.Queued, model.Paused, model.Completed, model.Queued, model.Retrying} {
		d := download(fmt.Sprint(i))
		d.State, d.Order = s, int64(10-i)
		save(t, l, d)
	}
	for _, c := range []struct {
		want   []string
		states []model.State
	}{
		{[]string{"4", "3", "2", "1", "0"}, nil},
		{[]string{"3", "0"}, []model.State{model.Queued}},
		{[]string{"4", "3", "1", "0"}, []model.State{model.Queued, model.Paused, model.Retrying}},
		{nil, []model.State{model.Failed}},
	} {
		if got, err := l.Downloads(t.Context(), c.states...); err != nil || !slices.Equal(ids(got), c.want) {
			t.Errorf("%v: got %v, %v; want %v", c.states, ids(got), err, c.want)
		}
	}
}

// lives saves one download of each state, the later ones ended later.
func lives(t *testing.T, l *ledger.Ledger, day time.Time) {
	t.Helper()
	for i, s := range []model.State{model.Completed, model.Failed, model.Queued, model.Stopped, model.Paused, model.Completed} {
		d := download(fmt.Sprint(i))
		d.State, d.Order = s, int64(i)
		if s.Final() {
			d.Ended = day.Add(time.Duration(i) * time.Hour)
		}
		save(t, l, d)
	}
}

func showsHistory(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	lives(t, l, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	for _, c := range []struct {
		limit, offset int
		want          []string
	}{
		{0, 0, []string{"5", "3", "1", "0"}},
		{2, 0, []string{"5", "3"}},
		{2, 2, []string{"1", "0"}},
		{2, 4, nil},
		{0, 3, []string{"0"}},
		{-1, -1, []string{"5", "3", "1", "0"}},
	} {
		if got, err := l.History(t.Context(), c.limit, c.offset); err != nil || !slices.Equal(ids(got), c.want) {
			t.Errorf("limit %d offset %d: got %v, %v; want %v", c.limit, c.offset, ids(got), err, c.want)
		}
	}
}

func prunes(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	lives(t, l, day)
	if n, err := l.Prune(t.Context(), day.Add(3*time.Hour)); n != 2 || err != nil {
		t.Errorf("forgot %d, %v; want 2", n, err)
	}
	if all, err := l.Downloads(t.Context()); err != nil || !slices.Equal(ids(all), []string{"2", "3", "4", "5"}) {
		t.Errorf("left are %v, %v", ids(all), err)
	}
}

func knowsTheGreatestOrder(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	if last, err := l.LastOrder(t.Context()); last != 0 || err != nil {
		t.Errorf("of nothing: %d, %v", last, err)
	}
	old, young := download("old"), download("young")
	old.Order, old.State, young.Order = 41, model.Completed, 7
	save(t, l, old, young)
	if last, err := l.LastOrder(t.Context()); last != 41 || err != nil {
		t.Errorf("got %d, %v; want 41", last, err)
	}
}

func savesAtOnce(t *testing.T, open func() *ledger.Ledger) {
	const workers, each = 8, 25
	l := open()
	defer shut(t, l)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				if err := l.Save(t.Context(), download(fmt.Sprintf("%d-%d", w, i))); err != nil {
					t.Error(err)
				}
				if _, err := l.Download(t.Context(), fmt.Sprintf("%d-%d", w, i)); err != nil {
					t.Errorf("what was saved cannot be read: %v", err)
				}
			}
		})
	}
	all.Wait()
	if got, err := l.Downloads(t.Context()); err != nil || len(got) != workers*each {
		t.Errorf("%d downloads, %v; want %d", len(got), err, workers*each)
	}
}

func savesWholeOrNot(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := l.Save(ended, download("never")); !errors.Is(err, context.Canceled) || model.ClassOf(err) != model.Cancelled {
		t.Errorf("with an ended context: %v", err)
	}
	if _, err := l.Download(t.Context(), "never"); model.ClassOf(err) != model.NotFound {
		t.Errorf("it was saved all the same: %v", err)
	}
	var all sync.WaitGroup
	errs := make([]error, 64)
	for i := range errs {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
		defer cancel()
		all.Go(func() {
			d := download(fmt.Sprint(i))
			d.Reason = strings.Repeat("x", 10_000)
			errs[i] = l.Save(ctx, d)
		})
	}
	all.Wait()
	for i, err := range errs {
		d, missing := l.Download(t.Context(), fmt.Sprint(i))
		if err == nil && missing != nil {
			t.Errorf("%d was acknowledged and is not there: %v", i, missing)
		}
		if missing == nil && len(d.Reason) != 10_000 {
			t.Errorf("%d is there by half", i)
		}
	}
}

func refusesNoID(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	if err := l.Save(t.Context(), download("")); model.ClassOf(err) != model.Usage {
		t.Errorf("got %v", err)
	}
}

func opensAgain(t *testing.T, open func() *ledger.Ledger) {
	for i := range 3 {
		l := open()
		if l.Note != "" {
			t.Errorf("a note about a sound database: %s", l.Note)
		}
		save(t, l, download(fmt.Sprint(i)))
		if all, err := l.Downloads(t.Context()); err != nil || len(all) != i+1 {
			t.Errorf("%d downloads, %v; want %d", len(all), err, i+1)
		}
		shut(t, l)
	}
}
