package tune

import (
	"math"
	"slices"
	"time"
)

// A Reference is what a figure was over a longer time.
type Reference struct {
	Median  float64
	MAD     float64 // median of the distances to the median: how much it differs without a reason
	Samples int
}

// ReferenceOf is that of some samples; zero of none.
func ReferenceOf(samples []float64) Reference {
	if len(samples) == 0 {
		return Reference{}
	}
	r := Reference{Median: median(samples), Samples: len(samples)}
	away := make([]float64, len(samples))
	for i, s := range samples {
		away[i] = math.Abs(s - r.Median)
	}
	r.MAD = median(away)
	return r
}

// enough is how many samples a reference needs: fewer may all be of one unusual hour.
const enough = 24

// noiseBand is how many MAD of either side a difference has to exceed. Of normally distributed noise three are two standard deviations.
const noiseBand = 3

// A Degradation is how much worse a figure is than a reference.
type Degradation struct {
	Before, Now float64
	Worse       float64 // by which part of Before; negative where it is better
	Noise       float64 // what the difference has to exceed, in the figure's unit
	Regressed   bool    // it is worse by more than the threshold, and by more than the noise
}

// Degraded compares the last samples of a figure with a reference, in the direction in which the figure is wanted to go. Where that
// cannot be judged, why says so.
func Degraded(figure string, last []float64, before Reference, threshold float64) (d Degradation, why string) {
	better := Better(figure)
	switch {
	case better == Steady:
		return d, "neither more nor less of it is better"
	case len(last) < fewest:
		return d, "there are too few samples lately"
	case before.Samples < enough:
		return d, "too little is known of how it was before"
	case before.Median <= 0:
		return d, "it was 0 before"
	}
	now := ReferenceOf(last)
	d = Degradation{Before: before.Median, Now: now.Median, Noise: noiseBand * max(before.MAD, now.MAD)}
	more := d.Now - d.Before
	if better == Rising {
		more = -more
	}
	d.Worse = more / d.Before
	d.Regressed = d.Worse > threshold && more > d.Noise
	return d, ""
}

// An Incident is the time in which a figure is worse than it was.
type Incident struct {
	Metric string
	Since  time.Time // when it was found
	Until  time.Time // when it was over; zero while it is not
	Worst  Degradation
}

// Incidents are those that are open, and the checks that may open or close one. The zero value is ready. It is a value to be kept.
type Incidents struct {
	Open map[string]Incident
	Bad  map[string]int // checks in a row in which a figure had regressed
	Good map[string]int // and in which one of an open incident was well
}

// settled is how many checks in a row open an incident, and close it: one may be a chance.
const settled = 2

// Check takes in a judged figure. It says whether that opens an incident, or closes one. One is closed when the figure is less worse
// than half the threshold, so that one that hovers about the threshold is one incident.
func (i *Incidents) Check(now time.Time, figure string, d Degradation, threshold float64) (opened, closed *Incident) {
	for _, m := range []*map[string]int{&i.Bad, &i.Good} {
		if *m == nil {
			*m = map[string]int{}
		}
	}
	if i.Open == nil {
		i.Open = map[string]Incident{}
	}
	one, open := i.Open[figure]
	switch {
	case d.Regressed:
		i.Bad[figure]++
		delete(i.Good, figure)
	case d.Worse < threshold/2:
		i.Good[figure]++
		delete(i.Bad, figure)
	default:
		delete(i.Bad, figure)
		delete(i.Good, figure)
	}
	if open && d.Regressed && d.Worse > one.Worst.Worse {
		one.Worst = d
		i.Open[figure] = one
	}
	switch {
	case !open && i.Bad[figure] >= settled:
		one = Incident{Metric: figure, Since: now, Worst: d}
		i.Open[figure] = one
		return &one, nil
	case open && i.Good[figure] >= settled:
		one.Until = now
		delete(i.Open, figure)
		return nil, &one
	}
	return nil, nil
}

// Names are the figures of which an incident is open, in order.
func (i *Incidents) Names() (names []string) {
	for name := range i.Open {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
