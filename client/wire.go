package client

import "time"

// Base is where the API begins.
const Base = "/api/v1"

// What a download can be, in Download.Status and wherever else a status is told.
const (
	StatusQueued      = "QUEUED"
	StatusResolving   = "RESOLVING"
	StatusDownloading = "DOWNLOADING"
	StatusVerifying   = "VERIFYING"
	StatusPaused      = "PAUSED"
	StatusRetrying    = "RETRYING"
	StatusCompleted   = "COMPLETED"
	StatusFailed      = "FAILED"
	StatusCancelled   = "CANCELLED"
)

// A Download is one download as it is told. Sizes in _mb are MiB, speeds in _mbps are MiB per second.
type Download struct {
	ID       string   `json:"download_id"`
	Model    string   `json:"model_id"`
	Revision string   `json:"revision,omitempty"` // as asked for
	Commit   string   `json:"commit,omitempty"`   // once resolved
	Include  []string `json:"include,omitempty"`
	Exclude  []string `json:"exclude,omitempty"`

	Status   string `json:"status"`              // one of the Status constants
	Stage    string `json:"stage,omitempty"`     // of a running one: resolving, checking, fetching or publishing
	PausedBy string `json:"paused_by,omitempty"` // user, preempted or no space
	Priority string `json:"priority"`            // low, normal, high or critical
	Position int    `json:"queue_position,omitempty"`

	ProgressPercent float64  `json:"progress_percent"` // rounded down to a tenth: 100 means all
	DownloadedMB    float64  `json:"downloaded_mb"`
	TotalMB         float64  `json:"total_mb"`
	DownloadedBytes int64    `json:"downloaded_bytes"`
	TotalBytes      int64    `json:"total_bytes"` // 0 until it is known
	SpeedMBps       float64  `json:"speed_mbps"`
	ETASeconds      *float64 `json:"eta_seconds"` // null while it is unknown
	Connections     int      `json:"connections"`
	Files           int      `json:"files_total"`
	FilesDone       int      `json:"files_done"`
	LimitMBps       float64  `json:"bandwidth_limit_mbps"` // of its own; 0 is none
	RetryCount      int      `json:"retry_count"`
	// RetriesByClass are the attempts inside this run that failed and were repeated, by what had failed.
	RetriesByClass map[string]int64 `json:"retries_by_class,omitempty"`
	MaxRetries     int              `json:"max_retries"`
	NextTry        *time.Time       `json:"next_try,omitempty"`

	ErrorMessage string `json:"error_message"`         // the sentence of its failure, or of the failure that it waits for
	ErrorClass   string `json:"error_class,omitempty"` // by the name of its Class
	Reason       string `json:"reason,omitempty"`      // why it waits, is paused or has failed, in words
	Note         string `json:"note,omitempty"`        // the newest reason for a retry inside it

	CanPause  bool `json:"can_pause"`
	CanResume bool `json:"can_resume"`
	CanCancel bool `json:"can_cancel"`

	// Each is file by file. Only the answer about one download has it, and it is empty while nothing is known: before
	// the download runs, and some time after it has ended.
	Each []FileProgress `json:"files,omitzero"`

	Path      string     `json:"path,omitempty"` // of the snapshot, once completed
	Result    *Result    `json:"result,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	StartedAt *time.Time `json:"started_at,omitempty"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
}

// A FileProgress is how far one file of a download is. Files of the same content are fetched once, and grow together.
type FileProgress struct {
	Path            string  `json:"path"`
	SizeMB          float64 `json:"size_mb"`
	SizeBytes       int64   `json:"size_bytes"`
	DownloadedBytes int64   `json:"downloaded_bytes"`
	ProgressPercent float64 `json:"progress_percent"` // rounded down to a tenth: 100 means all
}

// A Result is what a completed download did. The daemon knows it of the newest ones only.
type Result struct {
	Revision string   `json:"revision"`
	Files    int      `json:"files"`
	Bytes    int64    `json:"bytes"`
	Fetched  int64    `json:"fetched"` // received over the network
	Seconds  float64  `json:"seconds"`
	Notes    []string `json:"notes,omitempty"`
}

// Over reports whether the download has ended, well or not: nothing will become of it any more.
func (d Download) Over() bool {
	return d.Status == StatusCompleted || d.Status == StatusFailed || d.Status == StatusCancelled
}

// Err is the failure of a failed or cancelled download as an error of its class; nil for every other.
func (d Download) Err() error {
	switch d.Status {
	case StatusFailed:
		return &Error{Message: d.ErrorMessage, Class: classNamed(d.ErrorClass), Model: d.Model}
	case StatusCancelled:
		return &Error{Message: "pull " + d.Model + ": the download was cancelled", Class: ClassCancelled, Model: d.Model}
	}
	return nil
}

// Manage asks for something to be done with a download.
type Manage struct {
	Model    string `json:"model_id,omitempty"`
	Action   string `json:"action"`        // start, pause, resume, cancel, prioritize or limit
	All      bool   `json:"all,omitempty"` // instead of model_id: pause, resume or cancel every download that can be
	Revision string `json:"revision,omitempty"`

	Include     []string `json:"include,omitempty"` // to start
	Exclude     []string `json:"exclude,omitempty"` // to start
	Priority    string   `json:"priority,omitempty"`
	MaxRetries  *int     `json:"max_retries,omitempty"`          // to start
	Connections int      `json:"connections,omitempty"`          // to start; 0 is as configured
	LimitMBps   *float64 `json:"bandwidth_limit_mbps,omitempty"` // to start and to limit; 0 is none
}

// Managed is what became of it. The first fields are about the first of Downloads.
type Managed struct {
	Success             bool       `json:"success"`
	Message             string     `json:"message"`
	DownloadID          string     `json:"download_id"`
	NewStatus           string     `json:"new_status"`
	EstimatedCompletion *time.Time `json:"estimated_completion"` // null while it is unknown
	Existing            bool       `json:"existing,omitempty"`   // start: it was there already
	Downloads           []Download `json:"downloads"`
}

// Active are the downloads that are not over, in the order in which they run.
type Active struct {
	Downloads []Download `json:"active_downloads"`
	Total     int        `json:"total_active"`
	SpeedMBps float64    `json:"total_bandwidth_usage_mbps"`
	LimitMBps float64    `json:"bandwidth_limit_mbps"`             // that holds now; 0 is none
	LimitWhy  string     `json:"bandwidth_limit_reason,omitempty"` // in words
}

// History are downloads that are over, newest first.
type History struct {
	Downloads []Download `json:"downloads"`
	Page      int        `json:"page"`
	Limit     int        `json:"limit"`
}

// Version says what the daemon is.
type Version struct {
	Version  string    `json:"version"`
	Commit   string    `json:"commit"`
	Go       string    `json:"go"`
	Platform string    `json:"platform"`
	PID      int       `json:"pid"`
	Since    time.Time `json:"started_at"`
	Store    string    `json:"store"`
}

// Reloaded says which settings a reload has changed.
type Reloaded struct {
	Success         bool     `json:"success"`
	Updated         []string `json:"updated_settings"`
	RestartRequired bool     `json:"restart_required"`
	RestartKeys     []string `json:"restart_keys"` // of Updated, those that act after a restart only
	// Warnings are about settings that will disappoint, and about changes that a variable or a flag keeps from acting.
	Warnings []SettingWarning `json:"warnings,omitempty"`
}

// A Command is a command line that the daemon executes because it owns the store.
type Command struct {
	Args    []string `json:"args"`              // without the program's name
	Columns int      `json:"columns,omitempty"` // of the terminal at the other end; 0 is none
}

// A Frame is a piece of a command's output, or its end.
type Frame struct {
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	Exit   *int   `json:"exit,omitempty"`
}
