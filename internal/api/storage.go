package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"ema/client"
	"ema/internal/model"
	"ema/internal/queue"
)

// tiers brings models to other tiers, and keeps them where they are.
type tiers interface {
	// Move begins to move a model, and does not wait for the end: event.Move tells that. existing says that it was on its
	// way there already. A model that is downloaded or moved elsewhere is refused by an error of class Busy, a tier that
	// there is not by one of class Usage, one without room by one of class DiskFull.
	Move(ctx context.Context, id model.ID, to model.Tier) (m client.ModelMove, existing bool, err error)
	// StopMove gives up the move of a model; what was moved stays moved.
	StopMove(ctx context.Context, id model.ID) (client.ModelMove, error)
	// Pin keeps a model from being moved or removed by itself, or lets it loose.
	Pin(ctx context.Context, id model.ID, pinned bool) error
}

// A Cleaning is how space is to be made.
type Cleaning struct {
	// Models are those to remove; nil are those that the rules find, to which the next two belong.
	Models       []model.ID
	MinUnused    *time.Duration // nil is as configured
	KeepFrequent bool
	DryRun       bool
}

// A Cleaned is one thing that a cleanup has decided.
type Cleaned struct {
	Model  model.ID // zero for what belongs to none
	Action string   // client.CleanupRemoveModel and its like
	Reason string   // in words
	Freed  model.Bytes
	Err    error // why it could not be done
}

// offerStorage has what can be done about where models lie, and about the space that they take.
func (s *Server) offerStorage(rt *router) {
	if s.Tiers != nil {
		register(rt, operation{
			id: opMove, method: http.MethodPost, path: Base + "/models/storage/move", tag: tagModels, summary: "Move a model to another tier",
			text: "The answer does not wait for the end: messages of the type `model_storage_move` tell how far it is. The model's path stays, " +
				"and can be used all the while. What is on its way there already is answered with that move.",
			fails: []int{http.StatusNotFound, http.StatusConflict, http.StatusInsufficientStorage},
			asks: map[string]any{
				"move":    map[string]any{"model_id": exampleModel, "tier": "cold"},
				"give up": map[string]any{"model_id": exampleModel, "cancel": true},
			},
			says: exampleMoved(),
		}, s.move)
		register(rt, operation{
			id: opPin, method: http.MethodPost, path: Base + "/models/storage/pin", tag: tagModels, summary: "Pin a model, or let it loose",
			text:  "What is pinned is never moved or removed by itself.",
			fails: []int{http.StatusNotFound},
			asks:  map[string]any{"pin": map[string]any{"model_id": exampleModel, "pinned": true}},
			says:  client.Pinned{Success: true, Message: exampleModel + ": pinned", Model: exampleModel, Pinned: true},
		}, s.pin)
	}
	if s.Clean != nil {
		register(rt, operation{
			id: opCleanup, method: http.MethodPost, path: Base + "/models/cleanup", tag: tagModels, summary: "Make space",
			text: "`auto` removes what the rules find, `manual` the models that are named. What is pinned, open, recent or the last copy " +
				"stays, with the reason. With `dry_run` nothing goes.",
			fails: []int{http.StatusNotFound, http.StatusServiceUnavailable},
			asks: map[string]any{
				"see what would go": map[string]any{"cleanup_type": "auto", "min_unused_days": 30, "dry_run": true},
				"remove":            map[string]any{"cleanup_type": "manual", "models_to_remove": []string{exampleModel}},
			},
			says: exampleCleanedUp(),
		}, s.cleanUp)
	}
	if s.Use != nil {
		register(rt, operation{
			id: opUse, method: http.MethodPost, path: Base + "/models/usage", tag: tagModels, summary: "Count a use of a model",
			text:  "By the uses it is known which models belong on the fast disk, and which could go.",
			fails: []int{http.StatusNotFound},
			asks:  map[string]any{"use": map[string]any{"model_id": exampleModel, "operation": "generate", "duration_ms": 1250, "success": true}},
			says:  client.Used{Success: true, Model: exampleModel, At: exampleTime()},
		}, s.use)
	}
}

// named is the model that a body names in that field; without one it says what is wrong.
func named(name, path string, at *huma.PathBuffer, wrong []error) (model.ID, []error) {
	id, err := model.ParseID(name)
	if err != nil {
		wrong = append(wrong, &huma.ErrorDetail{Location: at.With(path), Message: err.Error(), Value: name})
	}
	return id, wrong
}

// moveBody is a client.MoveRequest.
type moveBody struct {
	Model  string `json:"model_id" doc:"The model: org/name, or the URL of a file or of a folder." example:"acme/tiny-llm"`
	Tier   string `json:"tier,omitempty" enum:"hot,warm,cold" doc:"Where to."`
	Cancel bool   `json:"cancel,omitempty" doc:"Instead of tier: give up the move that is under way. What was moved stays moved."`
	id     model.ID
}

// Resolve refuses what is wrong with fields together.
func (m *moveBody) Resolve(_ huma.Context, at *huma.PathBuffer) (wrong []error) {
	m.id, wrong = named(m.Model, "model_id", at, nil)
	switch {
	case m.Tier == "" && !m.Cancel:
		wrong = append(wrong, &huma.ErrorDetail{Location: at.With("tier"), Message: "it is missing; name one of hot, warm, cold"})
	case m.Tier != "" && m.Cancel:
		wrong = append(wrong, &huma.ErrorDetail{Location: at.With("cancel"), Message: "it stands instead of tier"})
	}
	return wrong
}

type moveRequest struct{ Body moveBody }

// move begins a move, or gives it up.
func (s *Server) move(ctx context.Context, r *moveRequest) (*client.Moved, error) {
	id, name := r.Body.id, r.Body.id.Public()
	if r.Body.Cancel {
		aim(ctx, "cancel "+name)
		m, err := s.Tiers.StopMove(ctx, id)
		if err != nil {
			return nil, err
		}
		return &client.Moved{Success: true, Message: name + ": its move is given up", ModelMove: m}, nil
	}
	aim(ctx, name+" to "+r.Body.Tier)
	m, existing, err := s.Tiers.Move(ctx, id, model.Tier(r.Body.Tier))
	switch model.ClassOf(err) {
	case model.Busy:
		return nil, s.occupied(err, id)
	case model.Usage:
		return nil, invalid("tier", "%v", err)
	}
	if err != nil {
		return nil, err
	}
	did := "is moved to the " + m.To + " tier"
	switch {
	case existing:
		did = "is on its way to the " + m.To + " tier already"
	case m.State == client.MoveDone:
		did = "is in the " + m.To + " tier already"
	}
	return &client.Moved{Success: true, Message: name + ": " + did, Existing: existing, ModelMove: m}, nil
}

// occupied refuses what cannot be done with a model while something else is: it says what, and what that allows.
func (s *Server) occupied(err error, id model.ID) error {
	e := failure(err)
	refused := &Error{
		Code: WrongState, Message: e.Message, Class: model.Busy, Model: id.Public(), State: "MOVING", Allowed: []string{"cancel"}, Status: http.StatusConflict,
	}
	if s.Queue == nil {
		return refused
	}
	for _, d := range s.Queue.List() {
		if of(d, id) && running(d.State) {
			refused.State, refused.Allowed = status(d.State), queue.Actions(d)
		}
	}
	return refused
}

// pinBody is a client.PinRequest.
type pinBody struct {
	Model  string `json:"model_id" doc:"The model: org/name, or the URL of a file or of a folder." example:"acme/tiny-llm"`
	Pinned bool   `json:"pinned" doc:"Whether it is to stay."`
	id     model.ID
}

// Resolve refuses what names no model.
func (p *pinBody) Resolve(_ huma.Context, at *huma.PathBuffer) (wrong []error) {
	p.id, wrong = named(p.Model, "model_id", at, nil)
	return wrong
}

type pinRequest struct{ Body pinBody }

func (s *Server) pin(ctx context.Context, r *pinRequest) (*client.Pinned, error) {
	name, verb, did := r.Body.id.Public(), "pin ", "pinned"
	if !r.Body.Pinned {
		verb, did = "unpin ", "no longer pinned"
	}
	aim(ctx, verb+name)
	if err := s.Tiers.Pin(ctx, r.Body.id, r.Body.Pinned); err != nil {
		return nil, err
	}
	return &client.Pinned{Success: true, Message: name + ": " + did, Model: name, Pinned: r.Body.Pinned}, nil
}

// cleanupBody is a client.Cleanup.
type cleanupBody struct {
	Type          string   `json:"cleanup_type" enum:"auto,manual" doc:"Whether the rules choose, or models_to_remove does."`
	Models        []string `json:"models_to_remove,omitempty" maxItems:"1000" doc:"Of manual: the models to remove, with all of their revisions."`
	MinUnusedDays *float64 `json:"min_unused_days,omitempty" minimum:"0" maximum:"36500" doc:"Of auto: only models that nobody has used for so long; the default is as configured."`
	KeepFrequent  *bool    `json:"preserve_frequently_used,omitempty" doc:"Of auto: models that are used often stay; the default is true."`
	DryRun        bool     `json:"dry_run,omitempty" doc:"Only say what would go."`
	ids           []model.ID
}

// Resolve refuses what is wrong with fields together.
func (c *cleanupBody) Resolve(_ huma.Context, at *huma.PathBuffer) (wrong []error) {
	blame := func(path, message string) {
		wrong = append(wrong, &huma.ErrorDetail{Location: at.With(path), Message: message})
	}
	manual := c.Type == client.CleanupManual
	switch {
	case manual && len(c.Models) == 0:
		blame("models_to_remove", "it is missing; name the models, or let the rules choose with the type auto")
	case !manual && len(c.Models) > 0:
		blame("models_to_remove", "the type auto chooses by itself; name models with the type manual")
	}
	if manual && c.MinUnusedDays != nil {
		blame("min_unused_days", "it is for the type auto: what is named goes, however lately it was used")
	}
	if manual && c.KeepFrequent != nil {
		blame("preserve_frequently_used", "it is for the type auto: what is named goes, however often it is used")
	}
	for i, name := range c.Models {
		var id model.ID
		id, wrong = named(name, fmt.Sprintf("models_to_remove[%d]", i), at, wrong)
		if !slices.Contains(c.ids, id) {
			c.ids = append(c.ids, id)
		}
	}
	return wrong
}

type cleanupRequest struct{ Body cleanupBody }

// cleanUp makes space.
func (s *Server) cleanUp(ctx context.Context, r *cleanupRequest) (*client.CleanedUp, error) {
	b := r.Body
	c := Cleaning{Models: b.ids, KeepFrequent: b.KeepFrequent == nil || *b.KeepFrequent, DryRun: b.DryRun}
	if b.MinUnusedDays != nil {
		c.MinUnused = new(time.Duration(*b.MinUnusedDays * 24 * float64(time.Hour)))
	}
	what := b.Type
	if b.DryRun {
		what += ", dry run"
	}
	for i, id := range b.ids {
		if i == 5 {
			what += fmt.Sprintf(" and %d more", len(b.ids)-i)
			break
		}
		what += " " + id.Public()
	}
	aim(ctx, what)
	decided, err := s.Clean(ctx, c)
	if err != nil {
		return nil, err
	}
	return cleaned(decided, b.DryRun), nil
}

// cleaned is what was decided, on the wire. Each model counts once: as an error if anything went wrong with it, as removed if
// all of it went, else as preserved.
func cleaned(decided []Cleaned, dryRun bool) *client.CleanedUp {
	a := &client.CleanedUp{
		ID: "cl_" + strings.ToLower(rand.Text()[:16]), DryRun: dryRun, Removed: []string{}, Preserved: []string{}, Items: []client.CleanupResult{},
	}
	failed, gone := map[string]bool{}, map[string]bool{}
	var names []string
	for _, d := range decided {
		one := client.CleanupResult{Action: d.Action, Reason: d.Reason}
		if !d.Model.IsZero() {
			one.Model = d.Model.Public()
			if !slices.Contains(names, one.Model) {
				names = append(names, one.Model)
			}
		}
		switch {
		case d.Err != nil:
			one.Error = d.Err.Error()
			failed[one.Model] = true
		case d.Action == client.CleanupRemoveModel:
			gone[one.Model] = true
			fallthrough
		case d.Action != client.CleanupKeep:
			one.FreedBytes = int64(d.Freed)
			a.FreedBytes += one.FreedBytes
		}
		a.Items = append(a.Items, one)
	}
	for _, name := range names {
		switch {
		case failed[name]:
		case gone[name]:
			a.Removed = append(a.Removed, name)
		default:
			a.Preserved = append(a.Preserved, name)
		}
	}
	a.SpaceFreedGB = float64(a.FreedBytes) / float64(model.GiB)
	a.Summary = client.CleanupSummary{Removed: len(a.Removed), Preserved: len(a.Preserved), Errors: len(failed)}
	a.Summary.Processed = a.Summary.Removed + a.Summary.Preserved + a.Summary.Errors
	a.Success = len(failed) == 0
	verb := "removed %d, kept %d, freed %s"
	if dryRun {
		verb = "would remove %d, keep %d and free %s"
	}
	a.Message = fmt.Sprintf(verb, len(a.Removed), len(a.Preserved), model.Bytes(a.FreedBytes))
	if n := len(failed); n > 0 {
		a.Message += fmt.Sprintf("; %d could not be cleaned up, see items", n)
	}
	return a
}

// useBody is a client.Use.
type useBody struct {
	Model      string   `json:"model_id" doc:"The model: org/name, or the URL of a file or of a folder." example:"acme/tiny-llm"`
	Operation  string   `json:"operation,omitempty" maxLength:"64" doc:"What was done, such as generate."`
	DurationMS *float64 `json:"duration_ms,omitempty" minimum:"0" maximum:"1e12" doc:"How long it took."`
	Success    *bool    `json:"success,omitempty" doc:"Whether it succeeded; the default is true."`
	Bytes      int64    `json:"bytes,omitempty" minimum:"0" doc:"How much was read or made."`
	id         model.ID
}

// Resolve refuses what names no model.
func (u *useBody) Resolve(_ huma.Context, at *huma.PathBuffer) (wrong []error) {
	u.id, wrong = named(u.Model, "model_id", at, nil)
	return wrong
}

type useRequest struct{ Body useBody }

// use counts a use. It is no change that anybody would look for in the audit trail, and there may be hundreds a second.
func (s *Server) use(ctx context.Context, r *useRequest) (*client.Used, error) {
	aim(ctx, r.Body.id.Public())
	u := model.Use{
		Model: r.Body.id, At: time.Now().UTC(), By: model.UseByAPI, Operation: r.Body.Operation, Bytes: model.Bytes(r.Body.Bytes),
		OK: r.Body.Success == nil || *r.Body.Success,
	}
	if r.Body.DurationMS != nil {
		u.Duration = time.Duration(*r.Body.DurationMS * float64(time.Millisecond))
	}
	if err := s.Use(ctx, u); err != nil {
		return nil, err
	}
	hush(ctx)
	return &client.Used{Success: true, Model: u.Model.Public(), At: u.At}, nil
}
