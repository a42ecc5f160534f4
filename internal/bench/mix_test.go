package bench

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func mustLimits(t *testing.T, s string) []Limit {
	t.Helper()
	all, err := ParseLimits(s)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAMixIsReadAsItIsWritten(t *testing.T) {
	for text, want := range map[string]Mix{
		"status=3,start=1,analytics=1": UsualMix(),
		" start=2 , status=1":          {Status: 1, Start: 2},
		"analytics=1000":               {Analytics: 1000},
	} {
		if got, err := ParseMix(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, why := range map[string]string{
		"":                  "want name=weight",
		"status":            "want name=weight",
		"delete=1":          `endpoint "delete" is none of status, start, analytics`,
		"status=1,status=2": "named twice",
		"status=x":          "whole number",
		"status=-1":         "want 0 to 1000",
		"status=1001":       "want 0 to 1000",
		"status=0":          "calls nothing",
	} {
		if _, err := ParseMix(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestOnlyLeavesTheOthersOut(t *testing.T) {
	for _, c := range []struct {
		of   Mix
		only string
		want Mix
	}{
		{Mix{}, "status", Mix{Status: 3}},
		{Mix{}, "status start", Mix{Status: 3, Start: 1}},
		{Mix{Start: 7}, "start analytics", Mix{Start: 7, Analytics: 1}},
	} {
		if got, err := c.of.Only(strings.Fields(c.only)...); err != nil || got != c.want {
			t.Errorf("%+v only %s: %+v, %v", c.of, c.only, got, err)
		}
	}
	if _, err := UsualMix().Only(); err == nil {
		t.Error("only nothing is accepted")
	}
	if _, err := UsualMix().Only("x"); err == nil {
		t.Error("only x is accepted")
	}
}

func TestEveryRoundHasEachCallAsOftenAsItsWeight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Mix{rapid.IntRange(0, 9).Draw(t, "status"), rapid.IntRange(0, 9).Draw(t, "start"), rapid.IntRange(1, 9).Draw(t, "analytics")}
		d := newDeck(m, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)))
		for range 3 {
			var n [calls]int
			for range m.Status + m.Start + m.Analytics {
				n[d.deal()]++
			}
			if n != [calls]int{m.Status, m.Start, m.Analytics} {
				t.Fatalf("a round of %+v has %v", m, n)
			}
		}
	})
}

func TestAScheduleHandsOutEveryTurnOnceAndMissesTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Unix(1e9, 0)
		s := LoadSettings{
			Rate:     rapid.Float64Range(0.1, 5000).Draw(t, "rate"),
			Warmup:   time.Duration(rapid.Int64Range(0, 2e9).Draw(t, "warmup")),
			Duration: time.Duration(rapid.Int64Range(1e6, 3e9).Draw(t, "duration")),
			Requests: rapid.Int64Range(0, 3000).Draw(t, "requests"),
		}
		sch := newSchedule(s, UsualMix(), begin)
		stop := begin.Add(time.Duration(rapid.Int64Range(0, 5e9).Draw(t, "stop")))
		var due, measured int64 // counted one by one
		for sch.dueAt(due).Before(sch.end) {
			if !sch.dueAt(due).Before(sch.warm) {
				measured++
			}
			due++
		}
		if s.Requests > 0 {
			measured = min(measured, s.Requests)
		}
		for now := begin; now.Before(stop); {
			turn, ok := sch.next(now)
			if !ok {
				break
			}
			if turn.due.After(now) {
				now = turn.due
			}
		}
		// Whoever takes every turn in time misses nothing.
		if missed := sch.missed(stop); stop.After(sch.end) && sch.counted+missed != measured || missed > 0 {
			t.Fatalf("handed out %d of %d, missed %d", sch.counted, measured, missed)
		}
		lazy := newSchedule(s, UsualMix(), begin)
		if missed := lazy.missed(lazy.end.Add(time.Second)); missed != measured {
			t.Fatalf("missed %d of %d", missed, measured)
		}
	})
}

func TestLimitsAreReadAsTheyAreWritten(t *testing.T) {
	const text = "p95>5ms,errors>1%,errors>=10,start.p99.9>=1.5s,rps<100,missed>0,avg<=250µs,status.median>1ms,p99.9>2s"
	var again []string
	for _, l := range mustLimits(t, text) {
		again = append(again, l.String())
	}
	if got := strings.Join(again, ","); got != text {
		t.Errorf("read as %s", got)
	}
	for text, why := range map[string]string{
		"":               "want a comparison",
		"p95":            "want a comparison",
		"p95>5":          "is no time",
		"p95>-5ms":       "is no time",
		"p97>5ms":        `"p97" is none of`,
		"errors>x":       "is no number",
		"errors>NaN":     "is no number",
		"rps<5%":         "no percentage",
		"stop.p95>5ms":   `endpoint "stop" is none of`,
		"start.missed>0": "belongs to no endpoint",
		"p95>5ms,":       "want a comparison",
	} {
		if _, err := ParseLimits(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestALimitThatIsNotKeptSaysWhatItWas(t *testing.T) {
	r := LoadReport{
		Missed: 3,
		Endpoints: []EndpointLoad{
			{Name: "status", Figures: Figures{Requests: 90, Latency: Latency{P95: 1}}},
			{Name: "start", Figures: Figures{Requests: 10, Errors: 5, ErrorRate: 0.5, Latency: Latency{P95: 20}}},
		},
		Total: Figures{Requests: 100, Errors: 5, ErrorRate: 0.05, PerSecond: 50, Latency: Latency{Avg: 2, Median: 2, P95: 7.25, P999: 9}},
	}
	for limit, want := range map[string]string{
		"p95>5ms":          "p95>5ms: 7.25ms",
		"p95>7.25ms":       "",
		"p95>=7.25ms":      "p95>=7.25ms: 7.25ms",
		"p50>1ms":          "p50>1ms: 2ms",
		"p99.9<=9ms":       "p99.9<=9ms: 9ms",
		"status.p95>5ms":   "",
		"start.p95>5ms":    "start.p95>5ms: 20ms",
		"errors>1%":        "errors>1%: 5%",
		"errors>5%":        "",
		"errors>4":         "errors>4: 5",
		"status.errors>0":  "",
		"rps<100":          "rps<100: 50",
		"requests<100":     "",
		"missed>2":         "missed>2: 3",
		"analytics.p95>1s": "analytics.p95>1s: not measured",
	} {
		if got := strings.Join(r.violations(mustLimits(t, limit)), "; "); got != want {
			t.Errorf("%s: %q, want %q", limit, got, want)
		}
	}
	if got := (LoadReport{}).violations(mustLimits(t, "p95>1h,errors>1%")); len(got) != 2 {
		t.Errorf("a test without requests keeps its limits: %v", got)
	}
	r.Total.Corrected = &Latency{P95: 100}
	if got := r.violations(mustLimits(t, "p95>50ms")); len(got) != 1 {
		t.Errorf("a corrected latency is not what counts: %v", got)
	}
}
