package snapshot

import (
	"math"
	"slices"
	"time"

	"ema/internal/model"
	"ema/internal/queue"
)

// Availability says in one word how a model stands.
type availability string

const (
	available   availability = "AVAILABLE"
	downloading availability = "DOWNLOADING"
	queued      availability = "QUEUED"
	paused      availability = "PAUSED"
	partial     availability = "PARTIAL"
	missing     availability = "MISSING"
	corrupted   availability = "CORRUPTED"
	updating    availability = "UPDATING"
	failed      availability = "FAILED"
)

// A motion is a download as far as answers tell it; the zero motion is none. It is comparable, so that what has not
// moved is not encoded again.
type motion struct {
	id, revision, commit string
	state                model.State
	reason               string
	nextTry              time.Time
	canPause, canResume  bool
	Figures
}

// runs reports whether bytes of it may be on their way.
func (d motion) runs() bool {
	return d.state == model.Resolving || d.state == model.Downloading || d.state == model.Verifying
}

// move is what answers need of a download. Figures are asked for only while it runs.
func move(d model.Download, figures func(string) (Figures, bool)) motion {
	can := queue.Actions(d)
	v := motion{
		id: d.ID, revision: d.Revision, commit: d.Commit, state: d.State, reason: d.Reason, nextTry: d.NextTry,
		canPause: slices.Contains(can, queue.Pausing), canResume: slices.Contains(can, queue.Resuming),
		Figures: Figures{Done: d.Done, Total: d.Size},
	}
	if v.runs() {
		if f, ok := figures(d.ID); ok {
			if f.Total == 0 {
				f.Done, f.Total = d.Done, d.Size
			}
			v.Figures = f
		}
	}
	return v
}

// facts are all that an answer about one model is made of.
type facts struct {
	id      model.ID
	holding *holding // nil when nothing is here
	motion  motion
	failure string // of the last download; "" when it did not fail
}

// judge says how a model stands, and why where that is known.
func (f facts) judge() (availability, string) {
	r, moves := f.holding.first(), f.motion.id != ""
	switch {
	case r.complete() && f.motion.runs():
		return updating, f.motion.reason
	case r.complete():
		return available, ""
	case f.motion.runs():
		return downloading, f.motion.reason
	case moves && f.motion.state == model.Paused:
		return paused, f.motion.reason
	case moves:
		return queued, f.motion.reason
	case f.holding.damaged():
		return corrupted, "a file is not what it was, or not what it should be; download the model again to repair it"
	case f.failure != "":
		return failed, f.failure
	case f.holding != nil && (f.holding.stored > 0 || len(f.holding.revisions) > 0):
		return partial, "something that is wanted is missing; download the model again to complete it"
	}
	return missing, "nothing of it is here"
}

// tell is the answer about one model.
func (f facts) tell() modelStatus {
	status, reason := f.judge()
	r, d := f.holding.first(), f.motion
	s := modelStatus{
		ModelID: f.id.Public(), IsAvailable: r.complete(), AvailabilityStatus: string(status), StatusReason: reason,
		MissingFiles: []string{}, DamagedFiles: []string{}, CorruptionDetected: f.holding.damaged(),
		CanPauseDownload: d.canPause, CanResumeDownload: d.canResume, Path: r.path, Revisions: []revisionStatus{},
	}
	if h := f.holding; h != nil {
		s.StoredMB = mb(h.stored)
		s.MissingFiles = append(s.MissingFiles, h.missing...)
		s.DamagedFiles = append(s.DamagedFiles, h.broken...)
		for _, r := range h.revisions {
			s.Revisions = append(s.Revisions, revisionStatus{
				Commit: r.commit, Refs: append([]string{}, r.refs...), State: string(r.state), SizeMB: mb(r.size), Files: r.files,
				CompletedAt: moment(r.completed),
			})
		}
	}
	if r.commit != "" {
		s.CurrentVersion = &r.commit
	}
	switch {
	case r.complete():
		s.SizeMB, s.DownloadProgress = mb(r.size), 100
	case d.Total > 0:
		s.SizeMB, s.DownloadProgress = mb(d.Total), percent(d.Done, d.Total)
	case r.whole > 0:
		s.SizeMB, s.DownloadProgress = mb(r.whole), percent(r.size, r.whole)
	}
	if d.id != "" {
		s.Download = &downloadStatus{
			ID: d.id, Status: stateName(d.state), Revision: d.revision, Commit: d.commit, ProgressPercent: percent(d.Done, d.Total),
			DownloadedMB: mb(d.Done), TotalMB: mb(d.Total), NextTry: moment(d.nextTry),
		}
		if d.runs() {
			s.Download.SpeedMBps = d.Rate / float64(model.MiB)
			s.EstimatedDownloadTime = seconds(d.ETA)
		}
	}
	return s
}

func mb(b model.Bytes) float64 { return float64(b) / float64(model.MiB) }
func gb(b model.Bytes) float64 { return float64(b) / float64(model.GiB) }

// percent is rounded down to a tenth: 100 means all.
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
