package bench

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
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
// of both. What only one of them has says nothing. They come in the order of their names. A metric that has not regressed, but whose
// noise is such that one by threshold would not show, is not judged.
func Compare(baseline, now map[string]Metric, threshold float64) (found []Regression, notJudged map[string]string) {
	found, notJudged = []Regression{}, map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		before, known := baseline[name]
		after := now[name]
		if !known || !(before.Median > 0) {
			continue
		}
		more := after.Median - before.Median
		if after.Better == Higher {
			more = -more
		}
		noise := band * max(before.MAD, after.MAD)
		switch {
		case more > threshold*before.Median && more > noise:
			found = append(found, Regression{
				Metric: name, Unit: after.Unit, Better: after.Better, Baseline: before.Median, Now: after.Median,
				Worse: math.Abs(more) / before.Median, Noise: noise,
			})
		case noise > threshold*before.Median:
			notJudged[name] = fmt.Sprintf("too noisy: only what is %.0f %% worse would show", 100*noise/before.Median)
		}
	}
	return found, notJudged
}

// CompareWith compares an assessment with an earlier one, of which from is the name.
func CompareWith(from string, before, now Assessment) *Comparison {
	c := &Comparison{Baseline: from, Timestamp: before.Timestamp, Threshold: Threshold, Warnings: []string{}, Before: map[string]float64{}}
	c.Regressions, c.NotJudged = Compare(before.Metrics, now.Metrics, Threshold)
	for name := range now.Metrics {
		if was, known := before.Metrics[name]; known {
			c.Compared++
			c.Before[name] = was.Median
		}
	}
	if differ := now.Machine.Unlike(before.Machine); len(differ) > 0 {
		c.Warnings = append(c.Warnings, "the baseline was measured on another machine, or before it was changed: "+strings.Join(differ, "; "))
	}
	return c
}
