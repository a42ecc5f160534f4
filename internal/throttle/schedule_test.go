package throttle

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the zones below, on machines without them

	"pgregory.net/rapid"

	"ema/internal/model"
)

func zone(t interface{ Fatal(...any) }, name string) *time.Location {
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func clock(t *testing.T, s string) Clock {
	t.Helper()
	c, err := ParseClock(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAClockIsReadAsHoursAndMinutes(t *testing.T) {
	for s, want := range map[string]Clock{"00:00": 0, "08:30": 510, "23:59": 1439, "24:00": 1440} {
		if got, err := ParseClock(s); got != want || err != nil || got.String() != s {
			t.Errorf("%s is %d, printed %v (%v)", s, got, got, err)
		}
	}
	for _, s := range []string{"", "8", "8:30", "08:3", "08:60", "24:01", "-1:00", "08:30:00", "noon", "08.30", " 08:30"} {
		if got, err := ParseClock(s); err == nil {
			t.Errorf("%q is %v, want an error", s, got)
		}
	}
}

// flips follows a schedule from one change to the next and prints each as "day time limit", in zone.
func flips(s Schedule, from time.Time, n int) string {
	var all []string
	for range n {
		limit, _, until := s.At(from)
		line := limit.String()
		if !until.IsZero() {
			line += " until " + until.In(from.Location()).Format("Mon 15:04:05.999999999 MST")
		}
		all = append(all, line)
		if until.IsZero() {
			break
		}
		from = until.In(from.Location())
	}
	return strings.Join(all, "; ")
}

func TestWindowsBeginAndEndExactlyAtTheMinute(t *testing.T) {
	berlin, kolkata, chatham := zone(t, "Europe/Berlin"), zone(t, "Asia/Kolkata"), zone(t, "Pacific/Chatham")
	york := zone(t, "America/New_York")
	at := func(z *time.Location, s string) time.Time {
		v, err := time.ParseInLocation("2006-01-02 15:04:05", s, z)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	window := func(start, end string, z *time.Location, limit model.Bytes, days ...time.Weekday) Window {
		return Window{Name: "w", Start: clock(t, start), End: clock(t, end), Zone: z, Limit: limit, Days: days}
	}
	one := func(w Window) Schedule { return Schedule{Windows: []Window{w}} }
	workdays := []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday}

	for promise, c := range map[string]struct {
		schedule Schedule
		from     time.Time
		want     string
	}{
		"without windows, nothing ever changes": {Schedule{Global: 5}, at(berlin, "2026-05-01 12:00:00"), "5 B"},
		"by day": {
			one(window("08:00", "18:30", berlin, 7)), at(berlin, "2026-05-01 07:59:59"),
			"0 B until Fri 08:00:00 CEST; 7 B until Fri 18:30:00 CEST; 0 B until Sat 08:00:00 CEST",
		},
		"over midnight": {
			one(window("22:00", "06:00", berlin, 7)), at(berlin, "2026-05-01 23:00:00"),
			"7 B until Sat 06:00:00 CEST; 0 B until Sat 22:00:00 CEST; 7 B until Sun 06:00:00 CEST",
		},
		"until midnight": {
			one(window("22:00", "24:00", berlin, 7)), at(berlin, "2026-05-01 23:00:00"),
			"7 B until Sat 00:00:00 CEST; 0 B until Sat 22:00:00 CEST",
		},
		"until midnight, said otherwise": {
			one(window("22:00", "00:00", berlin, 7)), at(berlin, "2026-05-01 23:00:00"),
			"7 B until Sat 00:00:00 CEST; 0 B until Sat 22:00:00 CEST",
		},
		"on workdays": {
			one(window("09:00", "17:00", berlin, 7, workdays...)), at(berlin, "2026-05-01 16:00:00"),
			"7 B until Fri 17:00:00 CEST; 0 B until Mon 09:00:00 CEST",
		},
		"over midnight, the days are those on which it begins": {
			one(window("22:00", "06:00", berlin, 7, time.Friday)), at(berlin, "2026-05-01 05:00:00"),
			"0 B until Fri 22:00:00 CEST; 7 B until Sat 06:00:00 CEST; 0 B until Fri 22:00:00 CEST",
		},
		"in a zone half an hour off": {
			one(window("08:00", "18:00", kolkata, 7)), at(time.UTC, "2026-05-01 00:00:00"),
			"0 B until Fri 02:30:00 UTC; 7 B until Fri 12:30:00 UTC; 0 B until Sat 02:30:00 UTC",
		},
		"in a zone three quarters off, when its clock is put back": {
			one(window("00:00", "06:00", chatham, 7)), at(chatham, "2026-04-05 00:00:00"),
			"7 B until Sun 06:00:00 +1245; 0 B until Mon 00:00:00 +1245",
		},
		"Berlin's short night": {
			one(window("22:00", "06:00", berlin, 7)), at(berlin, "2026-03-28 22:00:00"),
			"7 B until Sun 06:00:00 CEST; 0 B until Sun 22:00:00 CEST",
		},
		"Berlin's long night": {
			one(window("22:00", "06:00", berlin, 7)), at(berlin, "2026-10-24 22:00:00"),
			"7 B until Sun 06:00:00 CET; 0 B until Sun 22:00:00 CET",
		},
		"a start in Berlin's skipped hour comes at its end": {
			one(window("02:30", "04:00", berlin, 7)), at(berlin, "2026-03-29 00:00:00"),
			"0 B until Sun 03:00:00 CEST; 7 B until Sun 04:00:00 CEST; 0 B until Mon 02:30:00 CEST",
		},
		"an end in Berlin's skipped hour comes at its beginning": {
			one(window("01:00", "02:30", berlin, 7)), at(berlin, "2026-03-29 01:00:00"),
			"7 B until Sun 03:00:00 CEST; 0 B until Mon 01:00:00 CEST",
		},
		"all of it in the skipped hour is skipped": {
			one(window("02:10", "02:50", berlin, 7, time.Sunday)), at(berlin, "2026-03-29 00:00:00"),
			"0 B until Sun 02:10:00 CEST; 7 B until Sun 02:50:00 CEST",
		},
		"Berlin's hour that comes twice holds twice": {
			one(window("02:00", "02:30", berlin, 7)), at(berlin, "2026-10-25 00:00:00"),
			"0 B until Sun 02:00:00 CEST; 7 B until Sun 02:30:00 CEST; 0 B until Sun 02:00:00 CET; 7 B until Sun 02:30:00 CET; 0 B until Mon 02:00:00 CET",
		},
		"New York's short night": {
			one(window("01:30", "03:30", york, 7)), at(york, "2026-03-08 00:00:00"),
			"0 B until Sun 01:30:00 EST; 7 B until Sun 03:30:00 EDT; 0 B until Mon 01:30:00 EDT",
		},
		"New York's long night": {
			one(window("00:30", "03:00", york, 7)), at(york, "2026-11-01 00:00:00"),
			"0 B until Sun 00:30:00 EDT; 7 B until Sun 03:00:00 EST; 0 B until Mon 00:30:00 EST",
		},
		"of all limits the smallest, other than none": {
			Schedule{Global: 50, OffHours: 90, Windows: []Window{
				window("08:00", "12:00", berlin, 70), window("09:00", "10:00", berlin, 20), window("12:00", "13:00", berlin, 0),
			}},
			at(berlin, "2026-05-01 08:00:00"),
			"50 B until Fri 09:00:00 CEST; 20 B until Fri 10:00:00 CEST; 50 B until Sat 09:00:00 CEST",
		},
		"off hours hold outside all windows, also outside one without a limit": {
			Schedule{OffHours: 9, Windows: []Window{window("08:00", "12:00", berlin, 0), window("11:00", "13:00", berlin, 5)}},
			at(berlin, "2026-05-01 07:00:00"),
			"9 B until Fri 08:00:00 CEST; 0 B until Fri 11:00:00 CEST; 5 B until Fri 13:00:00 CEST; 9 B until Sat 08:00:00 CEST",
		},
		"a whole day": {
			one(window("00:00", "24:00", berlin, 7, time.Sunday)), at(berlin, "2026-10-24 12:00:00"),
			"0 B until Sun 00:00:00 CEST; 7 B until Mon 00:00:00 CET; 0 B until Sun 00:00:00 CET",
		},
		"an empty window never holds": {one(window("08:00", "08:00", berlin, 7)), at(berlin, "2026-05-01 08:00:00"), "0 B"},
	} {
		t.Run(promise, func(t *testing.T) {
			n := strings.Count(c.want, ";") + 1
			if got := flips(c.schedule, c.from, n); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			for at, i := c.from, 0; i < n; i++ {
				limit, why, until := c.schedule.At(at)
				if until.IsZero() {
					break
				}
				if l, w, u := c.schedule.At(until.Add(-1)); l != limit || w != why || !u.Equal(until) {
					t.Errorf("a nanosecond before %v: %v, %s until %v; want %v, %s", until, l, w, u, limit, why)
				}
				at = until
			}
		})
	}
}

func TestWhyNamesWhatSetTheLimit(t *testing.T) {
	w := Window{Name: "work", Start: 8 * 60, End: 18 * 60, Zone: time.UTC, Limit: 5}
	noon, night := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), time.Date(2026, 5, 1, 23, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		schedule Schedule
		at       time.Time
		want     string
	}{
		{Schedule{}, noon, ""},
		{Schedule{Global: 3}, noon, "the global limit"},
		{Schedule{Windows: []Window{w}, OffHours: 7}, noon, `the window "work"`},
		{Schedule{Windows: []Window{w}, OffHours: 7}, night, "off hours"},
		{Schedule{Windows: []Window{w}, OffHours: 7, Global: 3}, noon, "the global limit"},
		{Schedule{Windows: []Window{w}}, night, ""},
	} {
		if _, why, _ := c.schedule.At(c.at); why != c.want {
			t.Errorf("%+v at %v: because of %q, want %q", c.schedule, c.at, why, c.want)
		}
	}
}

func TestTheNextChangeIsATimeOfTheWallClock(t *testing.T) {
	s := Schedule{Windows: []Window{{Start: 0, End: 12 * 60, Limit: 5}}}
	if _, _, until := s.At(time.Now()); until != until.Round(0) {
		t.Errorf("%v counts with the monotonic clock, which does not notice that the wall clock is set", until)
	}
}

// TestAnyScheduleIsThatOfAClockOnTheWall compares with somebody who looks at a clock every minute.
func TestAnyScheduleIsThatOfAClockOnTheWall(t *testing.T) {
	zones := []*time.Location{
		zone(t, "Europe/Berlin"), zone(t, "America/New_York"), zone(t, "Asia/Kolkata"), zone(t, "Australia/Lord_Howe"), time.UTC,
	}
	days := []time.Time{ // around which clocks are changed somewhere
		time.Date(2026, 3, 8, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC), time.Date(2026, 4, 4, 0, 0, 0, 0, time.UTC),
		time.Date(2026, 10, 3, 0, 0, 0, 0, time.UTC), time.Date(2026, 10, 25, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
	}
	rapid.Check(t, func(t *rapid.T) {
		var s Schedule
		for range rapid.IntRange(1, 3).Draw(t, "windows") {
			w := Window{
				Start: Clock(rapid.IntRange(0, 24*4-1).Draw(t, "start") * 15),
				End:   Clock(rapid.IntRange(0, 24*4).Draw(t, "end") * 15),
				Zone:  rapid.SampledFrom(zones).Draw(t, "zone"),
				Limit: model.Bytes(rapid.IntRange(0, 3).Draw(t, "limit")),
			}
			for d := range rapid.IntRange(0, 3).Draw(t, "days") {
				w.Days = append(w.Days, time.Weekday(2*d))
			}
			s.Windows = append(s.Windows, w)
		}
		s.Global = model.Bytes(rapid.IntRange(0, 3).Draw(t, "global"))
		s.OffHours = model.Bytes(rapid.IntRange(0, 3).Draw(t, "off hours"))

		now := rapid.SampledFrom(days).Draw(t, "day").Add(time.Duration(rapid.IntRange(-1440, 1440).Draw(t, "minute")) * time.Minute)
		limit, why, until := s.At(now)
		for m := range 3 * 1440 {
			at := now.Add(time.Duration(m) * time.Minute)
			l, w := s.at(at)
			if want := onTheWall(s, at); l != want {
				t.Fatalf("limit at %v is %v, want %v", at, l, want)
			}
			switch changed := l != limit || w != why; {
			case changed && !at.Equal(until):
				t.Fatalf("changes at %v, and until was %v", at, until)
			case changed:
				return
			case at.Equal(until):
				t.Fatalf("until is %v, and nothing changes then", until)
			}
		}
	})
}

// onTheWall is the limit by reading clocks as people do.
func onTheWall(s Schedule, at time.Time) (limit model.Bytes) {
	var limits []model.Bytes
	inside := false
	for _, w := range s.Windows {
		shows := at.In(w.Zone).Format("15:04")
		today := at.In(w.Zone).Weekday().String()
		yesterday := at.In(w.Zone).AddDate(0, 0, -1).Weekday().String()
		on := func(day string) bool {
			for _, d := range w.Days {
				if d.String() == day {
					return true
				}
			}
			return len(w.Days) == 0
		}
		start, end := w.Start.String(), w.End.String()
		holds := start < end && start <= shows && shows < end && on(today) ||
			start > end && (start <= shows && on(today) || shows < end && on(yesterday))
		if holds {
			inside, limits = true, append(limits, w.Limit)
		}
	}
	if !inside {
		limits = append(limits, s.OffHours)
	}
	for _, l := range append(limits, s.Global) {
		if l > 0 && (limit == 0 || l < limit) {
			limit = l
		}
	}
	return limit
}

func TestAScheduleThatMakesNoSenseIsRefusedWithAllItsMistakes(t *testing.T) {
	s := Schedule{Global: -1, OffHours: -2, Windows: []Window{
		{Name: "empty", Start: 480, End: 480},
		{Name: "late", Start: 1440, End: 60},
		{Name: "negative", Start: 60, End: 120, Limit: -3},
		{Name: "eighth", Start: 60, End: 120, Days: []time.Weekday{7}},
		{Name: "good", Start: 1320, End: 360, Days: []time.Weekday{time.Saturday}},
		{Name: "good as well", Start: 0, End: day, Days: []time.Weekday{time.Saturday}},
	}}
	err := s.Check()
	if err == nil {
		t.Fatal("Check found nothing")
	}
	if got := strings.Split(err.Error(), "\n"); len(got) != 6 || strings.Contains(err.Error(), "good") {
		t.Errorf("Check found %d mistakes, want 6:\n%v", len(got), err)
	}
	for _, part := range []string{"all downloads together is negative", "off hours is negative", `"empty" ends when it starts`, `"late" does not start`, `"negative" is negative`, `"eighth" starts on day 7`} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("nothing says %s:\n%v", part, err)
		}
	}
	if err := (Schedule{Windows: s.Windows[5:]}).Check(); err != nil {
		t.Errorf("a good schedule: %v", err)
	}
}
