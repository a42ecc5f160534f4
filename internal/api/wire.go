package api

import (
	"math"
	"strings"
	"time"

	"ema/client"
	"ema/internal/event"
	"ema/internal/fetch"
	"ema/internal/model"
	"ema/internal/queue"
)

// What goes over the wire is the client's: whoever asks and whoever answers must mean the same.
type (
	Download      = client.Download
	FileProgress  = client.FileProgress
	Result        = client.Result
	Manage        = client.Manage
	Managed       = client.Managed
	Active        = client.Active
	History       = client.History
	Event         = client.Event
	ProgressEvent = client.ProgressEvent
	ChangeEvent   = client.ChangeEvent
	RetryEvent    = client.RetryEvent
	LimitEvent    = client.LimitEvent
	SpaceEvent    = client.SpaceEvent
	Version       = client.Version
	Reloaded      = client.Reloaded
	Command       = client.Command
	Frame         = client.Frame
	Code          = client.Code
	Error         = client.Error
	envelope      = client.Envelope
	details       = client.Details
)

// Base is where the API begins.
const Base = client.Base

// The codes.
const (
	Malformed     = client.Malformed
	Invalid       = client.Invalid
	ModelNotFound = client.ModelNotFound
	Unauthorized  = client.Unauthorized
	RateLimited   = client.RateLimited
	NoEndpoint    = client.NoEndpoint
	WrongMethod   = client.WrongMethod
	WrongState    = client.WrongState
	NotPermitted  = client.NotPermitted
	QueueFull     = client.QueueFull
	NoSpace       = client.NoSpace
	NotReady      = client.NotReady
	Upstream      = client.Upstream
	Internal      = client.Internal

	BenchmarkTaken = client.BenchmarkTaken
	NoBenchmark    = client.NoBenchmark
)

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
	// Each tells how far each file is; nil, or an empty answer, when nobody knows.
	Each func() []fetch.FileProgress
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
	case event.Move:
		w.Move = &client.MoveEvent{
			From: string(data.From), To: string(data.To), State: data.State, ProgressPercent: percent(data.Done, data.Total),
			MovedBytes: int64(data.Done), TotalBytes: int64(data.Total), Error: data.Error,
		}
	case event.Benchmark:
		w.Benchmark = &client.BenchmarkEvent{
			ID: data.ID, State: data.State, Suite: data.Suite, Step: data.Step, ProgressPercent: math.Floor(min(data.Part, 1)*1000) / 10,
			ElapsedSeconds: data.Took.Seconds(), ETASeconds: seconds(data.Left), Error: data.Error,
		}
	case event.Tier:
		w.Tier = &client.TierEvent{Tier: string(data.Tier), State: data.State, Problem: data.Problem}
	case event.Space:
		w.Space = &SpaceEvent{ShortBytes: int64(data.Short), Reason: data.Reason}
	}
	return w
}
