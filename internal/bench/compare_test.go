package bench_test

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ema/internal/bench"
)

func metrics(t *rapid.T) map[string]bench.Metric {
	all := map[string]bench.Metric{}
	for range rapid.IntRange(0, 8).Draw(t, "metrics") {
		better := rapid.SampledFrom([]bench.Better{bench.Higher, bench.Lower}).Draw(t, "better")
		repeats := rapid.SliceOfN(rapid.Float64Range(0.001, 1e6), 1, 9).Draw(t, "repeats")
		all[rapid.StringMatching("[a-z]{1,4}").Draw(t, "name")] = bench.MetricOf(repeats, "s", better)
	}
	return all
}

func TestNothingRegressesAgainstItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := metrics(t)
		if found := bench.Compare(all, all, bench.Threshold); len(found) > 0 {
			t.Fatalf("%+v", found)
		}
	})
}

func TestWhatIsWorseOneWayIsBetterTheOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, now := metrics(t), metrics(t)
		for name, m := range before {
			if n, both := now[name]; both {
				n.Better = m.Better
				now[name] = n
			}
		}
		there, back := map[string]bool{}, bench.Compare(now, before, bench.Threshold)
		for _, r := range bench.Compare(before, now, bench.Threshold) {
			there[r.Metric] = true
		}
		for _, r := range back {
			if there[r.Metric] {
				t.Fatalf("%s is worse both ways", r.Metric)
			}
		}
	})
}

func TestARegressionIsBeyondTheThresholdAndTheNoise(t *testing.T) {
	for promise, c := range map[string]struct {
		before, now, madBefore, madNow float64
		better                         bench.Better
		want                           bool
	}{
		"a longer time is worse":                       {100, 130, 1, 1, bench.Lower, true},
		"a shorter time is not":                        {100, 30, 1, 1, bench.Lower, false},
		"a lower rate is worse":                        {100, 70, 1, 1, bench.Higher, true},
		"a higher rate is not":                         {100, 700, 1, 1, bench.Higher, false},
		"20 % is no more than 20 %":                    {100, 120, 0, 0, bench.Lower, false},
		"a bit more than 20 % is":                      {100, 120.1, 0, 0, bench.Lower, true},
		"a rate that fell by 19 % is none":             {100, 81, 0, 0, bench.Higher, false},
		"the noise of the baseline hides it":           {100, 130, 10, 0, bench.Lower, false},
		"the noise of now hides it":                    {100, 130, 0, 10, bench.Lower, false},
		"beyond three MAD of both it is seen":          {100, 130, 9.9, 9.9, bench.Lower, true},
		"nothing can be said beside a baseline of 0":   {0, 130, 0, 0, bench.Lower, false},
		"a rate that has fallen to nothing is a worse": {100, 0, 0, 0, bench.Higher, true},
	} {
		t.Run(promise, func(t *testing.T) {
			m := func(v, mad float64) map[string]bench.Metric {
				return map[string]bench.Metric{"x": {Median: v, MAD: mad, Repeats: 5, Unit: "s", Better: c.better}}
			}
			found := bench.Compare(m(c.before, c.madBefore), m(c.now, c.madNow), bench.Threshold)
			if (len(found) == 1) != c.want {
				t.Fatalf("%+v", found)
			}
		})
	}
	m := map[string]bench.Metric{"x": {Median: 1, Better: bench.Lower}}
	if found := bench.Compare(m, map[string]bench.Metric{"y": {Median: 9, Better: bench.Lower}}, 0.2); len(found) > 0 {
		t.Errorf("a metric without a baseline: %+v", found)
	}
}

func TestMediansDistancesAndQuantiles(t *testing.T) {
	var hundred []float64
	for i := range 100 {
		hundred = append(hundred, float64(100-i))
	}
	for what, got := range map[string][2]float64{
		"median of an odd number":       {bench.Median([]float64{9, 1, 5}), 5},
		"median of an even number":      {bench.Median([]float64{9, 1, 5, 7}), 6},
		"mad":                           {bench.MAD([]float64{1, 1, 2, 2, 4, 6, 9}), 1},
		"mad of one":                    {bench.MAD([]float64{3}), 0},
		"95th percentile as Python has": {bench.Quantile(hundred, 0.95), 95.95},
		"the largest of few":            {bench.Quantile([]float64{1, 2}, 0.99), 2},
		"the smallest of few":           {bench.Quantile([]float64{1, 2}, 0.01), 1},
	} {
		if math.Abs(got[0]-got[1]) > 1e-9 {
			t.Errorf("%s is %v, want %v", what, got[0], got[1])
		}
	}
	if !math.IsNaN(bench.Median(nil)) || !math.IsNaN(bench.Quantile(nil, 0.5)) {
		t.Error("nothing has a median")
	}
	if strings.Join(bench.Suites(), ",") != "downloads,api,storage,system" {
		t.Error(bench.Suites())
	}
}
