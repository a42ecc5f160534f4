package api

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"ema/client"
	"ema/internal/api/trust"
	"ema/internal/queue"
)

// The operations, as clients, the audit trail and metrics call them.
const (
	opManage               = "manage-download"
	opProgress             = "get-download-progress"
	opActive               = "list-active-downloads"
	opHistory              = "list-download-history"
	opStatuses             = "list-models"
	opStatus               = "get-model"
	opStorage              = "get-storage"
	opDelete               = "delete-model"
	opMove                 = "move-model"
	opPin                  = "pin-model"
	opCleanup              = "clean-up"
	opUse                  = "record-use"
	opSuggest              = "suggest-fallbacks"
	opAwait                = "await-model"
	opWaiters              = "list-waiting"
	opGiveUp               = "stop-waiting"
	opUpdates              = "list-updates"
	opUpdatesLook          = "check-updates"
	opUpdateApply          = "apply-update"
	opRollback             = "roll-back"
	opAnalytics            = "list-analytics"
	opAnalyticsOf          = "get-analytics"
	opAnalyticsCleanup     = "advise-cleanup"
	opAnalyticsPerformance = "list-performance"
	opAnalyticsPreload     = "advise-preload"
	opAnalyticsExport      = "export-analytics"
	opModelsWell           = "list-model-health"
	opModelWell            = "get-model-health"
	opCheck                = "check-model"
	opMend                 = "repair-model"
	opConfig               = "get-config"
	opUpdate               = "update-config"
	opSchema               = "get-config-schema"
	opValidate             = "validate-config"
	opConfigProfiles       = "list-config-profiles"
	opProfileSet           = "set-config-profile"
	opHealth               = "get-health"
	opHealthOf             = "get-health-" // and the name of the part
	opVersion              = "get-version"
	opResources            = "get-resources"
	opPerformance          = "get-performance"
	opDashboard            = "get-dashboard"
	opPerformancePast      = "get-performance-history"
	opPerformanceTrends    = "get-performance-trends"
	opPerformanceAnalysis  = "get-performance-analysis"
	opBaseline             = "get-performance-baseline"
	opSetBaseline          = "set-performance-baseline"
	opRegressions          = "list-performance-regressions"
	opBenchmark            = "start-benchmark"
	opBenchmarks           = "list-benchmarks"
	opBenchmarkOf          = "get-benchmark"
	opBenchmarkCancel      = "cancel-benchmark"
	opOptimizations        = "list-optimizations"
	opOptimizationUndo     = "undo-optimization"
	opAudit                = "list-audit"
	opReload               = "reload-config"
	opRun                  = "run-command"
	opEvents               = "stream-events"
	opLive                 = "follow"
	opAlive                = "get-alive"
	opReady                = "get-ready"
	opProfile              = "get-profile"
	opProfiles             = "list-profiles"
	opProfileCPU           = "profile-cpu"
	opProfileHeap          = "profile-heap"
	opProfileTrace         = "profile-trace"
	opDocument             = "get-document"
	opDocumented           = "get-documentation"
)

// roles are the least roles that operations need. It is the one place where that is said; trust.None is everybody. For
// manage-download it is the least of its actions, the others are in roleOf.
func roles() map[string]trust.Role {
	all := map[string]trust.Role{
		opManage:   trust.User,
		opProgress: trust.User,
		opActive:   trust.User,
		opHistory:  trust.User,
		opStatuses: trust.User,
		opStatus:   trust.User,
		opStorage:  trust.User,
		opEvents:   trust.User,
		opLive:     trust.User,

		opUse: trust.User,

		opSuggest: trust.User,
		opWaiters: trust.User,
		opAwait:   trust.PowerUser, // it posts to addresses that the caller names
		opGiveUp:  trust.PowerUser,

		opUpdates:     trust.User,
		opUpdatesLook: trust.PowerUser,
		opUpdateApply: trust.PowerUser,
		opRollback:    trust.PowerUser,

		opAnalytics:            trust.User,
		opAnalyticsOf:          trust.User,
		opAnalyticsCleanup:     trust.User,
		opAnalyticsPerformance: trust.User,
		opAnalyticsPreload:     trust.User,
		opAnalyticsExport:      trust.User,

		opModelsWell: trust.User,
		opModelWell:  trust.User,
		opCheck:      trust.PowerUser,
		opMend:       trust.PowerUser,

		opDelete:  trust.PowerUser,
		opMove:    trust.PowerUser,
		opPin:     trust.PowerUser,
		opCleanup: trust.PowerUser,

		opConfig:              trust.Admin,
		opUpdate:              trust.Admin,
		opSchema:              trust.Admin,
		opValidate:            trust.Admin,
		opConfigProfiles:      trust.Admin,
		opProfileSet:          trust.Admin,
		opHealth:              trust.Admin,
		opVersion:             trust.Admin,
		opResources:           trust.Admin,
		opPerformance:         trust.Admin,
		opDashboard:           trust.Admin,
		opPerformancePast:     trust.Admin,
		opPerformanceTrends:   trust.Admin,
		opPerformanceAnalysis: trust.Admin,
		opBaseline:            trust.Admin,
		opSetBaseline:         trust.Admin,
		opRegressions:         trust.Admin,
		opBenchmark:           trust.Admin,
		opBenchmarks:          trust.Admin,
		opBenchmarkOf:         trust.Admin,
		opBenchmarkCancel:     trust.Admin,
		opOptimizations:       trust.Admin,
		opOptimizationUndo:    trust.Admin,
		opAudit:               trust.Admin,
		opReload:              trust.Admin,
		opRun:                 trust.Admin,
		opProfile:             trust.Admin,
		opProfiles:            trust.Admin,
		opProfileCPU:          trust.Admin,
		opProfileHeap:         trust.Admin,
		opProfileTrace:        trust.Admin,

		// Whoever watches over processes has no key, and the document is no secret.
		opAlive:      trust.None,
		opReady:      trust.None,
		opDocument:   trust.None,
		opDocumented: trust.None,
	}
	for _, part := range parts() {
		all[opHealthOf+part] = trust.Admin
	}
	return all
}

// slowAnswer is how long an answer takes that is slow.
const slowAnswer = time.Second

// lasting are the operations whose answers last as long as something else does, so that none of them is slow.
func lasting() []string {
	return []string{opRun, opEvents, opLive, opProfile, opProfileCPU, opProfileHeap, opProfileTrace, opAnalyticsExport}
}

// roleOf is the least role for an action of manage-download: whoever may use the daemon may start, and whoever manages
// downloads may do with them what others have to wait for.
func roleOf(action string) trust.Role {
	if action == starting {
		return trust.User
	}
	return trust.PowerUser
}

// The actions of manage-download beside those of the queue.
const (
	starting  = "start"
	repairing = "repair"
)

// actions are all of manage-download.
func actions() []string {
	return []string{starting, queue.Pausing, queue.Resuming, queue.Cancelling, repairing, queue.Prioritizing, queue.Limiting}
}

// parts are those whose health can be asked for by themselves.
func parts() []string {
	return []string{client.PartDownloads, client.PartStorage, client.PartModels, client.PartDatabase}
}

// Open are the paths that need no key: trust.Settings.Open is to have them.
func Open() []string {
	return []string{"/docs", "/docs/", "/redoc", "/openapi.json", "/openapi.yaml"}
}

// An operation is what the document says of one.
type operation struct {
	id, method, path string
	tag              string
	summary          string // a few words
	text             string // sentences
	fails            []int  // the statuses of refusals, beside those that any operation may have
	tagged           bool   // an answer bears an ETag; who has it already is not sent it again
	asks             map[string]any
	says             any           // an example of an answer
	schema           reflect.Type  // of the answer, where the handler does not say it
	body             *huma.Schema  // of the request, the same
	parameters       []*huma.Param // the same
	kind             string        // of an answer that is no JSON: its content type, or empty for one without a body
}

// An answer is the body of one that says yes.
type answer[T any] struct{ Body T }

// register makes handle answer an operation.
func register[I, O any](rt *router, o operation, handle func(context.Context, *I) (*O, error)) {
	op := rt.describe(o)
	// The body has been read already when Huma gets it.
	op.MaxBodyBytes, op.BodyReadTimeout = -1, -1
	if o.tagged {
		op.Metadata = map[string]any{tagged: true}
	}
	if o.schema != nil {
		op.Responses["200"] = &huma.Response{
			Description: http.StatusText(http.StatusOK),
			Content:     map[string]*huma.MediaType{"application/json": {Schema: rt.schema(o.schema)}},
		}
	}
	if o.body != nil {
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: o.body}}}
	}
	huma.Register(rt.api, op, func(ctx context.Context, in *I) (*answer[O], error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, refusal{failure(err)}
		}
		return &answer[O]{Body: *out}, nil
	})
	rt.finish(o, op.Path, op.Method)
}

// raw makes h answer an operation by itself, without Huma between. It is documented all the same.
func (rt *router) raw(o operation, h http.Handler) {
	op := rt.describe(o)
	op.Parameters = o.parameters
	if o.schema != nil {
		op.Responses["200"] = &huma.Response{
			Description: http.StatusText(http.StatusOK),
			Content:     map[string]*huma.MediaType{"application/json": {Schema: rt.schema(o.schema)}},
		}
	} else if o.kind != "" {
		op.Responses["200"] = &huma.Response{Description: http.StatusText(http.StatusOK), Content: map[string]*huma.MediaType{o.kind: {}}}
	} else {
		op.Responses["101"] = &huma.Response{Description: http.StatusText(http.StatusSwitchingProtocols)}
	}
	rt.add(o.id, o.method, o.path, h)
	rt.api.OpenAPI().AddOperation(&op)
	rt.finish(o, op.Path, op.Method)
}

// hidden makes h answer an operation that is none of the document.
func (rt *router) hidden(id, method, path string, h http.Handler) { rt.add(id, method, path, h) }

// handled lets a handler return its error.
func (rt *router) handled(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			rt.s.Refuse(w, r, err)
		}
	})
}

func (rt *router) schema(t reflect.Type) *huma.Schema {
	return rt.api.OpenAPI().Components.Schemas.Schema(t, true, "")
}

// describe is what the document says of o, but for what comes from the types of its handler.
func (rt *router) describe(o operation) huma.Operation {
	op := huma.Operation{
		OperationID: o.id, Method: o.method, Path: o.path, Tags: []string{o.tag}, Summary: o.summary, Description: o.text,
		Responses: map[string]*huma.Response{},
	}
	fails := slices.Clone(o.fails)
	if least, declared := rt.roles[o.id]; !declared || least != trust.None {
		op.Security = []map[string][]string{{bearer: {}}}
		op.Description += "\n\nNeeds the role `" + least.String() + "`."
		fails = append(fails, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests)
	}
	if o.method == http.MethodPost || o.method == http.MethodPut {
		fails = append(fails, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if o.tagged {
		op.Responses["304"] = &huma.Response{Description: "The client has this answer already: If-None-Match names its ETag."}
	}
	for _, status := range fails {
		op.Responses[strconv.Itoa(status)] = rt.refused(status)
	}
	op.Responses["default"] = rt.refused(0)
	return op
}

// refused is an answer that says no, with that status; 0 is any.
func (rt *router) refused(status int) *huma.Response {
	r := &huma.Response{
		Description: "Every other answer that says no.",
		Content:     map[string]*huma.MediaType{"application/json": {Schema: rt.schema(reflect.TypeFor[envelope]())}},
		Headers:     map[string]*huma.Param{},
	}
	if status == 0 {
		return r
	}
	r.Description = reasons()[status]
	switch status {
	case http.StatusTooManyRequests:
		r.Headers["Retry-After"] = &huma.Param{Description: "In how many seconds to try again.", Schema: &huma.Schema{Type: huma.TypeInteger}}
	case http.StatusUnauthorized:
		r.Headers["WWW-Authenticate"] = &huma.Param{Description: "How to show a key.", Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return r
}

// reasons are why requests are refused, by the status of the answer.
func reasons() map[int]string {
	return map[int]string{
		http.StatusBadRequest:            "The body is no JSON.",
		http.StatusUnauthorized:          "No key was shown, or one that is not known.",
		http.StatusForbidden:             "The key's role does not permit this.",
		http.StatusNotFound:              "There is no such thing.",
		http.StatusConflict:              "What is under way does not allow this. Of a download, of a move and of a benchmark `details.state` says what that is, and `details.allowed_actions` what it allows.",
		http.StatusGone:                  "What was asked for is forgotten.",
		http.StatusRequestEntityTooLarge: "The body is too large.",
		http.StatusUnsupportedMediaType:  "The body is not declared as JSON.",
		http.StatusUnprocessableEntity:   "Fields are wrong: `details.fields` has all of them, each with its path.",
		http.StatusUpgradeRequired:       "The request is none for a WebSocket.",
		http.StatusTooManyRequests:       "There were too many requests, or the queue is full; try again as Retry-After says.",
		http.StatusServiceUnavailable:    "The daemon is not ready for that.",
		http.StatusInsufficientStorage:   "There is no space: `details.short_bytes` are missing, `details.freeable_bytes` could be freed.",
	}
}

// finish adds what Huma does not: headers and examples.
func (rt *router) finish(o operation, path, method string) {
	item := rt.api.OpenAPI().Paths[path]
	op := map[string]*huma.Operation{
		http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodDelete: item.Delete,
	}[method]
	if op.RequestBody != nil && len(o.asks) > 0 {
		examples := map[string]*huma.Example{}
		for name, value := range o.asks {
			examples[name] = &huma.Example{Value: value}
		}
		op.RequestBody.Content["application/json"].Examples = examples
	}
	if op.RequestBody != nil || len(op.Parameters) > 0 {
		if op.Responses["422"] == nil {
			op.Responses["422"] = rt.refused(http.StatusUnprocessableEntity)
		}
	}
	for status, r := range op.Responses {
		if r.Headers == nil {
			r.Headers = map[string]*huma.Param{}
		}
		r.Headers["X-Request-Id"] = &huma.Param{Description: "By which the request can be found in the log and in the audit trail.", Schema: &huma.Schema{Type: huma.TypeString}}
		if o.tagged && (status == "200" || status == "304") {
			r.Headers["ETag"] = &huma.Param{Description: "Of this answer, for If-None-Match.", Schema: &huma.Schema{Type: huma.TypeString}}
		}
	}
	if o.says != nil {
		op.Responses["200"].Content["application/json"].Example = o.says
	}
}
