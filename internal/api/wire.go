package api

import (
	"errors"
	"math"
	"strings"
	"time"

	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/queue"
)

// Base is where the API begins.
const Base = "/api/v1"

// A Download is one download as it is told. Sizes in _mb are MiB, speeds in _mbps are MiB per second.
type Download struct {
	ID       string   `json:"download_id"`
	Model    string   `json:"model_id"`
	Revision string   `json:"revision,omitempty"` // as asked for
	Commit   string   `json:"commit,omitempty"`   // once resolved
	Include  []string `json:"include,omitempty"`
	Exclude  []string `json:"exclude,omitempty"`

	Status   string `json:"status"`              // QUEUED, RESOLVING, DOWNLOADING, VERIFYING, PAUSED, RETRYING, COMPLETED, FAILED or CANCELLED
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
	ErrorClass   string `json:"error_class,omitempty"` // by the name of its model.Class
	Reason       string `json:"reason,omitempty"`      // why it waits, is paused or has failed, in words
	Note         string `json:"note,omitempty"`        // the newest reason for a retry inside it

	CanPause  bool `json:"can_pause"`
	CanResume bool `json:"can_resume"`
	CanCancel bool `json:"can_cancel"`

	Path      string     `json:"path,omitempty"` // of the snapshot, once completed
	Result    *Result    `json:"result,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	StartedAt *time.Time `json:"started_at,omitempty"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
}

// A Result is what a completed download did. The daemon knows it of the newest ones only.
type Result struct {
	Revision string      `json:"revision"`
	Files    int         `json:"files"`
	Bytes    model.Bytes `json:"bytes"`
	Fetched  model.Bytes `json:"fetched"` // received over the network
	Seconds  float64     `json:"seconds"`
	Notes    []string    `json:"notes,omitempty"`
}

// State is the state that Status names.
func (d Download) State() model.State { return model.State(strings.ToLower(d.Status)) }

// Err is the failure of a failed or cancelled download as an error of its class; nil for every other.
func (d Download) Err() error {
	switch d.State() {
	case model.Failed:
		return &Error{Message: d.ErrorMessage, Class: classNamed(d.ErrorClass), Model: d.Model}
	case model.Stopped:
		return &Error{Message: "pull " + d.Model + ": the download was cancelled", Class: model.Cancelled, Model: d.Model}
	}
	return nil
}

// Figures are how a running download stands, or how one that was running ended.
type Figures struct {
	Stage       string
	Done, Total model.Bytes
	Rate        float64       // bytes per second; 0 is unknown
	ETA         time.Duration // 0 is unknown
	Connections int
	Files       int
	FilesDone   int
	Note        string
	Retries     map[string]int64 // by the name of their class; nil when there were none
	Result      *Result
}

// describe tells d. Figures and position are of what is known beside the record: nil and 0 for nothing.
func describe(d model.Download, f *Figures, position int) Download {
	w := Download{
		ID: d.ID, Model: d.Model.Public(), Revision: d.Revision, Commit: d.Commit, Include: d.Include, Exclude: d.Exclude,
		Status: status(d.State), PausedBy: string(d.Pause), Priority: d.Priority.String(), Position: position,
		RetryCount: d.Retries, MaxRetries: d.MaxRetries, LimitMBps: mb(d.Limit), Reason: d.Reason, ErrorClass: d.Class,
		Path: d.Path, CreatedAt: d.Created.UTC(), NextTry: moment(d.NextTry), StartedAt: moment(d.Started), EndedAt: moment(d.Ended),
	}
	if d.Class != "" {
		w.ErrorMessage = d.Reason
	}
	for _, action := range queue.Actions(d) {
		switch action {
		case queue.Pausing:
			w.CanPause = true
		case queue.Resuming:
			w.CanResume = true
		case queue.Cancelling:
			w.CanCancel = true
		}
	}
	done, total := d.Done, d.Size
	if f != nil {
		w.Result = f.Result
		w.Files, w.FilesDone = f.Files, f.FilesDone
	}
	if f != nil && running(d.State) {
		w.Stage, w.Connections, w.SpeedMBps, w.Note = f.Stage, f.Connections, f.Rate/float64(model.MiB), f.Note
		w.RetriesByClass = f.Retries
		w.ETASeconds = seconds(f.ETA)
		if f.Total > 0 {
			done, total = f.Done, f.Total
		}
	}
	w.DownloadedBytes, w.TotalBytes, w.DownloadedMB, w.TotalMB = int64(done), int64(total), mb(done), mb(total)
	w.ProgressPercent = percent(done, total)
	if d.State == model.Completed {
		w.ProgressPercent = 100
	}
	return w
}

// running reports whether bytes of such a download may be on their way.
func running(s model.State) bool {
	return s == model.Resolving || s == model.Downloading || s == model.Verifying
}

func status(s model.State) string { return strings.ToUpper(string(s)) }

func mb(b model.Bytes) float64 { return float64(b) / float64(model.MiB) }

func percent(done, total model.Bytes) float64 {
	if total <= 0 {
		return 0
	}
	return math.Floor(min(float64(done)/float64(total), 1)*1000) / 10
}

// moment is t on the wire; the zero time is none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func seconds(d time.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	s := d.Seconds()
	return &s
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

// An Event is what just happened. One of the pointers is set, as Type says.
type Event struct {
	Seq        uint64         `json:"seq"`
	At         time.Time      `json:"timestamp"`
	Type       string         `json:"type"` // progress, state, retry, limit or space
	DownloadID string         `json:"download_id,omitempty"`
	Model      string         `json:"model_id,omitempty"`
	Progress   *ProgressEvent `json:"progress,omitempty"`
	Change     *ChangeEvent   `json:"state,omitempty"`
	Retry      *RetryEvent    `json:"retry,omitempty"`
	Limit      *LimitEvent    `json:"limit,omitempty"`
	Space      *SpaceEvent    `json:"space,omitempty"`
}

// A ProgressEvent is how a running download stands.
type ProgressEvent struct {
	Status          string   `json:"status"`
	Stage           string   `json:"stage,omitempty"`
	ProgressPercent float64  `json:"progress_percent"`
	DownloadedBytes int64    `json:"downloaded_bytes"`
	TotalBytes      int64    `json:"total_bytes"`
	SpeedMBps       float64  `json:"speed_mbps"`
	ETASeconds      *float64 `json:"eta_seconds"`
	Connections     int      `json:"connections"`
	Files           int      `json:"files_total"`
	FilesDone       int      `json:"files_done"`
	Note            string   `json:"note,omitempty"`
}

// A ChangeEvent is a new state of a download.
type ChangeEvent struct {
	Old     string     `json:"old_status"`
	New     string     `json:"new_status"`
	Reason  string     `json:"reason,omitempty"`
	NextTry *time.Time `json:"next_try,omitempty"`
}

// A RetryEvent is an attempt that failed and is repeated.
type RetryEvent struct {
	Host        string  `json:"host,omitempty"`
	Class       string  `json:"error_class"`
	Error       string  `json:"error_message"`
	WaitSeconds float64 `json:"wait_seconds"`
}

// A LimitEvent is a new limit for all downloads together.
type LimitEvent struct {
	LimitMBps float64 `json:"bandwidth_limit_mbps"` // 0 is none
	Reason    string  `json:"reason"`
}

// A SpaceEvent says that the disk is too full to go on.
type SpaceEvent struct {
	ShortBytes int64  `json:"short_bytes"`
	Reason     string `json:"reason"`
}

// tell is e on the wire. Figures are of the download that it is about, nil for none.
func tell(e event.Event, f *Figures) Event {
	w := Event{Seq: e.Seq, At: e.At.UTC(), Type: string(e.Kind), DownloadID: e.Download}
	if !e.Model.IsZero() {
		w.Model = e.Model.Public()
	}
	switch data := e.Data.(type) {
	case event.Progress:
		w.Progress = &ProgressEvent{
			Status: status(data.State), ProgressPercent: percent(data.Done, data.Total),
			DownloadedBytes: int64(data.Done), TotalBytes: int64(data.Total),
			SpeedMBps: data.Rate / float64(model.MiB), ETASeconds: seconds(data.ETA), Connections: data.Connections, Note: data.Note,
		}
		if f != nil {
			w.Progress.Stage, w.Progress.Files, w.Progress.FilesDone = f.Stage, f.Files, f.FilesDone
		}
	case event.Change:
		w.Change = &ChangeEvent{Old: status(data.From), New: status(data.To), Reason: data.Reason, NextTry: moment(data.NextTry)}
	case event.Retry:
		w.Retry = &RetryEvent{Host: data.Host, Class: data.Class.String(), Error: data.Error, WaitSeconds: data.Wait.Seconds()}
	case event.Limit:
		w.Limit = &LimitEvent{LimitMBps: mb(data.Rate), Reason: data.Why}
	case event.Space:
		w.Space = &SpaceEvent{ShortBytes: int64(data.Short), Reason: data.Reason}
	}
	return w
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

// Code says in one word for programs why a request failed.
type Code string

// The codes.
const (
	Malformed     Code = "MALFORMED_REQUEST"
	Invalid       Code = "VALIDATION_FAILED"
	ModelNotFound Code = "MODEL_NOT_FOUND"
	NoEndpoint    Code = "ENDPOINT_NOT_FOUND"
	WrongMethod   Code = "METHOD_NOT_ALLOWED"
	WrongState    Code = "WRONG_STATE"
	NotPermitted  Code = "NOT_PERMITTED"
	QueueFull     Code = "QUEUE_FULL"
	NoSpace       Code = "NO_SPACE"
	NotReady      Code = "NOT_READY"
	Upstream      Code = "UPSTREAM_FAILED"
	Internal      Code = "INTERNAL_ERROR"
)

// An Error is an answer that says why not. It prints as the daemon's own sentence, and is of the class that the
// failure has there, so that a command exits alike with and without a daemon.
type Error struct {
	Code      Code
	Message   string
	Class     model.Class
	Model     string   // empty when none is concerned
	State     string   // WrongState: the state that the download is in
	Allowed   []string // WrongState: what it allows
	After     time.Duration
	Short     model.Bytes // NoSpace: how much is missing; 0 when nobody knows
	RequestID string
	Status    int // of HTTP; 0 when the error came in another way
}

// Error is the sentence.
func (e *Error) Error() string { return e.Message }

// Unwrap gives the class to model.ClassOf.
func (e *Error) Unwrap() error {
	id, _ := model.ParseID(e.Model) //nolint:errcheck // the zero ID names nothing
	return &model.Error{Op: "ask the daemon", Class: e.Class, Model: id, After: e.After, Short: e.Short, Err: errors.New(e.Message)}
}

// classNamed is the reverse of model.Class.String.
func classNamed(name string) model.Class {
	for c := model.Other; c <= model.Offline; c++ {
		if c.String() == name {
			return c
		}
	}
	return model.Other
}

// envelope is an Error on the wire.
type envelope struct {
	Error struct {
		Code      Code      `json:"code"`
		Message   string    `json:"message"`
		Details   details   `json:"details"`
		Timestamp time.Time `json:"timestamp"`
		RequestID string    `json:"request_id"`
	} `json:"error"`
}

type details struct {
	Class             string   `json:"class"`
	Model             string   `json:"model_id,omitempty"`
	State             string   `json:"state,omitempty"`
	Allowed           []string `json:"allowed_actions,omitempty"`
	RetryAfterSeconds float64  `json:"retry_after_seconds,omitempty"`
	ShortBytes        int64    `json:"short_bytes,omitempty"`
}
