package tune

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const (
	rate  = "downloads.average_speed_mbps" // more of it is better
	delay = "api.average_response_time_ms" // less is
	load  = "system.network_usage_mbps"    // neither
)

func TestAFigureHasRegressed(t *testing.T) {
	before := Reference{Median: 100, MAD: 2, Samples: 100}
	steady := func(v float64) []float64 { return []float64{v, v + 1, v - 1, v, v + 2, v - 2, v, v, v + 1, v - 1} }
	for promise, c := range map[string]struct {
		figure string
		last   []float64
		before Reference
		want   bool
		says   string
	}{
		"a rate that fell by a quarter":       {rate, steady(75), before, true, ""},
		"a rate that rose is none":            {rate, steady(300), before, false, ""},
		"a rate that fell by a tenth is none": {rate, steady(90), before, false, ""},
		"a time that grew by a quarter":       {delay, steady(125), before, true, ""},
		"a time that shrank is none":          {delay, steady(20), before, false, ""},
		"noise before hides it":               {delay, steady(125), Reference{Median: 100, MAD: 10, Samples: 100}, false, ""},
		"noise now hides it":                  {delay, []float64{60, 200, 70, 125, 300, 50, 125}, before, false, ""},
		"one outlier is none":                 {delay, []float64{100, 101, 900, 100, 99, 100}, before, false, ""},
		"what is no better either way":        {load, steady(500), before, false, "neither more nor less of it is better"},
		"too few samples now":                 {rate, []float64{1, 1, 1, 1}, before, false, "there are too few samples lately"},
		"too few samples before":              {rate, steady(10), Reference{Median: 100, Samples: 23}, false, "too little is known of how it was before"},
		"nothing before":                      {delay, steady(10), Reference{Samples: 100}, false, "it was 0 before"},
	} {
		t.Run(promise, func(t *testing.T) {
			if d, why := Degraded(c.figure, c.last, c.before, 0.2); d.Regressed != c.want || why != c.says {
				t.Errorf("%+v, %q", d, why)
			}
		})
	}
}

// Whatever comes, incidents of a figure are told one after the other, each once and each after two checks that agree.
func TestAnIncidentIsToldOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var i Incidents
		open, bad, good := false, 0, 0
		for n, worse := range rapid.SliceOf(rapid.SampledFrom([]float64{-1, 0, 0.05, 0.15, 0.19, 0.21, 0.3})).Draw(t, "worse") {
			d := Degradation{Worse: worse, Regressed: worse > 0.2}
			if bad++; worse <= 0.2 {
				bad = 0
			}
			if good++; worse >= 0.1 {
				good = 0
			}
			opened, closed := i.Check(time.Unix(int64(n), 0), rate, d, 0.2)
			if (opened != nil) != (!open && bad >= 2) || (closed != nil) != (open && good >= 2) {
				t.Fatalf("check %d: opened %v, closed %v; it is open: %v, %d bad and %d good in a row", n, opened, closed, open, bad, good)
			}
			open = open && closed == nil || opened != nil
			if len(i.Names()) != map[bool]int{true: 1}[open] {
				t.Fatalf("check %d: open are %v", n, i.Names())
			}
		}
	})
}

// Weeks of noise tell nothing, and a step by 30 % is told within the window that shows it.
func TestNoiseIsNoIncidentAndAStepIs(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	sample := func(level float64) float64 { return level * (1 + 0.05*rng.NormFloat64()) }
	var hours []float64
	for range 14 * 24 {
		hours = append(hours, sample(100))
	}
	before := ReferenceOf(hours)
	var i Incidents
	var window []float64
	alarms := 0
	step := func(level float64) bool {
		if window = append(window, sample(level)); len(window) > 10 {
			window = window[1:]
		}
		d, why := Degraded(delay, window, before, 0.2)
		if why != "" {
			return false
		}
		opened, _ := i.Check(time.Time{}, delay, d, 0.2)
		return opened != nil
	}
	for range 28 * 24 * 12 { // four weeks of five minutes
		if step(100) {
			alarms++
		}
	}
	if alarms > 0 {
		t.Errorf("%d alarms in four weeks of noise", alarms)
	}
	for n := 1; !step(130); n++ {
		if n > 12 {
			t.Fatal("a step by 30 % is not told within an hour")
		}
	}
}
