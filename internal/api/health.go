package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"

	"ema/client"
	"ema/internal/model"
)

// wellbeing knows how well models are.
type wellbeing interface {
	// Health is how well some models are; nil are all. One that nobody knows is left out.
	Health(ctx context.Context, ids []model.ID) client.ModelsHealth
	// History is the checks of a model that are remembered, the newest first, at most so many. It fails while the database is away.
	History(ctx context.Context, id model.ID, most int) ([]model.HealthCheck, error)
	// Check begins a check of a model and does not wait for the end; one that waits or runs already is returned, and one that is
	// not old unless force is set.
	Check(ctx context.Context, id model.ID, kind string, force bool) (client.HealthTask, error)
	// Repair begins the repair of a model, and does not wait for the end; one that waits or runs already is returned.
	Repair(ctx context.Context, id model.ID, kind string) (client.HealthTask, error)
}

// checksTold is how many checks of the past are told with a model's health.
const checksTold = 20

// offerWellbeing has what can be asked about how well models are.
func (s *Server) offerWellbeing(rt *router) {
	if s.Wellbeing == nil {
		return
	}
	register(rt, operation{
		id: opModelsWell, method: http.MethodGet, path: Base + "/models/health", tag: tagModels, summary: "See how well all models are",
		text: "From how their files are now, and from what reading them has told. Scores are from 0 to 1.",
		says: exampleModelsHealth(),
	}, func(ctx context.Context, _ *struct{}) (*client.ModelsHealth, error) {
		return new(s.Wellbeing.Health(ctx, nil)), nil
	})
	register(rt, operation{
		id: opModelWell, method: http.MethodGet, path: Base + "/models/health/{model_id}", tag: tagModels, summary: "See how well one model is",
		text:  "With its check and its repair that wait or run, or the last ones, and the checks of the past that are remembered.",
		fails: []int{http.StatusNotFound}, says: exampleModelHealth(),
	}, s.modelHealth)
	register(rt, operation{
		id: opCheck, method: http.MethodPost, path: Base + "/models/health/{model_id}/check", tag: tagModels, summary: "Check a model",
		text: "`full` and `integrity` read all bytes and compare them with their hashes; `performance` judges what its users have told, and " +
			"reads nothing. The answer does not wait for the end: `GET` of the model's health tells it. A full check that ended within " +
			"the last hour is answered with that one, unless `force_check` is set.",
		fails: []int{http.StatusNotFound, http.StatusTooManyRequests},
		asks:  map[string]any{"check": map[string]any{"check_type": "full"}},
		says:  client.CheckBegun{Success: true, Message: exampleModel + ": its check is waiting", Model: exampleModel, ID: "K5ZUEYLP7LKHBEGJBNJ6ZJ2VOT"},
	}, s.check)
	register(rt, operation{
		id: opMend, method: http.MethodPost, path: Base + "/models/health/{model_id}/repair", tag: tagModels, summary: "Repair a model",
		text: "`auto` and `integrity_fix` verify the model and fetch again what is missing or damaged, and nothing else; `redownload` fetches " +
			"all files again. The old files stay until the new ones are proven. The answer does not wait for the end.",
		fails: []int{http.StatusNotFound, http.StatusTooManyRequests},
		asks:  map[string]any{"repair": map[string]any{"repair_type": "auto"}},
		says: client.RepairBegun{
			Success: true, Message: exampleModel + ": its repair is waiting", Model: exampleModel, ID: "K5ZUEYLP7LKHBEGJBNJ6ZJ2VOT", Actions: []string{},
		},
	}, s.mend)
}

func (s *Server) modelHealth(ctx context.Context, r *ModelPath) (*client.ModelHealth, error) {
	h, known := s.Wellbeing.Health(ctx, []model.ID{r.id}).Models[r.id.Public()]
	if !known {
		return nil, &model.Error{Op: "see the health", Class: model.NotFound, Model: r.id, Err: errors.New("nothing of it is here, or it was not looked at yet"), Hint: "GET /api/v1/models/health has those that are"}
	}
	past, err := s.Wellbeing.History(ctx, r.id, checksTold)
	if err != nil { // the database is away: what is known now is told all the same
		return &h, nil //nolint:nilerr // and GET /admin/health/db says why
	}
	for _, c := range past {
		h.History = append(h.History, client.HealthEntry{
			At: c.At, Kind: c.Kind, Overall: string(c.Overall), Integrity: c.Integrity, Files: c.Files, ReadMB: float64(c.Bytes) / float64(model.MiB),
			Seconds: c.Duration.Seconds(), Issues: append([]string{}, c.Issues...),
		})
	}
	return &h, nil
}

type checkBody struct {
	Kind  string `json:"check_type,omitempty" enum:"full,integrity,performance" doc:"What to check; full when it is not said."`
	Force bool   `json:"force_check,omitempty" doc:"Also when it was checked within the last hour."`
}

type checkRequest struct {
	ModelPath
	Body *checkBody // nil when there is none
}

func (s *Server) check(ctx context.Context, r *checkRequest) (*client.CheckBegun, error) {
	aim(ctx, r.id.Public())
	var said checkBody
	if r.Body != nil {
		said = *r.Body
	}
	t, err := s.Wellbeing.Check(ctx, r.id, cmp.Or(said.Kind, "full"), said.Force)
	if err != nil {
		return nil, err
	}
	return &client.CheckBegun{Success: true, Message: r.id.Public() + ": its check is " + t.State, Model: r.id.Public(), ID: t.ID, Estimate: t.Estimate}, nil
}

type mendBody struct {
	Kind string `json:"repair_type,omitempty" enum:"auto,integrity_fix,redownload" doc:"How to repair; auto when it is not said."`
}

type mendRequest struct {
	ModelPath
	Body *mendBody // nil when there is none
}

func (s *Server) mend(ctx context.Context, r *mendRequest) (*client.RepairBegun, error) {
	aim(ctx, r.id.Public())
	var said mendBody
	if r.Body != nil {
		said = *r.Body
	}
	t, err := s.Wellbeing.Repair(ctx, r.id, cmp.Or(said.Kind, "auto"))
	if err != nil {
		return nil, err
	}
	return &client.RepairBegun{
		Success: true, Message: r.id.Public() + ": its repair is " + t.State, Model: r.id.Public(), ID: t.ID, Actions: append([]string{}, t.Actions...), Estimate: t.Estimate,
	}, nil
}
