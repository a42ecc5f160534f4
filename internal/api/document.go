package api

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"ema/client"
	"ema/internal/api/pages"
)

// The chapters of the document.
const (
	tagDownloads = "Downloads"
	tagModels    = "Models"
	tagLive      = "Live"
	tagSettings  = "Settings"
	tagAdmin     = "Administration"
)

// bearer is how the document calls showing a key.
const bearer = "key"

// comments are what package client says of its types and their fields, in JSON: {"Type": {"": "…", "field": "…"}}.
//
//go:embed comments.json
var comments []byte

// config is what Huma goes by. It serves no document and no pages: those of ours are made once and load nothing.
func (rt *router) config() huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "ema", Version: version(rt.s.Version.Version),
				Description: "Keeps models on a machine: fetches them, proves them, says how they stand.\n\n" +
					"Sizes in `_mb` are MiB, in `_gb` GiB; speeds in `_mbps` are MiB per second. Fields may be added to answers, and are never renamed. " +
					"Ids of models have slashes: at the end of a path they may stand as they are.",
				License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Servers: []*huma.Server{{URL: "/", Description: "The daemon that this document comes from."}},
			Tags: []*huma.Tag{
				{Name: tagDownloads, Description: "Models on their way."},
				{Name: tagModels, Description: "Models that are here."},
				{Name: tagLive, Description: "What happens, as it happens."},
				{Name: tagSettings, Description: "What the daemon goes by."},
				{Name: tagAdmin, Description: "How the daemon itself is, and who did what."},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					bearer: {Type: "http", Scheme: "bearer", Description: "A key of `auth.api_keys`. Its role is user, power_user or admin; each may also what the lesser ones may."},
				},
			},
		},
		Formats:       huma.DefaultFormats,
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{rt.envelop},
	}
}

// version is never empty, which the document's may not be.
func version(v string) string {
	if v == "" {
		return "devel"
	}
	return v
}

// offerDocument serves the document of all that was offered before, and the pages that show it.
func (rt *router) offerDocument() {
	rt.complete()
	doc := rt.api.OpenAPI() // nobody changes it any more
	made := func(how func() ([]byte, error)) func() []byte {
		return func() []byte {
			raw, err := how()
			if err != nil { // a test makes all there are
				rt.s.Log.Error("the document of the API cannot be made", "error", err.Error())
			}
			return raw
		}
	}
	rt.hidden(opDocument, http.MethodGet, "/openapi.json", pages.File("application/vnd.oai.openapi+json;version=3.1", made(doc.MarshalJSON)))
	rt.hidden(opDocument, http.MethodGet, "/openapi.yaml", pages.File("application/vnd.oai.openapi;version=3.1", made(doc.YAML)))
	all, err := pages.All()
	if err != nil {
		rt.s.Log.Info("no pages of the API's document", "why", err.Error())
	}
	for at, page := range all {
		rt.hidden(opDocumented, http.MethodGet, at, page)
	}
}

// complete adds to the schemas what Go's types do not say.
func (rt *router) complete() {
	schemas := rt.api.OpenAPI().Components.Schemas.Map()
	for _, name := range []string{"ErrorModel", "ErrorDetail"} { // Huma's own, which are never answered
		delete(schemas, name)
	}
	var said map[string]map[string]string
	if err := json.Unmarshal(comments, &said); err != nil {
		rt.s.Log.Error("the comments of the wire types cannot be read", "error", err.Error())
	}
	for name, schema := range schemas {
		schema.Description = said[name][""]
		for field, one := range schema.Properties {
			if one.Description == "" {
				one.Description = said[name][field]
			}
			one.Enum = append(one.Enum, enums()[name+"."+field]...)
			lists(one)
		}
		// Fields may be added to answers. In requests, which are the types that end in Body, one that is not known is a mistake:
		// whoever asks for a "dryrun" must not get a cleanup.
		if schema.AdditionalProperties == false && !strings.HasSuffix(name, "Body") {
			schema.AdditionalProperties = nil
		}
	}
}

// lists says that s, and what is in it, is no null where it is a list.
func lists(s *huma.Schema) {
	if s.Type == huma.TypeArray {
		s.Nullable = false
	}
	if s.Items != nil {
		lists(s.Items)
	}
	if inner, ok := s.AdditionalProperties.(*huma.Schema); ok {
		lists(inner)
	}
}

// enums are the values of fields that have few.
func enums() map[string][]any {
	states := []any{
		client.StatusQueued, client.StatusResolving, client.StatusDownloading, client.StatusVerifying, client.StatusPaused,
		client.StatusRetrying, client.StatusCompleted, client.StatusFailed, client.StatusCancelled,
	}
	health := []any{client.HealthHealthy, client.HealthDegraded, client.HealthUnhealthy, client.HealthUnknown}
	moves := []any{client.MoveWaiting, client.MoveMoving, client.MoveDone, client.MoveFailed, client.MoveCancelled}
	return map[string][]any{
		"Download.status":   states,
		"Download.priority": {"low", "normal", "high", "critical"},
		"ModelStatus.availability_status": {
			client.AvailabilityAvailable, client.AvailabilityDownloading, client.AvailabilityQueued, client.AvailabilityPaused, client.AvailabilityPartial,
			client.AvailabilityMissing, client.AvailabilityCorrupted, client.AvailabilityUpdating, client.AvailabilityFailed,
		},
		"TierStorage.state":  {client.TierReady, client.TierMissing, client.TierReadOnly, client.TierFull},
		"ModelMove.state":    moves,
		"Moved.state":        moves,
		"AdminHealth.status": health,
		"PartHealth.status":  health,
		"Probed.status":      health,
		"Benchmark.state":    {client.BenchmarkRunning, client.BenchmarkCompleted, client.BenchmarkFailed, client.BenchmarkCancelled},
	}
}
