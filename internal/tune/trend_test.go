package tune

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func TestATrendIsNoNoise(t *testing.T) {
	for promise, c := range map[string]struct {
		samples []float64
		want    Course
		change  float64
	}{
		"nothing":                 {nil, Unclear, 0},
		"too little":              {[]float64{1, 2, 3, 4}, Unclear, 1.2},
		"a fall":                  {[]float64{100, 98, 97, 93, 91, 90, 86, 85, 83, 80}, Falling, -0.22},
		"a rise with an outlier":  {[]float64{10, 11, 12, 500, 14, 15, 16, 17, 18, 19}, Rising, 0.58},
		"one bad sample":          {[]float64{50, 50, 51, 49, 50, 50, 3, 50, 49, 51}, Steady, 0},
		"always the same":         {[]float64{7, 7, 7, 7, 7, 7}, Steady, 0},
		"to and fro":              {[]float64{1, 9, 1, 9, 1, 9, 1, 9, 1, 9}, Steady, 0},
		"nothing, and some of it": {[]float64{0, 0, 0, 0, 0, 1}, Steady, math.NaN()},
	} {
		got := TrendOf(c.samples)
		if got.Course != c.want || math.Abs(got.Change-c.change) > 0.03 || math.IsNaN(got.Change) != math.IsNaN(c.change) {
			t.Errorf("%s: %+v, want %s by %g", promise, got, c.want, c.change)
		}
	}
}

// Without a trend one is seen once in twenty times, and a fall of a third nearly always.
func TestTrendsAreSeenAsOftenAsTheyAreThere(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var seen, missed int
	const rounds = 2000
	for range rounds {
		var noise, fall []float64
		for i := range 10 {
			noise = append(noise, 100+10*rnd.NormFloat64())
			fall = append(fall, 100-3.7*float64(i)+5*rnd.NormFloat64())
		}
		if TrendOf(noise).Course != Steady {
			seen++
		}
		if TrendOf(fall).Course != Falling {
			missed++
		}
	}
	if seen > rounds*8/100 || missed > rounds*2/100 {
		t.Errorf("of %d, %d were seen that were not there, and %d missed", rounds, seen, missed)
	}
}

func TestATrendTurnsWithItsSamples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		samples := rapid.SliceOfN(rapid.Float64Range(1, 1e6), 0, 30).Draw(t, "samples")
		negated := make([]float64, len(samples))
		for i, s := range samples {
			negated[len(samples)-1-i] = s
		}
		there, back := TrendOf(samples), TrendOf(negated)
		turned := map[Course]Course{Rising: Falling, Falling: Rising, Steady: Steady, Unclear: Unclear}
		if back.Course != turned[there.Course] || there.Median != back.Median || math.Abs(there.Change+back.Change) > 1e-9*math.Abs(there.Change) {
			t.Fatalf("%+v, and backwards %+v", there, back)
		}
	})
}
