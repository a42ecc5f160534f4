package bench

import (
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// A Better says which way a metric is better.
type Better string

// The two directions.
const (
	Higher Better = "higher"
	Lower  Better = "lower"
)

// A Metric is what several repeats of one measurement say.
type Metric struct {
	Median  float64   `json:"median"`
	MAD     float64   `json:"mad"`  // median of the distances to the median: how much the repeats differ
	Low     *float64  `json:"low"`  // the median of ever more repeats is not below it, with a confidence of 95 %; null with fewer than six
	High    *float64  `json:"high"` // and not above it
	Repeats int       `json:"repeats"`
	Samples []float64 `json:"samples"` // of the repeats, in their order
	Unit    string    `json:"unit"`    // s, ms, MB/s (a million bytes per second), per_second
	Better  Better    `json:"better"`
}

// MetricOf is the metric of these repeats, of which there has to be one. Its interval is that of the order of the samples, which
// holds for any distribution.
func MetricOf(repeats []float64, unit string, better Better) Metric {
	m := Metric{Median: Median(repeats), MAD: MAD(repeats), Repeats: len(repeats), Samples: slices.Clone(repeats), Unit: unit, Better: better}
	said := benchmath.AssumeNothing.Summary(benchmath.NewSample(slices.Clone(repeats), &benchmath.DefaultThresholds), confidence)
	if !math.IsInf(said.Lo, 0) && !math.IsInf(said.Hi, 0) && said.Confidence >= confidence {
		m.Low, m.High = &said.Lo, &said.Hi
	}
	return m
}

const (
	// confidence is how sure the interval of a median is.
	confidence = 0.95
	// tight is the spread at which nothing is measured again, and loose the one above which a metric is called noisy.
	tight, loose = 0.05, 0.1
)

// Spread is how far the median may be off, as a part of it; infinite where that is not known.
func (m Metric) Spread() float64 {
	if m.Low == nil || m.High == nil || m.Median <= 0 {
		return math.Inf(1)
	}
	return max(*m.High-m.Median, m.Median-*m.Low) / m.Median
}

// tightEnough reports whether each of some series has been repeated often enough.
func tightEnough(series ...[]float64) bool {
	return !slices.ContainsFunc(series, func(repeats []float64) bool {
		return len(repeats) == 0 || MetricOf(repeats, "", Lower).Spread() > tight
	})
}

// Median is the middle value, or the mean of the two in the middle; NaN of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return sorted[half-1]/2 + sorted[half]/2
}

// MAD is the median of the absolute distances of values to their median.
func MAD(values []float64) float64 {
	middle := Median(values)
	away := make([]float64, len(values))
	for i, v := range values {
		away[i] = math.Abs(v - middle)
	}
	return Median(away)
}

// Quantile is the value below which that share of values lies, interpolated, as statistics.quantiles of Python has it; it
// is never outside of them. NaN of none.
func Quantile(values []float64, share float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := share*float64(len(sorted)+1) - 1
	below := min(max(int(math.Floor(at)), 0), len(sorted)-1)
	above := min(below+1, len(sorted)-1)
	part := min(max(at-float64(below), 0), 1)
	return sorted[below] + part*(sorted[above]-sorted[below])
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}
