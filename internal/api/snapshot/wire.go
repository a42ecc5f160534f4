package snapshot

import (
	"strings"
	"time"

	"ema/internal/model"
)

// A modelStatus is how one model stands. Sizes in _mb are MiB. What is null is not known to anybody here.
type modelStatus struct {
	ModelID            string   `json:"model_id"`
	IsAvailable        bool     `json:"is_available"` // a revision is complete: a program can load it
	IsLoaded           *bool    `json:"is_loaded"`
	SizeMB             float64  `json:"size_mb"` // of the revision that is here or is coming
	AvailabilityStatus string   `json:"availability_status"`
	DownloadProgress   float64  `json:"download_progress"` // 0 to 100
	MissingFiles       []string `json:"missing_files"`

	IntegrityScore        *float64   `json:"integrity_score"`
	LastHealthCheck       *time.Time `json:"last_health_check"`
	PerformanceScore      *float64   `json:"performance_score"`
	CorruptionDetected    bool       `json:"corruption_detected"`
	UsageFrequency        *float64   `json:"usage_frequency"`
	LastUsed              *time.Time `json:"last_used"`
	AverageGenerationTime *float64   `json:"average_generation_time"`

	CanPauseDownload      bool     `json:"can_pause_download"`
	CanResumeDownload     bool     `json:"can_resume_download"`
	EstimatedDownloadTime *float64 `json:"estimated_download_time"` // seconds
	CurrentVersion        *string  `json:"current_version"`         // the commit of the revision that is here
	LatestVersion         *string  `json:"latest_version"`
	UpdateAvailable       *bool    `json:"update_available"`

	StatusReason string           `json:"status_reason,omitempty"`
	Path         string           `json:"path,omitempty"` // of the revision that is here
	StoredMB     float64          `json:"stored_mb"`      // all that is on disk
	DamagedFiles []string         `json:"damaged_files"`
	Revisions    []revisionStatus `json:"revisions"`
	Download     *downloadStatus  `json:"download,omitempty"`
}

// A revisionStatus is one commit of a model that is here.
type revisionStatus struct {
	Commit      string     `json:"commit"`
	Refs        []string   `json:"refs"`
	State       string     `json:"state"` // available, unverified, partial or damaged
	SizeMB      float64    `json:"size_mb"`
	Files       int        `json:"files"`
	CompletedAt *time.Time `json:"completed_at,omitempty"`
}

// A downloadStatus is a model's download that is not over.
type downloadStatus struct {
	ID              string     `json:"download_id"`
	Status          string     `json:"status"`
	Revision        string     `json:"revision,omitempty"`
	Commit          string     `json:"commit,omitempty"`
	ProgressPercent float64    `json:"progress_percent"`
	DownloadedMB    float64    `json:"downloaded_mb"`
	TotalMB         float64    `json:"total_mb"`
	SpeedMBps       float64    `json:"speed_mbps"`
	NextTry         *time.Time `json:"next_try,omitempty"`
}

// A statusSummary counts the models of an answer.
type statusSummary struct {
	Total          int     `json:"total_models"`
	Available      int     `json:"available_models"`
	Downloading    int     `json:"downloading_models"`
	Corrupted      int     `json:"corrupted_models"`
	TotalStorageGB float64 `json:"total_storage_gb"`
}

// storageStatus is what the models take, where, and what could go.
type storageStatus struct {
	Summary storageSummary `json:"storage_summary"`
	Models  []modelStorage `json:"models_storage"`
	Tiers   []tierStatus   `json:"tiers"`
	Cleanup cleanup        `json:"cleanup_suggestions"`
}

type storageSummary struct {
	TotalCapacityGB  float64 `json:"total_capacity_gb"`
	UsedSpaceGB      float64 `json:"used_space_gb"` // by whatever is on the volume
	AvailableSpaceGB float64 `json:"available_space_gb"`
	UsagePercent     float64 `json:"usage_percent"`
	ModelsCount      int     `json:"models_count"`
	ModelsGB         float64 `json:"models_gb"` // by models
}

type modelStorage struct {
	ModelID        string     `json:"model_id"`
	SizeGB         float64    `json:"size_gb"`
	SizeBytes      int64      `json:"size_bytes"`
	LastAccessed   *time.Time `json:"last_accessed"`
	UsageFrequency *float64   `json:"usage_frequency"`
	StorageTier    string     `json:"storage_tier"`
}

type tierStatus struct {
	Name        string  `json:"name"`
	Path        string  `json:"path"`
	CapacityGB  float64 `json:"capacity_gb"`
	UsedGB      float64 `json:"used_gb"` // by models
	AvailableGB float64 `json:"available_gb"`
	ModelsCount int     `json:"models_count"`
}

type cleanup struct {
	PotentialSavingsGB float64     `json:"potential_savings_gb"`
	SafeToRemoveCount  int         `json:"safe_to_remove_count"` // models of which something can go
	Candidates         []candidate `json:"candidates"`
}

// A candidate is what a collection would remove of one model.
type candidate struct {
	ModelID   string   `json:"model_id"`
	SizeGB    float64  `json:"size_gb"`
	SizeBytes int64    `json:"size_bytes"`
	Kinds     []string `json:"kinds"` // blob, partial, checksums, record or folder
	Reason    string   `json:"reason"`
}

func stateName(s model.State) string { return strings.ToUpper(string(s)) }
