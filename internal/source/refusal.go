package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"ema/internal/model"
)

// A want says what a request to the hub was after, which decides what a bare 404 means.
type want uint8

const (
	wantRevision want = iota // information or a listing of a revision
	wantFile                 // the content of a file
)

// refusal explains an answer of the hub that is not a success, by the table of errors that hubs
// share (status, X-Error-Code, X-Error-Message); first match wins, in the order of the hub's own
// client. The hub checks existence, then being disabled, then gating, then revision, then file.
func (h *hub) refusal(a *answer, op string, id model.ID, wanted want) error {
	message := h.message(a)
	page := h.base + "/" + id.Name
	e := &model.Error{Op: op, Model: id, URL: a.Request.URL.String(), After: retryAfter(a.Header, time.Now())}
	set := func(class model.Class, err error, hint string) error {
		e.Class, e.Err, e.Hint = class, err, hint
		return e
	}
	const login = `set HF_TOKEN or run "huggingface-cli login"`
	code, anonymous := a.Header.Get("X-Error-Code"), h.wire.token == ""
	switch {
	case code == "RevisionNotFound":
		return set(model.NotFound, ErrRevisionNotFound, "look up its branches and tags at "+page)
	case code == "EntryNotFound":
		return set(model.NotFound, ErrEntryNotFound, "")
	case code == "GatedRepo" && (anonymous || a.StatusCode == http.StatusUnauthorized):
		return set(model.Auth, fmt.Errorf("%w: its licence must be accepted by somebody who is logged in", ErrGated),
			"accept it at "+page+", then "+login)
	case code == "GatedRepo" && strings.Contains(strings.ToLower(message), "awaiting a review"):
		return set(model.Auth, fmt.Errorf("%w: your request awaits a review by its authors", ErrGated), "try again when they have accepted it; see "+page)
	case code == "GatedRepo":
		return set(model.Auth, fmt.Errorf("%w: the token's owner has not been given access", ErrGated), "accept the licence or ask for access at "+page)
	case message == "Access to this resource is disabled.":
		return set(model.Auth, ErrDisabled, "see "+page)
	case code == "RepoNotFound" && anonymous:
		return set(model.NotFound, ErrRepoNotFound, "check its spelling; if it is private, "+login)
	case code == "RepoNotFound":
		return set(model.NotFound, ErrRepoNotFound, "check its spelling; if it is private, the token must belong to somebody who may see it")
	}
	switch s := a.StatusCode; {
	case s == http.StatusUnauthorized && anonymous:
		return set(model.Auth, ErrNoToken, "check its spelling; if it is private, "+login)
	case s == http.StatusUnauthorized:
		return set(model.Auth, ErrBadToken, "it may have expired; make a new one, or unset HF_TOKEN for public models")
	case s == http.StatusForbidden && anonymous:
		return set(model.Auth, withMessage(ErrNotPermitted, "the hub forbids it", message), login)
	case s == http.StatusForbidden:
		return set(model.Auth, withMessage(ErrNotPermitted, "", message), "a fine-grained token needs read access to this model")
	case s == http.StatusNotFound && wanted == wantFile:
		return set(model.NotFound, withMessage(ErrEntryNotFound, "", message), "")
	case s == http.StatusNotFound:
		return set(model.NotFound, withMessage(ErrRepoNotFound, "", message), "check its spelling and its revision")
	case s == http.StatusTooManyRequests:
		hint := ""
		if anonymous {
			hint = "with a token the hub allows more: " + login
		}
		return set(model.RateLimited, errors.New("the hub's rate limit is used up"), hint)
	case s == http.StatusRequestedRangeNotSatisfiable:
		return set(model.RangeRefused, errors.New("the hub says that the range lies outside the file"), "")
	case s == http.StatusRequestTimeout || s >= 500:
		return set(model.ServerError, withMessage(nil, "the hub answered "+a.Status, message), "")
	case s == http.StatusBadRequest:
		return set(model.Usage, withMessage(nil, "the hub refuses the request", message), "")
	}
	return set(model.Other, withMessage(nil, "the hub answered "+a.Status, message), "")
}

// withMessage joins a sentinel (or text alone) and the server's own words.
func withMessage(sentinel error, text, message string) error {
	switch {
	case sentinel != nil && message != "":
		return fmt.Errorf("%w: %s", sentinel, message)
	case sentinel != nil && text != "":
		return fmt.Errorf("%w: %s", sentinel, text)
	case sentinel != nil:
		return sentinel
	case message != "":
		return fmt.Errorf("%s: %s", text, message)
	}
	return errors.New(text)
}

// message finds the server's own words: X-Error-Message, or what the body has in one of the shapes
// that hubs use. It is one line of printable text without our token in it, whatever was sent.
func (h *hub) message(a *answer) string {
	m := a.Header.Get("X-Error-Message")
	if m == "" && !isHTML(a.Header) {
		m = messageOf(a.text(int64(64 * model.KiB)))
	}
	if h.wire.token != "" {
		m = strings.ReplaceAll(m, h.wire.token, "…")
	}
	m = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(m, "?"))
	return clip(strings.TrimSpace(m))
}

// messageOf reads {"error": "text" or ["a","b"]}, {"errors": [{"message": "text"}]} or plain text.
func messageOf(body []byte) string {
	var shape struct {
		Error  json.RawMessage `json:"error"`
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &shape) != nil {
		return string(body)
	}
	var one string
	if json.Unmarshal(shape.Error, &one) == nil {
		return one
	}
	var many []string
	if json.Unmarshal(shape.Error, &many) == nil {
		return strings.Join(many, "; ")
	}
	for _, e := range shape.Errors {
		many = append(many, e.Message)
	}
	return strings.Join(many, "; ")
}

func isHTML(h http.Header) bool {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (t == "text/html" || t == "application/xhtml+xml")
}
