package model

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"
)

// Class sorts errors by what is to be done about them: it is the row of the retry table and the
// label of the retry metric. The zero Class is Other.
type Class uint8

// The classes of failure.
const (
	Other        Class = iota
	Timeout            // no answer or no byte for too long
	Reset              // the connection broke
	Truncated          // the body ended early
	ServerError        // 5xx, 408
	RateLimited        // 429
	Auth               // 401, 403: no token, bad token, gated, not permitted
	NotFound           // model, revision or file does not exist
	RangeRefused       // 416, an ignored Range, a wrong Content-Range
	Integrity          // bytes, sizes or validators that are not what was promised
	DiskFull           // ENOSPC, EDQUOT, or less free space than needed
	DiskError          // any other failure of the local disk
	Usage              // the request or the configuration is wrong
	Busy               // another process owns the store
	Cancelled          // the caller stopped it
	Expired            // a signed URL is no longer valid; renewing it is the remedy
	Offline            // the network is needed and --offline forbids it
)

var classNames = [...]string{
	"other", "timeout", "reset", "truncated", "server_error", "rate_limited", "auth", "not_found",
	"range_refused", "integrity", "disk_full", "disk_error", "usage", "busy", "cancelled", "expired", "offline",
}

// String is the name used in JSON, logs and metric labels.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "other"
}

// Error is what went wrong, to what, and what to do about it. All packages return it where a caller
// may want to decide by Class; it prints as one sentence.
type Error struct {
	Op    string        // what was being done: "resolve", "fetch", "verify", "publish", …
	Class Class         // decides retry policy and exit code
	Model ID            // zero when no model is concerned
	File  string        // path in the model or on disk; empty when none
	URL   string        // where from; printed without its query, since signed links carry secrets
	Hint  string        // what to do, in the imperative; empty when there is nothing to say
	After time.Duration // the server's own wish for how long to wait; 0 when it had none
	Short Bytes         // of DiskFull: how much space is missing; 0 when nobody knows
	Err   error         // the cause
}

// Error prints "op model: file: cause (url); hint".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if !e.Model.IsZero() {
		name := e.Model.String()
		if e.Model.Scheme == HTTPS {
			name = Redact(name) // people do pass signed links
		}
		b.WriteString(" " + name)
	}
	if e.File != "" {
		b.WriteString(": " + e.File)
	}
	b.WriteString(": ")
	if e.Err != nil {
		b.WriteString(e.Err.Error())
	} else {
		b.WriteString(strings.ReplaceAll(e.Class.String(), "_", " "))
	}
	if e.URL != "" {
		b.WriteString(" (" + Redact(e.URL) + ")")
	}
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf is the class of the outermost *Error in err's chain; context errors are Cancelled, and
// nil or foreign errors are Other.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Cancelled
	}
	return Other
}

// Redact strips user, query and fragment from a URL, for messages and logs.
func Redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "a URL that cannot be parsed"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
