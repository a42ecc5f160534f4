package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"ema/internal/model"
	"ema/internal/queue"
)

// manage starts downloads and changes their course.
func (s *Server) manage(w http.ResponseWriter, r *http.Request) error {
	var m Manage
	if err := decode(w, r, &m); err != nil {
		return err
	}
	changed, existing, err := s.do(r.Context(), m)
	if err != nil {
		return err
	}
	answer := Managed{Success: true, Existing: existing, Downloads: make([]Download, 0, len(changed))}
	for _, d := range changed {
		answer.Downloads = append(answer.Downloads, describe(d, s.Figures(d.ID), 0))
	}
	answer.Message = said(m, answer)
	if len(changed) > 0 {
		first := answer.Downloads[0]
		answer.DownloadID, answer.NewStatus = first.ID, first.Status
		if first.ETASeconds != nil {
			answer.EstimatedCompletion = moment(time.Now().Add(time.Duration(*first.ETASeconds * float64(time.Second))))
		}
	}
	s.answer(w, http.StatusOK, answer)
	return nil
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

// do does it. existing says that what was to be started was there already.
func (s *Server) do(ctx context.Context, m Manage) (changed []model.Download, existing bool, err error) {
	priority, err := model.ParsePriority(m.Priority)
	if err != nil {
		return nil, false, invalid("priority: %v", err)
	}
	limit := model.Bytes(0)
	if m.LimitMBps != nil {
		if *m.LimitMBps < 0 || *m.LimitMBps > 1e6 {
			return nil, false, invalid("bandwidth_limit_mbps: %v is not from 0 to 1000000", *m.LimitMBps)
		}
		limit = model.Bytes(*m.LimitMBps * float64(model.MiB))
	}
	if m.Action == "start" {
		d, there, err := s.start(ctx, m, priority, limit)
		if err != nil {
			return nil, false, err
		}
		return []model.Download{d}, there, nil
	}
	act := map[string]func(...string) ([]model.Download, error){
		queue.Pausing:      func(ids ...string) ([]model.Download, error) { return s.Queue.Pause(ctx, ids...) },
		queue.Resuming:     func(ids ...string) ([]model.Download, error) { return s.Queue.Resume(ctx, ids...) },
		queue.Cancelling:   func(ids ...string) ([]model.Download, error) { return s.Queue.Cancel(ctx, ids...) },
		queue.Prioritizing: func(ids ...string) ([]model.Download, error) { return s.Queue.Prioritize(ctx, priority, ids...) },
		queue.Limiting:     func(ids ...string) ([]model.Download, error) { return s.Queue.Limit(ctx, limit, ids...) },
	}[m.Action]
	switch {
	case act == nil:
		return nil, false, invalid("action: %q is none of start, pause, resume, cancel, prioritize, limit", m.Action)
	case m.Action == queue.Prioritizing && m.Priority == "":
		return nil, false, invalid("priority: name one of low, normal, high, critical")
	case m.Action == queue.Limiting && m.LimitMBps == nil:
		return nil, false, invalid("bandwidth_limit_mbps: name one; 0 is none")
	case m.All && (m.Model != "" || m.Action == queue.Prioritizing || m.Action == queue.Limiting):
		return nil, false, invalid("all: it stands instead of model_id, for pause, resume and cancel")
	}
	ids, err := s.concerned(ctx, m)
	if err != nil || len(ids) == 0 {
		return nil, false, err
	}
	changed, err = act(ids...)
	return changed, false, err
}

// start queues a download. What was paused goes on: whoever asks for a model wants it.
func (s *Server) start(ctx context.Context, m Manage, priority model.Priority, limit model.Bytes) (model.Download, bool, error) {
	id, err := model.ParseID(m.Model)
	if err != nil {
		return model.Download{}, false, invalid("model_id: %v", err)
	}
	if m.Revision != "" {
		if err := model.CheckRevision(m.Revision); err != nil {
			return model.Download{}, false, invalid("revision: %v", err)
		}
	}
	if m.All {
		return model.Download{}, false, invalid("all: there is no such thing as every model; name one in model_id")
	}
	if m.Connections < 0 || m.Connections > 4096 {
		return model.Download{}, false, invalid("connections: %d is not from 0 to 4096", m.Connections)
	}
	d := model.Download{
		Model: id, Revision: m.Revision, Include: m.Include, Exclude: m.Exclude,
		Priority: priority, Limit: limit, Connections: m.Connections,
	}
	if n := m.MaxRetries; n != nil {
		if *n < 0 || *n > 1000 {
			return model.Download{}, false, invalid("max_retries: %d is not from 0 to 1000", *n)
		}
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
		err = errors.New("the download is gone")
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
		return nil, invalid("model_id: %v", err)
	}
	wanted := func(d model.Download) bool {
		return named(d, id) && (m.Revision == "" || sameRevision(d.Revision, m.Revision))
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
