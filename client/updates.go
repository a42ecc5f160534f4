package client

import "time"

// Updates is what the sources of models have that is newer than what is here.
type Updates struct {
	Updates []ModelUpdate `json:"updates"` // in the order of their names; never null
	Policy  string        `json:"policy"`  // pin, notify or auto
}

// A ModelUpdate is what the source of one model has. What nobody knows is null.
type ModelUpdate struct {
	Model      string            `json:"model_id"`
	Revision   string            `json:"revision"` // the branch that is followed
	Current    string            `json:"current_version"`
	Latest     *string           `json:"latest_version"`
	Available  *bool             `json:"update_available"`
	DownloadMB *float64          `json:"download_mb"` // to be fetched, at most; contents that are here are not counted
	CheckedAt  *time.Time        `json:"checked_at"`
	Error      string            `json:"error_message,omitempty"`    // why the source could not be asked last
	RolledBack string            `json:"rolled_back_from,omitempty"` // a commit that is not fetched again by itself
	Previous   []PreviousVersion `json:"previous_versions"`          // that can be rolled back to, the newest first; never null
}

// A PreviousVersion is a commit that is here as a whole beside the current one.
type PreviousVersion struct {
	Commit      string     `json:"commit"`
	CompletedAt *time.Time `json:"completed_at"` // null when another tool brought it
	SizeMB      float64    `json:"size_mb"`
}

// UpdateRequest names a model; "" is all, where that makes sense.
type UpdateRequest struct {
	Model string `json:"model_id,omitempty"`
}

// UpdateApplied answers the wish for an update: a download, that runs beside what is here.
type UpdateApplied struct {
	Success  bool   `json:"success"`
	Message  string `json:"message"`
	Model    string `json:"model_id"`
	Download string `json:"download_id"`
}

// RollbackRequest asks for an earlier commit.
type RollbackRequest struct {
	Model  string `json:"model_id"`
	Commit string `json:"commit,omitempty"` // "" is the one before the current one
}

// RolledBack answers a RollbackRequest.
type RolledBack struct {
	Success  bool   `json:"success"`
	Message  string `json:"message"`
	Model    string `json:"model_id"`
	Revision string `json:"revision"` // the branch
	From     string `json:"from"`
	To       string `json:"to"`
}
