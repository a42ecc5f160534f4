package insight_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/insight"
	"ema/internal/model"
)

func TestTheBusiestHoursHaveHalfOfTheUses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var hours [24]int64
		var all int64
		for h := range hours {
			hours[h] = rapid.Int64Range(0, 50).Draw(t, "uses")
			all += hours[h]
		}
		peaks := insight.Peaks(hours)
		if (len(peaks) == 0) != (all == 0) || len(peaks) > 6 {
			t.Fatalf("%v of %v", peaks, hours)
		}
		var some int64
		for i, h := range peaks {
			if hours[h] == 0 || i > 0 && hours[h] > hours[peaks[i-1]] || i > 0 && 2*some >= all {
				t.Fatalf("%v of %v", peaks, hours)
			}
			some += hours[h]
		}
		if len(peaks) < 6 && 2*some < all {
			t.Fatalf("%v have %d of %d", peaks, some, all)
		}
		for h, n := range hours {
			if len(peaks) > 0 && !slices.Contains(peaks, h) && n > hours[peaks[len(peaks)-1]] {
				t.Fatalf("%d is busier than %v", h, peaks)
			}
		}
	})
}

func TestAModelIsComparedWithItself(t *testing.T) {
	span := func(n int64, each time.Duration) insight.Span {
		return insight.Span{Timed: n, Total: time.Duration(n) * each}
	}
	for name, c := range map[string]struct {
		lately, before insight.Span
		score          float64 // -1: nobody knows
		trend          insight.Trend
	}{
		"half as fast":   {span(10, 2*time.Second), span(100, time.Second), 0.5, insight.Degrading},
		"twice as fast":  {span(10, time.Second), span(100, 2*time.Second), 1, insight.Improving},
		"as before":      {span(10, 1050*time.Millisecond), span(100, time.Second), 1 / 1.05, insight.Stable},
		"too few lately": {span(4, 2*time.Second), span(100, time.Second), -1, insight.Uncertain},
		"too few before": {span(10, 2*time.Second), span(4, time.Second), -1, insight.Uncertain},
		"no time at all": {span(10, 0), span(10, 0), -1, insight.Uncertain},
	} {
		score, trend := insight.Performance(c.lately, c.before)
		if trend != c.trend || (score == nil) != (c.score < 0) || score != nil && math.Abs(*score-c.score) > 1e-9 {
			t.Errorf("%s: %v, %s", name, score, trend)
		}
	}
	if m := span(4, time.Second).Mean(); m == nil || *m != time.Second || (insight.Span{}).Mean() != nil {
		t.Errorf("mean = %v", m)
	}
}

func TestAModelIsReadAsFastAsBefore(t *testing.T) {
	reads := func(seconds ...float64) (all []insight.Read) {
		for _, s := range seconds {
			all = append(all, insight.Read{Bytes: model.GiB, Took: time.Duration(s * float64(time.Second))})
		}
		return all
	}
	small := reads(1, 1, 1, 1, 1, 9, 9, 9)
	for i := range small {
		small[i].Bytes = model.MiB
	}
	for name, c := range map[string]struct {
		reads []insight.Read
		score float64 // -1: nobody knows
	}{
		"as before":            {reads(2, 2, 2, 2, 2, 2, 2, 2), 1},
		"faster":               {reads(2, 2, 2, 2, 2, 1, 1, 1), 1},
		"a third of the speed": {reads(2, 2, 2, 2, 2, 6, 6, 6), 1. / 3},
		"busy twice":           {reads(2, 2, 2, 2, 2, 20, 20, 2), 1},
		"in memory before":     {reads(1, 2, 1, 1, 2, 2, 2, 2), 1},
		"slow once before":     {reads(2, 2, 2, 2, 2, 2, 2, 2, 50, 6, 6, 6), 1. / 3},
		"too few":              {reads(2, 2, 2, 2, 6, 6, 6), -1},
		"too small":            {small, -1},
	} {
		if score := insight.ReadSpeed(c.reads); (score == nil) != (c.score < 0) || score != nil && math.Abs(*score-c.score) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, score, c.score)
		}
	}
}

func TestWhatIsUsedAtThisHourIsSuggested(t *testing.T) {
	habit := func(name string, hour int, uses int64, near bool) insight.Habit {
		h := insight.Habit{Model: model.ID{Name: name}, Days: 10, Near: near}
		h.Hours[hour] = uses
		return h
	}
	got := insight.Preload([]insight.Habit{
		habit("every-morning", 9, 20, false), habit("often", 8, 40, false), habit("in-memory", 9, 90, true), habit("seldom", 9, 1, false),
		habit("evenings", 20, 90, false), habit("after-midnight", 0, 90, false),
	}, 8, 3)
	if len(got) != 2 || got[0].Model.Name != "often" || got[1].Model.Name != "every-morning" || got[1].Hour != 9 || got[1].Expected != 2 || math.Abs(got[1].Confidence-0.8647) > 1e-4 {
		t.Errorf("%+v", got)
	}
	if late := insight.Preload([]insight.Habit{habit("after-midnight", 0, 90, false)}, 23, 3); len(late) != 1 || late[0].Hour != 0 {
		t.Errorf("over midnight: %+v", late)
	}
}
