package client

import "time"

// Analytics is how models were used over some days.
type Analytics struct {
	Models  map[string]ModelAnalytics `json:"models"` // the most used ones, as many as were asked for; never null
	Summary AnalyticsSummary          `json:"summary"`
}

// AnalyticsSummary is about all models that were used within the period.
type AnalyticsSummary struct {
	Uses        int64    `json:"total_generations"`
	Models      int      `json:"total_models_used"`
	SuccessRate *float64 `json:"average_success_rate"` // of 1, over all uses; null without any
	Most        *string  `json:"most_used_model"`      // null without any
	Least       *string  `json:"least_used_model"`     // of those that were used
	From        string   `json:"from"`                 // the first day, as in 2026-03-29
	To          string   `json:"to"`                   // the last day
	Zone        string   `json:"timezone"`             // whose days and hours are meant
}

// ModelAnalytics is how one model was used. What nobody knows is null.
type ModelAnalytics struct {
	Model       string     `json:"model_id"`
	Uses        int64      `json:"total_uses"`
	Failures    int64      `json:"failed_uses"`
	PerDay      float64    `json:"uses_per_day"`
	AverageTime *float64   `json:"average_generation_time"` // seconds, of those uses whose duration was told
	SuccessRate *float64   `json:"success_rate"`            // of 1
	Days        []UsageDay `json:"last_30_days_usage"`      // the 30 days that end with the last one, the oldest first
	Peaks       []int      `json:"peak_usage_hours"`        // hours of the day, the busiest first; never null
	Hours       []int64    `json:"hourly_usage"`            // uses by the hour of the day, 24 of them
}

// A UsageDay is how a model was used on one day.
type UsageDay struct {
	Date        string   `json:"date"`
	Uses        int64    `json:"uses"`
	AverageTime *float64 `json:"avg_time"` // seconds; null when nobody told
}

// CleanupAdvice is which models could go to make room.
type CleanupAdvice struct {
	Recommendations []CleanupRecommendation `json:"recommendations"` // the first one first; never null
	SavingsGB       float64                 `json:"potential_savings_gb"`
	CurrentGB       float64                 `json:"current_usage_gb"`
	TargetGB        float64                 `json:"target_usage_gb"`
}

// A CleanupRecommendation is one thing that could go.
type CleanupRecommendation struct {
	Model      string     `json:"model_id"`
	Reason     string     `json:"reason"`
	LastUsed   *time.Time `json:"last_used"` // null when that is not known
	SizeMB     float64    `json:"size_mb"`   // that it frees
	Uses       int        `json:"usage_count"`
	Confidence float64    `json:"confidence"` // that nobody misses it, of 1
	Action     string     `json:"action"`     // one of the Cleanup constants
}

// PerformanceTrends is whether models became faster or slower, as their users find them.
type PerformanceTrends struct {
	Models map[string]PerformanceTrend `json:"performance_trends"` // of models whose uses have durations; never null
	System SystemPerformance           `json:"system_performance"`
}

// The trends.
const (
	TrendImproving = "improving"
	TrendStable    = "stable"
	TrendDegrading = "degrading"
	TrendUnknown   = "unknown" // too little was measured
)

// A PerformanceTrend is that of one model. What nobody knows is null.
type PerformanceTrend struct {
	Score           *float64 `json:"current_score"`    // of 1: how long a use took in the 30 days before the last 7, to how long lately
	Trend           string   `json:"trend"`            // one of the Trend constants
	Lately          *float64 `json:"last_7_days_avg"`  // seconds of a use
	Month           *float64 `json:"last_30_days_avg"` // seconds of a use
	Issues          []string `json:"performance_issues"`
	Recommendations []string `json:"recommendations"`
}

// SystemPerformance is about the daemon as a whole, over the last 30 days. What nobody knows is null.
type SystemPerformance struct {
	Overall       *float64 `json:"overall_score"`               // the mean over the models whose score is known
	Downloads     *float64 `json:"download_success_rate"`       // of 1, of those that are over and were not cancelled
	DownloadMBps  *float64 `json:"average_download_speed_mbps"` // MiB per second while they ran, weighted by size
	HealthSuccess *float64 `json:"health_check_success_rate"`   // of 1: full checks that found the model well
	Since         string   `json:"since"`                       // the first day that is looked at
}

// PreloadAdvice is which models should be brought near before they are asked for.
type PreloadAdvice struct {
	Suggestions []PreloadSuggestion `json:"suggestions"` // the surest first; never null
	Zone        string              `json:"timezone"`
}

// A PreloadSuggestion is one model that is likely to be used soon, and is not near.
type PreloadSuggestion struct {
	Model      string  `json:"model_id"`
	Hour       int     `json:"hour"`          // of the next hours, that in which it is used most
	Expected   float64 `json:"expected_uses"` // within the next three hours, if it goes on as in the last 30 days
	Confidence float64 `json:"confidence"`    // that it is used at all within them, of 1
	SizeMB     float64 `json:"size_mb"`
	Tier       string  `json:"storage_tier"`
	Action     string  `json:"action"` // in words
	Reason     string  `json:"reason"`
}

// AnalyticsQuery is which uses are asked about. The zero AnalyticsQuery is all models over the last 30 days, in the daemon's time zone.
type AnalyticsQuery struct {
	Period   string // day, week, month or year
	From, To string // days as in 2026-03-29, instead of Period
	Zone     string // such as Europe/Berlin
	Limit    int    // models that are told of; 0 is 100
	Offset   int
}
