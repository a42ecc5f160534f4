package metrics

import "ema/internal/model"

// A Verdict is the result of a verification, and a label's value.
type Verdict string

// The verdicts.
const (
	Whole      Verdict = "whole"   // all files are there, and right
	Damaged    Verdict = "damaged" // files are missing or wrong
	Unverified Verdict = "failed"  // it did not come to a result
)

// A Repair is the result of a repair, and a label's value.
type Repair string

// The results of repairs.
const (
	NothingToMend Repair = "whole"    // all was right already
	Mended        Repair = "repaired" // what was wrong was fetched again
	NotMended     Repair = "failed"
)

// otherScheme stands for all that are not known here.
const otherScheme model.Scheme = other

// Received counts bytes that came from a source since it was last told; less than one counts as none. It waits for nobody.
func (m *Metrics) Received(from model.Scheme, bytes int64) {
	c, known := m.received[from]
	if !known {
		c = m.received[otherScheme]
	}
	c.Add(float64(max(0, bytes)))
}

// Verified counts a revision that was verified. It waits for nobody.
func (m *Metrics) Verified(v Verdict) {
	c, known := m.verified[v]
	if !known {
		c = m.verified[Unverified]
	}
	c.Inc()
}

// Repaired counts a revision that was to be repaired. It waits for nobody.
func (m *Metrics) Repaired(r Repair) {
	c, known := m.repaired[r]
	if !known {
		c = m.repaired[NotMended]
	}
	c.Inc()
}

// HealthAlert counts an alert about the health of a model. It waits for nobody.
func (m *Metrics) HealthAlert(s model.Severity) {
	c, known := m.alerts[s]
	if !known {
		c = m.alerts[model.Warning]
	}
	c.Inc()
}

// Optimized counts a setting that was changed by itself and is now in that status, such as "measuring" or "kept"; one that is not known
// is not counted. It waits for nobody.
func (m *Metrics) Optimized(status string) {
	if c, known := m.optimizations[status]; known {
		c.Inc()
	}
}
