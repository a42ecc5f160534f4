package api

import (
	"cmp"
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"ema/client"
	"ema/internal/model"
	"ema/internal/webhook"
)

// A Wanted is which models could stand in for one.
type Wanted struct {
	Model    model.ID
	Most     int
	AlsoAway bool
	Task     string
	MaxSize  model.Bytes // 0 is any
}

// An Await is who wants to be told when a model is available.
type Await struct {
	Model   model.ID
	Webhook string
	Start   bool
}

// standIns knows which models could stand in for another, and who waits for one.
type standIns interface {
	Suggest(ctx context.Context, w Wanted) (client.Fallbacks, error)
	Await(ctx context.Context, a Await) (client.Awaited, error)
	Waiters(ctx context.Context) (client.Waiters, error)
	// GiveUp ends waiting; class NotFound when nobody waits by that id.
	GiveUp(ctx context.Context, id string) error
}

// offerFallback has what can be asked when a model is not available.
func (s *Server) offerFallback(rt *router) {
	if s.StandIns == nil {
		return
	}
	register(rt, operation{
		id: opSuggest, method: http.MethodPost, path: Base + "/models/fallback/suggest", tag: tagModels, summary: "See which models could stand in for another",
		text: "Of those that are here, by descent, architecture, parameters, precision, name, library and licence, as far as these are known on " +
			"this machine; nobody else is asked. A model for another task is never suggested.",
		asks: map[string]any{"suggest": map[string]any{"model_id": exampleModel, "max_suggestions": 3}}, says: exampleFallbacks(),
	}, func(ctx context.Context, r *suggestRequest) (*client.Fallbacks, error) {
		hush(ctx)
		b := r.Body
		f, err := s.StandIns.Suggest(ctx, Wanted{
			Model: b.id, Most: cmp.Or(b.Most, 5), AlsoAway: b.AlsoAway, Task: b.Task, MaxSize: model.Bytes(b.MaxSizeGB * float64(model.GiB)),
		})
		return &f, err
	})
	register(rt, operation{
		id: opAwait, method: http.MethodPost, path: Base + "/models/fallback/queue", tag: tagModels, summary: "Be told when a model is available",
		text: "Once: by a message of the type `model_available` over WebSocket, and as JSON to `webhook_url`. Who waits is remembered over a " +
			"restart. A model that is available already is told at once.",
		fails: []int{http.StatusTooManyRequests}, asks: map[string]any{"wait": map[string]any{"model_id": exampleModel, "start_download": true}},
		says: client.Awaited{Success: true, Message: exampleModel + ": you will be told", Model: exampleModel, ID: "K5ZUEYLP7LKHBEGJBNJ6ZJ2VOT", Waiting: true},
	}, func(ctx context.Context, r *awaitRequest) (*client.Awaited, error) {
		aim(ctx, r.Body.id.Public())
		a, err := s.StandIns.Await(ctx, Await{r.Body.id, r.Body.Webhook, r.Body.Start})
		return &a, err
	})
	register(rt, operation{
		id: opWaiters, method: http.MethodGet, path: Base + "/models/fallback/queue", tag: tagModels, summary: "See who waits for models",
		says: client.Waiters{Waiting: []client.Waiter{{ID: "K5ZUEYLP7LKHBEGJBNJ6ZJ2VOT", Model: exampleModel, Since: exampleTime()}}},
	}, func(ctx context.Context, _ *struct{}) (*client.Waiters, error) {
		w, err := s.StandIns.Waiters(ctx)
		return &w, err
	})
	register(rt, operation{
		id: opGiveUp, method: http.MethodDelete, path: Base + "/models/fallback/queue/{queue_id}", tag: tagModels, summary: "Wait no more",
		fails: []int{http.StatusNotFound}, says: client.Awaited{Success: true, Message: "nobody waits by that id any more", ID: "K5ZUEYLP7LKHBEGJBNJ6ZJ2VOT"},
	}, func(ctx context.Context, r *giveUpRequest) (*client.Awaited, error) {
		aim(ctx, r.ID)
		return &client.Awaited{Success: true, Message: "nobody waits by that id any more", ID: r.ID}, s.StandIns.GiveUp(ctx, r.ID)
	})
}

type suggestBody struct {
	Model     string  `json:"model_id" doc:"The model: org/name, or the URL of a file or of a folder." example:"acme/tiny-llm"`
	Most      int     `json:"max_suggestions,omitempty" minimum:"1" maximum:"100" doc:"How many; 5 when it is not said."`
	AlsoAway  bool    `json:"include_unavailable,omitempty" doc:"Also models that are on their way, and will be here before the one that is asked for."`
	Task      string  `json:"task,omitempty" maxLength:"100" doc:"What for; as the model when it is not said." example:"text-generation"`
	MaxSizeGB float64 `json:"max_size_gb,omitempty" minimum:"0" maximum:"1e9" doc:"Only models up to that size, in GiB; any when it is not said."`
	id        model.ID
}

// Resolve refuses what names no model.
func (b *suggestBody) Resolve(_ huma.Context, at *huma.PathBuffer) (wrong []error) {
	b.id, wrong = named(b.Model, "model_id", at, nil)
	return wrong
}

type suggestRequest struct{ Body suggestBody }

type awaitBody struct {
	Model   string `json:"model_id" doc:"The model: org/name, or the URL of a file or of a folder." example:"acme/tiny-llm"`
	Webhook string `json:"webhook_url,omitempty" maxLength:"2000" doc:"Where to post that it is available."`
	Start   bool   `json:"start_download,omitempty" doc:"Have it downloaded, too."`
	id      model.ID
}

// Resolve refuses what names no model, and no webhook.
func (b *awaitBody) Resolve(_ huma.Context, at *huma.PathBuffer) (wrong []error) {
	b.id, wrong = named(b.Model, "model_id", at, nil)
	if b.Webhook != "" && webhook.Check(b.Webhook) != nil {
		wrong = append(wrong, &huma.ErrorDetail{Location: at.With("webhook_url"), Message: "expected an http:// or https:// URL without a user's name"})
	}
	return wrong
}

type awaitRequest struct{ Body awaitBody }

type giveUpRequest struct {
	ID string `path:"queue_id" doc:"As the answer to the wish had it."`
}
