package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/ledger"
	"ema/internal/model"
)

// noon is where the tests of uses begin.
func noon() time.Time { return time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC) }

func acme(name string) model.ID { return model.ID{Name: "acme/" + name} }

func use(name string, at time.Duration) model.Use {
	return model.Use{Model: acme(name), At: noon().Add(at), By: model.UseByAPI, OK: true}
}

func recordUses(t testing.TB, l *ledger.Ledger, uses ...model.Use) {
	t.Helper()
	if err := l.RecordUses(t.Context(), uses); err != nil {
		t.Fatal(err)
	}
}

func usesSince(t testing.TB, l *ledger.Ledger, since time.Time) (all []model.UseCount) {
	t.Helper()
	err := l.Uses(t.Context(), since, func(u model.UseCount) error {
		all = append(all, u)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sumsUpUses(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	failed := use("a", 40*time.Minute)
	failed.OK, failed.Duration, failed.Bytes = false, 1500*time.Microsecond, 7
	timed := use("a", 5*time.Minute)
	timed.Duration, timed.Bytes = 2*time.Second, 3*model.GiB
	opened := use("a", 59*time.Minute+59*time.Second)
	opened.By = model.UseByOpen
	folder := use("a", 0)
	folder.Model = model.ID{Scheme: model.Folder, Name: "acme/a"} // the same name at another source
	recordUses(t, l, use("a", 0), failed, opened, folder)
	recordUses(t, l, timed, use("b", time.Hour), use("a", time.Hour))
	recordUses(t, l)
	shut(t, l)
	l = open()
	defer shut(t, l)
	want := []model.UseCount{
		{Model: acme("a"), Hour: noon(), By: "api", Times: 3, Failures: 1, Timed: 2, Duration: 2*time.Second + 1500*time.Microsecond, Bytes: 3*model.GiB + 7, Last: failed.At},
		{Model: acme("a"), Hour: noon(), By: "open", Times: 1, Last: opened.At},
		{Model: folder.Model, Hour: noon(), By: "api", Times: 1, Last: noon()},
		{Model: acme("a"), Hour: noon().Add(time.Hour), By: "api", Times: 1, Last: noon().Add(time.Hour)},
		{Model: acme("b"), Hour: noon().Add(time.Hour), By: "api", Times: 1, Last: noon().Add(time.Hour)},
	}
	if got := usesSince(t, l, time.Time{}); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := usesSince(t, l, noon().Add(90*time.Minute)); !reflect.DeepEqual(got, want[3:]) {
		t.Errorf("since the middle of an hour: %+v", got)
	}
	last, err := l.LastUses(t.Context())
	if wanted := (map[model.ID]time.Time{acme("a"): noon().Add(time.Hour), acme("b"): noon().Add(time.Hour), folder.Model: noon()}); err != nil || !maps.Equal(last, wanted) {
		t.Errorf("the last uses are %v, %v; want %v", last, err, wanted)
	}
	enough := errors.New("enough")
	seen := 0
	if err := l.Uses(t.Context(), time.Time{}, func(model.UseCount) error { seen++; return enough }); !errors.Is(err, enough) || seen != 1 {
		t.Errorf("who had enough saw %d and got %v", seen, err)
	}
}

func survivesTallTales(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	tall := use("a", 0)
	tall.Duration, tall.Bytes = math.MaxInt64, math.MaxInt64
	negative := use("a", 0)
	negative.Duration, negative.Bytes = math.MinInt64, math.MinInt64
	for range 7 { // durations are counted by the microsecond, and so it takes many
		recordUses(t, l, append(slices.Repeat([]model.Use{tall}, 200), negative)...)
	}
	got := usesSince(t, l, noon())
	if len(got) != 1 || got[0].Times != 1407 || got[0].Timed != 1400 || got[0].Bytes != 1<<62 || got[0].Duration < math.MaxInt64-1000 {
		t.Errorf("got %+v", got)
	}
	for _, nothing := range []model.Use{{At: noon()}, {Model: acme("a")}} {
		if err := l.RecordUses(t.Context(), []model.Use{use("b", 0), nothing}); model.ClassOf(err) != model.Usage {
			t.Errorf("%+v: %v", nothing, err)
		}
	}
	if got := usesSince(t, l, noon()); len(got) != 1 {
		t.Errorf("of refused ones some were recorded: %+v", got)
	}
}

func prunesUses(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	opened := use("old", 2*time.Hour)
	opened.By = model.UseByOpen
	recordUses(t, l, use("old", 0), use("old", time.Hour), use("old", 2*time.Hour), opened, use("young", 0), use("young", 9*time.Hour))
	if n, err := l.PruneUses(t.Context(), noon().Add(5*time.Hour+59*time.Minute)); n != 3 || err != nil {
		t.Errorf("forgot %d, %v; want 3", n, err)
	}
	last, err := l.LastUses(t.Context())
	if want := (map[model.ID]time.Time{acme("old"): noon().Add(2 * time.Hour), acme("young"): noon().Add(9 * time.Hour)}); err != nil || !maps.Equal(last, want) {
		t.Errorf("the last uses are %v, %v; want %v", last, err, want)
	}
	if n, err := l.PruneUses(t.Context(), noon().Add(99*time.Hour)); n != 0 || err != nil {
		t.Errorf("forgot %d of those that say when a model was last used, %v", n, err)
	}
}

func countsUsesAtOnce(t *testing.T, open func() *ledger.Ledger) {
	const workers, each = 8, 20
	l := open()
	defer shut(t, l)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				if err := l.RecordUses(t.Context(), []model.Use{use("shared", 0), use(fmt.Sprint(w), time.Duration(i)*time.Minute)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got := usesSince(t, l, noon())
	if len(got) != workers+1 {
		t.Fatalf("%d sums: %+v", len(got), got)
	}
	for _, u := range got {
		want := each
		if u.Model == acme("shared") {
			want = workers * each
		}
		if u.Times != want {
			t.Errorf("%s has %d uses, want %d", u.Model, u.Times, want)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := l.RecordUses(ended, []model.Use{use("never", 0)}); model.ClassOf(err) != model.Cancelled {
		t.Errorf("with an ended context: %v", err)
	}
}

// addsUpUses compares with the plainest of sums.
func addsUpUses(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	type key struct {
		id   model.ID
		hour time.Time
		by   model.UseSource
	}
	want := map[key]model.UseCount{}
	uses := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) model.Use {
		return model.Use{
			Model: acme(rapid.SampledFrom([]string{"a", "b", "'; DROP TABLE uses; --"}).Draw(t, "name")),
			At:    noon().Add(time.Duration(rapid.IntRange(-300, 300).Draw(t, "minutes")) * time.Minute),
			By:    rapid.SampledFrom([]model.UseSource{model.UseByAPI, model.UseByOpen}).Draw(t, "by"), OK: rapid.Bool().Draw(t, "ok"),
			Duration: time.Duration(rapid.IntRange(0, 5).Draw(t, "duration")) * time.Millisecond, Bytes: model.Bytes(rapid.IntRange(0, 9).Draw(t, "bytes")),
		}
	}), 0, 20)
	rapid.Check(t, func(t *rapid.T) {
		batch := uses.Draw(t, "uses")
		if err := l.RecordUses(context.Background(), batch); err != nil {
			t.Fatal(err)
		}
		for _, u := range batch {
			k := key{u.Model, u.At.Truncate(time.Hour), u.By}
			s := want[k]
			s.Model, s.Hour, s.By = k.id, k.hour, k.by
			s.Times++
			if !u.OK {
				s.Failures++
			}
			if u.Duration > 0 {
				s.Timed++
			}
			s.Duration, s.Bytes = s.Duration+u.Duration, s.Bytes+u.Bytes
			if u.At.After(s.Last) {
				s.Last = u.At
			}
			want[k] = s
		}
	})
	got := usesSince(t, l, time.Time{})
	if len(got) != len(want) || !slices.IsSortedFunc(got, func(a, b model.UseCount) int { return a.Hour.Compare(b.Hour) }) {
		t.Errorf("%d sums, want %d", len(got), len(want))
	}
	for _, u := range got {
		if w := want[key{u.Model, u.Hour, u.By}]; u != w {
			t.Errorf("got %+v, want %+v", u, w)
		}
	}
}
