package snapshot

import (
	"fmt"
	"math"
	"slices"
	"time"

	"ema/client"
	"ema/internal/model"
	"ema/internal/queue"
)

// mostMissing is how many names of missing files are in an answer; the rest is counted.
const mostMissing = 100

// A motion is a download as far as answers tell it; the zero motion is none. It is comparable, so that what has not
// moved is not encoded again.
type motion struct {
	id                  string
	state               model.State
	problem             string // the error that it stopped at; "" for none
	canPause, canResume bool
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
		id: d.ID, state: d.State,
		canPause: slices.Contains(can, queue.Pausing), canResume: slices.Contains(can, queue.Resuming),
		Figures: Figures{Done: d.Done, Total: d.Size},
	}
	if d.Class != "" {
		v.problem = d.Reason
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
	name    string   // as it is told: without secrets
	holding *holding // nil when nothing is here
	motion  motion
	failure string // of the last download; "" when it did not fail
	used    int64  // when it was used last, in nanoseconds of Unix; 0 when nobody knows
	perDay  float64
	pinned  bool
	latest  string
	well    Wellbeing
}

// use is when the model was used last and how often a day; nil when nobody knows.
func (f facts) use() (last *time.Time, perDay *float64) {
	if f.used == 0 {
		return nil, nil
	}
	return new(time.Unix(0, f.used).UTC()), &f.perDay
}

// judge says in one word how a model stands.
func (f facts) judge() string {
	r, moves := f.holding.first(), f.motion.id != ""
	switch {
	case r.complete() && f.motion.runs():
		return client.AvailabilityUpdating
	case r.complete():
		return client.AvailabilityAvailable
	case f.motion.runs():
		return client.AvailabilityDownloading
	case moves && f.motion.state == model.Paused:
		return client.AvailabilityPaused
	case moves:
		return client.AvailabilityQueued
	case f.holding.damaged():
		return client.AvailabilityCorrupted
	case f.failure != "":
		return client.AvailabilityFailed
	case f.holding != nil && (f.holding.stored > 0 || len(f.holding.revisions) > 0):
		return client.AvailabilityPartial
	}
	return client.AvailabilityMissing
}

// tell is the answer about one model. What nobody knows, such as what the source has, is null.
func (f facts) tell() client.ModelStatus {
	r, d := f.holding.first(), f.motion
	s := client.ModelStatus{
		Model: f.name, IsAvailable: r.complete(), Availability: f.judge(),
		MissingFiles: []string{}, CorruptionDetected: f.holding.damaged(), Revisions: []client.RevisionStatus{},
	}
	if h := f.holding; h != nil {
		s.SizeMB, s.SizeBytes = mb(h.size), int64(h.size)
		s.MissingFiles = append(s.MissingFiles, h.missing[:min(len(h.missing), mostMissing)]...)
		s.MissingFilesTotal = len(h.missing)
		s.CorruptedFiles = h.broken
		s.StorageTier = new(string(h.tier))
		if h.away != "" {
			s.StorageProblem = fmt.Sprintf("a part of it lies in the %s tier, which is not there; GET /api/v1/models/storage says why", h.away)
		}
		for _, r := range h.revisions {
			s.Revisions = append(s.Revisions, client.RevisionStatus{
				Commit: r.commit, Refs: append([]string{}, r.refs...), IsAvailable: r.complete(), State: string(r.state),
				SizeBytes: int64(r.size), Files: r.files, Path: r.path,
			})
		}
	}
	s.LastUsed, s.UsageFrequency = f.use()
	s.Pinned = f.pinned
	if !f.well.Checked.IsZero() {
		s.LastHealthCheck = new(f.well.Checked)
		if f.well.Performance >= 0 {
			s.PerformanceScore = new(f.well.Performance)
		}
		if f.well.Average >= 0 {
			s.AverageGenerationTime = new(f.well.Average)
		}
	}
	if r.complete() {
		s.CurrentVersion, s.Path = &r.commit, r.path
	}
	if f.latest != "" {
		s.LatestVersion = new(f.latest)
		s.UpdateAvailable = new(!r.complete() || r.commit != f.latest)
	}
	if r.checked && r.whole > 0 {
		s.IntegrityScore = new(float64(r.proven) / float64(r.whole))
	}
	switch {
	case !r.complete() && d.Total > 0:
		s.TotalMB = mb(d.Total)
	default:
		s.TotalMB = mb(r.whole)
	}
	s.DownloadError = f.failure
	if d.id != "" {
		s.DownloadID, s.CanPause, s.CanResume, s.DownloadError = d.id, d.canPause, d.canResume, d.problem
		s.DownloadProgress = new(percent(d.Done, d.Total))
		if d.runs() && d.ETA > 0 {
			s.EstimatedDownloadTime = new(d.ETA.Seconds())
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
