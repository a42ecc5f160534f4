package client

import "time"

// The conditions of a model, best first.
const (
	ConditionHealthy   = "healthy"
	ConditionDegraded  = "degraded"  // it can be used, and something is not as it should be
	ConditionUnknown   = "unknown"   // it was never checked, or could not be read
	ConditionCorrupted = "corrupted" // a file is missing, or not what was promised
)

// ModelsHealth is how well models are.
type ModelsHealth struct {
	Models map[string]ModelHealth `json:"models"` // by their ids; never null
	System SystemHealth           `json:"system_health"`
}

// SystemHealth sums up how well all models are.
type SystemHealth struct {
	OverallScore *float64   `json:"overall_score"` // of 1: the mean over all models whose score is known, by size; null without any
	Healthy      int        `json:"healthy_models"`
	Degraded     int        `json:"degraded_models"`
	Corrupted    int        `json:"corrupted_models"`
	Unknown      int        `json:"unknown_models"`
	LastCheck    *time.Time `json:"last_system_check"` // when all models were looked at last
}

// ModelHealth is how well one model is. Scores are from 0 to 1; what nobody knows is null.
type ModelHealth struct {
	Model           string        `json:"model_id"`
	Overall         string        `json:"overall_health"` // one of the Condition constants
	HealthScore     *float64      `json:"health_score"`
	Integrity       *float64      `json:"integrity_score"`
	Performance     *float64      `json:"performance_score"`
	LastCheck       *time.Time    `json:"last_check"`       // of any kind
	LastFullCheck   *time.Time    `json:"last_full_check"`  // that read all bytes
	Issues          []string      `json:"issues"`           // in words, the worst first; never null
	Recommendations []string      `json:"recommendations"`  // what to do; never null
	Check           *HealthTask   `json:"check,omitempty"`  // that waits or runs, or the last one since the daemon began; absent without any
	Repair          *HealthTask   `json:"repair,omitempty"` // as Check
	History         []HealthEntry `json:"history,omitempty"`
}

// The states of a HealthTask.
const (
	TaskWaiting = "waiting"
	TaskRunning = "running"
	TaskDone    = "done"
	TaskFailed  = "failed"
)

// A HealthTask is a check or a repair of a model.
type HealthTask struct {
	ID       string     `json:"id"`
	Kind     string     `json:"type"`  // full, integrity, performance, scrub; auto, redownload, integrity_fix
	State    string     `json:"state"` // one of the Task constants
	Begun    *time.Time `json:"begun"`
	Ended    *time.Time `json:"ended"`
	Percent  float64    `json:"progress_percent"`
	Actions  []string   `json:"actions_taken"` // of a repair that is over; never null
	Error    string     `json:"error_message,omitempty"`
	Estimate *time.Time `json:"estimated_completion"` // null while nobody can tell
}

// A HealthEntry is one check of the past.
type HealthEntry struct {
	At        time.Time `json:"at"`
	Kind      string    `json:"type"`
	Overall   string    `json:"overall_health"`
	Integrity *float64  `json:"integrity_score"`
	Files     int       `json:"files"`
	ReadMB    float64   `json:"read_mb"`
	Seconds   float64   `json:"seconds"`
	Issues    []string  `json:"issues"` // never null
}

// CheckRequest asks for a check of a model.
type CheckRequest struct {
	Kind  string `json:"check_type,omitempty"` // full (the default), integrity or performance
	Force bool   `json:"force_check,omitempty"`
}

// CheckBegun answers a CheckRequest.
type CheckBegun struct {
	Success  bool       `json:"success"`
	Message  string     `json:"message"`
	Model    string     `json:"model_id"`
	ID       string     `json:"check_id"`
	Estimate *time.Time `json:"estimated_completion"`
}

// RepairRequest asks for the repair of a model.
type RepairRequest struct {
	Kind string `json:"repair_type,omitempty"` // auto (the default), integrity_fix or redownload
}

// RepairBegun answers a RepairRequest.
type RepairBegun struct {
	Success  bool       `json:"success"`
	Message  string     `json:"message"`
	Model    string     `json:"model_id"`
	ID       string     `json:"repair_id"`
	Actions  []string   `json:"actions_taken"` // so far; GET /models/health/{model_id} has them when it is over
	Estimate *time.Time `json:"estimated_completion"`
}
