package trust

import (
	"net/http"
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
