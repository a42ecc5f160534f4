package client

import "time"

// Storage is how the folders of the models stand. Sizes in _gb are GiB.
type Storage struct {
	Summary StorageSummary     `json:"storage_summary"`
	Models  []ModelStorage     `json:"models_storage"` // largest first; never null
	Tiers   []TierStorage      `json:"tiers"`          // hot first; never null
	Cleanup CleanupSuggestions `json:"cleanup_suggestions"`
}

// A StorageSummary is about the file systems of all tiers together, each counted once.
type StorageSummary struct {
	CapacityGB   float64 `json:"total_capacity_gb"`
	UsedGB       float64 `json:"used_space_gb"`      // by whomever
	AvailableGB  float64 `json:"available_space_gb"` // to ordinary users
	UsagePercent float64 `json:"usage_percent"`      // of what ordinary users can have
	Models       int     `json:"models_count"`
	ModelsGB     float64 `json:"models_space_gb"`   // of UsedGB, by models; each content once
	ReserveGB    float64 `json:"reserved_space_gb"` // that stays free
}

// A ModelStorage is what one model takes. What nobody knows is null.
type ModelStorage struct {
	Model          string     `json:"model_id"`
	SizeGB         float64    `json:"size_gb"` // contents that others share count in full
	SizeBytes      int64      `json:"size_bytes"`
	LastAccessed   *time.Time `json:"last_accessed"`
	UsageFrequency *float64   `json:"usage_frequency"` // uses per day, over the last 30 days
	Tier           string     `json:"storage_tier"`    // hot, warm or cold; hot where there is one folder only
	Pinned         bool       `json:"pinned"`          // never moved or removed by itself
}

// A TierStorage is how the folder of one tier stands.
type TierStorage struct {
	Tier         string  `json:"tier"`
	Path         string  `json:"path"`
	CapacityGB   float64 `json:"total_capacity_gb"` // of its file system, or as configured if that is less
	UsedGB       float64 `json:"used_space_gb"`     // of the file system
	AvailableGB  float64 `json:"available_space_gb"`
	UsagePercent float64 `json:"usage_percent"`
	ModelsGB     float64 `json:"models_space_gb"`
	Models       int     `json:"models_count"`
}

// CleanupSuggestions are what could go.
type CleanupSuggestions struct {
	SavingsGB    float64            `json:"potential_savings_gb"`
	SafeToRemove int                `json:"safe_to_remove_count"`
	Candidates   []CleanupCandidate `json:"candidates"` // never null
}

// A CleanupCandidate is something that could go, and why.
type CleanupCandidate struct {
	Model     string     `json:"model_id"`
	Reason    string     `json:"reason"` // in words
	SizeGB    float64    `json:"size_gb"`
	SizeBytes int64      `json:"size_bytes"`
	LastUsed  *time.Time `json:"last_used"`
}
