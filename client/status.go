package client

import "time"

// How a model stands as a whole, in ModelStatus.Availability.
const (
	AvailabilityAvailable   = "AVAILABLE"   // every file of a revision is here and verified
	AvailabilityDownloading = "DOWNLOADING" // no revision is available, and one is on its way
	AvailabilityQueued      = "QUEUED"      // the same, but its download waits, or is about to be tried again
	AvailabilityPaused      = "PAUSED"
	AvailabilityPartial     = "PARTIAL"   // some of it is here, and nothing fetches the rest
	AvailabilityMissing     = "MISSING"   // nothing of it is here
	AvailabilityCorrupted   = "CORRUPTED" // bytes that are here are not what they were
	AvailabilityUpdating    = "UPDATING"  // a revision is available, and another one is on its way
	AvailabilityFailed      = "FAILED"    // nothing is available, and its newest download failed
)

// A ModelStatus is how one model stands. What nobody knows is null. Sizes in _mb are MiB, times are in seconds.
type ModelStatus struct {
	Model        string `json:"model_id"`
	IsAvailable  bool   `json:"is_available"` // every file of a revision is here and verified
	IsLoaded     bool   `json:"is_loaded"`    // ema itself holds it in memory; what other programs load it does not know
	Availability string `json:"availability_status"`

	SizeMB    float64 `json:"size_mb"`    // of what is here, each content once
	SizeBytes int64   `json:"size_bytes"` // the same
	TotalMB   float64 `json:"total_mb"`   // of the current revision, or of the one on its way; 0 until it is known

	DownloadProgress      *float64   `json:"download_progress"`         // percent, rounded down to a tenth; null without a download that is not over
	DownloadID            string     `json:"download_id,omitempty"`     // of that download
	EstimatedDownloadTime *float64   `json:"estimated_download_time"`   // seconds to its end
	CanPause              bool       `json:"can_pause_download"`        // of that download
	CanResume             bool       `json:"can_resume_download"`       // the same
	DownloadError         string     `json:"download_error,omitempty"`  // the sentence of the newest download's failure
	MissingFiles          []string   `json:"missing_files"`             // of the current revision, in order; never null
	MissingFilesTotal     int        `json:"missing_files_total"`       // more than MissingFiles when the list was cut
	CorruptedFiles        []string   `json:"corrupted_files,omitempty"` // in order
	CorruptionDetected    bool       `json:"corruption_detected"`       // by the newest check
	IntegrityScore        *float64   `json:"integrity_score"`           // 0 to 1: the part of the bytes that is as promised; null until it was checked
	LastHealthCheck       *time.Time `json:"last_health_check"`         // null until there was one
	PerformanceScore      *float64   `json:"performance_score"`         // 0 to 1
	UsageFrequency        *float64   `json:"usage_frequency"`           // uses per day, over the last 30 days
	LastUsed              *time.Time `json:"last_used"`
	AverageGenerationTime *float64   `json:"average_generation_time"`   // seconds, as reported by who uses it
	StorageTier           *string    `json:"storage_tier"`              // hot, warm or cold, where most of it lies; null when nothing of it is here
	StorageProblem        string     `json:"storage_problem,omitempty"` // why a part of it cannot be reached, and where to look
	Pinned                bool       `json:"pinned"`                    // never moved or removed by itself

	CurrentVersion  *string          `json:"current_version"`  // the commit that is available; null when none is
	LatestVersion   *string          `json:"latest_version"`   // the commit that the source had when it was asked last
	UpdateAvailable *bool            `json:"update_available"` // whether they differ
	Path            string           `json:"path,omitempty"`   // of the snapshot of CurrentVersion
	Revisions       []RevisionStatus `json:"revisions"`        // that something is here of; never null
}

// A RevisionStatus is how one revision of a model stands.
type RevisionStatus struct {
	Commit      string   `json:"commit"`
	Refs        []string `json:"refs"` // branches and tags that led here when they were resolved; never null
	IsAvailable bool     `json:"is_available"`
	State       string   `json:"state"` // complete, incomplete, … in the words of "ema info"
	SizeBytes   int64    `json:"size_bytes"`
	Files       int      `json:"files_total"`
	Path        string   `json:"path"`
}

// A StatusSummary counts models.
type StatusSummary struct {
	Total          int     `json:"total_models"`
	Available      int     `json:"available_models"`
	Downloading    int     `json:"downloading_models"` // of which a download is not over
	Corrupted      int     `json:"corrupted_models"`
	TotalStorageGB float64 `json:"total_storage_gb"` // GiB, each content once
}

// Statuses are all models that something is known of, by their ids.
type Statuses struct {
	Models  map[string]ModelStatus `json:"models"`
	Summary StatusSummary          `json:"summary"`
}

// Deleted is what became of a request to delete a model.
type Deleted struct {
	Success      bool    `json:"success"`
	Message      string  `json:"message"`
	Model        string  `json:"model_id"`
	SpaceFreedGB float64 `json:"space_freed_gb"` // GiB; less than its size when other models share its contents
	FreedBytes   int64   `json:"freed_bytes"`
}
