package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Totals are what was counted since the start. What grew between two of them happened in between.
type Totals struct {
	Successes, Failures float64          // downloads
	Retries             float64          // attempts
	Starts, Waited      float64          // downloads that were started, and the seconds that they had waited
	Received            float64          // bytes of models
	Answers, Answering  float64          // requests that were answered, and the seconds that this took; streams left out
	Errors              float64          // of Answers, those with a status of 500 or more
	Operations          map[string]Count // Answers by operation
	Database            Count            // operations of the database
}

// A Count is how often something was done, and the seconds that it took.
type Count struct{ Times, Seconds float64 }

// Totals adds up the counters. Requests of the operations named, which are streams, are left out.
func (m *Metrics) Totals(streams ...string) Totals {
	t := Totals{Successes: grown(m.successes), Failures: grown(m.failures), Operations: map[string]Count{}}
	for _, c := range m.retries {
		t.Retries += grown(c)
	}
	for _, c := range m.received {
		t.Received += grown(c)
	}
	t.Starts, t.Waited = summed(m.waited)
	for s, o := range *m.operations.known.Load() {
		if slices.Contains(streams, s.operation) {
			continue
		}
		h, ok := o.(prometheus.Metric)
		if !ok {
			continue // all of ours are histograms
		}
		n, seconds := summed(h)
		t.Answers, t.Answering = t.Answers+n, t.Answering+seconds
		one := t.Operations[s.operation]
		t.Operations[s.operation] = Count{one.Times + n, one.Seconds + seconds}
		if s.status == classOf(500) {
			t.Errors += n
		}
	}
	for _, o := range *m.database.known.Load() {
		if h, ok := o.(prometheus.Metric); ok {
			n, seconds := summed(h)
			t.Database.Times, t.Database.Seconds = t.Database.Times+n, t.Database.Seconds+seconds
		}
	}
	return t
}

// grown is what a counter has.
func grown(c prometheus.Metric) float64 {
	var d dto.Metric
	if c.Write(&d) != nil {
		return 0 // it only fails where labels cannot be written, and ours can
	}
	return d.GetCounter().GetValue()
}

// summed is how often a histogram was told something, and the sum of that.
func summed(h prometheus.Metric) (n, sum float64) {
	var d dto.Metric
	if h.Write(&d) != nil {
		return 0, 0
	}
	return float64(d.GetHistogram().GetSampleCount()), d.GetHistogram().GetSampleSum()
}
