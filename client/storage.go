package client

import "time"

// Storage is how the folders of the models stand. Sizes in _gb are GiB.
type Storage struct {
	Summary StorageSummary     `json:"storage_summary"`
	Models  []ModelStorage     `json:"models_storage"` // largest first; never null
	Tiers   []TierStorage      `json:"tiers"`          // hot first; never null
	Moves   []ModelMove        `json:"moves"`          // that are not over, in the order in which they come; never null
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
	Tier           string     `json:"storage_tier"`    // hot, warm or cold, where most of it lies; hot where there is one folder only
	Pinned         bool       `json:"pinned"`          // never moved or removed by itself
	// TierBytes is what lies in which tier; absent when all of it lies in one.
	TierBytes map[string]int64 `json:"tier_bytes,omitempty"`
}

// How the folder of a tier stands, in TierStorage.State.
const (
	TierReady    = "ready"
	TierMissing  = "missing"   // its folder is not there, or is another's: is it mounted?
	TierReadOnly = "read_only" // its models load, but none moves there or away
	TierFull     = "full"
)

// A TierStorage is how the folder of one tier stands.
type TierStorage struct {
	Tier         string  `json:"tier"`
	Path         string  `json:"path"`
	State        string  `json:"state"`             // ready, missing, read_only or full
	Problem      string  `json:"problem,omitempty"` // what is wrong, and what to do; absent when it is ready
	CapacityGB   float64 `json:"total_capacity_gb"` // of its file system, or as configured if that is less
	MaxSizeGB    float64 `json:"max_size_gb"`       // that its models may take together, as configured; 0 is as much as there is
	UsedGB       float64 `json:"used_space_gb"`     // of the file system
	AvailableGB  float64 `json:"available_space_gb"`
	UsagePercent float64 `json:"usage_percent"`
	ModelsGB     float64 `json:"models_space_gb"`
	Models       int     `json:"models_count"` // of which most lies there
}

// The states of a move, in ModelMove.State.
const (
	MoveWaiting   = "waiting" // for its turn
	MoveMoving    = "moving"
	MoveDone      = "done"
	MoveFailed    = "failed" // what was moved stays moved
	MoveCancelled = "cancelled"
)

// A ModelMove is a model on its way from one tier to another. It can be used all the while.
type ModelMove struct {
	Model           string  `json:"model_id"`
	From            string  `json:"from"`             // where most of it lay; empty when nobody knows
	To              string  `json:"to"`               // hot, warm or cold
	State           string  `json:"state"`            // one of the Move constants
	ProgressPercent float64 `json:"progress_percent"` // rounded down to a tenth: 100 means all
	MovedBytes      int64   `json:"moved_bytes"`      // copied and verified
	TotalBytes      int64   `json:"total_bytes"`
	Automatic       bool    `json:"automatic"`        // the rules asked for it, and no person
	Reason          string  `json:"reason,omitempty"` // why, in words
	Error           string  `json:"error_message,omitempty"`
}

// Over reports whether the move has ended, well or not.
func (m ModelMove) Over() bool { return m.State != MoveWaiting && m.State != MoveMoving }

// A MoveRequest asks for a model to be moved to another tier, or for its move to be given up.
type MoveRequest struct {
	Model  string `json:"model_id"`
	Tier   string `json:"tier,omitempty"`
	Cancel bool   `json:"cancel,omitempty"` // instead of tier
}

// Moved is what became of such a request. The move itself goes on after the answer.
type Moved struct {
	Success  bool   `json:"success"`
	Message  string `json:"message"`
	Existing bool   `json:"existing,omitempty"` // it was on its way there already
	ModelMove
}

// A PinRequest asks for a model to stay where it is, or lets it loose.
type PinRequest struct {
	Model  string `json:"model_id"`
	Pinned bool   `json:"pinned"`
}

// Pinned is what became of it.
type Pinned struct {
	Success bool   `json:"success"`
	Message string `json:"message"`
	Model   string `json:"model_id"`
	Pinned  bool   `json:"pinned"`
}

// How a cleanup chooses, in Cleanup.Type.
const (
	CleanupAuto   = "auto"   // what the rules find
	CleanupManual = "manual" // the models that are named
)

// A Cleanup asks for space to be made.
type Cleanup struct {
	Type          string   `json:"cleanup_type"`                       // auto or manual
	Models        []string `json:"models_to_remove,omitempty"`         // manual: these, and no others
	MinUnusedDays *float64 `json:"min_unused_days,omitempty"`          // auto: only models that nobody has used for so long; absent is as configured
	KeepFrequent  *bool    `json:"preserve_frequently_used,omitempty"` // auto: models that are used often stay; absent is true
	DryRun        bool     `json:"dry_run,omitempty"`                  // only say what would go
}

// CleanedUp is what a cleanup removed, or would remove.
type CleanedUp struct {
	Success      bool            `json:"success"` // nothing went wrong
	Message      string          `json:"message"`
	ID           string          `json:"cleanup_id"`
	DryRun       bool            `json:"dry_run"`
	Removed      []string        `json:"models_removed"` // as a whole; never null
	SpaceFreedGB float64         `json:"space_freed_gb"`
	FreedBytes   int64           `json:"freed_bytes"`
	Preserved    []string        `json:"models_preserved"` // that were looked at, and stay; never null
	Summary      CleanupSummary  `json:"summary"`
	Items        []CleanupResult `json:"items"` // what was decided, and why; never null
}

// A CleanupSummary counts models: each is removed, preserved or an error.
type CleanupSummary struct {
	Processed int `json:"total_processed"`
	Removed   int `json:"removed"`
	Preserved int `json:"preserved"`
	Errors    int `json:"errors"`
}

// What a cleanup does with something, in CleanupResult.Action and CleanupCandidate.Action.
const (
	CleanupRemoveModel    = "remove_model"
	CleanupRemoveRevision = "remove_revision" // an old one; the model stays
	CleanupCollect        = "collect"         // contents that no revision needs; the model stays
	CleanupKeep           = "keep"
)

// A CleanupResult is one thing that a cleanup has decided.
type CleanupResult struct {
	Model      string `json:"model_id,omitempty"`
	Action     string `json:"action"` // remove_model, remove_revision, collect or keep
	Reason     string `json:"reason"` // in words
	FreedBytes int64  `json:"freed_bytes"`
	Error      string `json:"error_message,omitempty"` // why it could not be done
}

// A Use is one time that somebody worked with a model.
type Use struct {
	Model      string   `json:"model_id"`
	Operation  string   `json:"operation,omitempty"`   // what was done, such as generate
	DurationMS *float64 `json:"duration_ms,omitempty"` // how long it took
	Success    *bool    `json:"success,omitempty"`     // absent is true
	Bytes      int64    `json:"bytes,omitempty"`       // how much was read or made
}

// Used says that a use is counted.
type Used struct {
	Success bool      `json:"success"`
	Model   string    `json:"model_id"`
	At      time.Time `json:"timestamp"` // that it was counted at
}

// CleanupSuggestions are what could go.
type CleanupSuggestions struct {
	SavingsGB    float64            `json:"potential_savings_gb"`
	SafeToRemove int                `json:"safe_to_remove_count"`
	Candidates   []CleanupCandidate `json:"candidates"` // never null
}

// A CleanupCandidate is something that could go, and why.
type CleanupCandidate struct {
	Model      string     `json:"model_id"`
	Reason     string     `json:"reason"` // in words
	SizeGB     float64    `json:"size_gb"`
	SizeBytes  int64      `json:"size_bytes"`
	LastUsed   *time.Time `json:"last_used"`
	Action     string     `json:"action"`     // remove_model, remove_revision or collect
	Confidence *float64   `json:"confidence"` // 0 to 1: how sure it is that nobody will miss it
}
