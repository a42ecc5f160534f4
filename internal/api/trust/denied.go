package trust

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"ema/internal/model"
)

// Denied is why a request is not carried out. It names no key and nothing that a stranger has sent, so it may be
// shown and logged.
type Denied struct {
	Status  int           // 400, 401, 403 or 429
	Message string        // what is refused, and why
	Hint    string        // what to do, in the imperative
	After   time.Duration // of 429: when to try again
}

// Error prints one sentence: "message; hint".
func (d *Denied) Error() string {
	if d.Hint == "" {
		return d.Message
	}
	return d.Message + "; " + d.Hint
}

// Class is the class of failures that d belongs to.
func (d *Denied) Class() model.Class {
	switch d.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return model.Auth
	case http.StatusTooManyRequests:
		return model.RateLimited
	}
	return model.Usage
}

// Mark sets the headers that an answer with d's status must have.
func (d *Denied) Mark(h http.Header) {
	switch d.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="ema"`)
	case http.StatusTooManyRequests:
		h.Set("Retry-After", seconds(d.After.Seconds()))
	}
}

// seconds is a count of whole seconds, at least one.
func seconds(s float64) string { return strconv.Itoa(max(1, int(math.Ceil(s)))) }
