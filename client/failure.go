package client

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"ema/internal/model"
)

// A Class sorts failures by what is to be done about them. On the wire it is its name.
//
// Errors and their classes are all that this package takes from the inside of the house: a failure must be of the same
// class on both sides of the wire, so that a command exits alike with and without a daemon, and one table has them all.
type Class = model.Class

// The classes that an answer can be of, besides those of a single download's failure.
const (
	ClassOther       = model.Other
	ClassTimeout     = model.Timeout
	ClassServerError = model.ServerError
	ClassRateLimited = model.RateLimited
	ClassAuth        = model.Auth
	ClassNotFound    = model.NotFound
	ClassIntegrity   = model.Integrity
	ClassDiskFull    = model.DiskFull
	ClassUsage       = model.Usage
	ClassBusy        = model.Busy
	ClassCancelled   = model.Cancelled
)

// Code says in one word for programs why a request failed.
type Code string

// The codes.
const (
	Malformed     Code = "MALFORMED_REQUEST"
	Invalid       Code = "VALIDATION_FAILED"
	ModelNotFound Code = "MODEL_NOT_FOUND"
	Unauthorized  Code = "UNAUTHORIZED" // no key, or one that is not known
	RateLimited   Code = "RATE_LIMITED"
	NoEndpoint    Code = "ENDPOINT_NOT_FOUND"
	WrongMethod   Code = "METHOD_NOT_ALLOWED"
	WrongState    Code = "WRONG_STATE"
	NotPermitted  Code = "NOT_PERMITTED"
	QueueFull     Code = "QUEUE_FULL"
	NoSpace       Code = "NO_SPACE"
	NotReady      Code = "NOT_READY"
	Upstream      Code = "UPSTREAM_FAILED"
	Internal      Code = "INTERNAL_ERROR"

	BenchmarkTaken Code = "BENCHMARK_RUNNING"   // another one
	NoBenchmark    Code = "BENCHMARK_NOT_FOUND" // or no baseline
)

// An Error is an answer that says why not. It prints as the daemon's own sentence, and is of the class that the
// failure has there, so that a command exits alike with and without a daemon.
type Error struct {
	Code      Code
	Message   string
	Class     Class
	Model     string   // empty when none is concerned
	State     string   // WrongState: the state that the download, or what else it is about, is in
	Allowed   []string // WrongState: what it allows
	After     time.Duration
	Short     int64        // NoSpace: how many bytes are missing; 0 when nobody knows
	Freeable  int64        // NoSpace: how many bytes could be freed; 0 when nobody knows
	Fields    []FieldError // Invalid: all of them; nil when the sentence says it all
	Benchmark string       // BenchmarkTaken: the one that runs
	RequestID string
	Status    int // of HTTP; 0 when the error came in another way
}

// Error is the sentence.
func (e *Error) Error() string { return e.Message }

// Unwrap gives the class to model.ClassOf.
func (e *Error) Unwrap() error {
	id, _ := model.ParseID(e.Model) //nolint:errcheck // the zero ID names nothing
	return &model.Error{Op: "ask the daemon", Class: e.Class, Model: id, After: e.After, Short: model.Bytes(e.Short), Err: errors.New(e.Message)}
}

// classNamed is the reverse of model.Class.String.
func classNamed(name string) Class {
	for c := model.Other; c <= model.Offline; c++ {
		if c.String() == name {
			return c
		}
	}
	return model.Other
}

// An Envelope is an Error on the wire: the body of each answer that is none of success.
type Envelope struct {
	Error Problem `json:"error"`
}

// A Problem is what an Envelope holds.
type Problem struct {
	Code      Code      `json:"code"`
	Message   string    `json:"message"`
	Details   Details   `json:"details"`
	Timestamp time.Time `json:"timestamp"`
	RequestID string    `json:"request_id"`
}

// Details are what programs may want to know of a Problem.
type Details struct {
	Class             string       `json:"class"`
	Model             string       `json:"model_id,omitempty"`
	State             string       `json:"state,omitempty"`           // of WRONG_STATE: the state that the download is in
	Allowed           []string     `json:"allowed_actions,omitempty"` // of WRONG_STATE: what it allows
	RetryAfterSeconds float64      `json:"retry_after_seconds,omitempty"`
	ShortBytes        int64        `json:"short_bytes,omitempty"`    // of NO_SPACE; absent when nobody knows
	FreeableBytes     int64        `json:"freeable_bytes,omitempty"` // the same
	Fields            []FieldError `json:"fields,omitempty"`         // of VALIDATION_FAILED
	Benchmark         string       `json:"benchmark_id,omitempty"`   // of BENCHMARK_RUNNING: the one that runs
}

// A FieldError is one field of a request that can't be.
type FieldError struct {
	Path    string `json:"path"` // in the request, e.g. bandwidth_limit_mbps, or query.page
	Message string `json:"message"`
	Value   any    `json:"value,omitempty"` // as it was given; absent when it is long or secret
}

// classOf is the class of an answer that names none: it is not ours, but of something in between.
func classOf(httpStatus int) Class {
	switch {
	case httpStatus == http.StatusNotFound:
		return model.NotFound
	case httpStatus == http.StatusUnauthorized || httpStatus == http.StatusForbidden:
		return model.Auth
	case httpStatus == http.StatusTooManyRequests:
		return model.RateLimited
	case httpStatus == http.StatusInsufficientStorage:
		return model.DiskFull
	case httpStatus >= 500:
		return model.ServerError
	}
	return model.Usage
}

// errorOf reads the Error out of an answer.
func (c *Client) errorOf(res *http.Response) error {
	var answer Envelope
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&answer); err != nil || answer.Error.Message == "" {
		return c.stranger(res, res.Status+" without saying why")
	}
	e := answer.Error
	return &Error{
		Code: e.Code, Message: e.Message, Class: classNamed(e.Details.Class), Model: e.Details.Model,
		State: e.Details.State, Allowed: e.Details.Allowed, Short: e.Details.ShortBytes,
		Freeable: e.Details.FreeableBytes, Fields: e.Details.Fields, Benchmark: e.Details.Benchmark,
		After:     time.Duration(e.Details.RetryAfterSeconds * float64(time.Second)),
		RequestID: e.RequestID, Status: res.StatusCode,
	}
}

// stranger is the Error about an answer that a daemon would not give: something in between, or in its place, has given it.
func (c *Client) stranger(res *http.Response, how string) error {
	return &Error{Message: c.said(how), Class: classOf(res.StatusCode), Status: res.StatusCode, RequestID: res.Header.Get("X-Request-Id")}
}

// said is the sentence about an answer that a daemon would not give.
func (c *Client) said(how string) string {
	if c.where == "" {
		return "the daemon answers " + how + "; is something else behind that address?"
	}
	return "the daemon at " + c.where + " answers " + how + "; is something else behind that address?"
}
