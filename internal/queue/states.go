package queue

import (
	"fmt"
	"slices"
	"strings"

	"ema/internal/model"
)

// next is the whole life of a download: what may follow each state. A state without a row is final.
//
//nolint:gochecknoglobals // constant
var next = map[model.State][]model.State{
	model.Queued: {model.Resolving, model.Paused, model.Stopped},
	// Completed: everything was here already. Queued: put back, or after a restart.
	model.Resolving:   {model.Downloading, model.Verifying, model.Completed, model.Retrying, model.Queued, model.Paused, model.Failed, model.Stopped},
	model.Downloading: {model.Verifying, model.Completed, model.Retrying, model.Queued, model.Paused, model.Failed, model.Stopped},
	model.Verifying:   {model.Completed, model.Downloading, model.Retrying, model.Queued, model.Paused, model.Failed, model.Stopped},
	model.Retrying:    {model.Queued, model.Paused, model.Stopped},
	model.Paused:      {model.Queued, model.Paused, model.Stopped}, // Paused: for another reason
}

// mayFollow reports whether a download may go from one state to another.
func mayFollow(from, to model.State) bool { return slices.Contains(next[from], to) }

// running reports whether a download in state s is being worked on.
func running(s model.State) bool {
	return s == model.Resolving || s == model.Downloading || s == model.Verifying
}

// Unfinished are all states that are not final.
func Unfinished() []model.State {
	return []model.State{model.Queued, model.Resolving, model.Downloading, model.Verifying, model.Retrying, model.Paused}
}

// The actions of people on downloads.
const (
	Pausing      = "pause"
	Resuming     = "resume"
	Cancelling   = "cancel"
	Prioritizing = "prioritize"
	Limiting     = "limit"
)

// Actions are what may be done with d, as it stands. Nothing may be done with a final one.
//
// What somebody paused cannot be paused again; what paused by itself can, and then waits for that
// somebody. Only what is paused, or waits for its next try, can be resumed.
func Actions(d model.Download) []string {
	if d.State.Final() {
		return nil
	}
	var actions []string
	if d.State != model.Paused || d.Pause != model.ByUser {
		actions = append(actions, Pausing)
	}
	if d.State == model.Paused || d.State == model.Retrying {
		actions = append(actions, Resuming)
	}
	return append(actions, Cancelling, Prioritizing, Limiting)
}

// StateError is an action that a download's state does not allow.
type StateError struct {
	ID      string
	Model   model.ID
	Action  string // that was asked for
	State   model.State
	Allowed []string // actions; none when the state is final
}

// Error names the state and what can be done instead.
func (e *StateError) Error() string {
	can := "it is over; ask for the model again"
	if len(e.Allowed) > 0 {
		can = "allowed are " + strings.Join(e.Allowed, ", ")
	}
	return fmt.Sprintf("%s %s: %s is %s; %s", e.Action, e.ID, e.Model.Public(), e.State, can)
}

// allow returns a *StateError unless the action may be done with d.
func allow(action string, d model.Download) error {
	if can := Actions(d); !slices.Contains(can, action) {
		return &StateError{ID: d.ID, Model: d.Model, Action: action, State: d.State, Allowed: can}
	}
	return nil
}
