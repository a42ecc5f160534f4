package client

import "time"

// A PerformanceBaseline is how the figures were over some hours, to compare with later.
type PerformanceBaseline struct {
	At      time.Time                 `json:"timestamp"` // when it was taken
	Hours   float64                   `json:"hours"`     // that it is over
	Figures map[string]BaselineFigure `json:"figures"`   // those of which anything was known, by group and name; never null
}

// A BaselineFigure is how one figure was.
type BaselineFigure struct {
	Median  float64 `json:"median"`
	MAD     float64 `json:"mad"` // median of the distances to the median
	Samples int     `json:"samples"`
}

// PerformanceRegressions are the figures that are worse than they were.
type PerformanceRegressions struct {
	Threshold   float64                 `json:"threshold"`   // by which part a figure has to be worse
	Checked     *time.Time              `json:"checked"`     // when it was looked last; null before the first time
	BaselineAt  *time.Time              `json:"baseline_at"` // of the baseline; null when there is none
	Regressions []PerformanceRegression `json:"regressions"` // at the last check, the worst first; never null
	Incidents   []PerformanceIncident   `json:"incidents"`   // those that last, and then those that are over, the newest first, at most 50; never null
	NotJudged   map[string]string       `json:"not_judged"`  // why a figure says nothing; never null
}

// A PerformanceRegression is a figure that is worse than it was.
type PerformanceRegression struct {
	Metric  string  `json:"metric"`
	Against string  `json:"against"` // baseline, or history: the two weeks before
	Before  float64 `json:"before"`
	Now     float64 `json:"now"`
	Worse   float64 `json:"worse_percent"`
	Noise   float64 `json:"noise"` // what the difference had to exceed, in the figure's unit
}

// A PerformanceIncident is the time in which a figure is worse than it was.
type PerformanceIncident struct {
	Metric  string     `json:"metric"`
	Since   time.Time  `json:"since"`
	Until   *time.Time `json:"until"` // null while it lasts
	Before  float64    `json:"before"`
	Worst   float64    `json:"worst"` // what the figure was at its worst
	Worse   float64    `json:"worse_percent"`
	Message string     `json:"message"`
}
