package bench_test

import (
	"math"
	"math/rand/v2"
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
		if found, _ := bench.Compare(all, all, bench.Threshold); len(found) > 0 {
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
		there := map[string]bool{}
		back, _ := bench.Compare(now, before, bench.Threshold)
		forth, _ := bench.Compare(before, now, bench.Threshold)
		for _, r := range forth {
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
			found, hidden := bench.Compare(m(c.before, c.madBefore), m(c.now, c.madNow), bench.Threshold)
			if (len(found) == 1) != c.want {
				t.Fatalf("%+v", found)
			}
			if says := hidden["x"]; (says != "") != strings.HasPrefix(promise, "the noise of") {
				t.Errorf("it is not judged because %q", says)
			}
		})
	}
	m := map[string]bench.Metric{"x": {Median: 1, Better: bench.Lower}}
	if found, _ := bench.Compare(m, map[string]bench.Metric{"y": {Median: 9, Better: bench.Lower}}, 0.2); len(found) > 0 {
		t.Errorf("a metric without a baseline: %+v", found)
	}
}

// A quarter more, measured twice on a machine whose repeats differ by some percent, is found nearly always, and nothing is found
// where there is nothing.
func TestAQuarterIsFoundInNoise(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	measured := func(median float64) map[string]bench.Metric {
		repeats := make([]float64, 8)
		for i := range repeats {
			repeats[i] = median * (1 + 0.03*rng.NormFloat64())
		}
		return map[string]bench.Metric{"x": bench.MetricOf(repeats, "s", bench.Lower)}
	}
	const runs = 1000
	hit, alarms := 0, 0
	for range runs {
		before := measured(1)
		if found, _ := bench.Compare(before, measured(1.33), bench.Threshold); len(found) == 1 { // a rate that is a quarter less
			hit++
		}
		if found, _ := bench.Compare(before, measured(1), bench.Threshold); len(found) > 0 {
			alarms++
		}
	}
	if hit < runs*95/100 || alarms > runs/100 {
		t.Errorf("found in %d of %d runs, and %d false alarms", hit, runs, alarms)
	}
}

func TestTheIntervalOfAMedianHoldsIt(t *testing.T) {
	if m := bench.MetricOf([]float64{1, 2, 3, 4, 5}, "s", bench.Lower); m.Low != nil || !math.IsInf(m.Spread(), 1) {
		t.Errorf("five repeats have an interval: %v to %v", *m.Low, *m.High)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	held := 0
	const runs = 2000
	for range runs {
		repeats := make([]float64, 9)
		for i := range repeats {
			repeats[i] = 10 + rng.ExpFloat64() // whatever the distribution is
		}
		m := bench.MetricOf(repeats, "s", bench.Lower)
		if truth := 10 + math.Ln2; *m.Low <= truth && truth <= *m.High {
			held++
		}
	}
	if held < runs*94/100 {
		t.Errorf("it holds the median %d times of %d", held, runs)
	}
}

func TestAnotherMachineIsNamed(t *testing.T) {
	here := bench.Machine{CPUs: 8, CPUModel: "fast", Kernel: "Linux 6.1", FileSystem: "ext4"}
	there := bench.Machine{CPUs: 2, CPUModel: "slow", Kernel: "Linux 6.1", FileSystem: "ext4"}
	before, now := bench.Assessment{Machine: there}, bench.Assessment{Machine: here}
	if w := bench.CompareWith("old.json", before, now).Warnings; len(w) != 1 || !strings.Contains(w[0], "processor: slow, and here fast; processors: 2, and here 8") {
		t.Errorf("%q", w)
	}
	if w := bench.CompareWith("old.json", now, now).Warnings; len(w) != 0 {
		t.Errorf("%q", w)
	}
	if w := bench.CompareWith("old.json", bench.Assessment{}, now).Warnings; len(w) != 0 {
		t.Errorf("a report that tells of no machine: %q", w)
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
