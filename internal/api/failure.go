package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ema/internal/model"
	"ema/internal/queue"
)

// failure is what becomes of err on the wire.
func failure(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
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
	if errors.Is(err, queue.ErrFull) {
		e.Status, e.Code = http.StatusTooManyRequests, QueueFull
	}
	if s, ok := errors.AsType[*queue.StateError](err); ok {
		e.Status, e.Code, e.State, e.Allowed = http.StatusConflict, WrongState, status(s.State), s.Allowed
	}
	return e
}

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
		return http.StatusTooManyRequests, QueueFull
	case model.DiskFull:
		return http.StatusInsufficientStorage, NoSpace
	case model.Busy, model.Cancelled, model.Offline:
		return http.StatusServiceUnavailable, NotReady
	case model.Timeout, model.Reset, model.Truncated, model.ServerError:
		return http.StatusBadGateway, Upstream
	}
	return http.StatusInternalServerError, Internal
}

// refuse answers with err.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := failure(err)
	if e.Status >= 500 && e.Status != http.StatusInsufficientStorage {
		s.Log.Warn("request failed", "method", r.Method, "path", r.URL.Path, "error", e.Message, "request", w.Header().Get("X-Request-Id"))
	}
	if e.After > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.After.Seconds()))))
	}
	var answer envelope
	answer.Error.Code, answer.Error.Message, answer.Error.Timestamp = e.Code, e.Message, time.Now().UTC()
	answer.Error.RequestID = w.Header().Get("X-Request-Id")
	answer.Error.Details = details{
		Class: e.Class.String(), Model: e.Model, State: e.State, Allowed: e.Allowed,
		RetryAfterSeconds: e.After.Seconds(), ShortBytes: e.Short,
		FreeableBytes: e.Freeable, Fields: e.Fields,
	}
	s.answer(w, e.Status, answer)
}

// invalid refuses what was understood and can't be.
func invalid(format string, args ...any) error {
	return &Error{Code: Invalid, Message: fmt.Sprintf(format, args...), Class: model.Usage, Status: http.StatusUnprocessableEntity}
}

// malformed refuses what was not understood.
func malformed(format string, args ...any) error {
	return &Error{Code: Malformed, Message: fmt.Sprintf(format, args...), Class: model.Usage, Status: http.StatusBadRequest}
}

// mostBody is the largest request body, in bytes.
const mostBody = 1 << 20

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
		return &Error{Code: Malformed, Message: fmt.Sprintf("the body is larger than %d bytes", mostBody), Class: model.Usage, Status: http.StatusRequestEntityTooLarge}
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return invalid("%s: a JSON %s does not fit, want %s", wrong.Field, wrong.Value, wrong.Type)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return invalid("there is no field %s; check its spelling", field)
	}
	return malformed("the body is not a JSON object: %v", err)
}
