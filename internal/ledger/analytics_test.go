package ledger_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/ledger"
	"ema/internal/model"
)

// zones are those whose clocks do what others do not: half and quarter hours, both sides of the date line, summer time at
// midnight, by half an hour, in Ramadan, a day that there never was.
func zones(t testing.TB) (all []*time.Location) {
	t.Helper()
	for _, name := range []string{
		"UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Kiritimati", "Pacific/Pago_Pago",
		"America/Havana", "Asia/Beirut", "Africa/Casablanca", "Pacific/Chatham", "America/St_Johns", "America/Santiago", "Pacific/Apia",
	} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, zone)
	}
	return all
}

// What a day's sums can answer rests on this.
func TestSince2012NoClockIsSetWithinAQuarterOfAnHour(t *testing.T) {
	for _, zone := range zones(t) {
		for at := time.Date(2012, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2040; at = at.Add(24 * time.Hour) {
			_, offset := at.In(zone).Zone()
			_, next := at.In(zone).ZoneBounds()
			if offset%900 != 0 || next.Year() < 2038 && next.Unix()%900 != 0 {
				t.Fatalf("%s is %d s from UTC on %s, and changes at %s", zone, offset, at, next)
			}
		}
	}
}

// naive recomputes usage from the uses themselves.
func naive(uses []model.Use, q ledger.UsageQuestion) (sums []ledger.UsageSum, of []ledger.ModelUsage) {
	byModel := map[model.ID]*ledger.ModelUsage{}
	inRange := map[model.ID]bool{}
	for _, u := range uses {
		m := byModel[u.Model]
		if m == nil {
			m = &ledger.ModelUsage{UsageSum: ledger.UsageSum{Model: u.Model}}
			for d := q.Last.Add(1 - q.Daily); d.Compare(q.Last) <= 0; d = d.Add(1) {
				m.Days = append(m.Days, ledger.UsageDay{Date: d})
			}
			byModel[u.Model] = m
		}
		local := u.At.In(q.Zone)
		count := func(to *ledger.Quarter) {
			to.Times++
			if !u.OK {
				to.Failures++
			}
			if u.Duration > 0 {
				to.Timed++
				to.Duration += u.Duration.Microseconds()
			}
		}
		date := ledger.DateOf(local)
		if q.First.Compare(date) <= 0 && date.Compare(q.Last) <= 0 {
			inRange[u.Model] = true
			count(&m.Quarter)
			m.Hours[local.Hour()]++
		}
		for i := range m.Days {
			if m.Days[i].Date == date {
				count(&m.Days[i].Quarter)
			}
		}
	}
	for id, m := range byModel {
		if inRange[id] {
			sums = append(sums, m.UsageSum)
		}
	}
	slices.SortFunc(sums, func(a, b ledger.UsageSum) int { return compare(a.Model, b.Model) })
	for _, id := range q.Models {
		m := byModel[id]
		if m == nil {
			m = &ledger.ModelUsage{UsageSum: ledger.UsageSum{Model: id}}
			for d := q.Last.Add(1 - q.Daily); d.Compare(q.Last) <= 0; d = d.Add(1) {
				m.Days = append(m.Days, ledger.UsageDay{Date: d})
			}
		}
		of = append(of, *m)
	}
	return sums, of
}

func compare(a, b model.ID) int {
	if a.Name < b.Name || a.Name == b.Name && a.Scheme < b.Scheme {
		return -1
	}
	return 1
}

// answersAsOneWouldByHand compares what is answered from sums with what the uses themselves say.
func answersAsOneWouldByHand(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	all := zones(t)
	var told []model.Use
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		// Around the changes of clocks of 2026, and where a year ends.
		begin := rapid.SampledFrom([]time.Time{
			time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC), time.Date(2026, 10, 25, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 8, 0, 0, 0, 0, time.UTC),
			time.Date(2026, 4, 5, 0, 0, 0, 0, time.UTC), time.Date(2025, 12, 31, 20, 0, 0, 0, time.UTC), time.Date(2026, 2, 15, 0, 0, 0, 0, time.UTC),
		}).Draw(t, "begin")
		uses := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) model.Use {
			return model.Use{
				Model: acme(rapid.SampledFrom([]string{"a", "b", "c", fmt.Sprint("d", round)}).Draw(t, "model")),
				At:    begin.Add(time.Duration(rapid.Int64Range(-5*86400, 5*86400).Draw(t, "s"))*time.Second + time.Duration(rapid.IntRange(0, 999).Draw(t, "ms"))*time.Millisecond),
				By:    rapid.SampledFrom([]model.UseSource{model.UseByAPI, model.UseByOpen}).Draw(t, "by"), OK: rapid.Bool().Draw(t, "ok"),
				Duration: time.Duration(rapid.Int64Range(0, 5_000_000).Draw(t, "µs")) * time.Microsecond,
			}
		}), 0, 40).Draw(t, "uses")
		if err := l.RecordUses(context.Background(), uses); err != nil {
			t.Fatal(err)
		}
		told = append(told, uses...)
		for range 4 {
			first := ledger.DateOf(begin).Add(rapid.IntRange(-7, 7).Draw(t, "first"))
			q := ledger.UsageQuestion{
				First: first, Last: first.Add(rapid.IntRange(0, 40).Draw(t, "days")), Zone: rapid.SampledFrom(all).Draw(t, "zone"),
				Models: []model.ID{acme("b"), acme("a"), acme("nobody")}, Daily: rapid.IntRange(0, 12).Draw(t, "daily"),
			}
			_, want := naive(told, q)
			if got, err := l.UsageOf(context.Background(), q); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%s to %s in %s:\ngot  %+v, %v\nwant %+v", q.First, q.Last, q.Zone, got, err, want)
			}
			q.Models = nil
			sums, _ := naive(told, q)
			if got, err := l.UsageSums(context.Background(), q); err != nil || len(got)+len(sums) > 0 && !reflect.DeepEqual(got, sums) {
				t.Fatalf("%s to %s in %s:\ngot  %+v, %v\nwant %+v", q.First, q.Last, q.Zone, got, err, sums)
			}
		}
	})
	// What is kept of each use is what was told.
	slices.SortStableFunc(told, func(a, b model.Use) int { return a.At.Compare(b.At) })
	n := 0
	err := l.RawUses(t.Context(), time.Unix(0, 0), time.Now().Add(24*time.Hour), func(u model.Use) error {
		if !u.At.Equal(told[n].At) {
			t.Fatalf("the use %d was at %s, want %s", n, u.At, told[n].At)
		}
		n++
		return nil
	})
	if err != nil || n != len(told) {
		t.Errorf("%d of %d uses are kept: %v", n, len(told), err)
	}
}

func refusesDaysThatAreNone(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	day := ledger.Date{Year: 2026, Month: 3, Day: 1}
	for _, q := range []ledger.UsageQuestion{{First: day, Last: day.Add(-1), Zone: time.UTC}, {First: day, Last: day}} {
		if _, err := l.UsageSums(t.Context(), q); model.ClassOf(err) != model.Usage {
			t.Errorf("sums: %v", err)
		}
		if _, err := l.UsageOf(t.Context(), q); model.ClassOf(err) != model.Usage {
			t.Errorf("of models: %v", err)
		}
	}
}

// A page may be about as many models as there are.
func TestAQuestionMayNameManyModels(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir()+"/ema.db")
	defer shut(t, l)
	var b ledger.Batch
	q := ledger.UsageQuestion{First: ledger.DateOf(use("a", 0).At), Last: ledger.DateOf(use("a", 0).At), Zone: time.UTC}
	for i := range 3000 {
		u := use(fmt.Sprint(i), 0)
		b.Uses = append(b.Uses, u)
		q.Models = append(q.Models, u.Model)
	}
	write(t, l, b)
	sums, err := l.UsageSums(t.Context(), q)
	if err != nil || len(sums) != 3000 {
		t.Errorf("%d sums, %v", len(sums), err)
	}
	told, err := l.UsageOf(t.Context(), q)
	if err != nil || len(told) != 3000 || told[2999].Times != 1 {
		t.Errorf("%d models, %v", len(told), err)
	}
}
