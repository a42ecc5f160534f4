package live

import (
	"encoding/json"
	"math"
	"strings"
	"time"

	"ema/internal/event"
	"ema/internal/model"
)

// The types of messages.
const (
	downloadProgress   = "model_download_progress"
	availabilityChange = "model_availability_change"
	healthAlert        = "model_health_alert"
	storageAlert       = "storage_alert"
	performanceAlert   = "performance_alert"
	optimization       = "optimization_applied"
	benchmarkProgress  = "benchmark_progress"
	downloadRetry      = "download_retry"
	bandwidthLimit     = "bandwidth_limit"
	storageMove        = "model_storage_move"
	updateAvailable    = "model_update_available"
	modelAvailable     = "model_available"
)

// types are all that a client may ask for: those of the contract, whether or not anything tells them yet, and ours.
func types() []string {
	return []string{
		downloadProgress, availabilityChange, healthAlert, storageAlert, performanceAlert, optimization, benchmarkProgress,
		downloadRetry, bandwidthLimit, storageMove, updateAvailable, modelAvailable,
	}
}

// A message is an event in the form in which it goes to every client. Nobody changes it.
type message struct {
	seq      uint64
	kind     string // its type
	model    string // "" when none is concerned
	subject  string // whose older progress it replaces: a download, or the move of a model
	fleeting bool   // it is progress: a newer one makes it worthless
	json     []byte
}

// head is what every message begins with. It flattens into the message.
type head struct {
	Type     string    `json:"type"`
	Seq      uint64    `json:"seq"`
	At       time.Time `json:"timestamp"`
	Model    string    `json:"model_id,omitempty"`
	Download string    `json:"download_id,omitempty"`
}

type progressMessage struct {
	head
	Status      string      `json:"status"`
	Percent     float64     `json:"progress_percent"` // rounded down to a tenth: 100 means all
	MBps        float64     `json:"speed_mbps"`
	ETA         *float64    `json:"eta_seconds"` // null while it is unknown
	Done        model.Bytes `json:"downloaded_bytes"`
	Total       model.Bytes `json:"total_bytes"` // 0 while it is unknown
	Connections int         `json:"connections"`
	Note        string      `json:"note,omitempty"`
}

type changeMessage struct {
	head
	Old string `json:"old_status"` // of the model, in the words of availability_status
	New string `json:"new_status"`
	// The step of the download, in the words of its status: one step in three leaves the model as it was.
	OldStep string    `json:"old_download_status,omitempty"`
	NewStep string    `json:"new_download_status"`
	Reason  string    `json:"reason,omitempty"`
	NextTry time.Time `json:"next_try,omitzero"`
}

// A storageMessage says that something about the disks needs somebody, or that it no longer does.
type storageMessage struct {
	head
	Alert    string      `json:"alert_type"` // space, or tier_ and the state of the tier
	Severity string      `json:"severity"`   // critical, warning or info
	Message  string      `json:"message"`
	Short    model.Bytes `json:"short_bytes"`    // of space
	Tier     model.Tier  `json:"tier,omitempty"` // of the others
}

type moveMessage struct {
	head
	From    model.Tier  `json:"from"`
	To      model.Tier  `json:"to"`
	State   string      `json:"state"`
	Percent float64     `json:"progress_percent"` // rounded down to a tenth: 100 means all
	Done    model.Bytes `json:"moved_bytes"`
	Total   model.Bytes `json:"total_bytes"`
	Error   string      `json:"error_message,omitempty"`
}

// A benchmarkMessage says how far a benchmark is.
type benchmarkMessage struct {
	head
	ID      string   `json:"benchmark_id"`
	Status  string   `json:"status"`           // running, completed, failed or cancelled
	Suite   string   `json:"suite,omitempty"`  // that runs
	Step    string   `json:"step,omitempty"`   // what is measured
	Percent float64  `json:"progress_percent"` // rounded down to a tenth: 100 means all
	Took    float64  `json:"elapsed_seconds"`
	Left    *float64 `json:"eta_seconds"` // at most; null when it is over
	Error   string   `json:"error_message,omitempty"`
}

// An updateMessage says that the source of a model has something newer.
type updateMessage struct {
	head
	Revision string  `json:"revision"`
	Current  string  `json:"current_version"`
	Latest   string  `json:"latest_version"`
	MB       float64 `json:"download_mb"` // to be fetched, at most
}

// An optimizationMessage says that a setting was changed by itself, or back, or that this is decided.
type optimizationMessage struct {
	head
	ID     string  `json:"optimization_id"`
	Rule   string  `json:"optimization_type"`
	Key    string  `json:"setting"`
	From   string  `json:"from"`
	To     string  `json:"to"`
	Status string  `json:"status"`
	Reason string  `json:"reason"`
	Figure string  `json:"metric"`
	Better float64 `json:"improvement_percent"` // 0 while it is unknown
}

// An awaitedMessage says that a model is available, to one who waited for it.
type awaitedMessage struct {
	head
	ID string `json:"queue_id"`
}

// A healthMessage says that a model is no longer as well, or as bad, as it was.
type healthMessage struct {
	head
	Alert    string `json:"alert_type"` // how the model is now: healthy, degraded, corrupted or unknown
	Old      string `json:"old_health"`
	Severity string `json:"severity"` // critical, warning or info
	Message  string `json:"message"`
	Advice   string `json:"recommended_action,omitempty"`
}

// A performanceMessage says that a figure has become worse, or is as it was again.
type performanceMessage struct {
	head
	Metric   string  `json:"metric"`
	Severity string  `json:"severity"` // warning, or info when it is well again
	Message  string  `json:"message"`
	Advice   string  `json:"recommended_action,omitempty"`
	Before   float64 `json:"before"`
	Now      float64 `json:"now"`
}

type retryMessage struct {
	head
	Host  string  `json:"host,omitempty"`
	Class string  `json:"error_class"`
	Error string  `json:"error_message"`
	Wait  float64 `json:"wait_seconds"`
}

type limitMessage struct {
	head
	MBps   float64 `json:"bandwidth_limit_mbps"` // 0 is none
	Reason string  `json:"reason"`
}

// encode is e as a message, nil when clients are not told of such events: the kinds of a newer house pass unharmed.
func encode(e event.Event) (*message, error) {
	h := head{Seq: e.Seq, At: e.At.UTC(), Download: e.Download}
	if !e.Model.IsZero() {
		h.Model = e.Model.Public()
	}
	var body any
	subject, fleeting := e.Download, false
	switch d := e.Data.(type) {
	case event.Progress:
		h.Type, fleeting = downloadProgress, true
		body = progressMessage{
			h, status(d.State), percent(d.Done, d.Total), finite(d.Rate) / float64(model.MiB), seconds(d.ETA), d.Done, d.Total, d.Connections, d.Note,
		}
	case event.Change:
		h.Type = availabilityChange
		body = changeMessage{h, availability(d.From), availability(d.To), status(d.From), status(d.To), d.Reason, d.NextTry}
	case event.Space:
		h.Type = storageAlert
		body = storageMessage{h, "space", "critical", d.Reason, d.Short, ""} // downloads stand still until there is room
	case event.Tier:
		h.Type = storageAlert
		body = tierAlert(h, d)
	case event.Move:
		h.Type, fleeting = storageMove, d.State == event.MoveMoving
		subject = storageMove + " " + e.Model.String() // two signed links may look alike
		body = moveMessage{h, d.From, d.To, d.State, percent(d.Done, d.Total), d.Done, d.Total, d.Error}
	case event.Benchmark:
		h.Type, fleeting = benchmarkProgress, d.State == event.BenchmarkRunning
		subject = benchmarkProgress + " " + d.ID
		body = benchmarkMessage{h, d.ID, d.State, d.Suite, d.Step, math.Floor(min(finite(d.Part), 1)*1000) / 10, d.Took.Seconds(), seconds(d.Left), d.Error}
	case event.Awaited:
		h.Type = modelAvailable
		body = awaitedMessage{h, d.ID}
	case event.Optimization:
		h.Type = optimization
		body = optimizationMessage{h, d.ID, d.Rule, d.Key, d.From, d.To, d.Status, d.Reason, d.Figure, 100 * finite(d.Better)}
	case event.Update:
		h.Type = updateAvailable
		body = updateMessage{h, d.Revision, d.Current, d.Latest, float64(d.Download) / float64(model.MiB)}
	case event.Health:
		h.Type = healthAlert
		body = healthMessage{h, string(d.To), string(d.From), string(d.Severity), d.Message, d.Advice}
	case event.Performance:
		h.Type = performanceAlert
		body = performanceMessage{h, d.Metric, string(d.Severity), d.Message, d.Advice, d.Before, d.Now}
	case event.Retry:
		h.Type = downloadRetry
		body = retryMessage{h, d.Host, d.Class.String(), d.Error, d.Wait.Seconds()}
	case event.Limit:
		h.Type = bandwidthLimit
		body = limitMessage{h, float64(d.Rate) / float64(model.MiB), d.Why}
	default:
		return nil, nil
	}
	text, err := json.Marshal(body)
	return &message{e.Seq, h.Type, h.Model, subject, fleeting, text}, err
}

// tierAlert is what is told of a tier whose folder is no longer as it was. Models in one that is missing cannot be loaded.
func tierAlert(h head, t event.Tier) storageMessage {
	m := storageMessage{h, "tier_" + t.State, "warning", t.Problem, 0, t.Tier}
	switch t.State {
	case "missing":
		m.Severity = "critical"
	case "ready":
		m.Severity = "info"
	}
	if m.Message == "" {
		m.Message = "the " + string(t.Tier) + " tier is " + strings.ReplaceAll(t.State, "_", " ") + " again"
	}
	return m
}

// availability is how a model stands that has a download in that state, as far as the download alone can tell: whether
// another revision of it is here, or the part that a cancelled one has left, is for the model's status to say.
func availability(s model.State) string {
	switch s {
	case model.Resolving, model.Downloading, model.Verifying:
		return "DOWNLOADING"
	case model.Queued, model.Retrying:
		return "QUEUED"
	case model.Paused:
		return "PAUSED"
	case model.Completed:
		return "AVAILABLE"
	case model.Failed:
		return "FAILED"
	}
	return "MISSING" // before its first download, and after one that was cancelled
}

func status(s model.State) string { return strings.ToUpper(string(s)) }

func percent(done, total model.Bytes) float64 {
	if total <= 0 {
		return 0
	}
	return math.Floor(min(float64(done)/float64(total), 1)*1000) / 10
}

// finite is f where JSON has a number for it, and 0, which is unknown, where it has none.
func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

func seconds(d time.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	s := d.Seconds()
	return &s
}
