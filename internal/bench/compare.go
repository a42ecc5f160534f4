package bench

import (
	"maps"
	"math"
	"slices"
)

// Threshold is by which part a metric has to be worse to be a regression.
const Threshold = 0.2

// band is how many MAD of either side a difference has to exceed to be more than noise.
const band = 3

// A Regression is a metric that got worse.
type Regression struct {
	Metric   string  `json:"metric"`
	Unit     string  `json:"unit"`
	Better   Better  `json:"better"`
	Baseline float64 `json:"baseline"`
	Now      float64 `json:"now"`
	Worse    float64 `json:"worse"` // by which part of the baseline: 0.5 is half as much again, or half as fast
	Noise    float64 `json:"noise"` // what the difference had to exceed, in the metric's unit
}

// Compare finds the metrics that are worse now than in the baseline: by more than threshold, and by more than three MAD
// of both. What only one of them has says nothing. They come in the order of their names.
func Compare(baseline, now map[string]Metric, threshold float64) []Regression {
	found := []Regression{}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		before, known := baseline[name]
		after := now[name]
		if !known {
			continue
		}
		more := after.Median - before.Median
		if after.Better == Higher {
			more = -more
		}
		noise := band * max(before.MAD, after.MAD)
		if before.Median > 0 && more > threshold*before.Median && more > noise {
			found = append(found, Regression{
				Metric: name, Unit: after.Unit, Better: after.Better, Baseline: before.Median, Now: after.Median,
				Worse: math.Abs(more) / before.Median, Noise: noise,
			})
		}
	}
	return found
}
