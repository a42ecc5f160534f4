// Package insight draws conclusions from how models were used: when they are busy, whether they became slower, and which of
// them should be brought near before they are asked for. It reads nothing itself.
package insight

import (
	"cmp"
	"math"
	"slices"
	"time"

	"ema/internal/model"
)

// mostPeaks is how many hours of the day are called busy at most.
const mostPeaks = 6

// Peaks are the busiest hours of the day, the busiest first and of equal ones the earlier: as few as have half of all uses
// together, and at most six. They are nil without uses.
func Peaks(hours [24]int64) []int {
	var all float64
	order := make([]int, 0, len(hours))
	for h, n := range hours {
		if n > 0 {
			order = append(order, h)
			all += float64(n)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(hours[b], hours[a]), cmp.Compare(a, b)) })
	var some float64
	for i, h := range order {
		some += float64(hours[h])
		if 2*some >= all || i+1 == mostPeaks {
			return order[:i+1]
		}
	}
	return nil
}

// Trend is where a figure goes.
type Trend string

// The trends.
const (
	Improving Trend = "improving"
	Stable    Trend = "stable"
	Degrading Trend = "degrading"
	Uncertain Trend = "unknown" // too little was measured
)

const (
	leastTimed = 5    // uses with a duration, in each of two spans, that are enough to compare them
	noticeable = 0.10 // by how much a mean must differ to be called a trend
)

// A Span is how long uses took within a span of time.
type Span struct {
	Timed int64 // uses with a duration
	Total time.Duration
}

// Mean is how long a use took; nil when nobody has told.
func (s Span) Mean() *time.Duration {
	if s.Timed <= 0 {
		return nil
	}
	return new(time.Duration(float64(s.Total) / float64(s.Timed)))
}

// Performance compares how long uses took lately with how long they took before. The score is before / lately, at most 1: 0.5 is
// half as fast. It is nil while either span has less than five uses with a duration.
func Performance(lately, before Span) (score *float64, t Trend) {
	if lately.Timed < leastTimed || before.Timed < leastTimed || lately.Total <= 0 || before.Total <= 0 {
		return nil, Uncertain
	}
	ratio := (float64(before.Total) / float64(before.Timed)) / (float64(lately.Total) / float64(lately.Timed))
	switch {
	case ratio < 1/(1+noticeable):
		t = Degrading
	case ratio > 1+noticeable:
		t = Improving
	default:
		t = Stable
	}
	return new(min(ratio, 1)), t
}

// A Read is one reading of all bytes of a model, as fast as the machine could.
type Read struct {
	Bytes model.Bytes
	Took  time.Duration
}

const (
	leastRead   = 64 * model.MiB // less says little of how fast a disk is
	lateReads   = 3              // readings that are compared with those before,
	leastBefore = 5              // of which there have to be so many
)

// ReadSpeed compares how fast a model was read lately with how fast it was read before: the fastest of the last three readings with
// the slowest quarter of those before, of which it takes five. Something that was busy once, or a file that was in memory once,
// doesn't change it then. The score is lately / before, at most 1; it is nil while there are too few. Reads are in the order of time.
func ReadSpeed(reads []Read) *float64 {
	var speeds []float64 // bytes per second
	for _, r := range reads {
		if r.Bytes >= leastRead && r.Took > 0 {
			speeds = append(speeds, float64(r.Bytes)/r.Took.Seconds())
		}
	}
	if len(speeds) < leastBefore+lateReads {
		return nil
	}
	before, lately := speeds[:len(speeds)-lateReads], speeds[len(speeds)-lateReads:]
	slices.Sort(before)
	return new(min(slices.Max(lately)/before[(len(before)-1)/4], 1))
}

// A Habit is how a model was used by the hour, over some days.
type Habit struct {
	Model model.ID
	Hours [24]int64
	Days  float64 // that the hours are of; at least 1
	Size  model.Bytes
	Tier  model.Tier
	Near  bool // it is in memory already, or nothing is faster than where it lies
}

// A Suggestion is a model to be brought near.
type Suggestion struct {
	Habit
	Hour       int     // of the next hours, that in which it is used most
	Expected   float64 // uses within the next hours, if it goes on as before
	Confidence float64 // that it is used at all within them, by Poisson's law: 1 − e^−Expected
}

// leastConfidence is what a suggestion needs.
const leastConfidence = 0.5

// Preload suggests which models should be brought near, now that it is such an hour, since they are likely used within the next ones.
// The surest come first.
func Preload(habits []Habit, hour, ahead int) []Suggestion {
	all := []Suggestion{}
	for _, h := range habits {
		if h.Near {
			continue
		}
		s := Suggestion{Habit: h, Hour: hour}
		for i := range min(ahead, 24) {
			at := (hour + i) % 24
			s.Expected += float64(h.Hours[at]) / max(h.Days, 1)
			if h.Hours[at] > h.Hours[s.Hour] {
				s.Hour = at
			}
		}
		if s.Confidence = -math.Expm1(-s.Expected); s.Confidence >= leastConfidence {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Suggestion) int {
		return cmp.Or(cmp.Compare(b.Expected, a.Expected), cmp.Compare(a.Model.Name, b.Model.Name), cmp.Compare(a.Model.Scheme, b.Model.Scheme))
	})
	return all
}
