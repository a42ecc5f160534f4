package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/danielgtaylor/huma/v2/validation"

	"ema/client"
	"ema/internal/api/live"
	"ema/internal/api/trust"
	"ema/internal/model"
	"ema/internal/queue"
)

// Codes beside those of package client.
const (
	BodyTooLarge Code = "BODY_TOO_LARGE"
	NotJSON      Code = "UNSUPPORTED_MEDIA_TYPE"
	Forgotten    Code = "EVENTS_FORGOTTEN" // since= is before the oldest event that is kept
	ProfileTaken Code = "PROFILE_RUNNING"  // another one is being taken
	NotRecording Code = "NOT_RECORDING"    // the settings do not let the flight recorder run
)

// A FieldError is one mistake in settings. An error whose method Fields returns several of them is answered with all.
type FieldError struct {
	Path    string // the key
	Value   string // as it was given, shortened, without secrets; may be empty
	Problem string // what is wrong with it
	Want    string // what is allowed; may be empty
	Nearest string // the known key that is spelled most like Path; may be empty
}

// sentence is what is wrong and what to do.
func (f FieldError) sentence() string {
	s := f.Problem
	if f.Want != "" {
		s += "; want " + f.Want
	}
	if f.Nearest != "" {
		s += "; did you mean " + f.Nearest + "?"
	}
	return s
}

// mistakes is an error that is about fields; those of the settings satisfy it.
type mistakes interface {
	error
	Fields() []FieldError
}

// A refusal is an Error as Huma wants to have it.
type refusal struct{ because *Error }

// Error is the sentence.
func (r refusal) Error() string { return r.because.Message }

// GetStatus is the status of the answer.
func (r refusal) GetStatus() int { return r.because.Status }

// failure is what becomes of err on the wire.
func failure(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if d, ok := errors.AsType[*trust.Denied](err); ok {
		return &Error{Code: codeOf(d.Status), Message: d.Error(), Class: d.Class(), After: d.After, Status: d.Status}
	}
	if r, ok := errors.AsType[*live.Refusal](err); ok {
		e := &Error{Code: codeOf(r.Status), Message: r.Error(), Class: model.ClassOf(r.Err), Status: r.Status}
		for _, f := range r.Fields {
			e.Fields = append(e.Fields, client.FieldError{Path: "query." + f.Name, Message: f.Message})
		}
		return e
	}
	e := &Error{Message: err.Error(), Class: model.ClassOf(err)}
	e.Status, e.Code = answerOf(e.Class)
	if m, ok := errors.AsType[*model.Error](err); ok {
		e.After, e.Short = m.After, int64(m.Short)
		if !m.Model.IsZero() {
			e.Model = m.Model.Public()
		}
	}
	if m, ok := errors.AsType[mistakes](err); ok {
		e.Status, e.Code, e.Class = http.StatusUnprocessableEntity, Invalid, model.Usage
		for _, f := range m.Fields() {
			one := client.FieldError{Path: f.Path, Message: f.sentence()}
			if f.Value != "" {
				one.Value = f.Value
			}
			e.Fields = append(e.Fields, one)
		}
	}
	if m, ok := errors.AsType[*MeasuringError](err); ok {
		e.Status, e.Code, e.Class, e.Benchmark = http.StatusConflict, BenchmarkTaken, model.Busy, m.ID
	}
	if errors.Is(err, queue.ErrFull) {
		e.Status, e.Code = http.StatusTooManyRequests, QueueFull
	}
	if s, ok := errors.AsType[*queue.StateError](err); ok {
		e.Status, e.Code, e.State, e.Allowed = http.StatusConflict, WrongState, status(s.State), s.Allowed
	}
	if e.Status == http.StatusTooManyRequests && e.After == 0 {
		e.After = queuePatience // nobody knows when there will be room; whoever comes back soon finds out
	}
	return e
}

// queuePatience is when to ask again for what there was no room for.
const queuePatience = 30 * time.Second

// answerOf is how a class of failures is answered. The class itself goes along, so the way back loses nothing.
func answerOf(c model.Class) (int, Code) {
	switch c {
	case model.Usage:
		return http.StatusUnprocessableEntity, Invalid
	case model.NotFound:
		return http.StatusNotFound, ModelNotFound
	case model.Auth:
		return http.StatusForbidden, NotPermitted
	case model.RateLimited:
		return http.StatusTooManyRequests, RateLimited
	case model.DiskFull:
		return http.StatusInsufficientStorage, NoSpace
	case model.Busy, model.Cancelled, model.Offline:
		return http.StatusServiceUnavailable, NotReady
	case model.Timeout, model.Reset, model.Truncated, model.ServerError:
		return http.StatusBadGateway, Upstream
	}
	return http.StatusInternalServerError, Internal
}

// codeOf is the code of an answer of which the status is all that is known.
func codeOf(status int) Code {
	switch status {
	case http.StatusUnauthorized:
		return Unauthorized
	case http.StatusForbidden:
		return NotPermitted
	case http.StatusTooManyRequests:
		return RateLimited
	case http.StatusRequestEntityTooLarge:
		return BodyTooLarge
	case http.StatusUnsupportedMediaType:
		return NotJSON
	case http.StatusUnprocessableEntity:
		return Invalid
	case http.StatusGone:
		return Forgotten
	}
	if status >= 500 {
		return Internal
	}
	return Malformed
}

// Refuse answers with err, in the envelope of every answer that says no. Those that stand before and behind the server -
// a trust.Guard, and handlers that write by themselves - refuse by it, so that all sound alike. It understands *client.Error,
// *trust.Denied, *live.Refusal, *model.Error and what the queue returns.
func (s *Server) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	identify(w.Header())
	if d, ok := errors.AsType[*trust.Denied](err); ok {
		d.Mark(w.Header())
	}
	e := failure(err)
	s.answer(w, e.Status, s.envelope(w.Header(), r, e))
}

// envelope is e on the wire. It sets the headers that go with e, and tells the log and the audit trail.
func (s *Server) envelope(h http.Header, r *http.Request, e *Error) envelope {
	id := h.Get("X-Request-Id")
	if e.Status >= 500 && e.Status != http.StatusInsufficientStorage {
		s.Log.Warn("request failed", "method", r.Method, "path", r.URL.Path, "error", e.Message, "request", id)
	}
	if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
		v.result = e.Code
	}
	if e.After > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.After.Seconds()))))
	}
	return envelope{Error: client.Problem{
		Code: e.Code, Message: e.Message, Timestamp: time.Now().UTC(), RequestID: id,
		Details: details{
			Class: e.Class.String(), Model: e.Model, State: e.State, Allowed: e.Allowed,
			RetryAfterSeconds: e.After.Seconds(), ShortBytes: e.Short,
			FreeableBytes: e.Freeable, Fields: e.Fields, Benchmark: e.Benchmark,
		},
	}}
}

// envelop is the transformer that makes envelopes of what handlers return as errors and of what Huma itself refuses. It is
// one of this API alone: huma.NewError would be everybody's.
func (rt *router) envelop(ctx huma.Context, _ string, v any) (any, error) {
	var e *Error
	switch wrong := v.(type) {
	case refusal:
		e = wrong.because
	case *huma.ErrorModel:
		e = rt.understand(ctx.Operation(), wrong)
	default:
		return v, nil
	}
	r, w := humago.Unwrap(ctx)
	w.Header().Set("Content-Type", "application/json") // Huma has set that of its own errors
	return rt.s.envelope(w.Header(), r, e), nil
}

// mostFields is how many mistakes one answer tells of: a body may have as many as it has bytes.
const mostFields = 100

// understand is what Huma refuses, in our words.
func (rt *router) understand(op *huma.Operation, wrong *huma.ErrorModel) *Error {
	e := &Error{Code: codeOf(wrong.Status), Message: wrong.Detail, Class: model.Usage, Status: wrong.Status}
	switch {
	case wrong.Status == http.StatusUnsupportedMediaType:
		e.Message = "the body is not declared as JSON; send it with Content-Type: application/json"
	case wrong.Status == http.StatusBadRequest && len(wrong.Errors) > 0:
		e.Message = "the body is no JSON: " + wrong.Errors[0].Message
	case wrong.Status == http.StatusBadRequest:
		e.Message = "the body is empty; send JSON"
	case len(wrong.Errors) > 0:
		known := rt.known(op)
		for _, d := range wrong.Errors {
			f := field(d, known)
			if !slices.ContainsFunc(e.Fields, func(o client.FieldError) bool { return o.Path == f.Path }) {
				e.Fields = append(e.Fields, f)
			}
			if len(e.Fields) == mostFields {
				break
			}
		}
		slices.SortStableFunc(e.Fields, func(a, b client.FieldError) int { return cmp.Compare(a.Path, b.Path) })
		e.Message = sentences(e.Fields)
	}
	return e
}

// known are the fields that the body of op has.
func (rt *router) known(op *huma.Operation) []string {
	if op.RequestBody == nil || op.RequestBody.Content["application/json"] == nil {
		return nil
	}
	schema := op.RequestBody.Content["application/json"].Schema
	for schema.Ref != "" {
		schema = rt.api.OpenAPI().Components.Schemas.SchemaFromRef(schema.Ref)
	}
	var all []string
	for name := range schema.Properties {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// sentences is all of them in one.
func sentences(all []client.FieldError) string {
	var s []string
	for _, f := range all {
		switch {
		case f.Path == "":
			s = append(s, "the body: "+f.Message)
		case strings.HasPrefix(f.Message, unknownField):
			s = append(s, f.Message) // it names the field itself
		default:
			s = append(s, f.Path+": "+f.Message)
		}
	}
	return strings.Join(s, "; ")
}

const unknownField = "there is no field "

// field is one mistake that Huma found. Fields of the body are called by their names, those of the query by query.NAME.
func field(d *huma.ErrorDetail, known []string) client.FieldError {
	f := client.FieldError{Path: strings.TrimPrefix(strings.TrimPrefix(d.Location, "body"), "."), Message: d.Message}
	if required, ok := strings.CutPrefix(d.Message, "expected required property "); ok {
		name := strings.TrimSuffix(required, " to be present")
		return client.FieldError{Path: strings.TrimPrefix(f.Path+"."+name, "."), Message: "it is missing"}
	}
	if d.Message == validation.MsgUnexpectedProperty {
		name := f.Path[strings.LastIndexByte(f.Path, '.')+1:]
		f.Path, f.Message = clip(f.Path), unknownField+strconv.Quote(clip(name))
		if near := nearest(name, known); near != "" {
			f.Message += "; did you mean " + near + "?"
		}
		return f
	}
	f.Path = clip(f.Path)
	switch value := d.Value.(type) {
	case string:
		// A link may hold a signature, and whoever reads the log of a client should not find it.
		if len(value) <= 100 && !strings.Contains(value, "://") {
			f.Value = value
		}
	case float64, bool, int, int64:
		f.Value = value
	}
	if strings.HasPrefix(d.Message, "expected ") {
		f.Message += ", not " + kindOf(d.Value)
	}
	return f
}

// kindOf tells v from what was wanted: a short value itself, and else what kind of thing it is.
func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool, float64, int, int64:
		return fmt.Sprint(v)
	case string:
		if strings.Contains(v, "://") {
			return "a link"
		}
		return strconv.Quote(clip(v))
	case []any:
		return "an array"
	}
	return "an object"
}

// nearest is the known name that is spelled most like name; empty when none is near.
func nearest(name string, known []string) string {
	best, least := "", max(2, len(name)/3)+1
	if len(name) > 64 {
		return ""
	}
	for _, k := range known {
		if n := levenshtein.ComputeDistance(strings.ToLower(name), k); n < least {
			best, least = k, n
		}
	}
	return best
}

// clip shortens foreign text for messages.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

// invalid refuses what was understood and can't be, for a reason that is one of path alone.
func invalid(path, format string, args ...any) error {
	f := client.FieldError{Path: path, Message: fmt.Sprintf(format, args...)}
	return &Error{
		Code: Invalid, Message: sentences([]client.FieldError{f}), Class: model.Usage, Status: http.StatusUnprocessableEntity,
		Fields: []client.FieldError{f},
	}
}

// malformed refuses what was not understood.
func malformed(format string, args ...any) *Error {
	return &Error{Code: Malformed, Message: fmt.Sprintf(format, args...), Class: model.Usage, Status: http.StatusBadRequest}
}

// mostBody is the largest request body, in bytes.
const mostBody = 1 << 20

// unreadable is why a body could not be read.
func unreadable(err error) *Error {
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Error{
			Code: BodyTooLarge, Message: fmt.Sprintf("the body is larger than %d bytes", large.Limit),
			Class: model.Usage, Status: http.StatusRequestEntityTooLarge,
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &Error{Code: Malformed, Message: "the body took too long to come", Class: model.Usage, Status: http.StatusRequestTimeout}
	}
	return malformed("the body ends before it should, or cannot be read")
}

// decode reads a request's body: one JSON object of known fields, and nothing else.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			return malformed("there is more than one JSON object in the body; send one")
		}
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return unreadable(err)
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return invalid(wrong.Field, "a JSON %s does not fit, want %s", wrong.Value, wrong.Type)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return invalid(strings.Trim(name, `"`), "%s%s; check its spelling", unknownField, name)
	}
	return malformed("the body is no JSON object: %v", err)
}
