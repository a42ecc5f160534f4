package tune

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
)

// A Course is where a figure is going.
type Course string

// The courses of a figure.
const (
	Rising  Course = "rising"
	Falling Course = "falling"
	Steady  Course = "steady"  // what moves may be noise
	Unclear Course = "unknown" // too few samples
)

// A Trend is the course of a figure over its last samples.
type Trend struct {
	Course Course
	Median float64
	// Change is by how much the figure changed from the first sample to the last one as a part of the median, by a slope that a few
	// outliers do not bend. It is NaN where the median is 0, and 0 with fewer than two samples.
	Change float64
}

// fewest is how many samples a trend needs: with four, even a perfect order comes about by chance in one of twelve cases.
const fewest = 5

// sure is the standard score beyond which an order is no chance: once in twenty without a trend.
const sure = 1.96

// TrendOf judges samples that were taken at equal intervals, the oldest first. The slope is the median of those of all pairs (Sen,
// Estimates of the regression coefficient based on Kendall's tau, 1968), and a trend is one where Kendall's tau of the samples against time is
// farther from 0 than chance explains (Mann, Nonparametric tests against trend, 1945).
func TrendOf(samples []float64) Trend {
	n := len(samples)
	if n == 0 {
		return Trend{Course: Unclear}
	}
	t := Trend{Course: Unclear, Median: median(samples)}
	if n < 2 {
		return t
	}
	var slopes, times []float64
	for i := range samples {
		times = append(times, float64(i))
		for k := range i {
			slopes = append(slopes, (samples[i]-samples[k])/float64(i-k))
		}
	}
	t.Change = median(slopes) * float64(n-1) / t.Median
	if t.Median == 0 {
		t.Change = math.NaN()
	}
	if n < fewest {
		return t
	}
	t.Course = Steady
	falling := make([]float64, n)
	for i, s := range samples {
		falling[i] = -s
	}
	// Pairs of equal samples count as in order here and there, so that the difference is without them.
	tau := (stat.Kendall(times, samples, nil) - stat.Kendall(times, falling, nil)) / 2
	size := float64(n)
	if score := 3 * tau * math.Sqrt(size*(size-1)) / math.Sqrt(2*(2*size+5)); score > sure {
		t.Course = Rising
	} else if score < -sure {
		t.Course = Falling
	}
	return t
}

// median is the middle of some figures, of which there is at least one.
func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// Better is the course in which a figure is wanted to go, by its group and name; Steady where either may be right, such as that of how
// much is asked for.
func Better(figure string) Course {
	switch figure {
	case "downloads.average_speed_mbps", "downloads.success_rate", "storage.cache_hit_rate", "storage.cleanup_efficiency", "api.websocket_connection_stability":
		return Rising
	case "downloads.retry_frequency", "downloads.queue_processing_time_seconds", "storage.access_latency_ms", "api.average_response_time_ms", "api.error_rate",
		"system.cpu_pressure", "system.io_pressure", "system.memory_pressure":
		return Falling
	}
	return Steady
}
