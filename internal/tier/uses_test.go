package tier

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

const day = 24 * time.Hour

// noon is now in most tests.
func noon() time.Time { return time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC) }

func named(name string) model.ID { return model.ID{Name: "acme/" + name} }

func TestUsesAreCountedWithinTheWindow(t *testing.T) {
	u, a := NewUses(90*day), named("a")
	u.Record(a, noon().Add(-8*day), 5)
	u.Record(a, noon().Add(-3*day), 2)
	u.Record(a, noon(), 1)
	u.Record(named("b"), noon(), 100)
	for window, want := range map[time.Duration]int{time.Minute: 1, 2 * day: 1, 7 * day: 3, 9 * day: 8} {
		if got := u.Count(a, noon().Add(-window)); got != want {
			t.Errorf("%d uses in %v, want %d", got, window, want)
		}
	}
	if got := u.Frequency(a, noon(), 10*day); got != 0.8 {
		t.Errorf("%v uses a day, want 0.8", got)
	}
	if got := u.Frequency(a, noon(), 0); got != 0 {
		t.Errorf("%v uses a day in no time", got)
	}
	if got := u.Last(a); !got.Equal(noon()) {
		t.Errorf("last used at %v", got)
	}
	if got := u.Last(named("never")); !got.IsZero() || u.Count(named("never"), time.Time{}) != 0 {
		t.Errorf("what was never used was last used at %v", got)
	}
}

func TestWhenAModelWasLastUsedOutlivesItsUses(t *testing.T) {
	u, a := NewUses(30*day), named("a")
	u.Record(a, noon(), 3)
	u.Forget(noon().Add(31 * day))
	if n := u.Count(a, noon().Add(-day)); n != 0 || !u.Last(a).Equal(noon()) {
		t.Errorf("%d uses, last at %v", n, u.Last(a))
	}
	u.Record(named("b"), noon().Add(-3000*day), 0)
	if n := u.Count(named("b"), time.Unix(0, 0)); n != 0 || !u.Last(named("b")).Equal(noon().Add(-3000*day)) {
		t.Errorf("%d uses, last at %v", n, u.Last(named("b")))
	}
}

func TestAModelInConstantUseTakesBoundedMemory(t *testing.T) {
	u, a := NewUses(7*day), named("a")
	for at := range 60 * 24 * 60 { // a use every minute, for 60 days
		u.Record(a, noon().Add(time.Duration(at)*time.Minute), 1)
	}
	if n := len(u.models[a].figures); n > 7*24+2*60+2*(7*24+2*60)+crowd {
		t.Errorf("%d figures for 7 days", n)
	}
	u.Keep(day)
	u.Forget(noon().Add(60 * day))
	if n := len(u.models[a].figures); n > 24+2*60+crowd+7*24 {
		t.Errorf("%d figures for a day", n)
	}
}

// TestNoUseCountsTooShortAndNoneAnHourTooLong compares with a plain list of times.
func TestNoUseCountsTooShortAndNoneAnHourTooLong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keep := time.Duration(rapid.IntRange(1, 20).Draw(t, "days")) * day
		u, a := NewUses(keep), named("a")
		var times []time.Time
		latest := noon()
		for range rapid.IntRange(1, 40).Draw(t, "rounds") {
			step := time.Duration(rapid.IntRange(-300, 2000).Draw(t, "seconds")) * time.Second
			for range rapid.IntRange(1, 30).Draw(t, "uses") {
				latest = latest.Add(step)
				u.Record(a, latest, 1)
				times = append(times, latest)
			}
		}
		newest := times[0]
		for _, at := range times {
			if at.After(newest) {
				newest = at
			}
		}
		if !u.Last(a).Equal(newest) {
			t.Fatalf("last used at %v, want %v", u.Last(a), newest)
		}
		since := newest.Add(-time.Duration(rapid.Int64Range(0, int64(keep)).Draw(t, "window")))
		least, most := 0, 0
		for _, at := range times {
			if !at.Before(since) {
				least++
			}
			if !at.Before(since.Add(-time.Hour)) {
				most++
			}
		}
		if got := u.Count(a, since); got < least || got > most {
			t.Fatalf("%d uses since %v, want %d to %d", got, since, least, most)
		}
	})
}

func TestManyMayRecordAndCountAtOnce(t *testing.T) {
	u := NewUses(day)
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 500 {
				u.Record(named(fmt.Sprint(i%10)), noon().Add(time.Duration(i)*time.Second), 1)
				u.Count(named(fmt.Sprint(w)), noon())
				u.Last(named(fmt.Sprint(w)))
			}
			u.Forget(noon())
		})
	}
	all.Wait()
	if got := u.Count(named("3"), noon()); got != 200 {
		t.Errorf("%d uses, want 200", got)
	}
}
