package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"ema/internal/api/trust"
	"ema/internal/model"
	"ema/internal/queue"
)

// manageBody is a Manage, with what the document says of its fields and what is checked of each by itself.
type manageBody struct {
	Model    string `json:"model_id,omitempty" doc:"The model: org/name, or the URL of a file or of a folder." example:"acme/tiny-llm"`
	Action   string `json:"action" enum:"start,pause,resume,cancel,repair,prioritize,limit" doc:"What to do."`
	All      bool   `json:"all,omitempty" doc:"Instead of model_id: pause, resume or cancel every download that can be."`
	Revision string `json:"revision,omitempty" doc:"A branch, a tag or a commit; the default is that of the source." example:"main"`

	Include     []string `json:"include,omitempty" doc:"To start: fetch only files that match one of these patterns."`
	Exclude     []string `json:"exclude,omitempty" doc:"To start: fetch no file that matches one of these patterns."`
	Priority    string   `json:"priority,omitempty" enum:"low,normal,high,critical" doc:"To start and to prioritize; critical pauses the lowest one that runs. The default is normal."`
	MaxRetries  *int     `json:"max_retries,omitempty" minimum:"0" maximum:"1000" doc:"To start: how often to try again; the default is as configured."`
	Connections int      `json:"connections,omitempty" minimum:"0" maximum:"4096" doc:"To start: over how many connections; 0 is as configured."`
	LimitMBps   *float64 `json:"bandwidth_limit_mbps,omitempty" minimum:"0" maximum:"1000000" doc:"To start and to limit: MiB per second; 0 is no limit."`
}

// Resolve refuses what is wrong with fields together, so that all mistakes are told at once.
func (m *manageBody) Resolve(_ huma.Context, at *huma.PathBuffer) (wrong []error) {
	blame := func(path, format string, args ...any) {
		d := &huma.ErrorDetail{Location: at.With(path), Message: fmt.Sprintf(format, args...)}
		if path == "model_id" {
			d.Value = m.Model
		}
		wrong = append(wrong, d)
	}
	bulk := m.Action == queue.Pausing || m.Action == queue.Resuming || m.Action == queue.Cancelling
	switch {
	case m.All && m.Action == starting:
		blame("all", "there is no such thing as every model; name one in model_id")
	case m.All && (m.Model != "" || !bulk):
		blame("all", "it stands instead of model_id, for pause, resume and cancel")
	case !m.All && m.Model == "":
		blame("model_id", "it is missing; name a model")
	}
	if m.Model != "" {
		if _, err := model.ParseID(m.Model); err != nil {
			blame("model_id", "%v", err)
		}
	}
	if m.Revision != "" {
		if err := model.CheckRevision(m.Revision); err != nil {
			blame("revision", "%v", err)
		}
	}
	if m.Action == queue.Prioritizing && m.Priority == "" {
		blame("priority", "name one of low, normal, high, critical")
	}
	if m.Action == queue.Limiting && m.LimitMBps == nil {
		blame("bandwidth_limit_mbps", "name one; 0 is none")
	}
	return wrong
}

type manageRequest struct{ Body manageBody }

// manage starts downloads and changes their course.
func (s *Server) manage(ctx context.Context, r *manageRequest) (*Managed, error) {
	m := Manage(r.Body)
	aim(ctx, s.target(m))
	if err := trust.Permit(ctx, roleOf(m.Action)); err != nil {
		return nil, err
	}
	changed, existing, what, err := s.do(ctx, m)
	if err != nil {
		return nil, err
	}
	done := &Managed{Success: true, Existing: existing, Downloads: make([]Download, 0, len(changed)), Message: what}
	for _, d := range changed {
		done.Downloads = append(done.Downloads, s.describe(d, s.figures(d.ID), 0))
	}
	if what == "" {
		done.Message = said(m, *done)
	}
	if len(changed) > 0 {
		first := done.Downloads[0]
		done.DownloadID, done.NewStatus, done.EstimatedCompletion = first.ID, first.Status, soon(first.ETASeconds)
	}
	return done, nil
}

// target is what m is about, without secrets.
func (s *Server) target(m Manage) string {
	if m.All {
		return m.Action + " all"
	}
	id, err := model.ParseID(m.Model)
	if err != nil {
		return m.Action
	}
	return m.Action + " " + id.Public()
}

// said is what happened, in a sentence.
func said(m Manage, a Managed) string {
	done := map[string]string{"start": "queued", "pause": "paused", "resume": "resumed", "cancel": "cancelled", "prioritize": "now of priority " + m.Priority, "limit": "limited"}[m.Action]
	if a.Existing {
		done = "there already, " + a.Downloads[0].Status
	}
	switch len(a.Downloads) {
	case 0:
		return "there was nothing to " + m.Action
	case 1:
		return a.Downloads[0].Model + ": " + done
	}
	return fmt.Sprintf("%d downloads: %s", len(a.Downloads), done)
}

// do does it. existing says that what was to be started was there already; what is said of it, if that is known better
// than from what has changed.
func (s *Server) do(ctx context.Context, m Manage) (changed []model.Download, existing bool, what string, err error) {
	priority, err := model.ParsePriority(m.Priority)
	if err != nil {
		return nil, false, "", invalid("priority", "%v", err)
	}
	limit := model.Bytes(0)
	if m.LimitMBps != nil {
		limit = model.Bytes(*m.LimitMBps * float64(model.MiB))
	}
	var act func(...string) ([]model.Download, error)
	switch m.Action {
	case starting:
		d, there, err := s.start(ctx, m, priority, limit)
		if err != nil {
			return nil, false, "", err
		}
		return []model.Download{d}, there, "", nil
	case repairing:
		changed, what, err = s.repair(ctx, m)
		return changed, false, what, err
	case queue.Pausing:
		act = func(ids ...string) ([]model.Download, error) { return s.Queue.Pause(ctx, ids...) }
	case queue.Resuming:
		act = func(ids ...string) ([]model.Download, error) { return s.Queue.Resume(ctx, ids...) }
	case queue.Cancelling:
		act = func(ids ...string) ([]model.Download, error) { return s.Queue.Cancel(ctx, ids...) }
	case queue.Prioritizing:
		act = func(ids ...string) ([]model.Download, error) { return s.Queue.Prioritize(ctx, priority, ids...) }
	case queue.Limiting:
		act = func(ids ...string) ([]model.Download, error) { return s.Queue.Limit(ctx, limit, ids...) }
	}
	ids, err := s.concerned(ctx, m)
	if err != nil || len(ids) == 0 {
		return nil, false, "", err
	}
	changed, err = act(ids...)
	return changed, false, "", err
}

// repair makes a model whole again. Where that takes a download, it is the answer's.
func (s *Server) repair(ctx context.Context, m Manage) ([]model.Download, string, error) {
	if s.Repair == nil {
		return nil, "", invalid("action", "this daemon does not repair")
	}
	id, err := model.ParseID(m.Model)
	if err != nil {
		return nil, "", invalid("model_id", "%v", err)
	}
	what, err := s.Repair(ctx, id)
	if err != nil {
		return nil, "", err
	}
	var going []model.Download
	for _, d := range s.Queue.List() {
		if of(d, id) {
			going = append(going, d)
		}
	}
	return going, what, nil
}

// start queues a download. What was paused goes on: whoever asks for a model wants it.
func (s *Server) start(ctx context.Context, m Manage, priority model.Priority, limit model.Bytes) (model.Download, bool, error) {
	id, err := model.ParseID(m.Model)
	if err != nil {
		return model.Download{}, false, invalid("model_id", "%v", err)
	}
	d := model.Download{
		Model: id, Revision: m.Revision, Include: m.Include, Exclude: m.Exclude,
		Priority: priority, Limit: limit, Connections: m.Connections,
	}
	if n := m.MaxRetries; n != nil {
		if d.MaxRetries = *n; *n == 0 {
			d.MaxRetries = -1
		}
	}
	d, existing, err := s.Queue.Add(ctx, d)
	if err != nil || !existing {
		return d, false, err
	}
	if m.LimitMBps != nil && d.Limit != limit {
		if d, err = one(s.Queue.Limit(ctx, limit, d.ID)); err != nil {
			return d, true, err
		}
	}
	if d.State == model.Paused && d.Pause == model.ByUser {
		d, err = one(s.Queue.Resume(ctx, d.ID))
	}
	return d, true, err
}

func one(changed []model.Download, err error) (model.Download, error) {
	if err == nil && len(changed) != 1 {
		err = &Error{Code: WrongState, Message: "the download has ended meanwhile; ask again", Class: model.Busy, Status: http.StatusConflict}
	}
	if err != nil {
		return model.Download{}, err
	}
	return changed[0], nil
}

// concerned are the downloads that m is about: those of a model, or all for which the action makes sense.
func (s *Server) concerned(ctx context.Context, m Manage) ([]string, error) {
	var ids []string
	if m.All {
		for _, d := range s.Queue.List() {
			if slices.Contains(queue.Actions(d), m.Action) {
				ids = append(ids, d.ID)
			}
		}
		return ids, nil
	}
	id, err := model.ParseID(m.Model)
	if err != nil {
		return nil, invalid("model_id", "%v", err)
	}
	wanted := func(d model.Download) bool {
		return of(d, id) && (m.Revision == "" || sameRevision(d.Revision, m.Revision))
	}
	var others []string
	for _, d := range s.Queue.List() {
		switch {
		case !wanted(d):
		case slices.Contains(queue.Actions(d), m.Action):
			ids = append(ids, d.ID)
		default:
			others = append(others, d.ID)
		}
	}
	if len(ids) > 0 {
		return ids, nil
	}
	if len(others) > 0 {
		return others, nil // the queue says why not
	}
	over, err := s.past(ctx, wanted)
	if err != nil {
		return nil, err
	}
	if over == nil {
		return nil, unknown(m.Action, id)
	}
	return nil, &queue.StateError{ID: over.ID, Model: over.Model, Action: m.Action, State: over.State, Allowed: queue.Actions(*over)}
}

// sameRevision compares revisions as asked for: none means main.
func sameRevision(a, b string) bool { return orMain(a) == orMain(b) }

func orMain(revision string) string {
	if revision == "" {
		return "main"
	}
	return revision
}
