package model

import "time"

// Condition is how well a model is.
type Condition string

// The conditions, best first.
const (
	Healthy   Condition = "healthy"
	Degraded  Condition = "degraded"  // it can be used, and something is not as it should be
	Uncertain Condition = "unknown"   // nobody has checked it, or it could not be read
	Corrupted Condition = "corrupted" // a file is missing, or not what was promised
)

// A HealthCheck is what a check of one revision of a model found. Scores are from 0 to 1; nil is one that nobody knows.
type HealthCheck struct {
	Model       ID
	Commit      string
	At          time.Time // when it ended
	Kind        string    // "quick", "scrub", "full", "repair", "performance"
	Overall     Condition
	Health      *float64
	Integrity   *float64
	Performance *float64
	Files       int
	Bytes       Bytes         // read for it
	Duration    time.Duration // how long it took
	Issues      []string      // in words; nil when all is well
}

// A Sample is one figure of a series that was measured at a time.
type Sample struct {
	Series string // such as "download.speed_mbps"
	At     time.Time
	Value  float64
}

// A SampleSum is what was measured within a span of time.
type SampleSum struct {
	At          time.Time // its beginning
	Times       int64     // how many samples
	Mean        float64
	Least, Most float64
}

// Severity is how urgent an Incident is.
type Severity string

// The severities.
const (
	Info     Severity = "info"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// An Incident is something that happened, and that people may want to look up later.
type Incident struct {
	At       time.Time
	Kind     string // such as "model_health_alert"
	Severity Severity
	Model    ID // zero where it concerns none
	Message  string
}
