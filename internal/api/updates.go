package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"ema/client"
	"ema/internal/model"
)

// updater knows what the sources of models have that is newer.
type updater interface {
	// Updates is what is known, without asking anybody.
	Updates(ctx context.Context) (client.Updates, error)
	// Look asks the source of one model now; of all, soon, when id is zero.
	Look(ctx context.Context, id model.ID) (client.Updates, error)
	// Apply begins the download of what the source has now.
	Apply(ctx context.Context, id model.ID) (model.Download, error)
	// Rollback has the branch lead to an earlier commit; "" is the one before.
	Rollback(ctx context.Context, id model.ID, commit string) (client.RolledBack, error)
}

// offerUpdates has what can be asked about newer revisions.
func (s *Server) offerUpdates(rt *router) {
	if s.Updater == nil {
		return
	}
	register(rt, operation{
		id: opUpdates, method: http.MethodGet, path: Base + "/models/updates", tag: tagModels, summary: "See which models have something newer",
		text: "As their sources said when they were asked last, every `updates.check_interval_hours`. Models that were asked for by a commit are not followed.",
		says: exampleUpdates(),
	}, func(ctx context.Context, _ *struct{}) (*client.Updates, error) {
		u, err := s.Updater.Updates(ctx)
		return &u, err
	})
	register(rt, operation{
		id: opUpdatesLook, method: http.MethodPost, path: Base + "/models/updates/check", tag: tagModels, summary: "Ask the sources of models now",
		text:  "Of one model the answer has what its source says; of all, the sources are asked one after the other, and `GET` tells.",
		fails: []int{http.StatusNotFound}, asks: map[string]any{"one": map[string]any{"model_id": exampleModel}, "all": map[string]any{}}, says: exampleUpdates(),
	}, func(ctx context.Context, r *updatesLookRequest) (*client.Updates, error) {
		aim(ctx, r.Body.Model)
		u, err := s.Updater.Look(ctx, r.Body.id)
		return &u, err
	})
	register(rt, operation{
		id: opUpdateApply, method: http.MethodPost, path: Base + "/models/updates/apply", tag: tagModels, summary: "Fetch what is newer",
		text: "Beside what is here, which stays until all of the new revision is proven; then the branch leads to it, in one step. What was " +
			"there before stays for `updates.keep_previous_hours`.",
		fails: []int{http.StatusNotFound, http.StatusConflict, http.StatusTooManyRequests}, asks: map[string]any{"update": map[string]any{"model_id": exampleModel}},
		says: client.UpdateApplied{Success: true, Message: exampleModel + ": its update is queued", Model: exampleModel, Download: exampleDownload().ID},
	}, func(ctx context.Context, r *updateRequest) (*client.UpdateApplied, error) {
		name := r.Body.id.Public()
		aim(ctx, name)
		d, err := s.Updater.Apply(ctx, r.Body.id)
		if err != nil {
			return nil, err
		}
		return &client.UpdateApplied{Success: true, Message: name + ": its update is " + string(d.State), Model: name, Download: d.ID}, nil
	})
	register(rt, operation{
		id: opRollback, method: http.MethodPost, path: Base + "/models/updates/rollback", tag: tagModels, summary: "Take an update back",
		text:  "The branch leads to an earlier commit that is here as a whole, in one step. What was rolled back is not fetched again by itself.",
		fails: []int{http.StatusNotFound, http.StatusConflict}, asks: map[string]any{"to the one before": map[string]any{"model_id": exampleModel}},
		says: client.RolledBack{
			Success: true, Message: exampleModel + ": main leads to 0a1b2c3d4e5f again", Model: exampleModel, Revision: "main",
			From: "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432", To: "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
		},
	}, func(ctx context.Context, r *rollbackRequest) (*client.RolledBack, error) {
		aim(ctx, r.Body.id.Public())
		back, err := s.Updater.Rollback(ctx, r.Body.id, r.Body.Commit)
		return &back, err
	})
}

// updateBody is a client.UpdateRequest.
type updateBody struct {
	Model string `json:"model_id" doc:"The model: org/name, or the URL of a file or of a folder." example:"acme/tiny-llm"`
	id    model.ID
}

// Resolve refuses what names no model.
func (b *updateBody) Resolve(_ huma.Context, at *huma.PathBuffer) (wrong []error) {
	b.id, wrong = named(b.Model, "model_id", at, nil)
	return wrong
}

type updateRequest struct{ Body updateBody }

type updatesLookBody struct {
	Model string `json:"model_id,omitempty" doc:"The model; all when it is not said." example:"acme/tiny-llm"`
	id    model.ID
}

// Resolve refuses what names no model.
func (b *updatesLookBody) Resolve(_ huma.Context, at *huma.PathBuffer) (wrong []error) {
	if b.Model != "" {
		b.id, wrong = named(b.Model, "model_id", at, nil)
	}
	return wrong
}

type updatesLookRequest struct{ Body updatesLookBody }

type rollbackBody struct {
	Model  string `json:"model_id" doc:"The model: org/name, or the URL of a file or of a folder." example:"acme/tiny-llm"`
	Commit string `json:"commit,omitempty" pattern:"^[0-9a-f]{40}$" doc:"Which commit; the one before the current one when it is not said."`
	id     model.ID
}

// Resolve refuses what names no model.
func (b *rollbackBody) Resolve(_ huma.Context, at *huma.PathBuffer) (wrong []error) {
	b.id, wrong = named(b.Model, "model_id", at, nil)
	return wrong
}

type rollbackRequest struct{ Body rollbackBody }
