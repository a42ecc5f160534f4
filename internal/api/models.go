package api

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"ema/client"
	"ema/internal/model"
)

// offerModels has what can be asked about models as they lie in the store.
func (s *Server) offerModels(rt *router) {
	if s.Models != nil {
		rt.raw(operation{
			id: opStatuses, method: http.MethodGet, path: Base + "/models/status/detailed", tag: tagModels, summary: "See how all models stand",
			text: "Those that are here, and those that are on their way.", tagged: true, schema: reflect.TypeFor[client.Statuses](), says: exampleStatuses(),
		}, http.HandlerFunc(s.Models.ServeStatus))
		rt.raw(operation{
			id: opStatus, method: http.MethodGet, path: Base + "/models/status/detailed/{model_id}", tag: tagModels, summary: "See how one model stands",
			fails: []int{http.StatusNotFound}, tagged: true, schema: reflect.TypeFor[client.ModelStatus](), says: exampleStatus(),
			parameters: []*huma.Param{{
				Name: "model_id", In: "path", Required: true, Example: exampleModel, Schema: &huma.Schema{Type: huma.TypeString},
				Description: "The model: org/name, as it is or escaped as org%2Fname.",
			}},
		}, rt.handled(func(w http.ResponseWriter, r *http.Request) error {
			id, err := model.ParseID(r.PathValue("model_id"))
			if err != nil {
				return invalid("path.model_id", "%v", err)
			}
			s.Models.ServeModel(w, r, id)
			return nil
		}))
		rt.raw(operation{
			id: opStorage, method: http.MethodGet, path: Base + "/models/storage", tag: tagModels, summary: "See how the storage stands",
			text: "What models take, by tier, and what could go.", tagged: true, schema: reflect.TypeFor[client.Storage](), says: exampleStorage(),
		}, http.HandlerFunc(s.Models.ServeStorage))
	}
	if s.Remove != nil {
		register(rt, operation{
			id: opDelete, method: http.MethodDelete, path: Base + "/models/{model_id}", tag: tagModels, summary: "Delete a model",
			text:  "With all of its revisions. Contents that other models share stay. A model that is on its way is not deleted.",
			fails: []int{http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable},
			says:  client.Deleted{Success: true, Message: exampleModel + ": deleted", Model: exampleModel, SpaceFreedGB: 1.5, FreedBytes: 3 << 29},
		}, s.remove)
	}
}

func (s *Server) remove(ctx context.Context, r *ModelPath) (*client.Deleted, error) {
	aim(ctx, r.id.Public())
	freed, err := s.Remove(ctx, r.id)
	if err != nil {
		return nil, err
	}
	return &client.Deleted{
		Success: true, Message: r.id.Public() + ": deleted", Model: r.id.Public(),
		SpaceFreedGB: float64(freed) / float64(model.GiB), FreedBytes: freed,
	}, nil
}
